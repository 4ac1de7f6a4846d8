//! What Redis keeps of each customer under one prefix, and of those at work memory too.

use std::{collections::HashSet, num::NonZeroUsize};

use lru::LruCache;
use redis::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::redis_pipe::RedisPipe;

/// Customers that are known without asking.
const CUSTOMERS: usize = 200_000;

pub(crate) struct CustomerMemory<T> {
    prefix: Vec<u8>,
    /// By the hash of `tenant/customer`.
    known: LruCache<u128, T>,
    /// Customers that were asked about, and where their answers will stand.
    asked: Vec<(u128, usize)>,
    asking: HashSet<u128>,
}

impl<T> CustomerMemory<T> {
    /// For batches of at most `batch` records.
    pub(crate) fn new(prefix: String, batch: usize) -> Self {
        // Whoever was asked about must still be known when the answer is used.
        let customers = NonZeroUsize::new(CUSTOMERS.max(batch.saturating_mul(2))).unwrap_or(NonZeroUsize::MIN);
        Self { prefix: prefix.into_bytes(), known: LruCache::new(customers), asked: Vec::new(), asking: HashSet::new() }
    }

    /// Forgets what it knows: others may have written since, or what was decided is given up.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.begin();
    }

    /// Begins to ask about a batch.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
        self.asking.clear();
    }

    /// Asks about a customer (`tenant/customer`), once a batch, unless what is known of him is `enough`. `command`
    /// adds the command for a key, and says where its answer will stand.
    pub(crate) fn ask(
        &mut self,
        pipe: &mut RedisPipe,
        customer: &[u8],
        enough: impl FnOnce(&T) -> bool,
        command: impl FnOnce(&mut RedisPipe, &[u8]) -> usize,
    ) {
        let hash = xxh3_128(customer);
        // `get`, not `contains`: who is in this batch must not be the first that is forgotten.
        if !self.known.get(&hash).is_some_and(enough) && self.asking.insert(hash) {
            let place = command(pipe, &self.key(hash));
            self.asked.push((hash, place));
        }
    }

    /// Takes the answers to what was asked; `None` of a customer who is not there.
    pub(crate) fn take(&mut self, answers: &[Value], read: impl Fn(Option<&[u8]>) -> T) {
        for (hash, place) in self.asked.drain(..) {
            let bytes = match answers.get(place) {
                Some(Value::BulkString(bytes)) => Some(bytes.as_slice()),
                _ => None,
            };
            self.known.put(hash, read(bytes));
        }
    }

    /// What is known of a customer, who is in use.
    pub(crate) fn get(&mut self, hash: u128) -> Option<&T> {
        self.known.get(&hash)
    }

    pub(crate) fn get_or_insert(&mut self, hash: u128, new: impl FnOnce() -> T) -> &mut T {
        self.known.get_or_insert_mut(hash, new)
    }

    /// What is known of a customer who is to be written.
    pub(crate) fn peek_mut(&mut self, hash: u128) -> Option<&mut T> {
        self.known.peek_mut(&hash)
    }

    pub(crate) fn key(&self, hash: u128) -> Vec<u8> {
        // 96 bits: two of 10^9 customers share a key with a chance of 10^-11.
        let mut key = Vec::with_capacity(self.prefix.len() + 12);
        key.extend_from_slice(&self.prefix);
        key.extend(hash.to_be_bytes().iter().skip(4));
        key
    }
}
