//! What is added to an event from what it carries, so that nobody downstream reads user agents and
//! query strings again: the client, the referrer, the campaign, the segment.

mod campaign;
mod context;
pub mod page_address;
mod referrer;
mod segment;
mod sources;
pub mod user_agent;

pub use campaign::{campaign, is_tracking};
pub use context::Context;
pub use referrer::referrer;
pub use segment::{Said, segment};
pub use user_agent::client;
