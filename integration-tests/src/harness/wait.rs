//! Waiting for a condition with a deadline: the only way a test passes time.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(15);

/// Polls `probe` until it is `Ok`.
///
/// # Panics
/// After `within`, with `what` and the last `Err`.
pub async fn wait_until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        let why = match probe().await {
            Ok(value) => return value,
            Err(why) => why,
        };
        assert!(started.elapsed() < within, "waited {within:?} for: {what}; last seen: {why}");
        tokio::time::sleep(POLL).await;
    }
}

/// The same outside a runtime.
///
/// # Panics
/// After `within`, with `what` and the last `Err`.
pub fn wait_until_blocking<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        let why = match probe() {
            Ok(value) => return value,
            Err(why) => why,
        };
        assert!(started.elapsed() < within, "waited {within:?} for: {what}; last seen: {why}");
        std::thread::sleep(POLL);
    }
}

/// `Ok(())` or the text: turns a condition into a probe's answer.
pub fn check(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}
