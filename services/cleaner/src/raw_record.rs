use rapport_events::EventTime;
use rdkafka::message::Headers;

/// A record of the raw topic, as the pure steps see it.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a, H> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// The broker's or the producer's stamp of the record.
    pub timestamp: Option<EventTime>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Option<&'a H>,
}

impl<'a, H: Headers> RawRecord<'a, H> {
    /// A header as text; `None` when it is not there or not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.and_then(|h| rapport_kafka::headers::get_str(h, name))
    }

    /// When the mesh first had the record: the collector's stamp, or the record's own.
    pub fn received_at(&self, now: EventTime) -> EventTime {
        self.header(rapport_kafka::headers::RECEIVED_AT)
            .and_then(|text| text.parse().ok())
            .map(EventTime::from_ms)
            // A stamp that protobuf cannot hold would break every reader downstream.
            .filter(|time| EventTime::from_proto(&time.to_proto()).is_some())
            .or(self.timestamp)
            .unwrap_or(now)
    }
}
