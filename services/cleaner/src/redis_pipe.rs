//! Many commands for Redis in one round trip, written by hand into a buffer that is used again:
//! there are several for every event, so what they cost counts.

use std::{io::Write as _, time::Duration};

use rapport_redis::{BlockingCluster, Packed, Replicas, key_of, slot_of};
use redis::{Connection, ConnectionLike as _, RedisError, Value};

/// A connection, made when it is needed, and the commands that wait to be sent on it.
pub(crate) struct RedisPipe {
    redis: Redis,
    /// What every round trip waits for at its end.
    replicas: Replicas,
    out: Vec<u8>,
    commands: usize,
}

enum Redis {
    One(OneNode),
    Cluster {
        cluster: BlockingCluster,
        /// Where each command stands in the buffer, and its key's slot.
        packed: Vec<Packed>,
    },
}

struct OneNode {
    client: redis::Client,
    connection: Option<Connection>,
    timeout: Duration,
}

impl RedisPipe {
    /// # Errors
    /// The address is none.
    pub(crate) fn new(url: &str, timeout: Duration, replicas: u8) -> Result<Self, RedisError> {
        // Half of the time is left for the commands themselves.
        let replicas = Replicas { count: replicas, within: timeout / 2 };
        let redis = match BlockingCluster::open(url, timeout, replicas)? {
            Some(cluster) => Redis::Cluster { cluster, packed: Vec::new() },
            None => Redis::One(OneNode { client: redis::Client::open(url)?, connection: None, timeout }),
        };
        Ok(Self { redis, replicas, out: Vec::new(), commands: 0 })
    }

    /// Adds one command. Returns the place of its answer.
    pub(crate) fn add(&mut self, words: &[&[u8]]) -> usize {
        let out = &mut self.out;
        let begins = out.len();
        head(out, b'*', words.len());
        for word in words {
            head(out, b'$', word.len());
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
        }
        if let Redis::Cluster { packed, .. } = &mut self.redis {
            let slot = key_of(words.iter().copied()).map_or(0, slot_of);
            packed.push(Packed { bytes: begins..out.len(), slot });
        }
        self.commands += 1;
        self.commands - 1
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.commands
    }

    /// Forgets what was added and not sent.
    pub(crate) fn clear(&mut self) {
        self.out.clear();
        self.commands = 0;
        if let Redis::Cluster { packed, .. } = &mut self.redis {
            packed.clear();
        }
    }

    /// Sends what was added. One answer for each command, in order.
    ///
    /// # Errors
    /// Redis does not answer in time, or refuses a command (it is loading, out of memory, a
    /// replica). Some of the commands may have been carried out.
    pub(crate) fn run(&mut self) -> Result<Vec<Value>, RedisError> {
        let commands = self.commands;
        if commands == 0 {
            return Ok(Vec::new());
        }
        let answers = match &mut self.redis {
            Redis::One(node) => node.run(&mut self.out, commands, self.replicas),
            Redis::Cluster { cluster, packed } => cluster.run(&self.out, packed),
        };
        self.clear();
        answers
    }

    /// Whether round trips wait for replicas.
    pub(crate) fn waits(&self) -> bool {
        self.replicas.count > 0
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.redis, Redis::Cluster { .. })
    }

    /// One of [`rapport_redis::witness::tags`] for each master of a Cluster; none on one node.
    ///
    /// # Errors
    /// No node tells who has which slot.
    pub(crate) fn witnesses(&mut self) -> Result<Vec<&'static str>, RedisError> {
        match &mut self.redis {
            Redis::One(_) => Ok(Vec::new()),
            Redis::Cluster { cluster, .. } => cluster.witnesses(),
        }
    }

    /// Whether commands of the last round trip were answered by a master that nobody had expected.
    pub(crate) fn was_redirected(&self) -> bool {
        matches!(&self.redis, Redis::Cluster { cluster, .. } if cluster.was_redirected())
    }
}

impl OneNode {
    fn run(&mut self, packed: &mut Vec<u8>, commands: usize, replicas: Replicas) -> Result<Vec<Value>, RedisError> {
        packed.extend_from_slice(&replicas.packed());
        let commands = commands + usize::from(replicas.count > 0);
        let answers = self.connected().and_then(|connection| connection.req_packed_commands(packed, 0, commands));
        let mut answers = answers.inspect_err(|_| {
            // Whatever state the connection is in, the next round trip gets a new one.
            self.connection = None;
        })?;
        replicas.check(&mut answers)?;
        answers.into_iter().map(Value::extract_error).collect()
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

/// `*3\r\n` or `$16\r\n`.
fn head(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    match u8::try_from(count) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        Ok(_) | Err(_) => {
            // Writing into memory does not fail.
            write!(out, "{count}").ok();
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_redis_reads_them() {
        let mut pipe = RedisPipe::new("redis://127.0.0.1:1", Duration::from_secs(1), 0).unwrap();
        assert_eq!(pipe.add(&[b"GET", b"a\r\nb"]), 0);
        assert_eq!(pipe.add(&[b"SET", b"a", b"0123456789"]), 1);
        let expected = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10\r\n0123456789\r\n";
        assert_eq!(pipe.out, expected);
        pipe.clear();
        assert!(pipe.run().unwrap().is_empty(), "nothing to send needs no connection");
    }
}
