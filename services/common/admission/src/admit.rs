//! What may pass the door: pure rules, the same for every door. Each refusal names its field and
//! its limit. The cleaner judges everything again (direct producers pass no door); here a client
//! learns at once what it did wrong.

use prost::Message as _;
use prost_types::{Struct, Timestamp, Value, value::Kind};
use rapport_events::{EventTime, EventType, FieldError, check_id, is_currency, limits, new_event_id};
use rapport_proto::{catalog::Item, events::Event};

/// An item's title.
pub const TITLE_BYTES: usize = 1024;
/// Categories of one item.
pub const ITEM_CATEGORIES: usize = 64;

/// What the rules look at, whether the event was decoded or still stands as its bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View<'a> {
    pub event_id: &'a str,
    pub kind: &'a str,
    pub customer_id: &'a str,
    pub anonymous_id: &'a str,
    pub item_id: &'a str,
    pub category: &'a str,
    pub currency: &'a str,
    pub event_time: Option<Timestamp>,
    pub sent_at: Option<Timestamp>,
    pub value: Option<f64>,
    /// Whether they nest deeper than [`limits::DEPTH`].
    pub deep_properties: bool,
    pub deep_traits: bool,
}

impl<'a> From<&'a Event> for View<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            event_id: &event.event_id,
            kind: &event.r#type,
            customer_id: &event.customer_id,
            anonymous_id: &event.anonymous_id,
            item_id: &event.item_id,
            category: &event.category,
            currency: &event.currency,
            event_time: event.event_time,
            sent_at: event.sent_at,
            value: event.value,
            deep_properties: is_deep(event.properties.as_ref()),
            deep_traits: is_deep(event.traits.as_ref()),
        }
    }
}

impl<'a> View<'a> {
    /// Who did it: the second half of the record's key.
    pub const fn who(&self) -> &'a str {
        if self.customer_id.is_empty() { self.anonymous_id } else { self.customer_id }
    }
}

/// Checks an event, gives it an id when it has none, and returns its encoded size in bytes.
///
/// # Errors
/// The first field that breaks a rule.
pub fn event(event: &mut Event) -> Result<usize, FieldError> {
    view(&View::from(&*event))?;
    if event.event_id.is_empty() {
        event.event_id = new_event_id();
    }
    encoded("event", event.encoded_len())
}

/// Checks everything about an event but its size.
///
/// # Errors
/// The first field that breaks a rule.
pub fn view(event: &View<'_>) -> Result<(), FieldError> {
    event_type(event.kind)?;
    if event.who().is_empty() {
        return Err(FieldError::identity("customer_id", "is empty, and anonymous_id too; one of them is needed"));
    }
    id("customer_id", event.customer_id, limits::ID_BYTES)?;
    id("anonymous_id", event.anonymous_id, limits::ID_BYTES)?;
    id("event_id", event.event_id, limits::EVENT_ID_BYTES)?;
    id("item_id", event.item_id, limits::ID_BYTES)?;
    id("category", event.category, limits::ID_BYTES)?;
    time("event_time", event.event_time.as_ref())?;
    time("sent_at", event.sent_at.as_ref())?;
    if let Some(value) = event.value.filter(|value| !value.is_finite()) {
        return Err(FieldError::schema("value", format!("must be a finite number, is {value}")));
    }
    if !event.currency.is_empty() && !is_currency(event.currency) {
        return Err(FieldError::schema("currency", "must be an ISO 4217 code of 3 letters, for example \"EUR\""));
    }
    for (field, deep) in [("properties", event.deep_properties), ("traits", event.deep_traits)] {
        if deep {
            return Err(FieldError::size(field, format!("nests deeper than {}", limits::DEPTH)));
        }
    }
    Ok(())
}

/// Checks an item of the catalog and returns its encoded size in bytes.
///
/// # Errors
/// The first field that breaks a rule.
pub fn item(item: &Item) -> Result<usize, FieldError> {
    item_id("item_id", &item.item_id)?;
    size("title", item.title.len(), TITLE_BYTES)?;
    if item.categories.len() > ITEM_CATEGORIES {
        let has = item.categories.len();
        return Err(FieldError::size("categories", format!("may have {ITEM_CATEGORIES} entries, has {has}")));
    }
    for (n, category) in item.categories.iter().enumerate() {
        if category.len() > limits::ID_BYTES || !is_plain(category) {
            check_id(&format!("categories[{n}]"), category, limits::ID_BYTES)?;
        }
    }
    encoded("item", item.encoded_len())
}

/// Checks the id of an item, which must not be empty.
///
/// # Errors
/// `field`, with the limit or the character.
pub fn item_id(field: &str, item_id: &str) -> Result<(), FieldError> {
    if item_id.is_empty() {
        return Err(FieldError::schema(field, "is empty"));
    }
    id(field, item_id, limits::ID_BYTES)
}

fn event_type(name: &str) -> Result<(), FieldError> {
    let normal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b':' | b'-');
    if !name.is_empty() && name.len() <= limits::TYPE_BYTES && name.bytes().all(normal) {
        return Ok(());
    }
    EventType::parse(name).map(drop)
}

fn id(field: &str, id: &str, max_bytes: usize) -> Result<(), FieldError> {
    if id.len() <= max_bytes && is_plain(id) { Ok(()) } else { check_id(field, id, max_bytes) }
}

/// Printable ASCII, which most ids are: no need to look at characters.
fn is_plain(id: &str) -> bool {
    id.bytes().all(|b| (0x20..0x7f).contains(&b))
}

fn time(field: &str, stamp: Option<&Timestamp>) -> Result<(), FieldError> {
    match stamp {
        Some(stamp) if EventTime::from_proto(stamp).is_none() => Err(FieldError::schema(
            field,
            format!(
                "must lie in the years 1 to 9999 with 0 to 999999999 nanoseconds, has {} s and {} ns",
                stamp.seconds, stamp.nanos
            ),
        )),
        _ => Ok(()),
    }
}

fn is_deep(object: Option<&Struct>) -> bool {
    object.is_some_and(|object| !object.fields.values().all(|value| is_shallow(value, 1)))
}

/// Whether a value that stands `depth` deep holds nothing below [`limits::DEPTH`].
fn is_shallow(value: &Value, depth: usize) -> bool {
    if depth > limits::DEPTH {
        return false;
    }
    match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().all(|value| is_shallow(value, depth + 1)),
        Some(Kind::StructValue(object)) => object.fields.values().all(|value| is_shallow(value, depth + 1)),
        None | Some(Kind::NullValue(_) | Kind::BoolValue(_) | Kind::NumberValue(_) | Kind::StringValue(_)) => true,
    }
}

fn size(field: &str, bytes: usize, max_bytes: usize) -> Result<(), FieldError> {
    if bytes > max_bytes {
        return Err(FieldError::size(field, format!("may have {max_bytes} bytes, has {bytes}")));
    }
    Ok(())
}

/// Checks the size of an encoded event or item.
///
/// # Errors
/// It is larger than [`limits::EVENT_BYTES`].
pub fn encoded(field: &str, bytes: usize) -> Result<usize, FieldError> {
    size(field, bytes, limits::EVENT_BYTES)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::FieldErrorKind;

    use super::*;

    fn view() -> Event {
        Event { r#type: "view".into(), customer_id: "ann".into(), item_id: "i1".into(), ..Event::default() }
    }

    fn refusal(change: impl FnOnce(&mut Event)) -> FieldError {
        let mut event = view();
        change(&mut event);
        super::event(&mut event).unwrap_err()
    }

    #[test]
    fn an_event_without_an_id_gets_one_and_one_with_an_id_keeps_it() {
        let mut new = view();
        assert_eq!(event(&mut new).unwrap(), new.encoded_len());
        assert_eq!(new.event_id.len(), 36);
        let mut old = Event { event_id: "mine".into(), ..view() };
        event(&mut old).unwrap();
        assert_eq!(old.event_id, "mine");
    }

    #[test]
    fn every_refusal_names_the_field_and_the_limit() {
        let long = || "x".repeat(129);
        let cases = [
            (refusal(|e| e.event_id = long()), "event_id: may have 128 bytes, has 129"),
            (refusal(|e| e.customer_id = long()), "customer_id: may have 128 bytes, has 129"),
            (refusal(|e| e.anonymous_id = long()), "anonymous_id: may have 128 bytes, has 129"),
            (refusal(|e| e.item_id = long()), "item_id: may have 128 bytes, has 129"),
            (refusal(|e| e.category = long()), "category: may have 128 bytes, has 129"),
            (refusal(|e| e.r#type = "x".repeat(65)), "type: may have 64 bytes, has 65"),
            (refusal(|e| e.value = Some(f64::NAN)), "value: must be a finite number, is NaN"),
            (refusal(|e| e.item_id = "a\nb".into()), "item_id: holds the control character '\\n'"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(refusal(|e| e.customer_id.clear()).kind, FieldErrorKind::Identity);
        assert_eq!(refusal(|e| e.currency = "EURO".into()).field, "currency");
        assert_eq!(refusal(|e| e.event_time = Some(Timestamp { seconds: i64::MAX, nanos: 0 })).field, "event_time");
        assert_eq!(refusal(|e| e.sent_at = Some(Timestamp { seconds: 0, nanos: -1 })).field, "sent_at");
    }

    #[test]
    fn an_event_over_its_size_or_depth_is_refused() {
        let text = |n: usize| Value { kind: Some(Kind::StringValue("x".repeat(n))) };
        let with = |value: Value| Struct { fields: [("k".to_owned(), value)].into() };
        let error = refusal(|e| e.properties = Some(with(text(limits::EVENT_BYTES))));
        assert_eq!((error.kind, error.field.as_str()), (FieldErrorKind::Size, "event"));
        let mut deep = text(1);
        for _ in 0..limits::DEPTH {
            deep = Value { kind: Some(Kind::StructValue(with(deep))) };
        }
        assert_eq!(refusal(|e| e.traits = Some(with(deep))).to_string(), "traits: nests deeper than 16");
    }

    #[test]
    fn an_item_is_checked_like_an_event() {
        let good = Item { item_id: "i1".into(), title: "T".into(), categories: vec!["c".into()], ..Item::default() };
        assert_eq!(item(&good).unwrap(), good.encoded_len());
        let field = |item: Item| super::item(&item).unwrap_err().field;
        assert_eq!(field(Item { item_id: String::new(), ..good.clone() }), "item_id");
        assert_eq!(field(Item { title: "x".repeat(2000), ..good.clone() }), "title");
        assert_eq!(field(Item { categories: vec!["ok".into(), "x".repeat(200)], ..good.clone() }), "categories[1]");
        assert_eq!(field(Item { categories: vec![String::new(); 65], ..good.clone() }), "categories");
        let attributes = [("k".to_owned(), "x".repeat(40_000))].into();
        assert_eq!(field(Item { attributes, ..good }), "item");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(mut decoded) = Event::decode(bytes.as_slice()) {
                match event(&mut decoded) {
                    Ok(size) => prop_assert!(size <= limits::EVENT_BYTES && !decoded.event_id.is_empty()),
                    Err(error) => prop_assert!(!error.field.is_empty() && !error.reason.is_empty()),
                }
            }
            if let Ok(decoded) = Item::decode(bytes.as_slice()) {
                prop_assert!(item(&decoded).map_or_else(|e| !e.field.is_empty(), |size| size <= limits::EVENT_BYTES));
            }
        }

        #[test]
        fn what_passes_reads_back_the_same_and_keeps_its_bounds(
            kind in "\\PC{0,80}", customer in "\\PC{0,60}", anonymous in "\\PC{0,60}", item_id in "\\PC{0,60}",
            seconds: i64, nanos: i32, value: Option<f64>, currency in "[A-Za-z]{0,4}",
        ) {
            let mut given = Event {
                r#type: kind, customer_id: customer, anonymous_id: anonymous, item_id,
                event_time: Some(Timestamp { seconds, nanos }), value, currency, ..Event::default()
            };
            if event(&mut given).is_ok() {
                prop_assert!(EventType::parse(&given.r#type).is_ok());
                prop_assert!(given.customer_id.len() <= 128 && given.anonymous_id.len() <= 128);
                prop_assert!(!(given.customer_id.is_empty() && given.anonymous_id.is_empty()));
                prop_assert!(given.value.is_none_or(f64::is_finite));
                prop_assert_eq!(Event::decode(given.encode_to_vec().as_slice()).unwrap(), given);
            }
        }
    }
}
