//! Gorse's shapes in JSON, and what they are in Rapport: pure, both ways.

use std::collections::HashMap;

use prost_types::{Struct, Value, value::Kind};
use rapport_events::{EventTime, EventType, FieldError, json::to_struct, new_event_id};
use rapport_proto::{catalog::Item, events::Event};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::catalog::Entry;

/// Where a catalog item keeps what Gorse knows of it beside title, categories and availability.
const LABELS: &str = "labels";
const TIMESTAMP: &str = "timestamp";
/// What Go writes for a time that was never set.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A user did something with an item.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Feedback {
    pub feedback_type: String,
    pub user_id: String,
    pub item_id: String,
    pub timestamp: Option<String>,
    pub value: Option<f64>,
    pub comment: Option<String>,
}

/// What a second feedback of one type, user and item means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// Nothing: POST keeps the first.
    Ignored,
    /// Another one, if its time or value is another: PUT.
    Counts,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct User {
    pub user_id: String,
    pub labels: Json,
    pub subscribe: Option<Vec<String>>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NewItem {
    pub item_id: String,
    pub is_hidden: bool,
    pub categories: Option<Vec<String>>,
    pub timestamp: Option<String>,
    pub labels: Json,
    pub comment: Option<String>,
}

/// Changes of an item: what is not there, or null, stays as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ItemPatch {
    pub is_hidden: Option<bool>,
    pub categories: Option<Vec<String>>,
    pub timestamp: Option<String>,
    pub labels: Json,
    pub comment: Option<String>,
}

/// An item and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Score {
    pub id: String,
    pub score: f64,
}

/// Reads a body.
///
/// # Errors
/// It is not the JSON that is wanted here.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, FieldError> {
    serde_json::from_slice(body).map_err(|error| FieldError::decode("body", error))
}

/// A time as Gorse's clients write it: RFC 3339, or without zone (UTC), or a day alone. `None` for none.
///
/// # Errors
/// It is none of these.
pub fn time(text: Option<&str>) -> Result<Option<EventTime>, FieldError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty() && *text != NO_TIME) else { return Ok(None) };
    let whole = text.replacen(' ', "T", 1);
    let forms = [whole.clone(), format!("{whole}Z"), format!("{whole}T00:00:00Z")];
    let found = forms.iter().find_map(|form| EventTime::parse_rfc3339(form));
    let shown = || text.chars().take(40).collect::<String>();
    found.map(Some).ok_or_else(|| {
        FieldError::schema("Timestamp", format!("must be a time like 2027-01-31T12:00:00Z, is {:?}", shown()))
    })
}

impl Feedback {
    /// The event that says the same. Its id is made of what Gorse knows a feedback by, so that sending it
    /// again counts once.
    ///
    /// # Errors
    /// A field is wrong.
    pub fn event(self, second: Second) -> Result<Event, FieldError> {
        let kind = EventType::parse(&self.feedback_type)?;
        if self.item_id.is_empty() {
            return Err(FieldError::schema("ItemId", "is empty"));
        }
        let event_time = time(self.timestamp.as_deref())?.map(EventTime::to_proto);
        // Gorse's clients send 0 where nothing was measured.
        let value = self.value.filter(|value| *value != 0.0);
        let mut parts: Vec<&[u8]> = vec![kind.as_str().as_bytes(), self.user_id.as_bytes(), self.item_id.as_bytes()];
        let (when, how_much) = (self.timestamp.as_deref().unwrap_or_default(), value.unwrap_or_default().to_le_bytes());
        if second == Second::Counts {
            parts.extend([when.as_bytes(), &how_much]);
        }
        let event_id = id_of(&parts);
        let comment = self.comment.filter(|comment| !comment.is_empty());
        Ok(Event {
            event_id,
            r#type: kind.into_string(),
            customer_id: self.user_id,
            item_id: self.item_id,
            event_time,
            value,
            properties: comment.map(|comment| one_field("comment", comment)),
            ..Event::default()
        })
    }
}

/// The same parts give the same id.
fn id_of(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    format!("gorse-{}", hex::encode(digest.get(..16).unwrap_or_default()))
}

fn one_field(name: &str, text: String) -> Struct {
    Struct { fields: [(name.to_owned(), Value { kind: Some(Kind::StringValue(text)) })].into() }
}

impl User {
    /// The event that tells what is known of a customer. Each has an id of its own: what was said before and
    /// holds again must not be lost.
    ///
    /// # Errors
    /// The labels nest too deep.
    pub fn event(self) -> Result<Event, FieldError> {
        let mut traits = serde_json::Map::new();
        if !self.labels.is_null() {
            traits.insert("labels".into(), self.labels);
        }
        if let Some(subscribe) = self.subscribe.filter(|subscribe| !subscribe.is_empty()) {
            traits.insert("subscribe".into(), json!(subscribe));
        }
        if let Some(comment) = self.comment.filter(|comment| !comment.is_empty()) {
            traits.insert("comment".into(), Json::String(comment));
        }
        let traits = (!traits.is_empty()).then(|| to_struct("Labels", Json::Object(traits))).transpose()?;
        Ok(Event {
            event_id: new_event_id(),
            r#type: "identify".into(),
            customer_id: self.user_id,
            traits,
            ..Event::default()
        })
    }
}

impl NewItem {
    /// # Errors
    /// The time is none.
    pub fn item(self, tenant: &str) -> Result<Item, FieldError> {
        let bare = Item { item_id: self.item_id, tenant: tenant.to_owned(), available: true, ..Item::default() };
        let all = ItemPatch {
            is_hidden: Some(self.is_hidden),
            categories: self.categories,
            timestamp: self.timestamp,
            labels: self.labels,
            comment: self.comment,
        };
        all.on(bare)
    }
}

impl ItemPatch {
    /// # Errors
    /// The time is none.
    pub fn on(self, mut item: Item) -> Result<Item, FieldError> {
        if let Some(hidden) = self.is_hidden {
            item.available = !hidden;
        }
        if let Some(categories) = self.categories {
            item.categories = categories;
        }
        if let Some(time) = time(self.timestamp.as_deref())? {
            item.attributes.insert(TIMESTAMP.into(), time.to_string());
        }
        match self.labels {
            Json::Null => {}
            labels => {
                item.attributes.insert(LABELS.into(), labels.to_string());
            }
        }
        if let Some(comment) = self.comment {
            item.title = comment;
        }
        Ok(item)
    }
}

/// The record that an entry came from.
pub fn item_of(tenant: &str, item_id: &str, entry: Entry) -> Item {
    Item {
        item_id: item_id.to_owned(),
        tenant: tenant.to_owned(),
        title: entry.title,
        categories: entry.categories,
        available: entry.available,
        attributes: entry.attributes.map(|attributes| *attributes).unwrap_or_default(),
    }
}

/// An entry of the catalog as Gorse shows items.
pub fn shown(item_id: &str, entry: &Entry) -> Json {
    let said =
        |name: &str| entry.attributes.as_deref().and_then(|attributes: &HashMap<String, String>| attributes.get(name));
    let labels = said(LABELS).map_or(Json::Null, |text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
    json!({
        "ItemId": item_id,
        "IsHidden": !entry.available,
        "Categories": entry.categories,
        "Timestamp": said(TIMESTAMP).map_or(NO_TIME, String::as_str),
        "Labels": labels,
        "Comment": entry.title,
    })
}

/// When an item appeared, in seconds since 1970, where its record says so.
pub fn appeared(entry: &Entry) -> Option<i64> {
    let text = entry.attributes.as_deref()?.get(TIMESTAMP)?;
    Some(EventTime::parse_rfc3339(text)?.as_ms().div_euclid(1000))
}

/// Names a field as Gorse's clients know it, and where in the call it stands.
pub fn in_gorses_words(place: usize, error: FieldError) -> FieldError {
    let field = match error.field.as_str() {
        "type" => "FeedbackType",
        "customer_id" => "UserId",
        "item_id" => "ItemId",
        "event_time" => "Timestamp",
        "value" => "Value",
        "title" => "Comment",
        other => other,
    };
    FieldError { field: format!("[{place}].{field}"), ..error }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feedback(timestamp: &str, value: f64) -> Feedback {
        Feedback {
            feedback_type: "Read".into(),
            user_id: "ann".into(),
            item_id: "i1".into(),
            timestamp: Some(timestamp.into()),
            value: Some(value),
            comment: None,
        }
    }

    #[test]
    fn a_repeated_feedback_is_the_same_event_and_one_that_is_put_anew_is_another() {
        let id = |feedback: Feedback, second| feedback.event(second).unwrap().event_id;
        let (first, later) = (feedback("2027-01-01T00:00:00Z", 0.0), feedback("2027-01-02T00:00:00Z", 4.0));
        assert_eq!(id(first.clone(), Second::Ignored), id(later.clone(), Second::Ignored), "POST keeps the first");
        assert_ne!(id(first.clone(), Second::Counts), id(later.clone(), Second::Counts));
        assert_eq!(id(later.clone(), Second::Counts), id(later, Second::Counts), "sent again it is the same");
        let other = Feedback { item_id: "ni1".into(), user_id: "an".into(), ..first.clone() };
        assert_ne!(id(first, Second::Ignored), id(other, Second::Ignored));
    }

    #[test]
    fn a_feedback_becomes_an_event_and_a_value_of_nought_is_none() {
        let event = feedback("2027-01-01 10:00:00", 0.0).event(Second::Ignored).unwrap();
        assert_eq!((event.r#type.as_str(), event.customer_id.as_str(), event.item_id.as_str()), ("read", "ann", "i1"));
        assert_eq!(event.value, None);
        assert_eq!(EventTime::from_proto(&event.event_time.unwrap()).unwrap().to_string(), "2027-01-01T10:00:00Z");
        assert_eq!(feedback("", 4.0).event(Second::Ignored).unwrap().value, Some(4.0));
        let error = feedback("yesterday", 0.0).event(Second::Ignored).unwrap_err().to_string();
        assert_eq!(error, "Timestamp: must be a time like 2027-01-31T12:00:00Z, is \"yesterday\"");
    }

    #[test]
    fn times_are_read_in_the_forms_that_clients_write() {
        let at = |text| time(Some(text)).unwrap().map(|time| time.to_string());
        assert_eq!(at("2027-01-02"), Some("2027-01-02T00:00:00Z".into()));
        assert_eq!(at("2027-01-02T03:04:05"), Some("2027-01-02T03:04:05Z".into()));
        assert_eq!(at("2027-01-02T03:04:05+02:00"), Some("2027-01-02T01:04:05Z".into()));
        assert_eq!((at(""), at(NO_TIME)), (None, None));
    }

    #[test]
    fn an_item_reads_back_as_it_was_written_and_a_patch_changes_only_what_it_names() {
        let new: NewItem = read(
            br#"{"ItemId": "i1", "Categories": ["a"], "Timestamp": "2027-01-02", "Labels": {"tags": ["x"]}, "Comment": "One"}"#,
        )
        .unwrap();
        let item = new.item("acme").unwrap();
        let entry = |item: &Item| Entry {
            title: item.title.clone(),
            categories: item.categories.clone(),
            available: item.available,
            attributes: Some(Box::new(item.attributes.clone())),
            ..Entry::default()
        };
        let expected = json!({
            "ItemId": "i1", "IsHidden": false, "Categories": ["a"], "Timestamp": "2027-01-02T00:00:00Z",
            "Labels": {"tags": ["x"]}, "Comment": "One",
        });
        assert_eq!(shown("i1", &entry(&item)), expected);
        let patch: ItemPatch = read(br#"{"IsHidden": true, "Categories": null, "Labels": null}"#).unwrap();
        let patched = patch.on(item_of("acme", "i1", entry(&item))).unwrap();
        assert_eq!(patched, Item { available: false, ..item });
    }

    #[test]
    fn a_user_is_told_by_traits() {
        let user: User = read(br#"{"UserId": "ann", "Labels": {"age": 30}, "Comment": "c"}"#).unwrap();
        let event = user.event().unwrap();
        assert_eq!((event.r#type.as_str(), event.customer_id.as_str()), ("identify", "ann"));
        let traits = rapport_events::json::from_struct(&event.traits.unwrap());
        assert_eq!(traits, json!({"labels": {"age": 30.0}, "comment": "c"}));
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes: Vec<u8>, text in "\\PC{0,60}") {
            if let Ok(all) = read::<Vec<Feedback>>(&bytes) {
                prop_assert!(all.len() <= bytes.len());
            }
            prop_assert!(time(Some(&text)).is_ok() || !text.is_empty());
        }
    }
}
