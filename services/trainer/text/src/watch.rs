//! What a training tells while it runs, and how it is stopped.

use crate::quality::Quality;

/// A line of progress.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// `embed`, `fit head`, `fine-tune`, ...
    pub step: &'static str,
    /// Share of the step that is done, 0 to 1.
    pub share: f64,
    /// Passes that are complete.
    pub epoch: u32,
    /// Mean loss since the epoch began.
    pub loss: Option<f64>,
    /// Quality on the validation split, at the end of an epoch.
    pub validation: Option<Quality>,
}

impl Progress {
    pub(crate) fn at(step: &'static str, share: f64) -> Self {
        Self { step, share, ..Self::default() }
    }
}

/// Who looks on: takes the progress and may ask for the end.
pub struct Watch<'a> {
    pub report: &'a dyn Fn(Progress),
    /// Asked often; once it says yes, the training ends with [`crate::Error::Cancelled`].
    pub stop: &'a dyn Fn() -> bool,
}

/// Nobody looks on.
pub const UNWATCHED: Watch<'static> = Watch { report: &|_| {}, stop: &|| false };
