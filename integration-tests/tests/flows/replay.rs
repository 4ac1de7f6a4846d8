//! Dead letters sent again: each once, through a crash and two replays at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use prost::Message;
use rapport_events::EventTime;
use rapport_integration_tests::{
    accounting::exactly_once,
    events::{PROTOBUF, interaction, key, now_ms},
    harness::{Record, Service, Stack, stack::TENANT, wait::check, wait_until},
};
use rapport_proto::events::{CleanEvent, DeadLetter, Header, dead_letter::Kind};

const WITHIN: Duration = Duration::from_secs(60);
const LETTERS: usize = 400;

fn write_policy(stack: &Stack, version: u32, most: u32) {
    let folder = stack.folder().join("policies");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "version: {version}\nvalidate:\n  events:\n    purchase:\n      version: {version}\n      schema:\n        \
         properties: {{value: {{maximum: {most}}}}}\n"
    );
    fs::write(folder.join(format!("{TENANT}.yaml.new")), text).unwrap();
    fs::rename(folder.join(format!("{TENANT}.yaml.new")), folder.join(format!("{TENANT}.yaml"))).unwrap();
}

fn purchase(stack: &Stack, ids: &[String], value: f64) {
    let producer = stack.broker.producer();
    for id in ids {
        let mut event = interaction(id, "purchase", &format!("customer-of-{id}"), "lamp", now_ms());
        event.value = Some(value);
        let headers = [("content-type", PROTOBUF), ("rapport-tenant", TENANT), ("x-shop", "north")];
        producer.send(&stack.topics.raw, Some(&key(TENANT, &event.customer_id)), &event.encode_to_vec(), &headers);
    }
    producer.flush();
}

fn replays(stack: &Stack) -> Vec<Record> {
    let raw = stack.broker.read_all(&stack.topics.raw);
    raw.into_iter().filter(|record| record.header("rapport-replay-of").is_some()).collect()
}

fn clean_ids(stack: &Stack) -> Vec<String> {
    let clean = stack.broker.read_all(&stack.topics.clean);
    clean.iter().map(|record| record.header("rapport-event-id").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_replayed_once_their_cause_is_fixed_and_each_event_is_clean_once() {
    let mut stack = Stack::new("replay");
    write_policy(&stack, 1, 10);
    stack.set(Service::Cleaner, "RAPPORT_POLICIES", stack.folder().join("policies").display().to_string());
    stack.start(&[Service::Cleaner]).await;
    let (dear, cheap): (Vec<String>, Vec<String>) =
        ((0..60).map(|n| format!("dear-{n}")).collect(), (0..20).map(|n| format!("cheap-{n}")).collect());
    purchase(&stack, &dear, 50.0);
    purchase(&stack, &cheap, 5.0);
    wait_until("every purchase to be judged", WITHIN, async || {
        let (dead, clean) = (stack.broker.read_all(&stack.topics.dead).len(), clean_ids(&stack).len());
        check((dead, clean) == (60, 20), || format!("{dead} dead, {clean} clean"))
    })
    .await;

    let (code, stats) = stack.ask(&["dead-letters", "stats"]);
    assert_eq!((code, stats["letters"].as_u64()), (Some(0), Some(60)), "{stats:#}");
    assert_eq!(stats["by_field"][0]["rule"], "plan:purchase", "{stats:#}");
    let (_, none) = stack.ask(&["dead-letters", "stats", "--type", "view"]);
    assert_eq!(none["letters"], 0);

    // A dry run sends nothing, and a run without any choice is refused.
    let choice = ["--rule", "plan", "--type", "purchase", "--contains", "dear-"];
    let (code, dry) = stack.ask(&[&["dead-letters", "replay", "--dry-run"], &choice[..]].concat());
    assert_eq!((code, dry["would_send"].as_array().unwrap().len()), (Some(0), 60), "{dry:#}");
    assert_eq!(stack.rapportctl(&["dead-letters", "replay"]).output().unwrap().status.code(), Some(64));
    assert_eq!(replays(&stack).len(), 0);

    // Before the cause is fixed, they come back: the exit code says so.
    let (code, early) = stack.ask(&[&["dead-letters", "replay", "--limit", "5"], &choice[..]].concat());
    assert_eq!((code, early["sent"].as_u64()), (Some(1), Some(5)), "{early:#}");
    assert_eq!(early["came_back"].as_array().unwrap().len(), 5, "{early:#}");

    write_policy(&stack, 2, 100);
    wait_until("the cleaner to take the new policy", WITHIN, async || {
        let applied = stack.metric(Service::Cleaner, "rapport_policy_reloads_total", "applied").unwrap_or(0.0);
        check(applied >= 1.0, || format!("{applied} applied"))
    })
    .await;
    let (code, done) = stack.ask(&[&["dead-letters", "replay"], &choice[..]].concat());
    assert_eq!((code, done["sent"].as_u64(), done["judged"].as_bool()), (Some(0), Some(60), Some(true)), "{done:#}");
    assert_eq!(done["failed_again_as"].as_array().unwrap().len(), 5, "the first five are stood for: {done:#}");
    assert_eq!(done["came_back"].as_array().unwrap().len(), 0, "{done:#}");

    // A second run has nothing to send.
    let before = stack.broker.read_all(&stack.topics.raw).len();
    let (code, second) = stack.ask(&[&["dead-letters", "replay", "--again"], &choice[..]].concat());
    assert_eq!((code, second["sent"].as_u64()), (Some(0), Some(0)), "{second:#}");
    assert_eq!(stack.broker.read_all(&stack.topics.raw).len(), before);

    if let Err(found) = exactly_once(dear.iter().chain(&cheap).cloned(), clean_ids(&stack)) {
        panic!("after the replay: {found}");
    }
    let clean = stack.broker.read_all(&stack.topics.clean);
    let replayed = clean.iter().find(|record| record.header("rapport-event-id") == Some("dear-7")).unwrap();
    assert_eq!(replayed.decode::<CleanEvent>().policy_version, format!("{TENANT}@2"));

    // Each replayed record is its letter's original: key, value and headers.
    let letters: BTreeMap<String, DeadLetter> = stack
        .broker
        .read_all(&stack.topics.dead)
        .iter()
        .map(|record| (format!("{}:{}", record.partition, record.offset), record.decode()))
        .collect();
    for record in replays(&stack) {
        let letter = &letters[record.header("rapport-replay-of").unwrap()];
        assert_eq!(record.key, letter.original_key);
        assert_eq!(record.value.as_deref(), Some(letter.original_value.as_slice()));
        assert_eq!(record.header("x-shop"), Some("north"));
        assert_eq!(record.header("content-type"), Some(PROTOBUF));
        let marks = record.headers.iter().filter(|(name, _)| name == "rapport-replay-of").count();
        assert_eq!(marks, 1, "of the newest replay only");
    }

    let (code, account) = stack.ask(&["account"]);
    assert_eq!(code, Some(0), "{account:#}");
    assert_eq!((account["received"].as_u64(), account["replays"].as_u64()), (Some(145), Some(65)), "{account:#}");
    assert_eq!((account["clean"].as_u64(), account["dead"].as_u64()), (Some(80), Some(65)), "{account:#}");
}

/// Letters without a cleaner: what matters here is what is sent.
async fn stack_with_letters(name: &str) -> Stack {
    let stack = Stack::new(name);
    stack.make_topics().await;
    let producer = stack.broker.producer();
    for n in 0..LETTERS {
        let letter = DeadLetter {
            kind: Kind::Schema.into(),
            field: "value".into(),
            reason: "is not finite".into(),
            stage: "validate".into(),
            tenant: TENANT.into(),
            failed_at: Some(EventTime::from_ms(now_ms()).to_proto()),
            original_key: Some(key(TENANT, &format!("c{n}")).into_bytes()),
            original_value: format!("original {n}").into_bytes(),
            original_headers: vec![Header { name: "n".into(), value: Some(n.to_string().into_bytes()) }],
            withheld: n == 7,
            ..DeadLetter::default()
        };
        producer.send(&stack.topics.dead, Some(&key(TENANT, &format!("c{n}"))), &letter.encode_to_vec(), &[]);
    }
    producer.flush();
    stack
}

fn replay_slowly(stack: &Stack) -> Child {
    stack
        .rapportctl(&["dead-letters", "replay", "--all", "--no-wait", "--rate", "40"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn until_some_are_sent(stack: &Stack) {
    wait_until("the first replays", WITHIN, async || {
        let sent = stack.broker.read_all(&stack.topics.replays).len();
        check(sent > 0, || "none yet".to_owned())
    })
    .await;
}

/// Every letter but the withheld one is on the raw topic once, and in the ledger.
fn each_is_sent_once(stack: &Stack) {
    let numbers: Vec<usize> =
        replays(stack).iter().map(|record| record.header("n").unwrap().parse().unwrap()).collect();
    if let Err(found) = exactly_once((0..LETTERS).filter(|n| *n != 7), numbers) {
        panic!("{found}");
    }
    let ledger: Vec<String> = stack.broker.read_all(&stack.topics.replays).iter().map(Record::key_text).collect();
    let marks: BTreeSet<String> =
        replays(stack).iter().map(|record| record.header("rapport-replay-of").unwrap().to_owned()).collect();
    assert_eq!(ledger.len(), LETTERS - 1);
    assert_eq!(ledger.into_iter().collect::<BTreeSet<_>>(), marks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_goes_on_where_it_was_and_sends_nothing_twice() {
    let stack = stack_with_letters("replay-killed").await;
    for _ in 0..2 {
        let before = stack.broker.read_all(&stack.topics.replays).len();
        let mut running = replay_slowly(&stack);
        wait_until("some more replays", WITHIN, async || {
            let sent = stack.broker.read_all(&stack.topics.replays).len();
            check(sent > before, || format!("{sent} so far"))
        })
        .await;
        running.kill().unwrap();
        running.wait().unwrap();
    }
    let (code, done) = stack.ask(&["dead-letters", "replay", "--all", "--no-wait"]);
    assert_eq!(code, Some(1), "one letter is withheld, which is told: {done:#}");
    assert_eq!(done["withheld"].as_array().unwrap().len(), 1, "{done:#}");
    assert!(!done["replayed_before"].as_array().unwrap().is_empty(), "{done:#}");
    each_is_sent_once(&stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replays_at_once_the_later_one_takes_over() {
    let stack = stack_with_letters("replay-twice").await;
    let first = replay_slowly(&stack);
    until_some_are_sent(&stack).await;
    let (_, second) = stack.ask(&["dead-letters", "replay", "--all", "--no-wait"]);
    let ended = first.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("another replay has begun"), "{said}");
    assert!(second["sent"].as_u64().unwrap() > 0, "{second:#}");
    each_is_sent_once(&stack);
}
