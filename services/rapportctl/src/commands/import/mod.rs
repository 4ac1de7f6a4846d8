//! Files into the mesh.

mod events;
mod movielens;

use clap::Subcommand;

use crate::context::Context;

#[derive(Debug, Subcommand)]
pub enum Import {
    /// Events from a file: CSV, NDJSON or Parquet, by a mapping; can be interrupted and goes on
    #[command(after_help = events::AFTER_HELP)]
    Events(events::Events),
    /// MovieLens in RecBole's atomic files: NAME.inter (ratings) and NAME.item (movies)
    Movielens(movielens::Movielens),
}

impl Import {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Events(command) => command.run(context).await,
            Self::Movielens(command) => command.run(context).await,
        }
    }
}
