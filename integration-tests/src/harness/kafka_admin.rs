//! Two requests of Kafka's protocol that librdkafka's Rust binding does not have: moving replicas and
//! electing leaders. Any broker of a KRaft cluster takes them and forwards them to the controller.
//! (Kafka protocol guide, `AlterPartitionReassignments` v0 and `ElectLeaders` v2.)

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
const ELECT_LEADERS: i16 = 43;
const TIMEOUT: Duration = Duration::from_secs(5);
/// No answer to these requests comes near it.
const ANSWER_BYTES: usize = 4 << 20;

/// Kafka's codes for "nothing to do": it is no error that the preferred leader leads already.
const ELECTION_NOT_NEEDED: i16 = 84;
/// The preferred leader is away or behind; it stays as it is.
const PREFERRED_LEADER_NOT_AVAILABLE: i16 = 80;

/// Where each partition's replicas shall be; the first of them is the one that shall lead.
pub type Placement = BTreeMap<(String, i32), Vec<i32>>;

/// Starts moving replicas; it goes on in the background.
///
/// # Errors
/// The broker does not answer, or refuses one of them.
pub fn reassign(broker: SocketAddr, placement: &Placement) -> Result<(), String> {
    let mut body = Writer::default();
    body.i32(TIMEOUT.as_millis() as i32);
    let topics = by_topic(placement);
    body.count(topics.len());
    for (topic, partitions) in &topics {
        body.text(topic);
        body.count(partitions.len());
        for (partition, replicas) in partitions {
            body.i32(*partition);
            body.count(replicas.len());
            replicas.iter().for_each(|replica| body.i32(*replica));
            body.no_tags();
        }
        body.no_tags();
    }
    body.no_tags();
    let answer = ask(broker, ALTER_PARTITION_REASSIGNMENTS, 0, &body.0)?;
    let mut answer = Reader(&answer);
    answer.i32()?; // throttle time
    let (code, message) = (answer.i16()?, answer.text()?);
    if code != 0 {
        return Err(format!("reassignment refused: code {code} {message}"));
    }
    for _ in 0..answer.count()? {
        let topic = answer.text()?;
        for _ in 0..answer.count()? {
            let (partition, code, message) = (answer.i32()?, answer.i16()?, answer.text()?);
            answer.tags()?;
            if code != 0 {
                return Err(format!("reassignment of {topic}/{partition} refused: code {code} {message}"));
            }
        }
        answer.tags()?;
    }
    Ok(())
}

/// Makes the first replica of each partition its leader, where it is in sync.
///
/// # Errors
/// The broker does not answer, or refuses.
pub fn elect_preferred(broker: SocketAddr, partitions: &[(String, i32)]) -> Result<(), String> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let mut body = Writer::default();
    body.0.push(0); // preferred, not unclean
    body.count(topics.len());
    for (topic, partitions) in &topics {
        body.text(topic);
        body.count(partitions.len());
        partitions.iter().for_each(|partition| body.i32(*partition));
        body.no_tags();
    }
    body.i32(TIMEOUT.as_millis() as i32);
    body.no_tags();
    let answer = ask(broker, ELECT_LEADERS, 2, &body.0)?;
    let mut answer = Reader(&answer);
    answer.i32()?; // throttle time
    let code = answer.i16()?;
    if code != 0 {
        return Err(format!("election refused: code {code}"));
    }
    for _ in 0..answer.count()? {
        let topic = answer.text()?;
        for _ in 0..answer.count()? {
            let (partition, code, message) = (answer.i32()?, answer.i16()?, answer.text()?);
            answer.tags()?;
            if ![0, ELECTION_NOT_NEEDED, PREFERRED_LEADER_NOT_AVAILABLE].contains(&code) {
                return Err(format!("election for {topic}/{partition} refused: code {code} {message}"));
            }
        }
        answer.tags()?;
    }
    Ok(())
}

fn by_topic(placement: &Placement) -> BTreeMap<&str, Vec<(i32, &[i32])>> {
    let mut topics: BTreeMap<&str, Vec<(i32, &[i32])>> = BTreeMap::new();
    for ((topic, partition), replicas) in placement {
        topics.entry(topic).or_default().push((*partition, replicas));
    }
    topics
}

/// One request and its answer's body, on a connection of its own.
fn ask(broker: SocketAddr, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>, String> {
    const CORRELATION: i32 = 7;
    let mut request = Writer::default();
    request.i16(key);
    request.i16(version);
    request.i32(CORRELATION);
    let client = b"chaos";
    request.i16(client.len() as i16);
    request.0.extend_from_slice(client);
    request.no_tags();
    request.0.extend_from_slice(body);

    let told = |error: std::io::Error| format!("{broker}: {error}");
    let mut connection = TcpStream::connect_timeout(&broker, TIMEOUT).map_err(told)?;
    connection.set_read_timeout(Some(TIMEOUT)).map_err(told)?;
    connection.set_write_timeout(Some(TIMEOUT)).map_err(told)?;
    connection.write_all(&(request.0.len() as i32).to_be_bytes()).map_err(told)?;
    connection.write_all(&request.0).map_err(told)?;
    let mut length = [0; 4];
    connection.read_exact(&mut length).map_err(told)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > ANSWER_BYTES {
        return Err(format!("{broker}: an answer of {length} bytes"));
    }
    let mut answer = vec![0; length];
    connection.read_exact(&mut answer).map_err(told)?;
    let mut header = Reader(&answer);
    let correlation = header.i32()?;
    header.tags()?;
    if correlation != CORRELATION {
        return Err(format!("{broker}: an answer to request {correlation}"));
    }
    let body = header.0.to_vec();
    Ok(body)
}

/// The compact types of Kafka's flexible versions.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Lengths are written plus one: zero stands for null.
    fn count(&mut self, length: usize) {
        let mut rest = length + 1;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn no_tags(&mut self) {
        self.0.push(0);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or("the answer ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16, String> {
        Ok(self.take(2)?.iter().fold(0, |value, byte| value << 8 | i16::from(*byte)))
    }

    fn i32(&mut self) -> Result<i32, String> {
        Ok(self.take(4)?.iter().fold(0, |value, byte| value << 8 | i32::from(*byte)))
    }

    fn varint(&mut self) -> Result<usize, String> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?.iter().fold(0, |_, byte| usize::from(*byte));
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number has more than five bytes".to_owned())
    }

    /// A length; null counts as nothing.
    fn count(&mut self) -> Result<usize, String> {
        Ok(self.varint()?.saturating_sub(1))
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.count()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn tags(&mut self) -> Result<(), String> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut written = Writer::default();
        written.i16(-2);
        written.i32(1 << 20);
        written.text(&"x".repeat(300));
        written.no_tags();
        let mut read = Reader(&written.0);
        assert_eq!((read.i16(), read.i32()), (Ok(-2), Ok(1 << 20)));
        assert_eq!(read.text().unwrap().len(), 300);
        assert_eq!(read.tags(), Ok(()));
        assert!(read.i16().is_err(), "the end is noticed");
    }
}
