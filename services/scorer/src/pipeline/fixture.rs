//! Queries for tests.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rapport_events::Tenant;

use super::{Purpose, Query};
use crate::{
    catalog::{Entry, TenantCatalog},
    cold_start::text,
    store::SeenItems,
};

/// Best items for a customer of whom nothing is known, in a world that is empty.
pub fn query() -> Query {
    Query {
        tenant: Tenant::parse("acme").unwrap(),
        purpose: Purpose::Best,
        wanted: HashSet::new(),
        include_seen: false,
        excluded: HashSet::new(),
        category: None,
        placement: None,
        history: Vec::new(),
        history_times: Vec::new(),
        history_types: Vec::new(),
        outcome: None,
        seen: SeenItems::default(),
        model: None,
        catalog: Arc::default(),
        trends: Arc::default(),
        segment: None,
        segment_trends: Arc::default(),
        new_items: Arc::default(),
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

pub fn seen(items: &[&str]) -> SeenItems {
    SeenItems::of(items)
}

pub fn catalog(items: &[(&str, bool, &[&str])]) -> Arc<TenantCatalog> {
    let catalog = TenantCatalog::default();
    for (item, available, categories) in items {
        let categories: Vec<String> = categories.iter().map(|c| (*c).to_owned()).collect();
        let title = format!("The {item}");
        let text = text::terms(&title, &categories, "");
        catalog.put(item, Entry { title, categories, text, available: *available, ..Entry::default() });
    }
    Arc::new(catalog)
}
