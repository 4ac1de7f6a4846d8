use std::collections::BTreeMap;

use anyhow::bail;
use clap::Args;
use prost::Message as _;
use rapport_events::event_key;
use rapport_kafka::KafkaArgs;
use rapport_proto::experiments::{Decision, Record, Status as Judged, record::Of};
use rdkafka::Message as _;
use serde_json::json;

use super::show;
use crate::{
    blocking::on_thread,
    context::Context,
    scan::{Isolation, Offsets, Scan},
};

#[derive(Debug, Args)]
pub struct Status {
    /// The experiment's name, as it stands in the placements; all of the tenant when it is not given
    experiment: Option<String>,
}

/// What the topic says of one tenant.
#[derive(Default)]
pub(super) struct OnTopic {
    /// By experiment.
    pub statuses: BTreeMap<String, Judged>,
    /// By experiment and arm.
    pub decisions: BTreeMap<(String, String), Decision>,
}

impl OnTopic {
    pub(super) async fn read(context: &Context) -> anyhow::Result<Self> {
        let (kafka, prefix) = (context.kafka.clone(), event_key(&context.tenant, ""));
        on_thread("experiments", move || Self::scan(&kafka, &prefix)).await
    }

    fn scan(kafka: &KafkaArgs, prefix: &str) -> anyhow::Result<Self> {
        let mut found = Self::default();
        let topic = kafka.topics().experiments;
        Scan::open(kafka, Isolation::Committed)?.read(&topic, &Offsets::new(), &Offsets::new(), |record| {
            let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
            if let Some(rest) = key.and_then(|key| key.strip_prefix(prefix)) {
                found.apply(rest, record.payload());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// One record: what cannot be read is passed over, as services do.
    fn apply(&mut self, rest: &str, value: Option<&[u8]>) {
        let of = value.and_then(|value| Record::decode(value).ok()).and_then(|record| record.of);
        match (rest.split_once('/'), of) {
            (None, Some(Of::Status(status))) => {
                self.statuses.insert(rest.to_owned(), status);
            }
            (Some((experiment, arm)), Some(Of::Decision(decision))) => {
                self.decisions.insert((experiment.to_owned(), arm.to_owned()), decision);
            }
            (None, None) if value.is_none() => {
                self.statuses.remove(rest);
            }
            (Some((experiment, arm)), None) if value.is_none() => {
                self.decisions.remove(&(experiment.to_owned(), arm.to_owned()));
            }
            _ => {}
        }
    }
}

impl Status {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let OnTopic { mut statuses, decisions } = OnTopic::read(context).await?;
        // A decision of a moment ago is not in the last status yet.
        for ((experiment, arm), decision) in decisions {
            let arms = statuses.get_mut(&experiment).map(|status| &mut status.arms).into_iter().flatten();
            arms.filter(|of| of.name == arm).for_each(|of| of.decision = Some(decision.clone()));
        }
        if let Some(experiment) = &self.experiment {
            let Some(status) = statuses.get(experiment) else {
                let names: Vec<&str> = statuses.keys().map(String::as_str).collect();
                let there =
                    if names.is_empty() { "no experiment".to_owned() } else { format!("only {}", names.join(", ")) };
                bail!(
                    "the feature store has counted {there} for tenant {}, not {experiment:?}; it counts when it is \
                     given the placements (RAPPORT_PLACEMENTS), every few seconds; try: rapportctl experiments \
                     recount {experiment}",
                    context.tenant
                );
            };
            context.output.answer(|| show::as_json(status), |page| show::show(page, status));
            return Ok(());
        }
        context.output.answer(
            || json!(statuses.values().map(show::as_json).collect::<Vec<_>>()),
            |page| {
                if statuses.is_empty() {
                    page.line(format!(
                        "no experiment of tenant {} is counted; the feature store counts them when it is given the \
                         placements (RAPPORT_PLACEMENTS)",
                        context.tenant
                    ));
                }
                statuses.values().for_each(|status| show::show(page, status));
            },
        );
        Ok(())
    }
}
