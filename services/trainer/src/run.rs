//! One training run, from the log to the announcement.
//!
//! read log -> split by time -> fit (baselines, ridge, sequence model) -> judge on the hold-out ->
//! fit again on all data -> export and compare with libtorch -> compress -> write artifacts ->
//! promote the winner if it passed its gate

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rapport_events::Tenant;
use rapport_offline::OfflineLog;
use rapport_registry::{ArtifactRef, Gate, Registry};
use serde_json::Value;
use tch::Device;

use crate::{
    Compression, Error,
    candidates::Candidate,
    card, champion,
    compare::compare,
    dataset::{
        self, Counts, Dataset, Limits, Memory, Split,
        kafka::{KafkaRange, ReadRange},
    },
    drift::Snapshot,
    evaluate::Figures,
    gate::{self, Opponents},
    kept::{Forgotten, Keeper, Kept},
    models::{Task, blend, ridge},
    neighbours::neighbours,
    progress::{Progress, Watch},
    publish::Models,
    report, write,
};

/// Between two checkpoints of a long training.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub tenant: Tenant,
    /// The place that the model serves, for example `next-item`.
    pub model: String,
    /// What to train: complete recipes, each with its kind.
    pub recipes: Vec<Value>,
    /// For each sequence model, training it again on all data included.
    pub budget: Duration,
    /// How the written models are made smaller, where that is accepted.
    pub compress: Compression,
    pub min_cases: u64,
    pub limits: Limits,
    pub memory: Memory,
    pub since: Option<String>,
    pub event_types: Vec<String>,
    /// The type of event that models are judged on; all that are learned from when `None`.
    pub asked: Option<String>,
    /// Write the versions, but leave what is live.
    pub dry_run: bool,
    /// Why there is a run, for the card; empty when somebody asked for it.
    pub because: String,
    /// Where long trainings keep their way, to go on after a crash.
    pub checkpoints: Option<PathBuf>,
    /// How long may pass between two of them.
    pub checkpoint_every: Duration,
}

/// What with.
pub struct Tools<'a> {
    pub log: &'a OfflineLog,
    pub registry: &'a Registry,
    pub device: Device,
    /// What is live and how to change it, and the runtime to await it on; nothing is promoted
    /// without.
    pub models: Option<(&'a Models, &'a tokio::runtime::Handle)>,
    /// Sums that are there already, and who is not to be learned from; without, everything is added up.
    pub keeper: Option<&'a Keeper>,
    /// What is learned from instead of the log.
    pub range: Option<KafkaRange<'a>>,
}

/// One row of the table of results.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Evaluation {
    pub model: String,
    /// `validation` or `test`.
    pub split: &'static str,
    pub figures: Figures,
    pub fit_seconds: f64,
}

/// A version that was written.
#[derive(Debug, Clone)]
pub struct Version {
    pub reference: ArtifactRef,
    pub kind: String,
    pub metrics: BTreeMap<String, f64>,
    pub gate: Gate,
    pub created_at: String,
    pub live: bool,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub evaluations: Vec<Evaluation>,
    pub versions: Vec<Version>,
    pub winner: String,
    pub promoted: bool,
    pub reason: String,
    pub counts: Counts,
    pub customers: usize,
    pub items: usize,
    pub seconds: f64,
}

/// libtorch's device: chosen once, before the first tensor.
pub fn device(threads: u16) -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        let device = crate::device::choose();
        if threads > 0 {
            tch::set_num_threads(threads.into());
        }
        device
    })
}

/// Runs the plan to its end. Blocks for seconds to minutes; a panic of libtorch ends the run, not
/// the process.
///
/// # Errors
/// Nothing to learn from, a model that cannot be trained or exported, a disk or a broker that
/// fails, or [`Error::Cancelled`].
pub fn run(plan: &Plan, tools: &Tools<'_>, watch: &Watch<'_>) -> Result<Outcome, Error> {
    let guarded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pipeline(plan, tools, watch)));
    guarded.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::Panicked(message.chars().take(500).collect()))
    })
}

fn pipeline(plan: &Plan, tools: &Tools<'_>, watch: &Watch<'_>) -> Result<Outcome, Error> {
    let started = Instant::now();
    let Learned { data, kept, range } = learned_from(plan, tools, watch)?;
    let mut split = Split::by_time(&data)?;
    if let Some(asked) = &plan.asked {
        split = split.asking_for(&data, asked)?;
    }
    let snapshot = snapshot(plan, tools, &data)?;
    watch.report(Progress::note("read log", 1.0, described(&data, &split)));

    let task = Task {
        data: &data,
        split: &split,
        device: tools.device,
        budget: plan.budget,
        watch,
        checkpoint: plan.checkpoints.as_deref(),
        checkpoint_every: plan.checkpoint_every,
        kept: kept.as_ref(),
    };
    let mut comparison = compare(&plan.recipes, &task)?;
    let mut evaluations = comparison.evaluations();
    let live = match tools.models {
        Some((models, _)) => models.live(&plan.tenant, &plan.model)?,
        None => tools.registry.live(&plan.tenant, &plan.model)?,
    };
    let champion = match live.filter(|live| !live.champion.is_empty()) {
        None => None,
        Some(live) => champion::figures(&live, plan, tools, &task, &comparison.candidates)?,
    };
    if let Some(champion) = &champion {
        let row = |model: &str, figures| Evaluation { model: model.into(), split: "test", figures, fit_seconds: 0.0 };
        evaluations.push(row("champion", champion.as_it_is.figures));
        evaluations.extend(champion.refitted.iter().map(|other| row("champion-recipe", other.judged.figures)));
    }
    let baselines = comparison.baselines.iter().map(|b| (b.name.clone(), b.test.figures)).collect();
    let opponents = Opponents { baselines, champion };

    let winner = comparison.winner().map(Candidate::kind).unwrap_or_default().to_owned();
    let mut facts = vec![("tenant".into(), plan.tenant.to_string()), ("won on validation".into(), winner.clone())];
    facts.extend(range.map(|range| ("read".into(), range.to_string())));
    facts.extend(report::counted(&data));
    let title = format!("Training of {}", plan.model);
    let html =
        report::pages(title, card::protocol(plan.asked.as_deref()), facts, &comparison, &data, &split)?.full.to_html();
    let neighbours = neighbours(&data);
    let mut versions = Vec::new();
    for candidate in &mut comparison.candidates {
        let gate = gate::judge(candidate.kind(), &candidate.test, &opponents, plan.min_cases);
        let trained_on = candidate.refit(&data, tools.device, plan.budget, watch)?;
        watch.report(Progress::note("export", 0.0, format!("writing and checking {}", candidate.kind())));
        let report = write::Report {
            plan,
            data: &data,
            split: &split,
            neighbours: &neighbours,
            snapshot: snapshot.as_ref(),
            gate: &gate,
            trained_on,
            html: &html,
            watch,
        };
        versions.push(write::version(tools.registry, candidate, &report, &evaluations)?);
    }
    let (promoted, reason) = promote(plan, tools, &winner, &mut versions, watch)?;
    Ok(Outcome {
        evaluations,
        versions,
        winner,
        promoted,
        reason,
        counts: data.counts,
        customers: data.customers.len(),
        items: data.items.len(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// What a run learns from.
struct Learned {
    data: Dataset,
    /// Sums over these very events. Held to the end, so that they stay as they are.
    kept: Option<Arc<Kept>>,
    /// Where in Kafka they are from.
    range: Option<ReadRange>,
}

fn learned_from(plan: &Plan, tools: &Tools<'_>, watch: &Watch<'_>) -> Result<Learned, Error> {
    let what = if tools.range.is_some() { "a range of the clean topic" } else { "the log" };
    watch.report(Progress::note("read log", 0.0, format!("reading {what} of tenant {}", plan.tenant)));
    let source = dataset::log::Source {
        tenant: plan.tenant.clone(),
        since: plan.since.clone(),
        event_types: plan.event_types.clone(),
        limits: plan.limits,
        memory: plan.memory.clone(),
    };
    let forgotten = match tools.keeper {
        Some(keeper) => keeper.forgotten(&plan.tenant)?,
        None => Forgotten::nobody(&plan.tenant),
    };
    let kept = match tools.keeper {
        Some(keeper) if tools.range.is_none() && blend::needs(&plan.recipes, ridge::KIND) => {
            keeper.current(tools.log, plan, watch.stop)
        }
        Some(_) | None => None,
    };
    let (data, range) = match &tools.range {
        Some(range) => range.read(&source, &forgotten, watch.stop).map(|(data, read)| (data, Some(read)))?,
        None => {
            let until = kept.as_ref().map(|kept| kept.place());
            (dataset::log::read_until(tools.log, &source, until, &forgotten)?, None)
        }
    };
    if let Some(range) = &range {
        watch.report(Progress::note("read log", 0.9, range.to_string()));
    }
    Ok(Learned { data, kept, range })
}

/// How the events were spread that a run learns from: read once more, since a training keeps less of them. Not
/// where they do not fit in memory, nor of a range that was named: what comes is not compared with those.
fn snapshot(plan: &Plan, tools: &Tools<'_>, data: &Dataset) -> Result<Option<Snapshot>, Error> {
    if data.on_disk() || tools.range.is_some() {
        return Ok(None);
    }
    let source = dataset::log::Source {
        tenant: plan.tenant.clone(),
        since: plan.since.clone(),
        event_types: plan.event_types.clone(),
        limits: plan.limits,
        memory: plan.memory.clone(),
    };
    let events = dataset::log::events(tools.log, &source)?;
    Ok(Some(Snapshot::of(&events, &plan.event_types, &data.items)))
}

fn described(data: &Dataset, split: &Split) -> String {
    let place = if data.on_disk() { ", sorted on disk" } else { "" };
    format!(
        "{} events of {} customers with {} items{place}; {} validation and {} test cases ({} held-out events without history)",
        data.counts.used,
        data.customers.len(),
        data.items.len(),
        split.validation.len(),
        split.test.len(),
        split.without_history
    )
}

fn promote(
    plan: &Plan,
    tools: &Tools<'_>,
    winner: &str,
    versions: &mut [Version],
    watch: &Watch<'_>,
) -> Result<(bool, String), Error> {
    let Some(best) = versions.iter_mut().find(|version| version.kind == winner) else {
        return Ok((false, "nothing was trained".into()));
    };
    if !best.gate.passed {
        return Ok((false, best.gate.reason.clone()));
    }
    let Some((models, runtime)) = tools.models.filter(|_| !plan.dry_run) else {
        return Ok((false, format!("dry run; it would have gone live: {}", best.gate.reason)));
    };
    if (watch.stop)() {
        return Err(Error::Cancelled);
    }
    watch.report(Progress::note("publish", 0.0, format!("announcing {}", best.reference.version)));
    let (live, promoted) = runtime.block_on(models.winner(&plan.tenant, &plan.model, &best.reference.version))?;
    best.live = promoted;
    Ok((promoted, live.reason))
}
