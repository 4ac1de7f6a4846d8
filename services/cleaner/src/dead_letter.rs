//! A record that could not become a clean event, with the reason, and whole unless nobody agreed to
//! its being kept.

use rapport_events::{EventTime, FieldError, FieldErrorKind};
use rapport_kafka::headers;
use rapport_proto::events::{Coordinates, DeadLetter, Header, dead_letter::Kind};
use rdkafka::message::Headers;

use crate::{RawRecord, steps::Cleaned};

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// The step, as dead letters name it.
    pub stage: &'static str,
    pub error: FieldError,
    /// The version of the rule, where it has one of its own; otherwise it is the policy's.
    pub rule_version: Option<String>,
}

impl Refusal {
    pub(crate) fn at(stage: &'static str, error: FieldError) -> Self {
        Self { stage, error, rule_version: None }
    }
}

/// The record whole: replaying it gives the same record again.
pub(crate) fn letter<H: Headers>(
    record: &RawRecord<'_, H>,
    tenant: &str,
    refusal: Refusal,
    policy_version: &str,
    now: EventTime,
) -> DeadLetter {
    DeadLetter {
        original_key: record.key.map(<[u8]>::to_vec),
        original_value: record.value.unwrap_or_default().to_vec(),
        original_headers: record.headers.map(all).unwrap_or_default(),
        ..reason(record, tenant, refusal, policy_version, now)
    }
}

/// A fault of ours: the event may be as good as any, so it is kept to be replayed.
pub(crate) fn internal(stage: &'static str, fault: &str) -> Refusal {
    let reason = format!(
        "a fault of the cleaner in this step, not of the event: {fault}; report it, and replay the record after an update"
    );
    Refusal::at(stage, FieldError::new(FieldErrorKind::Internal, "event", reason).by_rule("internal"))
}

/// An event of a customer that has too many for a person, where the policy refuses those.
pub(crate) fn too_many<H: Headers>(
    record: &RawRecord<'_, H>,
    cleaned: &Cleaned,
    per_minute: u32,
    now: EventTime,
) -> DeadLetter {
    let reason = format!("the customer has more than {per_minute} events in a minute, which the policy refuses");
    let refusal = Refusal::at("bots", FieldError::policy("customer_id", reason).by_rule("bot"));
    letter(record, &cleaned.event.tenant, refusal, &cleaned.event.policy_version, now)
}

/// Only that there was a record, and which rule it met: no value, no key, no header of its own, and
/// no reason that might quote it.
pub(crate) fn withheld<H: Headers>(
    record: &RawRecord<'_, H>,
    tenant: &str,
    refusal: Refusal,
    policy_version: &str,
    now: EventTime,
) -> DeadLetter {
    let by_consent = refusal.error.rule.as_deref() == Some("consent");
    let mut letter = reason(record, tenant, refusal, policy_version, now);
    if !by_consent {
        // A field's name can be an event's own; the first step is ours.
        letter.field.truncate(letter.field.find('.').unwrap_or(letter.field.len()));
        letter.reason = "breaks this rule; the customer agreed to no purpose, so nothing of the event is kept".into();
    }
    letter.withheld = true;
    letter.original_headers = [headers::CONTENT_TYPE, headers::TENANT]
        .into_iter()
        .filter_map(|name| Some(Header { name: name.to_owned(), value: Some(record.header(name)?.into()) }))
        .collect();
    letter
}

fn reason<H: Headers>(
    record: &RawRecord<'_, H>,
    tenant: &str,
    refusal: Refusal,
    policy_version: &str,
    now: EventTime,
) -> DeadLetter {
    let Refusal { stage, error, rule_version } = refusal;
    let builtin = error.rule.is_none() || matches!(error.kind, FieldErrorKind::Identity | FieldErrorKind::Internal);
    DeadLetter {
        kind: Kind::from(error.kind).into(),
        rule: rule(&error),
        rule_version: rule_version
            .unwrap_or_else(|| (if builtin { rapport_policy::BUILTIN } else { policy_version }).to_owned()),
        field: error.field,
        reason: error.reason,
        stage: stage.to_owned(),
        processor_version: concat!("rapport-cleaner ", env!("CARGO_PKG_VERSION")).to_owned(),
        tenant: tenant.to_owned(),
        failed_at: Some(now.to_proto()),
        source: Some(Coordinates {
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
        }),
        ..DeadLetter::default()
    }
}

/// Rules that hold for every tenant are named by what they are about.
fn rule(error: &FieldError) -> String {
    match (&error.rule, error.kind) {
        (Some(rule), _) => rule.to_string(),
        (None, FieldErrorKind::Size) if error.field == "event" => "limit:event_bytes".into(),
        (None, FieldErrorKind::Size) => format!("limit:{}", error.field),
        (None, kind) => kind.as_str().into(),
    }
}

fn all<H: Headers>(headers: &H) -> Vec<Header> {
    headers.iter().map(|h| Header { name: h.key.to_owned(), value: h.value.map(<[u8]>::to_vec) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_a_rule() {
        assert_eq!(rule(&FieldError::size("event", "large")), "limit:event_bytes");
        assert_eq!(rule(&FieldError::size("item_id", "long")), "limit:item_id");
        assert_eq!(rule(&FieldError::schema("type", "odd")), "schema");
        assert_eq!(rule(&FieldError::decode("event", "no protobuf")), "decode");
        assert_eq!(rule(&FieldError::policy("type", "unplanned").by_rule("plan:unplanned")), "plan:unplanned");
    }
}
