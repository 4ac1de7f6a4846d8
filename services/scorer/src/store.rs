//! The online store as the scorer uses it: one round trip for a customer, lists written whole,
//! trends. Every call is bounded in time, and none is tried while the store is down.

pub mod redis;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use rapport_events::{EventTime, Tenant};

pub use self::redis::SeenItems;
use crate::{breaker::Breaker, trends::Trends};

/// What to read beside the version and the items that the customer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// The cached list: all that an answer from it needs.
    List,
    /// What the customer did, to make a list from.
    History,
}

/// A customer whom the store knows.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// How many of the customer's events have been applied.
    pub version: u64,
    pub newest: Option<EventTime>,
    pub seen: SeenItems,
    /// The cached list's bytes. Empty unless asked for with [`With::List`].
    pub list: Option<Vec<u8>>,
    /// Item ids, newest last. Empty unless asked for with [`With::History`].
    pub history: Vec<String>,
    /// When each of them was taken.
    pub history_times: Vec<EventTime>,
    /// By which type of event.
    pub history_types: Vec<String>,
    /// By the newest event. `None` unless asked for with [`With::History`].
    pub segment: Option<String>,
}

/// Why the store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the online store has failed several times in a row and is not asked for a moment")]
    Open,
    #[error("no answer from the online store within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("online store: {0}")]
    Failed(String),
    /// What is stored of one customer or trend cannot be read; the store itself is well.
    #[error("online store: {0}")]
    Corrupt(String),
}

/// The effects behind the answers: Redis, or a map in tests.
pub trait Store: Send + Sync {
    /// One round trip. `None` for a customer that the store has never seen.
    fn customer<'a>(
        &'a self,
        tenant: &'a Tenant,
        customer: &'a str,
        with: With,
    ) -> BoxFuture<'a, Result<Option<Known>, StoreError>>;

    /// Replaces the cached list.
    fn put_list<'a>(
        &'a self,
        tenant: &'a Tenant,
        customer: &'a str,
        list: Vec<u8>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Of everybody, or of the customers in a segment.
    fn trends<'a>(&'a self, tenant: &'a Tenant, segment: Option<&'a str>) -> BoxFuture<'a, Result<Trends, StoreError>>;

    /// Whether it is being made anew from the log: it knows a part of the events.
    fn rebuilding(&self) -> BoxFuture<'_, Result<bool, StoreError>>;
}

/// A store behind a time limit and a breaker.
pub struct Guarded {
    store: Box<dyn Store>,
    breaker: Breaker,
    timeout: Duration,
    list_ttl: Duration,
    rebuilding: AtomicBool,
}

impl Guarded {
    pub fn new(store: Box<dyn Store>, timeout: Duration, list_ttl: Duration) -> Self {
        Self { store, breaker: Breaker::default(), timeout, list_ttl, rebuilding: AtomicBool::new(false) }
    }

    /// # Errors
    /// The store is down or slow; at once when that is known.
    pub async fn customer(&self, tenant: &Tenant, id: &str, with: With) -> Result<Option<Known>, StoreError> {
        self.guard(self.store.customer(tenant, id, with), self.timeout).await
    }

    /// Lists expire at different times, or a day's first wave of them would be made anew together.
    ///
    /// # Errors
    /// The store is down or slow.
    pub async fn put_list(&self, tenant: &Tenant, customer: &str, list: Vec<u8>) -> Result<(), StoreError> {
        let ttl = self.list_ttl.mul_f64(rand::random_range(0.9..1.1));
        self.guard(self.store.put_list(tenant, customer, list, ttl), self.timeout).await
    }

    /// # Errors
    /// The store is down or slow.
    pub async fn trends(&self, tenant: &Tenant, segment: Option<&str>) -> Result<Trends, StoreError> {
        // A hundred times a customer's bytes, and nobody waits for it but a tenant's first stranger.
        self.guard(self.store.trends(tenant, segment), self.timeout * 4).await
    }

    /// Looks whether the store is being made anew; what it was stays while it does not answer.
    pub async fn look_whether_rebuilding(&self) {
        if let Ok(rebuilding) = self.guard(self.store.rebuilding(), self.timeout).await
            && self.rebuilding.swap(rebuilding, Ordering::Relaxed) != rebuilding
        {
            metrics::gauge!("rapport_scorer_store_rebuilding").set(f64::from(u8::from(rebuilding)));
            tracing::warn!(
                rebuilding,
                "the online store is made anew from the log: answers reflect a part of the events"
            );
        }
    }

    /// Whether the store was being made anew when it was looked last.
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilding.load(Ordering::Relaxed)
    }

    /// Whether the store is known to be down.
    pub fn is_down(&self) -> bool {
        self.breaker.is_open()
    }

    /// Asks a store that is down whether it is back; returns whether it is.
    pub async fn probe(&self, tenant: &Tenant) -> bool {
        let answer = self.watch(self.store.customer(tenant, "probe", With::List), self.timeout).await;
        !matches!(answer, Err(StoreError::Open | StoreError::Late(_) | StoreError::Failed(_)))
    }

    async fn guard<T>(&self, call: BoxFuture<'_, Result<T, StoreError>>, timeout: Duration) -> Result<T, StoreError> {
        if self.breaker.is_open() {
            return Err(StoreError::Open);
        }
        self.watch(call, timeout).await
    }

    /// Calls the store, and notes whether it is there.
    async fn watch<T>(&self, call: BoxFuture<'_, Result<T, StoreError>>, timeout: Duration) -> Result<T, StoreError> {
        let result = match tokio::time::timeout(timeout, call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(StoreError::Late(timeout)),
        };
        match &result {
            Ok(_) | Err(StoreError::Corrupt(_)) => {
                if let Err(error) = &result {
                    metrics::counter!("rapport_scorer_store_errors_total").increment(1);
                    tracing::warn!(%error, "a stored value is passed over");
                }
                if self.breaker.succeeded() {
                    metrics::gauge!("rapport_scorer_store_down").set(0.0);
                    tracing::info!("the online store answers again");
                }
            }
            Err(error) => {
                metrics::counter!("rapport_scorer_store_errors_total").increment(1);
                if self.breaker.failed() {
                    metrics::gauge!("rapport_scorer_store_down").set(1.0);
                    tracing::warn!(%error, "the online store is down: answering from memory until it is back");
                }
            }
        }
        result
    }
}
