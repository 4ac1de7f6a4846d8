//! Many commands for Redis in one round trip, written by hand into a buffer that is used again:
//! there are several for every event, so what they cost counts.

use std::{io::Write as _, time::Duration};

use redis::{Connection, ConnectionLike as _, RedisError, Value};

/// A connection, made when it is needed, and the commands that wait to be sent on it.
pub(crate) struct RedisPipe {
    client: redis::Client,
    connection: Option<Connection>,
    timeout: Duration,
    out: Vec<u8>,
    commands: usize,
}

impl RedisPipe {
    /// # Errors
    /// The address is none.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, RedisError> {
        Ok(Self { client: redis::Client::open(url)?, connection: None, timeout, out: Vec::new(), commands: 0 })
    }

    /// Adds one command. Returns the place of its answer.
    pub(crate) fn add(&mut self, words: &[&[u8]]) -> usize {
        let out = &mut self.out;
        head(out, b'*', words.len());
        for word in words {
            head(out, b'$', word.len());
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
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
        let sent = std::mem::take(&mut self.out);
        let answers = self.connected().and_then(|connection| connection.req_packed_commands(&sent, 0, commands));
        self.out = sent;
        self.clear();
        let answers = answers.inspect_err(|_| {
            // Whatever state the connection is in, the next round trip gets a new one.
            self.connection = None;
        })?;
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
        let mut pipe = RedisPipe::new("redis://127.0.0.1:1", Duration::from_secs(1)).unwrap();
        assert_eq!(pipe.add(&[b"GET", b"a\r\nb"]), 0);
        assert_eq!(pipe.add(&[b"SET", b"a", b"0123456789"]), 1);
        let expected = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10\r\n0123456789\r\n";
        assert_eq!(pipe.out, expected);
        pipe.clear();
        assert!(pipe.run().unwrap().is_empty(), "nothing to send needs no connection");
    }
}
