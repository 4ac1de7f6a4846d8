//! What the feature store notes about its own work: up to where each source partition is in Redis, and
//! whether that is being made anew. A store that has forgotten everything has forgotten this too, which is
//! how that is noticed. A Cluster forgets by parts: there the note stands under every one of
//! [`rapport_redis::witness::tags`], so that each master has some, and one that lacks any is found out.
//!
//! | what | key | value |
//! |---|---|---|
//! | up to where | `<prefix>:{_}:folded`; on a Cluster `<prefix>:{<tag>}:folded` | HASH: `p<partition>` -> the last offset that customers, items and trends hold; -1 for none |
//! | what is made anew | `<prefix>:{_}:rebuilding` | HASH: `p<partition>` -> `<events done>/<of>`; gone a minute after its writer |

use std::{collections::BTreeSet, time::Duration};

use rapport_redis::{Connection, Master, witness};
use redis::{Pipeline, Value};

use crate::{
    Error, OnlineArgs,
    record::{parse_fence, partial_fields},
    walk::{START, scan, scanned, within},
};

/// Keys of one page of a walk over all keys.
const PAGE: usize = 1_000;
/// A rebuild whose writer died is not told for longer.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// The tag of the note on one node.
const ONE: &str = "_";
/// Walks over a Cluster whose slots move meanwhile are begun anew so often before they fail.
const WALKS: usize = 5;

fn folded_key(prefix: &str, tag: &str) -> String {
    format!("{prefix}:{{{tag}}}:folded")
}

/// What Redis knows of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Nothing: it is new, or has forgotten everything.
    None,
    /// A part of it has forgotten the partition, and other parts have not.
    Torn,
    /// Everything up to this offset.
    At(i64),
}

impl Note {
    /// By what stands at every place where it should; what is behind at one place is behind.
    fn of(found: impl IntoIterator<Item = Option<i64>>) -> Self {
        let mut of_all = None;
        for (place, found) in found.into_iter().enumerate() {
            of_all = Some(match (of_all, found) {
                (None, None) => Self::None,
                (None, Some(offset)) if place == 0 => Self::At(offset),
                (Some(Self::None), None) => Self::None,
                (Some(Self::At(least)), Some(offset)) => Self::At(least.min(offset)),
                (Some(_) | None, _) => Self::Torn,
            });
        }
        of_all.unwrap_or(Self::None)
    }
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
    connection: Connection,
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
        within(self.timeout, self.connection.run(pipeline)).await
    }

    /// Every key that the note stands at.
    fn places(&self) -> Vec<String> {
        if self.connection.is_cluster() {
            witness::tags().iter().map(|tag| folded_key(&self.prefix, &tag.text)).collect()
        } else {
            vec![folded_key(&self.prefix, ONE)]
        }
    }

    /// Up to where each of these partitions is in Redis.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn folded(&mut self, partitions: &[i32]) -> Result<Vec<Note>, Error> {
        let places = self.places();
        self.notes_at(&places, partitions).await
    }

    /// Whether Redis, or a master of a Cluster, has lost the note of one of these partitions. Cheaper than
    /// [`Self::folded`]: it looks at one key of each master.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn has_forgotten(&mut self, partitions: &[i32]) -> Result<bool, Error> {
        let tags = within(self.timeout, self.connection.witnesses()).await?;
        let places: Vec<String> = if self.connection.is_cluster() {
            tags.into_iter().map(|tag| folded_key(&self.prefix, tag)).collect()
        } else {
            vec![folded_key(&self.prefix, ONE)]
        };
        let notes = self.notes_at(&places, partitions).await?;
        Ok(notes.iter().any(|note| !matches!(note, Note::At(_))))
    }

    async fn notes_at(&mut self, places: &[String], partitions: &[i32]) -> Result<Vec<Note>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let fields: Vec<String> = partitions.iter().copied().map(field).collect();
        let mut pipeline = redis::pipe();
        places.iter().for_each(|place| {
            pipeline.cmd("HMGET").arg(place).arg(&fields);
        });
        let number = |value: &Value| match value {
            Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        };
        let mut found: Vec<Vec<Option<i64>>> = Vec::with_capacity(places.len());
        for (place, answer) in places.iter().zip(self.run(&pipeline).await?) {
            let Value::Array(values) = answer else {
                return Err(Error::Corrupt { key: place.clone(), reason: format!("{answer:?}") });
            };
            found.push(values.iter().map(number).collect());
        }
        let of = |n: usize| Note::of(found.iter().map(|place| place.get(n).copied().flatten()));
        Ok((0..partitions.len()).map(of).collect())
    }

    /// Notes where partitions are, which Redis may have known nothing of.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn begin(&mut self, folded: &[(i32, i64)]) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        for place in self.places() {
            pipeline.cmd("HSET").arg(place);
            for (partition, offset) in folded {
                pipeline.arg(field(*partition)).arg(offset);
            }
        }
        if folded.is_empty() { Ok(()) } else { self.run(&pipeline).await.map(drop) }
    }

    /// Notes that partitions have come so far, but only where Redis knows of them: a note that is gone must
    /// stay gone until it has been noticed. Returns whether none was gone.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn advance(&mut self, folded: &[(i32, i64)]) -> Result<bool, Error> {
        const SCRIPT: &str = "\
            local gone = 0
            for n = 1, #ARGV, 2 do
                if redis.call('HEXISTS', KEYS[1], ARGV[n]) == 1 then
                    redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 1])
                else
                    gone = gone + 1
                end
            end
            return gone";
        if folded.is_empty() {
            return Ok(true);
        }
        let mut pipeline = redis::pipe();
        for place in self.places() {
            pipeline.cmd("EVAL").arg(SCRIPT).arg(1).arg(place);
            for (partition, offset) in folded {
                pipeline.arg(field(*partition)).arg(offset);
            }
        }
        Ok(self.run(&pipeline).await?.iter().all(|gone| matches!(gone, Value::Int(0))))
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
    /// Walks over all keys of the prefix, on every master. Returns how many values went.
    ///
    /// # Errors
    /// Redis is away or late, or a Cluster's slots move all the time: the same call again finishes it.
    pub async fn wipe(&mut self, partitions: &BTreeSet<i32>) -> Result<u64, Error> {
        let mut gone = 0;
        let mut layout = within(self.timeout, self.connection.layout()).await?;
        for _ in 0..WALKS {
            for master in layout.masters() {
                gone += self.wipe_on(&master, partitions).await?;
            }
            // A key whose slot has moved to a master that had been walked over was not met.
            let now = within(self.timeout, self.connection.layout()).await?;
            if now == layout {
                return Ok(gone);
            }
            layout = now;
        }
        Err(Error::Timeout(self.timeout))
    }

    async fn wipe_on(&mut self, master: &Master, partitions: &BTreeSet<i32>) -> Result<u64, Error> {
        let (mut cursor, mut gone) = (START.to_vec(), 0);
        let pattern = format!("{}:{{*", self.prefix);
        loop {
            let page = scan(&cursor, &pattern, PAGE);
            let (next, keys) = scanned(within(self.timeout, self.connection.run_on(master, &page)).await?)?;
            gone += self.wipe_page(&keys, partitions).await?;
            cursor = next;
            if cursor == START {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_where_every_place_has_it_and_is_as_far_as_the_last_of_them() {
        assert_eq!(Note::of([Some(7)]), Note::At(7), "one node");
        assert_eq!(Note::of([None]), Note::None);
        assert_eq!(Note::of([Some(7), Some(5), Some(9)]), Note::At(5));
        assert_eq!(Note::of([None, None]), Note::None);
        for torn in [[Some(1), None, Some(1)], [None, Some(1), Some(1)], [Some(1), Some(1), None]] {
            assert_eq!(Note::of(torn), Note::Torn, "{torn:?}: a master has forgotten");
        }
    }
}
