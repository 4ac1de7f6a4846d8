//! What a training leaves of its log, and the comparison with what came since.

use std::collections::{HashMap, HashSet};

use rapport_evaluation::stability_of_counts;
use rapport_events::LoggedEvent;
use rapport_registry::ItemTable;

use super::counts::{Buckets, Counts, DECILES, Feature};

/// Events with an item, on either side, below which nothing is said: the index of ten buckets is about
/// 9 (1/n + 1/m) by chance alone, .02 at a thousand each.
pub const LEAST_EVENTS: u64 = 1_000;
/// Customers since the training below which nothing is said: a few can be unlike the others.
const LEAST_CUSTOMERS: usize = 30;
/// What is counted of the training itself: the newest part, by time of the events.
const COUNTED_FROM: f64 = 0.8;
/// Types with a bucket of their own, the most frequent ones.
const MOST_TYPES: usize = 20;
const FORMAT: u32 = 1;

/// The spread of the newest fifth of the events that a model learned from.
///
/// Its items are placed by their popularity in the four fifths before, so that "new" means the same as
/// later: not there when the buckets were made. Some items are always new; the share of that is what
/// is compared.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    pub format: u32,
    /// Event time (ms) of the newest event: what is later came since.
    pub until_ms: i64,
    /// Event types that were learned from; all when empty.
    pub learned: Vec<String>,
    /// Types that are told apart.
    pub types: Vec<String>,
    /// `[deciles]`: the last index, in the artifact's items, of each tenth of all events; rising.
    pub deciles: Vec<u32>,
    /// Events with an item behind the counts.
    pub events: u64,
    pub counts: Counts,
}

/// A live model's snapshot with its items.
pub struct Learned {
    pub version: String,
    pub snapshot: Snapshot,
    pub items: ItemTable,
}

/// What has come since, beside the snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Events with an item that came since.
    pub events: u64,
    /// The population stability index of each feature; `None` of one with too few values.
    pub indexes: Vec<(Feature, f64)>,
}

impl Snapshot {
    /// Of the events of one tenant, in any order; `items` are those of the model, the most popular
    /// first.
    pub fn of(events: &[LoggedEvent], learned: &[String], items: &ItemTable) -> Self {
        let ordered = in_order(events);
        let types = frequent_types(&ordered);
        let every = Buckets { learned, types: &types, decile: &|_| None };
        let used: Vec<&LoggedEvent> = ordered.iter().copied().filter(|logged| every.item(logged).is_some()).collect();
        let place = (used.len() as f64 * COUNTED_FROM) as usize;
        let after = used.get(place.saturating_sub(1)).map_or(i64::MIN, |logged| logged.event.time.as_ms());
        let known = |logged: &&LoggedEvent| logged.event.item_id.as_deref().and_then(|id| items.index_of(id));

        let before = used.iter().take_while(|logged| logged.event.time.as_ms() <= after);
        let mut earlier = vec![0u64; items.len() + 1];
        before.filter_map(known).for_each(|index| earlier[index as usize] += 1);
        let mut order: Vec<u32> = (0..).take(earlier.len()).filter(|&index| earlier[index as usize] > 0).collect();
        order.sort_by_key(|&index| (std::cmp::Reverse(earlier[index as usize]), index));
        let ends = tenths(&order.iter().map(|&index| earlier[index as usize]).collect::<Vec<_>>());
        let tenth = |place: usize| ends.partition_point(|&end| (end as usize) < place).min(DECILES - 1);
        let placed: HashMap<u32, usize> =
            order.iter().enumerate().map(|(place, &index)| (index, tenth(place))).collect();
        let decile = |id: &str| items.index_of(id).and_then(|index| placed.get(&index)).copied();
        let (counts, events) = Buckets { learned, types: &types, decile: &decile }.count(&ordered, after);

        let mut all = vec![0u64; items.len() + 1];
        used.iter().filter_map(known).for_each(|index| all[index as usize] += 1);
        let until_ms = ordered.last().map_or(i64::MIN, |logged| logged.event.time.as_ms());
        Self { format: FORMAT, until_ms, learned: learned.to_vec(), types, deciles: tenths(&all), events, counts }
    }

    /// Reads `snapshot.json`.
    ///
    /// # Errors
    /// It is not one, or of another format.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if read.format == FORMAT { Ok(read) } else { Err(format!("format {} is not {FORMAT}", read.format)) }
    }
}

impl Learned {
    /// What came since, beside the snapshot; `None` where either is too little to say anything.
    pub fn compare(&self, events: &[LoggedEvent]) -> Option<Comparison> {
        let Self { snapshot, items, .. } = self;
        let decile = |id: &str| {
            let index = items.index_of(id)?;
            Some(snapshot.deciles.partition_point(|&end| end < index).min(DECILES - 1))
        };
        let buckets = Buckets { learned: &snapshot.learned, types: &snapshot.types, decile: &decile };
        let since = |logged: &&LoggedEvent| logged.event.time.as_ms() > snapshot.until_ms;
        let who: HashSet<&str> = events.iter().filter(since).map(|logged| logged.event.customer_id.as_str()).collect();
        let (counts, events) = buckets.count(&in_order(events), snapshot.until_ms);
        if events.min(snapshot.events) < LEAST_EVENTS || who.len() < LEAST_CUSTOMERS {
            return None;
        }
        // Gaps are fewer than events: customers who come but once have none.
        let enough = |counts: &[u64]| counts.iter().sum::<u64>() >= LEAST_EVENTS / 2;
        let index = |feature: Feature| {
            let (then, now) = (snapshot.counts.of(feature), counts.of(feature));
            let known = (enough(then) && enough(now)).then(|| stability_of_counts(then, now).ok())?;
            known.map(|index| (feature, index))
        };
        Some(Comparison { events, indexes: Feature::ALL.into_iter().filter_map(index).collect() })
    }
}

/// By event time; events of one moment in the order of the log.
fn in_order(events: &[LoggedEvent]) -> Vec<&LoggedEvent> {
    let mut ordered: Vec<&LoggedEvent> = events.iter().collect();
    ordered.sort_by_key(|logged| (logged.event.time.as_ms(), logged.position.partition, logged.position.offset));
    ordered
}

fn frequent_types(events: &[&LoggedEvent]) -> Vec<String> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    events.iter().for_each(|logged| *counts.entry(&logged.event.kind).or_default() += 1);
    let mut order: Vec<(&str, u64)> = counts.into_iter().collect();
    order.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    order.into_iter().take(MOST_TYPES).map(|(kind, _)| kind.to_owned()).collect()
}

/// The places at which each tenth of the whole is full, rising, [`DECILES`] of them.
fn tenths(counts: &[u64]) -> Vec<u32> {
    let total: u64 = counts.iter().sum();
    let (mut ends, mut sum) = (Vec::with_capacity(DECILES), 0);
    for (place, count) in (0..).zip(counts) {
        sum += count;
        while ends.len() < DECILES && sum * DECILES as u64 >= total * (ends.len() as u64 + 1) {
            ends.push(place);
        }
    }
    ends.resize(DECILES, ends.last().copied().unwrap_or(0));
    ends
}
