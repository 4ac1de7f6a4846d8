//! The visits that go on, kept in Redis: what [`crate::sessions`] decides by.
//!
//! A visit is stored before any event that carries its id is committed: at once when it begins, and
//! then whenever it has grown by a thirtieth of the inactivity (a minute of 30). So a cleaner that is
//! killed tells the next one of every visit, and of its end to the minute. States are only ever
//! ahead of what is committed, and the same events then join the same visits.

use std::time::Duration;

use rapport_events::EventTime;
use redis::Value;

use crate::{
    customer_memory::CustomerMemory,
    redis_pipe::RedisPipe,
    sessions::{self, Session},
};

/// A state is forgotten this many times the inactivity after it was written: late events of a phone
/// that was offline still find the visit before.
const KEPT: u32 = 4;
const KEPT_AT_LEAST: Duration = Duration::from_secs(60);
/// A visit that grows is written again after this part of the inactivity.
const GROWN: u32 = 30;

pub(crate) struct SessionStore {
    /// About 150 bytes for each customer.
    memory: CustomerMemory<Known>,
    /// Customers whose state must be written, and when it may be forgotten.
    unwritten: Vec<(u128, Duration)>,
}

#[derive(Default)]
struct Known {
    session: Option<Session>,
    written: Option<Session>,
    is_unwritten: bool,
}

impl SessionStore {
    /// For batches of at most `batch` records.
    pub(crate) fn new(key_prefix: &str, batch: usize) -> Self {
        Self { memory: CustomerMemory::new(format!("{key_prefix}:s:"), batch), unwritten: Vec::new() }
    }

    /// Forgets what it knows: others may have written since, or what was decided is given up.
    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        self.unwritten.clear();
    }

    /// Begins to ask about a batch.
    pub(crate) fn begin(&mut self) {
        self.memory.begin();
    }

    /// Asks for the state of a customer (`tenant/customer`) unless it is known.
    pub(crate) fn ask(&mut self, pipe: &mut RedisPipe, customer: &[u8]) {
        self.memory.ask(pipe, customer, |_| true, |pipe, key| pipe.add(&[b"GET", key]));
    }

    pub(crate) fn take(&mut self, answers: &[Value]) {
        self.memory.take(answers, |bytes| {
            let session = bytes.and_then(Session::from_bytes);
            Known { session, written: session, is_unwritten: false }
        });
    }

    /// The visit that an event belongs to, which is longer by it from now on.
    pub(crate) fn assign(&mut self, tenant: &str, customer: &str, at: EventTime, inactivity: Duration) -> String {
        let hash = {
            let mut key = xxhash_rust::xxh3::Xxh3::new();
            for part in [tenant, "/", customer] {
                key.update(part.as_bytes());
            }
            key.digest128()
        };
        let known = self.memory.get_or_insert(hash, Known::default);
        let (id, session) = sessions::assign(known.session, tenant, customer, at, inactivity);
        known.session = Some(session);
        if !known.is_unwritten && must_be_written(known.written.as_ref(), session, inactivity) {
            known.is_unwritten = true;
            self.unwritten.push((hash, inactivity.saturating_mul(KEPT).max(KEPT_AT_LEAST)));
        }
        id
    }

    /// Adds what must be written.
    pub(crate) fn write(&mut self, pipe: &mut RedisPipe) {
        for (hash, kept) in std::mem::take(&mut self.unwritten) {
            let key = self.memory.key(hash);
            if let Some(known) = self.memory.peek_mut(hash)
                && let Some(session) = known.session
            {
                let bytes = session.to_bytes();
                pipe.add(&[b"SET", &key, &bytes, b"EX", kept.as_secs().to_string().as_bytes()]);
                known.written = Some(session);
                known.is_unwritten = false;
            }
        }
    }
}

/// Whether a visit has begun, or one has changed in more than that it goes on a little.
fn must_be_written(written: Option<&Session>, session: Session, inactivity: Duration) -> bool {
    let Some(written) = written else { return true };
    !session.only_goes_on_from(written) || session.last().since(written.last()) >= inactivity / GROWN
}

#[cfg(test)]
mod tests {
    use super::*;

    const INACTIVITY: Duration = Duration::from_secs(1800);
    const MINUTE: i64 = 60_000;

    fn at(store: &mut SessionStore, customer: &str, ms: i64) -> String {
        store.assign("demo", customer, EventTime::from_ms(ms), INACTIVITY)
    }

    fn pipe() -> RedisPipe {
        RedisPipe::new("redis://127.0.0.1:1", Duration::from_secs(1), 0).unwrap()
    }

    fn written(store: &mut SessionStore) -> usize {
        let mut pipe = pipe();
        store.write(&mut pipe);
        pipe.len()
    }

    #[test]
    fn a_visit_is_written_when_it_begins_and_when_it_has_grown_by_a_minute() {
        let mut store = SessionStore::new("p", 10);
        let first = at(&mut store, "a", 0);
        assert_eq!(at(&mut store, "a", 20_000), first);
        assert_eq!(written(&mut store), 1, "once a batch");
        at(&mut store, "a", 50_000);
        assert_eq!(written(&mut store), 0, "half a minute is not worth a write");
        at(&mut store, "a", 90_000);
        assert_eq!(written(&mut store), 1);
        assert_ne!(at(&mut store, "a", 90_000 + 31 * MINUTE), first);
        assert_eq!(written(&mut store), 1, "a new visit");
    }

    #[test]
    fn a_customer_is_asked_about_once_and_its_state_goes_on() {
        let mut before = SessionStore::new("p", 10);
        let id = at(&mut before, "a", 0);
        let (state, _) = sessions::assign(None, "demo", "a", EventTime::from_ms(0), INACTIVITY);
        assert_eq!(state, id);
        let kept = sessions::assign(None, "demo", "a", EventTime::from_ms(0), INACTIVITY).1.to_bytes();

        let (mut store, mut pipe) = (SessionStore::new("p", 10), pipe());
        store.ask(&mut pipe, b"demo/a");
        store.ask(&mut pipe, b"demo/a");
        store.ask(&mut pipe, b"demo/b");
        assert_eq!(pipe.len(), 2);
        store.take(&[Value::BulkString(kept.to_vec()), Value::Nil]);
        assert_eq!(at(&mut store, "a", 10 * MINUTE), id, "the visit of before goes on");
        store.begin();
        pipe.clear();
        store.ask(&mut pipe, b"demo/a");
        assert_eq!(pipe.len(), 0, "known by now");
        store.clear();
        store.ask(&mut pipe, b"demo/a");
        assert_eq!(pipe.len(), 1, "and not any more");
    }
}
