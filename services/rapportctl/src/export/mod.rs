//! Every customer's list: whose ([`customers`]), made by the scorers many at a time, and put down as files or
//! records ([`sink`]).

pub mod customers;
pub mod sink;
