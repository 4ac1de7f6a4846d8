//! Seen once: the first sight of an event id stores where that record stands on the raw topic. The
//! same id at the same place is a replay (a crash, a rebalance) and passes; at another place it is
//! a duplicate. So a crash between the look-up and the commit loses nothing and doubles nothing:
//! what was looked up and never written is read again at the same place. A zombie that looks up the
//! same record gets the same answer, and its transaction is refused.
//!
//! The store is Redis, shared by all cleaners: duplicates are found on whatever partition they come
//! in. An id is a field of 8 bytes in one of many small hashes, which Redis keeps as compact lists:
//! about 25 bytes an id instead of the 145 of a key of its own. Ids go to one generation of hashes
//! for a window, and are found there for a second one; see [`generation`].
//!
//! # When Redis loses its memory
//!
//! Every look-up checks the key that describes the memory. When it is gone, or made anew by another
//! cleaner, the open transaction is given up, and the ids of the last window are read back from the
//! clean topic (`--dedup-rebuild`, 2 million records by default) before cleaning goes on.
//! Then a copy is counted twice only when its first sight is
//! - further back on the clean topic than `--dedup-rebuild` records, or
//! - one of the records that *another* cleaner had looked up and not yet written at that moment: at
//!   most four batches of `--batch` (2,000) each.
//!
//! A Cluster loses its memory by parts. There the nonce of the memory stands under every one of
//! [`rapport_redis::witness::tags`] too, and every look-up checks one of these on each master: a master that lacks
//! it has come back empty, and the whole memory is made anew as above. While it is, the tags bear the claim of
//! the cleaner that makes it, and a master that loses ids meanwhile loses the claim with them.
//!
//! A Redis that restarts from its append-only file, and has lost the end of it (`appendfsync
//! everysec`: one second), looks whole and is not rebuilt: copies of the ids first seen in that second
//! pass once more. So do those of a moment before a failover, unless `--redis-replicas` says that replicas must
//! have an id before it counts. So does one that evicts: let it run with `maxmemory-policy noeviction`.

pub(crate) mod generation;
pub(crate) mod sight;
mod witnesses;

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rapport_events::Position;
use rapport_runtime::parse_duration;
use redis::{RedisError, Value};
use xxhash_rust::xxh3::xxh3_64;

use self::{
    generation::Memory,
    sight::{IdHash, Place, is_duplicate},
};
use crate::{Error, redis_pipe::RedisPipe};

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Duplicate detection")]
pub struct DedupArgs {
    /// Redis that remembers event ids (7.0 or newer): one node as redis://[user:password@]host:port[/db], a Redis
    /// Cluster as redis-cluster://[user:password@]host:port[,host:port]...
    #[arg(long, env = "RAPPORT_REDIS_URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: String,

    /// What all keys begin with
    #[arg(long, env = "RAPPORT_KEY_PREFIX", default_value = "rapport")]
    pub key_prefix: String,

    /// How long an event id is remembered at least; at most it is twice that. About 25 bytes of Redis
    /// memory for each event
    #[arg(long, env = "RAPPORT_DEDUP_WINDOW", default_value = "24h", value_parser = parse_duration)]
    pub dedup_window: Duration,

    /// When Redis has lost its memory: how many of the newest clean events are read back into it, at
    /// most those of one window. None with 0
    #[arg(long, env = "RAPPORT_DEDUP_REBUILD", default_value_t = 2_000_000)]
    pub dedup_rebuild: u64,

    /// A look-up that takes longer has failed; the cleaner then waits for Redis
    #[arg(long, env = "RAPPORT_REDIS_TIMEOUT", default_value = "2s", value_parser = parse_duration)]
    pub redis_timeout: Duration,

    /// An id counts as remembered when so many replicas of its master have it too, so that a failover does not lose it;
    /// while fewer are there, the cleaner waits. With 0 a failover may lose the last moment before it, and copies of
    /// those ids pass once more
    #[arg(long, env = "RAPPORT_REDIS_REPLICAS", default_value_t = 0)]
    pub redis_replicas: u8,
}

impl DedupArgs {
    /// # Errors
    /// The flag and what would be right.
    pub fn check(&self) -> Result<(), String> {
        rapport_redis::check_url(&self.redis_url).map_err(|e| format!("--redis-url {e}"))?;
        if self.dedup_window < Duration::from_secs(1) {
            return Err(format!("--dedup-window must be 1s or more, is {:?}", self.dedup_window));
        }
        if self.redis_timeout.is_zero() {
            return Err("--redis-timeout must be more than nothing".into());
        }
        Ok(())
    }
}

/// The memory before anything is known of its load: 65,536 buckets.
const FIRST_IDS: u64 = 3_000_000;
/// Buckets that are looked at to know the size of all.
const SAMPLE: u64 = 64;
/// Moves to the next generation unless another cleaner has done so.
const REPLACE: &[u8] =
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end return 1";

/// The memory of event ids, as one cleaner sees it.
pub(crate) struct Dedup {
    prefix: String,
    window_s: i64,
    open: Option<Open>,
    /// Commands and look-ups of the batch that is being asked about.
    asked: Vec<Asked>,
    key: Vec<u8>,
    text: Vec<u8>,
}

/// The memory that is in use.
struct Open {
    memory: Memory,
    /// As it stands in Redis.
    marker: String,
    /// What the keys of its buckets, and of the buckets before, begin with.
    keys: String,
    keys_before: String,
    expire: String,
    /// The buckets that this cleaner has given their time of expiry; one bit each.
    expiring: Vec<u64>,
}

/// Where the answers about one record will stand, and what to compare them with.
struct Asked {
    hash: IdHash,
    here: Place,
    before: Option<usize>,
    stored: usize,
}

/// How the memory is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Whole,
    /// Redis knows nothing: it is new, or has lost it.
    Empty,
}

/// What the check at the end of a round trip says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// All answers are from one memory.
    Held,
    /// The next generation has begun meanwhile: ask again.
    Moved,
}

/// How large the memory is, from a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    /// Of this generation.
    pub ids: u64,
    /// Redis memory for each; `None` while there is none.
    pub bytes_per_id: Option<f64>,
}

impl Dedup {
    pub(crate) fn new(args: &DedupArgs) -> Self {
        Self {
            prefix: format!("{}:d:", args.key_prefix),
            window_s: i64::try_from(args.dedup_window.as_secs()).unwrap_or(i64::MAX).max(1),
            open: None,
            asked: Vec::new(),
            key: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Looks what memory there is, and uses it from now on.
    ///
    /// # Errors
    /// Redis does not answer.
    pub(crate) fn open(&mut self, pipe: &mut RedisPipe) -> Result<Found, RedisError> {
        pipe.clear();
        let key = self.marker_key();
        pipe.add(&[b"GET", key.as_bytes()]);
        self.each_witness(pipe, |pipe, key| {
            pipe.add(&[b"GET", key]);
        });
        let answers = pipe.run()?;
        let memory = match answers.first() {
            Some(Value::BulkString(text)) => Memory::parse(text),
            _ => None,
        };
        let memory = memory.filter(|memory| {
            let nonce = memory.nonce_text();
            answers.iter().skip(1).all(|witness| bytes(Some(witness)) == Some(nonce.as_bytes()))
        });
        self.open = memory.map(|memory| Open::new(&self.prefix, memory, self.window_s));
        Ok(if self.open.is_some() { Found::Whole } else { Found::Empty })
    }

    /// Begins a memory of nothing, for about `ids` of them; [`Self::found`] tells Redis of it.
    pub(crate) fn start(&mut self, ids: u64) {
        // A new id of ours is as good as random.
        let nonce = xxh3_64(rapport_events::new_event_id().as_bytes());
        let memory = Memory::first(nonce, now_s(), ids.max(FIRST_IDS));
        self.open = Some(Open::new(&self.prefix, memory, self.window_s));
    }

    /// Begins to ask about a batch.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
    }

    /// Asks whether an id was seen before, and has it remembered where it was not.
    pub(crate) fn ask(&mut self, pipe: &mut RedisPipe, tenant: &[u8], id: &[u8], at: Position) {
        let Some(open) = &mut self.open else { return };
        let (hash, here) = (IdHash::of(tenant, id, &mut self.text), Place::of(at));
        let before = open.memory.before_bits.map(|bits| {
            bucket_key(&mut self.key, &open.keys_before, hash.bucket(bits));
            pipe.add(&[b"HGET", &self.key, &hash.name])
        });
        bucket_key(&mut self.key, &open.keys, hash.bucket(open.memory.bits));
        let stored = pipe.add(&[b"HSETNX", &self.key, &hash.name, here.as_bytes()]);
        open.let_expire(pipe, &self.key, hash);
        self.asked.push(Asked { hash, here, before, stored });
    }

    /// Has an id remembered that stood on the clean topic, over whatever was remembered since.
    pub(crate) fn put(&mut self, pipe: &mut RedisPipe, tenant: &[u8], id: &[u8], at: Position) {
        let Some(open) = &mut self.open else { return };
        let hash = IdHash::of(tenant, id, &mut self.text);
        bucket_key(&mut self.key, &open.keys, hash.bucket(open.memory.bits));
        pipe.add(&[b"HSET", &self.key, &hash.name, Place::of(at).as_bytes()]);
        open.let_expire(pipe, &self.key, hash);
    }

    /// For each record that was asked about, in order: whether its id was seen at another place.
    /// Takes a second round trip where this generation knew an id already.
    ///
    /// # Errors
    /// Redis does not answer, or has lost its memory.
    pub(crate) fn duplicates(
        &mut self,
        pipe: &mut RedisPipe,
        answers: &[Value],
        duplicates: &mut Vec<bool>,
    ) -> Result<(), Error> {
        let Some(open) = &self.open else { return Err(Error::MemoryLost) };
        pipe.clear();
        duplicates.clear();
        let mut known = Vec::new();
        for (index, asked) in self.asked.iter().enumerate() {
            let first = asked.before.and_then(|place| bytes(answers.get(place)));
            let was_known = matches!(answers.get(asked.stored), Some(Value::Int(0)));
            if first.is_none() && was_known {
                bucket_key(&mut self.key, &open.keys, asked.hash.bucket(open.memory.bits));
                pipe.add(&[b"HGET", &self.key, &asked.hash.name]);
                known.push(index);
            }
            duplicates.push(first.is_some_and(|first| is_duplicate(first, &asked.here)));
        }
        let firsts = pipe.run()?;
        for (index, first) in known.into_iter().zip(&firsts) {
            let first = bytes(Some(first)).ok_or(Error::MemoryLost)?;
            if let (Some(duplicate), Some(asked)) = (duplicates.get_mut(index), self.asked.get(index)) {
                *duplicate = is_duplicate(first, &asked.here);
            }
        }
        Ok(())
    }

    /// Moves to the next generation when this one's time is over.
    ///
    /// # Errors
    /// Redis does not answer, or has lost its memory.
    pub(crate) fn turn(&mut self, pipe: &mut RedisPipe) -> Result<(), Error> {
        let now_s = now_s();
        let Some(memory) = self.open.as_ref().map(|open| open.memory).filter(|m| m.is_over(now_s, self.window_s))
        else {
            return Ok(());
        };
        let size = self.size(pipe)?;
        let next = memory.next(now_s, self.window_s, size.ids);
        let (key, old, new) = (self.marker_key(), memory.to_string(), next.to_string());
        pipe.add(&[b"EVAL", REPLACE, b"1", key.as_bytes(), old.as_bytes(), new.as_bytes()]);
        pipe.run()?;
        match self.open(pipe)? {
            Found::Whole => Ok(()),
            Found::Empty => Err(Error::MemoryLost),
        }
    }

    /// # Errors
    /// Redis does not answer.
    pub(crate) fn size(&mut self, pipe: &mut RedisPipe) -> Result<Size, RedisError> {
        let Some(open) = &self.open else { return Ok(Size { ids: 0, bytes_per_id: None }) };
        pipe.clear();
        let buckets = open.memory.buckets();
        for n in 0..SAMPLE {
            let bucket = u32::try_from(n * (buckets / SAMPLE)).unwrap_or(0);
            bucket_key(&mut self.key, &open.keys, bucket);
            pipe.add(&[b"HLEN", &self.key]);
            pipe.add(&[b"MEMORY", b"USAGE", &self.key]);
        }
        let (mut ids, mut used) = (0_u64, 0_u64);
        for (n, answer) in pipe.run()?.iter().enumerate() {
            // The answer about the memory of a bucket that is not there is nil.
            let Value::Int(number) = answer else { continue };
            let sum = if n % 2 == 0 { &mut ids } else { &mut used };
            *sum += number.unsigned_abs();
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let bytes_per_id = (ids > 0).then(|| used as f64 / ids as f64);
        Ok(Size { ids: ids.saturating_mul(buckets) / SAMPLE, bytes_per_id })
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.window_s.unsigned_abs())
    }

    fn marker_key(&self) -> String {
        format!("{}memory", self.prefix)
    }

    /// What is held while one cleaner reads the memory back and the others wait.
    pub(crate) fn rebuild_key(&self) -> String {
        format!("{}rebuild", self.prefix)
    }
}

impl Open {
    fn new(prefix: &str, memory: Memory, window_s: i64) -> Self {
        let words = usize::try_from(memory.buckets().div_ceil(64)).unwrap_or(0);
        Self {
            marker: memory.to_string(),
            keys: format!("{prefix}{}:", memory.generation),
            keys_before: format!("{prefix}{}:", memory.generation.saturating_sub(1)),
            expire: memory.buckets_expire_s(window_s).to_string(),
            expiring: vec![0; words],
            memory,
        }
    }

    /// Every bucket goes by itself some day: each cleaner says when, once for each bucket.
    fn let_expire(&mut self, pipe: &mut RedisPipe, key: &[u8], hash: IdHash) {
        let bucket = hash.bucket(self.memory.bits);
        let (word, bit) = (usize::try_from(bucket / 64).unwrap_or(usize::MAX), 1_u64 << (bucket % 64));
        if let Some(word) = self.expiring.get_mut(word)
            && *word & bit == 0
        {
            *word |= bit;
            pipe.add(&[b"EXPIREAT", key, self.expire.as_bytes()]);
        }
    }
}

fn bucket_key(key: &mut Vec<u8>, begin: &str, bucket: u32) {
    key.clear();
    key.extend_from_slice(begin.as_bytes());
    // Writing into memory does not fail.
    write!(key, "{bucket:x}").ok();
}

fn bytes(answer: Option<&Value>) -> Option<&[u8]> {
    match answer {
        Some(Value::BulkString(bytes)) => Some(bytes),
        _ => None,
    }
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
