use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use comfy_table::Cell;
use rapport_proto::train::{
    CancelRunRequest, Evaluation, ListRunsRequest, RunProgress, RunResult, RunSummary, StartRunRequest, TrainingConfig,
    WatchRunRequest, run_progress::State,
};
use serde_json::json;

use super::{models::version_json, right, time_text};
use crate::{
    context::Context,
    output::{self, Progress, thousands},
};

/// The bar's length: a run says its progress as a share.
const STEPS: u64 = 1000;
/// The metrics that the table shows first, in this order.
const METRICS: [&str; 4] = ["ndcg@10", "hr@10", "mrr", "coverage@10"];

#[derive(Debug, Args)]
pub struct Train {
    /// Which to train: ridge, ligr, sasrec, hstu, gru4rec, nextitnet, blend [default: ridge, ligr and
    /// their blend]
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// The model's name
    #[arg(long, default_value = "next-item")]
    model: String,
    /// Passes over the data of the sequence model; 0 means the trainer's default
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    max_epochs: u32,
    /// End the sequence model's training after this many seconds; 0 means the trainer's default
    #[arg(long, default_value_t = 0)]
    time_budget_s: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Train and compare, but publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Start the run and do not watch it
    #[arg(long, conflicts_with = "watch")]
    detach: bool,
    /// Watch a run that has been started before
    #[arg(long, value_name = "RUN")]
    watch: Option<String>,
    /// Ask a run to end; it does at its next batch or solve
    #[arg(long, value_name = "RUN", conflicts_with_all = ["watch", "detach"])]
    cancel: Option<String>,
    /// List the last runs, newest first
    #[arg(long, conflicts_with_all = ["watch", "detach", "cancel"])]
    list: bool,
}

impl Train {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut trainer = context.trainer()?;
        if self.list {
            return list(context).await;
        }
        if let Some(run_id) = self.cancel {
            let request = context.request(CancelRunRequest { run_id: run_id.clone() })?;
            trainer.cancel_run(request).await.map_err(|s| context.trainer_refused(&s))?;
            context.output.answer(
                || json!({ "run_id": run_id, "cancelled": true }),
                |page| page.line(format!("run {run_id} is asked to end")),
            );
            return Ok(());
        }
        let run_id = match self.watch {
            Some(run) => run,
            None => {
                let config = TrainingConfig {
                    model: self.model,
                    kinds: self.kinds,
                    max_epochs: self.max_epochs,
                    seed: self.seed,
                    time_budget_s: self.time_budget_s,
                    dry_run: self.dry_run,
                };
                let request = context.request(StartRunRequest { config: Some(config) })?;
                trainer.start_run(request).await.map_err(|s| context.trainer_refused(&s))?.into_inner().run_id
            }
        };
        if self.detach {
            context.output.answer(
                || json!({ "run_id": run_id }),
                |page| page.line(format!("run {run_id} has started; watch it: rapportctl train --watch {run_id}")),
            );
            return Ok(());
        }
        context.output.note(format!("run {run_id}; an interrupt leaves it running"));
        let last = watch(context, &run_id).await?;
        match last.state() {
            State::Succeeded => {
                let result = last.result.context("the trainer says that the run succeeded, without its result")?;
                report(context, &run_id, &result);
                Ok(())
            }
            State::Failed => bail!("run {run_id} failed in step {:?}: {}", last.step, last.message),
            State::Cancelled => bail!("run {run_id} was cancelled in step {:?}", last.step),
            State::Unspecified | State::Queued | State::Running => {
                bail!("the trainer stopped telling before run {run_id} ended; try: rapportctl train --watch {run_id}")
            }
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let request = context.request(ListRunsRequest {})?;
    let answer = context.trainer()?.list_runs(request).await.map_err(|s| context.trainer_refused(&s))?;
    let runs = answer.into_inner().runs;
    let state = |run: &RunSummary| run.state().as_str_name().trim_start_matches("STATE_").to_lowercase();
    let asked_at = |run: &RunSummary| time_text(run.asked_at.as_ref()).unwrap_or_default();
    let kinds = |run: &RunSummary| match run.config.as_ref().map(|config| config.kinds.join(",")) {
        None => "default".to_owned(),
        Some(kinds) if kinds.is_empty() => "default".to_owned(),
        Some(kinds) => kinds,
    };
    context.output.answer(
        || {
            let run = |run: &RunSummary| {
                json!({
                    "run_id": run.run_id, "state": state(run), "why": run.why, "asked_at": asked_at(run),
                    "kinds": run.config.as_ref().map(|config| &config.kinds), "message": run.message,
                })
            };
            json!({ "runs": runs.iter().map(run).collect::<Vec<_>>() })
        },
        |page| {
            let mut table = output::table(["run", "asked at", "why", "kinds", "state", "how it ended"]);
            for run in &runs {
                table.add_row([&run.run_id, &asked_at(run), &run.why, &kinds(run), &state(run), &run.message]);
            }
            page.table(&table);
        },
    );
    Ok(())
}

/// Follows a run to its end and returns the last news.
async fn watch(context: &Context, run_id: &str) -> anyhow::Result<RunProgress> {
    let request = context.stream_request(WatchRunRequest { run_id: run_id.to_owned() })?;
    let refused = |status| context.trainer_refused(&status);
    let mut news = context.trainer()?.watch_run(request).await.map_err(refused)?.into_inner();
    let progress = Progress::start("train", STEPS, "steps");
    let started = Instant::now();
    let mut last = RunProgress::default();
    let mut step = String::new();
    while let Some(update) = news.message().await.map_err(refused)? {
        if !update.step.is_empty() && update.step != step {
            if !step.is_empty() {
                context.output.note(format!("{:>7.1} s  {step}: done", started.elapsed().as_secs_f64()));
            }
            step.clone_from(&update.step);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        // a share of the bar, held between 0 and its length
        let position = (update.progress.clamp(0.0, 1.0) * STEPS as f64) as u64;
        progress.say(position, describe(&update));
        last = update;
    }
    progress.end(&format!("{:>16} {} in {}", "train", last.state().as_str_name(), output::human(started.elapsed())));
    Ok(last)
}

/// One piece of news in one line.
fn describe(update: &RunProgress) -> String {
    let mut text = update.step.clone();
    if update.epoch > 0 {
        text += &format!(", epoch {}, loss {:.4}", update.epoch, update.loss);
    }
    if update.validation_ndcg > 0.0 {
        text += &format!(", validation ndcg {:.4}", update.validation_ndcg);
    }
    if update.events_per_second > 0.0 {
        text += &format!(", {:.0} events/s", update.events_per_second);
    }
    if update.seconds_left >= 1.0 {
        text += &format!(", {:.0} s left", update.seconds_left);
    }
    if !update.message.is_empty() {
        text += &format!(": {}", update.message);
    }
    text
}

fn report(context: &Context, run_id: &str, result: &RunResult) {
    let evaluation = |e: &Evaluation| {
        json!({
            "model": e.model, "split": e.split, "metrics": e.metrics, "cases": e.cases, "fit_seconds": e.fit_seconds,
        })
    };
    context.output.answer(
        || {
            json!({
                "run_id": run_id, "evaluations": result.evaluations.iter().map(evaluation).collect::<Vec<_>>(),
                "versions": result.versions.iter().map(version_json).collect::<Vec<_>>(),
                "winner": result.winner, "promoted": result.promoted, "reason": result.reason,
                "events": result.events, "customers": result.customers, "items": result.items,
                "seconds": result.seconds,
            })
        },
        |page| {
            let columns = metric_names(&result.evaluations);
            let mut table = output::table(["model", "split"]);
            let header = ["model", "split"].into_iter().chain(columns.iter().map(String::as_str));
            table.set_header(header.chain(["cases", "fit s"]));
            for row in &result.evaluations {
                let mut cells = vec![Cell::new(&row.model), Cell::new(&row.split)];
                cells.extend(
                    columns
                        .iter()
                        .map(|name| right(row.metrics.get(name).map_or("-".to_owned(), |value| format!("{value:.4}")))),
                );
                cells.extend([right(thousands(row.cases)), right(format!("{:.1}", row.fit_seconds))]);
                table.add_row(cells);
            }
            page.table(&table);
            page.line(format!(
                "{} events of {} customers and {} items in {:.1} s",
                thousands(result.events),
                thousands(result.customers),
                thousands(result.items),
                result.seconds
            ));
            for version in &result.versions {
                page.line(format!(
                    "  {} {}{}",
                    version.kind,
                    version.version,
                    if version.live { "  (live)" } else { "" }
                ));
            }
            let outcome = if result.promoted { "live" } else { "not live" };
            page.line(format!("winner: {}, {outcome}: {}", result.winner, result.reason));
        },
    );
}

/// Every metric that some row has: the known ones first, then the rest by name.
fn metric_names(rows: &[Evaluation]) -> Vec<String> {
    let mut rest: Vec<String> = rows.iter().flat_map(|row| row.metrics.keys().cloned()).collect();
    rest.sort();
    rest.dedup();
    let mut names: Vec<String> =
        METRICS.iter().filter(|name| rest.iter().any(|have| have == *name)).map(|&name| name.to_owned()).collect();
    rest.retain(|name| !names.contains(name));
    names.extend(rest);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_that_people_ask_for_come_first() {
        let metrics = |names: &[&str]| Evaluation {
            metrics: names.iter().map(|&name| (name.to_owned(), 0.1)).collect(),
            ..Evaluation::default()
        };
        let rows = [metrics(&["mrr", "auc", "ndcg@10"]), metrics(&["hr@10"])];
        assert_eq!(metric_names(&rows), ["ndcg@10", "hr@10", "mrr", "auc"]);
    }

    #[test]
    fn news_of_an_epoch_tells_loss_and_speed() {
        let update = RunProgress {
            step: "fit sequence".into(),
            epoch: 4,
            loss: 1.25,
            events_per_second: 52_340.6,
            seconds_left: 12.2,
            ..RunProgress::default()
        };
        assert_eq!(describe(&update), "fit sequence, epoch 4, loss 1.2500, 52341 events/s, 12 s left");
    }
}
