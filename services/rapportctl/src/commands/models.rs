mod shadow;

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use rapport_proto::recommend::RecommendRequest;
use rapport_proto::train::{
    ChallengeRequest, ChallengeResponse, ListModelsRequest, ModelVersion, PromoteRequest, RollbackRequest,
};
use serde_json::{Value, json};

use super::{recommend, right, time_text};
use crate::{context::Context, output};

/// The customer that `wait` asks for.
const PROBE: &str = "rapportctl-probe";
const ASK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub enum Models {
    /// All versions, newest first, with their metrics
    List(Name),
    /// Make a version live
    Promote(Promote),
    /// Make the version before the live one live again
    Rollback(Name),
    /// Try a version beside the live one: unseen, or for a share of the customers
    Challenge(Challenge),
    /// What a version on trial made beside the live one, from the shadow topic
    Shadow(shadow::Shadows),
    /// Wait until the scorer answers with the live version
    Wait(Wait),
}

#[derive(Debug, Args)]
pub struct Name {
    /// The model's name
    #[arg(long, default_value = "next-item")]
    name: String,
}

#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    name: Name,
    /// How long
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    patience: Duration,
}

#[derive(Debug, Args)]
pub struct Promote {
    /// The version
    version: String,
    #[command(flatten)]
    name: Name,
    /// Also a version that did not beat the champion and the baselines
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct Challenge {
    /// The version; none ends the trial
    #[arg(required_unless_present = "end")]
    version: Option<String>,
    /// End the trial
    #[arg(long, conflicts_with_all = ["version", "share", "force"])]
    end: bool,
    #[command(flatten)]
    name: Name,
    /// The share of customers, by a hash of their id, whose lists it makes; 0: it makes lists that nobody sees
    #[arg(long, default_value_t = 0.0)]
    share: f64,
    /// Also for customers a version that did not beat the champion and the baselines
    #[arg(long)]
    force: bool,
}

impl Models {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut trainer = context.trainer()?;
        let refused = |status| context.trainer_refused(&status);
        let (live, previous, epoch) = match self {
            Self::List(name) => {
                let request = context.request(ListModelsRequest { name: name.name })?;
                let versions = trainer.list_models(request).await.map_err(refused)?.into_inner().versions;
                list(context, &versions);
                return Ok(());
            }
            Self::Promote(promote) => {
                let request =
                    PromoteRequest { name: promote.name.name, version: promote.version, force: promote.force };
                let answer = trainer.promote(context.request(request)?).await.map_err(refused)?.into_inner();
                (answer.live, answer.previous, answer.epoch)
            }
            Self::Wait(wait) => return wait.run(context).await,
            Self::Shadow(shadows) => return shadows.run(context).await,
            Self::Challenge(challenge) => {
                let request = ChallengeRequest {
                    name: challenge.name.name,
                    version: challenge.version.unwrap_or_default(),
                    share: challenge.share,
                    force: challenge.force,
                };
                let answer = trainer.challenge(context.request(request)?).await.map_err(refused)?.into_inner();
                return challenged(context, &answer);
            }
            Self::Rollback(name) => {
                let request = context.request(RollbackRequest { name: name.name })?;
                let answer = trainer.rollback(request).await.map_err(refused)?.into_inner();
                (answer.live, answer.previous, answer.epoch)
            }
        };
        context.output.answer(
            || json!({ "live": live, "previous": previous, "epoch": epoch }),
            |page| page.line(format!("live: {live} (epoch {epoch}); before: {previous}")),
        );
        Ok(())
    }
}

fn challenged(context: &Context, answer: &ChallengeResponse) -> anyhow::Result<()> {
    let ChallengeResponse { live, challenger, share, epoch } = answer;
    context.output.answer(
        || json!({ "live": live, "challenger": challenger, "share": share, "epoch": epoch }),
        |page| {
            page.line(match (challenger.as_str(), *share) {
                ("", _) => format!("live: {live} (epoch {epoch}); nothing is on trial"),
                (challenger, 0.0) => format!("live: {live} (epoch {epoch}); on trial, unseen: {challenger}"),
                (challenger, share) => {
                    format!(
                        "live: {live} (epoch {epoch}); on trial for {:.1} % of the customers: {challenger}",
                        share * 100.0
                    )
                }
            });
        },
    );
    Ok(())
}

impl Wait {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = context.request(ListModelsRequest { name: self.name.name.clone() })?;
        let versions = context.trainer()?.list_models(request).await;
        let versions = versions.map_err(|status| context.trainer_refused(&status))?.into_inner().versions;
        let Some(live) = versions.into_iter().find(|version| version.live) else {
            bail!("no version of {} is live; try: rapportctl train, or rapportctl models promote", self.name.name);
        };
        let started = Instant::now();
        loop {
            // Nobody's list: whoever it is for, the answer names the model that is loaded.
            let request = RecommendRequest { customer_id: PROBE.to_owned(), limit: 1, ..RecommendRequest::default() };
            let answer = recommend::ask(context, request).await?;
            let loaded = answer.provenance.map(|p| p.model_version).unwrap_or_default();
            if loaded == live.version {
                break;
            }
            if started.elapsed() > self.patience {
                let loaded = if loaded.is_empty() { "no model".to_owned() } else { loaded };
                bail!(
                    "the scorer still answers with {loaded} after {}, live is {}; try: what does its log say (`make logs`)?",
                    humantime::format_duration(self.patience),
                    live.version
                );
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        context.output.answer(
            || json!({ "live": live.version, "waited_s": started.elapsed().as_secs_f64() }),
            |page| {
                page.line(format!("the scorer serves {} (waited {})", live.version, output::human(started.elapsed())))
            },
        );
        Ok(())
    }
}

fn list(context: &Context, versions: &[ModelVersion]) {
    context.output.answer(
        || versions.iter().map(version_json).collect(),
        |page| {
            if versions.is_empty() {
                page.line("there are none; try: rapportctl train");
                return;
            }
            page.table(&versions_table(versions));
        },
    );
}

/// Versions with the metrics that people ask for.
pub fn versions_table(versions: &[ModelVersion]) -> comfy_table::Table {
    let mut table = output::table(["version", "kind", "made", "ndcg@10", "hr@10", "live", "gate"]);
    for version in versions {
        let metric = |name: &str| version.metrics.get(name).map_or("-".to_owned(), |value| format!("{value:.4}"));
        let gate = if version.passed_gate { "passed" } else { "refused" };
        table.add_row(vec![
            Cell::new(&version.version),
            Cell::new(&version.kind),
            Cell::new(time_text(version.created_at.as_ref()).unwrap_or_default()),
            right(metric("ndcg@10")),
            right(metric("hr@10")),
            Cell::new(match (version.live, version.challenger) {
                (true, _) => "live",
                (false, true) => "on trial",
                (false, false) => "",
            }),
            Cell::new(match version.gate_reason.as_str() {
                "" => gate.to_owned(),
                reason => format!("{gate}: {reason}"),
            }),
        ]);
    }
    table
}

pub fn version_json(version: &ModelVersion) -> Value {
    json!({
        "name": version.name, "version": version.version, "kind": version.kind,
        "created_at": time_text(version.created_at.as_ref()), "metrics": version.metrics, "live": version.live,
        "challenger": version.challenger,
        "passed_gate": version.passed_gate, "gate_reason": version.gate_reason, "artifact": version.artifact,
    })
}
