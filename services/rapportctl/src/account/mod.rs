//! Where every raw record went: `received = clean + dead + duplicate`, each of them proven.
//!
//! raw topic (what was received) + clean topic, read committed + dead topic -> [`Ledger`] ->
//! [`Account`]. A duplicate is proven by the clean record with the same event id that came from
//! other raw coordinates.

mod ledger;
mod topics;

pub use ledger::{Account, EventKey};
pub use topics::{Range, Wanted, parse_position, take, wait_for_group};
