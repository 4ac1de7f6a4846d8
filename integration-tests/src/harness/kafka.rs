//! One real Apache Kafka broker (KRaft, broker and controller in one JVM), and plain clients of it.

use std::{
    collections::HashSet,
    fs,
    path::PathBuf,
    process::Command,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use super::{
    ports,
    process::{Process, Signal},
    reaper, wait_until_blocking,
};

pub struct Broker {
    folder: PathBuf,
    port: u16,
    secure_port: Option<u16>,
    process: Mutex<Process>,
}

/// A second listener, for a test of logins: SASL over TLS, with client certificates.
pub struct SecureListener {
    /// The broker's key and certificate, PEM.
    pub keystore: PathBuf,
    /// The authority of clients, PEM.
    pub truststore: PathBuf,
    /// One user, who may log in with PLAIN and SCRAM-SHA-512.
    pub user: String,
    pub password: String,
}

impl Broker {
    /// The one that the tests of this binary share, each under its own topic prefix.
    pub fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<Broker>> = LazyLock::new(|| Arc::new(Broker::start("kafka")));
        Arc::clone(&SHARED)
    }

    /// One of its own, for a test that stops it.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, None)
    }

    /// One that listens for logins too, at [`Broker::secure_address`].
    pub fn start_secured(name: &str, secure: &SecureListener) -> Self {
        Self::start_with(name, Some(secure))
    }

    fn start_with(name: &str, secure: Option<&SecureListener>) -> Self {
        let folder = super::stack::scratch(name);
        let (port, controller) = (ports::free(), ports::free());
        let secure_port = secure.map(|_| ports::free());
        let mut all = properties(&folder, port, controller);
        if let (Some(secure), Some(secure_port)) = (secure, secure_port) {
            all.push_str(&secure.properties(port, controller, secure_port));
        }
        fs::write(folder.join("server.properties"), all).expect("scratch is writable");
        // log4j's default pattern and level, to a file that a failing test can show.
        fs::write(folder.join("log4j2.properties"), LOG4J).expect("scratch is writable");
        let format = java(&folder)
            .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(folder.join("server.properties"))
            .args(secure.iter().flat_map(|secure| secure.format_arguments()))
            .output()
            .expect("`java` can be started: a JDK 17 or newer must be installed");
        assert!(
            format.status.success(),
            "Kafka's storage cannot be formatted:\n{}{}",
            String::from_utf8_lossy(&format.stdout),
            String::from_utf8_lossy(&format.stderr)
        );
        let broker = Self { process: Mutex::new(launch(&folder)), folder, port, secure_port };
        broker.wait_ready();
        broker
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Of a broker that was started with [`Broker::start_secured`].
    pub fn secure_address(&self) -> String {
        format!("localhost:{}", self.secure_port.expect("the broker has a listener for logins"))
    }

    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().pid()
    }

    /// SIGSTOP: connections stay open and nobody answers, as behind a broken network.
    pub fn freeze(&self) {
        self.process.lock().unwrap().signal(Signal::Stop);
    }

    pub fn thaw(&self) {
        self.process.lock().unwrap().signal(Signal::Continue);
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.process.lock().unwrap().kill();
    }

    /// Again on the same port and the same data.
    pub fn restart(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill();
        *process = launch(&self.folder);
        drop(process);
        self.wait_ready();
    }

    fn wait_ready(&self) {
        let consumer: BaseConsumer = self.client().create().expect("a plain client can be made");
        wait_until_blocking("Kafka to answer", Duration::from_secs(60), || {
            if let Some(status) = self.process.lock().unwrap().ended() {
                panic!("Kafka ended with {status}:\n{}", super::process::tail(&self.folder.join("kafka.log"), 40));
            }
            consumer.fetch_metadata(None, Duration::from_millis(500)).map_err(|e| e.to_string())
        });
    }

    /// Settings of a client with short reconnects.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.address())
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "200")
            // librdkafka writes connection errors to standard error; a test that kills brokers expects them.
            .set("log_level", "2");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client can be made")
    }

    /// Makes topics; those that are there stay as they are.
    pub async fn create_topics(&self, names: &[&str], partitions: i32) {
        let topics: Vec<_> =
            names.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        for outcome in self.admin().create_topics(&topics, &options).await.expect("the broker answers") {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => panic!("topic {topic} cannot be made: {code}"),
            }
        }
    }

    pub async fn delete_topics(&self, names: &[&str]) {
        self.admin().delete_topics(names, &AdminOptions::new()).await.expect("the broker answers");
    }

    /// A producer as a customer's own service would have one.
    pub fn producer(&self) -> BareProducer {
        BareProducer::new(self)
    }

    /// Every record of `topic` from its beginning to its end, as a `read_committed` reader sees them.
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        let mut reader = TopicReader::from_beginning(self, topic);
        let mut records = Vec::new();
        reader.read_to_end(|record| records.push(record));
        records
    }

    /// A reader of `topic` from its beginning.
    pub fn reader(&self, topic: &str) -> TopicReader {
        TopicReader::from_beginning(self, topic)
    }

    /// Where a consumer group starts again, partition by partition. Its members must be gone.
    pub fn rewind_group(&self, group: &str, topic: &str, offset: i64) {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .expect("a client can be made");
        let mut offsets = TopicPartitionList::new();
        for partition in partitions_of(&consumer, topic) {
            offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
        }
        wait_until_blocking("the group to be empty", Duration::from_secs(30), || {
            consumer.commit(&offsets, rdkafka::consumer::CommitMode::Sync).map_err(|e| e.to_string())
        });
    }
}

impl SecureListener {
    /// Comes after the plain ones: of a setting that stands twice, the last one counts.
    fn properties(&self, port: u16, controller: u16, secure_port: u16) -> String {
        let Self { keystore, truststore, user, password } = self;
        let (keystore, truststore) = (keystore.display(), truststore.display());
        let security = "org.apache.kafka.common.security";
        format!(
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{secure_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL_SSL://localhost:{secure_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.sasl_ssl.ssl.keystore.type=PEM
listener.name.sasl_ssl.ssl.keystore.location={keystore}
listener.name.sasl_ssl.ssl.truststore.type=PEM
listener.name.sasl_ssl.ssl.truststore.location={truststore}
listener.name.sasl_ssl.ssl.client.auth=required
listener.name.sasl_ssl.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_{user}=\"{password}\";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;
"
        )
    }

    /// SCRAM's users stand in the metadata, and are there from the first start.
    fn format_arguments(&self) -> [String; 2] {
        ["--add-scram".into(), format!("SCRAM-SHA-512=[name={},password={}]", self.user, self.password)]
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        reaper::remove(&self.folder);
    }
}

pub(super) const LOG4J: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
";

/// Small and quick: one replica of everything, few internal partitions, no waiting for a group's members,
/// no fsync policy beyond Kafka's own, and no topics by accident.
fn properties(folder: &std::path::Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={}
auto.create.topics.enable=false
num.partitions=4
offsets.topic.num.partitions=3
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.segment.delete.delay.ms=1000
num.network.threads=2
num.io.threads=4
",
        folder.join("data").display()
    )
}

pub(super) fn java(folder: &std::path::Path) -> Command {
    let libs = std::env::var("RAPPORT_KAFKA_LIBS").unwrap_or_else(|_| {
        panic!("RAPPORT_KAFKA_LIBS does not say where Kafka's jars are: run the tests by `make test`, or source deploy/dev/env.sh after deploy/dev/setup.sh")
    });
    assert!(
        fs::exists(&libs).unwrap_or(false),
        "Kafka's jars are not in {libs}: run deploy/dev/setup.sh (or `make test`, which does)"
    );
    let mut command = Command::new("java");
    command
        .args(["-Xmx512m", "-Xms256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-Xshare:auto"])
        .arg(format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display()))
        .args(["-cp", &format!("{libs}/*")]);
    command
}

fn launch(folder: &std::path::Path) -> Process {
    let mut command = java(folder);
    command.arg("kafka.Kafka").arg(folder.join("server.properties"));
    Process::start("kafka", &mut command, folder.join("kafka.log"))
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    wait_until_blocking(&format!("topic {topic} to be there"), Duration::from_secs(15), || {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(2)).map_err(|e| e.to_string())?;
        let found = metadata.topics().first().ok_or("no such topic")?;
        match found.error() {
            None if !found.partitions().is_empty() => Ok(found.partitions().iter().map(|p| p.id()).collect()),
            error => Err(format!("{error:?}")),
        }
    })
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as a message.
    pub fn decode<M: prost::Message + Default>(&self) -> M {
        M::decode(self.value.as_deref().unwrap_or_default()).expect("the value is the message that the topic promises")
    }

    fn of(message: &rdkafka::message::BorrowedMessage<'_>) -> Self {
        let headers = message
            .headers()
            .map(|all| all.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

/// Reads one topic without a group, `read_committed`.
pub struct TopicReader {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
    /// Whether the end of a partition may have been passed already: it is told only once.
    ended_before: bool,
}

impl TopicReader {
    pub fn from_beginning(broker: &Broker, topic: &str) -> Self {
        let consumer: BaseConsumer = broker
            .client()
            .set("group.id", "integration-tests")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "20")
            .create()
            .expect("a consumer can be made");
        let partitions = partitions_of(&consumer, topic);
        let mut assignment = TopicPartitionList::new();
        for partition in &partitions {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&assignment).expect("partitions can be assigned");
        Self { consumer, topic: topic.to_owned(), partitions, ended_before: false }
    }

    /// The next record, if one comes within `wait`.
    pub fn next(&mut self, wait: Duration) -> Option<Record> {
        let until = Instant::now() + wait;
        loop {
            match self.consumer.poll(until.saturating_duration_since(Instant::now())) {
                Some(Ok(message)) => return Some(Record::of(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => self.ended_before = true,
                // A broker that is down: the deadline decides.
                Some(Err(_)) | None => {}
            }
            if Instant::now() >= until {
                return None;
            }
        }
    }

    /// The first record that `wanted` likes.
    ///
    /// # Panics
    /// After `within`.
    pub fn find(&mut self, what: &str, within: Duration, mut wanted: impl FnMut(&Record) -> bool) -> Record {
        let until = Instant::now() + within;
        let mut read = 0;
        while Instant::now() < until {
            if let Some(record) = self.next(Duration::from_millis(50)) {
                read += 1;
                if wanted(&record) {
                    return record;
                }
            }
        }
        panic!("waited {within:?} for {what} on {}; {read} other records came", self.topic);
    }

    /// What is there now, up to the end of every partition (open transactions hide what is behind them).
    /// A partition whose end had been reached before, and to which nothing came since, is waited for in vain:
    /// that ends after a second of silence.
    pub fn read_to_end(&mut self, mut take: impl FnMut(Record)) {
        let until = Instant::now() + Duration::from_secs(60);
        let mut last = Instant::now();
        let mut ended = HashSet::new();
        while ended.len() < self.partitions.len() && (!self.ended_before || last.elapsed() < Duration::from_secs(1)) {
            assert!(Instant::now() < until, "{} does not end: {ended:?} of {:?}", self.topic, self.partitions);
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    take(Record::of(&message));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(_)) | None => {}
            }
        }
        self.ended_before = true;
    }
}

/// Counts deliveries: a record that was not acknowledged fails the test that sent it.
#[derive(Default)]
struct Deliveries(Mutex<Vec<String>>);

impl ClientContext for Deliveries {}
impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().push(error.to_string());
        }
    }
}

/// A producer like any company has one: no Rapport code in it.
pub struct BareProducer {
    inner: ThreadedProducer<Deliveries>,
}

impl BareProducer {
    fn new(broker: &Broker) -> Self {
        let inner = broker
            .client()
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("compression.codec", "lz4")
            .create_with_context(Deliveries::default())
            .expect("a producer can be made");
        Self { inner }
    }

    /// Queues one record, waiting for room.
    pub fn send(&self, topic: &str, key: Option<&str>, value: &[u8], headers: &[(&str, &str)]) {
        let mut owned = OwnedHeaders::new();
        for (name, text) in headers {
            owned = owned.insert(Header { key: name, value: Some(text.as_bytes()) });
        }
        let mut record = BaseRecord::<str, [u8]>::to(topic).payload(value).headers(owned);
        if let Some(key) = key {
            record = record.key(key);
        }
        while let Err((error, back)) = self.inner.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
    }

    /// Waits until the broker has everything.
    pub fn flush(&self) {
        self.inner.flush(Duration::from_secs(30)).expect("the broker takes everything within 30 s");
        let failed = self.inner.context().0.lock().unwrap();
        assert!(failed.is_empty(), "{} records were not acknowledged, the first: {}", failed.len(), failed[0]);
    }
}
