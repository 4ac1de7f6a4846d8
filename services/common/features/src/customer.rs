//! Everything that serving keeps of one customer.

use std::sync::Arc;

use rapport_events::{CleanEvent, EventTime};

use crate::{
    CustomerFill, Entity, Error, History, State, Views, item_hash,
    parts::Parts,
    wire::{self, Reader},
};

/// Items in the seen set. One who saw more keeps these; the history has the newest in any case.
pub const SEEN: usize = 8_192;

const FORMAT: u8 = 1;

/// A customer's features, history and seen items: what the feature store folds into Redis and the
/// trainer replays from the log, with the same code.
#[derive(Debug, Clone)]
pub struct CustomerState {
    views: Arc<Views>,
    features: State,
    categories: Parts,
    sessions: Parts,
    history: History,
    /// Sorted [`item_hash`]es.
    seen: Vec<u64>,
    /// As the newest event has it. `None` while no event had one; then `""` for none.
    segment: Option<String>,
}

impl PartialEq for CustomerState {
    fn eq(&self, other: &Self) -> bool {
        self.features == other.features
            && self.categories == other.categories
            && self.sessions == other.sessions
            && self.history == other.history
            && self.seen == other.seen
            && self.segment() == other.segment()
    }
}

/// Takes the mark that a customer's features begin with.
pub(crate) fn check_format(reader: &mut Reader<'_>) -> Result<(), Error> {
    if reader.byte()? == FORMAT { Ok(()) } else { Err(reader.corrupt("has another format version")) }
}

impl CustomerState {
    /// A customer of whom nothing is known.
    pub fn new(views: &Arc<Views>) -> Self {
        Self {
            views: Arc::clone(views),
            features: State::new(views, Entity::Customer),
            categories: Parts::new(views, Entity::CustomerCategory),
            sessions: Parts::new(views, Entity::Session),
            history: History::default(),
            seen: Vec::new(),
            segment: None,
        }
    }

    /// The same customer, whose segment was stored as [`Self::segment_to_bytes`] says.
    pub fn in_segment(self, stored: Option<&[u8]>) -> Self {
        Self { segment: stored.map(|name| String::from_utf8_lossy(name).into_owned()), ..self }
    }

    /// Folds one of the customer's events in. That it is this customer's is the caller's business.
    pub fn apply(&mut self, event: &CleanEvent) {
        if (event.segment.is_some() || self.segment.is_some())
            && self.newest().is_none_or(|newest| event.time >= newest)
        {
            self.segment = Some(event.segment.clone().unwrap_or_default());
        }
        self.features.apply(event);
        self.categories.apply(event);
        self.sessions.apply(event);
        self.history.apply(event);
        if let Some(item_id) = &event.item_id
            && self.views.is_seen_type(&event.kind)
            && self.seen.len() < SEEN
        {
            let hash = item_hash(item_id);
            if let Err(at) = self.seen.binary_search(&hash) {
                self.seen.insert(at, hash);
            }
        }
    }

    /// Adds what features missed that were declared later than these events came. The customer's version,
    /// history and seen items have them already.
    pub fn fill(&mut self, missed: &CustomerFill) {
        self.features.fill(missed.features());
        self.categories.fill(missed.categories());
        self.sessions.fill(missed.sessions());
    }

    /// How many events have been applied: the version that caches compare.
    pub fn version(&self) -> u64 {
        self.features.events()
    }

    /// The customer's segment, by the newest event.
    pub fn segment(&self) -> Option<&str> {
        self.segment.as_deref().filter(|name| !name.is_empty())
    }

    /// The segment's name (the `g` field in Redis), empty for none; `None` where there never was one.
    pub fn segment_to_bytes(&self) -> Option<Vec<u8>> {
        self.segment.as_ref().map(|name| name.clone().into_bytes())
    }

    /// The time of the newest event.
    pub fn newest(&self) -> Option<EventTime> {
        self.features.newest()
    }

    /// The customer's vector, one value for each of `views.names(Entity::Customer)`.
    pub fn read(&self, now: EventTime) -> Vec<f64> {
        self.features.read(now)
    }

    /// The customer's lists, one for each of `views.list_names(Entity::Customer)`.
    pub fn read_lists(&self, now: EventTime) -> Vec<Vec<String>> {
        self.features.read_lists(now)
    }

    /// As [`State::read_exact_lists`].
    pub fn read_exact_lists(&self, now: EventTime) -> Vec<Option<Vec<String>>> {
        self.features.read_exact_lists(now)
    }

    fn parts_of(&self, entity: Entity) -> Option<&Parts> {
        match entity {
            Entity::CustomerCategory => Some(&self.categories),
            Entity::Session => Some(&self.sessions),
            Entity::Customer | Entity::Item | Entity::Segment => None,
        }
    }

    /// The state of a category or of a visit, by its name. A visit without a name is the newest one.
    pub fn part(&self, entity: Entity, name: &str) -> Option<&State> {
        let parts = self.parts_of(entity)?;
        if entity == Entity::Session && name.is_empty() { parts.newest() } else { parts.get(name) }
    }

    /// The vector of a category or of a visit, that of an empty state when there is none.
    pub fn read_part(&self, entity: Entity, name: &str, now: EventTime) -> Vec<f64> {
        match (self.part(entity, name), self.parts_of(entity)) {
            (Some(state), _) => state.read(now),
            (None, Some(parts)) => parts.nothing().read(now),
            (None, None) => Vec::new(),
        }
    }

    /// The categories or visits that have a state, by name.
    pub fn parts(&self, entity: Entity) -> impl Iterator<Item = &str> {
        self.parts_of(entity).into_iter().flat_map(Parts::names)
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// Sorted hashes ([`item_hash`]) of the items that the customer has.
    pub fn seen(&self) -> &[u64] {
        &self.seen
    }

    pub fn has_seen(&self, item_id: &str) -> bool {
        self.seen.binary_search(&item_hash(item_id)).is_ok()
    }

    /// The feature states (the `f` field in Redis).
    pub fn features_to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(FORMAT);
        self.features.put(&mut out);
        self.categories.put(&mut out);
        // Where no view is of visits the bytes stay what they were before there were any.
        if !self.sessions.is_empty() {
            self.sessions.put(&mut out);
        }
        out
    }

    /// The seen set (the `x` field in Redis): sorted little-endian hashes.
    pub fn seen_to_bytes(&self) -> Vec<u8> {
        self.seen.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// The sorted hashes of an `x` field.
    ///
    /// # Errors
    /// Bytes that [`Self::seen_to_bytes`] did not write.
    pub fn seen_from_bytes(bytes: &[u8]) -> Result<Vec<u64>, Error> {
        let corrupt = |why| Error::Corrupt { what: "seen set", why };
        let (hashes, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(corrupt("ends in the middle of a hash"));
        }
        let seen: Vec<u64> = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
        if !seen.is_sorted_by(|a, b| a < b) {
            return Err(corrupt("is out of order"));
        }
        Ok(seen)
    }

    /// A customer from the three parts that Redis keeps.
    ///
    /// # Errors
    /// The part that is corrupt.
    pub fn from_parts(views: &Arc<Views>, features: &[u8], history: &[u8], seen: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("feature states", features);
        check_format(&mut reader)?;
        let state = State::get(&views.customer, &mut reader)?;
        let mut categories = Parts::new(views, Entity::CustomerCategory);
        categories.take(&mut reader)?;
        let mut sessions = Parts::new(views, Entity::Session);
        if !reader.is_empty() {
            sessions.take(&mut reader)?;
        }
        reader.end()?;
        Ok(Self {
            views: Arc::clone(views),
            features: state,
            categories,
            sessions,
            history: History::from_bytes(history)?,
            seen: Self::seen_from_bytes(seen)?,
            segment: None,
        })
    }

    /// All parts in one piece, but for the segment.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_bytes(&mut out, &self.features_to_bytes());
        wire::put_bytes(&mut out, &self.history.to_bytes());
        wire::put_bytes(&mut out, &self.seen_to_bytes());
        out
    }

    /// # Errors
    /// Bytes that [`Self::to_bytes`] did not write.
    pub fn from_bytes(views: &Arc<Views>, bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("customer", bytes);
        let (features, history, seen) = (reader.bytes()?, reader.bytes()?, reader.bytes()?);
        reader.end()?;
        Self::from_parts(views, features, history, seen)
    }
}
