//! Three real Kafka brokers, each of them a controller too (KRaft, combined): replication 3, two replicas
//! in sync for a write, no unclean elections. What a careful operator runs, on one machine.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    kafka::{LOG4J, java},
    kafka_admin::Placement,
    ports,
    process::{Process, Signal, tail},
    reaper, wait_until_blocking,
};

/// Brokers; losing one leaves a majority of controllers and enough replicas for a write.
pub const NODES: usize = 3;
/// Three JVMs share the machine with everything else.
const HEAP: [&str; 2] = ["-Xmx384m", "-Xms128m"];
/// A look at the cluster that takes longer says that it is not well.
const LOOK: Duration = Duration::from_secs(1);
const STARTED_WITHIN: Duration = Duration::from_secs(120);

/// Nodes are counted from 0; Kafka knows them as 1, 2 and 3.
pub struct Cluster {
    folder: PathBuf,
    nodes: Vec<Node>,
    /// For looking at metadata.
    observer: BaseConsumer,
}

struct Node {
    folder: PathBuf,
    port: u16,
    process: Process,
}

impl Cluster {
    pub fn start(name: &str) -> Self {
        let folder = super::stack::scratch(name);
        let ports: [(u16, u16); NODES] = std::array::from_fn(|_| (ports::free(), ports::free()));
        let folders: Vec<PathBuf> = (0..NODES).map(|node| folder.join(format!("broker-{}", node + 1))).collect();
        for (node, folder) in folders.iter().enumerate() {
            fs::create_dir(folder).expect("scratch is writable");
            fs::write(folder.join("server.properties"), properties(node, folder, &ports)).expect("scratch is writable");
            fs::write(folder.join("log4j2.properties"), LOG4J).expect("scratch is writable");
        }
        let formats: Vec<(&PathBuf, Child)> = folders.iter().map(|folder| (folder, format(folder))).collect();
        for (folder, mut child) in formats {
            let status = child.wait().expect("our own child can be waited for");
            assert!(status.success(), "a storage cannot be formatted:\n{}", tail(&folder.join("format.log"), 20));
        }
        let nodes = folders
            .into_iter()
            .zip(ports)
            .map(|(folder, (port, _))| Node { process: launch(&folder), folder, port })
            .collect();
        let observer = client(&addresses(&ports)).create().expect("a plain client can be made");
        let mut cluster = Self { folder, nodes, observer };
        wait_until_blocking("three brokers to know each other", STARTED_WITHIN, || {
            for node in 0..NODES {
                if let Some(status) = cluster.ended(node) {
                    panic!("broker {} ended with {status}:\n{}", node + 1, cluster.log_tail(node));
                }
            }
            cluster.all_alive()
        });
        cluster
    }

    /// All brokers, for `bootstrap.servers`.
    pub fn addresses(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        all.join(",")
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.nodes[node].port).into()
    }

    /// Settings of a client with short reconnects.
    pub fn client(&self) -> ClientConfig {
        client(&self.addresses())
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].process.kill();
    }

    /// Starts a broker again on its port and its data, without waiting for it.
    pub fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.process.kill();
        node.process = launch(&node.folder);
    }

    /// SIGSTOP: connections stay open and nobody answers.
    pub fn freeze(&self, node: usize) {
        self.nodes[node].process.signal(Signal::Stop);
    }

    pub fn thaw(&self, node: usize) {
        self.nodes[node].process.signal(Signal::Continue);
    }

    /// How a broker ended, if it has.
    pub fn ended(&mut self, node: usize) -> Option<std::process::ExitStatus> {
        self.nodes[node].process.ended()
    }

    pub fn log_tail(&self, node: usize) -> String {
        self.nodes[node].process.log_tail(30)
    }

    fn all_alive(&self) -> Result<(), String> {
        let metadata = self.observer.fetch_metadata(None, LOOK).map_err(|e| e.to_string())?;
        let alive = metadata.brokers().len();
        super::wait::check(alive == NODES, || format!("{alive} of {NODES} brokers are there"))
    }

    /// Whether all brokers are there, every partition has a leader, and every replica has everything.
    ///
    /// # Errors
    /// What is missing.
    pub fn in_sync(&self) -> Result<(), String> {
        let metadata = self.observer.fetch_metadata(None, LOOK).map_err(|e| e.to_string())?;
        let alive = metadata.brokers().len();
        super::wait::check(alive == NODES, || format!("{alive} of {NODES} brokers are there"))?;
        for topic in metadata.topics() {
            for partition in topic.partitions() {
                let (has, wants) = (partition.isr().len(), partition.replicas().len());
                super::wait::check(has == wants && partition.leader() > 0, || {
                    format!("{}/{}: {has} of {wants} replicas are in sync", topic.name(), partition.id())
                })?;
            }
        }
        Ok(())
    }
}

/// Where the replicas of these topics are.
///
/// # Errors
/// No broker answers.
pub fn placement(observer: &BaseConsumer, topics: &[&str], within: Duration) -> Result<Placement, String> {
    let metadata = observer.fetch_metadata(None, within).map_err(|e| e.to_string())?;
    let mut placement = BTreeMap::new();
    for topic in metadata.topics().iter().filter(|topic| topics.contains(&topic.name())) {
        for partition in topic.partitions() {
            placement.insert((topic.name().to_owned(), partition.id()), partition.replicas().to_vec());
        }
    }
    Ok(placement)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.process.kill();
        }
        reaper::remove(&self.folder);
    }
}

fn addresses(ports: &[(u16, u16)]) -> String {
    ports.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

fn client(addresses: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", addresses)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "500")
        // librdkafka writes connection errors to standard error; whoever kills brokers expects them.
        .set("log_level", "2");
    config
}

fn format(folder: &Path) -> Child {
    let log = fs::File::create(folder.join("format.log")).expect("scratch is writable");
    java(folder)
        .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
        .arg(folder.join("server.properties"))
        .stdout(log.try_clone().expect("a file handle can be cloned"))
        .stderr(log)
        .spawn()
        .expect("`java` can be started: a JDK 17 or newer must be installed")
}

fn launch(folder: &Path) -> Process {
    let mut command = java(folder);
    // The last of two settings counts.
    command.args(HEAP).arg("kafka.Kafka").arg(folder.join("server.properties"));
    Process::start("kafka", &mut command, folder.join("kafka.log"))
}

/// Kafka's own defaults for what decides about loss; shorter times for noticing that somebody is gone,
/// so that a run of minutes sees many recoveries.
fn properties(node: usize, folder: &Path, ports: &[(u16, u16)]) -> String {
    let (port, controller) = ports[node];
    let voters: Vec<String> =
        ports.iter().enumerate().map(|(n, (_, controller))| format!("{}@127.0.0.1:{controller}", n + 1)).collect();
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
auto.leader.rebalance.enable=false
offsets.topic.num.partitions=3
offsets.topic.replication.factor=3
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
replica.lag.time.max.ms=10000
transaction.abort.timed.out.transaction.cleanup.interval.ms=2000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.segment.delete.delay.ms=1000
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
",
        id = node + 1,
        voters = voters.join(","),
        data = folder.join("data").display()
    )
}
