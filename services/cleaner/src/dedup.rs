//! Seen once: the first sight of an event id stores where that record stands on the raw topic. The
//! same id at the same place is a replay (a crash, a rebalance) and passes; at another place it is
//! a duplicate. So a crash between the look-up and the commit loses nothing and doubles nothing,
//! and a zombie that looks up the same record gets the same answer.
//!
//! The store is Redis, shared by all cleaners: duplicates are found on whatever partition they
//! come in. When Redis has lost its memory, duplicates of what was seen before the loss pass once
//! more; nothing else changes.

use std::time::Duration;

use rapport_events::Position;
use rapport_runtime::parse_duration;
use redis::{Connection, ConnectionLike as _, RedisError};
use xxhash_rust::xxh3::xxh3_128;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Duplicate detection")]
pub struct DedupArgs {
    /// Redis that remembers event ids (7.0 or newer)
    #[arg(long, env = "RAPPORT_REDIS_URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: String,

    /// What all keys begin with
    #[arg(long, env = "RAPPORT_KEY_PREFIX", default_value = "rapport")]
    pub key_prefix: String,

    /// How long an event id is remembered. About 100 bytes of Redis memory for each event
    #[arg(long, env = "RAPPORT_DEDUP_WINDOW", default_value = "24h", value_parser = parse_duration)]
    pub dedup_window: Duration,

    /// A look-up that takes longer has failed; the cleaner then waits for Redis
    #[arg(long, env = "RAPPORT_REDIS_TIMEOUT", default_value = "2s", value_parser = parse_duration)]
    pub redis_timeout: Duration,
}

impl DedupArgs {
    /// # Errors
    /// The flag and what would be right.
    pub fn check(&self) -> Result<(), String> {
        redis::Client::open(self.redis_url.as_str()).map_err(|e| format!("--redis-url: {e}"))?;
        if self.dedup_window < Duration::from_secs(1) {
            return Err(format!("--dedup-window must be 1s or more, is {:?}", self.dedup_window));
        }
        Ok(())
    }
}

pub(crate) struct Dedup {
    client: redis::Client,
    connection: Option<Connection>,
    prefix: Vec<u8>,
    window_s: u64,
    timeout: Duration,
}

impl Dedup {
    pub(crate) fn new(args: &DedupArgs) -> Result<Self, RedisError> {
        Ok(Self {
            client: redis::Client::open(args.redis_url.as_str())?,
            connection: None,
            prefix: format!("{}:d:", args.key_prefix).into_bytes(),
            window_s: args.dedup_window.as_secs().max(1),
            timeout: args.redis_timeout,
        })
    }

    /// For each (tenant, event id, position): whether that id was seen at another position before.
    /// One round trip for all of them.
    ///
    /// # Errors
    /// Redis does not answer; the ids may or may not be remembered, and asking again is safe.
    pub(crate) fn duplicates<'a>(
        &mut self,
        sights: impl ExactSizeIterator<Item = (&'a str, &'a str, Position)> + Clone,
    ) -> Result<Vec<bool>, RedisError> {
        if sights.len() == 0 {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::Pipeline::with_capacity(sights.len());
        for (tenant, id, position) in sights.clone() {
            pipeline
                .cmd("SET")
                .arg(key(&self.prefix, tenant, id))
                .arg(coordinates(position).as_slice())
                .arg("NX")
                .arg("GET")
                .arg("EX")
                .arg(self.window_s);
        }
        let connection = self.connected()?;
        let first_sights: Vec<Option<Vec<u8>>> = match pipeline.query(connection) {
            Ok(answers) => answers,
            Err(error) => {
                // Whatever state the connection is in, the next look-up gets a new one.
                self.connection = None;
                return Err(error);
            }
        };
        Ok(first_sights
            .iter()
            .zip(sights)
            .map(|(first, (_, _, here))| first.as_ref().is_some_and(|first| first.as_slice() != coordinates(here)))
            .collect())
    }

    /// Whether Redis answers.
    pub(crate) fn reachable(&mut self) -> Result<(), RedisError> {
        let answered = self.connected()?.check_connection();
        if answered {
            return Ok(());
        }
        self.connection = None;
        Err(RedisError::from((redis::ErrorKind::Io, "does not answer a PING")))
    }

    fn connected(&mut self) -> Result<&mut Connection, RedisError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = self.client.get_connection_with_timeout(self.timeout)?;
                connection.set_read_timeout(Some(self.timeout))?;
                connection.set_write_timeout(Some(self.timeout))?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }
}

/// 128 bits of hash stand for an id: at 10^10 remembered ids, the chance that any two meet is
/// about 10^-19.
fn key(prefix: &[u8], tenant: &str, id: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(tenant.len() + 1 + id.len());
    text.extend_from_slice(tenant.as_bytes());
    text.push(b'/');
    text.extend_from_slice(id.as_bytes());
    let mut key = Vec::with_capacity(prefix.len() + 16);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&xxh3_128(&text).to_be_bytes());
    key
}

fn coordinates(at: Position) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&at.partition.to_be_bytes());
    bytes[4..].copy_from_slice(&at.offset.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_different_tenants_never_share_a_key() {
        assert_ne!(key(b"p:", "a", "b/c"), key(b"p:", "a-b", "c"));
        assert_ne!(key(b"p:", "a", "1"), key(b"p:", "b", "1"));
        assert_ne!(
            coordinates(Position { partition: 1, offset: 2 }),
            coordinates(Position { partition: 2, offset: 1 })
        );
    }
}
