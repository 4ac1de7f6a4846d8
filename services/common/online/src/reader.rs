//! Reads for serving: one pipeline, one deadline.

use std::{sync::Arc, time::Duration};

use rapport_events::Tenant;
use rapport_features::{Entity, State, TrendState, Views};
use rapport_redis::Connection;
use redis::{Pipeline, Value};

use crate::{Error, Keys, OnlineArgs, StoredCustomer, StoredPartial, StoredShared};

/// Keys in one pipeline of a batch read.
const CHUNK: usize = 100;

/// Reads customers, items, segments and trends. Cheap to clone; clones share one
/// connection that mends itself.
#[derive(Clone)]
pub struct OnlineReader {
    connection: Connection,
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
        match tokio::time::timeout(self.timeout, connection.run(pipeline)).await {
            Ok(answers) => Ok(answers?),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
    }

    /// Whether Redis answers, all of it.
    ///
    /// # Errors
    /// It does not, within the read timeout.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        match tokio::time::timeout(self.timeout, connection.ping()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
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
        self.read_fields(tenant, customer_ids, &StoredCustomer::FIELDS).await
    }

    /// As [`Self::read_customers`], without history and seen items: for [`StoredCustomer::features`].
    ///
    /// # Errors
    /// As [`Self::read_customers`].
    pub async fn read_features(
        &self,
        tenant: &Tenant,
        customer_ids: &[impl AsRef<str>],
    ) -> Result<Vec<Option<StoredCustomer>>, Error> {
        self.read_fields(tenant, customer_ids, &StoredCustomer::FEATURE_FIELDS).await
    }

    async fn read_fields(
        &self,
        tenant: &Tenant,
        customer_ids: &[impl AsRef<str>],
        fields: &[&str],
    ) -> Result<Vec<Option<StoredCustomer>>, Error> {
        let mut customers = Vec::with_capacity(customer_ids.len());
        for chunk in customer_ids.chunks(CHUNK) {
            let keys: Vec<String> = chunk.iter().map(|id| self.keys.customer(tenant, id.as_ref())).collect();
            let mut pipeline = redis::pipe();
            keys.iter().for_each(|key| {
                pipeline.cmd("HMGET").arg(key).arg(fields);
            });
            for (key, answer) in keys.into_iter().zip(self.run(&pipeline).await?) {
                customers.push(StoredCustomer::from_answer(key, answer)?);
            }
        }
        Ok(customers)
    }

    /// Many items or segments, each summed up over its source partitions, in the order of the ids. Of an entity
    /// that customers do not share there are none.
    ///
    /// # Errors
    /// Redis is away or late, or a state is corrupt.
    pub async fn read_shared(
        &self,
        views: &Views,
        entity: Entity,
        tenant: &Tenant,
        ids: &[impl AsRef<str>],
    ) -> Result<Vec<Option<StoredShared>>, Error> {
        let mut states = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let keys: Vec<String> =
                chunk.iter().filter_map(|id| self.keys.shared(entity, tenant, id.as_ref())).collect();
            let mut pipeline = redis::pipe();
            keys.iter().for_each(|key| {
                pipeline.cmd("HGETALL").arg(key);
            });
            for (key, answer) in keys.into_iter().zip(self.run(&pipeline).await?) {
                let mut sum: Option<StoredShared> = None;
                for (fence, bytes) in StoredPartial::all_from_answer(&key, answer)? {
                    let partial = State::from_bytes(views, entity, &bytes)
                        .map_err(|e| Error::Corrupt { key: key.clone(), reason: e.to_string() })?;
                    let nothing = || StoredShared { state: State::new(views, entity), fences: Vec::new() };
                    let sum = sum.get_or_insert_with(nothing);
                    sum.state.merge(&partial);
                    sum.fences.push(fence);
                }
                states.push(sum);
            }
        }
        Ok(states)
    }

    /// What share of the events is in again while the store is being made anew from the log; `None` while it
    /// is whole.
    ///
    /// # Errors
    /// Redis is away or late.
    pub async fn rebuilding(&self) -> Result<Option<f64>, Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HVALS").arg(self.keys.rebuilding());
        let answer = self.run(&pipeline).await?.into_iter().next();
        let Some(Value::Array(values)) = answer else { return Ok(None) };
        let counts = |value: Value| {
            let Value::BulkString(text) = value else { return None };
            let (done, of) = std::str::from_utf8(&text).ok()?.split_once('/')?;
            Some((done.parse::<f64>().ok()?, of.parse::<f64>().ok()?))
        };
        let (done, of) = values.into_iter().filter_map(counts).fold((0.0, 0.0), |all, of| (all.0 + of.0, all.1 + of.1));
        Ok((of > 0.0).then(|| done / of))
    }

    /// What is trending with a tenant, or with its customers in a segment, over all source partitions. Empty when nothing is known.
    ///
    /// # Errors
    /// Redis is away or late, or a trend is corrupt.
    pub async fn read_trends(
        &self,
        views: &Arc<Views>,
        tenant: &Tenant,
        segment: Option<&str>,
    ) -> Result<TrendState, Error> {
        let key = self.keys.trends(tenant, segment);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(&key);
        let answer = self.run(&pipeline).await?.into_iter().next().unwrap_or_default();
        let mut trend = TrendState::new(views);
        for (_, bytes) in StoredPartial::all_from_answer(&key, answer)? {
            let partial = TrendState::from_bytes(views, &bytes)
                .map_err(|e| Error::Corrupt { key: key.clone(), reason: e.to_string() })?;
            trend.merge(&partial);
        }
        Ok(trend)
    }
}
