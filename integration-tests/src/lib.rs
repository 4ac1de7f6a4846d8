//! The real stack on this machine, for the flows that it must pass and for the benchmarks.
//!
//! One Kafka broker and one Redis for each test binary ([`harness::kafka`], [`harness::redis`]), the
//! five services as processes of their own for each test ([`harness::stack`]), typed clients, and
//! conditions to wait for instead of sleeps.
//!
//! The harness panics where something does not come up: the test that asked for it fails there, with
//! the reason and the end of the logs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test harness fails by panicking, in the test that called it, and shows logs on standard error"
)]

pub mod accounting;
pub mod chaos;
pub mod events;
pub mod harness;
pub mod load;
pub mod offline;
pub mod walks;
