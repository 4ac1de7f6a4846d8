//! What a question of Feast's means here, and its answer from what was found. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use rapport_events::EventTime;
use rapport_features::{Entity, OnDemand, Place, Requested, ViewInfo, Views};
use rapport_proto::feast::{
    serving::{
        FeatureList, FeatureViewMetadata, FieldStatus, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
        GetOnlineFeaturesResponseMetadata, get_online_features_request::Kind,
        get_online_features_response::FeatureVector,
    },
    types::{RepeatedValue, StringList, Value, value::Val},
};

use super::entities;
use crate::{
    read::Known,
    requested::{self, Row},
};

/// Features in one call: all that views can declare, of every entity.
const FEATURES: usize = Entity::ALL.len() * 512;
/// Rows times features of an answer: 250 features of each of 1,000 customers.
const VALUES: usize = 250_000;
/// Of a name that a client sent, what its refusal shows.
const SHOWN: usize = 80;
/// Views that a refusal names; a status is sent in headers, which have little room.
const SHOWN_VIEWS: usize = 20;

const CUSTOMER_ID: &str = "customer_id";
const ITEM_ID: &str = "item_id";
const CATEGORY: &str = "category";
const SESSION_ID: &str = "session_id";
const SEGMENT: &str = "segment";
pub(super) const JOIN_KEYS: [&str; 5] = [CUSTOMER_ID, ITEM_ID, CATEGORY, SESSION_ID, SEGMENT];

/// What kind of thing is wrong: Feast's clients have an exception for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    NoSuchView,
    NoSuchService,
    NoSuchEntity,
    NoSuchRequestValue,
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
    /// What it is computed as, of an on-demand feature.
    computed: Option<OnDemand>,
    max_age_ms: Option<u64>,
}

/// What was found: of customers, items and segments for each distinct id, of customers' categories and visits for each row.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub customers: Vec<Option<Known>>,
    pub items: Vec<Option<Known>>,
    pub segments: Vec<Option<Known>>,
    pub categories: Vec<Option<Known>>,
    pub sessions: Vec<Option<Known>>,
}

impl Found {
    pub(super) fn each(&mut self, told: impl FnMut(&mut Known)) {
        let shared = [&mut self.items, &mut self.segments];
        let all = [&mut self.customers, &mut self.categories, &mut self.sessions].into_iter().chain(shared);
        all.into_iter().flatten().flatten().for_each(told);
    }
}

/// A question that can be answered: what to read, and how the answer is laid out.
#[derive(Debug)]
pub(super) struct Plan {
    pub customers: Distinct,
    pub items: Distinct,
    pub segments: Distinct,
    categories: Vec<String>,
    sessions: Vec<String>,
    rows: usize,
    names: Vec<String>,
    /// The join keys, as they were sent.
    keys: Vec<Vec<Value>>,
    requested: Requested,
    columns: Vec<Column>,
    views: Vec<FeatureViewMetadata>,
}

impl Plan {
    /// # Errors
    /// The field that is wrong, and what would be right.
    pub(super) fn of(views: &Views, question: GetOnlineFeaturesRequest) -> Result<Self, Refusal> {
        let named = matches!(&question.kind, Some(Kind::Features(_)));
        let chosen = chosen(views, question.kind)?;
        let (mut entities, mut brought) = (HashMap::new(), question.request_context);
        for (name, column) in question.entities {
            // A column may be both: a category that is a join key, and compared with what the customer likes.
            let is_key = JOIN_KEYS.contains(&name.as_str());
            if views.request_values().contains_key(&name) {
                if is_key {
                    entities.insert(name.clone(), column.clone());
                }
                brought.insert(name, column);
            } else {
                entities.insert(name, column);
            }
        }
        let mut ids = entities::ids(&entities)?;
        let rows = ids.values().next().map_or(0, Vec::len);
        let requested = entities::requested(views, brought, rows)?;
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
        let on_demand = |place: &Place, view: &ViewInfo| match place {
            Place::OnDemand(at) => views.on_demand(view.entity).get(*at),
            Place::Number(_) | Place::List(_) => None,
        };
        let computed = chosen.iter().filter_map(|(place, view, _)| on_demand(place, view));
        if let Some((need, feature)) = requested::missing(computed, &requested).filter(|_| named) {
            let reason = format!("is missing, {} needs it", feature.name().replacen('.', ":", 1));
            return Err(Refusal::new(Wrong::NoSuchRequestValue, format!("entities.{need}"), reason));
        }
        let reads = |entity| chosen.iter().any(|(_, view, _)| view.entity == entity);
        let mut column = |key, needed| if needed { ids.remove(key).unwrap_or_default() } else { Vec::new() };
        let of_customers = [Entity::Customer, Entity::CustomerCategory, Entity::Session].into_iter().any(reads);
        let customers = column(CUSTOMER_ID, of_customers);
        let items = column(ITEM_ID, reads(Entity::Item));
        let segments = column(SEGMENT, reads(Entity::Segment));
        let categories = column(CATEGORY, reads(Entity::CustomerCategory));
        let mut sessions = column(SESSION_ID, reads(Entity::Session));
        if reads(Entity::Session) {
            // Who names no visit asks for the newest one.
            sessions.resize(rows, String::new());
        }
        let keys: BTreeMap<String, RepeatedValue> = entities.into_iter().collect();
        let mut plan = Self {
            customers: Distinct::of(&customers),
            items: Distinct::of(&items),
            segments: Distinct::of(&segments),
            categories,
            sessions,
            rows,
            names: keys.keys().cloned().collect(),
            keys: keys.into_values().map(|column| column.val).collect(),
            requested,
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
            let computed = on_demand(place, view).cloned();
            plan.columns.push(Column { entity: view.entity, place: *place, computed, max_age_ms });
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

    /// For each row what is found of its category or visit in its customer, out of one for each distinct id.
    pub(super) fn pairs<C, T>(
        &self,
        customers: &[C],
        entity: Entity,
        of: impl Fn(&C, Entity, &str) -> Option<T>,
    ) -> Vec<Option<T>> {
        let names = if entity == Entity::Session { &self.sessions } else { &self.categories };
        let rows = names.iter().zip(&self.customers.of_row);
        rows.map(|(name, &at)| customers.get(at).and_then(|customer| of(customer, entity, name))).collect()
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
                    Entity::Segment => self.segments.of_row.get(row).and_then(|&id| found.segments.get(id)),
                    Entity::CustomerCategory => found.categories.get(row),
                    Entity::Session => found.sessions.get(row),
                };
                let known = known.and_then(Option::as_ref);
                let (val, status, newest) = match &column.computed {
                    None => column.cell(known, at),
                    Some(feature) => {
                        let nothing = Known::default();
                        let inputs = Row { known: known.unwrap_or(&nothing), requested: &self.requested, row, at };
                        column.computed_cell(feature, known, &inputs)
                    }
                };
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
    fn is_too_old(&self, known: &Known, at: EventTime) -> bool {
        let age_ms = known.newest.map_or(0, |newest| u64::try_from(at.since(newest).as_millis()).unwrap_or(u64::MAX));
        self.max_age_ms.is_some_and(|most| age_ms > most)
    }

    /// What takes stored features has no value where these have none to give; what takes the request's alone
    /// knows nothing of ages and strangers.
    fn computed_cell(
        &self,
        feature: &OnDemand,
        known: Option<&Known>,
        inputs: &Row<'_>,
    ) -> (Option<Val>, FieldStatus, Option<EventTime>) {
        if !feature.of_request_alone() {
            let Some(known) = known else { return (None, FieldStatus::NotFound, None) };
            if self.is_too_old(known, inputs.at) {
                return (None, FieldStatus::OutsideMaxAge, known.newest);
            }
        }
        let (value, newest) = (feature.value(inputs), known.and_then(|known| known.newest));
        match value.is_nan() {
            true => (None, FieldStatus::NullValue, newest),
            false => (Some(Val::DoubleVal(value)), FieldStatus::Present, newest),
        }
    }

    fn cell(&self, known: Option<&Known>, at: EventTime) -> (Option<Val>, FieldStatus, Option<EventTime>) {
        let Some(known) = known else { return (None, FieldStatus::NotFound, None) };
        if self.is_too_old(known, at) {
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
            Place::OnDemand(_) => None,
        };
        let status = if value.is_some() { FieldStatus::Present } else { FieldStatus::NullValue };
        (value, status, known.newest)
    }
}

fn join_keys(entity: Entity) -> &'static [&'static str] {
    match entity {
        Entity::Customer | Entity::Session => &[CUSTOMER_ID],
        Entity::Item => &[ITEM_ID],
        Entity::Segment => &[SEGMENT],
        Entity::CustomerCategory => &[CUSTOMER_ID, CATEGORY],
    }
}

/// A name of a client's, no longer than a line.
pub(super) fn shown(name: &str) -> String {
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
                let reason = format!("must be {}, is {}", Entity::NAMES, shown(&name));
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

#[cfg(test)]
mod tests;
