//! The catalog in memory: the compacted topic, one snapshot for each tenant. A withdrawn item
//! leaves every answer as soon as its record is here, without touching a single cached list.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use prost::Message as _;
use rapport_events::{EventTime, FieldError, Tenant};
use rapport_proto::catalog::Item;

/// The attributes that say since when an item can be had; the second one is what Gorse's API writes.
const PUBLISHED: [&str; 2] = ["published", "timestamp"];

/// RFC 3339, or a day (its beginning in UTC).
fn time(text: &str) -> Option<EventTime> {
    EventTime::parse_rfc3339(text).or_else(|| EventTime::parse_rfc3339(&format!("{text}T00:00:00Z")))
}

/// What answers need to know about an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub title: String,
    /// Most specific first.
    pub categories: Vec<String>,
    pub available: bool,
    /// Since when it can be had: the attribute `published`, RFC 3339 or a day. What is no time is none.
    pub published: Option<EventTime>,
    /// Everything else that the record says; `None` where nothing is said or nobody asks for it.
    pub attributes: Option<Box<HashMap<String, String>>>,
}

/// One tenant's items. Read under a lock that writers hold for one insertion.
#[derive(Debug, Default)]
pub struct TenantCatalog {
    items: RwLock<HashMap<Box<str>, Entry>>,
    kept: AtomicBool,
}

impl TenantCatalog {
    /// Whether the tenant keeps a catalog at all: one that does not gets answers unfiltered. Stays
    /// true when the last item is removed.
    pub fn kept(&self) -> bool {
        self.kept.load(Relaxed)
    }

    /// Looks at an item's entry. `read` runs under the lock: it copies what it needs, no more.
    pub fn look<R>(&self, item: &str, read: impl FnOnce(Option<&Entry>) -> R) -> R {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        read(items.get(item))
    }

    pub fn put(&self, item: &str, entry: Entry) {
        self.items.write().unwrap_or_else(PoisonError::into_inner).insert(item.into(), entry);
        self.kept.store(true, Relaxed);
    }

    pub fn remove(&self, item: &str) {
        self.items.write().unwrap_or_else(PoisonError::into_inner).remove(item);
        self.kept.store(true, Relaxed);
    }

    /// The items after `cursor` in the order of their ids, at most `limit`. It looks at every item under
    /// the lock: a call for an operator's page, not for a customer's.
    pub fn page(&self, cursor: &str, limit: usize) -> Vec<(String, Entry)> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        let after = items.keys().map(AsRef::as_ref).filter(|id: &&str| *id > cursor);
        let ids = smallest(after, limit);
        ids.into_iter().filter_map(|id| Some((id.to_owned(), items.get(id)?.clone()))).collect()
    }

    /// The available items with the highest `rank`, highest first, equal ones in the order of their ids.
    /// As [`TenantCatalog::page`], it looks at every item.
    pub fn highest<R: Ord + Copy>(&self, limit: usize, rank: impl Fn(&str, &Entry) -> Option<R>) -> Vec<(String, R)> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        let ranked = items.iter().filter(|(_, entry)| entry.available);
        let ranked = ranked.filter_map(|(id, entry)| Some((Reverse(rank(id, entry)?), id.as_ref())));
        smallest(ranked, limit).into_iter().map(|(Reverse(rank), id): (_, &str)| (id.to_owned(), rank)).collect()
    }

    fn len(&self) -> usize {
        self.items.read().unwrap_or_else(PoisonError::into_inner).len()
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

/// All tenants' items.
#[derive(Debug, Default)]
pub struct Catalog {
    keep_attributes: bool,
    tenants: RwLock<HashMap<Tenant, Arc<TenantCatalog>>>,
    /// What a tenant without a catalog gets.
    none: Arc<TenantCatalog>,
    caught_up: AtomicBool,
}

impl Catalog {
    /// One that keeps what its records say beside what answers need, for a door that gives it back.
    pub fn keeping_attributes(keep_attributes: bool) -> Self {
        Self { keep_attributes, ..Self::default() }
    }

    pub fn of(&self, tenant: &Tenant) -> Arc<TenantCatalog> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(tenant).unwrap_or(&self.none).clone()
    }

    /// Whether everything that was on the topic at the start has been applied.
    pub fn caught_up(&self) -> bool {
        self.caught_up.load(Relaxed)
    }

    pub fn set_caught_up(&self) {
        self.caught_up.store(true, Relaxed);
    }

    /// Applies one record of the topic. No value, or an empty one, removes the item.
    ///
    /// # Errors
    /// The key or the value is not what the topic holds; the snapshot stays as it was.
    pub fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), FieldError> {
        let key = std::str::from_utf8(key).map_err(|_| FieldError::decode("key", "is not UTF-8"))?;
        let (tenant, item) = key
            .split_once('/')
            .filter(|(_, item)| !item.is_empty())
            .ok_or_else(|| FieldError::schema("key", format!("must be <tenant>/<item id>, is {key:?}")))?;
        let tenant = Tenant::parse(tenant)?;
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            self.tenant(&tenant).remove(item);
            self.show(&tenant);
            return Ok(());
        };
        let Item { item_id, title, categories, available, attributes, .. } =
            Item::decode(value).map_err(|e| FieldError::decode("value", format!("is no catalog item: {e}")))?;
        if item_id != item {
            return Err(FieldError::schema("item_id", format!("is {item_id:?} under the key {key:?}")));
        }
        let published = PUBLISHED.iter().find_map(|name| time(attributes.get(*name)?));
        let attributes = (self.keep_attributes && !attributes.is_empty()).then(|| Box::new(attributes));
        self.tenant(&tenant).put(item, Entry { title, categories, available, published, attributes });
        self.show(&tenant);
        Ok(())
    }

    fn tenant(&self, tenant: &Tenant) -> Arc<TenantCatalog> {
        if let Some(known) = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return known.clone();
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.entry(tenant.clone()).or_default().clone()
    }

    fn show(&self, tenant: &Tenant) {
        let items = self.of(tenant).len();
        metrics::gauge!("rapport_scorer_catalog_items", "tenant" => tenant.to_string()).set(items as f64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(item_id: &str, available: bool) -> Vec<u8> {
        Item { item_id: item_id.into(), title: "Title".into(), available, ..Item::default() }.encode_to_vec()
    }

    #[test]
    fn an_item_is_there_until_its_tombstone_and_tenants_do_not_meet() {
        let catalog = Catalog::default();
        let (acme, bolt) = (Tenant::parse("acme").unwrap(), Tenant::parse("bolt").unwrap());
        catalog.apply(b"acme/a/1", Some(&record("a/1", true))).unwrap();
        assert!(catalog.of(&acme).look("a/1", |e| e.is_some_and(|e| e.available && e.title == "Title")));
        assert!(!catalog.of(&bolt).kept());
        catalog.apply(b"acme/a/1", None).unwrap();
        assert!(catalog.of(&acme).look("a/1", |e| e.is_none()));
        assert!(catalog.of(&acme).kept(), "a tenant that removed its last item still keeps a catalog");
    }

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

    #[test]
    fn attributes_are_kept_only_where_somebody_asks_for_them() {
        let item = Item { item_id: "a".into(), attributes: [("k".into(), "v".into())].into(), ..Item::default() };
        let tenant = Tenant::parse("acme").unwrap();
        let kept = |keep| {
            let catalog = Catalog::keeping_attributes(keep);
            catalog.apply(b"acme/a", Some(&item.encode_to_vec())).unwrap();
            catalog.of(&tenant).look("a", |entry| entry.unwrap().attributes.clone())
        };
        assert_eq!(kept(false), None);
        assert_eq!(kept(true).unwrap()["k"], "v");
    }

    #[test]
    fn since_when_an_item_can_be_had_is_a_time_or_a_day_or_not_known() {
        let tenant = Tenant::parse("acme").unwrap();
        let published = |text: &str| {
            let attributes = [("published".to_owned(), text.to_owned())].into();
            let item = Item { item_id: "a".into(), attributes, ..Item::default() };
            let catalog = Catalog::default();
            catalog.apply(b"acme/a", Some(&item.encode_to_vec())).unwrap();
            catalog.of(&tenant).look("a", |entry| entry.unwrap().published).map(|time| time.to_string())
        };
        assert_eq!(published("2026-11-20").as_deref(), Some("2026-11-20T00:00:00Z"));
        assert_eq!(published("2026-11-20T06:30:00+01:00").as_deref(), Some("2026-11-20T05:30:00Z"));
        assert_eq!(published("soon"), None);
    }

    #[test]
    fn a_record_that_is_no_item_names_what_is_wrong() {
        let catalog = Catalog::default();
        assert_eq!(catalog.apply(b"acme", None).unwrap_err().field, "key");
        assert_eq!(catalog.apply(b"acme/a", Some(b"\xff")).unwrap_err().field, "value");
        assert_eq!(catalog.apply(b"acme/a", Some(&record("b", true))).unwrap_err().field, "item_id");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(key: Vec<u8>, value: Option<Vec<u8>>) {
            let catalog = Catalog::default();
            let applied = catalog.apply(&key, value.as_deref());
            prop_assert!(applied.is_ok() || catalog.tenants.read().unwrap().is_empty(), "a refused record changes nothing");
        }
    }
}
