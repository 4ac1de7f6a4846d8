//! What values cost in Redis: a page of keys at a time, by Redis's own account (`MEMORY USAGE`).

use std::time::Duration;

use rapport_redis::{Connection, Master};
use redis::Value;

use crate::{
    Error, OnlineArgs,
    walk::{START, scan, scanned, within},
};

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

/// Walks over the keys of all masters, a page at each call, round and round.
pub struct SizeSampler {
    connection: Connection,
    pattern: String,
    timeout: Duration,
    /// Those whose keys are still to be seen in this round; the last of them is at work.
    masters: Vec<Master>,
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
        let (connection, masters) = (args.connect(timeout)?, Vec::new());
        Ok(Self { connection, pattern, timeout, masters, cursor: START.to_vec() })
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
        if self.masters.is_empty() {
            self.masters = within(self.timeout, self.connection.layout()).await?.masters();
            self.cursor = START.to_vec();
        }
        let Some(master) = self.masters.last() else { return Ok(Sizes::default()) };
        let page = scan(&self.cursor, &self.pattern, PAGE);
        let answer = within(self.timeout, self.connection.run_on(master, &page)).await.and_then(scanned);
        let (next, keys) = answer.inspect_err(|_| {
            // It may be none of the masters any more.
            self.masters.clear();
        })?;
        if next == START {
            self.masters.pop();
        }
        self.cursor = next;
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
        let answers = within(self.timeout, self.connection.run(&sizes)).await?;
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
