//! The limits and rules of an event, checked before anything is changed in it: first what every
//! event must keep to, then the tenant's plan for its type.

use prost_types::{Struct, Value, value::Kind};
use rapport_events::{EventTime, EventType, FieldError, check_id, json, limits};
use rapport_policy::{Breach, Mode, Plan, Unplanned, Validate};
use rapport_proto::events::{Event, Observation};
use serde_json::{Map, Value as Json};

/// An event that breaks a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub error: FieldError,
    /// The plan's version; `None` where there is no plan.
    pub plan_version: Option<String>,
}

impl From<FieldError> for Refused {
    fn from(error: FieldError) -> Self {
        Self { error, plan_version: None }
    }
}

/// Holds the event against the tenant's plan. What the plan only observes is returned.
///
/// # Errors
/// The first field that breaks a strict plan, by rule `plan:<type>`; or the type, by rule
/// `plan:unplanned`, where only planned events pass.
pub fn plan(event: &Event, kind: &EventType, rules: &Validate) -> Result<Vec<Observation>, Refused> {
    match rules.events.get(kind.as_str()) {
        Some(plan) => planned(event, kind, plan),
        None => unplanned(kind, rules),
    }
}

fn unplanned(kind: &EventType, rules: &Validate) -> Result<Vec<Observation>, Refused> {
    let reason = || format!("no plan names the type {:?}", kind.as_str());
    match rules.unplanned {
        Unplanned::Allow => Ok(Vec::new()),
        Unplanned::Observe => {
            Ok(vec![Observation { rule: "plan:unplanned".into(), field: "type".into(), reason: reason() }])
        }
        Unplanned::Refuse => Err(FieldError::policy("type", reason()).by_rule("plan:unplanned").into()),
    }
}

fn planned(event: &Event, kind: &EventType, plan: &Plan) -> Result<Vec<Observation>, Refused> {
    let breaches = plan.breaches(&instance(event, kind));
    match (plan.mode, breaches.split_first()) {
        (_, None) => Ok(Vec::new()),
        (Mode::Strict, Some((first, others))) => {
            let error = FieldError::schema(first.field.as_str(), told(first, others)).by_rule(&*plan.rule);
            Err(Refused { error, plan_version: Some(plan.version.clone()) })
        }
        (Mode::Observe, Some(_)) => Ok(breaches
            .into_iter()
            .map(|Breach { field, reason }| Observation { rule: plan.rule.to_string(), field, reason })
            .collect()),
    }
}

/// The reason of the first breach, and where the others are: a person mends all of them at once.
fn told(first: &Breach, others: &[Breach]) -> String {
    if others.is_empty() {
        return first.reason.clone();
    }
    let fields: Vec<&str> = others.iter().map(|breach| breach.field.as_str()).collect();
    format!("{}; also wrong: {}", first.reason, fields.join(", "))
}

/// The event as a plan's schema sees it: what is empty is not there, so that `required` means what
/// it says.
fn instance(event: &Event, kind: &EventType) -> Json {
    let mut object = Map::new();
    object.insert("type".into(), kind.as_str().into());
    for (name, text) in [("item_id", &event.item_id), ("category", &event.category), ("currency", &event.currency)] {
        if !text.is_empty() {
            object.insert(name.into(), text.as_str().into());
        }
    }
    if let Some(value) = event.value {
        object.insert("value".into(), value.into());
    }
    for (name, inner) in [("properties", &event.properties), ("traits", &event.traits)] {
        if let Some(inner) = inner {
            object.insert(name.into(), json::from_struct(inner));
        }
    }
    Json::Object(object)
}

/// What every event must keep to. Returns its type in the countable form.
///
/// # Errors
/// The first field that breaks a rule, and the rule.
pub fn event(event: &Event) -> Result<EventType, FieldError> {
    let kind = EventType::parse(&event.r#type)?;
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
    // Normalising tells whether it is a currency: people write it in many ways.
    check_id("currency", &event.currency, limits::ID_BYTES)?;
    for (field, object) in [("properties", &event.properties), ("traits", &event.traits)] {
        if let Some(object) = object {
            depth(field, object, 1)?;
        }
    }
    Ok(kind)
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
        event(&e).map_or_else(|e| e.field, |_| "nothing".into())
    }

    #[test]
    fn each_rule_names_its_field() {
        assert_eq!(refused(|_| ()), "nothing");
        assert_eq!(refused(|e| e.r#type = "a/b".into()), "type");
        assert_eq!(refused(|e| e.item_id = "x".repeat(129)), "item_id");
        assert_eq!(refused(|e| e.category = "a\u{0}b".into()), "category");
        assert_eq!(refused(|e| e.value = Some(f64::NAN)), "value");
        assert_eq!(refused(|e| e.currency = "x".repeat(129)), "currency");
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

    /// A plan for purchases, and what `purchase` gives under it.
    fn under_plan(settings: &str, purchase: Json) -> Result<Vec<Observation>, Refused> {
        let text = format!(
            "version: 1\nvalidate: {{{settings} events: {{purchase: {{version: 2, schema: {{required: [value], properties: \
             {{properties: {{properties: {{price: {{type: number}}}}, required: [order_id]}}}}}}}}}}}}\n"
        );
        let policy = rapport_policy::Policy::from_yaml("acme", &text).unwrap();
        let properties = Some(json::to_struct("properties", purchase).unwrap());
        let event = Event { r#type: "Purchase".into(), value: Some(1.0), properties, ..Event::default() };
        plan(&event, &EventType::parse(&event.r#type).unwrap(), &policy.validate)
    }

    #[test]
    fn a_strict_plan_refuses_and_names_field_rule_and_version() {
        assert_eq!(under_plan("", serde_json::json!({"price": 1, "order_id": "7"})), Ok(vec![]));
        let refused = under_plan("", serde_json::json!({"price": "ann@example.com", "order_id": "7"})).unwrap_err();
        assert_eq!(refused.error.field, "properties.price");
        assert_eq!(
            (refused.error.rule.as_deref(), refused.plan_version.as_deref()),
            (Some("plan:purchase"), Some("2"))
        );
        assert!(refused.error.reason.contains("number") && !refused.error.reason.contains("ann@"), "{refused:?}");
        let both = under_plan("", serde_json::json!({"price": "free"})).unwrap_err().error;
        assert!(both.reason.contains("also wrong: properties."), "{both}");
    }

    #[test]
    fn a_plan_that_observes_lets_everything_pass_and_says_what_it_saw() {
        let seen = under_plan("mode: observe,", serde_json::json!({"price": "free"})).unwrap();
        let mut fields: Vec<&str> = seen.iter().map(|o| o.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["properties.order_id", "properties.price"]);
        assert!(seen.iter().all(|o| o.rule == "plan:purchase"));
    }

    #[test]
    fn events_without_a_plan_pass_unless_the_policy_says_otherwise() {
        let unplanned = |how: &str| {
            let text = format!("version: 1\nvalidate: {{unplanned: {how}}}\n");
            let policy = rapport_policy::Policy::from_yaml("acme", &text).unwrap();
            plan(&Event::default(), &EventType::parse("view").unwrap(), &policy.validate)
        };
        assert_eq!(unplanned("allow"), Ok(vec![]));
        assert_eq!(unplanned("observe").unwrap()[0].rule, "plan:unplanned");
        assert_eq!(unplanned("refuse").unwrap_err().error.field, "type");
    }
}
