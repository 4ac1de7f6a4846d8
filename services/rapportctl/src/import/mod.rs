//! The import of a file.
//!
//! rows -> [`Recipe`] (events with ids that are the same every time) -> pages of some hundred, each
//! with a [`Receipt`] -> [`Book`] (which pages are done, from the front without a gap) -> [`State`]
//! (where another run goes on) and the rejected rows. [`transfer`] is the way from end to end.

mod book;
mod recipe;
mod rejected;
mod state;
mod transfer;

pub use book::{Book, Page, Receipt, Rejection};
pub use recipe::{Recipe, Shape};
pub use rejected::RejectedFile;
pub use state::{Counts, FileIdentity, State};
pub use transfer::{Keeper, Stop, Way, transfer};
