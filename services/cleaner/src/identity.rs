//! Somebody did it, and an id that stands for nobody is not somebody: a thousand customers named
//! "undefined" would become one.

use rapport_events::FieldError;
use rapport_proto::events::Event;

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

/// Leaves every event with a customer id. One with only an anonymous id belongs to the customer
/// `anon:<id>`, so that the two kinds of id never meet.
///
/// # Errors
/// `customer_id`, when nobody is left.
pub fn settle(event: &mut Event) -> Result<(), FieldError> {
    for (field, id) in [("customer_id", &event.customer_id), ("anonymous_id", &event.anonymous_id)] {
        if NOBODY.contains(&id.to_lowercase().as_str()) {
            return Err(FieldError::identity(
                field,
                format!("{id:?} stands for nobody; send a real id or leave it out"),
            ));
        }
    }
    if !event.customer_id.is_empty() {
        return Ok(());
    }
    if event.anonymous_id.is_empty() {
        return Err(FieldError::identity("customer_id", "is empty, and so is anonymous_id; one of them is needed"));
    }
    event.customer_id = format!("{ANONYMOUS_PREFIX}{}", event.anonymous_id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(customer: &str, anonymous: &str) -> Result<String, String> {
        let mut event = Event { customer_id: customer.into(), anonymous_id: anonymous.into(), ..Event::default() };
        settle(&mut event).map(|()| event.customer_id).map_err(|e| e.field)
    }

    #[test]
    fn an_id_that_stands_for_nobody_is_refused() {
        assert_eq!(settled("Undefined", ""), Err("customer_id".into()));
        assert_eq!(settled("", "[object Object]"), Err("anonymous_id".into()));
        assert_eq!(settled("", ""), Err("customer_id".into()));
    }

    #[test]
    fn an_unknown_visitor_is_a_customer_of_another_kind() {
        assert_eq!(settled("", "42"), Ok("anon:42".into()));
        assert_eq!(settled("42", "x"), Ok("42".into()));
    }
}
