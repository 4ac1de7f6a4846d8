//! The records of one batch on their way from stage to stage, all in one buffer that is used again:
//! at tens of thousands a second, allocations for each record would be a good part of its cost.

use std::{sync::Arc, time::Duration};

use prost::Message;
use rapport_events::{EventTime, Position};
use rapport_kafka::headers;
use rapport_policy::{BotAction, Rate};
use rapport_proto::events::{DeadLetter, dead_letter::Kind};
use rdkafka::{consumer::ConsumerGroupMetadata, message::Headers};

use crate::{
    Error, RawRecord, dead_letter,
    enrich::Said,
    steps::{Cleaned, Verdict},
};

/// Room behind a clean event for what later steps add: a session id of 32 and a bot's reason.
const ROOM: usize = 48;
/// And for its customer's segment.
const SEGMENT_ROOM: usize = 66;

/// A batch, and under what circumstances it was read.
#[derive(Default)]
pub(super) struct Batch {
    /// Grows whenever everything on the way is given up: a batch of an earlier attempt is dropped.
    pub attempt: u64,
    /// Grows with every rebalance.
    pub epoch: u64,
    /// The group's generation, taken before the first record was read.
    pub group: Option<Arc<ConsumerGroupMetadata>>,
    pub records: Vec<Record>,
    /// Nothing more was ready when it was read.
    pub caught_up: bool,
    /// Why it must be given up.
    pub failed: Option<Error>,
    bytes: Vec<u8>,
    /// The segments that policies declare.
    declared: Vec<Arc<[String]>>,
}

/// A part of the batch's buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

/// One record: what it becomes, and what the stages must know of it.
#[derive(Debug)]
pub(super) struct Record {
    pub at: Position,
    pub received: EventTime,
    pub tenant: Span,
    pub key: Span,
    pub value: Span,
    /// The trace that the record came with goes on with it.
    pub traceparent: Span,
    pub tracestate: Span,
    pub fate: Fate,
}

#[derive(Debug)]
pub(super) enum Fate {
    Clean(Clean),
    Duplicate,
    Dead { kind: Kind, stage: Span },
}

/// What the steps that need a memory must know of a clean event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clean {
    pub tenant: Span,
    pub event_id: Span,
    pub customer: Span,
    pub event_time: EventTime,
    /// The pause that ends a visit, where the visit is still to be told.
    pub inactivity: Option<Duration>,
    pub rate: Option<Rate>,
    pub segment: Segment,
    /// The dead letter that it becomes when its customer has too many events.
    pub too_many: Option<Span>,
    pub merge: Option<Merge>,
    /// Bytes that may still be added behind the value.
    room: usize,
}

/// What an event says of its customer's segment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Segment {
    NotAsked,
    /// It is still to be told: one of those that the tenant's policy declares, by their place in the batch.
    Untold {
        declared: usize,
    },
    /// It stands in the event.
    Said(Span),
}

/// A merge of identities, as its record on the identity topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merge {
    pub key: Span,
    pub value: Span,
    pub to_id: Span,
}

impl Batch {
    /// Empty again, its buffers kept.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
        self.declared.clear();
        self.failed = None;
        self.caught_up = false;
    }

    /// Nothing of it is to be written.
    pub(super) fn fail(&mut self, error: Error) {
        self.clear();
        self.failed = Some(error);
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn get(&self, span: Span) -> &[u8] {
        self.bytes.get(span.start..span.end).unwrap_or_default()
    }

    /// Everything in the buffer that is text was text when it came in.
    pub(super) fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.get(span)).unwrap_or_default()
    }

    /// Takes a record in, with what it was judged to be.
    pub(super) fn take<H: Headers>(&mut self, record: &RawRecord<'_, H>, verdict: &Verdict, now: EventTime) {
        let judged = match verdict {
            Verdict::Clean(cleaned) => self.clean(record, cleaned, now),
            Verdict::Dead(letter) => self.dead(record, letter, now),
        };
        self.records.push(judged);
    }

    fn clean<H: Headers>(&mut self, record: &RawRecord<'_, H>, cleaned: &Cleaned, now: EventTime) -> Record {
        let clean = &cleaned.event;
        let (event_id, customer, time) = match &clean.event {
            Some(event) => (event.event_id.as_str(), event.customer_id.as_str(), event.event_time.as_ref()),
            None => ("", "", None),
        };
        let stamp = |time: Option<&prost_types::Timestamp>| time.and_then(EventTime::from_proto).unwrap_or(now);
        let (tenant, key, customer) = self.put_key(&clean.tenant, customer);
        let event_id = self.put(event_id.as_bytes());
        let (traceparent, tracestate) = self.put_trace(record);
        let merge = cleaned.merge.as_ref().map(|merge| {
            let (_, key, _) = self.put_key(&merge.tenant, &merge.from_id);
            Merge { key, value: self.put_message(merge), to_id: self.put(merge.to_id.as_bytes()) }
        });
        let refuses = cleaned.bot_rate.filter(|rate| rate.action == BotAction::Refuse);
        let too_many =
            refuses.map(|rate| self.put_message(&dead_letter::too_many(record, cleaned, rate.per_minute, now)));
        let inactivity = cleaned.session.inactivity.filter(|_| !cleaned.session.client_session);
        let segment = match &cleaned.segment {
            Said::NotAsked => Segment::NotAsked,
            Said::Nothing(declared) => Segment::Untold { declared: self.declared(declared) },
            Said::Segment(name) => Segment::Said(self.put(name.as_bytes())),
        };
        let value = self.put_message(clean);
        let room = if inactivity.is_some() || cleaned.bot_rate.is_some() { ROOM } else { 0 };
        let room = room + if matches!(segment, Segment::Untold { .. }) { SEGMENT_ROOM } else { 0 };
        self.bytes.resize(self.bytes.len() + room, 0);
        Record {
            at: Position { partition: record.partition, offset: record.offset },
            received: stamp(clean.received_at.as_ref()),
            tenant,
            key,
            value,
            traceparent,
            tracestate,
            fate: Fate::Clean(Clean {
                tenant,
                event_id,
                customer,
                event_time: stamp(time),
                inactivity,
                rate: cleaned.bot_rate,
                segment,
                too_many,
                merge,
                room,
            }),
        }
    }

    fn dead<H: Headers>(&mut self, record: &RawRecord<'_, H>, letter: &DeadLetter, now: EventTime) -> Record {
        tracing::debug!(field = %letter.field, reason = %letter.reason, offset = record.offset, "dead letter");
        let (traceparent, tracestate) = self.put_trace(record);
        // The letter of a record that must not be kept has no key either.
        let key = if letter.withheld { &[] } else { record.key.unwrap_or_default() };
        Record {
            at: Position { partition: record.partition, offset: record.offset },
            received: record.received_at(now),
            tenant: self.put(letter.tenant.as_bytes()),
            key: self.put(key),
            value: self.put_message(letter),
            traceparent,
            tracestate,
            fate: Fate::Dead { kind: letter.kind(), stage: self.put(letter.stage.as_bytes()) },
        }
    }

    pub(super) fn mark_duplicate(&mut self, index: usize) {
        if let Some(record) = self.records.get_mut(index) {
            record.fate = Fate::Duplicate;
        }
    }

    /// Makes a clean event the dead letter that it was given for this case. `false` when there is none.
    pub(super) fn refuse_as_too_many(&mut self, index: usize, stage: &str) -> bool {
        let stage = self.put(stage.as_bytes());
        let Some(record) = self.records.get_mut(index) else { return false };
        let Fate::Clean(Clean { too_many: Some(letter), .. }) = record.fate else { return false };
        (record.value, record.fate) = (letter, Fate::Dead { kind: Kind::Policy, stage });
        true
    }

    /// The merge that a clean event tells of is known.
    pub(super) fn drop_merge(&mut self, index: usize) {
        if let Some(Record { fate: Fate::Clean(clean), .. }) = self.records.get_mut(index) {
            clean.merge = None;
        }
    }

    /// Adds the visit to a clean event. Protobuf messages that stand one behind the other are one
    /// message, so what was encoded need not be encoded again.
    pub(super) fn add_session(&mut self, index: usize, session_id: &str) {
        // Field 6, of length-delimited type.
        self.add(index, &[0x32], session_id.as_bytes());
    }

    fn declared(&mut self, segments: &Arc<[String]>) -> usize {
        // Records of one tenant stand together.
        let known = self.declared.iter().rposition(|known| Arc::ptr_eq(known, segments));
        known.unwrap_or_else(|| {
            self.declared.push(Arc::clone(segments));
            self.declared.len() - 1
        })
    }

    /// Whether a policy declares a segment now: what is kept of a customer may be older.
    pub(super) fn declares(&self, declared: usize, segment: &str) -> bool {
        self.declared.get(declared).is_some_and(|segments| segments.iter().any(|known| known == segment))
    }

    /// Adds its customer's segment to a clean event.
    pub(super) fn add_segment(&mut self, index: usize, segment: &str) {
        // Field 14.
        self.add(index, &[0x72], segment.as_bytes());
    }

    /// Marks a clean event as one of too many: adds to the reasons of field 10.
    pub(super) fn add_rate_reason(&mut self, index: usize) {
        // Its field 1, behind that, is the text "rate".
        self.add(index, &[0x52, 6, 0x0a], b"rate");
    }

    fn add(&mut self, index: usize, tags: &[u8], text: &[u8]) {
        let Some(Record { value, fate: Fate::Clean(clean), .. }) = self.records.get_mut(index) else { return };
        let needed = tags.len() + 1 + text.len();
        // A length of 128 or more would take two bytes.
        let Some(length) = u8::try_from(text.len()).ok().filter(|length| *length < 128) else { return };
        if needed > clean.room {
            return;
        }
        let added = tags.iter().copied().chain([length]).chain(text.iter().copied());
        for (to, byte) in self.bytes.iter_mut().skip(value.end).zip(added) {
            *to = byte;
        }
        value.end += needed;
        clean.room -= needed;
    }

    /// `tenant/customer`: both, the whole, and the customer.
    fn put_key(&mut self, tenant: &str, customer: &str) -> (Span, Span, Span) {
        let tenant = self.put(tenant.as_bytes());
        self.bytes.push(b'/');
        let customer = self.put(customer.as_bytes());
        (tenant, Span { start: tenant.start, end: customer.end }, customer)
    }

    fn put_trace<H: Headers>(&mut self, record: &RawRecord<'_, H>) -> (Span, Span) {
        let Some(from) = record.headers else { return Default::default() };
        let mut spans = [headers::TRACEPARENT, headers::TRACESTATE]
            .map(|name| headers::get(from, name).map(|value| self.put(value)).unwrap_or_default());
        let [parent, state] = &mut spans;
        (std::mem::take(parent), std::mem::take(state))
    }

    fn put(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span { start, end: self.bytes.len() }
    }

    fn put_message(&mut self, message: &impl Message) -> Span {
        let start = self.bytes.len();
        message.encode_raw(&mut self.bytes);
        Span { start, end: self.bytes.len() }
    }
}

impl Span {
    pub(super) fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

#[cfg(test)]
mod tests {
    use rapport_proto::events::{Bot, CleanEvent, Event, IdentityMerge};
    use rdkafka::message::OwnedHeaders;

    use super::*;
    use crate::steps::SessionRule;

    const NOW: EventTime = EventTime::from_ms(1_800_000_000_000);

    fn record(headers: &OwnedHeaders) -> RawRecord<'_, OwnedHeaders> {
        RawRecord {
            topic: "raw",
            partition: 3,
            offset: 42,
            timestamp: Some(NOW),
            key: Some(b"raw-key"),
            value: Some(b"raw"),
            headers: Some(headers),
        }
    }

    fn cleaned() -> Cleaned {
        Cleaned {
            event: CleanEvent {
                event: Some(Event { event_id: "e1".into(), customer_id: "42".into(), ..Event::default() }),
                tenant: "demo".into(),
                bot: Some(Bot { reasons: vec!["client".into()] }),
                ..CleanEvent::default()
            },
            merge: Some(IdentityMerge {
                tenant: "demo".into(),
                from_id: "anon:x".into(),
                to_id: "42".into(),
                ..IdentityMerge::default()
            }),
            session: SessionRule { inactivity: Some(Duration::from_secs(1800)), client_session: false },
            segment: Said::Nothing(["pro".to_owned()].into()),
            bot_rate: Some(Rate { per_minute: 10, action: BotAction::Refuse }),
        }
    }

    #[test]
    fn what_later_steps_add_stands_in_the_event_and_nothing_around_it_changes() {
        let headers = headers::with(OwnedHeaders::new(), headers::TRACEPARENT, "00-abc");
        let mut batch = Batch::default();
        batch.take(&record(&headers), &Verdict::Clean(Box::new(cleaned())), NOW);
        batch.take(&record(&headers), &Verdict::Clean(Box::new(cleaned())), NOW);
        let visit = "0123456789abcdef0123456789abcdef";
        batch.add_session(0, visit);
        batch.add_rate_reason(0);
        batch.add_segment(0, &"s".repeat(64));
        batch.add_session(0, visit);
        let event = |n: usize| CleanEvent::decode(batch.get(batch.records[n].value)).unwrap();
        assert_eq!((event(0).session_id, event(0).segment), (visit.to_owned(), "s".repeat(64)));
        assert_eq!(event(0).bot.unwrap().reasons, ["client", "rate"]);
        assert_eq!(event(1), cleaned().event, "the next record is as it was");
        let first = &batch.records[0];
        assert_eq!((batch.text(first.key), batch.text(first.traceparent)), ("demo/42", "00-abc"));
        assert!(first.tracestate.is_empty());
        let Fate::Clean(clean) = first.fate else { panic!("not clean") };
        let Segment::Untold { declared } = clean.segment else { panic!("it said nothing") };
        assert!(batch.declares(declared, "pro") && !batch.declares(declared, "free"));
        assert_eq!((batch.text(clean.customer), batch.text(clean.event_id)), ("42", "e1"));
        let merge = clean.merge.unwrap();
        assert_eq!((batch.text(merge.key), batch.text(merge.to_id)), ("demo/anon:x", "42"));
        assert_eq!(IdentityMerge::decode(batch.get(merge.value)).unwrap(), cleaned().merge.unwrap());
        assert!(batch.refuse_as_too_many(0, "bots"));
        let letter = DeadLetter::decode(batch.get(batch.records[0].value)).unwrap();
        assert_eq!((letter.original_value.as_slice(), letter.kind()), (&b"raw"[..], Kind::Policy));
    }

    #[test]
    fn a_buffer_that_is_used_again_holds_nothing_of_before() {
        let headers = OwnedHeaders::new();
        let mut batch = Batch::default();
        batch.take(&record(&headers), &Verdict::Clean(Box::new(cleaned())), NOW);
        batch.fail(Error::MemoryLost);
        assert!(batch.records.is_empty() && batch.size_bytes() == 0);
        batch.clear();
        let mut plain = cleaned();
        (plain.session, plain.bot_rate, plain.segment) = (SessionRule::default(), None, Said::NotAsked);
        batch.take(&record(&headers), &Verdict::Clean(Box::new(plain.clone())), NOW);
        batch.add_session(0, "no room was asked for");
        assert_eq!(CleanEvent::decode(batch.get(batch.records[0].value)).unwrap(), plain.event);
    }
}
