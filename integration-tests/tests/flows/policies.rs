//! A tenant's policy in the running cleaner: consent that stands on a topic, and rules that change
//! without a restart.

use std::{fs, path::PathBuf, time::Duration};

use prost::Message;
use rapport_integration_tests::{
    events::{PROTOBUF, interaction, key, now_ms},
    harness::{Record, Service, Stack, stack::TENANT, wait::check, wait_until},
};
use rapport_proto::{
    events::{CleanEvent, DeadLetter, Event, dead_letter::Kind},
    privacy::Consent,
};

const WITHIN: Duration = Duration::from_secs(30);
const HEADERS: [(&str, &str); 2] = [("content-type", PROTOBUF), ("rapport-tenant", TENANT)];

const ASKS: &str = "
consent:
  mode: required
  purposes:
    analytics: {fields: all}
    ads: {fields: [category]}
";

/// A folder with the tenant's policy, and the policy's file.
fn policy(stack: &mut Stack, text: &str) -> PathBuf {
    let folder = stack.folder().join("policies");
    fs::create_dir(&folder).unwrap();
    let file = folder.join(format!("{TENANT}.yaml"));
    fs::write(&file, text).unwrap();
    stack.set(Service::Cleaner, "RAPPORT_POLICIES", folder.to_str().unwrap());
    file
}

fn send(stack: &Stack, event: &Event) {
    let producer = stack.broker.producer();
    producer.send(&stack.topics.raw, Some(&key(TENANT, &event.customer_id)), &event.encode_to_vec(), &HEADERS);
    producer.flush();
}

fn decide(stack: &Stack, customer: &str, purposes: &[(&str, bool)]) {
    let consent = Consent {
        tenant: TENANT.into(),
        customer_id: customer.into(),
        purposes: purposes.iter().map(|(name, agreed)| ((*name).to_owned(), *agreed)).collect(),
        ..Consent::default()
    };
    let producer = stack.broker.producer();
    producer.send(&stack.topics.privacy, Some(&key(TENANT, customer)), &consent.encode_to_vec(), &[HEADERS[1]]);
    producer.flush();
}

/// The clean record of an event.
pub async fn clean(stack: &Stack, event_id: &str) -> CleanEvent {
    let mut found = None;
    wait_until(&format!("{event_id} on the clean topic"), WITHIN, async || {
        let records = stack.broker.read_all(&stack.topics.clean);
        found = records.into_iter().find(|record| record.header("rapport-event-id") == Some(event_id));
        check(found.is_some(), || "not there".into())
    })
    .await;
    found.unwrap().decode()
}

fn view(event_id: &str, customer: &str) -> Event {
    Event { category: "shoes".into(), ..interaction(event_id, "view", customer, "i", now_ms()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_decision_counts_and_of_who_made_none_nothing_is_kept() {
    let mut stack = Stack::new("consent");
    policy(&mut stack, &format!("version: 1\n{ASKS}"));
    stack.make_topics().await;
    // Both stand before the cleaner starts: it must not judge before it has read the decision.
    decide(&stack, "ann", &[("analytics", true), ("ads", false)]);
    send(&stack, &view("agreed", "ann"));
    send(&stack, &view("never-asked", "bob-the-customer"));
    stack.start(&[Service::Cleaner]).await;

    let event = clean(&stack, "agreed").await;
    assert_eq!((event.purposes.as_slice(), event.policy_version.as_str()), (&["analytics".to_owned()][..], "demo@1"));
    assert_eq!(event.event.unwrap().category, "", "the category is for ads only");

    let mut dead: Vec<Record> = Vec::new();
    wait_until("the letter about bob", WITHIN, async || {
        dead = stack.broker.read_all(&stack.topics.dead);
        check(dead.len() == 1, || format!("{} letters", dead.len()))
    })
    .await;
    let letter: DeadLetter = dead[0].decode();
    assert_eq!((letter.kind(), letter.rule.as_str(), letter.withheld), (Kind::Policy, "consent", true));
    let everything = format!("{:?}", (&dead[0].key, &dead[0].value, letter));
    for secret in ["bob-the-customer", "never-asked", "shoes"] {
        assert!(!everything.contains(secret) && !holds(&dead[0], secret), "{secret} is still there: {everything}");
    }

    // And a decision that is made while it runs counts from then on.
    decide(&stack, "bob-the-customer", &[("ads", true)]);
    wait_until("bob's decision to count", WITHIN, async || {
        let known = stack.metric(Service::Cleaner, "rapport_cleaner_consent_customers", "");
        check(known == Some(2.0), || format!("{known:?} customers"))
    })
    .await;
    send(&stack, &view("asked", "bob-the-customer"));
    assert_eq!(clean(&stack, "asked").await.purposes, ["ads"]);
}

fn holds(record: &Record, text: &str) -> bool {
    let parts = [record.key.as_deref(), record.value.as_deref()];
    parts.into_iter().flatten().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_without_a_restart_and_a_broken_file_changes_nothing() {
    let mut stack = Stack::new("rules");
    let file = policy(&mut stack, "version: 1\n");
    stack.start(&[Service::Cleaner]).await;
    send(&stack, &view("first", "c"));
    assert_eq!(clean(&stack, "first").await.policy_version, "demo@1");
    let reloads = |stack: &Stack, outcome: &str| {
        stack.metric(Service::Cleaner, "rapport_policy_reloads_total", &format!("outcome=\"{outcome}\""))
    };

    fs::write(&file, "version: 2\nconsent: {mode: requird}\n").unwrap();
    wait_until("the broken policy to be refused", WITHIN, async || {
        check(reloads(&stack, "refused") == Some(1.0), || "not yet".into())
    })
    .await;
    send(&stack, &view("second", "c"));
    assert_eq!(clean(&stack, "second").await.policy_version, "demo@1");

    fs::write(&file, "version: 3\nvalidate: {events: {view: {version: 1, schema: {required: [value]}}}}\n").unwrap();
    wait_until("the right policy to be applied", WITHIN, async || {
        check(reloads(&stack, "applied") == Some(1.0), || "not yet".into())
    })
    .await;
    send(&stack, &view("third", "c"));
    send(&stack, &Event { value: Some(1.0), ..view("fourth", "c") });
    assert_eq!(clean(&stack, "fourth").await.policy_version, "demo@3");
    let dead = stack.broker.read_all(&stack.topics.dead);
    let letter: DeadLetter = dead[0].decode();
    assert_eq!((dead.len(), letter.rule.as_str(), letter.field.as_str()), (1, "plan:view", "value"));

    // A cleaner does not start with rules that are wrong.
    stack.stop(Service::Cleaner);
    fs::write(&file, "version: none\n").unwrap();
    let refused = stack.command(Service::Cleaner).output().unwrap();
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(!refused.status.success() && said.contains("demo.yaml: version: must be"), "{said}");
}
