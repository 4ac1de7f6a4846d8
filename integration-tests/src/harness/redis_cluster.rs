//! A real Redis Cluster on one machine: three masters, and a replica of each where a test wants failovers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use redis::{Connection, RedisResult, Value};

use super::{
    ports,
    process::{Process, Signal},
    reaper, wait_until_blocking,
};

pub const MASTERS: usize = 3;
const SLOTS: usize = 16_384;
/// A node that does not answer for so long has failed.
const NODE_TIMEOUT_MS: &str = "1500";
/// Where Redis has its append-only file.
const APPENDED: &str = "appendonlydir";
const KEPT: &str = "kept";
const WELL_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

/// Nodes are counted from 0: masters first, as they were at the start.
pub struct RedisCluster {
    folder: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    folder: PathBuf,
    port: u16,
    bus: u16,
    process: Mutex<Process>,
}

impl RedisCluster {
    /// Masters with as many slots each, and so many replicas of each.
    pub fn start(name: &str, replicas: usize) -> Self {
        let folder = super::stack::scratch(name);
        let nodes: Vec<Node> = (0..MASTERS * (1 + replicas))
            .map(|n| {
                let (folder, port, bus) = (folder.join(format!("node-{n}")), ports::free(), ports::free());
                fs::create_dir(&folder).expect("scratch is writable");
                Node { process: Mutex::new(launch(&folder, port, bus)), folder, port, bus }
            })
            .collect();
        let cluster = Self { folder, nodes };
        cluster.form();
        cluster
    }

    fn form(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            node.wait_ready();
            node.ask(redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(n + 1)).expect("a new node takes an epoch");
            if n < MASTERS {
                let (first, end) = (n * SLOTS / MASTERS, (n + 1) * SLOTS / MASTERS);
                node.ask(redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(first).arg(end - 1)).expect("slots are free");
            }
            let [first, ..] = self.nodes.as_slice() else { unreachable!("there are masters") };
            if n > 0 {
                let mut meet = redis::cmd("CLUSTER");
                meet.arg("MEET").arg("127.0.0.1").arg(first.port).arg(first.bus);
                node.ask(&meet).expect("nodes may meet");
            }
        }
        self.wait_well();
        for n in MASTERS..self.nodes.len() {
            let master = self.id(n % MASTERS);
            wait_until_blocking("a replica to know its master", WELL_WITHIN, || {
                self.nodes[n].ask(redis::cmd("CLUSTER").arg("REPLICATE").arg(&master)).map_err(|e| e.to_string())
            });
        }
        self.wait_replicated();
    }

    /// As the services take it: two of the nodes, who tell of the others.
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[1].port, self.nodes[2].port)
    }

    /// Waits until every node that runs says that all slots are served.
    pub fn wait_well(&self) {
        wait_until_blocking("the cluster to be well", WELL_WITHIN, || {
            for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
                let info = node.text(redis::cmd("CLUSTER").arg("INFO")).map_err(|e| format!("node {n}: {e}"))?;
                let knows = format!("cluster_known_nodes:{}", self.nodes.len());
                if !info.contains("cluster_state:ok") || !info.contains(&knows) {
                    return Err(format!("node {n}: {info}"));
                }
            }
            Ok(())
        });
    }

    /// Waits until every replica that runs has what its master has.
    pub fn wait_replicated(&self) {
        wait_until_blocking("replicas to be in step", WELL_WITHIN, || {
            let (mut masters, mut replicas) = (0, 0);
            for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
                let info = node.text(redis::cmd("INFO").arg("replication")).map_err(|e| format!("node {n}: {e}"))?;
                if info.contains("role:master") {
                    masters += 1;
                } else if info.contains("master_link_status:up") {
                    replicas += 1;
                }
            }
            let all = self.nodes.iter().filter(|node| node.runs()).count();
            let told = format!("{masters} masters and {replicas} replicas in step, of {all}");
            if masters == MASTERS && masters + replicas == all { Ok(()) } else { Err(told) }
        });
    }

    /// `kill -9`.
    pub fn kill(&self, n: usize) {
        self.nodes[n].process.lock().unwrap().kill();
    }

    /// Again with what it had written to its append-only file.
    pub fn restart(&self, n: usize) {
        let node = &self.nodes[n];
        let mut process = node.process.lock().unwrap();
        process.kill();
        *process = launch(&node.folder, node.port, node.bus);
        drop(process);
        node.wait_ready();
    }

    /// A copy of what a node has on disk, for [`Self::restart_as_kept`].
    pub fn keep(&self, n: usize) {
        let from = self.nodes[n].folder.join(APPENDED);
        let to = self.nodes[n].folder.join(KEPT);
        fs::create_dir(&to).expect("scratch is writable");
        for file in fs::read_dir(from).expect("it has an append-only file") {
            let file = file.expect("its folder can be read");
            fs::copy(file.path(), to.join(file.file_name())).expect("scratch is writable");
        }
    }

    /// Again with what it had then, as from an old snapshot.
    pub fn restart_as_kept(&self, n: usize) {
        self.restart_with(n, |folder| {
            fs::rename(folder.join(KEPT), folder.join(APPENDED)).expect("something was kept");
        });
    }

    /// Again with its slots and none of their keys, as after the loss of its disk.
    pub fn restart_empty(&self, n: usize) {
        self.restart_with(n, |_| {});
    }

    fn restart_with(&self, n: usize, restore: impl FnOnce(&Path)) {
        let node = &self.nodes[n];
        let mut process = node.process.lock().unwrap();
        process.kill();
        fs::remove_dir_all(node.folder.join(APPENDED)).expect("it had an append-only file");
        restore(&node.folder);
        *process = launch(&node.folder, node.port, node.bus);
        drop(process);
        node.wait_ready();
    }

    /// SIGSTOP and SIGCONT: connections stay open and nobody answers.
    pub fn freeze(&self, n: usize) {
        self.nodes[n].process.lock().unwrap().signal(Signal::Stop);
    }

    pub fn thaw(&self, n: usize) {
        self.nodes[n].process.lock().unwrap().signal(Signal::Continue);
    }

    pub fn is_master(&self, n: usize) -> bool {
        let info = self.nodes[n].text(redis::cmd("INFO").arg("replication"));
        info.is_ok_and(|info| info.contains("role:master"))
    }

    /// How much of what a master has written its only replica has not acknowledged.
    pub fn bytes_behind(&self, n: usize) -> u64 {
        let info = self.nodes[n].text(redis::cmd("INFO").arg("replication")).expect("a master tells of its replicas");
        let number = |name: &str| -> Option<u64> {
            let (_, rest) = info.split_once(name)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let (written, acknowledged) = (number("master_repl_offset:"), number(",offset="));
        written.expect("a master has an offset").saturating_sub(acknowledged.expect("it has a replica"))
    }

    /// FLUSHALL on one of the masters.
    pub fn flush(&self, n: usize) {
        self.nodes[n].ask(&redis::cmd("FLUSHALL")).expect("a master takes FLUSHALL");
    }

    /// Keys of a pattern on one node.
    pub fn keys(&self, n: usize, pattern: &str) -> Vec<Vec<u8>> {
        let mut connection = self.nodes[n].connect().expect("the node answers");
        redis::cmd("KEYS").arg(pattern).query(&mut connection).expect("the node tells its keys")
    }

    pub fn connection(&self, n: usize) -> Connection {
        self.nodes[n].connect().expect("the node answers")
    }

    pub fn id(&self, n: usize) -> String {
        self.nodes[n].text(redis::cmd("CLUSTER").arg("MYID")).expect("the node knows its id")
    }

    pub fn port(&self, n: usize) -> u16 {
        self.nodes[n].port
    }
}

impl Node {
    fn runs(&self) -> bool {
        self.process.lock().unwrap().ended().is_none()
    }

    fn connect(&self) -> RedisResult<Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let connection = client.get_connection_with_timeout(LOOK)?;
        connection.set_read_timeout(Some(LOOK))?;
        Ok(connection)
    }

    fn ask(&self, command: &redis::Cmd) -> RedisResult<Value> {
        command.query(&mut self.connect()?)
    }

    fn text(&self, command: &redis::Cmd) -> RedisResult<String> {
        command.query(&mut self.connect()?)
    }

    fn wait_ready(&self) {
        wait_until_blocking("a node to answer PING", Duration::from_secs(10), || {
            self.text(&redis::cmd("PING")).map_err(|e| e.to_string())
        });
    }
}

fn launch(folder: &Path, port: u16, bus: u16) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--cluster-port", &bus.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
    command.args(["--cluster-node-timeout", NODE_TIMEOUT_MS, "--save", "", "--appendonly", "yes"]);
    command.args(["--appendfsync", "no", "--dir"]).arg(folder);
    Process::start("redis", &mut command, folder.join("redis.log"))
}

impl Drop for RedisCluster {
    fn drop(&mut self) {
        for n in 0..self.nodes.len() {
            self.kill(n);
        }
        reaper::remove(&self.folder);
    }
}
