//! How good models are, on files that the user brings.

mod lifetime;
mod tabular;

use clap::Subcommand;

use crate::context::Context;

#[derive(Debug, Subcommand)]
pub enum Evaluate {
    /// Compare classifiers on a table of customers (churn, purchase, ..) and keep the best
    #[command(after_help = tabular::AFTER_HELP)]
    Tabular(tabular::Tabular),
    /// Fit purchase and amount models to transactions: who is still there, and what they are worth
    #[command(after_help = lifetime::AFTER_HELP)]
    Lifetime(lifetime::Lifetime),
}

impl Evaluate {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Tabular(command) => command.run(context).await,
            Self::Lifetime(command) => command.run(context).await,
        }
    }
}
