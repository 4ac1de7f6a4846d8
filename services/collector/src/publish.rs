//! The one way to Kafka: events become records, and each is acknowledged or refused. Memory is
//! bounded here: who wants to send needs [`Room`] first.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use opentelemetry::Context;
use prost::Message as _;
use rapport_events::{EventTime, FieldError, Tenant};
use rapport_kafka::{
    Batch, DeliveryError, KafkaArgs, OwnedRecord, Publisher, PublisherSettings, Refused, Topics, Waiting, headers,
};
use rapport_proto::{
    catalog::Item,
    events::{DeadLetter, Event, Header, dead_letter::Kind},
};
use rapport_runtime::{Lifecycle, OwnedThread};
use rdkafka::{error::RDKafkaErrorCode, message::OwnedHeaders};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    admit::View,
    config::DoorArgs,
    hot_keys::{HotKeys, OfCall},
    quota::{Charge, Spent},
    spool::{Spool, SpoolError},
};

/// What an event costs in memory beside its bytes while it waits for Kafka: librdkafka's message,
/// its headers, the key and the ticket of its acknowledgement.
pub const OVERHEAD_BYTES: usize = 512;
/// Largest original that a dead letter keeps: with its headers it must fit Kafka's default of 1 MiB.
pub const ORIGINAL_BYTES: usize = 900_000;
const RECORD_BYTES: usize = 1 << 20;

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Kafka(#[from] rapport_kafka::Error),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Publishes for all doors.
pub struct Publish {
    publisher: Arc<Publisher>,
    spool: Option<Spool>,
    topics: Topics,
    hot_keys: Option<HotKeys>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    broken: AtomicBool,
}

/// Room in memory, given back when dropped.
#[derive(Debug)]
pub struct Room {
    permit: OwnedSemaphorePermit,
}

impl Room {
    /// Keeps `bytes` of it and gives the rest back.
    pub fn shrink_to(&mut self, bytes: usize) {
        let spare = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(spare));
    }

    /// Takes other room to this.
    pub fn join(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }
}

/// An event as it came, as a record that the cleaner can read: what a dead letter keeps.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Original {
    /// Its content type, and what else stands beside the value.
    pub headers: Vec<(String, Vec<u8>)>,
    pub value: Vec<u8>,
}

impl Original {
    pub fn new(content_type: &str, value: Vec<u8>) -> Self {
        Self { headers: vec![(headers::CONTENT_TYPE.into(), content_type.into())], value }
    }
}

/// An event that was refused and whose sender cannot be told.
pub struct Letter<'a> {
    pub error: &'a FieldError,
    /// Which step refused it (`collector/segment`).
    pub stage: &'static str,
    /// Whom it is about; empty where that is not known.
    pub who: &'a str,
    pub original: Original,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Kafka has it.
    Accepted,
    /// It never will be accepted as it is.
    Refused(FieldError),
    /// There was no room for it.
    NoRoom,
    /// It may or may not be on the log.
    Unacknowledged,
}

/// Whose events, when they came, and the trace that they belong to.
pub struct Origin<'a> {
    pub tenant: &'a Tenant,
    pub received_at: EventTime,
    pub trace: &'a Context,
}

impl Publish {
    /// # Errors
    /// A setting that librdkafka does not take, or a spool that cannot be used.
    pub fn new(kafka: &KafkaArgs, limits: &DoorArgs) -> Result<Self, PublishError> {
        let spool = Spool::open(&limits.spool, limits.max_in_flight_bytes)?;
        let settings = PublisherSettings {
            linger: limits.linger,
            delivery_timeout: if spool.is_some() { limits.spool.spool_after } else { limits.ack_timeout },
            queue_bytes: limits.max_in_flight_bytes,
            queue_records: limits.max_in_flight_bytes / OVERHEAD_BYTES,
            record_bytes: RECORD_BYTES,
            ..PublisherSettings::new("rapport-collector")
        };
        let publisher = match &spool {
            Some(spool) => Publisher::with_undelivered(kafka, &settings, spool.undelivered())?,
            None => Publisher::new(kafka, &settings)?,
        };
        Ok(Self {
            publisher: Arc::new(publisher),
            spool,
            topics: kafka.topics(),
            hot_keys: HotKeys::new(limits.hot_key_events_per_second),
            room: Arc::new(Semaphore::new(limits.max_in_flight_bytes)),
            room_bytes: limits.max_in_flight_bytes,
            broken: AtomicBool::new(false),
        })
    }

    /// Room for `bytes`, if there is any now.
    pub fn try_room(&self, bytes: usize) -> Option<Room> {
        let permit = Arc::clone(&self.room).try_acquire_many_owned(self.permits(bytes)).ok()?;
        Some(Room { permit })
    }

    /// Waits for room, first come first served. `None` only when the collector has been taken down.
    pub async fn room(&self, bytes: usize) -> Option<Room> {
        let permit = Arc::clone(&self.room).acquire_many_owned(self.permits(bytes)).await.ok()?;
        Some(Room { permit })
    }

    /// Nobody may ask for more than there is: that would wait for ever.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.room_bytes)).unwrap_or(u32::MAX)
    }

    /// Bytes of events on their way.
    pub fn bytes_in_flight(&self) -> usize {
        self.room_bytes.saturating_sub(self.room.available_permits())
    }

    /// Whether the producer has failed for good (librdkafka's fatal errors): only a restart mends that.
    pub fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The publisher itself, for its depth and the last flush.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Starts the spool's threads, if there is a spool. Must be called within a runtime.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start_spool(&self, kafka: &KafkaArgs, lifecycle: &Lifecycle) -> io::Result<Vec<OwnedThread>> {
        self.spool.as_ref().map_or_else(|| Ok(Vec::new()), |spool| spool.start(&self.publisher, kafka, lifecycle))
    }

    pub fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// Begins a submission of about `records` records.
    pub fn submit<'a>(&'a self, origin: &Origin<'_>, records: usize) -> Submission<'a> {
        let headers_of = |content_type: &str| {
            headers::of_door(content_type, origin.tenant.as_str(), origin.received_at.as_ms(), origin.trace)
        };
        let key = format!("{}/", origin.tenant);
        Submission {
            batch: self.publisher.batch(records),
            publish: self,
            hot: self.hot_keys.as_ref().map(|hot_keys| hot_keys.call(records)),
            tenant: origin.tenant.clone(),
            received_at: origin.received_at,
            event_headers: headers_of(headers::PROTOBUF_EVENT),
            other_headers: headers_of(headers::PROTOBUF),
            tenant_bytes: key.len(),
            key,
            value: Vec::with_capacity(512),
            slots: Vec::with_capacity(records),
            charge: None,
        }
    }
}

enum Slot {
    /// Its result is the next of the batch.
    Sent,
    Settled(Fate),
}

/// Records of one call, being filled.
pub struct Submission<'a> {
    publish: &'a Publish,
    hot: Option<OfCall>,
    batch: Batch<'a>,
    tenant: Tenant,
    received_at: EventTime,
    /// Headers that every event of the call carries, and every other record of it.
    event_headers: OwnedHeaders,
    other_headers: OwnedHeaders,
    /// Scratch for the key, which begins with the tenant and a slash, and for the value.
    key: String,
    tenant_bytes: usize,
    value: Vec<u8>,
    slots: Vec<Slot>,
    charge: Option<Charge>,
}

impl Submission<'_> {
    /// Whose quota pays; what must be sent again is given back.
    pub fn charged(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// Puts an admitted event on the raw topic.
    pub fn event(&mut self, event: &Event) {
        let mut value = std::mem::take(&mut self.value);
        value.clear();
        // A Vec grows: encoding into it cannot fail.
        event.encode_raw(&mut value);
        self.encoded_event(View::from(event).who(), &event.event_id, &value);
        self.value = value;
    }

    /// Puts an admitted event on the raw topic as the bytes that it came in.
    pub fn encoded_event(&mut self, who: &str, event_id: &str, value: &[u8]) {
        self.key.truncate(self.tenant_bytes);
        self.key.push_str(who);
        if let (Some(hot_keys), Some(call)) = (&self.publish.hot_keys, &mut self.hot)
            && let Some(lane) = hot_keys.lane(call, &self.key)
        {
            self.key.push_str(&format!("~{lane}"));
        }
        let record_headers = headers::with(self.event_headers.clone(), headers::EVENT_ID, event_id);
        self.send(&self.publish.topics.raw, true, Some(value), record_headers);
    }

    /// An event that was refused at the door and whose sender will be told.
    pub fn refuse(&mut self, error: FieldError) {
        self.slots.push(Slot::Settled(Fate::Refused(error)));
    }

    /// Keeps an event on the dead topic: replaying what is kept gives the record that it would have been.
    pub fn dead_letter(&mut self, letter: Letter<'_>) {
        let Letter { error, stage, who, original } = letter;
        let received = self.received_at.as_ms().to_string();
        let own = [(headers::TENANT, self.tenant.as_str()), (headers::RECEIVED_AT, &received)];
        let own = own.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let header = |(name, value)| Header { name, value: Some(value) };
        self.key.truncate(self.tenant_bytes);
        self.key.push_str(who);
        let key = (!who.is_empty()).then_some(self.key.as_bytes());
        let letter = DeadLetter {
            kind: Kind::from(error.kind).into(),
            field: error.field.clone(),
            reason: error.reason.clone(),
            stage: stage.into(),
            processor_version: env!("CARGO_PKG_VERSION").into(),
            tenant: self.tenant.to_string(),
            failed_at: Some(self.received_at.to_proto()),
            source: None,
            original_key: key.map(<[u8]>::to_vec),
            original_value: original.value,
            original_headers: original.headers.into_iter().chain(own).map(header).collect(),
            rule: error.rule.as_deref().unwrap_or_default().to_owned(),
            ..DeadLetter::default()
        };
        let record_headers = self.other_headers.clone();
        self.send(&self.publish.topics.dead, !who.is_empty(), Some(letter.encode_to_vec().as_slice()), record_headers);
    }

    /// Puts an admitted item on the catalog topic.
    pub fn item(&mut self, item: &Item) {
        self.catalog(&item.item_id, Some(item.encode_to_vec().as_slice()));
    }

    /// Takes an item out of the catalog.
    pub fn remove_item(&mut self, item_id: &str) {
        self.catalog(item_id, None);
    }

    fn catalog(&mut self, item_id: &str, value: Option<&[u8]>) {
        self.key.truncate(self.tenant_bytes);
        self.key.push_str(item_id);
        let record_headers = self.other_headers.clone();
        self.send(&self.publish.topics.catalog, true, value, record_headers);
    }

    /// Queues a record whose key is the scratch; without a key when there is none.
    fn send(&mut self, topic: &str, keyed: bool, value: Option<&[u8]>, headers: OwnedHeaders) {
        let key = keyed.then_some(self.key.as_bytes());
        let sent = match &self.publish.spool {
            Some(spool) if spool.is_active() => {
                let record = OwnedRecord::new(topic, key, value, &headers);
                match spool.offer(record, self.batch.ticket()) {
                    Ok(()) => Ok(()),
                    Err((Some(refused), ticket)) => {
                        self.batch.withdraw(ticket);
                        Err(refused)
                    }
                    Err((None, ticket)) => {
                        self.batch.withdraw(ticket);
                        self.batch.send(topic, key, value, headers)
                    }
                }
            }
            _ => self.batch.send(topic, key, value, headers),
        };
        self.settle(sent);
    }

    fn settle(&mut self, sent: Result<(), Refused>) {
        self.slots.push(match sent {
            Ok(()) => Slot::Sent,
            Err(Refused::QueueFull) => Slot::Settled(Fate::NoRoom),
            Err(Refused::TooLarge) => Slot::Settled(Fate::Refused(too_large())),
            Err(Refused::Fatal(code)) => {
                if code == RDKafkaErrorCode::Fatal && !self.publish.broken.swap(true, Ordering::Relaxed) {
                    tracing::error!("the Kafka producer has failed for good");
                }
                Slot::Settled(Fate::Unacknowledged)
            }
        });
    }

    /// Nothing more comes. `room` is held until the last record is settled, or nobody waits any more.
    pub fn close(self, room: Room) -> Pending {
        let spent = self.charge.map(Charge::spend);
        Pending { waiting: self.batch.close(), slots: self.slots, spent, since: Instant::now(), _room: room }
    }
}

/// A submission on its way. Dropping it (the caller went away) stops nothing: its records are sent
/// all the same, and their number stays bounded by the publisher's own queue.
pub struct Pending {
    waiting: Waiting,
    slots: Vec<Slot>,
    spent: Option<Spent>,
    since: Instant,
    _room: Room,
}

impl Pending {
    /// What became of each record, in the order of the submission. What Kafka has not acknowledged
    /// by `deadline` counts as unacknowledged.
    pub async fn by(self, deadline: tokio::time::Instant) -> Vec<Fate> {
        let mut results = self.waiting.by(deadline).await.into_iter();
        metrics::histogram!("rapport_collector_ack_seconds").record(self.since.elapsed());
        let fates: Vec<Fate> = self
            .slots
            .into_iter()
            .map(|slot| match slot {
                Slot::Settled(fate) => fate,
                Slot::Sent => match results.next() {
                    Some(Ok(_)) => Fate::Accepted,
                    // A full spool, or no place in memory before it.
                    Some(Err(DeliveryError { code: RDKafkaErrorCode::QueueFull })) => Fate::NoRoom,
                    Some(Err(DeliveryError { code: RDKafkaErrorCode::MessageSizeTooLarge })) => {
                        Fate::Refused(too_large())
                    }
                    Some(Err(_)) | None => Fate::Unacknowledged,
                },
            })
            .collect();
        if let Some(spent) = self.spent {
            spent.refund(Tally::of(&fates).retry());
        }
        fates
    }
}

fn too_large() -> FieldError {
    FieldError::size("event", "is larger than Kafka takes in one record")
}

/// The fates of one call, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub accepted: usize,
    pub refused: usize,
    pub no_room: usize,
    pub unacknowledged: usize,
}

impl Tally {
    pub fn of(fates: &[Fate]) -> Self {
        fates.iter().fold(Self::default(), |mut tally, fate| {
            match fate {
                Fate::Accepted => tally.accepted += 1,
                Fate::Refused(_) => tally.refused += 1,
                Fate::NoRoom => tally.no_room += 1,
                Fate::Unacknowledged => tally.unacknowledged += 1,
            }
            tally
        })
    }

    /// Those that their sender should send again.
    pub const fn retry(self) -> usize {
        self.no_room + self.unacknowledged
    }

    /// Adds these to the counters of a door.
    pub fn count(self, door: &'static str) {
        for (outcome, number) in [("accepted", self.accepted), ("refused", self.refused), ("retry", self.retry())] {
            count(door, outcome, number);
        }
    }
}

/// Counts events that came in at a door.
pub fn count(door: &'static str, outcome: &'static str, number: usize) {
    if number > 0 {
        metrics::counter!("rapport_collector_events_total", "door" => door, "outcome" => outcome)
            .increment(u64::try_from(number).unwrap_or(u64::MAX));
    }
}
