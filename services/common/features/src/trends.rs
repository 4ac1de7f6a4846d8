//! What is trending: decayed interest by item, bounded.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rapport_events::{CleanEvent, EventTime};

use crate::{
    Error, Views, decay,
    wire::{self, Reader},
};

/// Items that a trend keeps. Up to a fifth more may stand in it between two prunings.
pub const TREND_ITEMS: usize = 1_000;
const SLACK: usize = TREND_ITEMS / 5;
const FORMAT: u8 = 1;

/// An item and how much interest it has, relative to the newest event.
#[derive(Debug, Clone, PartialEq)]
pub struct Trending {
    pub item_id: String,
    /// Sum of weight * 2^(-age / half life); the age is taken from the newest event of the trend.
    pub score: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Interest {
    at: i64,
    sum: f64,
}

/// The items of one tenant with the most decayed interest. When there are too many, the weakest go,
/// so a newcomer must earn its place within the half life: good enough for a top list.
#[derive(Debug, Clone)]
pub struct TrendState {
    views: Arc<Views>,
    items: HashMap<String, Interest>,
    newest: i64,
}

impl PartialEq for TrendState {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items && self.newest == other.newest
    }
}

impl TrendState {
    pub fn new(views: &Arc<Views>) -> Self {
        Self { views: Arc::clone(views), items: HashMap::new(), newest: i64::MIN }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The time of the newest event that counted.
    pub fn newest(&self) -> Option<EventTime> {
        (self.newest != i64::MIN).then(|| EventTime::from_ms(self.newest))
    }

    pub fn apply(&mut self, event: &CleanEvent) {
        let rules = &self.views.trends;
        let weight = *rules.weights.get(&event.kind).unwrap_or(&rules.default_weight);
        let Some(item_id) = event.item_id.as_ref().filter(|_| weight > 0.0) else { return };
        self.add(item_id, Interest { at: event.time.as_ms(), sum: weight });
    }

    fn add(&mut self, item_id: &str, more: Interest) {
        let half_life = self.views.trends.half_life_ms;
        self.newest = self.newest.max(more.at);
        match self.items.get_mut(item_id) {
            Some(interest) => {
                let at = interest.at.max(more.at);
                interest.sum = interest.sum * decay::weight(at.saturating_sub(interest.at), half_life)
                    + more.sum * decay::weight(at.saturating_sub(more.at), half_life);
                interest.at = at;
            }
            None => {
                self.items.insert(item_id.to_owned(), more);
                if self.items.len() > TREND_ITEMS + SLACK {
                    self.prune();
                }
            }
        }
    }

    fn score(&self, interest: &Interest) -> f64 {
        let age = self.newest.saturating_sub(interest.at);
        interest.sum * decay::weight(age, self.views.trends.half_life_ms)
    }

    /// The score's logarithm: interest that is many half lives old keeps its order where the score
    /// itself has underflowed to 0 (a back-filled history beside the first live event).
    fn rank(&self, interest: &Interest) -> f64 {
        let age = self.newest.saturating_sub(interest.at) as f64;
        interest.sum.log2() - age / self.views.trends.half_life_ms as f64
    }

    /// Best first.
    fn ranked(&self) -> Vec<(&String, f64)> {
        let mut ranked: Vec<_> = self.items.iter().map(|(id, i)| (id, self.rank(i), i)).collect();
        ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(b.2.at.cmp(&a.2.at)).then_with(|| a.0.cmp(b.0)));
        ranked.into_iter().map(|(id, _, interest)| (id, self.score(interest))).collect()
    }

    fn prune(&mut self) {
        let kept: Vec<String> = self.ranked().into_iter().take(TREND_ITEMS).map(|(id, _)| id.clone()).collect();
        let mut all = std::mem::take(&mut self.items);
        for id in kept {
            if let Entry::Occupied(entry) = all.entry(id) {
                let (id, interest) = entry.remove_entry();
                self.items.insert(id, interest);
            }
        }
    }

    /// The `n` best, best first.
    pub fn top(&self, n: usize) -> Vec<Trending> {
        let ranked = self.ranked().into_iter().take(n);
        ranked.map(|(item_id, score)| Trending { item_id: item_id.clone(), score }).collect()
    }

    /// Adds the interest of another partition.
    pub fn merge(&mut self, other: &Self) {
        let mut theirs: Vec<_> = other.items.iter().collect();
        theirs.sort_unstable_by_key(|(id, _)| *id);
        for (item_id, interest) in theirs {
            self.add(item_id, *interest);
        }
        self.newest = self.newest.max(other.newest);
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.items.len() * 24);
        out.push(FORMAT);
        wire::put_signed(&mut out, self.newest);
        wire::put_varint(&mut out, self.items.len() as u64);
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_unstable_by_key(|(id, _)| *id);
        for (id, interest) in items {
            wire::put_text(&mut out, id);
            wire::put_signed(&mut out, self.newest.wrapping_sub(interest.at));
            wire::put_f64(&mut out, interest.sum);
        }
        out
    }

    /// # Errors
    /// Bytes that [`Self::to_bytes`] did not write.
    pub fn from_bytes(views: &Arc<Views>, bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("trend", bytes);
        if reader.byte()? != FORMAT {
            return Err(reader.corrupt("has another format version"));
        }
        let newest = reader.signed()?;
        let n = reader.count(10)?;
        if n > TREND_ITEMS + SLACK {
            return Err(reader.corrupt("has too many items"));
        }
        let mut items = HashMap::with_capacity(n);
        for _ in 0..n {
            let id = reader.text()?.to_owned();
            let interest = Interest { at: newest.wrapping_sub(reader.signed()?), sum: reader.f64()? };
            if interest.at > newest || !interest.sum.is_finite() {
                return Err(reader.corrupt("has an interest out of range"));
            }
            items.insert(id, interest);
        }
        reader.end()?;
        Ok(Self { views: Arc::clone(views), items, newest })
    }
}
