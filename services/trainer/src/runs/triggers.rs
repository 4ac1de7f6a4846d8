//! Runs that nobody asks for: when the last one is too old, enough is new in the log, what is new is unlike
//! what the live model learned from, or what is live is acted on less than it was.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rapport_events::{EventTime, Tenant};
use rapport_offline::OfflineLog;
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};

use super::{
    Runs,
    drifted::Drifted,
    features::Drifts,
    ledger::{Asked, Entry, Why},
};
use crate::{
    Config, Error, Models, TrainingArgs,
    dataset::log::{Source, events},
    drift::{Learned, Snapshot},
    feedback::hit_rate::HitRateArgs,
    run::Plan,
    serve,
};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it reads the lists that were served: it reads all of them.
const READ_LISTS_EVERY: Duration = Duration::from_secs(10 * 60);
const POLL: Duration = Duration::from_millis(200);

/// When a run is due without being asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Triggers {
    pub every: Option<Duration>,
    pub fresh_events: Option<u64>,
}

impl Triggers {
    /// Whether a run is due, given the tenant's newest one and what its log holds. A tenant whose log is
    /// empty has nothing to learn from.
    pub fn due(&self, newest: Option<&Entry>, now: EventTime, events: u64) -> Option<Why> {
        if events == 0 || newest.is_some_and(|newest| !newest.state.ended()) {
            return None;
        }
        let fresh = events.saturating_sub(newest.map_or(0, |newest| newest.events));
        if self.fresh_events.is_some_and(|enough| fresh >= enough) {
            return Some(Why::FreshEvents);
        }
        let asked_at = newest.and_then(|newest| EventTime::parse_rfc3339(&newest.asked_at));
        let age = asked_at.map(|then| now.as_ms().saturating_sub(then.as_ms()));
        let old = |every: Duration| age.is_none_or(|age| i128::from(age) >= every.as_millis() as i128);
        self.every.is_some_and(old).then_some(Why::Schedule)
    }
}

/// Events of a tenant in the log, by its manifests: nothing is read but these.
///
/// # Errors
/// The log's store is away.
pub fn events_of(log: &OfflineLog, tenant: &Tenant) -> Result<u64, Error> {
    let files = log.manifests()?.into_iter().flat_map(|manifest| manifest.files);
    Ok(files.filter(|file| file.tenant == tenant.as_str()).map(|file| file.rows as u64).sum())
}

/// Starts the thread that looks, where there is something to look for.
///
/// # Errors
/// The operating system gives no thread.
pub fn start(
    config: &Config,
    log: OfflineLog,
    models: Arc<Models>,
    runs: Arc<Runs>,
    lifecycle: &Lifecycle,
) -> Result<Vec<OwnedThread>, Error> {
    let triggers = Triggers { every: config.every, fresh_events: config.fresh_events };
    let hit_rate = config.hit_rate.clone();
    let drifts =
        config.retrain_feature_drift.map(|above| Drifts::follow(above, &config.kafka, lifecycle)).transpose()?;
    let (drifts, listening) = drifts.unzip();
    let asked = config.retrain_drift.is_some() || hit_rate.hit_rate_fall.is_some() || drifts.is_some();
    if triggers == Triggers::default() && !asked {
        return Ok(Vec::new());
    }
    let mut look = Look {
        triggers,
        drifted: config.retrain_drift.map(Drifted::above),
        drifts,
        hit_rate,
        lists_read: None,
        learned: None,
        log,
        models,
        runs,
        tenant: config.default_tenant.clone(),
        training: config.training.clone(),
    };
    let inside = lifecycle.clone();
    let thread = spawn_thread::<Error, _>(lifecycle, "triggers", move || {
        let mut waited = LOOK_EVERY;
        while !inside.draining() {
            if waited < LOOK_EVERY {
                std::thread::sleep(POLL);
                waited += POLL;
                continue;
            }
            waited = Duration::ZERO;
            if let Err(error) = look.look() {
                tracing::warn!(%error, "cannot look whether a training is due; trying on");
            }
        }
        Ok(())
    });
    let thread = thread.map_err(Error::Thread)?;
    Ok(listening.into_iter().chain([thread]).collect())
}

struct Look {
    triggers: Triggers,
    drifted: Option<Drifted>,
    drifts: Option<Drifts>,
    hit_rate: HitRateArgs,
    /// When the lists that were served were read last.
    lists_read: Option<Instant>,
    /// Of the live version, once it was asked for.
    learned: Option<Learned>,
    log: OfflineLog,
    models: Arc<Models>,
    runs: Arc<Runs>,
    tenant: Tenant,
    training: TrainingArgs,
}

impl Look {
    fn look(&mut self) -> Result<(), Error> {
        let events = events_of(&self.log, &self.tenant)?;
        let newest = self.runs.newest(&self.tenant);
        let asked = Asked::default();
        let plan = serve::plan(asked.clone().into(), self.tenant.clone(), &self.training)
            .map_err(|status| Error::Items(status.message().to_owned()))?;
        let now = EventTime::now();
        let mut due = self.triggers.due(newest.as_ref(), now, events).map(|why| (why, String::new()));
        if due.is_none() {
            due = self.drifted(&plan, newest.as_ref(), events)?.map(|reason| (Why::Drift, reason));
        }
        if due.is_none() {
            let said = self.drifts.as_ref().and_then(|drifts| drifts.due(&self.tenant, newest.as_ref(), events, now));
            due = said.map(|reason| (Why::Drift, reason));
        }
        if due.is_none() {
            due = self.fallen(&plan, newest.as_ref(), now)?.map(|reason| (Why::HitRate, reason));
        }
        let Some((why, reason)) = due else { return Ok(()) };
        let entry = Entry { reason: reason.clone(), ..Entry::new(&self.tenant, why, asked) };
        match self.runs.start(Plan { because: reason.clone(), ..plan }, entry)? {
            Some(run) => tracing::info!(run = %run.id, ?why, reason, events, "a training is due"),
            None => tracing::warn!("a training is due and the queue is full; trying on"),
        }
        Ok(())
    }

    /// Why a run is due because lists are acted on less; it reads all of them, so not at every look.
    fn fallen(&mut self, plan: &Plan, newest: Option<&Entry>, now: EventTime) -> Result<Option<String>, Error> {
        let read_lately = self.lists_read.is_some_and(|read| read.elapsed() < READ_LISTS_EVERY);
        if self.hit_rate.hit_rate_fall.is_none() || read_lately || !may_ask(newest, self.hit_rate.hit_rate_span, now) {
            return Ok(None);
        }
        self.lists_read = Some(Instant::now());
        match self.models.live(&plan.tenant, &plan.model)?.filter(|live| !live.champion.is_empty()) {
            Some(live) => self.hit_rate.fallen(&self.log, &self.tenant, &live.champion, now),
            None => Ok(None),
        }
    }

    fn drifted(&mut self, plan: &Plan, newest: Option<&Entry>, count: u64) -> Result<Option<String>, Error> {
        let Some(drifted) = &mut self.drifted else { return Ok(None) };
        let Some(live) = self.models.live(&plan.tenant, &plan.model)?.filter(|live| !live.champion.is_empty()) else {
            return Ok(None);
        };
        if self.learned.as_ref().is_none_or(|learned| learned.version != live.champion) {
            self.learned = learned(&self.models, plan, live.champion)?;
        }
        // An artifact of before, or one that was brought, says nothing of its events.
        let Some(learned) = &self.learned else { return Ok(None) };
        let source = Source {
            tenant: plan.tenant.clone(),
            since: plan.since.clone(),
            event_types: learned.snapshot.learned.clone(),
            limits: plan.limits,
            memory: plan.memory.clone(),
        };
        if count > plan.limits.events as u64 {
            tracing::warn!(events = count, "more events than --max-events: drift is not looked for");
            return Ok(None);
        }
        drifted.due(learned, newest, count, || events(&self.log, &source))
    }
}

/// What a version learned from, where its artifact says so.
fn learned(models: &Models, plan: &Plan, version: String) -> Result<Option<Learned>, Error> {
    let (artifact, _) = models.registry().artifact(&plan.tenant, &plan.model, &version)?;
    let Some(json) = artifact.snapshot()? else { return Ok(None) };
    let snapshot = Snapshot::parse(&json).map_err(|reason| Error::Items(format!("snapshot of {version}: {reason}")))?;
    Ok(Some(Learned { version, snapshot, items: artifact.items()? }))
}

/// A fall is answered once: a run that did not help would otherwise be repeated until the lists change.
fn may_ask(newest: Option<&Entry>, span: Duration, now: EventTime) -> bool {
    newest.is_none_or(|newest| {
        let asked_at = EventTime::parse_rfc3339(&newest.asked_at);
        newest.state.ended() && asked_at.is_none_or(|at| now.since(at) >= span)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::ledger::State, *};

    fn newest(asked_at: &str, events: u64, state: State) -> Entry {
        let tenant = Tenant::parse("demo").unwrap();
        Entry { asked_at: asked_at.into(), state, events, ..Entry::new(&tenant, Why::Asked, Asked::default()) }
    }

    #[test]
    fn a_run_is_due_when_the_last_is_old_or_enough_is_new() {
        let now = EventTime::parse_rfc3339("2026-11-24T12:00:00Z").unwrap();
        let day = Triggers { every: Some(Duration::from_secs(24 * 3600)), fresh_events: None };
        let old = newest("2026-11-23T12:00:00Z", 500, State::Failed);
        let new = newest("2026-11-24T11:00:00Z", 500, State::Succeeded);
        assert_eq!(day.due(Some(&old), now, 500), Some(Why::Schedule));
        assert_eq!(day.due(Some(&new), now, 9_000), None);
        assert_eq!(day.due(None, now, 1), Some(Why::Schedule), "nothing was ever trained");
        assert_eq!(day.due(None, now, 0), None, "nothing is there to learn from");
        let fresh = Triggers { every: None, fresh_events: Some(1_000) };
        assert_eq!(fresh.due(Some(&new), now, 1_499), None);
        assert_eq!(fresh.due(Some(&new), now, 1_500), Some(Why::FreshEvents));
    }

    #[test]
    fn while_one_runs_none_is_due() {
        let now = EventTime::parse_rfc3339("2026-11-24T12:00:00Z").unwrap();
        let always = Triggers { every: Some(Duration::ZERO), fresh_events: Some(1) };
        for state in [State::Queued, State::Running] {
            assert_eq!(always.due(Some(&newest("2020-01-01T00:00:00Z", 0, state)), now, 9), None);
        }
    }
    #[test]
    fn a_fall_of_the_hit_rate_is_answered_once_in_its_span() {
        let now = EventTime::parse_rfc3339("2026-11-24T12:00:00Z").unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert!(may_ask(None, day, now));
        assert!(may_ask(Some(&newest("2026-11-23T11:00:00Z", 0, State::Failed)), day, now));
        assert!(!may_ask(Some(&newest("2026-11-24T11:00:00Z", 0, State::Succeeded)), day, now));
        assert!(!may_ask(Some(&newest("2026-11-20T11:00:00Z", 0, State::Running)), day, now));
    }
}
