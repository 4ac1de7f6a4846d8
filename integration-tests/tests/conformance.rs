//! Other people's clients, unmodified, send their events here, through a network that fails: what each
//! of them reports as sent is found once on the clean topic, and nothing of it on the dead one.
//!
//! The clients stand in `integration-tests/conformance`; `make test` installs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what the network did"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rapport_integration_tests::harness::{
    Service, Stack,
    others::{self, cache, folder},
    stack::{API_KEY, TENANT},
    wait::check,
    wait_until,
};
use rapport_proto::events::{CleanEvent, DeadLetter};

/// What the Snowplow trackers send in place of a key.
const APP_ID: &str = "shop-web";
const EVENTS: usize = 60;
const WITHIN: Duration = Duration::from_secs(60);

fn python() -> Command {
    others::python("conformance/venv")
}

/// A collector and a cleaner, with a key for the clients that have one and an app id for those that do not.
async fn stack(name: &str) -> Stack {
    let mut stack = Stack::new(name);
    let keys = stack.folder().join("keys.yaml");
    let hash = sha256_hex(API_KEY);
    let yaml =
        format!("keys:\n  - name: conformance\n    sha256: {hash}\n    tenant: {TENANT}\n    app_ids: [{APP_ID}]\n");
    fs::write(&keys, yaml).unwrap();
    // One place for a key: the stack's own list knows it too.
    stack.set(Service::Collector, "RAPPORT_API_KEYS", "other-key=other");
    stack.set(Service::Collector, "RAPPORT_API_KEYS_FILE", keys.to_string_lossy());
    stack.start(&[Service::Collector, Service::Cleaner]).await;
    stack
}

fn sha256_hex(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A proxy that refuses some calls and loses the answers of others, before the stack's collector.
struct FlakyProxy {
    child: Child,
    url: String,
}

impl FlakyProxy {
    fn before(stack: &Stack) -> Self {
        let mut child = python()
            .arg(folder().join("flaky_proxy.py"))
            .arg(stack.ports(Service::Collector).http.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let mut port = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        Self { child, url: format!("http://127.0.0.1:{}", port.trim()) }
    }

    /// What it did: the last line that it wrote.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text.lines().last().unwrap_or_default().to_owned()
    }
}

/// Runs a client to its end; the ids that it says were sent.
fn sent_by(mut client: Command) -> BTreeSet<String> {
    let shown = format!("{client:?}");
    let output = client.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown} ended with {}:\n{err}", output.status);
    let ids: BTreeSet<String> = out.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    // A client may give some up; it then does not report them.
    assert!(ids.len() * 3 >= EVENTS * 2, "{shown} reports only {} of {EVENTS} events as sent:\n{err}", ids.len());
    ids
}

/// Waits for every id on the clean topic, then sees that none is there twice and none is dead. Gives the
/// types that they came out with.
async fn each_is_found_once(stack: &Stack, ids: &BTreeSet<String>) -> BTreeMap<String, usize> {
    let mut found: HashMap<String, Vec<CleanEvent>> = HashMap::new();
    let mut reader = stack.broker.reader(&stack.topics.clean);
    wait_until("every event that was reported as sent", WITHIN, async || {
        reader.read_to_end(|record| {
            let clean = record.decode::<CleanEvent>();
            let id = clean.event.as_ref().map(|event| event.event_id.clone()).unwrap_or_default();
            found.entry(id).or_default().push(clean);
        });
        let missing: Vec<_> = ids.iter().filter(|id| !found.contains_key(*id)).take(3).collect();
        let mut dead = Vec::new();
        stack.broker.reader(&stack.topics.dead).read_to_end(|record| dead.push(record.decode::<DeadLetter>()));
        check(dead.is_empty(), || format!("{} dead letters, the first: {:?}", dead.len(), dead.first()))?;
        check(missing.is_empty(), || format!("missing among others {missing:?}"))
    })
    .await;
    let twice: Vec<_> = found.iter().filter(|(_, events)| events.len() != 1).map(|(id, _)| id).collect();
    assert!(twice.is_empty(), "found more than once: {twice:?}");
    let mut types = BTreeMap::new();
    for event in ids.iter().filter_map(|id| found[id][0].event.as_ref()) {
        assert!(!event.customer_id.is_empty());
        *types.entry(event.r#type.clone()).or_insert(0) += 1;
    }
    types
}

/// Sends through the flaky proxy and looks for everything.
async fn conforms(name: &str, client: impl FnOnce(&str) -> Command, types: &[&str]) {
    let stack = stack(name).await;
    let proxy = FlakyProxy::before(&stack);
    let ids = sent_by(client(&proxy.url));
    let seen = each_is_found_once(&stack, &ids).await;
    let did = proxy.end();
    println!("{name}: {} events, each once; the proxy: {did}; types: {seen:?}", ids.len());
    assert!(did.contains("'refused'") && !did.contains("'refused': 0"), "no call was refused: {did}");
    for kind in types {
        assert!(seen.contains_key(*kind), "no event of the type {kind}: {seen:?}");
    }
}

fn python_client(script: &'static str, key: &'static str) -> impl FnOnce(&str) -> Command {
    move |url| {
        let mut command = python();
        command.arg(folder().join(script)).args([url, key, &EVENTS.to_string()]);
        command
    }
}

/// Node looks for packages beside the script: a folder with both, in the test's scratch.
fn node_client(script: &'static str, key: &'static str) -> impl FnOnce(&str) -> Command {
    move |url| {
        let packages = cache().join("conformance/node/node_modules");
        assert!(packages.is_dir(), "{} is missing: run deploy/dev/setup.sh --tests", packages.display());
        let scratch = rapport_integration_tests::harness::stack::scratch("node");
        std::os::unix::fs::symlink(&packages, scratch.join("node_modules")).unwrap();
        fs::copy(folder().join("node").join(script), scratch.join(script)).unwrap();
        let own = cache().join("conformance/venv/bin/node");
        let mut command = Command::new(if own.is_file() { own } else { "node".into() });
        command.arg(scratch.join(script)).args([url, key, &EVENTS.to_string()]);
        command
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_python_client_is_understood_and_its_repeats_are_dropped() {
    let client = python_client("segment_python.py", API_KEY);
    conforms("segment-python", client, &["identify", "page", "product_viewed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rudderstacks_python_client_is_understood_and_its_repeats_are_dropped() {
    conforms("rudder-python", python_client("rudder_python.py", API_KEY), &["order_completed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posthogs_python_client_is_understood_and_its_repeats_are_dropped() {
    conforms("posthog-python", python_client("posthog_python.py", API_KEY), &["product_viewed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snowplows_python_tracker_is_understood_by_post_and_by_get() {
    conforms("snowplow-python", python_client("snowplow_python.py", APP_ID), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloudevents_sdk_is_understood_in_all_three_modes() {
    conforms("cloudevents-python", python_client("cloudevents_python.py", API_KEY), &["view"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_node_client_is_understood_and_its_repeats_are_dropped() {
    conforms("segment-node", node_client("segment.mjs", API_KEY), &["identify", "product_viewed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rudderstacks_node_client_is_understood_and_its_repeats_are_dropped() {
    conforms("rudder-node", node_client("rudder.mjs", API_KEY), &["product_viewed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posthogs_node_client_is_understood_and_its_repeats_are_dropped() {
    conforms("posthog-node", node_client("posthog.mjs", API_KEY), &["product_viewed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snowplows_node_tracker_is_understood_and_its_repeats_are_dropped() {
    conforms("snowplow-node", node_client("snowplow.mjs", APP_ID), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_python_kafka_producers_write_cloudevents_to_the_raw_topic_themselves() {
    let stack = stack("kafka-python").await;
    let mut client = python();
    client.arg(folder().join("kafka_clients.py")).args([
        stack.broker.address().as_str(),
        stack.topics.raw.as_str(),
        &EVENTS.to_string(),
    ]);
    let ids = sent_by(client);
    let types = each_is_found_once(&stack, &ids).await;
    assert_eq!(types, BTreeMap::from([("purchase".into(), EVENTS / 2), ("view".into(), EVENTS / 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_writes_lines_of_json_to_the_raw_topic_itself() {
    let stack = stack("kcat").await;
    let ids: BTreeSet<String> = (0..EVENTS).map(|n| format!("kcat-{n}")).collect();
    let lines: Vec<String> = ids
        .iter()
        .map(|id| format!(r#"{{"event_id": "{id}", "type": "view", "customer_id": "ann", "item_id": "i1"}}"#))
        .collect();
    let file = stack.folder().join("lines");
    fs::write(&file, lines.join("\n")).unwrap();
    let output = Command::new("kcat")
        .args(["-P", "-b", &stack.broker.address(), "-t", &stack.topics.raw])
        .args(["-H", "content-type=application/json", "-H", &format!("rapport-tenant={TENANT}"), "-l"])
        .arg(&file)
        .output()
        .expect("kcat is installed: deploy/dev/setup.sh --tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let types = each_is_found_once(&stack, &ids).await;
    assert_eq!(types, BTreeMap::from([("view".into(), EVENTS)]));
}
