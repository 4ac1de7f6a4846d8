//! What runs: three brokers, Redis, collectors, cleaners.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rapport_kafka::{KafkaArgs, Topics};

use crate::harness::{
    RedisServer, Service,
    cluster::{Cluster, NODES},
    process::{Process, Signal},
    service::Ports,
    stack::{API_KEY, HASH_KEY, TENANT, get, scratch},
    wait::check,
    wait_until_blocking,
};

use super::{Sabotage, mover::Mover};

/// Partitions of the event topics: with three cleaners, two each.
pub const PARTITIONS: i32 = 6;
const GROUP: &str = "chaos-cleaner";
const READY_WITHIN: Duration = Duration::from_secs(90);
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// A pause of seven seconds outlasts the session; two cores that are busy do not.
const CONSUMER: &str = "session.timeout.ms=6000,heartbeat.interval.ms=1000";

/// Of a line in a log: the time at its beginning, and as much as tells what happened.
const TIMESTAMP: usize = 27;
const LAST_WORDS: usize = 260;

/// One process of ours, which is started again and again.
pub struct Instance {
    pub name: String,
    service: Service,
    ports: Ports,
    process: Option<Process>,
    /// It was started and has not been killed by us.
    pub wanted: bool,
    launched: u32,
}

pub struct Fleet {
    pub cluster: Cluster,
    pub redis: Arc<RedisServer>,
    pub topics: Topics,
    pub collectors: Vec<Instance>,
    pub cleaners: Vec<Instance>,
    sabotage: Option<Sabotage>,
    folder: PathBuf,
}

impl Fleet {
    /// Starts everything and waits until it is ready.
    pub fn start(collectors: usize, cleaners: usize, sabotage: Option<Sabotage>) -> Self {
        let folder = scratch("chaos");
        let cluster = Cluster::start("chaos-kafka");
        let redis = Arc::new(RedisServer::start("chaos-redis"));
        let mut fleet = Self {
            cluster,
            redis,
            topics: Topics::with_prefix(PREFIX),
            collectors: instances(Service::Collector, collectors),
            cleaners: instances(Service::Cleaner, cleaners),
            sabotage,
            folder,
        };
        fleet.make_topics();
        for n in 0..collectors {
            fleet.start_collector(n);
        }
        for n in 0..cleaners {
            fleet.start_cleaner(n);
        }
        let copiers = sabotage == Some(Sabotage::NoTransactions);
        let ready = fleet.collectors.iter_mut().chain(fleet.cleaners.iter_mut().filter(|_| !copiers));
        for instance in ready {
            wait_until_blocking(&format!("{} to be ready", instance.name), READY_WITHIN, || {
                let process = instance.process.as_mut().ok_or("it was not started")?;
                if let Some(status) = process.ended() {
                    panic!("{} ended with {status}:\n{}", instance.name, process.log_tail(30));
                }
                let (status, body) = get(&format!("http://127.0.0.1:{}/readyz", instance.ports.admin))?;
                check(status == 200, || body)
            });
        }
        fleet
    }

    fn make_topics(&self) {
        let mut args = KafkaArgs::for_brokers(self.cluster.addresses(), PREFIX);
        args.partitions = PARTITIONS;
        args.replication = 3;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        wait_until_blocking("the topics to be made", Duration::from_secs(60), || {
            runtime.block_on(rapport_kafka::ensure_topics(&args)).map_err(|e| e.to_string())
        });
    }

    pub fn group(&self) -> &'static str {
        GROUP
    }

    /// Moves replicas of the topics that matter.
    pub fn mover(&self) -> Mover {
        let ours = [&self.topics.raw, &self.topics.clean, &self.topics.dead].map(String::clone);
        let kafkas = ["__consumer_offsets", "__transaction_state"].map(str::to_owned);
        Mover {
            brokers: (0..NODES).map(|node| self.cluster.address(node)).collect(),
            client: self.cluster.client(),
            topics: ours.into_iter().chain(kafkas).collect(),
        }
    }

    /// Where the collectors take gRPC, and where HTTP.
    pub fn doors(&self) -> Vec<Door> {
        let door = |instance: &Instance| Door {
            grpc: format!("http://127.0.0.1:{}", instance.ports.grpc),
            segment: format!("http://127.0.0.1:{}/v1/batch", instance.ports.http),
        };
        self.collectors.iter().map(door).collect()
    }

    pub fn start_collector(&mut self, n: usize) {
        let mut command = self.command(&self.collectors[n]);
        command
            .env("RAPPORT_HTTP_ADDR", format!("127.0.0.1:{}", self.collectors[n].ports.http))
            .env("RAPPORT_API_KEYS", format!("{API_KEY}={TENANT}"))
            .env("RAPPORT_ACK_TIMEOUT", "6s");
        if self.sabotage == Some(Sabotage::AcksOne) {
            command.env("RAPPORT_KAFKA_SETTINGS", "acks=1,enable.idempotence=false");
        }
        self.collectors[n].launch(command, &self.folder);
    }

    /// Under new ports: an older process of this name may still hold the old ones.
    pub fn start_cleaner(&mut self, n: usize) {
        self.cleaners[n].ports = Ports::free();
        let instance = &self.cleaners[n];
        let command = if self.sabotage == Some(Sabotage::NoTransactions) {
            let mut command = Command::new(crate::harness::service::program("chaos"));
            command.arg("copier").args(["--brokers", &self.cluster.addresses(), "--group", GROUP]).args([
                "--redis",
                &self.redis.url(),
                "--raw",
                &self.topics.raw,
                "--clean",
                &self.topics.clean,
            ]);
            command
        } else {
            let mut command = self.command(instance);
            command
                .env("RAPPORT_GROUP_ID", GROUP)
                .env("RAPPORT_INSTANCE_ID", &instance.name)
                .env("RAPPORT_KAFKA_SETTINGS", CONSUMER)
                .env("RAPPORT_REDIS_URL", self.redis.url())
                .env("RAPPORT_KEY_PREFIX", "chaos")
                .env("RAPPORT_HASH_KEY", HASH_KEY)
                .env("RAPPORT_DEFAULT_TENANT", TENANT);
            command
        };
        self.cleaners[n].launch(command, &self.folder);
    }

    /// The program with what both services need, and nothing of ours inherited.
    fn command(&self, instance: &Instance) -> Command {
        let mut command = Command::new(instance.service.program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RAPPORT_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.folder)
            .env("RAPPORT_GRPC_ADDR", format!("127.0.0.1:{}", instance.ports.grpc))
            .env("RAPPORT_ADMIN_ADDR", format!("127.0.0.1:{}", instance.ports.admin))
            .env("RAPPORT_KAFKA_BROKERS", self.cluster.addresses())
            .env("RAPPORT_TOPIC_PREFIX", PREFIX)
            .env("RAPPORT_KAFKA_PARTITIONS", PARTITIONS.to_string())
            .env("RAPPORT_KAFKA_REPLICATION", "3");
        command
    }

    /// SIGTERM to all collectors; how those ended that did not end well.
    pub fn drain_collectors(&mut self) -> Vec<String> {
        drain(&mut self.collectors)
    }

    /// SIGTERM to all cleaners, likewise. Copiers know no drain: they have committed when they are idle.
    pub fn drain_cleaners(&mut self) -> Vec<String> {
        if self.sabotage == Some(Sabotage::NoTransactions) {
            self.cleaners.iter_mut().for_each(Instance::kill);
        }
        drain(&mut self.cleaners)
    }

    /// Starts the cleaners again that ended by themselves; how they ended.
    pub fn revive_cleaners(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for n in 0..self.cleaners.len() {
            if let Some(how) = self.cleaners[n].ended_by_itself() {
                ended.push(format!("{}: {how}", self.cleaners[n].name));
                self.cleaners[n].kill();
                self.start_cleaner(n);
            }
        }
        ended
    }

    /// What the cleaners say of themselves: readiness, lag, and the last lines of their logs.
    pub fn cleaners_last_words(&self) -> Vec<String> {
        let words = |instance: &Instance| {
            let process = instance.process.as_ref()?;
            let admin = format!("http://127.0.0.1:{}", instance.ports.admin);
            let ready = get(&format!("{admin}/readyz")).map_or_else(|error| error, |(_, body)| body);
            let metrics = get(&format!("{admin}/metrics")).map_or_else(|error| error, |(_, body)| body);
            let lag: Vec<&str> =
                metrics.lines().filter(|line| !line.starts_with('#') && line.contains("lag")).collect();
            Some(format!("{}: {ready} {}\n{}", instance.name, lag.join(" "), process.log_tail(6)))
        };
        self.cleaners.iter().filter_map(words).collect()
    }
}

fn drain(instances: &mut [Instance]) -> Vec<String> {
    let mut badly = Vec::new();
    for instance in instances.iter() {
        if let Some(process) = &instance.process {
            process.signal(Signal::Term);
        }
    }
    for instance in instances {
        let Some(mut process) = instance.process.take() else { continue };
        instance.wanted = false;
        let started = std::time::Instant::now();
        while process.ended().is_none() && started.elapsed() < DRAINED_WITHIN {
            std::thread::sleep(Duration::from_millis(20));
        }
        match process.ended() {
            Some(status) if status.success() => {}
            Some(status) => badly.push(format!("{} ended with {status}", instance.name)),
            None => badly.push(format!("{} did not end within {DRAINED_WITHIN:?} of SIGTERM", instance.name)),
        }
    }
    badly
}

/// What the topics' names begin with.
const PREFIX: &str = "chaos.";

/// One collector, as a client sees it.
#[derive(Debug, Clone)]
pub struct Door {
    pub grpc: String,
    pub segment: String,
}

fn instances(service: Service, count: usize) -> Vec<Instance> {
    (1..=count)
        .map(|n| Instance {
            name: format!("{}-{n}", service.name()),
            service,
            ports: Ports::free(),
            process: None,
            wanted: false,
            launched: 0,
        })
        .collect()
}

impl Instance {
    /// With a log of its own: an older process of this name may still write into the last one.
    fn launch(&mut self, mut command: Command, folder: &Path) {
        self.launched += 1;
        let log = folder.join(format!("{}.{}.log", self.name, self.launched));
        self.process = Some(Process::start(&self.name, &mut command, log));
        self.wanted = true;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.wanted = false;
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn freeze(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::Stop);
        }
    }

    pub fn thaw(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::Continue);
        }
    }

    /// Gives the process away: another one takes its name.
    pub fn leave(&mut self) -> Option<Process> {
        self.process.take()
    }

    /// How it ended and its last words, when it ended and should not have.
    pub fn ended_by_itself(&mut self) -> Option<String> {
        if !self.wanted {
            return None;
        }
        let process = self.process.as_mut()?;
        let status = process.ended()?;
        let words: String = process.log_tail(1).chars().skip(TIMESTAMP).take(LAST_WORDS).collect();
        Some(format!("{status}: {}", words.trim()))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for instance in self.collectors.iter_mut().chain(&mut self.cleaners) {
            instance.kill();
        }
        crate::harness::reaper::remove(&self.folder);
    }
}
