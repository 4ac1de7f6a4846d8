//! Experiments between placements: what they have shown, and which arms are shown.

mod decide;
mod recount;
mod show;
mod status;

use clap::Subcommand;

use crate::context::Context;

#[derive(Debug, Subcommand)]
pub enum ExperimentsCommand {
    /// What each arm's customers did, and whether that is decided, as the feature store has counted it
    Status(status::Status),
    /// The same counted here and now from the topics: another window, another purchase, other days
    Recount(recount::Recount),
    /// Stop an arm: its customers get the control's rules and take no part any more
    Stop(decide::Stop),
    /// Show a stopped arm again; no guard rail stops it after that
    Resume(decide::Resume),
}

impl ExperimentsCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Status(status) => status.run(context).await,
            Self::Recount(recount) => recount.run(context).await,
            Self::Stop(stop) => stop.run(context).await,
            Self::Resume(resume) => resume.run(context).await,
        }
    }
}
