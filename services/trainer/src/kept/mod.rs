//! The ridge's sums, kept while events come in, so that a training solves instead of reading everything.
//!
//! The [`Keeper`] looks at the offline log every few seconds: newer manifests -> events by customer
//! ([`Kept`]) -> each changed customer's part of the sums -> now and then a file. A run takes what is kept,
//! reads the log up to the same place, and takes out what it holds out ([`crate::models::ridge`]).

mod file;
mod follow;
mod forget;
mod forgotten;
mod keeper;
mod state;

use std::time::Duration;

use rapport_events::Tenant;
use rapport_runtime::parse_duration;

pub use follow::start;
pub use forget::main as forget_main;
pub use forgotten::Forgotten;
pub use keeper::Keeper;
pub use state::{Bounds, Identity, Kept, Refused};

/// What is kept, and how much of it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kept sums")]
pub struct SumsArgs {
    /// Tenants whose ridge sums are kept by following the log, several separated by commas; the default
    /// tenant when not set
    #[arg(long, env = "RAPPORT_SUMS_TENANTS", value_delimiter = ',')]
    pub sums_tenants: Vec<Tenant>,

    /// How often the log is looked at
    #[arg(long, env = "RAPPORT_SUMS_EVERY", default_value = "10s", value_parser = parse_duration)]
    pub sums_every: Duration,

    /// Items of a log beyond which its sums are not kept: they take 48 bytes times its square with two
    /// decays, 1.2 GB for 5,000. 0 keeps none
    #[arg(long, env = "RAPPORT_SUMS_ITEMS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub sums_items: u32,

    /// Customers beyond which they are not kept
    #[arg(long, env = "RAPPORT_SUMS_CUSTOMERS", default_value_t = 1_000_000)]
    pub sums_customers: usize,

    /// MiB of their file beyond which they are not kept
    #[arg(long, env = "RAPPORT_SUMS_MIB", default_value_t = 2_048)]
    pub sums_mib: usize,
}

impl SumsArgs {
    pub fn bounds(&self) -> Bounds {
        Bounds {
            items: self.sums_items as usize,
            customers: self.sums_customers,
            bytes: self.sums_mib.saturating_mul(1 << 20),
        }
    }
}
