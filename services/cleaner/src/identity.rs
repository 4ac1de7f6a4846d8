//! Somebody did it, and an id that stands for nobody is not somebody: a thousand customers named
//! "undefined" would become one. And when a visitor turns out to be a customer, that is told.

use rapport_events::{
    FieldError, Tenant,
    pseudonym::{PREFIX, Pseudonymiser, looks_like_email, looks_like_phone},
};
use rapport_proto::events::{Event, Observation};

use crate::properties::text_at;

/// What broken clients send in place of an id, in lower case (PostHog and Segment refuse the same).
const NOBODY: &[&str] = &[
    "null",
    "undefined",
    "none",
    "nil",
    "nan",
    "n/a",
    "true",
    "false",
    "anon",
    "anonymous",
    "guest",
    "unknown",
    "id",
    "user_id",
    "userid",
    "customer_id",
    "distinct_id",
    "distinctid",
    "email",
    "not_authenticated",
    "[object object]",
    "00000000-0000-0000-0000-000000000000",
    "{}",
    "[]",
    "\"\"",
    "''",
    "-1",
];

/// What the customer id of somebody who is not known yet begins with.
pub const ANONYMOUS_PREFIX: &str = "anon:";

/// The type of the event by which a client says that two ids are one person (Segment's alias).
const ALIAS: &str = "alias";

/// Whose event it is, and who that turned out to be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settled {
    /// The anonymous id, as it came, whose history belongs to this customer from now on.
    pub was: Option<String>,
    /// An alias that is no merge, and why.
    pub observation: Option<Observation>,
}

/// Leaves every event with a customer id. One with only an anonymous id belongs to the customer
/// `anon:<id>`, so that the two kinds of id never meet. One with both says that they are one person;
/// so does an `alias`, about its `previous_id`.
///
/// # Errors
/// `customer_id`, when nobody is left, by rule `identity:nobody`.
pub fn settle(event: &mut Event) -> Result<Settled, FieldError> {
    for (field, id) in [("customer_id", &event.customer_id), ("anonymous_id", &event.anonymous_id)] {
        if stands_for_nobody(id) {
            let reason = format!("{id:?} stands for nobody; send a real id or leave it out");
            return Err(FieldError::identity(field, reason).by_rule("identity:nobody"));
        }
    }
    if event.customer_id.is_empty() {
        if event.anonymous_id.is_empty() {
            let reason = "is empty, and so is anonymous_id; one of them is needed";
            return Err(FieldError::identity("customer_id", reason).by_rule("identity:nobody"));
        }
        event.customer_id = format!("{ANONYMOUS_PREFIX}{}", event.anonymous_id);
        return Ok(Settled::default());
    }
    if event.r#type == ALIAS
        && let Some(previous) = text_at(event, &["previous_id"])
    {
        return Ok(alias(previous));
    }
    let was = (!event.anonymous_id.is_empty()).then(|| event.anonymous_id.clone());
    Ok(Settled { was, observation: None })
}

/// Only an anonymous visitor is merged: two known customers are two people until somebody who can
/// see both says otherwise, and a merge cannot be taken back.
fn alias(previous: &str) -> Settled {
    let reason = if stands_for_nobody(previous) {
        "stands for nobody; nothing is merged"
    } else if previous.starts_with(PREFIX) || looks_like_email(previous) || looks_like_phone(previous) {
        "is a known customer's id; only anonymous visitors are merged"
    } else {
        return Settled { was: (!previous.is_empty()).then(|| previous.to_owned()), observation: None };
    };
    Settled {
        was: None,
        observation: Some(Observation {
            rule: "identity:alias".into(),
            field: "properties.previous_id".into(),
            reason: reason.into(),
        }),
    }
}

fn stands_for_nobody(id: &str) -> bool {
    NOBODY.iter().any(|nobody| nobody.eq_ignore_ascii_case(id))
}

/// A customer id as clean events carry it: see [`Pseudonymiser::customer_id`]; behind
/// [`ANONYMOUS_PREFIX`] the same rule holds.
pub fn protected(id: &str, tenant: &Tenant, keyed: &Pseudonymiser) -> String {
    match id.strip_prefix(ANONYMOUS_PREFIX) {
        Some(inner) => anonymous(inner, tenant, keyed),
        None => keyed.customer_id(tenant, id),
    }
}

/// The customer id of a visitor with this anonymous id, as clean events carry it.
pub fn anonymous(id: &str, tenant: &Tenant, keyed: &Pseudonymiser) -> String {
    format!("{ANONYMOUS_PREFIX}{}", keyed.customer_id(tenant, id))
}

#[cfg(test)]
mod tests {
    use rapport_events::json::to_struct;
    use serde_json::json;

    use super::*;

    fn settled(customer: &str, anonymous: &str) -> Result<String, String> {
        let mut event = Event { customer_id: customer.into(), anonymous_id: anonymous.into(), ..Event::default() };
        settle(&mut event).map(|_| event.customer_id).map_err(|e| e.field)
    }

    fn aliased(previous: &str) -> Settled {
        let properties = to_struct("properties", json!({"previous_id": previous})).unwrap();
        settle(&mut Event {
            r#type: "alias".into(),
            customer_id: "42".into(),
            anonymous_id: "browser".into(),
            properties: Some(properties),
            ..Event::default()
        })
        .unwrap()
    }

    #[test]
    fn an_id_that_stands_for_nobody_is_refused() {
        assert_eq!(settled("Undefined", ""), Err("customer_id".into()));
        assert_eq!(settled("", "[object Object]"), Err("anonymous_id".into()));
        assert_eq!(settled("42", "NULL"), Err("anonymous_id".into()));
        assert_eq!(settled("", ""), Err("customer_id".into()));
    }

    #[test]
    fn an_unknown_visitor_is_a_customer_of_another_kind() {
        assert_eq!(settled("", "42"), Ok("anon:42".into()));
        assert_eq!(settled("42", "x"), Ok("42".into()));
    }

    #[test]
    fn whoever_carries_both_ids_is_the_visitor_of_before() {
        let mut event = Event { customer_id: "42".into(), anonymous_id: "x".into(), ..Event::default() };
        assert_eq!(settle(&mut event).unwrap().was.as_deref(), Some("x"));
        let mut event = Event { anonymous_id: "x".into(), ..Event::default() };
        assert_eq!(settle(&mut event).unwrap().was, None);
    }

    #[test]
    fn an_alias_merges_a_visitor_but_never_nobody_and_never_a_known_customer() {
        assert_eq!(aliased("visitor-7").was.as_deref(), Some("visitor-7"));
        for previous in ["ann@example.com", "+49 151 2345678", "hk1_00112233445566778899aabbccddeeff", "null"] {
            let settled = aliased(previous);
            assert_eq!(settled.was, None, "{previous}");
            let seen = settled.observation.unwrap();
            assert_eq!((seen.rule.as_str(), seen.field.as_str()), ("identity:alias", "properties.previous_id"));
            assert!(!seen.reason.contains(previous), "an observation must not hold an id");
        }
    }
}
