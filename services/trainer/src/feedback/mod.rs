//! The feedback loop: what was shown, joined with what came of it.
//!
//! [`join()`] credits events to lists; [`replay`] asks what another model would have earned at the places
//! that were drawn by chance; [`hit_rate`] watches how often lists are acted on; [`rows`] writes all of it
//! as a table. The first three are pure.

pub mod command;
pub mod hit_rate;
mod join;
pub mod replay;
mod rows;

pub use join::{Credit, Credited, Outcomes, join};
