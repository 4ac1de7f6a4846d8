//! Whether the memory is still there: its mark, and on a Cluster its nonce on every master.

use rapport_redis::witness;
use redis::{RedisError, Value};

use super::{Check, Dedup, Open, bytes, generation::Memory};
use crate::{Error, redis_pipe::RedisPipe};

/// Makes a claim the memory's own, unless the master has lost it.
const EXCHANGE: &[u8] =
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end return 0";

impl Dedup {
    /// Before ids are read back into a Cluster: every master bears this claim from now on.
    ///
    /// # Errors
    /// Redis does not answer.
    pub(crate) fn claim(&self, pipe: &mut RedisPipe, claim: &[u8]) -> Result<(), RedisError> {
        self.each_witness(pipe, |pipe, key| {
            pipe.add(&[b"SET", key, claim]);
        });
        pipe.run().map(drop)
    }

    /// From now on every cleaner uses this memory.
    ///
    /// # Errors
    /// Redis does not answer, or a master has lost what was read back into it.
    pub(crate) fn found(&mut self, pipe: &mut RedisPipe, claim: &[u8]) -> Result<(), Error> {
        let Some(open) = &self.open else { return Err(Error::MemoryLost) };
        let nonce = open.memory.nonce_text();
        self.each_witness(pipe, |pipe, key| {
            pipe.add(&[b"EVAL", EXCHANGE, b"1", key, claim, nonce.as_bytes()]);
        });
        if pipe.run()?.iter().any(|kept| *kept != Value::Int(1)) {
            return Err(Error::MemoryLost);
        }
        let key = self.marker_key();
        pipe.add(&[b"SET", key.as_bytes(), open.marker.as_bytes()]);
        pipe.run()?;
        Ok(())
    }

    /// Adds a command for every tag, on a Cluster.
    pub(super) fn each_witness(&self, pipe: &mut RedisPipe, mut add: impl FnMut(&mut RedisPipe, &[u8])) {
        if pipe.is_cluster() {
            witness::tags().iter().for_each(|tag| add(pipe, self.witness_key(&tag.text).as_bytes()));
        }
    }

    /// The last commands of every round trip: whether the memory is still the one that was asked, on every
    /// master. Returns the place of the first answer.
    ///
    /// # Errors
    /// No node of a Cluster tells who has which slot.
    pub(crate) fn ask_marker(&self, pipe: &mut RedisPipe) -> Result<usize, RedisError> {
        let tags = pipe.witnesses()?;
        if pipe.waits() {
            // An id that is found remembered is no write, and its own may have been given up too early. Replicas that
            // have a later write of the same master have that one too.
            let keys = if pipe.is_cluster() { tags.as_slice() } else { &["_"] };
            for tag in keys {
                pipe.add(&[b"SET", format!("{}{{{tag}}}:settled", self.prefix).as_bytes(), b"1"]);
            }
        }
        let place = pipe.add(&[b"GET", self.marker_key().as_bytes()]);
        for tag in tags {
            pipe.add(&[b"GET", self.witness_key(tag).as_bytes()]);
        }
        Ok(place)
    }

    /// By the answers to what [`Self::ask_marker`] added.
    ///
    /// # Errors
    /// The memory was lost.
    pub(crate) fn check(&mut self, answers: &[Value]) -> Result<Check, Error> {
        let (Some(open), Some((Value::BulkString(text), witnesses))) = (&self.open, answers.split_first()) else {
            return Err(Error::MemoryLost);
        };
        let nonce = open.memory.nonce_text();
        if !witnesses.iter().all(|witness| bytes(Some(witness)) == Some(nonce.as_bytes())) {
            return Err(Error::MemoryLost);
        }
        if text == open.marker.as_bytes() {
            return Ok(Check::Held);
        }
        match Memory::parse(text) {
            Some(memory) if memory.nonce == open.memory.nonce => {
                self.open = Some(Open::new(&self.prefix, memory, self.window_s));
                Ok(Check::Moved)
            }
            Some(_) | None => Err(Error::MemoryLost),
        }
    }

    fn witness_key(&self, tag: &str) -> String {
        format!("{}{{{tag}}}:memory", self.prefix)
    }
}
