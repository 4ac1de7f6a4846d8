use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use prost::Message as _;
use rapport_events::{EventTime, Tenant};
use rapport_experiments::{Declared, Happened, Shown, ShownItem, Units, judge, status};
use rapport_kafka::KafkaArgs;
use rapport_placements::{INTERLEAVED, Judged, TenantPlacements};
use rapport_proto::{
    events::CleanEvent,
    experiments::Status,
    recommend::{Served, provenance::Cache},
};
use rdkafka::Message as _;

use super::show;
use crate::{
    blocking::on_thread,
    context::Context,
    error::Usage,
    scan::{Isolation, Offsets, Scan},
};

#[derive(Debug, Args)]
pub struct Recount {
    /// The experiment's name, as it stands in the placements
    experiment: String,
    /// From a customer's first list: what happens in it counts. Customers whose window has not ended yet
    /// are left out [default: the placements' window, else 1d]
    #[arg(long, value_parser = humantime::parse_duration)]
    window: Option<Duration>,
    /// Only lists that were shown since then
    #[arg(long, default_value = "30d", value_parser = humantime::parse_duration)]
    last: Duration,
    /// The arm that the others are compared with [default: the first in the placements, else "control"]
    #[arg(long)]
    control: Option<String>,
    /// The tenant's placements, for the shares that the arms should have; needed where arms draft together
    #[arg(long, value_name = "FILE")]
    placements: Option<PathBuf>,
    /// The type of events that are a purchase [default: the placements', else "purchase"]
    #[arg(long)]
    purchase: Option<String>,
    /// How often all intervals of a metric together may be wrong [default: the placements', else 0.05]
    #[arg(long)]
    alpha: Option<f64>,
}

impl Recount {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (declared, judged) = self.declared()?;
        if !(declared.alpha > 0.0 && declared.alpha < 1.0) {
            return Err(Usage(format!("--alpha must be above 0 and below 1, is {}", declared.alpha)).into());
        }
        let (kafka, tenant) = (context.kafka.clone(), context.tenant.clone());
        let status = on_thread("experiment", move || self.count(&kafka, &tenant, &declared, &judged)).await?;
        context.output.answer(|| show::as_json(&status), |page| show::show(page, &status));
        Ok(())
    }

    /// What the file says of the experiment, and the flags over it.
    fn declared(&self) -> anyhow::Result<(Declared, Judged)> {
        let (mut declared, mut judged) = match &self.placements {
            None => {
                let control = "control".to_owned();
                (Declared { control, shares: BTreeMap::new(), alpha: 0.05, drafting: None }, Judged::default())
            }
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                let placements = TenantPlacements::from_yaml(&file.display().to_string(), &text)?;
                let Some((_, of)) = placements.experiments().find(|(name, _)| *name == self.experiment) else {
                    let names: Vec<&str> = placements.experiments().map(|(name, _)| name).collect();
                    let names = names.join(", ");
                    bail!("{} has no experiment {:?}; there are: {names}", file.display(), self.experiment);
                };
                (Declared::from(of), of.judged.clone())
            }
        };
        declared.control = self.control.clone().unwrap_or(declared.control);
        declared.alpha = self.alpha.unwrap_or(declared.alpha);
        judged.window = self.window.unwrap_or(judged.window);
        judged.purchase = self.purchase.clone().unwrap_or(judged.purchase);
        Ok((declared, judged))
    }

    fn count(
        &self,
        kafka: &KafkaArgs,
        tenant: &Tenant,
        declared: &Declared,
        judged: &Judged,
    ) -> anyhow::Result<Status> {
        let topics = kafka.topics();
        let scan = Scan::open(kafka, Isolation::Committed)?;
        let ago = |time: Duration| {
            EventTime::now().as_ms().saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
        };
        let mut units = Units::new(judged.window, &judged.purchase, declared.drafting.clone());
        let from = scan.offsets_at(&topics.served, ago(self.last))?;
        scan.read(&topics.served, &from, &Offsets::new(), |message| {
            // What cannot be read is no list that somebody was shown.
            if let Some(served) = message.payload().and_then(|value| Served::decode(value).ok())
                && served.tenant == tenant.as_str()
                && let Some(list) = shown(&served, &self.experiment)
            {
                units.shown(&list);
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
        if declared.drafting.is_none() && units.arms().iter().any(|arm| arm == INTERLEAVED) {
            return Err(
                Usage(format!("{} is interleaved: say with --placements which arms draft", self.experiment)).into()
            );
        }
        // Events are on the clean topic soon after they happened; a minute for clocks that differ.
        let from = scan.offsets_at(&topics.clean, began.as_ms() - 60_000)?;
        scan.read(&topics.clean, &from, &Offsets::new(), |message| {
            if let Some(clean) = message.payload().and_then(|value| CleanEvent::decode(value).ok())
                && clean.tenant == tenant.as_str()
                && let Some(event) = happened(&clean)
            {
                units.happened(&event);
            }
            Ok(())
        })?;
        let now = EventTime::now();
        units.settle(now);
        let report = judge(&units, declared);
        Ok(status(&report, tenant, &self.experiment, judged.window, |_| None, now))
    }
}

fn shown<'a>(served: &'a Served, experiment: &str) -> Option<Shown<'a>> {
    let of = served.provenance.as_ref().filter(|of| of.experiment == experiment)?;
    Some(Shown {
        customer: &served.customer_id,
        arm: &of.arm,
        at: served.served_at.as_ref().and_then(EventTime::from_proto)?,
        cached: matches!(of.cache(), Cache::Hit | Cache::Stale),
        items: served.items.iter().map(|item| ShownItem { id: &item.item_id, arm: &item.arm }).collect(),
    })
}

fn happened(clean: &CleanEvent) -> Option<Happened<'_>> {
    let event = clean.event.as_ref()?;
    Some(Happened {
        customer: &event.customer_id,
        kind: &event.r#type,
        item: &event.item_id,
        at: event.event_time.as_ref().and_then(EventTime::from_proto)?,
        value: event.value,
    })
}
