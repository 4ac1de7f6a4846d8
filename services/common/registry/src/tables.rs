//! `items.json` and `neighbours.json`, with bounds on what is read.

use std::collections::{BTreeMap, HashMap};

use rapport_events::limits;
use serde::{Deserialize, Serialize};

/// A table is at most this many bytes: room for millions of items, and no more memory than a
/// service can have.
pub(crate) const TABLE_LIMIT_BYTES: u64 = 1 << 30;
/// Items in a table: the index of an item stays far inside 32 bits.
const ITEM_LIMIT: usize = 10_000_000;
/// Neighbours of one item.
const NEIGHBOUR_LIMIT: usize = 1_000;

/// Item ids by the index that the model knows them by. Index 0 is padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemTable {
    ids: Vec<String>,
    index: HashMap<String, u32>,
}

impl ItemTable {
    /// `ids[0]` is padding and empty, `ids[i]` the id of item i.
    ///
    /// # Errors
    /// What is wrong with the ids: index 0 not empty, no items, one twice, one too long.
    pub fn from_ids(ids: Vec<String>) -> Result<Self, String> {
        if ids.first().is_none_or(|padding| !padding.is_empty()) {
            return Err("index 0 must be padding, an empty id".into());
        }
        if ids.len() < 2 || ids.len() > ITEM_LIMIT {
            return Err(format!("holds {} items; it may hold 1 to {ITEM_LIMIT}", ids.len() - 1));
        }
        let mut index = HashMap::with_capacity(ids.len());
        for (i, id) in ids.iter().enumerate().skip(1) {
            if id.is_empty() || id.len() > limits::ID_BYTES {
                return Err(format!("item {i} has an id of {} bytes; it may have 1 to {}", id.len(), limits::ID_BYTES));
            }
            let i = u32::try_from(i).map_err(|_| format!("item {i} is beyond 32 bits"))?;
            if let Some(first) = index.insert(id.clone(), i) {
                return Err(format!("items {first} and {i} have the same id {id:?}"));
            }
        }
        Ok(Self { ids, index })
    }

    /// # Errors
    /// Not JSON `["", "id of 1", "id of 2", ...]`, or as [`Self::from_ids`].
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        Self::from_ids(serde_json::from_slice(json).map_err(|e| e.to_string())?)
    }

    /// The content of `items.json`.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings always serialise.
        serde_json::to_vec(&self.ids).unwrap_or_default()
    }

    /// Number of items, without padding.
    pub fn len(&self) -> usize {
        self.ids.len().saturating_sub(1)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of item `index`; `None` for padding and beyond the end.
    pub fn id(&self, index: usize) -> Option<&str> {
        self.ids.get(index).map(String::as_str).filter(|id| !id.is_empty())
    }

    /// The index that the model knows the item by; `None` when it has never seen it.
    pub fn index_of(&self, id: &str) -> Option<u32> {
        self.index.get(id).copied()
    }

    /// Ids by index, padding first.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }
}

/// An item near another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "(String, f32)", into = "(String, f32)")]
pub struct Neighbour {
    pub item: String,
    /// Shrunken cosine of the two items' customers, in (0, 1].
    pub cosine: f32,
}

impl From<(String, f32)> for Neighbour {
    fn from((item, cosine): (String, f32)) -> Self {
        Self { item, cosine }
    }
}

impl From<Neighbour> for (String, f32) {
    fn from(neighbour: Neighbour) -> Self {
        (neighbour.item, neighbour.cosine)
    }
}

/// The nearest items of each item, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Neighbours {
    by_item: BTreeMap<String, Vec<Neighbour>>,
}

impl Neighbours {
    pub fn new(by_item: BTreeMap<String, Vec<Neighbour>>) -> Self {
        Self { by_item }
    }

    /// # Errors
    /// Not JSON `{"item": [["other", 0.5], ...], ...}`, too many neighbours, or a cosine that is not
    /// a finite number.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let by_item: BTreeMap<String, Vec<Neighbour>> = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        for (item, neighbours) in &by_item {
            if neighbours.len() > NEIGHBOUR_LIMIT {
                return Err(format!("{item:?} has {} neighbours, the limit is {NEIGHBOUR_LIMIT}", neighbours.len()));
            }
            if let Some(wrong) = neighbours.iter().find(|n| !n.cosine.is_finite()) {
                return Err(format!("the cosine of {item:?} and {:?} is not a finite number", wrong.item));
            }
        }
        Ok(Self { by_item })
    }

    /// The content of `neighbours.json`.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and finite numbers always serialise.
        serde_json::to_vec(&self.by_item).unwrap_or_default()
    }

    /// Nearest first; empty for an item that is not known.
    pub fn of(&self, item: &str) -> &[Neighbour] {
        self.by_item.get(item).map_or(&[], Vec::as_slice)
    }

    /// Number of items that have neighbours.
    pub fn len(&self) -> usize {
        self.by_item.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_item.is_empty()
    }
}
