use clap::{Args, Subcommand};
use comfy_table::Cell;
use rapport_proto::train::{ListModelsRequest, ModelVersion, PromoteRequest, RollbackRequest};
use serde_json::{Value, json};

use super::{right, time_text};
use crate::{context::Context, output};

#[derive(Debug, Subcommand)]
pub enum Models {
    /// All versions, newest first, with their metrics
    List(Name),
    /// Make a version live
    Promote(Promote),
    /// Make the version before the live one live again
    Rollback(Name),
}

#[derive(Debug, Args)]
pub struct Name {
    /// The model's name
    #[arg(long, default_value = "next-item")]
    name: String,
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
            Cell::new(if version.live { "live" } else { "" }),
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
        "passed_gate": version.passed_gate, "gate_reason": version.gate_reason, "artifact": version.artifact,
    })
}
