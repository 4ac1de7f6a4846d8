//! Writes of the feature store: load many, fold, compare and set many.

use std::{fmt, time::Duration};

use rapport_events::{Position, Tenant};
use rapport_features::CustomerState;
use rapport_redis::{Connection, Replicas};
use redis::{Pipeline, Script, Value};

use crate::{
    Error, Keys, Marker, OnlineArgs, Standing, StoredCustomer, StoredPartial,
    record::{MARKER, fence_text, partial_fields},
    walk::within,
};

/// Commands in one pipeline: large enough to hide the round trip, small enough that Redis answers
/// readers in between.
const CHUNK: usize = 256;

/// KEYS[1]; ARGV: the fence's field, the fence that was read ('' for none), a time to live in
/// milliseconds (0 for none), the marker's field, the marker that was read ('' for none), then fields and
/// values. Writes only if nobody wrote since.
const COMPARE_AND_SET: &str = "\
local stored = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[4])
if (stored[1] or '') ~= ARGV[2] or (stored[2] or '') ~= ARGV[5] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 6))
if ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1";

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Written,
    /// Somebody else wrote since this value was read: read again, fold what is newer, try again.
    Conflict,
}

/// One value, and the fence and the marker it was made from.
pub struct Write {
    key: String,
    fence_field: String,
    expected: Option<Position>,
    fence: Position,
    marker_field: String,
    expected_marker: Option<Marker>,
    fields: Vec<(String, Vec<u8>)>,
}

/// A marker as it was read, and as it becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marked {
    pub read: Option<Marker>,
    pub becomes: Option<Marker>,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} -> {:?}", self.key, self.expected, self.fence)
    }
}

impl Write {
    /// `key` from [`Keys::customer`]; `expected` is the fence that was read, `fence` the last event
    /// folded in.
    pub fn customer(
        key: String,
        expected: Option<Position>,
        fence: Position,
        marked: Marked,
        state: &CustomerState,
    ) -> Self {
        let fields = StoredCustomer::fields_of(state);
        let fields = fields.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        Self::of(key, ["o".into(), MARKER.into()], expected, fence, marked, fields)
    }

    fn of(
        key: String,
        [fence_field, marker_field]: [String; 2],
        expected: Option<Position>,
        fence: Position,
        marked: Marked,
        mut fields: Vec<(String, Vec<u8>)>,
    ) -> Self {
        if let Some(marker) = marked.becomes.filter(|_| marked.becomes != marked.read) {
            fields.push((marker_field.clone(), marker.to_string().into_bytes()));
        }
        Self { key, fence_field, expected, fence, marker_field, expected_marker: marked.read, fields }
    }

    /// A partial of an item, a segment or a trend; `key` from [`Keys::shared`] or [`Keys::trends`].
    pub fn partial(key: String, expected: Option<Position>, fence: Position, marked: Marked, bytes: Vec<u8>) -> Self {
        let [fence_field, state_field, marker_field] = partial_fields(fence.partition);
        Self::of(key, [fence_field, marker_field], expected, fence, marked, vec![(state_field, bytes)])
    }
}

/// The feature store's connection.
pub struct OnlineWriter {
    connection: Connection,
    keys: Keys,
    timeout: Duration,
    replicas: Replicas,
    /// Writes were made of which nobody knows whether enough replicas have them: those of before the start, or of
    /// a call that failed. Who tries again would find them made.
    owes: bool,
    ttl: Option<Duration>,
    script: Script,
}

impl OnlineWriter {
    /// Connects at the first use. Must be called within a Tokio runtime. `ttl`: keys that nothing
    /// is written to for so long are forgotten; `None` keeps them.
    ///
    /// # Errors
    /// The URL is not one of Redis's.
    pub fn new(args: &OnlineArgs, ttl: Option<Duration>) -> Result<Self, Error> {
        let timeout = args.redis_write_timeout_ms;
        let script = Script::new(COMPARE_AND_SET);
        let replicas = args.replicas();
        Ok(Self {
            connection: args.connect(timeout)?,
            keys: args.keys(),
            timeout,
            replicas,
            owes: replicas.count > 0,
            ttl,
            script,
        })
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    async fn run(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        self.settle().await?;
        match tokio::time::timeout(self.timeout, self.connection.run(pipeline)).await {
            Ok(answers) => Ok(answers?),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
    }

    /// Waits until replicas have what is owed: they take writes in their order, so one more write on each master
    /// that they have says that they have those before it.
    async fn settle(&mut self) -> Result<(), Error> {
        if !self.owes {
            return Ok(());
        }
        let mut tags = within(self.timeout, self.connection.witnesses()).await?;
        if !self.connection.is_cluster() {
            tags.push("_");
        }
        let mut pipeline = redis::pipe();
        for tag in tags {
            pipeline.cmd("SET").arg(self.keys.settled(tag)).arg(1);
        }
        within(self.timeout, self.connection.write(&pipeline, self.replicas)).await?;
        self.owes = false;
        Ok(())
    }

    /// Whether Redis answers, all of it.
    ///
    /// # Errors
    /// It does not, within the write timeout.
    pub async fn ping(&mut self) -> Result<(), Error> {
        match tokio::time::timeout(self.timeout, self.connection.ping()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
    }

    /// Loads customers by key, in the order of the keys.
    ///
    /// # Errors
    /// Redis is away or late. A corrupt record is an error of its own.
    pub async fn load_customers(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<Result<Option<StoredCustomer>, Error>>, Error> {
        let mut customers = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let mut pipeline = redis::pipe();
            chunk.iter().for_each(|key| {
                pipeline.cmd("HMGET").arg(key).arg(&StoredCustomer::ALL_FIELDS);
            });
            let answers = self.run(&pipeline).await?;
            customers.extend(chunk.iter().zip(answers).map(|(key, a)| StoredCustomer::from_answer(key.clone(), a)));
        }
        Ok(customers)
    }

    /// Loads what one source partition has of items or trends, by key.
    ///
    /// # Errors
    /// As [`Self::load_customers`].
    pub async fn load_partials(
        &mut self,
        keys: &[(String, i32)],
    ) -> Result<Vec<Result<Option<StoredPartial>, Error>>, Error> {
        let mut partials = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let mut pipeline = redis::pipe();
            for (key, partition) in chunk {
                pipeline.cmd("HMGET").arg(key).arg(&partial_fields(*partition));
            }
            let answers = self.run(&pipeline).await?;
            partials.extend(chunk.iter().zip(answers).map(|((key, _), a)| StoredPartial::from_answer(key, a)));
        }
        Ok(partials)
    }

    /// How far customers are, by key.
    ///
    /// # Errors
    /// As [`Self::load_customers`].
    pub async fn customers_stand(&mut self, keys: &[String]) -> Result<Vec<Option<Standing>>, Error> {
        self.stand(keys, "o", MARKER).await
    }

    /// How far one source partition's part of items is, by key.
    ///
    /// # Errors
    /// As [`Self::load_customers`].
    pub async fn partials_stand(&mut self, keys: &[String], partition: i32) -> Result<Vec<Option<Standing>>, Error> {
        let [fence, _, marker] = partial_fields(partition);
        self.stand(keys, &fence, &marker).await
    }

    async fn stand(&mut self, keys: &[String], fence: &str, marker: &str) -> Result<Vec<Option<Standing>>, Error> {
        let mut standings = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let mut pipeline = redis::pipe();
            chunk.iter().for_each(|key| {
                pipeline.cmd("HMGET").arg(key).arg(fence).arg(marker);
            });
            for (key, answer) in chunk.iter().zip(self.run(&pipeline).await?) {
                standings.push(Standing::from_answer(key, answer)?);
            }
        }
        Ok(standings)
    }

    /// Writes values, each if its fence and its marker are still those that were read. Each outcome stands at its
    /// write's place.
    ///
    /// # Errors
    /// Redis is away, late or refuses: any of the writes may have been made. Read again before
    /// trying again.
    pub async fn write(&mut self, writes: &[Write]) -> Result<Vec<Outcome>, Error> {
        let ttl = self.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(0)).to_string();
        let mut outcomes = Vec::with_capacity(writes.len());
        for chunk in writes.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(chunk.len() + 1);
            // Redis forgets scripts when it restarts: loading costs less than noticing.
            pipeline.cmd("SCRIPT").arg("LOAD").arg(COMPARE_AND_SET);
            for write in chunk {
                let expected = write.expected.map(fence_text).unwrap_or_default();
                pipeline.cmd("EVALSHA").arg(self.script.get_hash()).arg(1).arg(&write.key);
                let marker = write.expected_marker.map(|marker| marker.to_string()).unwrap_or_default();
                pipeline.arg(&write.fence_field).arg(expected).arg(&ttl).arg(&write.marker_field).arg(marker);
                pipeline.arg(&write.fence_field).arg(fence_text(write.fence));
                for (name, bytes) in &write.fields {
                    pipeline.arg(name).arg(bytes.as_slice());
                }
            }
            self.settle().await?;
            self.owes = self.replicas.count > 0;
            let answers = within(self.timeout, self.connection.write_after_first(&pipeline, self.replicas)).await?;
            self.owes = false;
            for answer in answers {
                outcomes.push(match answer {
                    Value::Int(1) => Outcome::Written,
                    Value::Int(_) => Outcome::Conflict,
                    Value::ServerError(error) => return Err(Error::Redis(error.into())),
                    other => return Err(Error::Corrupt { key: "EVALSHA".into(), reason: format!("{other:?}") }),
                });
            }
        }
        Ok(outcomes)
    }

    /// The tenant's key of a customer, for callers that have no [`Keys`] at hand.
    pub fn customer_key(&self, tenant: &Tenant, customer_id: &str) -> String {
        self.keys.customer(tenant, customer_id)
    }
}
