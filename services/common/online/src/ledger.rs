//! What the feature store notes about its own work: up to where each source partition is in Redis, and
//! whether that is being made anew. A store that has forgotten everything has forgotten this too, which is
//! how that is noticed. A Cluster forgets by parts: there the note stands under every one of
//! [`rapport_redis::witness::tags`], so that each master has some, and one that lacks any is found out.
//!
//! | what | key | value |
//! |---|---|---|
//! | up to where | `<prefix>:{_}:folded`; on a Cluster `<prefix>:{<tag>}:folded` | HASH: `p<partition>` -> the last offset that customers, items and trends hold; -1 for none |
//! | what is made anew | `<prefix>:{_}:rebuilding` | HASH: `p<partition>` -> `<events done>/<of>`; gone a minute after its writer |

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rapport_redis::{Connection, Master, Replicas, witness};
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
    replicas: Replicas,
    /// Shared by clones: who advances notes and who looks after them are two.
    seen: Arc<Mutex<Seen>>,
}

/// What notes were when they were found or made last. They only ever advance while a partition is ours, so one that is
/// behind that says that its node has gone back in time.
#[derive(Debug, Default)]
struct Seen {
    /// By place and partition, as they were found.
    found: HashMap<(String, i32), i64>,
    /// By partition, as all places have it.
    made: HashMap<i32, i64>,
    /// Partitions whose note could not be advanced, for it was gone or behind.
    lost: BTreeSet<i32>,
}

impl Seen {
    fn forget(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.found.retain(|(_, of), _| *of != partition);
            self.made.remove(&partition);
            self.lost.remove(&partition);
        }
    }

    /// Whether the note is there and not behind what it was.
    fn holds(&mut self, place: &str, partition: i32, found: Option<i64>) -> bool {
        let Some(found) = found else { return false };
        let before = self.found.insert((place.to_owned(), partition), found);
        let made = self.made.get(&partition);
        before.is_none_or(|before| before <= found) && made.is_none_or(|made| *made <= found)
    }

    fn made(&mut self, partition: i32, offset: i64) {
        let made = self.made.entry(partition).or_insert(offset);
        *made = offset.max(*made);
    }
}

impl Ledger {
    /// Connects at the first use. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The URL is not one of Redis's.
    pub fn new(args: &OnlineArgs) -> Result<Self, Error> {
        let timeout = args.redis_write_timeout_ms;
        let (connection, prefix) = (args.connect(timeout)?, args.key_prefix.clone());
        Ok(Self { connection, prefix, timeout, replicas: args.replicas(), seen: Arc::default() })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        within(self.timeout, self.connection.run(pipeline)).await
    }

    /// A failover must not set a note back behind states that it keeps.
    async fn write(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        within(self.timeout, self.connection.write(pipeline, self.replicas)).await
    }

    /// Every key that the note stands at.
    fn places(&self) -> Vec<String> {
        if self.connection.is_cluster() {
            witness::tags().iter().map(|tag| folded_key(&self.prefix, &tag.text)).collect()
        } else {
            vec![folded_key(&self.prefix, ONE)]
        }
    }

    /// Up to where each of these partitions is in Redis, that have just come to this reader.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn folded(&mut self, partitions: &[i32]) -> Result<Vec<Note>, Error> {
        let places = self.places();
        let found = self.notes_at(&places, partitions).await?;
        self.seen().forget(partitions.iter().copied());
        let of = |n: usize| Note::of(found.iter().map(|place| place.get(n).copied().flatten()));
        Ok((0..partitions.len()).map(of).collect())
    }

    /// Whether Redis, or a master of a Cluster, has lost the note of one of these partitions, or has an older one
    /// than at the last look. Cheaper than [`Self::folded`]: it looks at one key of each master.
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
        let found = self.notes_at(&places, partitions).await?;
        let mut seen = self.seen();
        let mut all_hold = !partitions.iter().any(|partition| seen.lost.contains(partition));
        for (place, found) in places.iter().zip(found) {
            for (partition, found) in partitions.iter().zip(found) {
                all_hold &= seen.holds(place, *partition, found);
            }
        }
        Ok(!all_hold)
    }

    /// The notes of the partitions at each place.
    async fn notes_at(&mut self, places: &[String], partitions: &[i32]) -> Result<Vec<Vec<Option<i64>>>, Error> {
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
        Ok(found)
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
        self.seen().forget(folded.iter().map(|(partition, _)| *partition));
        if folded.is_empty() { Ok(()) } else { self.write(&pipeline).await.map(drop) }
    }

    /// Notes that partitions have come so far, but only where Redis knows of them and is not behind what it knew
    /// before: a note that is gone or behind must stay so until it has been noticed. One that is further already
    /// stays. Returns whether all were well.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn advance(&mut self, folded: &[(i32, i64)]) -> Result<bool, Error> {
        // Of each partition: its field, what the note must be at least, what it becomes. Answers with those that are
        // not so.
        const SCRIPT: &str = "\
            local lost = {}
            for n = 1, #ARGV, 3 do
                local stored = tonumber(redis.call('HGET', KEYS[1], ARGV[n]) or nil)
                if not stored or stored < tonumber(ARGV[n + 1]) then
                    lost[#lost + 1] = (n - 1) / 3
                elseif stored < tonumber(ARGV[n + 2]) then
                    redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 2])
                end
            end
            return lost";
        if folded.is_empty() {
            return Ok(true);
        }
        let least: Vec<i64> = {
            let seen = self.seen();
            folded.iter().map(|(partition, _)| seen.made.get(partition).copied().unwrap_or(i64::MIN)).collect()
        };
        let mut pipeline = redis::pipe();
        for place in self.places() {
            pipeline.cmd("EVAL").arg(SCRIPT).arg(1).arg(place);
            for ((partition, offset), least) in folded.iter().zip(&least) {
                pipeline.arg(field(*partition)).arg(least).arg(offset);
            }
        }
        let mut lost = BTreeSet::new();
        for answer in self.write(&pipeline).await? {
            let Value::Array(of_place) = answer else {
                return Err(Error::Corrupt { key: "EVAL".into(), reason: format!("{answer:?}") });
            };
            lost.extend(of_place.iter().filter_map(|n| match n {
                Value::Int(n) => folded.get(usize::try_from(*n).ok()?).map(|(partition, _)| *partition),
                _ => None,
            }));
        }
        let mut seen = self.seen();
        for (partition, offset) in folded.iter().filter(|(partition, _)| !lost.contains(partition)) {
            seen.made(*partition, *offset);
        }
        let all_well = lost.is_empty();
        seen.lost.extend(lost);
        Ok(all_well)
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

    #[test]
    fn a_note_that_is_behind_what_it_was_tells_of_a_node_that_went_back_in_time() {
        let mut seen = Seen::default();
        assert!(seen.holds("a", 0, Some(7)) && seen.holds("b", 0, Some(3)), "nothing was known");
        assert!(seen.holds("a", 0, Some(7)) && seen.holds("a", 0, Some(9)));
        assert!(!seen.holds("a", 0, Some(8)));
        assert!(!seen.holds("b", 0, None), "gone");
        seen.made(0, 12);
        assert!(!seen.holds("a", 0, Some(10)), "it was further, though nobody had looked");
        seen.forget([0]);
        assert!(seen.holds("a", 0, Some(-1)), "it was made anew, or comes from another reader");
    }
}
