//! Every command by name.

use clap::{Parser, Subcommand};

use crate::{
    commands::{
        account, consent, dead_letters, evaluate, experiments, explain, export, features, history, import, keys,
        models, offline, placements, policy, predict, rank, recommend, send, similar, simulate, topics, train,
        watch_change,
    },
    context::{Context, Global},
};

/// The command line of Rapport: send events, ask for recommendations, train models, look inside
#[derive(Debug, Parser)]
#[command(
    name = "rapportctl",
    version,
    after_help = "Exit codes: 0 it worked, 1 it failed, 64 the command line is wrong."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring files in: events by a mapping, or a whole data set
    #[command(subcommand)]
    Import(import::Import),
    /// Send a made-up clickstream at a chosen rate
    Simulate(simulate::Simulate),
    /// Send one event through the collector
    Send(send::Send),
    /// The best items for a customer
    Recommend(recommend::Recommend),
    /// Why a customer sees an item, or why not
    Explain(explain::Explain),
    /// Every customer's list, as Parquet, as NDJSON or on a topic
    Export(export::Export),
    /// Items that go with an item
    Similar(similar::Similar),
    /// Put items into the order that suits a customer
    Rank(rank::Rank),
    /// What a customer did last
    History(history::History),
    /// What the feature store knows of a customer
    Features(features::Features),
    /// Show a new customer's list change while events arrive, and how long that takes
    WatchChange(watch_change::WatchChange),
    /// Train models and publish the winner
    Train(train::Train),
    /// Versions of models: list, promote, roll back
    #[command(subcommand)]
    Models(models::Models),
    /// Judge models on files of your own: a table of customers, or their purchases
    #[command(subcommand)]
    Evaluate(evaluate::Evaluate),
    /// Score the rows of a file with a model that evaluate tabular has saved
    #[command(after_help = predict::AFTER_HELP)]
    Predict(predict::Predict),
    /// The offline log: merge its small files, name those that hold
    #[command(subcommand)]
    Offline(offline::OfflineCommand),
    /// Kafka topics: list, make
    #[command(subcommand)]
    Topics(topics::Topics),
    /// Records that were refused: count, look, send again
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Account for raw records: received = clean + dead + duplicate
    Account(account::AccountCommand),
    /// Tenants' policies: check files, show what holds
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Where lists stand: check the rules and experiments, look up a customer's arm
    #[command(subcommand)]
    Placements(placements::PlacementsCommand),
    /// What experiments between placements have shown
    #[command(subcommand)]
    Experiments(experiments::ExperimentsCommand),
    /// What customers decided about their data
    #[command(subcommand)]
    Consent(consent::Consent),
    /// API keys for the collector
    #[command(subcommand)]
    Keys(keys::Keys),
}

impl Cli {
    /// # Errors
    /// What the command could not do, or [`crate::error::Usage`].
    pub async fn run(self) -> anyhow::Result<()> {
        let context = Context::new(self.global)?;
        match self.command {
            Command::Import(command) => command.run(&context).await,
            Command::Simulate(command) => command.run(&context).await,
            Command::Send(command) => command.run(&context).await,
            Command::Recommend(command) => command.run(&context).await,
            Command::Explain(command) => command.run(&context).await,
            Command::Export(command) => command.run(&context).await,
            Command::Similar(command) => command.run(&context).await,
            Command::Rank(command) => command.run(&context).await,
            Command::History(command) => command.run(&context).await,
            Command::Features(command) => command.run(&context).await,
            Command::WatchChange(command) => command.run(&context).await,
            Command::Train(command) => command.run(&context).await,
            Command::Models(command) => command.run(&context).await,
            Command::Evaluate(command) => command.run(&context).await,
            Command::Predict(command) => command.run(&context).await,
            Command::Offline(command) => command.run(&context).await,
            Command::Topics(command) => command.run(&context).await,
            Command::DeadLetters(command) => command.run(&context).await,
            Command::Account(command) => command.run(&context).await,
            Command::Policy(command) => command.run(&context),
            Command::Placements(command) => command.run(&context),
            Command::Experiments(command) => command.run(&context).await,
            Command::Consent(command) => command.run(&context).await,
            Command::Keys(command) => command.run(&context),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_command() {
        let cli = Cli::try_parse_from(["rapportctl", "recommend", "42", "--json", "--scorer", "localhost:7501"]);
        assert!(cli.is_ok(), "{:?}", cli.err());
        assert!(Cli::try_parse_from(["rapportctl", "recommend"]).is_err(), "a customer is needed");
    }
}
