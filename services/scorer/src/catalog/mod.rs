//! The catalog in memory: the compacted topic, one snapshot for each tenant. A withdrawn item
//! leaves every answer as soon as its record is here, without touching a single cached list.

mod tenant;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use prost::Message as _;
use rapport_events::{EventTime, FieldError, Tenant};
use rapport_proto::catalog::Item;
pub use tenant::{Entry, TenantCatalog};

use crate::cold_start::text;

/// The attributes that say since when an item can be had; the second one is what Gorse's API writes.
const PUBLISHED: [&str; 2] = ["published", "timestamp"];
/// The attribute whose words count beside those of the title and the categories.
const DESCRIPTION: &str = "description";

/// RFC 3339, or a day (its beginning in UTC).
fn time(text: &str) -> Option<EventTime> {
    EventTime::parse_rfc3339(text).or_else(|| EventTime::parse_rfc3339(&format!("{text}T00:00:00Z")))
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
        let description = attributes.get(DESCRIPTION).map(String::as_str).unwrap_or_default();
        let text = text::terms(&title, &categories, description);
        let attributes = (self.keep_attributes && !attributes.is_empty()).then(|| Box::new(attributes));
        self.tenant(&tenant).put(item, Entry { title, categories, available, published, text, attributes });
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
