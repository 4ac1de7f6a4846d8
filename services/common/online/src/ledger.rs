//! What the feature store notes about its own work: up to where each source partition is in Redis, and
//! whether that is being made anew. A store that has forgotten everything has forgotten this too, which is
//! how that is noticed.
//!
//! | what | key | value |
//! |---|---|---|
//! | up to where | `<prefix>:{_}:folded` | HASH: `p<partition>` -> the last offset that customers, items and trends hold; -1 for none |
//! | what is made anew | `<prefix>:{_}:rebuilding` | HASH: `p<partition>` -> `<events done>/<of>`; gone a minute after its writer |

use std::{collections::BTreeSet, time::Duration};

use redis::{Pipeline, Value, aio::ConnectionManager};

use crate::{
    Error, OnlineArgs,
    record::{parse_fence, partial_fields},
};

/// Keys of one page of a walk over all keys.
const PAGE: usize = 1_000;
/// A rebuild whose writer died is not told for longer.
const TOLD_FOR: Duration = Duration::from_secs(60);

pub(crate) fn folded_key(prefix: &str) -> String {
    format!("{prefix}:{{_}}:folded")
}

pub(crate) fn rebuilding_key(prefix: &str) -> String {
    format!("{prefix}:{{_}}:rebuilding")
}

fn field(partition: i32) -> String {
    format!("p{partition}")
}

/// The notes. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    connection: ConnectionManager,
    prefix: String,
    timeout: Duration,
}

impl Ledger {
    /// Connects at the first use. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The URL is not one of Redis's.
    pub fn new(args: &OnlineArgs) -> Result<Self, Error> {
        let timeout = args.redis_write_timeout_ms;
        Ok(Self { connection: args.connect(timeout)?, prefix: args.key_prefix.clone(), timeout })
    }

    async fn run(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        match tokio::time::timeout(self.timeout, pipeline.query_async(&mut self.connection)).await {
            Ok(answers) => Ok(answers?),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
    }

    /// Up to where each of these partitions is in Redis; `None` where Redis knows nothing of it.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn folded(&mut self, partitions: &[i32]) -> Result<Vec<Option<i64>>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(folded_key(&self.prefix));
        partitions.iter().for_each(|partition| {
            pipeline.arg(field(*partition));
        });
        let number = |value: Value| match value {
            Value::BulkString(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
            _ => None,
        };
        match self.run(&pipeline).await?.into_iter().next() {
            Some(Value::Array(values)) => Ok(values.into_iter().map(number).collect()),
            other => Err(Error::Corrupt { key: folded_key(&self.prefix), reason: format!("{other:?}") }),
        }
    }

    /// Notes where partitions are, which Redis may have known nothing of.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn begin(&mut self, folded: &[(i32, i64)]) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        for (partition, offset) in folded {
            pipeline.cmd("HSET").arg(folded_key(&self.prefix)).arg(field(*partition)).arg(offset);
        }
        if folded.is_empty() { Ok(()) } else { self.run(&pipeline).await.map(drop) }
    }

    /// Notes that partitions have come so far, but only those that Redis knows of: a note that is gone must
    /// stay gone until it has been noticed.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn advance(&mut self, folded: &[(i32, i64)]) -> Result<(), Error> {
        const SCRIPT: &str = "\
            if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end";
        let mut pipeline = redis::pipe();
        for (partition, offset) in folded {
            pipeline.cmd("EVAL").arg(SCRIPT).arg(1).arg(folded_key(&self.prefix)).arg(field(*partition)).arg(offset);
        }
        if folded.is_empty() { Ok(()) } else { self.run(&pipeline).await.map(drop) }
    }

    /// Tells readers that a partition is being made anew, and how far that is.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn tell(&mut self, partition: i32, done: u64, of: u64) -> Result<(), Error> {
        let key = rebuilding_key(&self.prefix);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HSET").arg(&key).arg(field(partition)).arg(format!("{done}/{of}"));
        pipeline.cmd("PEXPIRE").arg(&key).arg(u64::try_from(TOLD_FOR.as_millis()).unwrap_or(u64::MAX));
        self.run(&pipeline).await.map(drop)
    }

    /// The partition is whole again.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn told(&mut self, partition: i32) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HDEL").arg(rebuilding_key(&self.prefix)).arg(field(partition));
        self.run(&pipeline).await.map(drop)
    }

    /// Deletes what these source partitions have in Redis: customers, and their parts of items and trends.
    /// Walks over all keys of the prefix. Returns how many values went.
    ///
    /// # Errors
    /// Redis is away or late: the same call again finishes it.
    pub async fn wipe(&mut self, partitions: &BTreeSet<i32>) -> Result<u64, Error> {
        let (mut cursor, mut gone) = (b"0".to_vec(), 0);
        loop {
            let mut pipeline = redis::pipe();
            let pattern = format!("{}:{{*", self.prefix);
            pipeline.cmd("SCAN").arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
            let answer = self.run(&pipeline).await?.into_iter().next();
            let Some(Value::Array(answer)) = answer else {
                return Err(Error::Corrupt { key: "SCAN".into(), reason: format!("{answer:?}") });
            };
            let mut answer = answer.into_iter();
            let (Some(Value::BulkString(next)), Some(Value::Array(keys))) = (answer.next(), answer.next()) else {
                return Err(Error::Corrupt { key: "SCAN".into(), reason: "is no cursor with keys".into() });
            };
            let keys =
                keys.into_iter().filter_map(|key| if let Value::BulkString(key) = key { Some(key) } else { None });
            gone += self.wipe_page(&keys.collect::<Vec<_>>(), partitions).await?;
            cursor = next;
            if cursor == b"0" {
                return Ok(gone);
            }
        }
    }

    async fn wipe_page(&mut self, keys: &[Vec<u8>], partitions: &BTreeSet<i32>) -> Result<u64, Error> {
        let customers: Vec<&Vec<u8>> = keys.iter().filter(|key| key.ends_with(b"}:s")).collect();
        let mut fences = redis::pipe();
        customers.iter().for_each(|key| {
            fences.cmd("HGET").arg(*key).arg("o");
        });
        let fences = if customers.is_empty() { Vec::new() } else { self.run(&fences).await? };
        let ours = |fence: &Value| match fence {
            Value::BulkString(text) => parse_fence(text).is_some_and(|fence| partitions.contains(&fence.partition)),
            _ => false,
        };
        let mut gone = redis::pipe();
        let mut commands = 0;
        for (key, _) in customers.iter().zip(&fences).filter(|(_, fence)| ours(fence)) {
            gone.cmd("UNLINK").arg(*key);
            commands += 1;
        }
        for key in keys.iter().filter(|key| key.ends_with(b"}:p") || key.ends_with(b"}:trend")) {
            gone.cmd("HDEL").arg(key);
            partitions.iter().for_each(|partition| {
                partial_fields(*partition).iter().for_each(|field| {
                    gone.arg(field);
                });
            });
            commands += 1;
        }
        if commands == 0 {
            return Ok(0);
        }
        let answers = self.run(&gone).await?;
        Ok(answers.iter().filter(|answer| matches!(answer, Value::Int(1..))).count() as u64)
    }
}
