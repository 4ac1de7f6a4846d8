//! One test's own Rapport: five services as processes, with topics, group ids, keys, ports and folders
//! that no other test has.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use rapport_kafka::{KafkaArgs, Topics};

use super::{Broker, RedisServer, S3Server, Service, process::Process, reaper, service::Ports, wait_until};

/// The key that the stack's collector knows, and the tenant that it stands for.
pub const API_KEY: &str = "test-key";
pub const TENANT: &str = "demo";
/// The operator's key for hashing identifiers, for all services of a stack.
pub const HASH_KEY: &str = "integration tests hash key";

/// Fewer than by default, and more than one: order across partitions is never promised.
pub const PARTITIONS: i32 = 3;
/// A consumer that was killed leaves its group after 2 s instead of 20.
const KAFKA_SETTINGS: &str = "session.timeout.ms=2000,heartbeat.interval.ms=300";

/// How long a service may take from its start to ready. Generous: two cores run several tests.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// More than any service's drain budget.
const DRAINED_WITHIN: Duration = Duration::from_secs(40);

pub struct Stack {
    pub name: String,
    pub broker: Arc<Broker>,
    pub redis: Arc<RedisServer>,
    pub topics: Topics,
    folder: PathBuf,
    offline: PathBuf,
    ports: BTreeMap<Service, Ports>,
    settings: BTreeMap<Service, Vec<(String, String)>>,
    running: BTreeMap<Service, Process>,
}

impl Stack {
    /// On the broker and Redis that the tests share. `RAPPORT_TEST_REDIS_URL` names another Redis for the
    /// services, which may be a Cluster; tests that look into Redis themselves do not find their keys then.
    pub fn new(name: &str) -> Self {
        let mut stack = Self::on(name, Broker::shared(), RedisServer::shared());
        if let Ok(url) = std::env::var("RAPPORT_TEST_REDIS_URL") {
            for service in Service::ALL {
                stack.set(service, "RAPPORT_REDIS_URL", url.clone());
            }
        }
        stack
    }

    pub fn on(name: &str, broker: Arc<Broker>, redis: Arc<RedisServer>) -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{name}-{}", &unique[..8]);
        let folder = scratch(&name);
        for part in ["offline", "registry", "logs"] {
            fs::create_dir(folder.join(part)).expect("scratch is writable");
        }
        let ports = Service::ALL.map(|service| (service, Ports::free())).into_iter().collect();
        let topics = Topics::with_prefix(&format!("{name}."));
        let (offline, settings, running) = (folder.join("offline"), BTreeMap::new(), BTreeMap::new());
        Self { name, broker, redis, topics, folder, offline, ports, settings, running }
    }

    /// Sets a variable for one service's next start.
    pub fn set(&mut self, service: Service, name: &str, value: impl Into<String>) {
        self.settings.entry(service).or_default().push((name.to_owned(), value.into()));
    }

    /// Makes the topics, for a test that writes or reads before any service runs.
    pub async fn make_topics(&self) {
        let mut args = KafkaArgs::for_brokers(self.broker.address(), format!("{}.", self.name));
        args.partitions = PARTITIONS;
        rapport_kafka::ensure_topics(&args).await.expect("the broker makes topics");
    }

    pub fn group(&self, service: Service) -> String {
        format!("{}-{}", self.name, service.name())
    }

    pub fn key_prefix(&self) -> &str {
        &self.name
    }

    pub fn offline_folder(&self) -> PathBuf {
        self.offline.clone()
    }

    /// The log lies in a bucket, for services that start from now on; this harness reads it behind the server.
    pub fn keep_the_log_in(&mut self, s3: &S3Server) {
        self.offline = s3.behind(&self.name);
        let url = ("RAPPORT_OFFLINE_URL", s3.url(&self.name));
        for service in [Service::FeatureStore, Service::Trainer] {
            for (name, value) in s3.variables().into_iter().chain([url.clone()]) {
                self.set(service, name, value);
            }
        }
    }

    pub fn registry_folder(&self) -> PathBuf {
        self.folder.join("registry")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn ports(&self, service: Service) -> Ports {
        self.ports[&service]
    }

    pub fn grpc_uri(&self, service: Service) -> String {
        format!("http://127.0.0.1:{}", self.ports(service).grpc)
    }

    pub fn http_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports(Service::Collector).http)
    }

    pub fn admin_url(&self, service: Service, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports(service).admin)
    }

    /// The program with this stack's configuration, and nothing of ours inherited.
    pub fn command(&self, service: Service) -> Command {
        let ports = self.ports(service);
        let mut command = Command::new(service.program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RAPPORT_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.folder)
            .env("RAPPORT_GRPC_ADDR", format!("127.0.0.1:{}", ports.grpc))
            .env("RAPPORT_ADMIN_ADDR", format!("127.0.0.1:{}", ports.admin))
            .env("RAPPORT_KAFKA_BROKERS", self.broker.address())
            .env("RAPPORT_TOPIC_PREFIX", format!("{}.", self.name))
            .env("RAPPORT_KAFKA_PARTITIONS", PARTITIONS.to_string())
            .env("RAPPORT_KAFKA_SETTINGS", KAFKA_SETTINGS)
            .env("RAPPORT_GROUP_ID", self.group(service))
            .env("RAPPORT_REDIS_URL", self.redis.url())
            .env("RAPPORT_KEY_PREFIX", &self.name)
            .env("RAPPORT_OFFLINE_URL", self.offline_folder())
            .env("RAPPORT_FLUSH_AGE", "1s")
            .env("RAPPORT_REGISTRY_DIR", self.registry_folder())
            .env("RAPPORT_API_KEYS", format!("{API_KEY}={TENANT},other-key=other"))
            .env("RAPPORT_HASH_KEY", HASH_KEY)
            .env("RAPPORT_DEFAULT_TENANT", TENANT);
        if service == Service::Collector {
            command.env("RAPPORT_HTTP_ADDR", format!("127.0.0.1:{}", ports.http));
        }
        for (name, value) in self.settings.get(&service).into_iter().flatten() {
            command.env(name, value);
        }
        command
    }

    /// Starts services one after the other and waits until each is ready.
    pub async fn start(&mut self, services: &[Service]) {
        for service in services {
            self.launch(*service);
        }
        for service in services {
            self.wait_ready(*service).await;
        }
    }

    /// Starts a service without waiting for it.
    pub fn launch(&mut self, service: Service) {
        let log = self.folder.join("logs").join(format!("{}.log", service.name()));
        let process = Process::start(service.name(), &mut self.command(service), log);
        assert!(self.running.insert(service, process).is_none(), "{} runs already", service.name());
    }

    pub async fn wait_ready(&mut self, service: Service) {
        let url = self.admin_url(service, "/readyz");
        let process = self.running.get_mut(&service).expect("the service was started");
        wait_until(&format!("{} to be ready", service.name()), READY_WITHIN, async || {
            if let Some(status) = process.ended() {
                panic!("{} ended with {status} before it was ready:\n{}", service.name(), process.log_tail(30));
            }
            let (status, body) = get(&url)?;
            super::wait::check(status == 200, || format!("{status}: {body}"))
        })
        .await;
    }

    pub fn process(&mut self, service: Service) -> &mut Process {
        self.running.get_mut(&service).unwrap_or_else(|| panic!("{} does not run", service.name()))
    }

    /// `kill -9`.
    pub fn kill(&mut self, service: Service) {
        self.process(service).kill();
        self.running.remove(&service);
    }

    /// SIGTERM; how it ended and how long that took.
    pub fn stop(&mut self, service: Service) -> (ExitStatus, Duration) {
        let ended = self.process(service).terminate(DRAINED_WITHIN);
        self.running.remove(&service);
        ended
    }

    /// One sample of a service's metrics: the sum over all label sets whose text holds `labels`.
    pub fn metric(&self, service: Service, name: &str, labels: &str) -> Option<f64> {
        let (_, body) = get(&self.admin_url(service, "/metrics")).ok()?;
        let samples: Vec<f64> = body
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels))
            .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{')))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!samples.is_empty()).then(|| samples.iter().sum())
    }

    /// Rapport's command line, pointed at this stack and at nothing else.
    pub fn rapportctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(super::service::program("rapportctl"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAPPORT_")) {
            command.env_remove(name);
        }
        command
            .current_dir(&self.folder)
            .env("RAPPORT_KAFKA_BROKERS", self.broker.address())
            .env("RAPPORT_TOPIC_PREFIX", format!("{}.", self.name))
            .env("RAPPORT_CLEANER_GROUP", self.group(Service::Cleaner))
            .env("RAPPORT_COLLECTOR", self.grpc_uri(Service::Collector))
            .env("RAPPORT_TRAINER", self.grpc_uri(Service::Trainer))
            .env("RAPPORT_SCORER", self.grpc_uri(Service::Scorer))
            .env("RAPPORT_FEATURE_STORE", self.grpc_uri(Service::FeatureStore))
            .env("RAPPORT_API_KEY", API_KEY)
            .env("RAPPORT_HASH_KEY", HASH_KEY)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// What the command line answers: its exit code, and its JSON.
    pub fn ask(&self, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
        let Output { status, stdout, stderr } =
            self.rapportctl(&[&["--json"], arguments].concat()).output().expect("rapportctl can be started");
        let (answer, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        match serde_json::from_str(&answer) {
            Ok(answer) => (status.code(), answer),
            Err(error) => panic!("rapportctl {arguments:?} ended with {status}: {error}: {answer}{said}"),
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the services' logs of {} ----", self.name);
            let logs = fs::read_dir(self.folder.join("logs")).into_iter().flatten().flatten();
            for log in logs {
                eprintln!("---- {} ----\n{}", log.file_name().display(), super::process::tail(&log.path(), 25));
            }
        }
        self.running.clear();
        reaper::remove(&self.folder);
    }
}

/// A folder of our own that goes when we go.
pub fn scratch(name: &str) -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix(&format!("rapport-test-{name}-"))
        .tempdir()
        .expect("the temporary folder is writable")
        .keep();
    reaper::folder(&folder);
    folder
}

/// An HTTP client that keeps its connection and takes every status for an answer.
pub fn agent() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).http_status_as_error(false);
    config.build().into()
}

/// HTTP GET: status and body.
pub fn get(url: &str) -> Result<(u16, String), String> {
    let mut response = agent().get(url).call().map_err(|e| e.to_string())?;
    let body = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
    Ok((response.status().as_u16(), body))
}

/// HTTP POST: status and body.
pub fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(u16, String), String> {
    post_with(&agent(), url, headers, body)
}

/// HTTP POST on a client that is kept: status and body.
pub fn post_with(
    agent: &ureq::Agent,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<(u16, String), String> {
    let mut request = agent.post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send(body).map_err(|e| e.to_string())?;
    let body = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
    Ok((response.status().as_u16(), body))
}
