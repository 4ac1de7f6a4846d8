//! Reads for serving: one pipeline, one deadline.

use std::{sync::Arc, time::Duration};

use rapport_events::Tenant;
use rapport_features::{Entity, State, TrendState, Views};
use redis::{Pipeline, Value, aio::ConnectionManager};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error, Keys, OnlineArgs, StoredCustomer, StoredPartial, TopList,
    record::{plain_bytes, values},
};

/// Keys in one pipeline of a batch read.
const CHUNK: usize = 100;

/// What one round trip says of a customer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CustomerView {
    /// `None`: a stranger.
    pub record: Option<StoredCustomer>,
    /// The cached list, if there is one that can be read.
    pub list: Option<TopList>,
}

/// Reads customers, items and trends, and keeps cached lists. Cheap to clone; clones share one
/// connection that mends itself.
#[derive(Clone)]
pub struct OnlineReader {
    connection: ConnectionManager,
    keys: Keys,
    timeout: Duration,
}

impl OnlineReader {
    /// Connects at the first read. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The URL is not one of Redis's.
    pub fn new(args: &OnlineArgs) -> Result<Self, Error> {
        let timeout = args.redis_read_timeout_ms;
        Ok(Self { connection: args.connect(timeout)?, keys: args.keys(), timeout })
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    async fn run(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        let mut connection = self.connection.clone();
        match tokio::time::timeout(self.timeout, pipeline.query_async(&mut connection)).await {
            Ok(answers) => Ok(answers?),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// It does not, within the read timeout.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING");
        self.run(&pipeline).await.map(drop)
    }

    /// Everything about a customer, and the cached list: one round trip.
    ///
    /// # Errors
    /// Redis is away or late, or the record is corrupt. A corrupt list is no error: it is left out.
    pub async fn read_customer(&self, tenant: &Tenant, customer_id: &str) -> Result<CustomerView, Error> {
        self.read(tenant, customer_id, &StoredCustomer::FIELDS).await
    }

    /// As [`Self::read_customer`] without features and history: what serving a cached list needs.
    ///
    /// # Errors
    /// As [`Self::read_customer`].
    pub async fn read_cached(&self, tenant: &Tenant, customer_id: &str) -> Result<CustomerView, Error> {
        self.read(tenant, customer_id, &StoredCustomer::FIELDS[..StoredCustomer::LIGHT]).await
    }

    async fn read(&self, tenant: &Tenant, customer_id: &str, fields: &[&str]) -> Result<CustomerView, Error> {
        let key = self.keys.customer(tenant, customer_id);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(&key).arg(fields);
        pipeline.cmd("GET").arg(self.keys.list(tenant, customer_id));
        let mut answers = self.run(&pipeline).await?.into_iter();
        let record = StoredCustomer::from_answer(key, answers.next().unwrap_or_default())?;
        let list = answers.next().and_then(plain_bytes).and_then(|bytes| match TopList::from_bytes(&bytes) {
            Ok(list) => Some(list),
            Err(error) => {
                tracing::warn!(%tenant, customer_id, %error, "cached list left out");
                None
            }
        });
        Ok(CustomerView { record, list })
    }

    /// Many customers with everything, in the order of the ids.
    ///
    /// # Errors
    /// Redis is away or late, or a record is corrupt.
    pub async fn read_customers(
        &self,
        tenant: &Tenant,
        customer_ids: &[impl AsRef<str>],
    ) -> Result<Vec<Option<StoredCustomer>>, Error> {
        let mut customers = Vec::with_capacity(customer_ids.len());
        for chunk in customer_ids.chunks(CHUNK) {
            let keys: Vec<String> = chunk.iter().map(|id| self.keys.customer(tenant, id.as_ref())).collect();
            let mut pipeline = redis::pipe();
            keys.iter().for_each(|key| {
                pipeline.cmd("HMGET").arg(key).arg(&StoredCustomer::FIELDS);
            });
            for (key, answer) in keys.into_iter().zip(self.run(&pipeline).await?) {
                customers.push(StoredCustomer::from_answer(key, answer)?);
            }
        }
        Ok(customers)
    }

    /// Many items, each summed up over its source partitions, in the order of the ids.
    ///
    /// # Errors
    /// Redis is away or late, or a state is corrupt.
    pub async fn read_items(
        &self,
        views: &Views,
        tenant: &Tenant,
        item_ids: &[impl AsRef<str>],
    ) -> Result<Vec<Option<State>>, Error> {
        let mut items = Vec::with_capacity(item_ids.len());
        for chunk in item_ids.chunks(CHUNK) {
            let keys: Vec<String> = chunk.iter().map(|id| self.keys.item(tenant, id.as_ref())).collect();
            let mut pipeline = redis::pipe();
            keys.iter().for_each(|key| {
                pipeline.cmd("HGETALL").arg(key);
            });
            for (key, answer) in keys.into_iter().zip(self.run(&pipeline).await?) {
                let mut sum: Option<State> = None;
                for bytes in StoredPartial::all_from_answer(&key, answer)? {
                    let partial = State::from_bytes(views, Entity::Item, &bytes)
                        .map_err(|e| Error::Corrupt { key: key.clone(), reason: e.to_string() })?;
                    sum.get_or_insert_with(|| State::new(views, Entity::Item)).merge(&partial);
                }
                items.push(sum);
            }
        }
        Ok(items)
    }

    /// What is trending with a tenant, over all source partitions. Empty when nothing is known.
    ///
    /// # Errors
    /// Redis is away or late, or a trend is corrupt.
    pub async fn read_trends(&self, views: &Arc<Views>, tenant: &Tenant) -> Result<TrendState, Error> {
        let key = self.keys.trends(tenant);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(&key);
        let answer = self.run(&pipeline).await?.into_iter().next().unwrap_or_default();
        let mut trend = TrendState::new(views);
        for bytes in StoredPartial::all_from_answer(&key, answer)? {
            let partial = TrendState::from_bytes(views, &bytes)
                .map_err(|e| Error::Corrupt { key: key.clone(), reason: e.to_string() })?;
            trend.merge(&partial);
        }
        Ok(trend)
    }

    /// Keeps a list for about `ttl`: up to a tenth longer, so that lists that were made together do
    /// not end together.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn put_list(
        &self,
        tenant: &Tenant,
        customer_id: &str,
        list: &TopList,
        ttl: Duration,
    ) -> Result<(), Error> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2).max(1);
        let jitter = xxh3_64(customer_id.as_bytes()) % (ttl / 10 + 1);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(self.keys.list(tenant, customer_id)).arg(list.to_bytes());
        pipeline.arg("PX").arg(ttl + jitter);
        let answers = self.run(&pipeline).await?;
        answers.into_iter().try_for_each(|answer| values("SET", check(answer)?).map(drop))
    }
}

/// OK becomes nothing; an error stays one.
fn check(answer: Value) -> Result<Value, Error> {
    match answer {
        Value::ServerError(error) => Err(Error::Redis(error.into())),
        _ => Ok(Value::Nil),
    }
}
