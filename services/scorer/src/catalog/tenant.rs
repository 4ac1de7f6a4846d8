//! One tenant's items.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use rapport_events::EventTime;
use xxhash_rust::xxh3::xxh3_64;

use crate::cold_start::text::{self, Terms, Vector};

/// Items stand in so many parts, each behind a lock of its own: who looks at all of them holds up a writer, and
/// the readers behind it, for the time of one part. That is about 15 ms of a catalog of a million items.
const PARTS: usize = 32;

/// What answers need to know about an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub title: String,
    /// Most specific first.
    pub categories: Vec<String>,
    pub available: bool,
    /// Since when it can be had: the attribute `published`, RFC 3339 or a day. What is no time is none.
    pub published: Option<EventTime>,
    /// The words of title, categories and the attribute `description`.
    pub text: Terms,
    /// Everything else that the record says; `None` where nothing is said or nobody asks for it.
    pub attributes: Option<Box<HashMap<String, String>>>,
}

type Part = HashMap<Box<str>, Entry>;

/// One tenant's items. Read under locks that writers hold for one insertion.
#[derive(Debug, Default)]
pub struct TenantCatalog {
    parts: [RwLock<Part>; PARTS],
    words: RwLock<Words>,
    kept: AtomicBool,
    changes: AtomicU64,
}

/// How many items there are, and how many have a word.
#[derive(Debug, Default)]
struct Words {
    items: usize,
    with: HashMap<u32, u32>,
}

impl Words {
    fn add(&mut self, text: &Terms) {
        self.items += 1;
        for term in text {
            *self.with.entry(*term).or_default() += 1;
        }
    }

    fn forget(&mut self, text: &Terms) {
        self.items = self.items.saturating_sub(1);
        for term in text {
            if let hash_map::Entry::Occupied(mut with) = self.with.entry(*term) {
                *with.get_mut() -= 1;
                if *with.get() == 0 {
                    with.remove();
                }
            }
        }
    }
}

impl TenantCatalog {
    /// Whether the tenant keeps a catalog at all: one that does not gets answers unfiltered. Stays
    /// true when the last item is removed.
    pub fn kept(&self) -> bool {
        self.kept.load(Relaxed)
    }

    /// Looks at an item's entry. `read` runs under the lock: it copies what it needs, no more.
    pub fn look<R>(&self, item: &str, read: impl FnOnce(Option<&Entry>) -> R) -> R {
        read(self.part(item).read().unwrap_or_else(PoisonError::into_inner).get(item))
    }

    pub fn put(&self, item: &str, entry: Entry) {
        // Counted first: who replaces the entry takes back only what has been counted.
        self.words_mut().add(&entry.text);
        let before = self.part(item).write().unwrap_or_else(PoisonError::into_inner).insert(item.into(), entry);
        self.changed(before);
    }

    pub fn remove(&self, item: &str) {
        let before = self.part(item).write().unwrap_or_else(PoisonError::into_inner).remove(item);
        self.changed(before);
    }

    fn changed(&self, before: Option<Entry>) {
        if let Some(before) = before {
            self.words_mut().forget(&before.text);
        }
        self.kept.store(true, Relaxed);
        self.changes.fetch_add(1, Relaxed);
    }

    /// How often something has changed since the start.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// The texts of items as vectors, in their order; an item that is not there has none.
    pub fn texts<S: AsRef<str>>(&self, items: &[S]) -> Vec<Vector> {
        let terms_of = |item: &S| self.look(item.as_ref(), |entry| entry.map(|entry| entry.text.clone()));
        let texts: Vec<Option<Terms>> = items.iter().map(terms_of).collect();
        let words = self.words.read().unwrap_or_else(PoisonError::into_inner);
        let with = |term| words.with.get(&term).map_or(0, |with| *with as usize);
        let vector = |text: Option<Terms>| text::vector(&text.unwrap_or_default(), words.items, with);
        texts.into_iter().map(vector).collect()
    }

    /// The items after `cursor` in the order of their ids, at most `limit`. It looks at every item: a call for
    /// an operator's page, not for a customer's.
    pub fn page(&self, cursor: &str, limit: usize) -> Vec<(String, Entry)> {
        let of_part = |part: &Part| {
            let after = part.keys().map(AsRef::as_ref).filter(|id: &&str| *id > cursor);
            let ids = smallest(after, limit).into_iter();
            ids.filter_map(|id| Some((id.to_owned(), part.get(id)?.clone()))).collect::<Vec<_>>()
        };
        let mut page: Vec<(String, Entry)> = self.parts().flat_map(|part| of_part(&part)).collect();
        page.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        page.truncate(limit);
        page
    }

    /// The available items with the highest `rank`, highest first, equal ones in the order of their ids.
    /// As [`TenantCatalog::page`], it looks at every item.
    pub fn highest<R: Ord + Copy>(&self, limit: usize, rank: impl Fn(&str, &Entry) -> Option<R>) -> Vec<(String, R)> {
        let of_part = |part: &Part| {
            let ranked = part.iter().filter(|(_, entry)| entry.available);
            let ranked = ranked.filter_map(|(id, entry)| Some((Reverse(rank(id, entry)?), id.as_ref())));
            let highest = smallest(ranked, limit).into_iter();
            highest.map(|(rank, id): (_, &str)| (rank, id.to_owned())).collect::<Vec<_>>()
        };
        let highest = smallest(self.parts().flat_map(|part| of_part(&part)), limit).into_iter();
        highest.map(|(Reverse(rank), id)| (id, rank)).collect()
    }

    pub fn len(&self) -> usize {
        self.words.read().unwrap_or_else(PoisonError::into_inner).items
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, item: &str) -> &RwLock<Part> {
        &self.parts[xxh3_64(item.as_bytes()) as usize % PARTS]
    }

    /// One after another.
    fn parts(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Part>> {
        self.parts.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn words_mut(&self) -> RwLockWriteGuard<'_, Words> {
        self.words.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `limit` smallest, in order, in memory for no more than those.
fn smallest<T: Ord>(all: impl Iterator<Item = T>, limit: usize) -> Vec<T> {
    let mut heap = BinaryHeap::with_capacity(limit.saturating_add(1).min(1024));
    for one in all {
        heap.push(one);
        if heap.len() > limit {
            heap.pop();
        }
    }
    heap.into_sorted_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_follow_the_ids_and_the_highest_come_first() {
        let catalog = TenantCatalog::default();
        for (id, title, available) in [("c", "1", true), ("a", "3", true), ("b", "2", false), ("d", "3", true)] {
            catalog.put(id, Entry { title: title.into(), categories: vec![], available, ..Entry::default() });
        }
        let ids = |page: Vec<(String, Entry)>| page.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(catalog.page("", 3)), ["a", "b", "c"]);
        assert_eq!(ids(catalog.page("c", 3)), ["d"]);
        let highest = catalog.highest(2, |_, entry| entry.title.parse::<u8>().ok());
        assert_eq!(highest, [("a".to_owned(), 3), ("d".to_owned(), 3)]);
    }

    proptest! {
        #[test]
        fn words_are_counted_as_the_items_that_are_there_have_them(
            changes in proptest::collection::vec(("[a-d]", proptest::option::of("[p-s]( [p-s]){0,3}")), 0..40),
        ) {
            let (catalog, mut expected) = (TenantCatalog::default(), HashMap::new());
            for (item, title) in &changes {
                match title {
                    Some(title) => {
                        let text = text::terms(title, &[], "");
                        expected.insert(item.clone(), text.clone());
                        catalog.put(item, Entry { text, ..Entry::default() });
                    }
                    None => {
                        expected.remove(item);
                        catalog.remove(item);
                    }
                }
            }
            let mut with: HashMap<u32, u32> = HashMap::new();
            expected.values().flatten().for_each(|term| *with.entry(*term).or_default() += 1);
            let words = catalog.words.read().unwrap();
            prop_assert_eq!((&words.with, words.items), (&with, expected.len()));
            prop_assert_eq!(catalog.changes(), changes.len() as u64);
        }
    }
}
