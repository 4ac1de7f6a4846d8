//! The online store: how customers, items and trends are packed in Redis, read and written.
//!
//! | what | key | value |
//! |---|---|---|
//! | a customer | `<prefix>:{<tenant>/<customer>}:s` | HASH: `o` fence, `v` version, `t` newest event (ms), `f` features, `h` history, `x` seen, `w` marker |
//! | a customer's cached list | `<prefix>:{<tenant>/<customer>}:l` | STRING, the scorer's own (its `cache/list.rs`) |
//! | an item | `<prefix>:{<tenant>/i/<item>}:p` | HASH: `o<partition>` fence and `s<partition>` partial state of each source partition, `w<partition>` marker |
//! | a tenant's trends | `<prefix>:{<tenant>}:trend` | HASH: as an item's |
//! | how far it is | `<prefix>:{_}:folded` (on a Cluster one for each witness's tag), `<prefix>:{_}:rebuilding` | HASHes of the feature store's own ([`Ledger`]) |
//! | nothing | `<prefix>:{<tag>}:settled` | STRING, written to see whether replicas have all that was written before |
//!
//! The feature store writes all but the lists ([`OnlineWriter`]), each key by compare-and-set on
//! its fence: the `partition:offset` of the last event that the value holds. A write whose base has
//! changed meanwhile is refused, and events at or below the fence are left out, so a replayed event
//! or a consumer that has lost its partition changes nothing. [`OnlineReader`] reads them. A
//! [`Marker`] says which generation of views a state is whole by; there is none until views change.

mod args;
mod error;
mod keys;
mod ledger;
mod marker;
mod reader;
mod record;
mod sizes;
mod walk;
mod writer;

pub use args::{OnlineArgs, ViewsArgs};
pub use error::Error;
pub use keys::Keys;
pub use ledger::{Ledger, Note};
pub use marker::Marker;
pub use reader::OnlineReader;
pub use record::{Standing, StoredCustomer, StoredPartial, StoredShared, parse_fence};
pub use sizes::{SizeSampler, Sizes};
pub use writer::{Marked, OnlineWriter, Outcome, Write};
