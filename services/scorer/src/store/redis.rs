//! The real store. It reads what the feature store writes (layout: `rapport_online`) and owns the
//! cached lists, whose bytes it hands on as they are: the cached path decodes only what it answers.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use rapport_events::{EventTime, Tenant};
use rapport_features::{History, TREND_ITEMS, Views, item_hash};
use rapport_online::{Keys, OnlineArgs, OnlineReader};
use rapport_redis::Connection;
use redis::{Pipeline, Value};

use super::{Known, Store, StoreError, With};
use crate::{pipeline::Candidate, trends::Trends};

/// The items that a customer has, as Redis holds them: sorted xxh3 hashes of item ids, 8 bytes
/// each. A look-up is a binary search in the bytes; nothing is decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenItems(Vec<u8>);

impl SeenItems {
    /// `None` when the bytes end in the middle of a hash.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        bytes.len().is_multiple_of(8).then_some(Self(bytes))
    }

    /// Of items that the caller names.
    pub fn of<S: AsRef<str>>(items: &[S]) -> Self {
        let mut hashes: Vec<u64> = items.iter().map(|item| item_hash(item.as_ref())).collect();
        hashes.sort_unstable();
        Self(hashes.into_iter().flat_map(u64::to_le_bytes).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len() / 8
    }

    pub fn contains(&self, item: &str) -> bool {
        let (hashes, _) = self.0.as_chunks::<8>();
        let hash = item_hash(item);
        hashes.binary_search_by_key(&hash, |bytes| u64::from_le_bytes(*bytes)).is_ok()
    }
}

/// Redis behind a connection that mends itself.
pub struct RedisStore {
    connection: Connection,
    keys: Keys,
    reader: OnlineReader,
    views: Arc<Views>,
}

impl RedisStore {
    /// Connects at the first read. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The URL is not one of Redis's.
    pub fn open(args: &OnlineArgs, views: Arc<Views>) -> Result<Self, rapport_online::Error> {
        Ok(Self {
            connection: args.connect(args.redis_read_timeout_ms)?,
            keys: args.keys(),
            reader: OnlineReader::new(args)?,
            views,
        })
    }
}

/// Fields of a customer's HASH: fence, version, newest event, seen set; then the history and the segment.
const FIELDS: [&str; 6] = ["o", "v", "t", "x", "h", "g"];
const LIGHT: usize = 4;

/// HMGET's answer.
type Fields = Vec<Option<Vec<u8>>>;

impl Store for RedisStore {
    fn customer<'a>(
        &'a self,
        tenant: &'a Tenant,
        customer: &'a str,
        with: With,
    ) -> BoxFuture<'a, Result<Option<Known>, StoreError>> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let mut pipeline = Pipeline::with_capacity(2);
            let key = self.keys.customer(tenant, customer);
            match with {
                With::List => {
                    pipeline.cmd("HMGET").arg(key).arg(&FIELDS[..LIGHT]);
                    pipeline.cmd("GET").arg(self.keys.list(tenant, customer));
                }
                With::History => {
                    pipeline.cmd("HMGET").arg(key).arg(&FIELDS);
                }
            }
            let answers = connection.run(&pipeline).await.map_err(failed)?;
            let mut answers = answers.into_iter();
            let fields = match answers.next() {
                Some(Value::Array(fields)) => fields.into_iter().map(bytes).collect(),
                other => return Err(StoreError::Corrupt(format!("HMGET of a customer gave {other:?}"))),
            };
            let list = answers.next().and_then(bytes);
            known(fields, list)
        })
    }

    fn put_list<'a>(
        &'a self,
        tenant: &'a Tenant,
        customer: &'a str,
        list: Vec<u8>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("SET").arg(self.keys.list(tenant, customer)).arg(list).arg("EX").arg(ttl.as_secs().max(1));
            connection.run(&pipeline).await.map(drop).map_err(failed)
        })
    }

    fn trends<'a>(&'a self, tenant: &'a Tenant, segment: Option<&'a str>) -> BoxFuture<'a, Result<Trends, StoreError>> {
        Box::pin(async move {
            let state = self.reader.read_trends(&self.views, tenant, segment).await.map_err(|error| match error {
                rapport_online::Error::Corrupt { .. } => StoreError::Corrupt(error.to_string()),
                rapport_online::Error::Redis(_)
                | rapport_online::Error::Timeout(_)
                | rapport_online::Error::Views { .. }
                | rapport_online::Error::NewerViews { .. } => StoreError::Failed(error.to_string()),
            })?;
            let ranked = state.top(TREND_ITEMS).into_iter().map(|t| (t.item_id, t.score));
            Ok(Trends { items: strictly_falling(ranked), newest: state.newest() })
        })
    }

    fn rebuilding(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let share = self.reader.rebuilding().await;
            share.map(|share| share.is_some()).map_err(|error| StoreError::Failed(error.to_string()))
        })
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

fn failed(error: redis::RedisError) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// A customer's fields as they came off the wire. `None` for a stranger: no fence.
fn known(fields: Fields, list: Option<Vec<u8>>) -> Result<Option<Known>, StoreError> {
    let mut fields = fields.into_iter();
    let mut next = || fields.next().flatten();
    if next().is_none() {
        return Ok(None);
    }
    let number = |name: &str, text: Option<Vec<u8>>| {
        let parsed = text.as_deref().and_then(|text| std::str::from_utf8(text).ok()).and_then(|t| t.parse().ok());
        parsed.ok_or_else(|| StoreError::Corrupt(format!("a customer's field {name} is no number")))
    };
    let version: i64 = number("v", next())?;
    let newest: i64 = number("t", next())?;
    let seen = SeenItems::from_bytes(next().unwrap_or_default())
        .ok_or_else(|| StoreError::Corrupt("a customer's field x ends in the middle of a hash".into()))?;
    let (history, history_times, history_types) = match next() {
        None => (Vec::new(), Vec::new(), Vec::new()),
        Some(bytes) => {
            let history = History::from_bytes(&bytes).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let told = history.iter();
            told.map(|interaction| (interaction.item_id.clone(), interaction.time, interaction.kind.clone())).collect()
        }
    };
    let segment = next().and_then(|name| String::from_utf8(name).ok()).filter(|name| !name.is_empty());
    Ok(Some(Known {
        version: u64::try_from(version).unwrap_or(0),
        newest: (newest != i64::MIN).then(|| EventTime::from_ms(newest)),
        seen,
        list,
        history,
        history_times,
        history_types,
        segment,
    }))
}

/// Candidates in the order of the trend. Very old interest has decayed to equal scores whose order
/// still means something (the newer first): each score is kept below the one before.
fn strictly_falling(ranked: impl Iterator<Item = (String, f64)>) -> Vec<Candidate> {
    let mut last = f32::MAX;
    let fall = |(item, score): (String, f64)| {
        last = (score as f32).min(last.next_down());
        Candidate { item: item.into(), score: last }
    };
    ranked.map(fall).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: impl ToString) -> Option<Vec<u8>> {
        Some(value.to_string().into_bytes())
    }

    #[test]
    fn a_customer_without_a_fence_is_a_stranger() {
        assert!(known(vec![None; 5], Some(vec![1])).unwrap().is_none());
        let fields = vec![text("0:1"), text(7), text(i64::MIN), None];
        let known = known(fields, None).unwrap().unwrap();
        assert_eq!((known.version, known.newest), (7, None));
        assert!(known.seen.is_empty() && known.history.is_empty() && known.segment.is_none());
        let history = History::default().to_bytes();
        let fields = |segment: &str| vec![text("0:1"), text(7), text(1), None, Some(history.clone()), text(segment)];
        let segment = |name: &str| super::known(fields(name), None).unwrap().unwrap().segment;
        assert_eq!((segment("pro").as_deref(), segment("")), (Some("pro"), None));
    }

    #[test]
    fn equal_trends_keep_their_order() {
        let falling = strictly_falling([("b".to_owned(), 0.0), ("a".to_owned(), 0.0)].into_iter());
        assert!(falling[0].score > falling[1].score && &*falling[0].item == "b");
    }

    proptest! {
        #[test]
        fn an_item_is_seen_exactly_when_it_was_put_in(
            seen in proptest::collection::hash_set("[a-z0-9]{1,6}", 0..50),
            asked in "[a-z0-9]{1,6}",
        ) {
            let items = SeenItems::of(&seen.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert!(seen.iter().all(|item| items.contains(item)));
            prop_assert_eq!(items.contains(&asked), seen.contains(&asked));
        }

        #[test]
        fn no_answer_of_redis_panics(
            fields in proptest::collection::vec(proptest::option::of(any::<Vec<u8>>()), 0..7),
        ) {
            let stranger = fields.first().is_none_or(Option::is_none);
            let known = known(fields, None);
            prop_assert_eq!(known.is_ok_and(|known| known.is_none()), stranger);
        }
    }
}
