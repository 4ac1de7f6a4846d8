//! Folding samples again from the log. Reads one partition of the log at a time, and rests for so long after
//! it that checking takes at most a twentieth of one thread.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use rapport_events::Tenant;
use rapport_features::{CustomerState, Entity};
use rapport_offline::{OfflineLog, Selection};
use rapport_runtime::Lifecycle;

use super::Sample;
use crate::{Error, statistics::Statistics};

/// Samples of one partition that wait for the log to hold their events.
const MOST: usize = 256;
/// A sample whose events the log still lacks is given up.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Rests so many times as long as a check took.
const REST: u32 = 20;
/// What sums of numbers may differ by when their parts were added in another order, as after a back-fill.
const RELATIVE: f64 = 1e-9;
const TICK: Duration = Duration::from_millis(100);
/// Differing vectors of a check that are written to the log of the service.
const TOLD: usize = 5;

pub(crate) struct Checker {
    pub log: OfflineLog,
    pub samples: Receiver<Sample>,
    pub statistics: Arc<Statistics>,
    pub every: Duration,
    /// Whether customers are forgotten when nothing happens to them: then the log knows more of them.
    pub forgets: bool,
}

/// What came of one sample.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Same,
    /// The features that were something else, with what was served and what the log says.
    Differs(Differing),
    /// The customer had been forgotten meanwhile and began anew.
    Forgotten,
}

impl Checker {
    /// Checks until a drain, on a thread of its own.
    pub(crate) fn run(self, lifecycle: &Lifecycle) -> Result<(), Error> {
        let mut waiting: HashMap<i32, Vec<(Instant, Sample)>> = HashMap::new();
        let mut due = Instant::now() + self.every;
        // From the beginning, so that an alert on any difference has something to look at.
        for result in ["same", "differs"] {
            metrics::counter!("rapport_feature_store_skew_compared_total", "result" => result).absolute(0);
        }
        while !lifecycle.draining() {
            std::thread::sleep(TICK);
            for sample in self.samples.try_iter() {
                let of_partition = waiting.entry(sample.fence.partition).or_default();
                if of_partition.len() < MOST {
                    of_partition.push((Instant::now(), sample));
                }
            }
            if Instant::now() < due {
                continue;
            }
            let began = Instant::now();
            // The fullest first: what has been read most is checked most.
            let fullest = waiting.iter().max_by_key(|(_, samples)| samples.len()).map(|(partition, _)| *partition);
            if let Some(partition) = fullest {
                let samples = waiting.remove(&partition).unwrap_or_default();
                match self.check(partition, samples, lifecycle) {
                    Ok(left) if !left.is_empty() => drop(waiting.insert(partition, left)),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, partition, "samples cannot be folded again from the log"),
                }
            }
            due = Instant::now() + self.every.max(began.elapsed().saturating_mul(REST));
        }
        Ok(())
    }

    /// Folds the samples of a partition again; gives back those that the log does not hold yet.
    fn check(
        &self,
        partition: i32,
        samples: Vec<(Instant, Sample)>,
        lifecycle: &Lifecycle,
    ) -> Result<Vec<(Instant, Sample)>, Error> {
        let manifests = self.log.manifests_of(partition)?;
        let covered = manifests.last().map_or(-1, |manifest| manifest.last);
        let (ready, mut later): (Vec<_>, Vec<_>) =
            samples.into_iter().partition(|(_, sample)| sample.fence.offset <= covered);
        let before = later.len();
        later.retain(|(since, _)| since.elapsed() < PATIENCE);
        counted("not in the log", before - later.len());

        let ready: Vec<Sample> = ready.into_iter().map(|(_, sample)| sample).collect();
        let Some(last) = ready.iter().map(|sample| sample.fence.offset).max() else { return Ok(later) };
        let mut again = Again::of(&ready);
        for manifest in manifests.iter().filter(|manifest| manifest.first <= last) {
            if lifecycle.draining() {
                return Ok(later);
            }
            let mut events = self.log.events_of(std::slice::from_ref(manifest), &again.selection)?;
            events.sort_unstable_by_key(|logged| logged.position);
            events.iter().for_each(|logged| again.apply(logged, &ready));
        }
        let mut told = 0;
        for (sample, state) in ready.iter().zip(&again.states) {
            let verdict = verdict(sample, state, self.forgets);
            let names = match &verdict {
                Verdict::Differs(features) => features.iter().map(|(name, ..)| name.clone()).collect(),
                Verdict::Same | Verdict::Forgotten => Vec::new(),
            };
            match verdict {
                Verdict::Same => counted("same", 1),
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
                        let (tenant, customer) = (&sample.tenant, &sample.customer_id);
                        let first = first.unwrap_or_default();
                        tracing::warn!(%tenant, customer, features = features.len(), first, "served otherwise than the log says");
                    }
                }
            }
            self.statistics.compared(&sample.views, &sample.tenant, &names);
        }
        Ok(later)
    }
}

fn counted(result: &'static str, samples: usize) {
    if samples > 0 {
        let counter = metrics::counter!("rapport_feature_store_skew_compared_total", "result" => result);
        counter.increment(samples as u64);
    }
}

/// States in the making, one for each sample.
struct Again {
    states: Vec<CustomerState>,
    by_customer: HashMap<(Tenant, String), Vec<usize>>,
    selection: Selection,
}

impl Again {
    fn of(samples: &[Sample]) -> Self {
        let mut by_customer: HashMap<_, Vec<usize>> = HashMap::new();
        for (n, sample) in samples.iter().enumerate() {
            by_customer.entry((sample.tenant.clone(), sample.customer_id.clone())).or_default().push(n);
        }
        let tenant = samples.first().map(|sample| &sample.tenant);
        let tenant = tenant.filter(|tenant| samples.iter().all(|sample| sample.tenant == **tenant));
        let selection = tenant.map_or_else(Selection::default, Selection::of);
        let states = samples.iter().map(|sample| CustomerState::new(&sample.views)).collect();
        Self { states, by_customer, selection }
    }

    fn apply(&mut self, logged: &rapport_events::LoggedEvent, samples: &[Sample]) {
        let customer = (logged.event.tenant.clone(), logged.event.customer_id.clone());
        for &n in self.by_customer.get(&customer).map(Vec::as_slice).unwrap_or_default() {
            let held = samples.get(n).is_some_and(|sample| logged.position.offset <= sample.fence.offset);
            if let Some(state) = self.states.get_mut(n).filter(|_| held) {
                state.apply(&logged.event);
            }
        }
    }
}

fn alike(served: f64, again: f64) -> bool {
    served.to_bits() == again.to_bits()
        || (served.is_nan() && again.is_nan())
        || (served - again).abs() <= RELATIVE * served.abs().max(again.abs())
}

type Differing = Vec<(String, String, String)>;

fn numbers(names: &[String], served: &[f64], again: &[f64], differing: &mut Differing) {
    for ((name, served), again) in names.iter().zip(served).zip(again) {
        if !alike(*served, *again) {
            differing.push((name.clone(), served.to_string(), again.to_string()));
        }
    }
}

/// What a customer's state holds beside the customer.
const PARTS: [Entity; 2] = [Entity::CustomerCategory, Entity::Session];

/// Lists that are not exact may differ by the order that they were added up in.
fn lists(names: &[String], served: &[Option<Vec<String>>], again: &[Option<Vec<String>>], differing: &mut Differing) {
    for ((name, served), again) in names.iter().zip(served).zip(again) {
        if let (Some(served), Some(again)) = (served, again)
            && served != again
        {
            differing.push((name.clone(), format!("{served:?}"), format!("{again:?}")));
        }
    }
}

fn verdict(sample: &Sample, again: &CustomerState, forgets: bool) -> Verdict {
    let served = &sample.state;
    if forgets && served.version() < again.version() {
        return Verdict::Forgotten;
    }
    let (views, at) = (sample.views.as_ref(), sample.at);
    let mut differing = Vec::new();
    let (ours, theirs) = (served.read(at), again.read(at));
    numbers(views.names(Entity::Customer), &ours, &theirs, &mut differing);
    let (ours, theirs) = (served.read_exact_lists(at), again.read_exact_lists(at));
    lists(views.list_names(Entity::Customer), &ours, &theirs, &mut differing);
    for entity in PARTS {
        for part in served.parts(entity) {
            let (Some(ours), Some(theirs)) = (served.part(entity, part), again.part(entity, part)) else { continue };
            numbers(views.names(entity), &ours.read(at), &theirs.read(at), &mut differing);
            let (ours, theirs) = (ours.read_exact_lists(at), theirs.read_exact_lists(at));
            lists(views.list_names(entity), &ours, &theirs, &mut differing);
        }
    }
    let mut count = |what: &str, served: u64, again: u64, same: bool| {
        if !same {
            differing.push((what.to_owned(), served.to_string(), again.to_string()));
        }
    };
    for (entity, what) in PARTS.into_iter().zip(["(categories)", "(sessions)"]) {
        let parts = |state: &CustomerState| state.parts(entity).count() as u64;
        count(what, parts(served), parts(again), served.parts(entity).eq(again.parts(entity)));
    }
    count("(events)", served.version(), again.version(), served.version() == again.version());
    if differing.is_empty() { Verdict::Same } else { Verdict::Differs(differing) }
}

#[cfg(test)]
mod tests {
    use rapport_events::{CleanEvent, EventTime, LoggedEvent, Position};
    use rapport_features::Views;

    use super::*;

    fn logged(offset: i64) -> LoggedEvent {
        LoggedEvent {
            position: Position { partition: 0, offset },
            event: CleanEvent {
                tenant: Tenant::parse("demo").unwrap(),
                event_id: offset.to_string(),
                kind: "purchase".into(),
                customer_id: "ann".into(),
                item_id: Some(format!("i{offset}")),
                category: Some(format!("k{}", offset % 3)),
                session_id: Some(format!("s{}", offset / 4)),
                segment: None,
                time: EventTime::from_ms(offset * 1_000),
                received_at: EventTime::from_ms(offset * 1_000),
                value: Some(offset as f64 + 0.1),
            },
        }
    }

    fn sample(views: &Arc<Views>, events: impl Iterator<Item = i64>, fence: i64) -> Sample {
        let mut state = CustomerState::new(views);
        events.for_each(|offset| state.apply(&logged(offset).event));
        Sample {
            tenant: Tenant::parse("demo").unwrap(),
            customer_id: "ann".into(),
            fence: Position { partition: 0, offset: fence },
            at: EventTime::from_ms(60_000),
            views: Arc::clone(views),
            state,
        }
    }

    /// What the log of 20 events says of a sample.
    fn checked(sample: Sample, forgets: bool) -> Verdict {
        let samples = [sample];
        let mut again = Again::of(&samples);
        (0..20).for_each(|offset| again.apply(&logged(offset), &samples));
        verdict(&samples[0], &again.states[0], forgets)
    }

    #[test]
    fn what_was_served_is_compared_with_the_log_up_to_the_same_event() {
        let views = Arc::new(Views::built_in().unwrap());
        assert_eq!(checked(sample(&views, 0..12, 11), false), Verdict::Same);
        assert_eq!(checked(sample(&views, (0..12).rev(), 11), false), Verdict::Same, "sums of another order");
        for (events, what) in [(vec![0, 1, 2, 4], "one is missing"), (vec![0, 1, 2, 3, 3, 4], "one counts twice")] {
            let Verdict::Differs(features) = checked(sample(&views, events.into_iter(), 4), false) else {
                panic!("{what} and nobody says so");
            };
            assert!(features.iter().any(|(name, ..)| name == "(events)") && features.len() > 3, "{features:?}");
        }
    }

    #[test]
    fn a_list_that_is_not_the_logs_is_found_where_order_cannot_be_the_reason() {
        let views = |k: &str| {
            let yaml = format!(
                "version: 1\nviews: [{{name: v, entity: customer, features: [{{name: top, aggregate: top_k, of: category, {k}}}]}}]"
            );
            Arc::new(Views::parse(&yaml).unwrap())
        };
        // Five events each, but other ones: only the list says so.
        let other = |k: &str| checked(sample(&views(k), [0, 1, 1, 4, 4].into_iter(), 4), false);
        let Verdict::Differs(features) = other("k: 3") else { panic!("another list and nobody says so") };
        assert_eq!(features.len(), 1, "{features:?}");
        assert_eq!(features[0].0, "v.top");
        assert_eq!(other("k: 3, half_life: 1d"), Verdict::Same, "weights were rounded");
        assert_eq!(checked(sample(&views("k: 3"), (0..12).rev(), 11), false), Verdict::Same);
    }

    #[test]
    fn one_who_was_forgotten_is_no_skew_where_customers_are_forgotten() {
        let views = Arc::new(Views::built_in().unwrap());
        assert_eq!(checked(sample(&views, 8..12, 11), true), Verdict::Forgotten);
        assert!(matches!(checked(sample(&views, 8..12, 11), false), Verdict::Differs(_)));
    }
}
