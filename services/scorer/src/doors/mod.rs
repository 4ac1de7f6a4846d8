//! Ways in beside gRPC, each off unless its flag is given. They ask where gRPC asks.

pub mod gorse;
pub mod http;
pub mod raw;
