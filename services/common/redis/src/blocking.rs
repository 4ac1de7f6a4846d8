//! Many masters behind one call, for a thread that has packed its commands already.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    time::Duration,
};

use redis::{Client, Connection, RedisError, Value};

use crate::{
    address::{Address, ClusterAddress},
    replicas::Replicas,
    route::{Group, Pending, ROUNDS, Round, groups, nothing_known, of_node, too_many_rounds},
    slots::{Node, Slots},
};

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
const SLOTS: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";

/// A command as it goes over the wire: where its bytes stand, and the slot of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    pub bytes: Range<usize>,
    pub slot: u16,
}

/// Connections to the masters of a Cluster, made when they are needed.
pub struct BlockingCluster {
    address: ClusterAddress,
    timeout: Duration,
    replicas: Replicas,
    slots: Slots,
    stale: bool,
    redirected: bool,
    connections: HashMap<Node, Connection>,
    /// The node that failed last is asked last who has which slot.
    failed: Option<Node>,
}

impl BlockingCluster {
    /// `None` when the URL is that of one node. Nothing is connected yet.
    ///
    /// # Errors
    /// The URL is none of Redis's.
    pub fn open(url: &str, timeout: Duration, replicas: Replicas) -> Result<Option<Self>, RedisError> {
        Ok(match Address::parse(url)? {
            Address::One(_) => None,
            Address::Cluster(address) => Some(Self {
                address,
                timeout,
                replicas,
                slots: Slots::default(),
                stale: true,
                redirected: false,
                connections: HashMap::new(),
                failed: None,
            }),
        })
    }

    /// One tag of [`crate::witness`] for each master that has any.
    ///
    /// # Errors
    /// No node tells who has which slot.
    pub fn witnesses(&mut self) -> Result<Vec<&'static str>, RedisError> {
        self.refresh()?;
        Ok(self.slots.witnesses().0)
    }

    /// Whether a command of the last call went to another node than its slot's master was known to be.
    pub fn was_redirected(&self) -> bool {
        self.redirected
    }

    /// Sends each command to its master: all masters are at work at the same time. One answer for each command, in
    /// order.
    ///
    /// # Errors
    /// A node does not answer in time, refuses a command, or too few replicas have a write. Any of the others may have been carried out.
    pub fn run(&mut self, bytes: &[u8], commands: &[Packed]) -> Result<Vec<Value>, RedisError> {
        self.redirected = false;
        let of = |(place, command): (usize, &Packed)| Pending { place, slot: command.slot, ask: None };
        let mut pending: Vec<Pending> = commands.iter().enumerate().map(of).collect();
        let mut answers = vec![Value::Nil; commands.len()];
        for _ in 0..ROUNDS {
            self.refresh()?;
            let groups = groups(&self.slots, pending).inspect_err(|_| self.stale = true)?;
            let mut round = Round::default();
            self.round_trip(groups, bytes, commands, &mut round, &mut answers).inspect_err(|_| {
                // Answers that nobody has read would be taken for those of the next commands.
                self.connections.clear();
                self.stale = true;
            })?;
            self.stale |= round.lost;
            round.moved.into_iter().for_each(|(slot, node)| self.slots.moved(slot, node));
            if round.again.is_empty() {
                return answers.into_iter().map(Value::extract_error).collect();
            }
            self.redirected = true;
            pending = round.again;
        }
        Err(too_many_rounds())
    }

    /// Every node is sent all of its commands before any answer is read.
    fn round_trip(
        &mut self,
        groups: Vec<Group>,
        bytes: &[u8],
        commands: &[Packed],
        round: &mut Round,
        answers: &mut [Value],
    ) -> Result<(), RedisError> {
        for group in &groups {
            let mut out = Vec::new();
            for command in group.commands.iter().filter_map(|pending| commands.get(pending.place)) {
                if group.asking {
                    out.extend_from_slice(ASKING);
                }
                out.extend_from_slice(bytes.get(command.bytes.clone()).unwrap_or_default());
            }
            out.extend_from_slice(&self.replicas.packed());
            let sent = self.connected(&group.node).and_then(|connection| connection.send_packed_command(&out));
            self.noted(&group.node, sent)?;
        }
        let replicas = self.replicas;
        for group in groups {
            let told = self.connected(&group.node).and_then(|connection| {
                let mut told = Vec::with_capacity(group.commands.len() + 1);
                for _ in &group.commands {
                    if group.asking {
                        connection.recv_response()?;
                    }
                    told.push(connection.recv_response()?);
                }
                if replicas.count > 0 {
                    told.push(connection.recv_response()?);
                }
                replicas.check(&mut told)?;
                Ok(told)
            });
            let told = self.noted(&group.node, told)?;
            round.take(group, told, answers);
        }
        Ok(())
    }

    fn noted<T>(&mut self, node: &Node, outcome: Result<T, RedisError>) -> Result<T, RedisError> {
        outcome.map_err(|error| {
            self.failed = Some(node.clone());
            of_node(node, error)
        })
    }

    fn connected(&mut self, node: &Node) -> Result<&mut Connection, RedisError> {
        match self.connections.entry(node.clone()) {
            Entry::Occupied(connection) => Ok(connection.into_mut()),
            Entry::Vacant(free) => {
                let client = Client::open(self.address.of(node))?;
                let connection = client.get_connection_with_timeout(self.timeout)?;
                connection.set_read_timeout(Some(self.timeout))?;
                connection.set_write_timeout(Some(self.timeout))?;
                Ok(free.insert(connection))
            }
        }
    }

    /// Looks up who has which slot, where that may have changed.
    fn refresh(&mut self) -> Result<(), RedisError> {
        if !self.stale {
            return Ok(());
        }
        let mut nodes: Vec<Node> = self.slots.nodes().iter().chain(&self.address.seeds).cloned().collect();
        nodes.sort_by_key(|node| (self.failed.as_ref() == Some(node), node.clone()));
        nodes.dedup();
        let mut failed = too_many_rounds();
        for node in nodes {
            match self.ask_for_slots(&node) {
                Ok(slots) => {
                    let of_now = slots.masters();
                    self.connections.retain(|node, _| of_now.contains(node));
                    if self.slots != slots {
                        slots.tell();
                        self.slots = slots;
                    }
                    self.stale = false;
                    return Ok(());
                }
                Err(error) => {
                    self.connections.remove(&node);
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    fn ask_for_slots(&mut self, node: &Node) -> Result<Slots, RedisError> {
        let answer = self.connected(node).and_then(|connection| {
            connection.send_packed_command(SLOTS)?;
            connection.recv_response()?.extract_error()
        });
        let answer = answer.map_err(|error| of_node(node, error))?;
        Slots::from_answer(&answer, node).ok_or_else(|| nothing_known(node))
    }
}
