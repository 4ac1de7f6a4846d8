//! Events as counts of a few features.

use std::collections::{HashMap, VecDeque};

use rapport_events::LoggedEvent;

const HOUR_MS: i64 = 3_600_000;
/// How far back a history counts: all of it would grow with every day, drift or not.
const HISTORY_MS: i64 = 30 * 24 * HOUR_MS;
/// Upper ends in hours: a quarter of an hour to four weeks.
const GAP_HOURS: [f64; 8] = [0.25, 1.0, 6.0, 24.0, 72.0, 168.0, 336.0, 672.0];
/// Upper ends in events.
const HISTORY: [usize; 8] = [0, 1, 2, 4, 9, 19, 49, 99];
/// Buckets of known items by popularity; the one after them is for new items.
pub const DECILES: usize = 10;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Share of events by how popular their item was when the model was trained; new items apart.
    Items,
    /// Share of events by their type.
    Types,
    /// Hours since the customer's event before.
    Gaps,
    /// Events of the customer in the 30 days before.
    History,
}

impl Feature {
    pub const ALL: [Self; 4] = [Self::Items, Self::Types, Self::Gaps, Self::History];

    /// As metrics and reasons call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Types => "types",
            Self::Gaps => "gaps",
            Self::History => "history",
        }
    }
}

/// How often each bucket of each feature was met.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// By popularity, the most popular tenth of events first; new items last.
    pub items: Vec<u64>,
    /// In the order of the snapshot's types; other types last.
    pub types: Vec<u64>,
    pub gaps: Vec<u64>,
    pub history: Vec<u64>,
}

impl Counts {
    pub fn of(&self, feature: Feature) -> &[u64] {
        match feature {
            Feature::Items => &self.items,
            Feature::Types => &self.types,
            Feature::Gaps => &self.gaps,
            Feature::History => &self.history,
        }
    }
}

/// How events fall into buckets.
pub struct Buckets<'a> {
    /// Event types that models learn from; all when empty.
    pub learned: &'a [String],
    /// Types with a bucket of their own.
    pub types: &'a [String],
    /// The tenth of an item; `None` for a new one.
    pub decile: &'a dyn Fn(&str) -> Option<usize>,
}

impl Buckets<'_> {
    /// The item of an event that models learn from.
    pub fn item<'e>(&self, logged: &'e LoggedEvent) -> Option<&'e str> {
        let wanted = self.learned.is_empty() || self.learned.contains(&logged.event.kind);
        logged.event.item_id.as_deref().filter(|_| wanted)
    }

    /// Counts the events later than `after` (ms); earlier ones are only their customers' past. Also how
    /// many of the counted ones models learn from.
    pub fn count(&self, in_order: &[&LoggedEvent], after: i64) -> (Counts, u64) {
        let mut counts = Counts {
            items: vec![0; DECILES + 1],
            types: vec![0; self.types.len() + 1],
            gaps: vec![0; GAP_HOURS.len() + 1],
            history: vec![0; HISTORY.len() + 1],
        };
        let mut used = 0;
        let mut pasts: HashMap<&str, VecDeque<i64>> = HashMap::new();
        for logged in in_order {
            let (time, counted) = (logged.event.time.as_ms(), logged.event.time.as_ms() > after);
            if counted {
                let own = self.types.iter().position(|kind| *kind == logged.event.kind);
                add(&mut counts.types, own.unwrap_or(self.types.len()));
            }
            let Some(item) = self.item(logged) else { continue };
            let past = pasts.entry(&logged.event.customer_id).or_default();
            if counted {
                used += 1;
                add(&mut counts.items, (self.decile)(item).unwrap_or(DECILES));
                if let Some(before) = past.back() {
                    let hours = time.saturating_sub(*before) as f64 / HOUR_MS as f64;
                    add(&mut counts.gaps, GAP_HOURS.partition_point(|end| *end < hours));
                }
                let near = past.len() - past.partition_point(|before| *before < time.saturating_sub(HISTORY_MS));
                add(&mut counts.history, HISTORY.partition_point(|end| *end < near));
            }
            past.push_back(time);
            // The newest stays, however old, for the next gap; of the others no more is told apart.
            while past.len() > HISTORY[HISTORY.len() - 1] + 2 {
                past.pop_front();
            }
        }
        (counts, used)
    }
}

fn add(counts: &mut [u64], bucket: usize) {
    if let Some(count) = counts.get_mut(bucket) {
        *count += 1;
    }
}
