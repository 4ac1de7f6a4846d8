//! The state of one entity: one slot for each feature that has seen an event.

use std::{ops::RangeInclusive, sync::Arc};

use rapport_events::{CleanEvent, EventTime};

use crate::{
    Error,
    cell::{Cell, Input},
    decay,
    distinct::Precision,
    top::Top,
    views::{Aggregate, Entity, Feature, Plan, TILES, Views, Window},
    wire::{self, Reader},
};

/// The version of the bytes that [`State::to_bytes`] writes.
const FORMAT: u8 = 1;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    Lifetime(Cell),
    /// Ascending by tile number, all within [`TILES`] of the newest.
    Tiles(Vec<(i64, Cell)>),
    /// `sum` as it was at `at`, the newest event's time.
    Decayed {
        at: i64,
        sum: f64,
    },
    Newest(i64),
}

fn precision(window: Window) -> Precision {
    match window {
        Window::Lifetime => Precision::LIFETIME,
        Window::Tiles { .. } => Precision::TILE,
    }
}

/// What one entity has of its views. A slot that saw nothing takes no room.
#[derive(Debug, Clone)]
pub struct State {
    plan: Arc<Plan>,
    slots: Vec<Option<Slot>>,
    events: u64,
    newest: Option<EventTime>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.slots == other.slots && self.events == other.events && self.newest == other.newest
    }
}

impl State {
    /// The state of an entity that nothing has happened to.
    pub fn new(views: &Views, entity: Entity) -> Self {
        Self::of(views.plan(entity))
    }

    pub(crate) fn of(plan: &Arc<Plan>) -> Self {
        Self { plan: Arc::clone(plan), slots: vec![None; plan.features.len()], events: 0, newest: None }
    }

    /// How many events have been applied.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What it is the state of.
    pub fn entity(&self) -> Entity {
        self.plan.entity
    }

    /// The time of the newest event.
    pub fn newest(&self) -> Option<EventTime> {
        self.newest
    }

    /// Folds one event in. Whether it concerns this entity is the caller's business.
    pub fn apply(&mut self, event: &CleanEvent) {
        self.events = self.events.saturating_add(1);
        self.newest = self.newest.max(Some(event.time));
        let Self { plan, slots, .. } = self;
        for &i in plan.fed_by(&event.kind) {
            if let (Some(feature), Some(slot)) = (plan.features.get(i), slots.get_mut(i)) {
                Slot::apply(slot, feature, event);
            }
        }
    }

    /// The vector at a moment, one value for each of [`Views::names`]. Counts, sums, decayed sums
    /// and distinct counts of nothing are 0; other aggregates of nothing are NaN. Events after
    /// `now` stay out of windows; what has left the window of the newest event is gone, so a read
    /// far before the newest event knows less than one that was made then.
    pub fn read(&self, now: EventTime) -> Vec<f64> {
        let slots = self.slots.iter().zip(self.plan.numbers());
        slots.map(|(slot, feature)| Slot::read(slot.as_ref(), feature, now.as_ms())).collect()
    }

    /// The lists at a moment, one for each of [`Views::list_names`]; a list of nothing is empty.
    pub fn read_lists(&self, now: EventTime) -> Vec<Vec<String>> {
        let slots = self.slots.iter().skip(self.plan.numbers().len());
        slots.zip(self.plan.lists()).map(|(slot, feature)| Slot::list(slot.as_ref(), feature, now.as_ms()).0).collect()
    }

    /// As [`Self::read_lists`], where the events decide a list alone, whatever order they came and were added up
    /// in: there was room for every different thing, and no weight was rounded.
    pub fn read_exact_lists(&self, now: EventTime) -> Vec<Option<Vec<String>>> {
        let slots = self.slots.iter().skip(self.plan.numbers().len()).zip(self.plan.lists());
        let lists = slots.map(|(slot, feature)| Slot::list(slot.as_ref(), feature, now.as_ms()));
        lists.map(|(list, exact)| exact.then_some(list)).collect()
    }

    /// Adds what another state of the same entity has seen: partial states by source partition sum
    /// up to the whole.
    pub fn merge(&mut self, other: &Self) {
        self.events = self.events.saturating_add(other.events);
        self.newest = self.newest.max(other.newest);
        for ((slot, theirs), feature) in self.slots.iter_mut().zip(&other.slots).zip(&self.plan.features) {
            match (slot.as_mut(), theirs) {
                (None, theirs) => slot.clone_from(theirs),
                (Some(_), None) => {}
                (Some(ours), Some(theirs)) => ours.merge(theirs, feature),
            }
        }
    }

    /// Adds what features of this state missed, from a state that holds those alone: what the two have in
    /// common by definition. Events count as they did.
    pub fn fill(&mut self, missed: &Self) {
        for (slot, feature) in missed.slots.iter().zip(&missed.plan.features) {
            let (Some(theirs), Some(&at)) = (slot, self.plan.by_fingerprint.get(&feature.fingerprint)) else {
                continue;
            };
            match self.slots.get_mut(at) {
                Some(Some(ours)) => ours.merge(theirs, feature),
                Some(ours) => *ours = Some(theirs.clone()),
                None => {}
            }
        }
    }

    /// The same plan's state of an entity that these events happened to.
    pub(crate) fn filled(plan: &Arc<Plan>, missed: &Self) -> Self {
        let mut state = Self { events: missed.events, newest: missed.newest, ..Self::of(plan) };
        state.fill(missed);
        state
    }

    /// Compact and versioned. Each slot carries the hash of its definition, so that views can be
    /// added, removed and changed: [`Self::from_bytes`] keeps what is still declared.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.put(&mut out);
        out
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[FORMAT, self.plan.entity as u8]);
        wire::put_varint(out, self.events);
        wire::put_signed(out, self.newest.map_or(i64::MIN, EventTime::as_ms));
        wire::put_varint(out, self.slots.iter().flatten().count() as u64);
        let mut payload = Vec::with_capacity(64);
        for (slot, feature) in self.slots.iter().zip(&self.plan.features) {
            if let Some(slot) = slot {
                payload.clear();
                slot.put(&mut payload);
                out.extend_from_slice(&feature.fingerprint.to_le_bytes());
                wire::put_bytes(out, &payload);
            }
        }
    }

    /// # Errors
    /// Bytes that [`Self::to_bytes`] of this version and entity kind did not write.
    pub fn from_bytes(views: &Views, entity: Entity, bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("state", bytes);
        let state = Self::get(views.plan(entity), &mut reader)?;
        reader.end()?;
        Ok(state)
    }

    pub(crate) fn get(plan: &Arc<Plan>, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut state = Self::of(plan);
        let header = Header::take(plan, reader)?;
        (state.events, state.newest) = (header.events, header.newest);
        for _ in 0..header.slots {
            let fingerprint = reader.u32()?;
            let payload = reader.bytes()?;
            let Some(&i) = plan.by_fingerprint.get(&fingerprint) else { continue };
            if let (Some(feature), Some(slot)) = (plan.features.get(i), state.slots.get_mut(i)) {
                let mut reader = Reader::new("state", payload);
                *slot = Some(Slot::get(feature, &mut reader)?);
                reader.end()?;
            }
        }
        Ok(state)
    }
}

/// What stands before the slots of a stored state.
pub(crate) struct Header {
    pub events: u64,
    pub newest: Option<EventTime>,
    pub slots: usize,
}

impl Header {
    pub(crate) fn take(plan: &Plan, reader: &mut Reader<'_>) -> Result<Self, Error> {
        if reader.byte()? != FORMAT {
            return Err(reader.corrupt("has another format version"));
        }
        if reader.byte()? != plan.entity as u8 {
            return Err(reader.corrupt("belongs to another kind of entity"));
        }
        let events = reader.varint()?;
        let newest = Some(reader.signed()?).filter(|&ms| ms != i64::MIN).map(EventTime::from_ms);
        Ok(Self { events, newest, slots: reader.count(5)? })
    }
}

impl Slot {
    fn apply(slot: &mut Option<Self>, feature: &Feature, event: &CleanEvent) {
        let time = event.time.as_ms();
        let number = feature.number(event);
        match (feature.aggregate, slot.as_mut()) {
            (Aggregate::TimeSince, None) => *slot = Some(Self::Newest(time)),
            (Aggregate::TimeSince, Some(Self::Newest(newest))) => *newest = time.max(*newest),
            (Aggregate::DecayedSum { half_life_ms }, current) => {
                let Some(value) = number else { return };
                match current {
                    Some(Self::Decayed { at, sum }) if time >= *at => {
                        *sum = *sum * decay::weight(time.saturating_sub(*at), half_life_ms) + value;
                        *at = time;
                    }
                    Some(Self::Decayed { at, sum }) => {
                        *sum += value * decay::weight(at.saturating_sub(time), half_life_ms);
                    }
                    _ => *slot = Some(Self::Decayed { at: time, sum: value }),
                }
            }
            (aggregate, current) => {
                let hash = || feature.measure.hash(event).map(Input::Hash);
                let input = match aggregate {
                    Aggregate::TopK { .. } => feature.measure.name_in(event).map(|name| Input::Name { time, name }),
                    _ => number.map(|value| Input::Number { time, value }).or_else(hash),
                };
                let Some(input) = input else { return };
                let precision = precision(feature.window);
                match (feature.window, current) {
                    (Window::Lifetime, Some(Self::Lifetime(cell))) => cell.add(input, precision),
                    (Window::Tiles { tile_ms }, Some(Self::Tiles(tiles))) => {
                        add_to_tile(tiles, time.div_euclid(tile_ms), aggregate, input);
                    }
                    (window, _) => {
                        let Some(cell) = Cell::of(aggregate, input, precision) else { return };
                        *slot = Some(match window {
                            Window::Lifetime => Self::Lifetime(cell),
                            Window::Tiles { tile_ms } => Self::Tiles(vec![(time.div_euclid(tile_ms), cell)]),
                        });
                    }
                }
            }
        }
    }

    fn read(slot: Option<&Self>, feature: &Feature, now: i64) -> f64 {
        let nothing = feature.aggregate.of_nothing();
        match (slot, feature.window) {
            (None, _) => nothing,
            (Some(Self::Lifetime(cell)), _) => cell.value(feature.aggregate),
            (Some(Self::Newest(time)), _) => now.saturating_sub(*time).max(0) as f64 / 1000.0,
            (Some(Self::Decayed { at, sum }), _) => match feature.aggregate {
                Aggregate::DecayedSum { half_life_ms } => sum * decay::weight(now.saturating_sub(*at), half_life_ms),
                _ => nothing,
            },
            (Some(Self::Tiles(tiles)), Window::Tiles { tile_ms }) => {
                let covered = covered(tile_ms, now);
                let mut cells = tiles.iter().filter(|(tile, _)| covered.contains(tile)).map(|(_, cell)| cell);
                let Some(first) = cells.next() else { return nothing };
                let mut total = first.clone();
                cells.for_each(|cell| total.merge(cell, Precision::TILE));
                total.value(feature.aggregate)
            }
            (Some(Self::Tiles(_)), Window::Lifetime) => nothing,
        }
    }

    /// As [`Self::read`] of the slot that the bytes hold: the same sums in the same order.
    pub(crate) fn read_bytes(feature: &Feature, reader: &mut Reader<'_>, now: i64) -> Result<f64, Error> {
        let (Window::Tiles { tile_ms }, false) = (feature.window, feature.aggregate.is_no_cell()) else {
            return Ok(Self::read(Some(&Self::get(feature, reader)?), feature, now));
        };
        let n = tiles_in(reader)?;
        let covered = covered(tile_ms, now);
        let (mut total, mut before): (Option<Cell>, Option<i64>) = (None, None);
        for _ in 0..n {
            let tile = before.unwrap_or(0).wrapping_add(reader.signed()?);
            let cell = Cell::get(feature.aggregate, reader, Precision::TILE)?;
            if before.is_some_and(|before| before >= tile) {
                return Err(reader.corrupt("has tiles out of order"));
            }
            before = Some(tile);
            match &mut total {
                _ if !covered.contains(&tile) => {}
                None => total = Some(cell),
                Some(total) => total.merge(&cell, Precision::TILE),
            }
        }
        Ok(total.map_or(feature.aggregate.of_nothing(), |total| total.value(feature.aggregate)))
    }

    /// The list at a moment, and whether it is exact.
    pub(crate) fn list(slot: Option<&Self>, feature: &Feature, now: i64) -> (Vec<String>, bool) {
        let Aggregate::TopK { k, half_life_ms } = feature.aggregate else { return (Vec::new(), true) };
        let top = match (slot, feature.window) {
            (Some(Self::Lifetime(cell)), _) => cell.top().cloned(),
            (Some(Self::Tiles(tiles)), Window::Tiles { tile_ms }) => {
                // As many different things as all tiles have: an answer takes no room in a state.
                let covered = covered(tile_ms, now);
                let cells = tiles.iter().filter(|(tile, _)| covered.contains(tile)).map(|(_, cell)| cell);
                cells.filter_map(Cell::top).fold(None, |total: Option<Top>, top| match total {
                    None => Some(top.clone()),
                    Some(mut total) => {
                        total.merge(top, usize::MAX);
                        Some(total)
                    }
                })
            }
            _ => None,
        };
        let top = top.unwrap_or(Top::new(half_life_ms));
        (top.names(usize::from(k)), top.is_exact())
    }

    fn merge(&mut self, other: &Self, feature: &Feature) {
        match (self, other) {
            (Self::Lifetime(a), Self::Lifetime(b)) => a.merge(b, Precision::LIFETIME),
            (Self::Newest(a), Self::Newest(b)) => *a = (*a).max(*b),
            (Self::Decayed { at, sum }, Self::Decayed { at: t, sum: s }) => {
                if let Aggregate::DecayedSum { half_life_ms } = feature.aggregate {
                    let newest = (*at).max(*t);
                    *sum = *sum * decay::weight(newest.saturating_sub(*at), half_life_ms)
                        + s * decay::weight(newest.saturating_sub(*t), half_life_ms);
                    *at = newest;
                }
            }
            (Self::Tiles(ours), Self::Tiles(theirs)) => {
                for (tile, cell) in theirs {
                    match ours.binary_search_by_key(tile, |(t, _)| *t) {
                        Ok(at) => ours[at].1.merge(cell, Precision::TILE),
                        Err(at) => ours.insert(at, (*tile, cell.clone())),
                    }
                }
                forget_old(ours);
            }
            _ => {}
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Lifetime(cell) => cell.put(out),
            Self::Newest(time) => wire::put_signed(out, *time),
            Self::Decayed { at, sum } => {
                wire::put_signed(out, *at);
                wire::put_f64(out, *sum);
            }
            Self::Tiles(tiles) => {
                wire::put_varint(out, tiles.len() as u64);
                let mut before = 0i64;
                for (tile, cell) in tiles {
                    wire::put_signed(out, tile.wrapping_sub(before));
                    cell.put(out);
                    before = *tile;
                }
            }
        }
    }

    pub(crate) fn get(feature: &Feature, reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match (feature.aggregate, feature.window) {
            (Aggregate::TimeSince, _) => Self::Newest(reader.signed()?),
            (Aggregate::DecayedSum { .. }, _) => Self::Decayed { at: reader.signed()?, sum: reader.f64()? },
            (aggregate, Window::Lifetime) => Self::Lifetime(Cell::get(aggregate, reader, Precision::LIFETIME)?),
            (aggregate, Window::Tiles { .. }) => {
                let n = tiles_in(reader)?;
                let mut tiles = Vec::with_capacity(n);
                let mut tile = 0i64;
                for _ in 0..n {
                    tile = tile.wrapping_add(reader.signed()?);
                    tiles.push((tile, Cell::get(aggregate, reader, Precision::TILE)?));
                }
                if !tiles.is_sorted_by(|a, b| a.0 < b.0) {
                    return Err(reader.corrupt("has tiles out of order"));
                }
                Self::Tiles(tiles)
            }
        })
    }
}

/// How many tiles follow.
fn tiles_in(reader: &mut Reader<'_>) -> Result<usize, Error> {
    let n = reader.count(2)?;
    if n == 0 || n > TILES as usize {
        return Err(reader.corrupt("has no tiles or too many"));
    }
    Ok(n)
}

/// The tiles that a read at this moment takes in.
fn covered(tile_ms: i64, now: i64) -> RangeInclusive<i64> {
    let current = now.div_euclid(tile_ms);
    current.saturating_sub(TILES) + 1..=current
}

fn add_to_tile(tiles: &mut Vec<(i64, Cell)>, tile: i64, aggregate: Aggregate, input: Input<'_>) {
    let newest = tiles.last().map_or(tile, |(newest, _)| *newest);
    if tile <= newest.saturating_sub(TILES) {
        return; // Older than anything that a read at or after the newest event can cover.
    }
    let found = if tile == newest && !tiles.is_empty() {
        Ok(tiles.len() - 1)
    } else {
        tiles.binary_search_by_key(&tile, |(t, _)| *t)
    };
    match found {
        Ok(at) => tiles[at].1.add(input, Precision::TILE),
        Err(at) => {
            if let Some(cell) = Cell::of(aggregate, input, Precision::TILE) {
                tiles.insert(at, (tile, cell));
                forget_old(tiles);
            }
        }
    }
}

fn forget_old(tiles: &mut Vec<(i64, Cell)>) {
    if let Some(&(newest, _)) = tiles.last() {
        tiles.retain(|(tile, _)| *tile > newest.saturating_sub(TILES));
    }
}
