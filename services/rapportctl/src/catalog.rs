//! Titles and categories for people, out of the compacted catalog topic.

use std::collections::HashMap;

use prost::Message as _;
use rapport_events::Tenant;
use rapport_kafka::KafkaArgs;
use rapport_proto::catalog::Item;
use rdkafka::Message as _;

use crate::{
    blocking::on_thread,
    scan::{Isolation, Offsets, Scan},
};

/// The items of one tenant by id.
#[derive(Debug, Default)]
pub struct Catalog(HashMap<String, Item>);

impl Catalog {
    /// Reads the whole topic.
    ///
    /// # Errors
    /// The broker does not answer, or has no such topic.
    pub async fn read(kafka: &KafkaArgs, tenant: &Tenant) -> anyhow::Result<Self> {
        let (kafka, tenant) = (kafka.clone(), tenant.clone());
        on_thread("catalog", move || {
            let mut catalog = Self::default();
            Scan::open(&kafka, Isolation::Committed)?.read(
                &kafka.topics().catalog,
                &Offsets::new(),
                &Offsets::new(),
                |record| {
                    catalog.apply(&tenant, record.key().unwrap_or_default(), record.payload());
                    Ok(())
                },
            )?;
            Ok(catalog)
        })
        .await
    }

    /// One record: a newer value, or (without a value) the end of an item. Records of other
    /// tenants, and those that are no items, are passed over.
    fn apply(&mut self, tenant: &Tenant, key: &[u8], value: Option<&[u8]>) {
        let Some(id) = std::str::from_utf8(key)
            .ok()
            .and_then(|key| key.strip_prefix(tenant.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return;
        };
        match value {
            None | Some([]) => {
                self.0.remove(id);
            }
            Some(bytes) => {
                if let Ok(item) = Item::decode(bytes) {
                    self.0.insert(id.to_owned(), item);
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn title(&self, item: &str) -> &str {
        self.0.get(item).map_or("", |item| &item.title)
    }

    pub fn categories(&self, item: &str) -> &[String] {
        self.0.get(item).map_or(&[], |item| &item.categories)
    }

    /// Every item, by id, so that the order is the same every time.
    pub fn items(&self) -> Vec<&Item> {
        let mut items: Vec<&Item> = self.0.values().collect();
        items.sort_by(|a, b| a.item_id.cmp(&b.item_id));
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_of_an_item_counts_and_a_tombstone_removes_it() {
        let demo = Tenant::parse("demo").unwrap();
        let item = |title: &str| Item { item_id: "7".into(), title: title.into(), ..Item::default() }.encode_to_vec();
        let mut catalog = Catalog::default();
        catalog.apply(&demo, b"demo/7", Some(&item("old")));
        catalog.apply(&demo, b"demo/7", Some(&item("new")));
        catalog.apply(&demo, b"demolition/7", Some(&item("another tenant's")));
        catalog.apply(&demo, b"demo/8", Some(b"\xff\xff no item"));
        assert_eq!((catalog.title("7"), catalog.len()), ("new", 1));
        catalog.apply(&demo, b"demo/7", None);
        assert_eq!((catalog.title("7"), catalog.len()), ("", 0));
    }
}
