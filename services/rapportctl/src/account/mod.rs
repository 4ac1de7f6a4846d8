//! Where every raw record went: `received = clean + dead + duplicate`, each of them proven.
//!
//! raw topic (what was received) + clean topic + dead topic, all read committed -> [`Ledger`] ->
//! [`Account`]. A duplicate is proven by the clean record with the same event id that came from
//! other raw coordinates. A replayed dead letter is a raw record like any other; a letter whose
//! original is withheld counts as dead.

mod ledger;
mod topics;

pub use ledger::{Account, EventKey};
pub use topics::{Range, Wanted, parse_position, place_text, receive, wait_for_group};
