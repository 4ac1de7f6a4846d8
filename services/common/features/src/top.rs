//! What came up most often: exact while there are few different things, then SpaceSaving (Metwally, Agrawal and
//! El Abbadi, ICDT 2005), put together as in "Mergeable Summaries" (Agarwal et al., PODS 2012).
//!
//! While there is room for every different thing, what was seen decides the counts, never its order. Beyond, of n
//! things seen with room for c, each that makes up more than n/c is among those that are kept, and each count is
//! right to within n/c, in whatever order they came.

use crate::{
    Error, decay,
    wire::{self, Reader},
};

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    name: Box<str>,
    /// How often it came up, at most: `over` of it may be another's.
    weight: f64,
    over: f64,
}

impl Entry {
    /// How often it came up, at least.
    fn sure(&self) -> f64 {
        self.weight - self.over
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Top {
    half_life_ms: Option<i64>,
    /// The newest time, which weights are as of; without a half life they do not change, and it is 0.
    at: i64,
    /// Of what is not kept, how often it may have come up; 0 while everything is.
    floor: f64,
    /// Ascending by name.
    entries: Vec<Entry>,
}

impl Top {
    /// One that has seen nothing.
    pub(crate) const fn new(half_life_ms: Option<i64>) -> Self {
        Self { half_life_ms, at: i64::MIN, floor: 0.0, entries: Vec::new() }
    }

    /// Counts one thing, with room for so many different ones.
    pub(crate) fn add(&mut self, name: &str, time: i64, room: usize) {
        let weight = self.weight_of(time);
        if let Ok(at) = self.find(name) {
            if let Some(entry) = self.entries.get_mut(at) {
                entry.weight += weight;
            }
            return;
        }
        self.make_room(room.saturating_sub(1));
        let entry = Entry { name: name.into(), weight: self.floor + weight, over: self.floor };
        let at = self.find(name).unwrap_or_else(|at| at);
        self.entries.insert(at, entry);
    }

    /// Everything that either has seen, with room for so many different things.
    pub(crate) fn merge(&mut self, other: &Self, room: usize) {
        self.come_to(other.at);
        let scale =
            other.half_life_ms.map_or(1.0, |half_life| decay::weight(self.at.saturating_sub(other.at), half_life));
        let (floor, theirs) = (self.floor, other.floor * scale);
        let mut merged = Vec::with_capacity(self.entries.len() + other.entries.len());
        let (mut ours, mut others) =
            (std::mem::take(&mut self.entries).into_iter().peekable(), other.entries.iter().peekable());
        loop {
            let order = match (ours.peek(), others.peek()) {
                (Some(a), Some(b)) => a.name.cmp(&b.name),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => break,
            };
            let a = if order.is_le() { ours.next() } else { None };
            let b = if order.is_ge() { others.next() } else { None };
            let (weight, over) = b.map_or((theirs, theirs), |b| (b.weight * scale, b.over * scale));
            merged.extend(match (a, b) {
                (Some(a), _) => Some(Entry { weight: a.weight + weight, over: a.over + over, ..a }),
                (None, Some(b)) => Some(Entry { name: b.name.clone(), weight: floor + weight, over: floor + over }),
                (None, None) => None,
            });
        }
        self.floor = floor + theirs;
        self.entries = merged;
        self.make_room(room);
    }

    /// The things that came up most often for certain, of equals those first by name; fewer than `k` when there
    /// are not as many.
    pub(crate) fn names(&self, k: usize) -> Vec<String> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_unstable_by(|a, b| {
            b.sure().total_cmp(&a.sure()).then(b.weight.total_cmp(&a.weight)).then_with(|| a.name.cmp(&b.name))
        });
        entries.into_iter().take(k).map(|entry| entry.name.to_string()).collect()
    }

    /// Whether what was seen decides it alone: it has everything, and no weight was rounded.
    pub(crate) fn is_exact(&self) -> bool {
        self.half_life_ms.is_none() && self.floor == 0.0
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.name.as_ref().cmp(name))
    }

    /// Weights are as of this time from here on, when it is newer.
    fn come_to(&mut self, time: i64) {
        let Some(half_life) = self.half_life_ms else { return };
        if time > self.at {
            let scale = decay::weight(time.saturating_sub(self.at), half_life);
            self.floor *= scale;
            for entry in &mut self.entries {
                entry.weight *= scale;
                entry.over *= scale;
            }
            self.at = time;
        }
    }

    /// What something of this time counts.
    fn weight_of(&mut self, time: i64) -> f64 {
        self.come_to(time);
        self.half_life_ms.map_or(1.0, |half_life| decay::weight(self.at.saturating_sub(time), half_life))
    }

    /// Down to so many: the lightest go, of equals those last by name.
    fn make_room(&mut self, room: usize) {
        if self.entries.len() <= room {
            return;
        }
        let heavier = |a: &Entry, b: &Entry| b.weight.total_cmp(&a.weight).then_with(|| a.name.cmp(&b.name));
        self.entries.sort_unstable_by(heavier);
        for gone in self.entries.drain(room..) {
            self.floor = self.floor.max(gone.weight);
        }
        self.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, x: f64| match self.half_life_ms {
            Some(_) => wire::put_f64(out, x),
            None => wire::put_varint(out, x as u64),
        };
        if self.half_life_ms.is_some() {
            wire::put_signed(out, self.at);
        }
        number(out, self.floor);
        wire::put_varint(out, self.entries.len() as u64);
        for entry in &self.entries {
            wire::put_text(out, &entry.name);
            number(out, entry.weight);
            number(out, entry.over);
        }
    }

    pub(crate) fn get(half_life_ms: Option<i64>, reader: &mut Reader<'_>, room: usize) -> Result<Self, Error> {
        let number = |reader: &mut Reader<'_>| -> Result<f64, Error> {
            let x = if half_life_ms.is_some() { reader.f64()? } else { reader.varint()? as f64 };
            if x.is_finite() && x >= 0.0 { Ok(x) } else { Err(reader.corrupt("has a weight that is none")) }
        };
        let at = if half_life_ms.is_some() { reader.signed()? } else { i64::MIN };
        let floor = number(reader)?;
        let n = reader.count(3)?;
        if n > room {
            return Err(reader.corrupt("has more names than there is room for"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(n);
        for _ in 0..n {
            let entry = Entry { name: reader.text()?.into(), weight: number(reader)?, over: number(reader)? };
            entries.push(entry);
        }
        if !entries.is_sorted_by(|a, b| a.name < b.name) {
            return Err(reader.corrupt("has names out of order"));
        }
        Ok(Self { half_life_ms, at, floor, entries })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 8;
    const HOUR_MS: i64 = 3_600_000;

    fn seen(half_life_ms: Option<i64>, events: &[(usize, i64)]) -> Top {
        let mut top = Top::new(half_life_ms);
        events.iter().for_each(|(thing, time)| top.add(&format!("t{thing}"), *time, ROOM));
        top
    }

    fn read_back(top: &Top) -> Top {
        let mut bytes = Vec::new();
        top.put(&mut bytes);
        let mut reader = Reader::new("top", &bytes);
        let read = Top::get(top.half_life_ms, &mut reader, ROOM).unwrap();
        reader.end().unwrap();
        read
    }

    #[test]
    fn the_most_frequent_lead_and_equals_stand_by_name() {
        let top = seen(None, &[(3, 0), (1, 0), (2, 0), (2, 0), (1, 0), (5, 0)]);
        assert_eq!(top.names(3), ["t1", "t2", "t3"]);
        assert_eq!(top.names(9).len(), 4, "no more than there are");
        assert!(Top::new(None).names(3).is_empty());
    }

    #[test]
    fn with_a_half_life_what_is_new_overtakes_what_was_frequent_once() {
        let events: Vec<_> = [(1, 0), (1, 0), (1, 0), (2, 3 * HOUR_MS)].into();
        assert_eq!(seen(None, &events).names(1), ["t1"]);
        assert_eq!(seen(Some(HOUR_MS), &events).names(2), ["t2", "t1"]);
    }

    #[test]
    fn something_frequent_that_comes_late_is_not_outweighed_by_the_room_it_took() {
        let noise = |range: std::ops::Range<usize>| range.map(|n| (n, 0)).collect::<Vec<_>>();
        let events = [noise(100..150), vec![(1, 0); 20], noise(150..160)].concat();
        assert_eq!(seen(None, &events).names(1), ["t1"]);
    }

    proptest! {
        #[test]
        fn while_there_is_room_order_and_parts_do_not_matter(
            events in prop::collection::vec((0..ROOM, 0i64..100), 0..60), seed: u64, at in 0usize..60,
        ) {
            let whole = seen(None, &events);
            let mut shuffled = events.clone();
            shuffled.sort_by_key(|event| xxhash_rust::xxh3::xxh3_64(format!("{seed}{event:?}").as_bytes()));
            prop_assert_eq!(&seen(None, &shuffled), &whole);
            let (left, right) = events.split_at(at.min(events.len()));
            let mut parts = seen(None, right);
            parts.merge(&seen(None, left), ROOM);
            prop_assert_eq!(&parts, &whole);
            prop_assert_eq!(&read_back(&whole), &whole);
            for entry in &whole.entries {
                let is = events.iter().filter(|(thing, _)| format!("t{thing}") == *entry.name).count();
                prop_assert_eq!((entry.weight, entry.over), (is as f64, 0.0));
            }
        }

        #[test]
        fn without_room_counts_are_right_within_their_bound_in_any_order_and_in_parts(
            events in prop::collection::vec((0usize..40, 0i64..100), 0..300), parts in 1usize..4,
        ) {
            let mut top = Top::new(None);
            let each = events.len().div_ceil(parts).max(1);
            events.chunks(each).for_each(|part| top.merge(&seen(None, part), ROOM));
            let mut truth: HashMap<String, f64> = HashMap::new();
            events.iter().for_each(|(thing, _)| *truth.entry(format!("t{thing}")).or_default() += 1.0);
            let bound = events.len() as f64 / ROOM as f64;
            prop_assert!(top.floor <= bound, "{} of {}", top.floor, bound);
            prop_assert!(top.entries.len() <= ROOM);
            for (name, is) in &truth {
                match top.find(name).ok().and_then(|at| top.entries.get(at)) {
                    Some(entry) => prop_assert!(entry.sure() <= *is && *is <= entry.weight && entry.over <= bound),
                    None => prop_assert!(*is <= top.floor, "{} of {} is gone", name, is),
                }
            }
            prop_assert_eq!(&read_back(&top), &top);
        }

        #[test]
        fn decayed_weights_are_the_same_to_rounding_in_any_order(
            events in prop::collection::vec((0..ROOM, 0i64..40 * HOUR_MS), 1..60), seed: u64,
        ) {
            let whole = seen(Some(HOUR_MS), &events);
            let mut shuffled = events.clone();
            shuffled.sort_by_key(|event| xxhash_rust::xxh3::xxh3_64(format!("{seed}{event:?}").as_bytes()));
            let other = seen(Some(HOUR_MS), &shuffled);
            prop_assert_eq!(whole.at, other.at);
            prop_assert_eq!(whole.entries.len(), other.entries.len());
            for (a, b) in whole.entries.iter().zip(&other.entries) {
                prop_assert!(a.name == b.name && (a.weight - b.weight).abs() <= 1e-12 * a.weight, "{:?} {:?}", a, b);
            }
            prop_assert_eq!(&read_back(&whole), &whole);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..60), decayed: bool) {
            let half_life = decayed.then_some(HOUR_MS);
            if let Ok(mut top) = Top::get(half_life, &mut Reader::new("top", &bytes), ROOM) {
                top.add("new", 5, ROOM);
                top.names(3);
            }
        }
    }
}
