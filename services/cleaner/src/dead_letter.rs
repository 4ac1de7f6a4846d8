//! A record that could not become a clean event, whole and with the reason.

use rapport_events::{EventTime, FieldError, Tenant};
use rapport_proto::events::{Coordinates, DeadLetter, Header, dead_letter::Kind};
use rdkafka::message::Headers;

use crate::RawRecord;

pub(crate) fn letter<H: Headers>(
    record: &RawRecord<'_, H>,
    tenant: &Tenant,
    stage: &str,
    error: FieldError,
    now: EventTime,
) -> DeadLetter {
    DeadLetter {
        kind: Kind::from(error.kind).into(),
        rule: error.rule.map(String::from).unwrap_or_default(),
        field: error.field,
        reason: error.reason,
        stage: stage.to_owned(),
        processor_version: concat!("rapport-cleaner ", env!("CARGO_PKG_VERSION")).to_owned(),
        tenant: tenant.as_str().to_owned(),
        failed_at: Some(now.to_proto()),
        source: Some(Coordinates {
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
        }),
        original_key: record.key.map(<[u8]>::to_vec),
        original_value: record.value.unwrap_or_default().to_vec(),
        original_headers: record.headers.map(all).unwrap_or_default(),
        ..DeadLetter::default()
    }
}

fn all<H: Headers>(headers: &H) -> Vec<Header> {
    headers.iter().map(|h| Header { name: h.key.to_owned(), value: h.value.map(<[u8]>::to_vec) }).collect()
}
