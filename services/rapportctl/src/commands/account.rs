use std::time::Duration;

use anyhow::bail;
use clap::Args;

use crate::{
    account::{self, Range, Wanted},
    blocking::on_thread,
    context::Context,
};

/// Waiting for the cleaner.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Waiting")]
pub struct CleanerWait {
    /// The cleaner's consumer group
    #[arg(long, env = "RAPPORT_CLEANER_GROUP", default_value = "rapport-cleaner")]
    pub cleaner_group: String,
    /// How long to wait for the cleaner
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// Do not wait for the cleaner
    #[arg(long)]
    pub no_wait: bool,
}

/// The consumer groups that stand between a raw record and an answer.
#[derive(Debug, Clone, Args)]
pub struct Waiting {
    /// The cleaner's consumer group
    #[arg(long, env = "RAPPORT_CLEANER_GROUP", default_value = "rapport-cleaner")]
    pub cleaner_group: String,
    /// The feature store's consumer groups, separated by commas
    #[arg(long, env = "RAPPORT_FEATURE_STORE_GROUPS", value_delimiter = ',', default_value = "rapport-feature-store")]
    pub feature_store_groups: Vec<String>,
    /// How long to wait for each of them
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    pub patience: Duration,
}

#[derive(Debug, Args)]
pub struct AccountCommand {
    /// First offset of each raw partition, as partition:offset,.. [default: the beginning]
    #[arg(long, value_delimiter = ',', value_parser = place)]
    from: Vec<(i32, i64)>,
    /// Offset after the last of each raw partition [default: the end as it is now]
    #[arg(long, value_delimiter = ',', value_parser = place)]
    until: Vec<(i32, i64)>,
    #[command(flatten)]
    waiting: CleanerWait,
}

fn place(text: &str) -> Result<(i32, i64), String> {
    account::parse_position(text)
        .map(|position| (position.partition, position.offset))
        .ok_or_else(|| format!("{text:?} is not partition:offset, for example 0:1200"))
}

impl AccountCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (kafka, tenant) = (context.kafka.clone(), context.tenant.clone());
        let account = on_thread("account", move || {
            let range = Range { from: self.from.into_iter().collect(), until: self.until.into_iter().collect() };
            let received = account::receive(&kafka, &tenant, &range, Wanted::All)?;
            if !self.waiting.no_wait {
                let (group, patience) = (&self.waiting.cleaner_group, self.waiting.patience);
                account::wait_for_group(&kafka, group, &kafka.topics().raw, &received.ends, patience)?;
            }
            Ok(received.settle(&kafka)?.0)
        })
        .await?;
        context.output.answer(|| account.to_json(), |page| page.line(account.to_string()));
        if !account.balances() {
            bail!("the account does not balance");
        }
        Ok(())
    }
}
