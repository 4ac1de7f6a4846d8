//! Daily quotas across instances. Each instance keeps its own count of the day in Redis, in a hash
//! per key name and day (`rapport:quota:<name>:<day>`, one field an instance), and reads the counts
//! of the others. It writes what it has counted in all, never a difference: a write that is repeated
//! because its answer was lost counts once. When Redis is away, each goes on with what it knows; when
//! Redis has lost its memory, the next second fills it again.
//!
//! Between two looks a key can go over its quota by what the other instances took in that second.

use std::{sync::Arc, time::Duration};

use rapport_events::EventTime;
use rapport_redis::{Connection, Settings};
use rapport_runtime::Lifecycle;
use redis::{FromRedisValue as _, RedisError};

use crate::{keys::Keys, quota::Quota};

const EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A day's counts outlive it, so that no clock that is a little off sees them gone.
const KEPT_S: i64 = 2 * 24 * 3600;
/// Key names in one round trip.
const AT_A_TIME: usize = 500;

/// Shares the counts every second until a drain, and keeps the gauges of the daily quotas, which are
/// there without Redis too.
///
/// # Errors
/// The address is none.
pub async fn run(url: Option<&str>, keys: &Keys, lifecycle: &Lifecycle) -> Result<(), RedisError> {
    let shared = url.map(Shared::open).transpose()?;
    let mut reachable = true;
    loop {
        let quotas = keys.quotas();
        if let Some(shared) = &shared {
            let outcome = shared.exchange(&quotas, EventTime::now()).await;
            match &outcome {
                Err(error) if reachable => {
                    tracing::warn!(%error, "redis for the quotas is away: this instance counts for itself");
                }
                Ok(()) if !reachable => tracing::info!("redis for the quotas is back"),
                _ => {}
            }
            reachable = outcome.is_ok();
            metrics::gauge!("rapport_collector_quota_shared").set(if reachable { 1.0 } else { 0.0 });
        }
        for quota in &quotas {
            if let Some((used, limit)) = quota.today() {
                let name = quota.name().to_string();
                // Both stay far below 2^53.
                metrics::gauge!("rapport_collector_key_daily_events", "key" => name.clone()).set(used as f64);
                metrics::gauge!("rapport_collector_key_daily_limit", "key" => name).set(limit as f64);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = lifecycle.drain_requested() => break,
        }
    }
    if let Some(shared) = &shared {
        // What was counted since the last look; Redis being away costs no more than that.
        shared.exchange(&keys.quotas(), EventTime::now()).await.ok();
    }
    Ok(())
}

/// The counts in Redis.
pub struct Shared {
    redis: Connection,
    /// This instance's field. A new one at every start: what an earlier process counted stays counted.
    instance: String,
}

impl Shared {
    /// # Errors
    /// The address is none. A Redis that is away is none.
    pub fn open(url: &str) -> Result<Self, RedisError> {
        let settings = Settings { connect_within: ANSWER_WITHIN, answer_within: ANSWER_WITHIN, retries: 0 };
        let redis = Connection::open(url, settings)?;
        Ok(Self { redis, instance: uuid::Uuid::new_v4().simple().to_string() })
    }

    /// Writes what was counted here and reads what was counted elsewhere.
    ///
    /// # Errors
    /// Redis does not answer. What is known stays.
    pub async fn exchange(&self, quotas: &[Arc<Quota>], now: EventTime) -> Result<(), RedisError> {
        let limited: Vec<_> =
            quotas.iter().filter_map(|quota| quota.taken_on(now).map(|(day, here)| (quota, day, here))).collect();
        for some in limited.chunks(AT_A_TIME) {
            let mut pipe = redis::pipe();
            for (quota, day, here) in some {
                let key = format!("rapport:quota:{}:{day}", quota.name());
                pipe.hset(&key, &self.instance, *here);
                pipe.expire(&key, KEPT_S);
                pipe.hvals(&key);
            }
            let answers = self.redis.clone().run(&pipe).await?;
            // Of each three the last is the counts.
            for ((quota, day, here), counts) in some.iter().zip(answers.into_iter().skip(2).step_by(3)) {
                let counts = Vec::<u64>::from_redis_value(counts)?;
                let all = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
                quota.set_elsewhere(*day, all.saturating_sub(*here));
            }
        }
        Ok(())
    }
}
