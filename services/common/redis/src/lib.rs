//! Redis as the services see it: one node, or a Cluster of several masters, by the same calls.
//!
//! 1. [`address`] reads what an operator wrote: `redis://` is one node, `redis-cluster://` a Cluster.
//! 2. [`Connection`] runs pipelines. On one node it hands them on as they are. On a Cluster each command goes
//!    to the master of its key's slot ([`slots`]): those of one master in one round trip, all masters at
//!    once, and the answers stand in the order of the commands ([`route`]). [`BlockingCluster`] does the same
//!    for a caller that has a thread of its own and has packed its commands already.
//! 3. A slot that has moved is asked for where it is now (MOVED), a key that is on its way where it will be
//!    (ASK). A master that is away is an error, as one node is, and the next call looks who has its slots.
//! 4. [`witness`] names keys so that every master holds some: how one that lost its memory is found out.
//!
//! Commands must have one key each: then none of them ever crosses slots.

mod address;
mod blocking;
mod cluster;
mod connection;
mod replicas;
mod route;
mod slots;
pub mod witness;

pub use address::check_url;
pub use blocking::{BlockingCluster, Packed};
pub use connection::{Connection, Layout, Master, Settings};
pub use replicas::Replicas;
pub use slots::{Node, key_of, slot_of};
