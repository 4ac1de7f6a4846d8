//! `evaluate tabular`, `evaluate lifetime`, `evaluate purchases` and `predict`, through the program that users run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

#[path = "learning/lifetime.rs"]
mod lifetime;
#[path = "learning/program.rs"]
mod program;
#[path = "learning/purchases.rs"]
mod purchases;
#[path = "learning/tabular.rs"]
mod tabular;
