//! What a run tells while it runs.

/// A line of progress.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// `read log`, `fit ridge`, `fit sequence`, ...
    pub step: &'static str,
    /// For a person.
    pub message: String,
    /// Share of the step that is done, 0 to 1.
    pub share: f64,
    pub epoch: u32,
    pub loss: f64,
    pub validation_ndcg: f64,
    pub events_per_second: f64,
    /// Of the step, about; 0 when nobody knows.
    pub seconds_left: f64,
}

impl Progress {
    pub fn at(step: &'static str) -> Self {
        Self { step, ..Self::default() }
    }

    pub fn note(step: &'static str, share: f64, message: impl Into<String>) -> Self {
        Self { step, share, message: message.into(), ..Self::default() }
    }
}

/// Who looks on: takes the progress and may ask for the end.
pub struct Watch<'a> {
    pub report: &'a dyn Fn(Progress),
    /// Asked often; once it says yes, the run ends with [`crate::Error::Cancelled`].
    pub stop: &'a dyn Fn() -> bool,
}

impl Watch<'_> {
    pub fn report(&self, progress: Progress) {
        (self.report)(progress);
    }
}
