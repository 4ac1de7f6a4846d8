//! What became of the lists that an experiment showed. Each customer who takes part is one unit, from the
//! first list to the end of a window; what the customer did in it is the outcome.
//!
//! Lists and events -> [`Units`] (join in event time, settle when the window has ended) -> [`judge`] (arms in
//! figures, differences with intervals that hold at all times) -> [`broken`] (guard rails). Pure: the feature
//! store follows its log with it, `rapportctl` reads topics.

mod guard;
mod units;
mod verdict;
mod wire;

pub use guard::{Broken, broken};
pub use units::{Happened, Outcome, Shown, ShownItem, Units};
pub use verdict::{Declared, Difference, JudgedArm, PREFERENCE, Report, judge};
pub use wire::{decision_key, status, status_key};
