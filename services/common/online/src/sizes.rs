//! What values cost in Redis: a page of keys at a time, by Redis's own account (`MEMORY USAGE`).

use std::time::Duration;

use redis::{Pipeline, Value, aio::ConnectionManager};

use crate::{Error, OnlineArgs};

/// Keys of one page, and those of one kind of which the size is asked for.
const PAGE: usize = 1_000;
const OF_A_KIND: usize = 50;
/// Pages of one call, at most.
const PAGES: usize = 10;

/// Bytes of some values, of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    pub customers: Vec<u64>,
    pub lists: Vec<u64>,
    pub items: Vec<u64>,
}

/// Walks over the keys, a page at each call, round and round.
pub struct SizeSampler {
    connection: ConnectionManager,
    pattern: String,
    timeout: Duration,
    cursor: Vec<u8>,
}

impl SizeSampler {
    /// Connects at the first use. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The URL is not one of Redis's.
    pub fn new(args: &OnlineArgs) -> Result<Self, Error> {
        let timeout = args.redis_write_timeout_ms;
        let pattern = format!("{}:{{*", args.key_prefix);
        Ok(Self { connection: args.connect(timeout)?, pattern, timeout, cursor: b"0".to_vec() })
    }

    async fn run(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        match tokio::time::timeout(self.timeout, pipeline.query_async(&mut self.connection)).await {
            Ok(answers) => Ok(answers?),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
    }

    /// Sizes of the next page that has any. A key that goes meanwhile is left out.
    ///
    /// # Errors
    /// Redis is away or late, or refuses to tell.
    pub async fn next(&mut self) -> Result<Sizes, Error> {
        // Other prefixes may fill whole pages.
        for _ in 0..PAGES {
            let sizes = self.page().await?;
            if sizes != Sizes::default() {
                return Ok(sizes);
            }
        }
        Ok(Sizes::default())
    }

    async fn page(&mut self) -> Result<Sizes, Error> {
        let mut page = redis::pipe();
        page.cmd("SCAN").arg(&self.cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(PAGE);
        let answer = self.run(&page).await?.into_iter().next();
        let Some(Value::Array(answer)) = answer else {
            return Err(Error::Corrupt { key: "SCAN".into(), reason: format!("{answer:?}") });
        };
        let mut answer = answer.into_iter();
        let (Some(Value::BulkString(next)), Some(Value::Array(keys))) = (answer.next(), answer.next()) else {
            return Err(Error::Corrupt { key: "SCAN".into(), reason: "is no cursor with keys".into() });
        };
        self.cursor = next;
        let keys: Vec<Vec<u8>> = keys
            .into_iter()
            .filter_map(|key| if let Value::BulkString(key) = key { Some(key) } else { None })
            .collect();
        Ok(Sizes {
            customers: self.of(&keys, b"}:s").await?,
            lists: self.of(&keys, b"}:l").await?,
            items: self.of(&keys, b"}:p").await?,
        })
    }

    async fn of(&mut self, keys: &[Vec<u8>], kind: &[u8]) -> Result<Vec<u64>, Error> {
        let some: Vec<&Vec<u8>> = keys.iter().filter(|key| key.ends_with(kind)).take(OF_A_KIND).collect();
        if some.is_empty() {
            return Ok(Vec::new());
        }
        let mut sizes = redis::pipe();
        some.iter().for_each(|key| {
            sizes.cmd("MEMORY").arg("USAGE").arg(*key).arg("SAMPLES").arg(0);
        });
        let answers = self.run(&sizes).await?;
        answers
            .into_iter()
            .filter_map(|answer| match answer {
                Value::Int(bytes) => u64::try_from(bytes).ok().map(Ok),
                Value::ServerError(error) => Some(Err(Error::Redis(error.into()))),
                _ => None,
            })
            .collect()
    }
}
