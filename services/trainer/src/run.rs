//! One training run, from the log to the announcement.
//!
//! read log -> split by time -> fit (baselines, ridge, sequence model) -> judge on the hold-out ->
//! fit again on all data -> export and compare with libtorch -> write artifacts -> promote the
//! winner if it passed its gate

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use rapport_events::Tenant;
use rapport_offline::OfflineLog;
use rapport_registry::{ArtifactRef, Gate, Registry};
use tch::Device;

use crate::{
    Error, candidates,
    candidates::Candidate,
    champion,
    dataset::{self, Counts, Dataset, Limits, Split},
    evaluate::{Figures, evaluate},
    gate::{self, Opponents},
    models::{
        NextItem,
        markov::Markov,
        popularity::Popularity,
        recipe::{RidgeRecipe, SequenceRecipe},
    },
    neighbours::neighbours,
    progress::{Progress, Watch},
    publish::Models,
    write,
};

/// A kind of model that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ridge,
    Sasrec,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Ridge, Self::Sasrec];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ridge => "ridge",
            Self::Sasrec => "sasrec",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub tenant: Tenant,
    /// The place that the model serves, for example `next-item`.
    pub model: String,
    pub kinds: Vec<Kind>,
    pub ridge: RidgeRecipe,
    pub sasrec: SequenceRecipe,
    /// For the sequence model, training it again on all data included.
    pub budget: Duration,
    pub min_cases: u64,
    pub limits: Limits,
    pub since: Option<String>,
    pub event_types: Vec<String>,
    /// Write the versions, but leave what is live.
    pub dry_run: bool,
}

/// What with.
pub struct Tools<'a> {
    pub log: &'a OfflineLog,
    pub registry: &'a Registry,
    pub device: Device,
    /// What is live and how to change it, and the runtime to await it on; nothing is promoted
    /// without.
    pub models: Option<(&'a Models, &'a tokio::runtime::Handle)>,
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
    pub kind: &'static str,
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
    watch.report(Progress::note("read log", 0.0, format!("reading the log of tenant {}", plan.tenant)));
    let source = dataset::log::Source {
        tenant: plan.tenant.clone(),
        since: plan.since.clone(),
        event_types: plan.event_types.clone(),
        limits: plan.limits,
    };
    let data = dataset::log::read(tools.log, &source)?;
    let split = Split::by_time(&data)?;
    watch.report(Progress::note("read log", 1.0, described(&data, &split)));

    let mut evaluations = Vec::new();
    let baselines = baselines(&data, &split, watch, &mut evaluations)?;
    let mut candidates = candidates::fit(plan, tools.device, &data, &split, watch)?;
    for candidate in &candidates {
        evaluations.extend(candidate.evaluations());
    }
    let live = match tools.models {
        Some((models, _)) => models.live(&plan.tenant, &plan.model)?,
        None => tools.registry.live(&plan.tenant, &plan.model)?,
    };
    let champion = match live.filter(|live| !live.champion.is_empty()) {
        None => None,
        Some(live) => champion::figures(&live, plan, tools, &data, &split, &candidates, watch)?,
    };
    if let Some(champion) = &champion {
        let row = |model: &str, figures| Evaluation { model: model.into(), split: "test", figures, fit_seconds: 0.0 };
        evaluations.push(row("champion", champion.as_it_is));
        evaluations.extend(champion.refitted.map(|refitted| row("champion-recipe", refitted.figures)));
    }
    let opponents = Opponents { baselines, champion };

    // Chosen on validation; the test part only says yes or no.
    let best = |a: &&Candidate, b: &&Candidate| a.validation.ndcg.total_cmp(&b.validation.ndcg);
    let winner = candidates.iter().max_by(best).map(Candidate::kind).unwrap_or_default().to_owned();
    let neighbours = neighbours(&data);
    let mut versions = Vec::new();
    for candidate in &mut candidates {
        let gate = gate::judge(candidate.kind(), &candidate.test, &opponents, plan.min_cases);
        candidate.refit(plan, tools.device, &data, watch)?;
        watch.report(Progress::note("export", 0.0, format!("writing and checking {}", candidate.kind())));
        let report = write::Report { plan, data: &data, split: &split, neighbours: &neighbours, gate: &gate };
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

fn described(data: &Dataset, split: &Split) -> String {
    format!(
        "{} events of {} customers with {} items; {} validation and {} test cases ({} held-out events without history)",
        data.counts.used,
        data.customers.len(),
        data.items.len(),
        split.validation.len(),
        split.test.len(),
        split.without_history
    )
}

/// Popularity and Markov chain on the test part.
fn baselines(
    data: &Dataset,
    split: &Split,
    watch: &Watch<'_>,
    evaluations: &mut Vec<Evaluation>,
) -> Result<Vec<(&'static str, Figures)>, Error> {
    let training = split.training(data);
    let mut results = Vec::new();
    type Fit = fn(&[&[u32]], usize) -> Box<dyn NextItem>;
    let fits: [(&'static str, Fit); 2] = [
        ("popularity", |histories, width| Box::new(Popularity::fit(histories, width))),
        ("markov", |histories, width| Box::new(Markov::fit(histories, width))),
    ];
    for (name, fit) in fits {
        let started = Instant::now();
        let mut model = fit(&training, data.width());
        let fit_seconds = started.elapsed().as_secs_f64();
        for (part, cases) in [("validation", &split.validation), ("test", &split.test)] {
            let figures = evaluate(model.as_mut(), data, cases, watch.stop)?;
            evaluations.push(Evaluation { model: name.into(), split: part, figures, fit_seconds });
            if part == "test" {
                results.push((name, figures));
            }
        }
        let figures = results.last().map(|(_, figures)| *figures).unwrap_or_default();
        watch.report(Progress::note("evaluate", 0.0, format!("{name}: test ndcg@10 {:.4}", figures.ndcg)));
    }
    Ok(results)
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
    let live = runtime.block_on(models.promote(&plan.tenant, &plan.model, &best.reference.version, false))?;
    best.live = true;
    Ok((true, live.reason))
}
