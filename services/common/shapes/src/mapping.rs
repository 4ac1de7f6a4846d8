//! Declarative mappings from a JSON body (or a row of a file, as a JSON object) to events, in YAML.
//!
//! ```yaml
//! version: 1
//! name: shop-orders
//! events:
//!   - when: {path: $.test, not_equals: true}      # one condition, or a list that must all hold
//!     for_each: $.line_items                      # an event for each element, which is `$each`
//!     set:
//!       type: purchase
//!       event_id: "shop-{$.id}-{$each.id}"
//!       customer_id: {any: [$.customer.id, {path: $.email, lower: true, trim: true}]}
//!       item_id: $each.sku
//!       value: {path: $each.price, multiply: $each.quantity}
//!       currency: $.currency
//!       event_time: $.created_at
//!       properties: {order_id: $.id, context.ip: $.browser_ip}
//! ```
//!
//! **Paths.** `$` is the body, `$each` the element of `for_each`; `.name`, `[0]` and `["a.b"]` lead on.
//! Names may hold spaces (`$.Customer ID`). After `path:` a JSON pointer (`/customer/id`) will do too.
//!
//! **Values.** A text that begins with `$` is a path, one with `{$...}` in it a template, any other a
//! literal. The long form is a map: `path`, `template`, `literal` or `any` (the first that gives
//! something), with `trim`, `lower`, `multiply` (a number, a path, or a list of these), `format` (of a
//! time: `rfc3339`, `unix_s`, `unix_ms`, or `%Y-%m-%d %H:%M:%S` and the like) and `timezone` (`+01:00`)
//! for times that name none. Nothing, null and blank text count as empty; a template with an empty
//! part is empty.
//!
//! **Fields of `set`.** `type` is needed, and `customer_id` or `anonymous_id`; then `event_id`, `item_id`,
//! `category`, `value`, `currency`, `event_time`, `sent_at`; `properties` and `traits` are names with
//! values (`context.ip` nests), or `{all: $each, except: [price], set: {...}}` for every field that
//! stands there.
//!
//! **Conditions.** `path` with one of `equals`, `not_equals`, `in`, `not_in`, `exists`, `starts_with`,
//! `above` and `below`. `equals: 7` holds for `"7"` too, because rows of files are text.

mod condition;
mod declaration;
mod path;
mod time_format;
mod value;

use rapport_events::{EventTime, FieldError, limits};
use rapport_proto::events::Event;
use serde_json::Value as Json;

use crate::{
    event_name::event_type,
    fields::{TIME_IS, some_struct, time_of},
    mapping::{
        condition::Condition,
        declaration::Declaration,
        path::{Path, Scope},
        value::{Given, Members},
    },
    tree::{Fields, bounded, from_json},
};

/// The most bytes that a mapping's file may have.
pub const MAX_BYTES: usize = 64 * 1024;
/// The most events that one body may give.
pub const MAX_EVENTS: usize = 1_000;

/// A mapping that was read and checked.
#[derive(Debug, Clone)]
pub struct Mapping {
    name: String,
    rules: Vec<Rule>,
}

/// Why a mapping cannot be used: where in the file, what is wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct MappingError {
    pub at: String,
    pub reason: String,
}

/// One entry of `events`.
#[derive(Debug, Clone)]
struct Rule {
    when: Vec<Condition>,
    for_each: Option<Path>,
    set: Set,
}

/// What an event is made of.
#[derive(Debug, Clone)]
struct Set {
    kind: Given,
    event_id: Option<Given>,
    customer_id: Option<Given>,
    anonymous_id: Option<Given>,
    item_id: Option<Given>,
    category: Option<Given>,
    value: Option<Given>,
    currency: Option<Given>,
    event_time: Option<Given>,
    sent_at: Option<Given>,
    properties: Members,
    traits: Members,
}

impl Mapping {
    /// Reads and checks a mapping.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn from_yaml(text: &str) -> Result<Self, MappingError> {
        declaration::mapping(&Declaration::parse(text)?)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether every event gets an id from the body, so that the same body twice gives no event twice.
    pub fn sets_event_ids(&self) -> bool {
        self.rules.iter().all(|rule| rule.set.event_id.is_some())
    }

    /// The events that a body stands for; none where the mapping says that it is none. A body that
    /// gives too many gives one refusal and no event, so that a second try repeats nothing.
    pub fn apply(&self, body: &Json) -> Vec<Result<Event, FieldError>> {
        let mut events = Vec::new();
        for rule in &self.rules {
            let scopes = match rule.scopes(body) {
                Ok(scopes) => scopes,
                Err(error) => {
                    events.push(Err(error));
                    continue;
                }
            };
            for scope in scopes.into_iter().filter(|scope| rule.when.iter().all(|condition| condition.holds(scope))) {
                if events.len() == MAX_EVENTS {
                    let reason = format!("may give {MAX_EVENTS} events; send larger ones in parts");
                    return vec![Err(FieldError::size("body", reason))];
                }
                events.push(rule.set.event(&scope));
            }
        }
        events
    }
}

impl Rule {
    fn scopes<'a>(&self, body: &'a Json) -> Result<Vec<Scope<'a>>, FieldError> {
        let Some(path) = &self.for_each else { return Ok(vec![Scope { body, each: None }]) };
        match path.find(&Scope { body, each: None }) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Array(elements)) => Ok(elements.iter().map(|each| Scope { body, each: Some(each) }).collect()),
            Some(other) => {
                let reason = format!("must be a list for for_each, is {}", rapport_events::json::kind_of(other));
                Err(FieldError::schema(path.to_string(), reason))
            }
        }
    }
}

impl Set {
    fn event(&self, scope: &Scope<'_>) -> Result<Event, FieldError> {
        let text = |field: &str, given: &Option<Given>| match given {
            Some(given) => given.text(field, scope).map(Option::unwrap_or_default),
            None => Ok(String::new()),
        };
        let mut properties: Fields = self.properties.read("properties", scope)?;
        let traits = self.traits.read("traits", scope)?;
        let name = self.kind.text("type", scope)?.ok_or_else(|| self.kind.empty("type"))?;
        let event = Event {
            r#type: event_type("type", &name, &mut properties)?,
            event_id: match &self.event_id {
                // Without it, the same body twice would be two events.
                Some(id) => id.text("event_id", scope)?.ok_or_else(|| id.empty("event_id"))?,
                None => String::new(),
            },
            customer_id: text("customer_id", &self.customer_id)?,
            anonymous_id: text("anonymous_id", &self.anonymous_id)?,
            item_id: text("item_id", &self.item_id)?,
            category: text("category", &self.category)?,
            currency: text("currency", &self.currency)?.to_ascii_uppercase(),
            value: self.value.as_ref().map_or(Ok(None), |given| given.number("value", scope))?,
            event_time: time("event_time", self.event_time.as_ref(), scope)?.map(EventTime::to_proto),
            sent_at: time("sent_at", self.sent_at.as_ref(), scope)?.map(EventTime::to_proto),
            properties: some_struct(properties),
            traits: some_struct(traits),
        };
        if event.customer_id.is_empty() && event.anonymous_id.is_empty() {
            let (field, given) = match (&self.customer_id, &self.anonymous_id) {
                (Some(given), _) => ("customer_id", given),
                (None, Some(given)) => ("anonymous_id", given),
                (None, None) => return Err(FieldError::identity("customer_id", "is empty; the mapping sets none")),
            };
            return Err(FieldError::identity(field, given.empty(field).reason));
        }
        bounded(event, limits::DEPTH + 1)
    }
}

fn time(field: &str, given: Option<&Given>, scope: &Scope<'_>) -> Result<Option<EventTime>, FieldError> {
    let Some(given) = given else { return Ok(None) };
    let Some(json) = given.json(field, scope)? else { return Ok(None) };
    time_of(field, &from_json(&json)).map_err(|_| {
        FieldError::schema(field, format!("{json} {TIME_IS}; or the mapping's `format` says how it is written"))
    })
}

#[cfg(test)]
mod tests;
