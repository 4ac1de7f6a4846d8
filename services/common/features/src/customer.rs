//! Everything that serving keeps of one customer.

use std::{collections::BTreeMap, sync::Arc};

use rapport_events::{CleanEvent, EventTime};

use crate::{
    CustomerFill, Entity, Error, History, State, Views, item_hash,
    wire::{self, Reader},
};

/// Categories of a customer that have a state. A customer who knows more loses the one that has
/// been quiet for longest.
pub const CATEGORIES: usize = 32;
/// Items in the seen set. One who saw more keeps these; the history has the newest in any case.
pub const SEEN: usize = 8_192;

const FORMAT: u8 = 1;

/// A customer's features, history and seen items: what the feature store folds into Redis and the
/// trainer replays from the log, with the same code.
#[derive(Debug, Clone)]
pub struct CustomerState {
    views: Arc<Views>,
    features: State,
    categories: BTreeMap<String, State>,
    history: History,
    /// Sorted [`item_hash`]es.
    seen: Vec<u64>,
}

impl PartialEq for CustomerState {
    fn eq(&self, other: &Self) -> bool {
        self.features == other.features
            && self.categories == other.categories
            && self.history == other.history
            && self.seen == other.seen
    }
}

/// Down to [`CATEGORIES`]: those that have been quiet for longest go.
pub(crate) fn forget_quietest(categories: &mut BTreeMap<String, State>) {
    while categories.len() > CATEGORIES {
        let quietest = categories.iter().min_by_key(|(name, state)| (state.newest(), *name));
        let Some(name) = quietest.map(|(name, _)| name.clone()) else { return };
        categories.remove(&name);
    }
}

impl CustomerState {
    /// A customer of whom nothing is known.
    pub fn new(views: &Arc<Views>) -> Self {
        Self {
            views: Arc::clone(views),
            features: State::new(views, Entity::Customer),
            categories: BTreeMap::new(),
            history: History::default(),
            seen: Vec::new(),
        }
    }

    /// Folds one of the customer's events in. That it is this customer's is the caller's business.
    pub fn apply(&mut self, event: &CleanEvent) {
        self.features.apply(event);
        if let Some(category) = &event.category
            && self.views.keeps(Entity::CustomerCategory)
        {
            self.apply_to_category(category, event);
        }
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

    fn apply_to_category(&mut self, category: &str, event: &CleanEvent) {
        if let Some(state) = self.categories.get_mut(category) {
            state.apply(event);
            return;
        }
        let mut state = State::of(&self.views.category);
        state.apply(event);
        self.categories.insert(category.to_owned(), state);
        forget_quietest(&mut self.categories);
    }

    /// Adds what features missed that were declared later than these events came. The customer's version,
    /// history and seen items have them already.
    pub fn fill(&mut self, missed: &CustomerFill) {
        self.features.fill(missed.features());
        for (name, missed) in missed.categories() {
            match self.categories.get_mut(name) {
                Some(state) => state.fill(missed),
                None => {
                    self.categories.insert(name.clone(), State::filled(&self.views.category, missed));
                }
            }
        }
        forget_quietest(&mut self.categories);
    }

    /// How many events have been applied: the version that caches compare.
    pub fn version(&self) -> u64 {
        self.features.events()
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

    /// The vector of the customer and a category, that of an empty state when there is none.
    pub fn read_category(&self, category: &str, now: EventTime) -> Vec<f64> {
        match self.categories.get(category) {
            Some(state) => state.read(now),
            None => State::of(&self.views.category).read(now),
        }
    }

    /// The state of the customer and a category.
    pub fn category(&self, category: &str) -> Option<&State> {
        self.categories.get(category)
    }

    /// The categories that have a state, by name.
    pub fn categories(&self) -> impl Iterator<Item = &str> {
        self.categories.keys().map(String::as_str)
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
        wire::put_varint(&mut out, self.categories.len() as u64);
        for (name, state) in &self.categories {
            wire::put_text(&mut out, name);
            state.put(&mut out);
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
        if reader.byte()? != FORMAT {
            return Err(reader.corrupt("has another format version"));
        }
        let state = State::get(&views.customer, &mut reader)?;
        let mut categories = BTreeMap::new();
        let n = reader.count(5)?;
        if n > CATEGORIES {
            return Err(reader.corrupt("has more categories than a customer can have"));
        }
        for _ in 0..n {
            let name = reader.text()?.to_owned();
            categories.insert(name, State::get(&views.category, &mut reader)?);
        }
        reader.end()?;
        Ok(Self {
            views: Arc::clone(views),
            features: state,
            categories,
            history: History::from_bytes(history)?,
            seen: Self::seen_from_bytes(seen)?,
        })
    }

    /// All parts in one piece.
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
