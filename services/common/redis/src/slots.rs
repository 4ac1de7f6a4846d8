//! Which slot a key has, and which master has a slot
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).

use std::{collections::BTreeSet, fmt, sync::Arc};

use redis::Value;

use crate::witness;

pub(crate) const SLOTS: u16 = 16_384;

/// CRC-16/XMODEM, the polynomial 0x1021, a byte at a time.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key: of what stands in its first braces, unless that is nothing.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ CRC[usize::from(high ^ byte)]
    });
    crc % SLOTS
}

/// The key of a command; `None` for those that have none. Each command here has one key at most.
pub fn key_of<'w>(mut words: impl Iterator<Item = &'w [u8]>) -> Option<&'w [u8]> {
    match words.next()? {
        b"PING" | b"SCAN" | b"SCRIPT" | b"WAIT" | b"CLUSTER" | b"INFO" | b"DBSIZE" => None,
        // Script or hash, the number of keys, the key.
        b"EVAL" | b"EVALSHA" => words.nth(2),
        b"MEMORY" => words.nth(1),
        _ => words.next(),
    }
}

/// A node of a Cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    host: Arc<str>,
    port: u16,
}

impl Node {
    pub(crate) fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// From `host:port`, as redirections name it; a Cluster that does not know its hosts leaves them out.
    pub(crate) fn parse(text: &str, told_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self::new(if host.is_empty() { &told_by.host } else { host }, port.parse().ok()?))
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who has which slot, as a node told.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Slots {
    owners: Vec<Option<Node>>,
    /// Masters and replicas: whoever of them is there can tell who has which slot.
    nodes: BTreeSet<Node>,
}

impl Slots {
    /// From the answer to `CLUSTER SLOTS`, which `told_by` gave. `None` when it names no master.
    pub fn from_answer(answer: &Value, told_by: &Node) -> Option<Self> {
        let Value::Array(ranges) = answer else { return None };
        let (mut owners, mut nodes) = (vec![None; usize::from(SLOTS)], BTreeSet::new());
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), replicas @ ..] = range.as_slice() else {
                return None;
            };
            let node = node_of(master, told_by)?;
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            nodes.insert(node.clone());
            nodes.extend(replicas.iter().filter_map(|replica| match replica {
                Value::Array(replica) => node_of(replica, told_by),
                _ => None,
            }));
            owners.get_mut(first..=last)?.fill(Some(node));
        }
        owners.iter().any(Option::is_some).then_some(Self { owners, nodes })
    }

    pub fn owner(&self, slot: u16) -> Option<&Node> {
        self.owners.get(usize::from(slot))?.as_ref()
    }

    /// A node has told where a slot is now.
    pub fn moved(&mut self, slot: u16, to: Node) {
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = Some(to);
        }
    }

    /// Every node that was told of.
    pub fn nodes(&self) -> &BTreeSet<Node> {
        &self.nodes
    }

    /// Every master that has a slot.
    pub fn masters(&self) -> BTreeSet<&Node> {
        self.owners.iter().flatten().collect()
    }

    /// Says who the masters are now, and whose loss would not be noticed.
    pub fn tell(&self) {
        tracing::info!(masters = ?self.masters(), "Redis is a Cluster of these masters");
        let (_, without) = self.witnesses();
        if !without.is_empty() {
            tracing::warn!(
                masters = ?without,
                "these masters have so few slots that a loss of their memory would not be noticed"
            );
        }
    }

    /// One tag of [`witness::tags`] for each master that has any, and the masters that have none.
    pub fn witnesses(&self) -> (Vec<&'static str>, BTreeSet<&Node>) {
        let mut without = self.masters();
        let of_a_new_one = |tag: &&witness::Tag| self.owner(tag.slot).is_some_and(|owner| without.remove(owner));
        let tags = witness::tags().iter().filter(of_a_new_one).map(|tag| tag.text.as_str()).collect();
        (tags, without)
    }
}

/// `[host, port, id, ...]`.
fn node_of(master: &[Value], told_by: &Node) -> Option<Node> {
    let [host, Value::Int(port), ..] = master else { return None };
    let port = u16::try_from(*port).ok()?;
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => "",
    };
    match host {
        "?" => None,
        // It does not know its own address: it is where it was asked.
        "" => Some(Node::new(&told_by.host, port)),
        host => Some(Node::new(host, port)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three masters `m:1`, `m:2` and `m:3` with a third of the slots and a replica each.
    pub(crate) fn three() -> Slots {
        let range = |first: i64, last: i64, port: i64| {
            let node = |host: &[u8]| Value::Array(vec![Value::BulkString(host.to_vec()), Value::Int(port)]);
            Value::Array(vec![Value::Int(first), Value::Int(last), node(b"m"), node(b"r")])
        };
        let told = Value::Array(vec![range(0, 5460, 1), range(5461, 10922, 2), range(10923, 16383, 3)]);
        Slots::from_answer(&told, &Node::new("seed", 9)).unwrap()
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers; the check value of CRC-16/XMODEM is 0x31c3.
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"foo{hash_tag}"), slot_of(b"hash_tag"));
        assert_eq!(slot_of(b"foo{}{bar}"), 8363, "empty braces are no tag");
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"{a}b}:s"), slot_of(b"{a}b}:l"), "a customer with braces in the name has one slot too");
        assert_eq!(slot_of(b"rapport:{demo/ann}:s"), slot_of(b"rapport:{demo/ann}:l"));
    }

    #[test]
    fn the_key_of_every_kind_of_command_is_found() {
        let key = |line: &'static str| key_of(line.split(' ').map(str::as_bytes));
        for line in ["GET k", "HSET k a b", "EVAL script 1 k a", "EVALSHA sha 1 k a", "MEMORY USAGE k", "UNLINK k"] {
            assert_eq!(key(line), Some(b"k".as_slice()), "{line}");
        }
        for line in ["PING", "SCAN 0 MATCH x", "SCRIPT LOAD x", "WAIT 1 100", "CLUSTER SLOTS"] {
            assert_eq!(key(line), None, "{line}");
        }
    }

    #[test]
    fn masters_are_read_from_what_a_node_tells_and_a_wrong_answer_is_none() {
        let slots = three();
        assert_eq!(slots.owner(0), Some(&Node::new("m", 1)));
        assert_eq!(slots.owner(16383), Some(&Node::new("m", 3)));
        assert_eq!((slots.masters().len(), slots.nodes().len()), (3, 6), "three have a replica each");
        let told_by = Node::new("seed", 9);
        let of = |first, last, host: Value| {
            let master = Value::Array(vec![host, Value::Int(5)]);
            let range = Value::Array(vec![Value::Int(first), Value::Int(last), master]);
            Slots::from_answer(&Value::Array(vec![range]), &told_by)
        };
        let itself = of(0, 9, Value::Nil).unwrap();
        assert_eq!(itself.owner(9), Some(&Node::new("seed", 5)), "it is where it was asked");
        assert_eq!(itself.owner(10), None);
        for wrong in [of(0, 16384, Value::Nil), of(9, 5, Value::Nil), of(-1, 5, Value::Nil)] {
            assert!(wrong.is_none());
        }
        assert!(of(0, 9, Value::BulkString(b"?".to_vec())).is_none());
        assert!(Slots::from_answer(&Value::Array(vec![]), &told_by).is_none(), "a Cluster without slots");
    }

    #[test]
    fn every_master_has_a_witness_and_one_with_few_slots_is_known_to_have_none() {
        let mut slots = three();
        let (tags, without) = slots.witnesses();
        let owners: BTreeSet<_> = tags.iter().map(|tag| slots.owner(slot_of(tag.as_bytes())).unwrap()).collect();
        assert_eq!((tags.len(), owners.len(), without.len()), (3, 3, 0));
        let untagged = (0..SLOTS).find(|slot| witness::tags().iter().all(|tag| tag.slot != *slot)).unwrap();
        slots.moved(untagged, Node::new("m", 4));
        assert_eq!(slots.witnesses().1.into_iter().collect::<Vec<_>>(), [&Node::new("m", 4)]);
    }
}
