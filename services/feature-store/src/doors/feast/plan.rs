//! What a question of Feast's means here, and its answer from what was found. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use rapport_events::{EventTime, check_id, limits};
use rapport_features::{Entity, Place, ViewInfo, Views};
use rapport_proto::feast::{
    serving::{
        FeatureList, FeatureViewMetadata, FieldStatus, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
        GetOnlineFeaturesResponseMetadata, get_online_features_request::Kind,
        get_online_features_response::FeatureVector,
    },
    types::{RepeatedValue, StringList, Value, value::Val},
};

use crate::read::{IDS, Known};

/// Features in one call: all that views can declare, of every entity.
const FEATURES: usize = 3 * 512;
/// Rows times features of an answer: 250 features of each of 1,000 customers.
const VALUES: usize = 250_000;
/// Of a name that a client sent, what its refusal shows.
const SHOWN: usize = 80;
/// Views that a refusal names; a status is sent in headers, which have little room.
const SHOWN_VIEWS: usize = 20;

const CUSTOMER_ID: &str = "customer_id";
const ITEM_ID: &str = "item_id";
const CATEGORY: &str = "category";
const JOIN_KEYS: [&str; 3] = [CUSTOMER_ID, ITEM_ID, CATEGORY];

/// What kind of thing is wrong: Feast's clients have an exception for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    NoSuchView,
    NoSuchService,
    NoSuchEntity,
    Collision,
    Other,
}

/// A question that cannot be answered as it is. Sending it again fails again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(super) struct Refusal {
    pub kind: Wrong,
    pub field: String,
    pub reason: String,
}

impl Refusal {
    pub(super) fn new(kind: Wrong, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, field: field.into(), reason: reason.into() }
    }

    pub(super) fn other(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(Wrong::Other, field, reason)
    }
}

/// Ids that are read, each once, and which of them a row is about.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    ids: Vec<String>,
    of_row: Vec<usize>,
}

impl Distinct {
    fn of(rows: &[String]) -> Self {
        let mut distinct = Self::default();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for id in rows {
            let place = *places.entry(id).or_insert(distinct.ids.len());
            if place == distinct.ids.len() {
                distinct.ids.push(id.clone());
            }
            distinct.of_row.push(place);
        }
        distinct
    }

    pub(super) fn ids(&self) -> &[String] {
        &self.ids
    }
}

/// A feature of the answer.
#[derive(Debug)]
struct Column {
    entity: Entity,
    place: Place,
    max_age_ms: Option<u64>,
}

/// What was found: of customers and items for each distinct id, of customers' categories for each row.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub customers: Vec<Option<Known>>,
    pub items: Vec<Option<Known>>,
    pub categories: Vec<Option<Known>>,
}

/// A question that can be answered: what to read, and how the answer is laid out.
#[derive(Debug)]
pub(super) struct Plan {
    pub customers: Distinct,
    pub items: Distinct,
    categories: Vec<String>,
    rows: usize,
    names: Vec<String>,
    /// The join keys, as they were sent.
    keys: Vec<Vec<Value>>,
    columns: Vec<Column>,
    views: Vec<FeatureViewMetadata>,
}

impl Plan {
    /// # Errors
    /// The field that is wrong, and what would be right.
    pub(super) fn of(views: &Views, question: GetOnlineFeaturesRequest) -> Result<Self, Refusal> {
        if !question.request_context.is_empty() {
            return Err(Refusal::other(
                "request_context",
                "must be empty: nothing is computed from what a call brings",
            ));
        }
        let chosen = chosen(views, question.kind)?;
        let mut ids = ids(&question.entities)?;
        let rows = ids.values().next().map_or(0, Vec::len);
        let values = rows.saturating_mul(chosen.len());
        if values > VALUES {
            let (features, most) = (chosen.len(), VALUES);
            let reason = format!("{rows} rows of {features} features are {values} values, may be {most}");
            return Err(Refusal::other("entities", reason));
        }
        for (_, view, feature) in &chosen {
            if let Some(missing) = join_keys(view.entity).iter().find(|key| !ids.contains_key(**key)) {
                let reason = format!("is missing, {}:{feature} needs it", view.name);
                return Err(Refusal::new(Wrong::NoSuchEntity, format!("entities.{missing}"), reason));
            }
        }
        let reads = |entity| chosen.iter().any(|(_, view, _)| view.entity == entity);
        let mut column = |key, needed| if needed { ids.remove(key).unwrap_or_default() } else { Vec::new() };
        let customers = column(CUSTOMER_ID, reads(Entity::Customer) || reads(Entity::CustomerCategory));
        let items = column(ITEM_ID, reads(Entity::Item));
        let categories = column(CATEGORY, reads(Entity::CustomerCategory));
        let keys: BTreeMap<String, RepeatedValue> = question.entities.into_iter().collect();
        let mut plan = Self {
            customers: Distinct::of(&customers),
            items: Distinct::of(&items),
            categories,
            rows,
            names: keys.keys().cloned().collect(),
            keys: keys.into_values().map(|column| column.val).collect(),
            columns: Vec::with_capacity(chosen.len()),
            views: Vec::new(),
        };
        let mut taken: HashSet<String> = plan.names.iter().cloned().collect();
        for (place, view, feature) in &chosen {
            let name =
                if question.full_feature_names { format!("{}__{feature}", view.name) } else { (*feature).to_owned() };
            if !taken.insert(name.clone()) {
                let reason = format!("two are named {name:?}; set full_feature_names, or ask for one of them");
                return Err(Refusal::new(Wrong::Collision, "features", reason));
            }
            plan.names.push(name);
            let max_age_ms = view.max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            plan.columns.push(Column { entity: view.entity, place: *place, max_age_ms });
            let used = plan.views.iter().any(|used| used.name == view.name);
            if question.include_feature_view_version_metadata && !used {
                plan.views.push(FeatureViewMetadata { name: view.name.clone(), version: 0 });
            }
        }
        Ok(plan)
    }

    /// Whether the answer has features of this entity.
    pub(super) fn reads(&self, entity: Entity) -> bool {
        self.columns.iter().any(|column| column.entity == entity)
    }

    /// How many values the answer has.
    pub(super) fn values(&self) -> usize {
        self.rows.saturating_mul(self.columns.len())
    }

    /// For each row its customer, out of one for each distinct id, with the row's category.
    pub(super) fn pairs<C, T>(&self, customers: &[C], of: impl Fn(&C, &str) -> Option<T>) -> Vec<Option<T>> {
        let rows = self.categories.iter().zip(&self.customers.of_row);
        rows.map(|(category, &at)| customers.get(at).and_then(|customer| of(customer, category))).collect()
    }

    /// The answer at a moment.
    pub(super) fn answer(self, found: &Found, at: EventTime) -> GetOnlineFeaturesResponse {
        let keys = self.keys.into_iter().map(|values| FeatureVector {
            statuses: vec![FieldStatus::Present.into(); values.len()],
            event_timestamps: vec![prost_types::Timestamp::default(); values.len()],
            values,
        });
        let features = self.columns.iter().map(|column| {
            let mut vector = FeatureVector::default();
            for row in 0..self.rows {
                let known = match column.entity {
                    Entity::Customer => self.customers.of_row.get(row).and_then(|&id| found.customers.get(id)),
                    Entity::Item => self.items.of_row.get(row).and_then(|&id| found.items.get(id)),
                    Entity::CustomerCategory => found.categories.get(row),
                };
                let (val, status, newest) = column.cell(known.and_then(Option::as_ref), at);
                vector.values.push(Value { val });
                vector.statuses.push(status.into());
                vector.event_timestamps.push(newest.map(EventTime::to_proto).unwrap_or_default());
            }
            vector
        });
        GetOnlineFeaturesResponse {
            results: keys.chain(features).collect(),
            metadata: Some(GetOnlineFeaturesResponseMetadata {
                feature_names: Some(FeatureList { val: self.names }),
                feature_view_metadata: self.views,
            }),
            status: true,
        }
    }
}

impl Column {
    fn cell(&self, known: Option<&Known>, at: EventTime) -> (Option<Val>, FieldStatus, Option<EventTime>) {
        let Some(known) = known else { return (None, FieldStatus::NotFound, None) };
        let age_ms = known.newest.map_or(0, |newest| u64::try_from(at.since(newest).as_millis()).unwrap_or(u64::MAX));
        if self.max_age_ms.is_some_and(|most| age_ms > most) {
            // Not even the value: a client that looks at no status must not go on with it.
            return (None, FieldStatus::OutsideMaxAge, known.newest);
        }
        let value = match self.place {
            Place::Number(place) => {
                known.values.get(place).filter(|value| !value.is_nan()).map(|value| Val::DoubleVal(*value))
            }
            Place::List(place) => {
                let list = known.lists.get(place).filter(|list| !list.is_empty());
                list.map(|list| Val::StringListVal(StringList { val: list.clone() }))
            }
        };
        let status = if value.is_some() { FieldStatus::Present } else { FieldStatus::NullValue };
        (value, status, known.newest)
    }
}

fn join_keys(entity: Entity) -> &'static [&'static str] {
    match entity {
        Entity::Customer => &[CUSTOMER_ID],
        Entity::Item => &[ITEM_ID],
        Entity::CustomerCategory => &[CUSTOMER_ID, CATEGORY],
    }
}

/// A name of a client's, no longer than a line.
fn shown(name: &str) -> String {
    let mut short: String = name.chars().take(SHOWN).collect();
    if short.len() < name.len() {
        short.push_str("...");
    }
    format!("{short:?}")
}

/// Features of the answer: its place in what is read of the entity, its view, its name.
type Chosen<'a> = Vec<(Place, &'a ViewInfo, &'a str)>;

fn chosen(views: &Views, kind: Option<Kind>) -> Result<Chosen<'_>, Refusal> {
    match kind {
        Some(Kind::FeatureService(name)) => {
            let entity = Entity::parse(&name).ok_or_else(|| {
                let reason = format!("must be customer, item or customer_category, is {}", shown(&name));
                Refusal::new(Wrong::NoSuchService, "feature_service", reason)
            })?;
            let of_entity = views.views().iter().filter(|view| view.entity == entity);
            let features = of_entity
                .flat_map(|view| view.features.iter().map(move |feature| (feature.place, view, feature.name.as_str())));
            Ok(features.collect())
        }
        Some(Kind::Features(list)) if !list.val.is_empty() => {
            if list.val.len() > FEATURES {
                let reason = format!("may have {FEATURES} entries, has {}", list.val.len());
                return Err(Refusal::other("features", reason));
            }
            let known: HashMap<&str, &ViewInfo> = views.views().iter().map(|view| (view.name.as_str(), view)).collect();
            list.val.iter().enumerate().map(|(n, reference)| feature(views, &known, n, reference)).collect()
        }
        Some(Kind::Features(_)) | None => {
            Err(Refusal::other("features", "is empty; name <view>:<feature>, or a feature_service"))
        }
    }
}

/// The feature that the n-th reference names.
fn feature<'a>(
    views: &Views,
    known: &HashMap<&str, &'a ViewInfo>,
    n: usize,
    reference: &str,
) -> Result<(Place, &'a ViewInfo, &'a str), Refusal> {
    let field = || format!("features[{n}]");
    let (view_name, name) = reference
        .split_once(':')
        .ok_or_else(|| Refusal::other(field(), format!("must be <view>:<feature>, is {}", shown(reference))))?;
    let view = known.get(view_name).copied().ok_or_else(|| {
        let some: Vec<&str> = views.views().iter().take(SHOWN_VIEWS).map(|view| view.name.as_str()).collect();
        let more = if views.views().len() > SHOWN_VIEWS { ", ..." } else { "" };
        let reason = format!("{} is no view; there are {}{more}", shown(view_name), some.join(", "));
        Refusal::new(Wrong::NoSuchView, field(), reason)
    })?;
    let found = view.features.iter().find(|feature| feature.name == name);
    found.map(|feature| (feature.place, view, feature.name.as_str())).ok_or_else(|| {
        let reason = format!("view {view_name} has no feature {}", shown(name));
        Refusal::new(Wrong::NoSuchView, field(), reason)
    })
}

/// The ids of each join key as text, all columns of one length.
fn ids(entities: &HashMap<String, RepeatedValue>) -> Result<BTreeMap<&'static str, Vec<String>>, Refusal> {
    let mut columns = BTreeMap::new();
    for (name, column) in entities {
        let key = JOIN_KEYS.into_iter().find(|key| key == name).ok_or_else(|| {
            let reason = format!("is no join key; there are {}", JOIN_KEYS.join(", "));
            Refusal::new(Wrong::NoSuchEntity, format!("entities.{}", shown(name).trim_matches('"')), reason)
        })?;
        if column.val.len() > IDS {
            let reason = format!("may have {IDS} entries, has {}", column.val.len());
            return Err(Refusal::other(format!("entities.{key}"), reason));
        }
        let text = column.val.iter().enumerate().map(|(n, value)| id(&format!("entities.{key}[{n}]"), value));
        columns.insert(key, text.collect::<Result<Vec<_>, _>>()?);
    }
    let mut lengths = columns.iter().map(|(key, ids)| (key, ids.len()));
    if let Some((first, rows)) = lengths.next()
        && let Some((other, length)) = lengths.find(|(_, length)| *length != rows)
    {
        let reason = format!("has {length} entries, entities.{first} has {rows}");
        return Err(Refusal::other(format!("entities.{other}"), reason));
    }
    Ok(columns)
}

fn id(field: &str, value: &Value) -> Result<String, Refusal> {
    let id = match &value.val {
        Some(Val::StringVal(text)) => text.clone(),
        Some(Val::Int64Val(number)) => number.to_string(),
        Some(Val::Int32Val(number)) => number.to_string(),
        _ => return Err(Refusal::other(field, "must be text or a whole number")),
    };
    if id.is_empty() {
        return Err(Refusal::other(field, "is empty"));
    }
    check_id(field, &id, limits::ID_BYTES).map_err(|e| Refusal::other(e.field, e.reason))?;
    Ok(id)
}

#[cfg(test)]
mod tests;
