use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::right;
use crate::{
    blocking::on_thread,
    context::Context,
    output::{self, thousands},
    scan::{Isolation, Scan},
};

#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Rapport's topics, with their partitions and records
    List,
    /// Make the topics that are not there; those that are stay as they are
    Ensure(Ensure),
}

#[derive(Debug, Args)]
pub struct Ensure {
    /// Partitions of new topics [default: RAPPORT_KAFKA_PARTITIONS, or 6]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// Replicas of new topics [default: RAPPORT_KAFKA_REPLICATION, or 1]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100))]
    replication: Option<i32>,
}

impl Topics {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List => list(context).await,
            Self::Ensure(ensure) => ensure.run(context).await,
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let kafka = context.kafka.clone();
    let found = on_thread("topics", move || {
        let scan = Scan::open(&kafka, Isolation::Uncommitted)?;
        let names = scan.topics()?.into_keys().filter(|name| name.starts_with(&kafka.topic_prefix));
        names.map(|name| scan.bounds(&name).map(|bounds| (name, bounds))).collect::<anyhow::Result<BTreeMap<_, _>>>()
    })
    .await?;
    let kept = |(low, high): &(i64, i64)| u64::try_from(high - low).unwrap_or(0);
    context.output.answer(
        || {
            let topic = |(name, bounds): (&String, &BTreeMap<i32, (i64, i64)>)| {
                let partitions: Vec<_> = bounds
                    .iter()
                    .map(|(partition, (low, high))| json!({ "partition": partition, "first": low, "end": high }))
                    .collect();
                json!({ "topic": name, "offsets": bounds.values().map(kept).sum::<u64>(), "partitions": partitions })
            };
            found.iter().map(topic).collect()
        },
        |page| {
            if found.is_empty() {
                page.line("there are none; try: rapportctl topics ensure");
                return;
            }
            let mut table = output::table(["topic", "partitions", "offsets kept"]);
            for (name, bounds) in &found {
                let sum: u64 = bounds.values().map(kept).sum();
                table.add_row(vec![Cell::new(name), right(bounds.len()), right(thousands(sum))]);
            }
            page.table(&table);
            page.line("offsets include transaction markers, and records that compaction has removed");
        },
    );
    Ok(())
}

impl Ensure {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut kafka = context.kafka.clone();
        kafka.partitions = self.partitions.unwrap_or(kafka.partitions);
        kafka.replication = self.replication.unwrap_or(kafka.replication);
        let made = rapport_kafka::ensure_topics(&kafka).await.with_context(|| {
            format!(
                "cannot make topics at {}; try: is Kafka running (`make status`)? Another address goes with \
                 --kafka-brokers or RAPPORT_KAFKA_BROKERS",
                kafka.brokers
            )
        })?;
        context.output.answer(
            || json!({ "made": made }),
            |page| {
                if made.is_empty() {
                    page.line("every topic is there");
                } else {
                    page.line(format!("made {}", made.join(", ")));
                }
            },
        );
        Ok(())
    }
}
