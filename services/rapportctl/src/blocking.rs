//! Calls into librdkafka block: they run on threads of their own.

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;

/// Runs `work` on a named thread and waits for its result without blocking the runtime.
///
/// # Errors
/// Those of `work`; and when the thread cannot start or dies.
pub async fn on_thread<T, F>(name: &str, work: F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> anyhow::Result<T> + Send + 'static,
{
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The caller may have gone away: then nobody wants the result.
            done.send(work()).is_ok()
        })
        .with_context(|| format!("cannot start the thread {name}"))?;
    let result = result.await.map_err(|_| anyhow!("the thread {name} died"));
    match thread.join() {
        Ok(_) => result?,
        Err(_) => Err(anyhow!("the thread {name} panicked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_becomes_an_error() {
        let result: anyhow::Result<()> = on_thread("doomed", || panic!("on purpose")).await;
        assert!(result.unwrap_err().to_string().contains("doomed"));
        assert_eq!(on_thread("fine", || Ok(7)).await.unwrap(), 7);
    }
}
