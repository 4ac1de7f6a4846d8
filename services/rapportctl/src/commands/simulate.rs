use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use clap::Args;
use rapport_events::EventTime;
use rapport_proto::events::Event;
use serde_json::json;

use crate::{
    catalog::Catalog,
    clickstream::{Clickstream, Product, Shape, made_up_products},
    context::Context,
    error::Usage,
    lane::{self, Batch, Via},
    output::{self, Progress, per_second, thousands},
};

/// Events are handed over this often; a batch holds what is due then.
const TICK: Duration = Duration::from_millis(5);
/// The most events of one batch.
const BATCH: usize = 500;

#[derive(Debug, Args)]
pub struct Simulate {
    /// Events per second; 0 means as fast as they are taken
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// How long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, conflicts_with = "count")]
    duration: Duration,
    /// How many events, instead of a duration
    #[arg(long)]
    count: Option<u64>,
    /// Which way in
    #[arg(long, value_enum, default_value_t = Via::Grpc)]
    via: Via,
    /// The same seed makes the same clickstream
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many customers
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    customers: u32,
    /// How many made-up items, where the catalog is empty or --made-up is given
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    items: u32,
    /// Use made-up items even though the catalog has some
    #[arg(long)]
    made_up: bool,
    /// Exponent of the items' popularity: 1 is Zipf's law, 0 makes all alike
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// What event and customer ids start with; the same name and seed make the same ids, so a second
    /// run is all duplicates [default: a new one each time]
    #[arg(long)]
    run: Option<String>,
    /// Give up when nothing is acknowledged for this long
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    patience: Duration,
}

impl Simulate {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        if !(0.0..=5.0).contains(&self.zipf) {
            return Err(Usage(format!("--zipf must lie between 0 and 5, is {}", self.zipf)).into());
        }
        let run = self.run.clone().unwrap_or_else(new_run_name);
        let products = self.products(context).await?;
        let shape = Shape { seed: self.seed, customers: self.customers, zipf: self.zipf, run: run.clone() };
        let Some(mut clickstream) = Clickstream::new(shape, &products) else {
            bail!("there are no items to look at");
        };
        let mut lanes = lane::open(context, self.via, self.patience)?;
        let tallies: Vec<_> = lanes.iter().map(|lane| (lane.name, Arc::clone(&lane.tally))).collect();
        let acknowledged = || tallies.iter().map(|(_, tally)| tally.acknowledged()).sum::<u64>();

        let progress = Progress::start("simulate", self.total().unwrap_or(0), "events");
        let started = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut made, mut turn) = (0u64, 0usize);
        loop {
            let over = match self.total() {
                Some(total) => made >= total,
                None => started.elapsed() >= self.duration,
            };
            if over {
                break;
            }
            if self.rate > 0 {
                ticks.tick().await;
            }
            let due = self.due(made, started.elapsed());
            // Half the due events each when there are two lanes, in turns of one.
            let mut batches: Vec<Vec<Event>> = lanes.iter().map(|_| Vec::new()).collect();
            let now = EventTime::now();
            for _ in 0..due {
                batches[turn].push(clickstream.next_at(now));
                turn = (turn + 1) % lanes.len();
            }
            let since = Instant::now();
            for (lane, events) in lanes.iter_mut().zip(batches) {
                if !events.is_empty() {
                    made += events.len() as u64;
                    lane.send(Batch { events, since, receipt: None }).await?;
                }
            }
            progress.at(acknowledged());
        }
        for lane in lanes {
            lane.finish().await?;
        }
        let took = started.elapsed();
        progress.finish(acknowledged());

        let mut refused = 0;
        let mut reasons = Vec::new();
        let mut rows = Vec::new();
        for (name, tally) in &tallies {
            let (count, why) = tally.refused();
            refused += count;
            reasons.extend(why);
            rows.push((*name, tally.acknowledged(), tally.again(), count, tally.latency(0.5), tally.latency(0.99)));
        }
        let rate = per_second(acknowledged(), took);
        context.output.answer(
            || {
                let lanes: Vec<_> = rows
                    .iter()
                    .map(|(via, acknowledged, again, refused, p50, p99)| {
                        json!({
                            "via": via, "acknowledged": acknowledged, "sent_again": again, "refused": refused,
                            "ack_p50_s": p50.as_secs_f64(), "ack_p99_s": p99.as_secs_f64(),
                        })
                    })
                    .collect();
                json!({
                    "run": run, "seed": self.seed, "target_rate": self.rate, "achieved_rate": rate,
                    "acknowledged": acknowledged(), "seconds": took.as_secs_f64(), "lanes": lanes,
                })
            },
            |page| {
                let mut table = output::table(["via", "acknowledged", "sent again", "refused", "ack p50", "ack p99"]);
                for (via, acknowledged, again, refused, p50, p99) in &rows {
                    table.add_row([
                        (*via).to_owned(),
                        thousands(*acknowledged),
                        thousands(*again),
                        thousands(*refused),
                        output::human(*p50),
                        output::human(*p99),
                    ]);
                }
                page.table(&table);
                let target =
                    if self.rate == 0 { "no target".to_owned() } else { format!("target {}/s", thousands(self.rate)) };
                page.line(format!(
                    "{}/s achieved, {target}; customers {run}-c0 to {run}-c{}",
                    thousands(rate),
                    self.customers - 1
                ));
            },
        );
        if refused > 0 {
            bail!("{refused} events were refused, for example: {}", reasons.join("; "));
        }
        Ok(())
    }

    /// How many events in all; `None` when only the time says.
    fn total(&self) -> Option<u64> {
        let by_rate = u128::from(self.rate) * self.duration.as_millis() / 1000;
        self.count.or((self.rate > 0).then(|| u64::try_from(by_rate).unwrap_or(u64::MAX)))
    }

    /// How many events to make now, so that the rate holds over the whole run.
    fn due(&self, made: u64, elapsed: Duration) -> u64 {
        let most = BATCH as u64 * self.via.names().len() as u64;
        let left = self.total().map_or(u64::MAX, |total| total.saturating_sub(made));
        if self.rate == 0 {
            return most.min(left);
        }
        let by_now = u128::from(self.rate) * elapsed.as_micros() / 1_000_000;
        u64::try_from(by_now).unwrap_or(u64::MAX).saturating_sub(made).min(most).min(left)
    }

    /// The catalog's items, or made-up ones.
    async fn products(&self, context: &Context) -> anyhow::Result<Vec<Product>> {
        if !self.made_up {
            rapport_kafka::ensure_topics(&context.kafka).await?;
            let catalog = Catalog::read(&context.kafka, &context.tenant).await?;
            if catalog.len() > 0 {
                let product = |item: &rapport_proto::catalog::Item| Product {
                    item: item.item_id.clone(),
                    category: item.categories.first().cloned().unwrap_or_default(),
                };
                return Ok(catalog.items().into_iter().map(product).collect());
            }
        }
        Ok(made_up_products(self.items, (self.items / 100).max(1)))
    }
}

/// A name that no other run has.
fn new_run_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("sim{:x}", since.as_millis())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        simulate: Simulate,
    }

    fn simulate(arguments: &[&str]) -> Simulate {
        Parsed::try_parse_from([&["x"], arguments].concat()).unwrap().simulate
    }

    #[test]
    fn what_is_due_makes_the_rate_hold_after_a_pause() {
        let simulate = simulate(&["--rate", "1000"]);
        assert_eq!(simulate.due(0, Duration::from_millis(100)), 100);
        assert_eq!(simulate.due(100, Duration::from_millis(100)), 0);
        assert_eq!(simulate.due(0, Duration::from_secs(10)), 500, "a batch is bounded");
    }

    #[test]
    fn a_count_is_met_exactly() {
        let simulate = simulate(&["--rate", "0", "--count", "1200", "--via", "both"]);
        assert_eq!(simulate.due(0, Duration::ZERO), 1000);
        assert_eq!(simulate.due(1000, Duration::ZERO), 200);
        assert_eq!(simulate.due(1200, Duration::ZERO), 0);
    }
}
