use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rapport_events::Position;
use rdkafka::{
    ClientContext, Message as _,
    config::ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
};
use tokio::sync::oneshot;

use crate::{Error, KafkaArgs, OwnedRecord};

/// How a publisher waits and how much it holds.
#[derive(Debug, Clone)]
pub struct PublisherSettings {
    pub client_id: String,
    /// Waits this long for more records before it sends: latency against throughput.
    pub linger: Duration,
    /// A record that Kafka has not acknowledged by then is given up (and may still be there).
    pub delivery_timeout: Duration,
    /// Bound of the queue; a record over it is refused at once.
    pub queue_bytes: usize,
    pub queue_records: usize,
    /// Largest record.
    pub record_bytes: usize,
}

impl PublisherSettings {
    pub fn new(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            linger: Duration::from_millis(5),
            delivery_timeout: Duration::from_secs(10),
            queue_bytes: 64 << 20,
            queue_records: 200_000,
            record_bytes: 1 << 20,
        }
    }
}

/// Is handed the records that Kafka did not acknowledge, each with its ticket, which it must settle;
/// in the order in which a partition's records were sent. It runs on the thread of acknowledgements:
/// it must not block.
pub type Undelivered = Box<dyn Fn(OwnedRecord, Ticket, DeliveryError) + Send + Sync>;

/// Writes records and says which of them Kafka has acknowledged (acks=all, idempotent). Thread
/// safe; one for each process is enough. librdkafka's own thread sends and a second one takes the
/// acknowledgements, so no caller polls.
pub struct Publisher {
    producer: ThreadedProducer<Acknowledgements>,
}

/// The queue would not take a record. Nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the queue to Kafka is full")]
    QueueFull,
    #[error("the record is larger than Kafka takes")]
    TooLarge,
    #[error("the producer has failed for good: {0}")]
    Fatal(RDKafkaErrorCode),
}

/// Kafka did not acknowledge a record. It may be on the log all the same (a lost answer), so it
/// may be sent again only with the same event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not acknowledged: {code}")]
pub struct DeliveryError {
    pub code: RDKafkaErrorCode,
}

impl DeliveryError {
    /// Whether Kafka will never take this record, however often it is sent.
    pub fn is_final(&self) -> bool {
        matches!(
            self.code,
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidRecord
        )
    }
}

/// Records that are sent together and awaited together: one wake-up for all of them.
pub struct Batch<'a> {
    publisher: &'a Publisher,
    tally: Arc<Tally>,
    /// Answers when the last record is acknowledged or given up.
    complete: oneshot::Receiver<()>,
    sent: usize,
}

/// What has come back of one batch.
struct Tally {
    results: Mutex<Vec<Option<Result<Position, DeliveryError>>>>,
    /// Records on the way, plus one while the batch is still being filled.
    open: AtomicUsize,
    complete: Mutex<Option<oneshot::Sender<()>>>,
}

impl Tally {
    fn settle(&self, index: usize, result: Result<Position, DeliveryError>) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = results.get_mut(index) {
            *slot = Some(result);
        }
        drop(results);
        self.close_one();
    }

    fn results(&self) -> Vec<Result<Position, DeliveryError>> {
        let results = std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner));
        let timed_out = DeliveryError { code: RDKafkaErrorCode::MessageTimedOut };
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(timed_out.clone()))).collect()
    }

    fn close_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(complete) = self.complete.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // Nobody waits when the caller has gone away: the record is on its way all the same.
            complete.send(()).ok();
        }
    }
}

/// The place of one record in its batch. Dropped unsettled, the record counts as timed out.
pub struct Ticket {
    tally: Arc<Tally>,
    index: usize,
    settled: bool,
}

impl Ticket {
    /// Says what became of the record.
    pub fn settle(mut self, result: Result<Position, DeliveryError>) {
        self.settled = true;
        self.tally.settle(self.index, result);
    }

    /// The record is safe elsewhere: it will be on the log, at a position that is not known yet.
    pub fn settle_kept(self) {
        self.settle(Ok(Position { partition: -1, offset: -1 }));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.tally.close_one();
        }
    }
}

struct Acknowledgements {
    undelivered: Option<Undelivered>,
}

impl ClientContext for Acknowledgements {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka publisher");
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        match result {
            Ok(message) => ticket.settle(Ok(Position { partition: message.partition(), offset: message.offset() })),
            Err((error, message)) => {
                let error = DeliveryError { code: error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown) };
                match &self.undelivered {
                    Some(undelivered) if !error.is_final() => undelivered(OwnedRecord::of(message), *ticket, error),
                    _ => ticket.settle(Err(error)),
                }
            }
        }
    }
}

impl Publisher {
    /// # Errors
    /// A setting that librdkafka does not take. An unreachable broker is no error here: records
    /// wait in the queue.
    pub fn new(args: &KafkaArgs, settings: &PublisherSettings) -> Result<Self, Error> {
        Self::with(args, settings, None)
    }

    /// One whose undelivered records go elsewhere instead of being reported as such.
    ///
    /// # Errors
    /// As [`Publisher::new`].
    pub fn with_undelivered(
        args: &KafkaArgs,
        settings: &PublisherSettings,
        undelivered: Undelivered,
    ) -> Result<Self, Error> {
        Self::with(args, settings, Some(undelivered))
    }

    fn with(args: &KafkaArgs, settings: &PublisherSettings, undelivered: Option<Undelivered>) -> Result<Self, Error> {
        let mut config: ClientConfig = args.producer(&settings.client_id);
        config
            .set("linger.ms", settings.linger.as_millis().to_string())
            .set("message.timeout.ms", settings.delivery_timeout.as_millis().to_string())
            .set("queue.buffering.max.kbytes", (settings.queue_bytes >> 10).max(1).to_string())
            .set("queue.buffering.max.messages", settings.queue_records.to_string())
            .set("message.max.bytes", settings.record_bytes.to_string());
        Ok(Self { producer: config.create_with_context(Acknowledgements { undelivered })? })
    }

    /// An empty batch for about `records` records.
    pub fn batch(&self, records: usize) -> Batch<'_> {
        let (send, complete) = oneshot::channel();
        Batch {
            publisher: self,
            tally: Arc::new(Tally {
                results: Mutex::new(Vec::with_capacity(records)),
                open: AtomicUsize::new(1),
                complete: Mutex::new(Some(send)),
            }),
            complete,
            sent: 0,
        }
    }

    /// Queues one record for whose ticket somebody waits.
    ///
    /// # Errors
    /// The queue did not take it; the ticket comes back.
    pub fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
        ticket: Ticket,
    ) -> Result<(), (Refused, Ticket)> {
        let record = BaseRecord {
            topic,
            partition: None,
            payload: value,
            key,
            timestamp: None,
            headers: Some(headers),
            delivery_opaque: Box::new(ticket),
        };
        self.producer.send::<[u8], [u8]>(record).map_err(|(error, record)| {
            let refused = match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Refused::QueueFull,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => Refused::TooLarge,
                code => Refused::Fatal(code.unwrap_or(RDKafkaErrorCode::Unknown)),
            };
            (refused, *record.delivery_opaque)
        })
    }

    /// Gives up everything that is queued or on the way, now: it comes back as undelivered. What was on
    /// the way may be on the log all the same.
    pub fn purge(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }

    /// Records that are queued or on the way. At zero, every ticket has been settled or handed on.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// Waits until everything queued is acknowledged or given up, at most for `budget`: the last
    /// thing before a drain ends. Returns what was still on the way.
    pub async fn flush(&self, budget: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + budget;
        while self.in_flight() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.in_flight()
    }
}

impl Batch<'_> {
    /// Queues one record.
    ///
    /// # Errors
    /// The queue did not take it; the batch goes on without it.
    pub fn send(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<(), Refused> {
        let ticket = self.ticket();
        self.publisher.send(topic, key, value, headers, ticket).map_err(|(refused, ticket)| {
            self.withdraw(ticket);
            refused
        })
    }

    /// Takes back the newest ticket of this batch, as if it had never been given.
    pub fn withdraw(&mut self, mut ticket: Ticket) {
        ticket.settled = true;
        self.tally.results.lock().unwrap_or_else(PoisonError::into_inner).pop();
        self.tally.open.fetch_sub(1, Ordering::AcqRel);
        self.sent -= 1;
    }

    /// A place in this batch for a record that goes another way.
    pub fn ticket(&mut self) -> Ticket {
        let index = self.sent;
        self.sent += 1;
        self.tally.results.lock().unwrap_or_else(PoisonError::into_inner).push(None);
        self.tally.open.fetch_add(1, Ordering::AcqRel);
        Ticket { tally: Arc::clone(&self.tally), index, settled: false }
    }

    /// How many records the queue took.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Waits for Kafka. One result for each record that [`Batch::send`] took, in their order. Ends
    /// within the delivery timeout, since every record is acknowledged or given up by then.
    pub async fn acknowledged(self) -> Vec<Result<Position, DeliveryError>> {
        self.close().finished().await
    }

    /// Nothing more comes: what is left is to wait, without holding the publisher.
    pub fn close(self) -> Waiting {
        self.tally.close_one();
        Waiting { tally: self.tally, complete: self.complete }
    }
}

/// A batch that is on its way. Dropping it does not stop its records.
pub struct Waiting {
    tally: Arc<Tally>,
    complete: oneshot::Receiver<()>,
}

impl Waiting {
    /// As [`Batch::acknowledged`].
    pub async fn finished(self) -> Vec<Result<Position, DeliveryError>> {
        // The sender is held by the tally until it fires.
        self.complete.await.ok();
        self.tally.results()
    }

    /// [`Waiting::finished`], but only until `deadline`: what has not come back by then counts as
    /// timed out, though it may still be acknowledged later.
    pub async fn by(self, deadline: tokio::time::Instant) -> Vec<Result<Position, DeliveryError>> {
        tokio::time::timeout_at(deadline, self.complete).await.ok();
        self.tally.results()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// librdkafka's in-process mock cluster: enough to see acknowledgements and refusals.
    fn mocked() -> (rdkafka::mocking::MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaArgs) {
        let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
        cluster.create_topic("t", 2, 1).unwrap();
        let args = KafkaArgs::for_brokers(cluster.bootstrap_servers(), "");
        (cluster, args)
    }

    #[tokio::test]
    async fn every_record_of_a_batch_is_answered_for_in_order() {
        let (_cluster, args) = mocked();
        let publisher = Publisher::new(&args, &PublisherSettings::new("test")).unwrap();
        let mut batch = publisher.batch(100);
        for i in 0..100 {
            batch.send("t", Some(b"same key"), Some(format!("{i}").as_bytes()), OwnedHeaders::new()).unwrap();
        }
        let results = batch.acknowledged().await;
        let offsets: Vec<i64> = results.into_iter().map(|r| r.unwrap().offset).collect();
        assert_eq!(offsets, (0..100).collect::<Vec<_>>());
        assert_eq!(publisher.batch(0).acknowledged().await, vec![], "an empty batch is complete at once");
    }

    #[tokio::test]
    async fn who_waits_only_until_a_deadline_is_told_what_came_back_by_then() {
        let args = KafkaArgs::for_brokers("127.0.0.1:1", "");
        let publisher = Publisher::new(&args, &PublisherSettings::new("test")).unwrap();
        let mut batch = publisher.batch(1);
        batch.send("t", None, Some(b"x"), OwnedHeaders::new()).unwrap();
        let results = batch.close().by(tokio::time::Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(results, vec![Err(DeliveryError { code: RDKafkaErrorCode::MessageTimedOut })]);
    }

    #[tokio::test]
    async fn what_is_not_delivered_goes_elsewhere_whole_and_in_order() {
        let args = KafkaArgs::for_brokers("127.0.0.1:1", "");
        let mut settings = PublisherSettings::new("test");
        settings.delivery_timeout = Duration::from_secs(60);
        let (send, elsewhere) = std::sync::mpsc::channel();
        let undelivered: Undelivered = Box::new(move |record, ticket, _| {
            send.send(record).unwrap();
            ticket.settle_kept();
        });
        let publisher = Publisher::with_undelivered(&args, &settings, undelivered).unwrap();
        let mut batch = publisher.batch(3);
        for n in 0..3 {
            let headers = crate::headers::with(OwnedHeaders::new(), "n", n.to_string());
            batch.send("t", Some(b"k"), (n != 1).then_some(b"v".as_slice()), headers).unwrap();
        }
        publisher.purge();
        assert!(batch.acknowledged().await.iter().all(Result::is_ok));
        let records: Vec<_> = elsewhere.try_iter().collect();
        assert_eq!(records.len(), 3);
        for (n, record) in records.into_iter().enumerate() {
            let value = (n != 1).then(|| b"v".to_vec());
            assert_eq!(
                (record.topic.as_str(), record.key.as_deref(), record.value),
                ("t", Some(b"k".as_slice()), value)
            );
            assert_eq!(record.headers, [("n".to_owned(), Some(n.to_string().into_bytes()))]);
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_dead_broker_gives_up_in_time() {
        let args = KafkaArgs::for_brokers("127.0.0.1:1", "");
        let mut settings = PublisherSettings::new("test");
        settings.queue_records = 10;
        settings.delivery_timeout = Duration::from_millis(300);
        let publisher = Publisher::new(&args, &settings).unwrap();
        let mut batch = publisher.batch(20);
        let refused = (0..20).filter(|_| batch.send("t", None, Some(b"x"), OwnedHeaders::new()).is_err()).count();
        assert_eq!((batch.sent(), refused), (10, 10));
        let results = batch.acknowledged().await;
        assert_eq!(results.len(), 10);
        assert!(results.iter().all(Result::is_err));
    }
}
