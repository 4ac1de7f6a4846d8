use std::{fmt::Display, io, panic, thread, time::Duration};

use tokio::sync::oneshot;

use crate::Lifecycle;

/// A thread that somebody owns: it is joined, and its failure is the service's.
#[derive(Debug)]
pub struct OwnedThread {
    name: String,
    handle: thread::JoinHandle<()>,
    done: oneshot::Receiver<()>,
}

/// Starts a named thread for blocking work (a consumer, transactions, training). When `work`
/// returns an error or panics, the lifecycle fails and the service drains.
///
/// # Errors
/// The operating system gave no thread.
pub fn spawn_thread<E, F>(lifecycle: &Lifecycle, name: &str, work: F) -> io::Result<OwnedThread>
where
    E: Display,
    F: FnOnce() -> Result<(), E> + Send + 'static,
{
    let (send_done, done) = oneshot::channel::<()>();
    let lifecycle = lifecycle.clone();
    let label = name.to_owned();
    let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Dropped last: whoever waits learns that the thread has ended, however it ended.
        let _ended = send_done;
        match panic::catch_unwind(panic::AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(thread = %label, %error, "thread failed");
                lifecycle.fail(format!("{label}: {error}"));
            }
            Err(_) => lifecycle.fail(format!("{label}: panicked")),
        }
    })?;
    Ok(OwnedThread { name: name.to_owned(), handle, done })
}

impl OwnedThread {
    /// Waits for the thread's end, at most for `budget`. Returns whether it ended; one that did not
    /// is left behind and ends with the process.
    pub async fn join_within(self, budget: Duration) -> bool {
        let ended = tokio::time::timeout(budget, self.done).await.is_ok();
        if !ended {
            tracing::warn!(thread = %self.name, ?budget, "thread did not end within its budget");
            return false;
        }
        // The closure has returned: joining takes no time, and its panics were caught inside.
        self.handle.join().is_ok()
    }

    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_fails_or_panics_fails_the_service() {
        let lifecycle = Lifecycle::new();
        let thread = spawn_thread(&lifecycle, "copier", || Err::<(), _>("broker is gone")).unwrap();
        assert!(thread.join_within(Duration::from_secs(5)).await);
        assert_eq!(lifecycle.failure().as_deref(), Some("copier: broker is gone"));

        let lifecycle = Lifecycle::new();
        let thread = spawn_thread::<String, _>(&lifecycle, "copier", || panic!("bug")).unwrap();
        assert!(thread.join_within(Duration::from_secs(5)).await);
        assert_eq!(lifecycle.failure().as_deref(), Some("copier: panicked"));
    }
}
