use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`; a panic in it is its message. State that `work` left half changed must not be used
/// again: here only counts are.
pub(super) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_message() {
        assert_eq!(contained(|| 7), Ok(7));
        assert_eq!(contained(|| panic!("at {}", 5)), Err::<(), _>("at 5".into()));
        assert_eq!(contained(|| panic!("here")), Err::<(), _>("here".into()));
    }
}
