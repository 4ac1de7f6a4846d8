//! What the catalog says of items, for events that do not say it themselves. Bounded: what has no place is told.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use prost::Message as _;
use rapport_events::Tenant;
use rapport_kafka::{KafkaArgs, compacted};
use rapport_policy::FromCatalog;
use rapport_proto::{catalog::Item, events::Event};
use rapport_runtime::{Component, Lifecycle, OwnedThread};

/// The catalog as far as joins ask for it. Shared by the thread that follows the topic and the steps.
#[derive(Debug)]
pub struct Catalog {
    known: RwLock<Known>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<Tenant, HashMap<Box<str>, Entry>>,
    items: usize,
    /// Names of attributes, each once: a catalog has few of them.
    names: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The most specific one.
    category: Option<Box<str>>,
    /// The attributes that are numbers.
    numbers: Vec<(Arc<str>, f64)>,
}

/// A record of the catalog topic that cannot be used, and why.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("the value is no rapport.catalog.v1.Item: {0}")]
    Value(#[from] prost::DecodeError),
    #[error("the key is not <tenant>/<item id>, the id that of the value")]
    Key,
    #[error("more than {0} items; events of the others are not joined. Raise --catalog-items")]
    Items(usize),
}

impl Catalog {
    /// Of at most `limit` items.
    pub fn of_at_most(limit: usize) -> Self {
        Self { known: RwLock::default(), limit }
    }

    /// Reads the catalog topic and follows it. `component` is ready when everything that was there at the start
    /// has been read.
    ///
    /// # Errors
    /// No thread, or a setting that librdkafka does not take.
    pub(crate) fn follow(
        self: &Arc<Self>,
        kafka: &KafkaArgs,
        lifecycle: &Lifecycle,
        component: Component,
    ) -> Result<OwnedThread, rapport_kafka::Error> {
        let known = Arc::clone(self);
        let mut full_told = false;
        compacted::follow(kafka, &kafka.topics().catalog, lifecycle, component, move |record| {
            match known.apply(record.key, record.value) {
                Ok(()) => {}
                Err(Unusable::Items(_)) if full_told => {}
                Err(error) => {
                    full_told |= matches!(error, Unusable::Items(_));
                    metrics::counter!("rapport_cleaner_unusable_items_total").increment(1);
                    tracing::error!(%error, partition = record.partition, offset = record.offset, "catalog");
                }
            }
        })
    }

    /// Takes one record of the topic. No value, or an empty one: the item is gone.
    pub(crate) fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), Unusable> {
        let key = std::str::from_utf8(key).map_err(|_| Unusable::Key)?;
        let (tenant, item) = key.split_once('/').filter(|(_, item)| !item.is_empty()).ok_or(Unusable::Key)?;
        let tenant = Tenant::parse(tenant).map_err(|_| Unusable::Key)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Known { tenants, items, names } = &mut *known;
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            let gone = tenants.get_mut(&tenant).and_then(|of_tenant| of_tenant.remove(item));
            *items -= usize::from(gone.is_some());
            return Ok(());
        };
        let Item { item_id, categories, attributes, .. } = Item::decode(value)?;
        if item_id != item {
            return Err(Unusable::Key);
        }
        let of_tenant = tenants.entry(tenant).or_default();
        let new = !of_tenant.contains_key(item);
        if new && *items >= self.limit {
            return Err(Unusable::Items(self.limit));
        }
        let numbers = attributes.iter().filter_map(|(name, text)| {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite())?;
            let name = names.iter().find(|known| ***known == **name).cloned().unwrap_or_else(|| {
                let name: Arc<str> = name.as_str().into();
                // Names beyond are kept with their item: a catalog of endless names is somebody's mistake.
                if names.len() < NAMES {
                    names.push(Arc::clone(&name));
                }
                name
            });
            Some((name, number))
        });
        let category = categories.into_iter().next().filter(|category| !category.is_empty());
        let entry = Entry { category: category.map(String::into_boxed_str), numbers: numbers.collect() };
        of_tenant.insert(item.into(), entry);
        *items += usize::from(new);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("rapport_cleaner_catalog_items").set(*items as f64);
        Ok(())
    }

    /// Fills in what the event does not say and its item's record does. Returns what.
    pub fn join(&self, event: &mut Event, tenant: &Tenant, rules: &FromCatalog) -> Vec<String> {
        let attribute = rules.value.get(&event.r#type).filter(|_| event.value.is_none());
        let category = rules.category && event.category.is_empty();
        if event.item_id.is_empty() || !(category || attribute.is_some()) {
            return Vec::new();
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = known.tenants.get(tenant).and_then(|of_tenant| of_tenant.get(event.item_id.as_str())) else {
            return Vec::new();
        };
        let mut joined = Vec::new();
        if let Some(category) = entry.category.as_deref().filter(|_| category) {
            category.clone_into(&mut event.category);
            joined.push("category".to_owned());
        }
        let number = attribute.and_then(|name| entry.numbers.iter().find(|(known, _)| **known == **name));
        if let Some((_, number)) = number {
            event.value = Some(*number);
            joined.push("value".to_owned());
        }
        joined
    }
}

/// Names of attributes that are kept once for all items.
const NAMES: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(id: &str, categories: &[&str], attributes: &[(&str, &str)]) -> Vec<u8> {
        Item {
            item_id: id.into(),
            categories: categories.iter().map(|category| (*category).to_owned()).collect(),
            attributes: attributes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            ..Item::default()
        }
        .encode_to_vec()
    }

    fn event(kind: &str, item: &str) -> Event {
        Event { r#type: kind.into(), item_id: item.into(), ..Event::default() }
    }

    fn rules() -> FromCatalog {
        FromCatalog { category: true, value: [("purchase".to_owned(), "price".to_owned())].into() }
    }

    fn demo() -> Tenant {
        Tenant::parse("demo").unwrap()
    }

    #[test]
    fn an_event_gets_what_it_does_not_say_and_its_item_does() {
        let catalog = Catalog::of_at_most(10);
        catalog
            .apply(b"demo/a/1", Some(&record("a/1", &["Boots", "Shoes"], &[("price", " 19.5"), ("size", "XL")])))
            .unwrap();
        let mut bought = event("purchase", "a/1");
        assert_eq!(catalog.join(&mut bought, &demo(), &rules()), ["category", "value"]);
        assert_eq!((bought.category.as_str(), bought.value), ("Boots", Some(19.5)));
        let mut seen = event("view", "a/1");
        assert_eq!(catalog.join(&mut seen, &demo(), &rules()), ["category"], "a view has no price");
        let mut told = Event { category: "Own".into(), value: Some(0.0), ..event("purchase", "a/1") };
        let before = told.clone();
        assert!(catalog.join(&mut told, &demo(), &rules()).is_empty() && told == before, "what is said stands");
        let other = FromCatalog { value: [("purchase".to_owned(), "size".to_owned())].into(), ..rules() };
        assert_eq!(catalog.join(&mut event("purchase", "a/1"), &demo(), &other), ["category"], "XL is no number");
        for (tenant, item) in [("other", "a/1"), ("demo", "b"), ("demo", "")] {
            assert!(catalog.join(&mut event("purchase", item), &Tenant::parse(tenant).unwrap(), &rules()).is_empty());
        }
        assert!(catalog.join(&mut event("purchase", "a/1"), &demo(), &FromCatalog::default()).is_empty());
        catalog.apply(b"demo/a/1", None).unwrap();
        assert!(catalog.join(&mut event("view", "a/1"), &demo(), &rules()).is_empty(), "gone");
    }

    #[test]
    fn items_beyond_the_limit_have_no_place_until_another_goes() {
        let catalog = Catalog::of_at_most(1);
        let put = |id: &str| catalog.apply(format!("demo/{id}").as_bytes(), Some(&record(id, &["c"], &[])));
        put("a").unwrap();
        put("a").unwrap();
        assert_eq!(put("b"), Err(Unusable::Items(1)));
        catalog.apply(b"demo/a", Some(b"")).unwrap();
        catalog.apply(b"demo/a", None).unwrap();
        put("b").unwrap();
        assert_eq!(catalog.join(&mut event("view", "b"), &demo(), &rules()), ["category"]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_refused_changes_nothing(key: Vec<u8>, value: Option<Vec<u8>>) {
            let catalog = Catalog::of_at_most(10);
            let applied = catalog.apply(&key, value.as_deref());
            prop_assert!(applied.is_ok() || catalog.known.read().unwrap().items == 0);
        }
    }
}
