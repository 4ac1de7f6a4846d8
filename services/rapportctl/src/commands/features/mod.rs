//! What the feature store knows of an entity, and the views that say what it keeps.

mod fit;
mod join;
mod show;
mod statistics;
mod views;

use clap::Args;

use crate::context::Context;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Features {
    #[command(subcommand)]
    views: Option<views::ViewsCommand>,
    #[command(flatten)]
    show: Option<show::Show>,
}

impl Features {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match (self.views, self.show) {
            (Some(views), _) => views.run(context).await,
            (None, Some(show)) => show.run(context).await,
            (None, None) => Err(crate::error::Usage("whose features? Give a customer's id".into()).into()),
        }
    }
}
