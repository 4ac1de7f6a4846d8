//! What a section is turned into once, so that an event costs little: patterns, tables of names.

use std::sync::OnceLock;

/// Made on first use from the section that holds it. It follows from the section's fields, so it
/// takes no part in comparing, and a copy makes its own.
#[derive(Debug)]
pub(crate) struct Compiled<T>(OnceLock<T>);

impl<T> Compiled<T> {
    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(make)
    }
}

impl<T> Default for Compiled<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Clone for Compiled<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Compiled<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
