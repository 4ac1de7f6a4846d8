use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use rapport_features::{Entity, Views};
use rapport_proto::features::{ApplyViewsRequest, GetBackfillRequest, GetBackfillResponse, PlanViewsRequest};
use serde_json::json;

use crate::{
    context::Context,
    error::Usage,
    output::{self, Page},
};

/// How often it asks how far the store is.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum ViewsCommand {
    /// Check view files: the first mistake of each with its place, or what it declares
    Check {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// What a view file would change of the views in force, and how many events that reads again
    Plan(File),
    /// Put the views of a file in force: new features are filled from the log beside the stream, and reads
    /// have the old ones until all are
    Apply(Apply),
    /// How far the newest views are; waits until reads have them
    Backfill(Backfill),
    /// Training rows: what was known of customers and items at the moments of a file, from the offline log
    Join(Box<super::join::Join>),
    /// Write into a view file what its features are normalised by, from training rows
    Fit(super::fit::Fit),
    /// How features are spread where something happens, how far that is from where a model learned, and whether
    /// what is served is what the log says
    Statistics(super::statistics::ShowStatistics),
}

#[derive(Debug, Args)]
pub struct File {
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Apply {
    file: PathBuf,
    /// Do not wait until reads have them
    #[arg(long)]
    no_wait: bool,
    /// How long to wait
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    within: Duration,
}

#[derive(Debug, Args)]
pub struct Backfill {
    /// Tell how far it is, and do not wait
    #[arg(long)]
    no_wait: bool,
    /// How long to wait
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    within: Duration,
}

impl ViewsCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Check { files } => check(&files, context),
            Self::Plan(File { file }) => plan(&file, context).await,
            Self::Apply(apply) => apply.run(context).await,
            Self::Backfill(Backfill { no_wait, within }) => wait(context, no_wait, within).await,
            Self::Join(join) => join.run(context).await,
            Self::Fit(fit) => fit.run(context),
            Self::Statistics(statistics) => statistics.run(context).await,
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).map_err(|error| Usage(format!("{}: {error}", file.display())).into())
}

fn check(files: &[PathBuf], context: &Context) -> anyhow::Result<()> {
    let mut checked = Vec::new();
    for file in files {
        checked.push((file.display().to_string(), Views::parse(&read(file)?)));
    }
    context.output.answer(
        || {
            let of = |(file, views): &(String, Result<Views, rapport_features::Error>)| match views {
                Ok(views) => {
                    let features =
                        Entity::ALL.map(|entity| (entity.name(), views.declared(entity).collect::<Vec<_>>()));
                    json!({
                        "file": file, "schema_hash": views.schema_hash(),
                        "lacks_statistics": views.lack_statistics().into_keys().collect::<Vec<_>>(),
                        "features": features.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                    })
                }
                Err(error) => json!({ "file": file, "mistake": error.to_string() }),
            };
            json!(checked.iter().map(of).collect::<Vec<_>>())
        },
        |page| {
            for (file, views) in &checked {
                page.line(match views {
                    Ok(views) => {
                        let of = |entity| format!("{entity} {}", views.declared(entity).count());
                        let lacking = match views.fit_to_serve() {
                            Ok(()) => String::new(),
                            Err(lacking) => format!("; before it serves: {lacking}"),
                        };
                        let counts = Entity::ALL.map(of).join(", ");
                        format!("{file}: features: {counts} (schema {}){lacking}", views.schema_hash())
                    }
                    Err(error) => format!("wrong: {file}: {error}"),
                });
            }
        },
    );
    match checked.iter().filter(|(_, views)| views.is_err()).count() {
        0 => Ok(()),
        wrong => Err(Usage(format!("{wrong} of {} files are wrong", checked.len())).into()),
    }
}

async fn plan(file: &Path, context: &Context) -> anyhow::Result<()> {
    let request = PlanViewsRequest { yaml: read(file)? };
    let answer = context.feature_store()?.plan_views(context.request(request)?).await;
    let plan = answer.map_err(|status| context.feature_store_refused(&status))?.into_inner();
    context.output.answer(
        || {
            json!({
                "added": plan.added, "changed": plan.changed, "removed": plan.removed, "unchanged": plan.unchanged,
                "events": plan.events, "schema_hash": plan.schema_hash,
                "planned_schema_hash": plan.planned_schema_hash, "refusal": plan.refusal,
            })
        },
        |page| {
            let list = |page: &mut Page, sign: &str, names: &[String]| {
                names.iter().for_each(|name| page.line(format!("{sign} {name}")));
            };
            list(page, "+", &plan.added);
            list(page, "~", &plan.changed);
            list(page, "-", &plan.removed);
            page.line(format!("{} features stay as they are", plan.unchanged));
            if plan.events > 0 {
                page.line(format!(
                    "new and changed features are filled from {} events of the log, beside the stream; until then reads \
                     have the views of now",
                    output::thousands(plan.events)
                ));
            }
            if !plan.refusal.is_empty() {
                page.line(format!("they cannot be applied: {}", plan.refusal));
            }
        },
    );
    Ok(())
}

impl Apply {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = ApplyViewsRequest { yaml: read(&self.file)? };
        let answer = context.feature_store()?.apply_views(context.request(request)?).await;
        answer.map_err(|status| context.feature_store_refused(&status))?;
        wait(context, self.no_wait, self.within).await
    }
}

/// Asks how far the newest generation is until reads have it.
async fn wait(context: &Context, no_wait: bool, within: Duration) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + within;
    let mut told = None;
    let progress = loop {
        let answer = context.feature_store()?.get_backfill(context.request(GetBackfillRequest {})?).await;
        let progress = answer.map_err(|status| context.feature_store_refused(&status))?.into_inner();
        if progress.in_force || no_wait {
            break progress;
        }
        if tokio::time::Instant::now() >= deadline {
            anyhow::bail!("reads do not have them after {within:?}: {}; it goes on by itself", text(&progress));
        }
        if told.as_ref() != Some(&progress) {
            context.output.note(text(&progress));
            told = Some(progress);
        }
        tokio::time::sleep(ASK_EVERY).await;
    };
    context.output.answer(
        || {
            json!({
                "generation": progress.generation, "in_force": progress.in_force, "partitions": progress.partitions,
                "partitions_filled": progress.partitions_filled, "schema_hash": progress.schema_hash,
            })
        },
        |page| page.line(text(&progress)),
    );
    Ok(())
}

fn text(progress: &GetBackfillResponse) -> String {
    let GetBackfillResponse { generation, partitions, partitions_filled, schema_hash, .. } = progress;
    match (progress.in_force, generation) {
        (true, 0) => format!("reads have the views that the service was started with (schema {schema_hash})"),
        (true, _) => format!("reads have generation {generation} of the views (schema {schema_hash})"),
        (false, _) if *partitions == 0 => format!("generation {generation} of the views: not begun"),
        (false, _) => format!("generation {generation} of the views: {partitions_filled} of {partitions} partitions"),
    }
}
