use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use prost::Message as _;
use rapport_events::EventTime;
use rapport_kafka::KafkaArgs;
use rapport_placements::TenantPlacements;
use rapport_proto::{events::CleanEvent, recommend::Served};
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::right;
use crate::{
    blocking::on_thread,
    context::Context,
    experiment::{Difference, Judged, Question, Units, judge},
    output::{self, Page},
    scan::{Isolation, Offsets, Scan},
};

#[derive(Debug, Subcommand)]
pub enum ExperimentsCommand {
    /// What each arm's customers did with what they were shown, and whether that is decided
    Status(Status),
}

#[derive(Debug, Args)]
pub struct Status {
    /// The experiment's name, as it stands in the placements
    experiment: String,
    /// From a customer's first list: what happens in it counts. Customers whose window has not ended yet
    /// are left out
    #[arg(long, default_value = "1d", value_parser = humantime::parse_duration)]
    window: Duration,
    /// Only lists that were shown since then
    #[arg(long, default_value = "30d", value_parser = humantime::parse_duration)]
    last: Duration,
    /// The arm that the others are compared with [default: the first in the placements, else "control"]
    #[arg(long)]
    control: Option<String>,
    /// The tenant's placements, for the shares that the arms should have
    #[arg(long, value_name = "FILE")]
    placements: Option<PathBuf>,
    /// The type of events that are a purchase
    #[arg(long, default_value = "purchase")]
    purchase: String,
    /// How often all intervals of a metric together may be wrong
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
}

impl ExperimentsCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self::Status(status) = self;
        status.run(context).await
    }
}

/// What was found out.
struct Found {
    arms: Vec<Judged>,
    differences: Vec<Difference>,
    mismatch: bool,
    open: usize,
    changed: usize,
    control: String,
}

impl Status {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        if !(self.alpha > 0.0 && self.alpha < 1.0) {
            return Err(crate::error::Usage(format!("--alpha must be above 0 and below 1, is {}", self.alpha)).into());
        }
        let (kafka, tenant) = (context.kafka.clone(), context.tenant.to_string());
        let (control, shares) = self.declared()?;
        let experiment = self.experiment.clone();
        let found = on_thread("experiment", move || {
            let units = self.read(&kafka, &tenant)?;
            let (matured, open, changed) = units.matured(EventTime::now());
            let (arms, differences, mismatch) = judge(&matured, &control, &shares, self.alpha);
            Ok(Found { arms, differences, mismatch, open, changed, control })
        })
        .await?;
        context.output.answer(|| as_json(&experiment, &found), |page| show(page, &experiment, &found));
        Ok(())
    }

    /// The control, and the shares of the arms as far as they are declared.
    fn declared(&self) -> anyhow::Result<(String, BTreeMap<String, f64>)> {
        let Some(file) = &self.placements else {
            return Ok((self.control.clone().unwrap_or_else(|| "control".to_owned()), BTreeMap::new()));
        };
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let placements = TenantPlacements::from_yaml(&file.display().to_string(), &text)?;
        let Some((_, of)) = placements.experiments().find(|(name, _)| *name == self.experiment) else {
            let names: Vec<&str> = placements.experiments().map(|(name, _)| name).collect();
            bail!("{} has no experiment {:?}; there are: {}", file.display(), self.experiment, names.join(", "));
        };
        let first = of.arms.first().map(|arm| arm.name.clone()).unwrap_or_default();
        let shares = of.arms.iter().map(|arm| (arm.name.clone(), arm.share)).collect();
        Ok((self.control.clone().unwrap_or(first), shares))
    }

    fn read(&self, kafka: &KafkaArgs, tenant: &str) -> anyhow::Result<Units> {
        let topics = kafka.topics();
        let scan = Scan::open(kafka, Isolation::Committed)?;
        let ago = |time: Duration| {
            EventTime::now().as_ms().saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
        };
        let mut units = Units::new(Question {
            experiment: self.experiment.clone(),
            window: self.window,
            purchase: self.purchase.clone(),
        });
        let from = scan.offsets_at(&topics.served, ago(self.last))?;
        scan.read(&topics.served, &from, &Offsets::new(), |message| {
            // What cannot be read is no list that somebody was shown.
            if let Some(served) = message.payload().and_then(|value| Served::decode(value).ok())
                && served.tenant == tenant
            {
                units.shown(&served);
            }
            Ok(())
        })?;
        let Some(began) = units.began() else {
            bail!(
                "nobody was shown a list of {:?} in the last {}; try: rapportctl recommend CUSTOMER --placement NAME, \
                 and look at its last line",
                self.experiment,
                humantime::format_duration(self.last)
            );
        };
        // Events are on the clean topic soon after they happened; a minute for clocks that differ.
        let from = scan.offsets_at(&topics.clean, began.as_ms() - 60_000)?;
        scan.read(&topics.clean, &from, &Offsets::new(), |message| {
            if let Some(clean) = message.payload().and_then(|value| CleanEvent::decode(value).ok())
                && clean.tenant == tenant
            {
                units.happened(&clean);
            }
            Ok(())
        })?;
        Ok(units)
    }
}

fn show(page: &mut Page, experiment: &str, found: &Found) {
    if found.arms.is_empty() {
        page.line("no customer's window has ended yet: there is nothing to judge");
    } else {
        tables(page, experiment, found);
    }
    page.line(format!(
        "{} customers are still in their window, {} changed arms and are left out",
        found.open, found.changed
    ));
    if found.mismatch {
        page.line("CUSTOMERS CAME IN OTHER SHARES THAN DECLARED: do not trust the figures before you know why");
    }
}

fn tables(page: &mut Page, experiment: &str, found: &Found) {
    let mut arms =
        output::table([experiment, "customers", "lists", "acted on a shown item", "purchased", "revenue each"]);
    for arm in &found.arms {
        let control = if arm.arm == found.control { " (control)" } else { "" };
        arms.add_row(vec![
            Cell::new(format!("{}{control}", arm.arm)),
            right(arm.customers),
            right(arm.lists),
            right(format!("{:.2} %", arm.acted * 100.0)),
            right(format!("{:.2} %", arm.purchased * 100.0)),
            right(format!("{:.2}", arm.revenue)),
        ]);
    }
    page.table(&arms);
    let mut differences = output::table(["against the control", "", "difference", "at any time between", ""]);
    for Difference { arm, metric, interval } in &found.differences {
        let shares = *metric != "revenue";
        let number = |value: f64| if shares { format!("{:+.2} %", value * 100.0) } else { format!("{value:+.3}") };
        let (mean, between, verdict) = match interval {
            Some(of) => {
                let verdict = if of.low > 0.0 {
                    "better"
                } else if of.high < 0.0 {
                    "worse"
                } else {
                    "open"
                };
                (number(of.mean), format!("{} and {}", number(of.low), number(of.high)), verdict)
            }
            None => ("-".to_owned(), "-".to_owned(), "too few"),
        };
        differences.add_row(vec![Cell::new(arm), Cell::new(metric), right(mean), right(between), Cell::new(verdict)]);
    }
    page.table(&differences);
}

fn as_json(experiment: &str, found: &Found) -> Value {
    let arm = |arm: &Judged| {
        json!({
            "arm": arm.arm, "control": arm.arm == found.control, "customers": arm.customers, "lists": arm.lists,
            "acted": arm.acted, "purchased": arm.purchased, "revenue": arm.revenue,
        })
    };
    let difference = |of: &Difference| {
        let interval = of.interval.map(|interval| {
            json!({ "mean": interval.mean, "low": interval.low, "high": interval.high, "customers": interval.count })
        });
        json!({ "arm": of.arm, "metric": of.metric, "difference": interval })
    };
    json!({
        "experiment": experiment,
        "arms": found.arms.iter().map(arm).collect::<Vec<_>>(),
        "differences": found.differences.iter().map(difference).collect::<Vec<_>>(),
        "still_in_window": found.open, "changed_arms": found.changed, "share_mismatch": found.mismatch,
    })
}
