use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use clap::Args;
use comfy_table::Cell;
use prost::Message as _;
use rapport_events::EventTime;
use rapport_kafka::KafkaArgs;
use rapport_proto::recommend::{Shadow, shadow::Outcome};
use rdkafka::Message as _;
use serde_json::json;

use super::Name;
use crate::{
    blocking::on_thread,
    commands::right,
    context::Context,
    output,
    scan::{Isolation, Offsets, Scan},
};

/// Times of lists that are kept for the percentiles: the newest.
const TIMES: usize = 100_000;

#[derive(Debug, Args)]
pub struct Shadows {
    #[command(flatten)]
    name: Name,
    /// Only lists that were made since then
    #[arg(long, default_value = "1d", value_parser = humantime::parse_duration)]
    last: Duration,
}

/// What was made with one version beside another.
#[derive(Default)]
struct Made {
    lists: u64,
    late: u64,
    failed: u64,
    shared: f64,
    same_first: u64,
    /// Milliseconds.
    times: Vec<f64>,
}

impl Made {
    fn add(&mut self, shadow: &Shadow) {
        self.lists += 1;
        match shadow.outcome() {
            Outcome::Late => self.late += 1,
            Outcome::Failed | Outcome::Unspecified => self.failed += 1,
            Outcome::Ok => {
                let (champion, challenger) = (&shadow.champion_item_ids, &shadow.challenger_item_ids);
                let shared = champion.iter().filter(|item| challenger.contains(item)).count();
                self.shared += shared as f64 / champion.len().max(1) as f64;
                self.same_first += u64::from(champion.first() == challenger.first());
            }
        }
        if let Some(took) = &shadow.took
            && self.times.len() < TIMES
        {
            self.times.push(took.seconds as f64 * 1e3 + f64::from(took.nanos) / 1e6);
        }
    }

    fn made(&self) -> f64 {
        (self.lists - self.late - self.failed).max(1) as f64
    }

    fn percentile(&mut self, share: f64) -> f64 {
        self.times.sort_by(f64::total_cmp);
        let at = (share * self.times.len() as f64) as usize;
        self.times.get(at.min(self.times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

impl Shadows {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (kafka, tenant) = (context.kafka.clone(), context.tenant.to_string());
        let (name, last) = (self.name.name.clone(), self.last);
        let made = on_thread("shadow", move || read(&kafka, &tenant, &name, last)).await?;
        if made.is_empty() {
            bail!(
                "no list was made on trial in the last {}; try: rapportctl models challenge VERSION",
                humantime::format_duration(self.last)
            );
        }
        let rows: Vec<_> = made
            .into_iter()
            .map(|((challenger, champion), mut made)| {
                let (p50, p99) = (made.percentile(0.5), made.percentile(0.99));
                (challenger, champion, made, p50, p99)
            })
            .collect();
        context.output.answer(
            || {
                let row = |(challenger, champion, made, p50, p99): &(String, String, Made, f64, f64)| {
                    json!({
                        "challenger": challenger, "champion": champion, "lists": made.lists, "late": made.late,
                        "failed": made.failed, "shared_of_first_10": made.shared / made.made(),
                        "same_first": made.same_first as f64 / made.made(), "p50_ms": p50, "p99_ms": p99,
                    })
                };
                rows.iter().map(row).collect()
            },
            |page| {
                let header =
                    ["on trial", "beside", "lists", "late", "failed", "shared of 10", "same first", "p50 ms", "p99 ms"];
                let mut table = output::table(header);
                for (challenger, champion, made, p50, p99) in &rows {
                    table.add_row(vec![
                        Cell::new(challenger),
                        Cell::new(champion),
                        right(made.lists),
                        right(made.late),
                        right(made.failed),
                        right(format!("{:.2}", made.shared / made.made())),
                        right(format!("{:.2}", made.same_first as f64 / made.made())),
                        right(format!("{p50:.1}")),
                        right(format!("{p99:.1}")),
                    ]);
                }
                page.table(&table);
            },
        );
        Ok(())
    }
}

fn read(
    kafka: &KafkaArgs,
    tenant: &str,
    name: &str,
    last: Duration,
) -> anyhow::Result<BTreeMap<(String, String), Made>> {
    let topic = kafka.topics().shadow;
    let scan = Scan::open(kafka, Isolation::Committed)?;
    let since = EventTime::now().as_ms().saturating_sub(i64::try_from(last.as_millis()).unwrap_or(i64::MAX));
    let from = scan.offsets_at(&topic, since)?;
    let mut all: BTreeMap<(String, String), Made> = BTreeMap::new();
    scan.read(&topic, &from, &Offsets::new(), |message| {
        // What cannot be read is no list.
        if let Some(shadow) = message.payload().and_then(|value| Shadow::decode(value).ok())
            && shadow.tenant == tenant
            && shadow.model == name
        {
            all.entry((shadow.challenger_version.clone(), shadow.champion_version.clone())).or_default().add(&shadow);
        }
        Ok(())
    })?;
    Ok(all)
}
