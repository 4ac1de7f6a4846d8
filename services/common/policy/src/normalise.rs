//! One spelling for one thing: numbers, money, units, texts, ids and addresses.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The section `normalise`.
///
/// ```yaml
/// normalise:
///   numbers: [properties.price, properties.items.*.quantity]   # "1,299.00" becomes 1299
///   currencies: {元: CNY, Euro: EUR}                            # besides the built-in aliases
///   minor_units: {properties.price_cents: properties.price}    # 1299 cents become 12.99
///   units:
///     - {field: properties.weight_g, multiply: 0.001, into: properties.weight_kg}
///   item_ids: {lower_case: true, strip_prefix: ["sku:"], replace: {" ": "-"}}
///   categories: {lower_case: true}
///   urls: {fields: [properties.landing_page]}
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Normalise {
    /// Trims every text in `properties` and `traits` and puts it in Unicode's NFC.
    pub texts: bool,
    /// Paths of fields that are numbers, also when a client sends them as text.
    pub numbers: Vec<String>,
    /// Names of currencies besides the built-in ones (`€`, `RMB`, `¥`-free: it means two), to ISO
    /// 4217 codes. Letter case does not count.
    pub currencies: BTreeMap<String, String>,
    /// Fields in the hundredth part of a currency's unit, and where the amount in units goes.
    /// Currencies without cents (JPY, KRW ...) are not divided.
    pub minor_units: BTreeMap<String, String>,
    pub units: Vec<Unit>,
    pub item_ids: Ids,
    pub categories: Ids,
    pub urls: Urls,
}

impl Default for Normalise {
    fn default() -> Self {
        Self {
            texts: true,
            numbers: Vec::new(),
            currencies: BTreeMap::new(),
            minor_units: BTreeMap::new(),
            units: Vec::new(),
            item_ids: Ids::default(),
            categories: Ids::default(),
            urls: Urls::default(),
        }
    }
}

/// A number in another unit than the one that it is kept in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Path of the number, or `value`.
    pub field: String,
    pub multiply: f64,
    /// Where the product goes; the same field without it.
    #[serde(default)]
    pub into: Option<String>,
}

/// How item ids or categories are spelled, besides NFC and no outer white space. In this order.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ids {
    pub lower_case: bool,
    /// The first of these that the id begins with goes.
    pub strip_prefix: Vec<String>,
    pub replace: BTreeMap<String, String>,
}

/// How addresses of pages are spelled: `context.page.url`, `context.page.referrer`,
/// `properties.url`, `properties.referrer`, and `fields`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Urls {
    /// More paths of addresses.
    pub fields: Vec<String>,
    /// Drops `#...`, unless it is a route (`#/`, `#!`).
    pub drop_fragment: bool,
    /// Drops parameters of campaigns and click ids, once the campaign was read.
    pub drop_tracking: bool,
    /// Parameters that also go (session ids, tokens).
    pub drop_parameters: Vec<String>,
}

impl Default for Urls {
    fn default() -> Self {
        Self { fields: Vec::new(), drop_fragment: true, drop_tracking: true, drop_parameters: Vec::new() }
    }
}

impl Normalise {
    /// What is wrong with the section: the path within it, and what would be right.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        let mut path = |at: String, path: &str, value_too: bool| {
            if !(is_path(path) || value_too && path == "value") {
                let value = if value_too { ", or value" } else { "" };
                mistakes.push((at, format!("{path:?} must be a path like properties.price{value}")));
            }
        };
        self.numbers.iter().enumerate().for_each(|(i, p)| path(format!("numbers[{i}]"), p, false));
        self.urls.fields.iter().enumerate().for_each(|(i, p)| path(format!("urls.fields[{i}]"), p, false));
        for (from, into) in &self.minor_units {
            path(format!("minor_units.{from}"), from, true);
            path(format!("minor_units.{from}"), into, true);
        }
        for (i, unit) in self.units.iter().enumerate() {
            path(format!("units[{i}].field"), &unit.field, true);
            if let Some(into) = &unit.into {
                path(format!("units[{i}].into"), into, true);
            }
        }
        for (i, unit) in self.units.iter().enumerate() {
            if !(unit.multiply.is_finite() && unit.multiply != 0.0) {
                mistakes.push((
                    format!("units[{i}].multiply"),
                    format!("must be a number other than 0, is {}", unit.multiply),
                ));
            }
        }
        // A target with `*` would need to know which element the amount came from.
        let targets = self.minor_units.iter().map(|(from, into)| (format!("minor_units.{from}"), from, into));
        let units = self.units.iter().enumerate();
        let units = units.filter_map(|(i, u)| Some((format!("units[{i}].into"), &u.field, u.into.as_ref()?)));
        for (at, from, into) in targets.chain(units) {
            if !same_stars(from, into) {
                mistakes.push((
                    at,
                    format!("{into:?} must stand beside {from:?}: the same path up to the last step where `*` is used"),
                ));
            }
        }
        for (name, code) in &self.currencies {
            if !rapport_events::is_currency(code) {
                mistakes
                    .push((format!("currencies.{name}"), format!("must be an ISO 4217 code like EUR, is {code:?}")));
            }
        }
        for (section, ids) in [("item_ids", &self.item_ids), ("categories", &self.categories)] {
            if ids.strip_prefix.iter().any(String::is_empty) {
                mistakes.push((format!("{section}.strip_prefix"), "holds an empty prefix; leave it out".to_owned()));
            }
            if ids.replace.contains_key("") {
                mistakes
                    .push((format!("{section}.replace"), "cannot replace the empty text; name a separator".to_owned()));
            }
        }
        mistakes
    }
}

fn is_path(path: &str) -> bool {
    let mut steps = path.split('.');
    matches!(steps.next(), Some("properties" | "traits"))
        && path.split('.').all(|step| !step.is_empty())
        && path.split('.').count() > 1
}

/// Without `*` any target will do; with it, the two differ in their last step only.
fn same_stars(from: &str, into: &str) -> bool {
    if !from.contains('*') && !into.contains('*') {
        return true;
    }
    match (from.rsplit_once('.'), into.rsplit_once('.')) {
        (Some((a, last)), Some((b, other))) => a == b && last != "*" && other != "*",
        _ => false,
    }
}
