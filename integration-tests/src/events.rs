//! Events as clients send them.

use rapport_events::EventTime;
use rapport_proto::events::Event;

/// The content type of a bare producer's protobuf.
pub const PROTOBUF: &str = "application/x-protobuf; message=rapport.events.v1.Event";

/// One interaction, valid as it is.
pub fn interaction(event_id: &str, kind: &str, customer: &str, item: &str, at_ms: i64) -> Event {
    Event {
        event_id: event_id.to_owned(),
        r#type: kind.to_owned(),
        customer_id: customer.to_owned(),
        item_id: item.to_owned(),
        event_time: Some(EventTime::from_ms(at_ms).to_proto()),
        ..Event::default()
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub fn now_ms() -> i64 {
    EventTime::now().as_ms()
}

/// The key of a customer's events on the raw topic.
pub fn key(tenant: &str, customer: &str) -> String {
    format!("{tenant}/{customer}")
}

/// A W3C trace context of our own making, sampled: the header and its trace id.
pub fn traceparent() -> (String, String) {
    let trace_id = uuid::Uuid::new_v4().simple().to_string();
    let span_id = &uuid::Uuid::new_v4().simple().to_string()[..16];
    (format!("00-{trace_id}-{span_id}-01"), trace_id)
}
