//! The pure part of the cleaner, in the order that a record takes it.

use std::time::Duration;

use rapport_events::{EventTime, FieldError, Tenant, pseudonym::Pseudonymiser};
use rapport_proto::events::{CleanEvent, Coordinates, DeadLetter, IdentityMerge};
use rdkafka::message::Headers;

use crate::{RawRecord, clock, dead_letter, decode, identity, normalise, privacy, validate};

/// The rules that clean events carry in `policy_version`. Grows when a rule changes.
pub const POLICY_VERSION: &str = "builtin-1";

#[derive(Debug, Clone)]
pub struct Settings {
    /// Of records that name no tenant.
    pub default_tenant: Tenant,
    pub pseudonymiser: Pseudonymiser,
}

/// What becomes of a record, before it is known whether it was seen before.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Clean(Box<Cleaned>),
    Dead(Box<DeadLetter>),
}

/// A clean event, and what the stateful steps that follow (duplicates, sessions, rates) must know.
#[derive(Debug, Clone, PartialEq)]
pub struct Cleaned {
    pub event: CleanEvent,
    /// The anonymous visitor that this customer turned out to be.
    pub merge: Option<IdentityMerge>,
    pub session: SessionRule,
    /// How many events of one customer are still a person's. `None`: nobody counts.
    pub bot_rate: Option<rapport_policy::Rate>,
}

/// How the event's visit is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionRule {
    /// The pause in event time that ends a visit. `None`: visits are not told apart.
    pub inactivity: Option<Duration>,
    /// Whether `session_id` is the client's own already: then it stays.
    pub client_session: bool,
}

/// The name of a step and why it refused: what a dead letter says.
pub(crate) type Refusal = (&'static str, FieldError);

#[derive(Debug, Clone)]
pub struct Steps {
    settings: Settings,
}

impl Steps {
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Never fails and never panics: what cannot be cleaned becomes a dead letter.
    pub fn judge<H: Headers>(&self, record: &RawRecord<'_, H>, now: EventTime) -> Verdict {
        match self.clean(record, now) {
            Ok(event) => Verdict::Clean(Box::new(event)),
            Err((stage, error)) => {
                let tenant = self.tenant(record).unwrap_or_else(|_| self.settings.default_tenant.clone());
                Verdict::Dead(Box::new(dead_letter::letter(record, &tenant, stage, error, now)))
            }
        }
    }

    fn clean<H: Headers>(&self, record: &RawRecord<'_, H>, now: EventTime) -> Result<Cleaned, Refusal> {
        let at = |stage: &'static str| move |error: FieldError| (stage, error);
        let tenant = self.tenant(record).map_err(at("tenant"))?;
        let received_at = record.received_at(now);
        let mut event = decode::event(record).map_err(at("decode"))?;
        if event.event_id.is_empty() {
            // A plain producer need not make ids: where the record stands is one, and a replay of
            // the record has the same.
            event.event_id = format!("{}-{}", record.partition, record.offset);
        }
        validate::event(&event).map_err(at("validate"))?;
        normalise::event(&mut event).map_err(at("normalise"))?;
        clock::settle(&mut event, received_at);
        identity::settle(&mut event).map_err(at("identity"))?;
        privacy::pseudonymise(&mut event, &tenant, &self.settings.pseudonymiser);
        let event = CleanEvent {
            event: Some(event),
            tenant: tenant.as_str().to_owned(),
            received_at: Some(received_at.to_proto()),
            source: Some(Coordinates {
                topic: record.topic.to_owned(),
                partition: record.partition,
                offset: record.offset,
            }),
            policy_version: POLICY_VERSION.to_owned(),
            ..CleanEvent::default()
        };
        Ok(Cleaned { event, merge: None, session: SessionRule::default(), bot_rate: None })
    }

    fn tenant<H: Headers>(&self, record: &RawRecord<'_, H>) -> Result<Tenant, FieldError> {
        match record.header(rapport_kafka::headers::TENANT) {
            Some(name) => Tenant::parse(name),
            None => Ok(self.settings.default_tenant.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use rapport_kafka::headers;
    use rapport_proto::events::{Event, dead_letter::Kind};
    use rdkafka::message::OwnedHeaders;

    use super::*;

    const NOW: EventTime = EventTime::from_ms(1_800_000_000_000);

    fn steps() -> Steps {
        Steps::new(Settings {
            default_tenant: Tenant::parse("demo").unwrap(),
            pseudonymiser: Pseudonymiser::new(&[7; 32]).unwrap(),
        })
    }

    fn record<'a>(value: &'a [u8], headers: &'a OwnedHeaders) -> RawRecord<'a, OwnedHeaders> {
        RawRecord {
            topic: "raw",
            partition: 3,
            offset: 42,
            timestamp: Some(NOW),
            key: Some(b"k"),
            value: Some(value),
            headers: Some(headers),
        }
    }

    #[test]
    fn a_plain_producers_event_comes_out_complete() {
        let event = Event {
            r#type: " Rating ".into(),
            customer_id: "7".into(),
            item_id: "50".into(),
            value: Some(5.0),
            ..Event::default()
        };
        let none = OwnedHeaders::new();
        let Verdict::Clean(clean) = steps().judge(&record(&event.encode_to_vec(), &none), NOW) else { panic!("dead") };
        let clean = clean.event;
        let event = clean.event.clone().unwrap();
        assert_eq!((clean.tenant.as_str(), event.r#type.as_str(), event.event_id.as_str()), ("demo", "rating", "3-42"));
        assert_eq!(event.event_time, Some(NOW.to_proto()));
        assert!(rapport_events::CleanEvent::try_from(clean).is_ok(), "readers can parse what the cleaner writes");
    }

    #[test]
    fn a_broken_payload_is_kept_whole_with_its_reason() {
        let some = headers::with(OwnedHeaders::new(), "x-note", "mine");
        let Verdict::Dead(letter) = steps().judge(&record(b"\xff\xff\xffnot protobuf", &some), NOW) else {
            panic!("clean")
        };
        assert_eq!(letter.kind(), Kind::Decode);
        assert_eq!(letter.original_value, b"\xff\xff\xffnot protobuf");
        assert_eq!(letter.original_key.as_deref(), Some(&b"k"[..]));
        assert_eq!(letter.original_headers[0].name, "x-note");
        assert!(!letter.reason.is_empty());
    }

    #[test]
    fn a_tenant_nobody_can_have_is_a_dead_letter_of_the_default_tenant() {
        let bad = headers::with(OwnedHeaders::new(), headers::TENANT, "../etc");
        let Verdict::Dead(letter) = steps().judge(&record(b"", &bad), NOW) else { panic!("clean") };
        assert_eq!(
            (letter.stage.as_str(), letter.field.as_str(), letter.tenant.as_str()),
            ("tenant", "tenant", "demo")
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_in_there_is_a_verdict(
            value in proptest::collection::vec(any::<u8>(), 0..400),
            content_type in proptest::option::of("(application/(x-protobuf|json|cloudevents\\+json)|.{0,20})"),
            ce in proptest::option::of(".{0,30}"),
        ) {
            let mut all = OwnedHeaders::new();
            if let Some(text) = &content_type { all = headers::with(all, headers::CONTENT_TYPE, text); }
            if let Some(text) = &ce { all = headers::with(all, "ce_specversion", text); all = headers::with(all, "ce_id", text); }
            match steps().judge(&record(&value, &all), NOW) {
                Verdict::Clean(clean) => prop_assert!(rapport_events::CleanEvent::try_from(clean.event).is_ok()),
                Verdict::Dead(letter) => prop_assert_eq!(letter.original_value, value),
            }
        }

        #[test]
        fn every_well_formed_event_becomes_clean_or_names_its_field(
            id in ".{0,140}", kind in "[a-zA-Z _.-]{0,70}", customer in ".{0,140}", item in ".{0,140}",
            value in proptest::option::of(any::<f64>()), seconds: i64, nanos: i32,
        ) {
            let event = Event {
                event_id: id, r#type: kind, customer_id: customer, item_id: item, value,
                event_time: Some(prost_types::Timestamp { seconds, nanos }), ..Event::default()
            };
            let none = OwnedHeaders::new();
            match steps().judge(&record(&event.encode_to_vec(), &none), NOW) {
                Verdict::Clean(clean) => prop_assert!(rapport_events::CleanEvent::try_from(clean.event).is_ok()),
                Verdict::Dead(letter) => prop_assert!(!letter.field.is_empty() && !letter.reason.is_empty()),
            }
        }
    }
}
