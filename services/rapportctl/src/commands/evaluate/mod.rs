//! How good models and lists are, on files that the user brings.

mod lifetime;
mod purchases;
mod served;
mod tabular;

use clap::Subcommand;

use crate::{context::Context, evaluate::calendar::DateFormat};

#[derive(Debug, Subcommand)]
pub enum Evaluate {
    /// Compare classifiers on a table of customers (churn, purchase, ..) and keep the best
    #[command(after_help = tabular::AFTER_HELP)]
    Tabular(tabular::Tabular),
    /// Compare classifiers of who buys within some days, on features from before a cutoff
    #[command(after_help = purchases::AFTER_HELP)]
    Purchases(purchases::Purchases),
    /// Fit purchase and amount models to transactions: who is still there, and what they are worth
    #[command(after_help = lifetime::AFTER_HELP)]
    Lifetime(lifetime::Lifetime),
    /// Replay events through the running mesh: is each customer's next item in the list that is served before it?
    #[command(after_help = served::AFTER_HELP)]
    Served(served::Served),
}

impl Evaluate {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Tabular(command) => command.run(context).await,
            Self::Purchases(command) => command.run(context).await,
            Self::Lifetime(command) => command.run(context).await,
            Self::Served(command) => command.run(context).await,
        }
    }
}

/// A day on the command line, as days since 1970-01-01.
fn day(text: &str) -> Result<i32, String> {
    DateFormat::iso().day(text).ok_or_else(|| format!("{text:?} is no day such as 2026-11-24"))
}
