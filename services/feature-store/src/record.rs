//! A record of the clean topic, decoded.

use opentelemetry::{Context, trace::TraceContextExt as _};
use prost::Message as _;
use rapport_events::{CleanEvent, EventTime, FieldError, LoggedEvent, Position};
use rapport_kafka::{headers, trace};
use rapport_proto::events::{self as proto, Coordinates, DeadLetter, Header, dead_letter::Kind};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A clean event that is on its way through the store.
pub(crate) struct Incoming {
    pub logged: LoggedEvent,
    /// The trace that the event belongs to, if its producer began one.
    pub context: Option<Context>,
    /// Lasts until the event can be read from Redis; only for traces that are recorded.
    pub span: Option<Span>,
}

/// What a record turned out to be.
pub(crate) enum Decoded {
    Event(Box<Incoming>),
    /// No clean event. The cleaner writes none such, so somebody else did.
    Undecodable {
        position: Position,
        key: Option<Vec<u8>>,
        letter: Box<DeadLetter>,
    },
}

pub(crate) fn decode(message: &BorrowedMessage<'_>, now: EventTime) -> Decoded {
    let position = Position { partition: message.partition(), offset: message.offset() };
    match clean_event(message.payload()) {
        Ok(event) => {
            let context = message.headers().filter(|h| headers::get(*h, headers::TRACEPARENT).is_some());
            let context = context.map(trace::context_of);
            let span = context.as_ref().filter(|c| c.span().span_context().is_sampled()).map(|context| {
                let span = tracing::info_span!(
                    "feature_store apply",
                    event_id = %event.event_id,
                    "messaging.kafka.partition" = position.partition,
                    "messaging.kafka.offset" = position.offset,
                );
                if let Err(error) = span.set_parent(context.clone()) {
                    tracing::debug!(%error, "span without its parent");
                }
                span
            });
            let logged = LoggedEvent { position, event };
            Decoded::Event(Box::new(Incoming { logged, context, span }))
        }
        Err(error) => {
            let letter = letter(message, position, error, now);
            Decoded::Undecodable { position, key: message.key().map(<[u8]>::to_vec), letter: Box::new(letter) }
        }
    }
}

fn clean_event(payload: Option<&[u8]>) -> Result<CleanEvent, FieldError> {
    let payload = payload.ok_or_else(|| FieldError::decode("value", "is missing"))?;
    let clean = proto::CleanEvent::decode(payload)
        .map_err(|e| FieldError::decode("value", format!("is no rapport.events.v1.CleanEvent: {e}")))?;
    CleanEvent::try_from(clean)
}

/// What stands on the dead topic for a record that cannot be read.
pub(crate) fn letter(
    message: &BorrowedMessage<'_>,
    position: Position,
    error: FieldError,
    now: EventTime,
) -> DeadLetter {
    let header =
        |h: rdkafka::message::Header<'_, &[u8]>| Header { name: h.key.to_owned(), value: h.value.map(<[u8]>::to_vec) };
    let tenant = message.headers().and_then(|h| headers::get_str(h, headers::TENANT)).unwrap_or_default();
    DeadLetter {
        kind: Kind::Decode.into(),
        field: error.field,
        reason: error.reason,
        stage: "feature-store".into(),
        processor_version: concat!("rapport-feature-store ", env!("CARGO_PKG_VERSION")).into(),
        tenant: tenant.to_owned(),
        failed_at: Some(now.to_proto()),
        source: Some(Coordinates {
            topic: message.topic().to_owned(),
            partition: position.partition,
            offset: position.offset,
        }),
        original_key: message.key().map(<[u8]>::to_vec),
        original_value: message.payload().unwrap_or_default().to_vec(),
        original_headers: message.headers().map(|h| h.iter().map(header).collect()).unwrap_or_default(),
        ..DeadLetter::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_cleaner_wrote_is_an_event() {
        let stamp = EventTime::from_ms(1_000).to_proto();
        let event = proto::Event {
            event_id: "e1".into(),
            r#type: "view".into(),
            customer_id: "ann".into(),
            event_time: Some(stamp),
            ..Default::default()
        };
        let clean = proto::CleanEvent {
            event: Some(event),
            tenant: "demo".into(),
            received_at: Some(stamp),
            ..Default::default()
        };
        let event = clean_event(Some(&clean.encode_to_vec())).unwrap();
        assert_eq!((event.customer_id.as_str(), event.time.as_ms()), ("ann", 1_000));
        let error = clean_event(None).unwrap_err();
        assert_eq!(error.to_string(), "value: is missing");
    }

    proptest! {
        #[test]
        fn no_bytes_stop_the_stream(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = clean_event(Some(&bytes)) {
                prop_assert!(!error.reason.is_empty());
            }
        }
    }
}
