use anyhow::bail;
use clap::Args;
use prost::Message as _;
use rapport_events::EventTime;
use rapport_experiments::decision_key;
use rapport_proto::experiments::{Decision, Record, record::Of};
use serde_json::json;

use super::status::OnTopic;
use crate::{context::Context, error::Usage, publish::publish};

/// Bytes of a reason: a sentence or two.
const REASON_BYTES: usize = 500;

#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// The experiment's name, as it stands in the placements
    experiment: String,
    /// The arm's name
    arm: String,
    /// Why, for those who ask later
    #[arg(long, default_value = "")]
    reason: String,
    /// Also for an experiment or an arm that nobody was shown yet
    #[arg(long)]
    force: bool,
}

impl Stop {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        self.which.decide(context, true).await
    }
}

impl Resume {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        self.which.decide(context, false).await
    }
}

impl Which {
    async fn decide(self, context: &Context, stopped: bool) -> anyhow::Result<()> {
        let plain = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
        };
        if let Some(name) = [&self.experiment, &self.arm].into_iter().find(|name| !plain(name)) {
            return Err(Usage(format!("{name:?} is no name of an experiment or an arm")).into());
        }
        if self.reason.len() > REASON_BYTES {
            return Err(Usage(format!("--reason may have {REASON_BYTES} bytes, has {}", self.reason.len())).into());
        }
        if !self.force {
            self.must_be_known(context).await?;
        }
        let decision = Decision {
            tenant: context.tenant.to_string(),
            experiment: self.experiment.clone(),
            arm: self.arm.clone(),
            stopped,
            by: "person".to_owned(),
            reason: self.reason,
            at: Some(EventTime::now().to_proto()),
        };
        write(context, decision).await?;
        let (experiment, arm) = (self.experiment, self.arm);
        context.output.answer(
            || json!({ "experiment": experiment, "arm": arm, "stopped": stopped }),
            |page| {
                page.line(if stopped {
                    format!("{arm} of {experiment} is stopped: its customers get the control's rules")
                } else {
                    format!("{arm} of {experiment} is shown again; no guard rail stops it from now on")
                });
            },
        );
        Ok(())
    }

    /// A slip of the finger stops nothing.
    async fn must_be_known(&self, context: &Context) -> anyhow::Result<()> {
        let OnTopic { statuses, decisions } = OnTopic::read(context).await?;
        if decisions.contains_key(&(self.experiment.clone(), self.arm.clone())) {
            return Ok(());
        }
        let hint = "--force does it all the same";
        let Some(status) = statuses.get(&self.experiment) else {
            let names: Vec<&str> = statuses.keys().map(String::as_str).collect();
            bail!("no experiment {:?} is counted; there are: {}; {hint}", self.experiment, names.join(", "));
        };
        let names: Vec<&str> = status.arms.iter().map(|arm| arm.name.as_str()).collect();
        let drafting = status.differences.iter().map(|of| of.arm.as_str()).chain([status.control.as_str()]);
        if !names.contains(&self.arm.as_str()) && !drafting.into_iter().any(|name| name == self.arm) {
            bail!("{} has no arm {:?}; there are: {}; {hint}", self.experiment, self.arm, names.join(", "));
        }
        Ok(())
    }
}

async fn write(context: &Context, decision: Decision) -> anyhow::Result<()> {
    let key = decision_key(&context.tenant, &decision.experiment, &decision.arm);
    let value = Record { of: Some(Of::Decision(decision)) }.encode_to_vec();
    publish(context, &context.kafka.topics().experiments, &key, Some(&value), "the decision").await
}
