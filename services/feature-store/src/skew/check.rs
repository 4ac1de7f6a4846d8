//! Making samples again from the log. Reads one partition of the log at a time, and rests for so long after
//! it that checking takes at most a twentieth of one thread. A customer's events are in one partition; an item's and
//! a segment's are in all of them, so these are judged when the last one has had its turn.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use rapport_events::{CleanEvent, LoggedEvent, Tenant};
use rapport_features::{CustomerState, Entity, State};
use rapport_offline::{OfflineLog, Selection};
use rapport_runtime::Lifecycle;

use super::{
    Held, Sample, counted, left_out,
    verdict::{Again, Verdict, verdict},
};
use crate::{Error, statistics::Statistics};

/// Customers of one partition that wait for the log to hold their events.
const CUSTOMERS: usize = 256;
/// Items and segments that wait for their partitions.
const SHARED: usize = 64;
/// A sample whose events the log still lacks is given up.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Rests so many times as long as a check took.
const REST: u32 = 20;
const TICK: Duration = Duration::from_millis(100);
/// Differing vectors of a check that are written to the log of the service.
const TOLD: usize = 5;

pub(crate) struct Checker {
    pub log: OfflineLog,
    pub samples: Receiver<Sample>,
    pub statistics: Arc<Statistics>,
    pub every: Duration,
    /// Whether customers and items are forgotten when nothing happens to them: then the log knows more of them.
    pub forgets: bool,
}

/// A sample, and what the log has said of it.
struct Open {
    since: Instant,
    sample: Sample,
    again: Again,
    /// Partitions that are still to be read for it, with their last offset that it holds.
    left: BTreeMap<i32, i64>,
}

impl Open {
    fn new(sample: Sample) -> Self {
        let left = sample.drawn.fences().iter().map(|fence| (fence.partition, fence.offset)).collect();
        Self { since: Instant::now(), sample, again: Again::default(), left }
    }

    fn is_shared(&self) -> bool {
        matches!(self.sample.drawn.held, Held::Shared { .. })
    }
}

/// The samples that wait.
#[derive(Default)]
struct Waiting {
    open: Vec<Open>,
    /// When each partition had its turn.
    turns: HashMap<i32, u64>,
    turn: u64,
}

impl Waiting {
    /// Takes a sample in where there is room.
    fn take(&mut self, sample: Sample) {
        let new = Open::new(sample);
        let alike = |open: &&Open| match new.is_shared() {
            true => open.is_shared(),
            false => !open.is_shared() && open.left.keys().eq(new.left.keys()),
        };
        if self.open.iter().filter(alike).count() < if new.is_shared() { SHARED } else { CUSTOMERS } {
            self.open.push(new);
        } else {
            left_out(1);
        }
    }

    /// Whose turn it is: of those that something waits for, the one that has waited longest, or the one that most
    /// wait for.
    fn next(&mut self) -> Option<i32> {
        let mut wanted: HashMap<i32, usize> = HashMap::new();
        self.open.iter().flat_map(|open| open.left.keys()).for_each(|p| *wanted.entry(*p).or_default() += 1);
        let had = |partition: &i32| self.turns.get(partition).copied().unwrap_or_default();
        let (next, _) = wanted.into_iter().min_by_key(|(partition, wait)| (had(partition), Reverse(*wait)))?;
        self.turn += 1;
        self.turns.insert(next, self.turn);
        Some(next)
    }
}

impl Checker {
    /// Checks until a drain, on a thread of its own.
    pub(crate) fn run(self, lifecycle: &Lifecycle) -> Result<(), Error> {
        let mut waiting = Waiting::default();
        let mut due = Instant::now() + self.every;
        // From the beginning, so that an alert on any difference has something to look at.
        for result in ["same", "differs"] {
            metrics::counter!("rapport_feature_store_skew_compared_total", "result" => result).absolute(0);
        }
        while !lifecycle.draining() {
            std::thread::sleep(TICK);
            self.samples.try_iter().for_each(|sample| waiting.take(sample));
            if Instant::now() < due {
                continue;
            }
            let began = Instant::now();
            if let Some(partition) = waiting.next() {
                if let Err(error) = self.check(partition, &mut waiting.open, lifecycle) {
                    tracing::warn!(%error, partition, "samples cannot be made again from the log");
                    waiting.open.retain(|open| !open.left.contains_key(&partition));
                }
                self.judge(&mut waiting.open);
            }
            due = Instant::now() + self.every.max(began.elapsed().saturating_mul(REST));
        }
        Ok(())
    }

    /// Folds what a partition has of the samples that wait for it and whose events the log holds.
    fn check(&self, partition: i32, open: &mut Vec<Open>, lifecycle: &Lifecycle) -> Result<(), Error> {
        let manifests = self.log.manifests_of(partition)?;
        let covered = manifests.last().map_or(-1, |manifest| manifest.last);
        let lacks = |open: &Open| open.left.get(&partition).is_some_and(|last| *last > covered);
        let before = open.len();
        open.retain(|open| !lacks(open) || open.since.elapsed() < PATIENCE);
        counted("not in the log", before - open.len());

        let mut fold = Fold::of(partition, covered, open);
        let Some(last) = fold.last() else { return Ok(()) };
        for manifest in manifests.iter().filter(|manifest| manifest.first <= last) {
            if lifecycle.draining() {
                return Ok(());
            }
            let mut events = self.log.events_of(std::slice::from_ref(manifest), &fold.selection)?;
            events.sort_unstable_by_key(|logged| logged.position);
            events.iter().for_each(|logged| fold.apply(logged));
        }
        fold.end(open);
        Ok(())
    }

    /// Judges the samples of which the log has said everything, and takes them out.
    fn judge(&self, open: &mut Vec<Open>) {
        let mut told = 0;
        for Open { sample, again, .. } in open.extract_if(.., |open| open.left.is_empty()) {
            let names = match verdict(&sample, &again, self.forgets) {
                Verdict::Same => {
                    counted("same", 1);
                    Vec::new()
                }
                Verdict::Forgotten => {
                    counted("forgotten", 1);
                    continue;
                }
                Verdict::Differs(features) => {
                    counted("differs", 1);
                    if told < TOLD {
                        told += 1;
                        let first =
                            features.first().map(|(name, served, log)| format!("{name} was {served}, is {log}"));
                        let (tenant, entity, id) = (&sample.tenant, sample.drawn.entity(), &sample.drawn.id);
                        let first = first.unwrap_or_default();
                        tracing::warn!(%tenant, %entity, id, features = features.len(), first, "served otherwise than the log says");
                    }
                    features.into_iter().map(|(name, ..)| name).collect()
                }
            };
            self.statistics.compared(&sample.views, &sample.tenant, &names);
        }
    }
}

/// What a partition has of one sample.
enum Part {
    Customer(CustomerState),
    Shared(State),
}

impl Part {
    fn apply(&mut self, event: &CleanEvent) {
        match self {
            Self::Customer(state) => state.apply(event),
            Self::Shared(state) => state.apply(event),
        }
    }
}

/// Whose parts an event belongs to, by tenant and id.
#[derive(Default)]
struct Of(HashMap<Tenant, HashMap<String, Vec<usize>>>);

impl Of {
    fn add(&mut self, sample: &Sample, part: usize) {
        let of_tenant = self.0.entry(sample.tenant.clone()).or_default();
        of_tenant.entry(sample.drawn.id.clone()).or_default().push(part);
    }

    fn get(&self, tenant: &Tenant, id: &str) -> &[usize] {
        self.0.get(tenant).and_then(|of_tenant| of_tenant.get(id)).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A partition's parts of samples in the making.
struct Fold {
    partition: i32,
    /// Of each the sample's place, the last offset that it holds, and the part.
    parts: Vec<(usize, i64, Part)>,
    customers: Of,
    /// Items and segments.
    shared: HashMap<Entity, Of>,
    selection: Selection,
}

impl Fold {
    /// Of the samples that wait for this partition up to an offset that it has.
    fn of(partition: i32, covered: i64, open: &[Open]) -> Self {
        let (mut parts, mut customers, mut shared) = (Vec::new(), Of::default(), HashMap::new());
        let mut tenants = Vec::new();
        for (at, Open { sample, left, .. }) in open.iter().enumerate() {
            let Some(last) = left.get(&partition).filter(|last| **last <= covered) else { continue };
            let part = match &sample.drawn.held {
                Held::Customer { .. } => {
                    customers.add(sample, parts.len());
                    Part::Customer(CustomerState::new(&sample.views))
                }
                Held::Shared { entity, .. } => {
                    shared.entry(*entity).or_insert_with(Of::default).add(sample, parts.len());
                    Part::Shared(State::new(&sample.views, *entity))
                }
            };
            parts.push((at, *last, part));
            tenants.push(&sample.tenant);
        }
        tenants.dedup();
        let selection = match tenants.as_slice() {
            [tenant] => Selection::of(tenant),
            _ => Selection::default(),
        };
        Self { partition, parts, customers, shared, selection }
    }

    /// The last offset that anything holds.
    fn last(&self) -> Option<i64> {
        self.parts.iter().map(|(_, last, _)| *last).max()
    }

    fn apply(&mut self, LoggedEvent { position, event }: &LoggedEvent) {
        let of_customer = self.customers.get(&event.tenant, &event.customer_id);
        let of_shared =
            self.shared.iter().filter_map(|(entity, of)| Some(of.get(&event.tenant, entity.shared_of(event)?)));
        for &n in of_customer.iter().chain(of_shared.flatten()) {
            if let Some((_, last, part)) = self.parts.get_mut(n)
                && position.offset <= *last
            {
                part.apply(event);
            }
        }
    }

    /// Hands the parts to their samples, which then wait for this partition no more.
    fn end(self, open: &mut [Open]) {
        for (at, _, part) in self.parts {
            let Some(open) = open.get_mut(at) else { continue };
            open.left.remove(&self.partition);
            match part {
                Part::Customer(state) => open.again.customer = Some(state),
                Part::Shared(state) => drop(open.again.shared.insert(self.partition, state)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
