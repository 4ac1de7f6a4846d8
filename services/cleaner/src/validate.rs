//! The limits and rules of an event, checked before anything is changed in it.

use prost_types::{Struct, Value, value::Kind};
use rapport_events::{EventTime, EventType, FieldError, check_id, limits};
use rapport_proto::events::Event;

/// # Errors
/// The first field that breaks a rule, and the rule.
pub fn event(event: &Event) -> Result<(), FieldError> {
    EventType::parse(&event.r#type)?;
    check_id("event_id", &event.event_id, limits::EVENT_ID_BYTES)?;
    for (field, id) in [
        ("customer_id", &event.customer_id),
        ("anonymous_id", &event.anonymous_id),
        ("item_id", &event.item_id),
        ("category", &event.category),
    ] {
        check_id(field, id, limits::ID_BYTES)?;
    }
    for (field, stamp) in [("event_time", &event.event_time), ("sent_at", &event.sent_at)] {
        if let Some(stamp) = stamp
            && EventTime::from_proto(stamp).is_none()
        {
            return Err(FieldError::schema(
                field,
                format!("{} s and {} ns is no time between the years 1 and 9999", stamp.seconds, stamp.nanos),
            ));
        }
    }
    if let Some(value) = event.value
        && !value.is_finite()
    {
        return Err(FieldError::schema("value", format!("must be a finite number, is {value}")));
    }
    let currency = event.currency.trim();
    let iso_4217 = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_alphabetic());
    if !(currency.is_empty() || iso_4217) {
        return Err(FieldError::schema("currency", format!("must be an ISO 4217 code like EUR, is {currency:?}")));
    }
    for (field, object) in [("properties", &event.properties), ("traits", &event.traits)] {
        if let Some(object) = object {
            depth(field, object, 1)?;
        }
    }
    Ok(())
}

fn depth(field: &str, object: &Struct, level: usize) -> Result<(), FieldError> {
    object.fields.values().try_for_each(|value| value_depth(field, value, level))
}

fn value_depth(field: &str, value: &Value, level: usize) -> Result<(), FieldError> {
    if level > limits::DEPTH {
        return Err(FieldError::size(field, format!("nests deeper than {}", limits::DEPTH)));
    }
    match &value.kind {
        Some(Kind::StructValue(object)) => depth(field, object, level + 1),
        Some(Kind::ListValue(list)) => list.values.iter().try_for_each(|v| value_depth(field, v, level + 1)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Event)) -> String {
        let mut e = Event { event_id: "1".into(), r#type: "view".into(), customer_id: "7".into(), ..Event::default() };
        change(&mut e);
        event(&e).map_or_else(|e| e.field, |()| "nothing".into())
    }

    #[test]
    fn each_rule_names_its_field() {
        assert_eq!(refused(|_| ()), "nothing");
        assert_eq!(refused(|e| e.r#type = "a/b".into()), "type");
        assert_eq!(refused(|e| e.item_id = "x".repeat(129)), "item_id");
        assert_eq!(refused(|e| e.category = "a\u{0}b".into()), "category");
        assert_eq!(refused(|e| e.value = Some(f64::NAN)), "value");
        assert_eq!(refused(|e| e.currency = "EURO".into()), "currency");
        assert_eq!(refused(|e| e.sent_at = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })), "sent_at");
    }

    #[test]
    fn deep_properties_are_refused_without_deep_recursion() {
        let mut value = Value { kind: Some(Kind::NullValue(0)) };
        for _ in 0..40 {
            value = Value { kind: Some(Kind::ListValue(prost_types::ListValue { values: vec![value] })) };
        }
        let properties = Struct { fields: [("x".to_owned(), value)].into() };
        assert_eq!(refused(|e| e.properties = Some(properties)), "properties");
    }
}
