//! Sends what is spooled, in its order, and opens the door to Kafka again when it is all there.

use std::{pin::pin, sync::Arc, time::Duration};

use rapport_events::Position;
use rapport_kafka::{DeliveryError, Error, KafkaArgs, Publisher, PublisherSettings, Waiting};
use tokio::runtime::Handle;

use super::{Entry, LOOK_EVERY, Mode, Shared, journal::Chunk};

/// Sent and awaited together.
const BATCH_RECORDS: usize = 5_000;
/// With less than this left on disk, new records wait in memory until it has been sent.
const HAND_OVER_BYTES: u64 = 1 << 20;
/// They wait no longer than this: then Kafka is away again, and they are spooled.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(500);
/// librdkafka itself tries on until then, in order; a record that it gives up is sent again from the
/// disk.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);
/// After an error that comes at once.
const PAUSE: Duration = Duration::from_millis(500);

type Results = Vec<Result<Position, DeliveryError>>;

pub struct Drainer {
    pub shared: Arc<Shared>,
    /// Where records go when the spool is empty.
    pub direct: Arc<Publisher>,
    pub kafka: KafkaArgs,
    pub runtime: Handle,
}

impl Drainer {
    /// Until the spool is stopped.
    ///
    /// # Errors
    /// librdkafka does not take the settings.
    pub fn run(self) -> Result<(), Error> {
        // Made at the first need: it has threads and connections of its own.
        let mut publisher = None;
        while self.wait_for_work() {
            let chunk = self.shared.journal().read();
            match chunk {
                Ok(Some(chunk)) => {
                    let publisher = match &mut publisher {
                        Some(publisher) => publisher,
                        none => none.insert(self.publisher()?),
                    };
                    if !self.send(publisher, chunk) {
                        self.pause();
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read; trying on");
                    self.pause();
                }
            }
            self.hand_over();
        }
        Ok(())
    }

    fn publisher(&self) -> Result<Publisher, Error> {
        let settings =
            PublisherSettings { delivery_timeout: GIVE_UP_AFTER, ..PublisherSettings::new("rapport-collector-spool") };
        Publisher::new(&self.kafka, &settings)
    }

    /// Waits until something is to be sent or the door to be opened; whether to go on at all.
    fn wait_for_work(&self) -> bool {
        let mut inbox = self.shared.inbox();
        loop {
            if inbox.stop {
                return false;
            }
            if matches!(inbox.mode, Mode::Spooling | Mode::Handing) {
                return true;
            }
            inbox = self.shared.wait(inbox, LOOK_EVERY);
        }
    }

    fn pause(&self) {
        let inbox = self.shared.inbox();
        if !inbox.stop {
            drop(self.shared.wait(inbox, PAUSE));
        }
    }

    /// Sends a chunk and moves on behind what Kafka has; whether that was all of it.
    fn send(&self, publisher: &Publisher, mut chunk: Chunk) -> bool {
        for bytes in &chunk.damaged {
            self.set_aside(bytes, "damaged bytes");
        }
        let rest = chunk.records.len().saturating_sub(BATCH_RECORDS);
        chunk.records.truncate(BATCH_RECORDS);
        let mut batch = publisher.batch(chunk.records.len());
        let mut sent = 0;
        for (spooled, _) in &chunk.records {
            let record = &spooled.record;
            let outcome =
                batch.send(&record.topic, record.key.as_deref(), record.value.as_deref(), record.rdkafka_headers());
            if outcome.is_err() {
                break;
            }
            sent += 1;
        }
        let Some(results) = self.wait(batch.close()) else { return false };
        let mut done = 0;
        for (result, (spooled, _)) in results.iter().zip(&chunk.records) {
            match result {
                Ok(_) => {}
                Err(error) if error.is_final() => {
                    let bytes = super::frame::encode(spooled.record.clone(), spooled.at_ms);
                    self.set_aside(&bytes, "a record that Kafka does not take");
                }
                Err(error) => {
                    tracing::warn!(%error, "a spooled record was not acknowledged; it is sent again");
                    break;
                }
            }
            done += 1;
        }
        let whole = done == chunk.records.len() && rest == 0;
        let behind = match (whole, done) {
            (true, _) => chunk.end,
            (false, 0) => None,
            (false, _) => chunk.records.get(done - 1).map(|(_, place)| *place),
        };
        if let Some(place) = behind
            && let Err(error) = self.shared.journal().advance(place, done as u64)
        {
            tracing::error!(%error, "the spool's place cannot be kept; after a restart, records are sent again");
        }
        metrics::counter!("rapport_collector_spool_drained_records_total").increment(done as u64);
        done == sent && sent == chunk.records.len()
    }

    fn set_aside(&self, bytes: &[u8], what: &str) {
        metrics::counter!("rapport_collector_spool_corrupt_total").increment(1);
        match self.shared.journal().set_aside(bytes) {
            Ok(path) => {
                tracing::error!(bytes = bytes.len(), path = %path.display(), "the spool holds {what}; set aside");
            }
            Err(error) => tracing::error!(%error, bytes = bytes.len(), "the spool holds {what}, which is lost"),
        }
    }

    /// Waits for Kafka; `None` when the spool is stopped before.
    fn wait(&self, waiting: Waiting) -> Option<Results> {
        self.runtime.block_on(async {
            let mut finished = pin!(waiting.finished());
            loop {
                tokio::select! {
                    results = &mut finished => return Some(results),
                    () = tokio::time::sleep(HAND_OVER_WITHIN) => {
                        let mut inbox = self.shared.inbox();
                        if inbox.stop {
                            return None;
                        }
                        if inbox.mode == Mode::Handing {
                            self.shared.turn(&mut inbox, Mode::Spooling);
                            drop(inbox);
                            self.shared.wake.notify_all();
                        }
                    }
                }
            }
        })
    }

    /// With little left, new records wait; with nothing left, they go to Kafka, and so does what comes.
    fn hand_over(&self) {
        let mut inbox = self.shared.inbox();
        let left = self.shared.journal().unsent_bytes();
        if inbox.mode == Mode::Spooling && left <= HAND_OVER_BYTES {
            self.shared.turn(&mut inbox, Mode::Handing);
        }
        if inbox.mode != Mode::Handing || left > 0 || inbox.writing || !inbox.failed.is_empty() {
            return;
        }
        // Under the lock: what comes waits for it, and so goes behind.
        while let Some(entry) = inbox.new.pop_front() {
            let Entry { record, ticket, .. } = entry;
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            if let Err((_, ticket)) = self.direct.send(&record.topic, key, value, record.rdkafka_headers(), ticket) {
                Entry { record, ticket, failed: None }.refuse();
            }
        }
        inbox.new_bytes = 0;
        self.shared.turn(&mut inbox, Mode::Direct);
        tracing::info!("the spool is empty; records go to Kafka");
    }
}
