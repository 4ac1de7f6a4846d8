//! Views that change while the stream runs.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, ports, process::Process, stack::get, wait::check, wait_until},
};
use rapport_proto::{
    collect::CollectBatchRequest,
    events::Event,
    features::{GetBackfillRequest, GetFeaturesRequest, GetFeaturesResponse},
};

use tokio::task::JoinHandle;

use crate::{doors::collect, models::in_the_log};

const WITHIN: Duration = Duration::from_secs(90);
const CUSTOMERS: usize = 60;
const ITEMS: usize = 25;
const BEFORE: usize = 6_000;

const VIEWS: &str = "
version: 1
views:
  - {name: acts, entity: customer, features: [{name: n, aggregate: count}, {name: most, aggregate: max}]}
  - {name: item, entity: item, features: [{name: n, aggregate: count}]}
  - {name: taste, entity: customer_category, features: [{name: n, aggregate: count}]}
";
const NEXT: &str = "
version: 1
views:
  - {name: acts, entity: customer, features: [{name: n, aggregate: count}, {name: most, aggregate: min},
      {name: spend, aggregate: sum}, {name: items, aggregate: distinct, of: item}]}
  - {name: item, entity: item, features: [{name: n, aggregate: count}, {name: spend, aggregate: sum}]}
  - {name: taste, entity: customer_category, features: [{name: n, aggregate: count}, {name: spend, aggregate: sum}]}
";

fn event(n: usize, at_ms: i64) -> Event {
    let customer = format!("c{}", n * 7 % CUSTOMERS);
    let mut event = interaction(&format!("e{n}"), "view", &customer, &format!("i{}", n * 11 % ITEMS), at_ms);
    event.category = format!("k{}", n % 5);
    // Whole numbers: their sums do not round.
    event.value = Some((n * 13 % 97) as f64);
    event
}

async fn read(stack: &Stack, entity: &str, ids: Vec<String>) -> Result<GetFeaturesResponse, String> {
    let request = GetFeaturesRequest { entity: entity.to_owned(), entity_ids: ids, ..Default::default() };
    let answer = stack.feature_store().get_features(request).await;
    Ok(answer.map_err(|status| status.to_string())?.into_inner())
}

/// Name to value of each entity.
async fn values(stack: &Stack, entity: &str, ids: &[String]) -> Result<Vec<BTreeMap<String, f64>>, String> {
    let answer = read(stack, entity, ids.to_vec()).await?;
    let of = |values: Vec<f64>| answer.names.iter().cloned().zip(values).collect();
    Ok(answer.vectors.into_iter().map(|vector| of(vector.values)).collect())
}

/// Values by entity and id.
type Known = BTreeMap<(&'static str, String), BTreeMap<String, f64>>;

/// What a fold of these events from the beginning knows.
fn expected(events: &[Event]) -> Known {
    let mut all: BTreeMap<(&'static str, String), Vec<&Event>> = BTreeMap::new();
    for event in events {
        let category = format!("{}|{}", event.customer_id, event.category);
        for key in
            [("customer", event.customer_id.clone()), ("item", event.item_id.clone()), ("customer_category", category)]
        {
            all.entry(key).or_default().push(event);
        }
    }
    let sum = |events: &[&Event]| events.iter().filter_map(|event| event.value).sum::<f64>();
    let of = |((entity, id), events): ((&'static str, String), Vec<&Event>)| {
        let view = match entity {
            "customer" => "acts",
            "item" => "item",
            _ => "taste",
        };
        let mut values =
            BTreeMap::from([(format!("{view}.n"), events.len() as f64), (format!("{view}.spend"), sum(&events))]);
        if entity == "customer" {
            let items: std::collections::BTreeSet<&str> = events.iter().map(|event| event.item_id.as_str()).collect();
            values.insert("acts.items".into(), items.len() as f64);
            values.insert("acts.most".into(), events.iter().filter_map(|event| event.value).fold(f64::MAX, f64::min));
        }
        ((entity, id), values)
    };
    all.into_iter().map(of).collect()
}

/// Events that keep coming.
struct Coming {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Event>>,
}

impl Coming {
    /// From number `n` on.
    fn start(stack: &Stack, mut n: usize, start_ms: i64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, mut collector) = (Arc::clone(&stop), stack.collector());
        let sender = tokio::spawn(async move {
            let mut sent = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let events: Vec<Event> = (n..n + 10).map(|n| event(n, start_ms + n as i64)).collect();
                n += events.len();
                let request = CollectBatchRequest { events: events.clone() };
                collector.collect_batch(request).await.expect("the collector answers");
                sent.extend(events);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            sent
        });
        Self { stop, sender }
    }

    /// All that were sent.
    async fn end(self) -> Vec<Event> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.await.unwrap()
    }
}

async fn each_event_counts_once(stack: &Stack, expected: &Known) {
    wait_until("each feature of each entity to hold each event once", WITHIN, async || {
        for ((entity, id), expected) in expected {
            let found = values(stack, entity, std::slice::from_ref(id)).await?.remove(0);
            check(found == *expected, || format!("{entity} {id}: {found:?}, not {expected:?}"))?;
        }
        Ok(())
    })
    .await;
}

/// Reads all customers: whether by the new views. Either way each has what it had at least.
async fn look(stack: &Stack, ids: &[String], floor: &Known) -> Result<bool, String> {
    let customers = values(stack, "customer", ids).await?;
    let mut new = false;
    for (id, values) in ids.iter().zip(customers) {
        let floor = &floor[&("customer", id.clone())];
        assert!(values["acts.n"] >= floor["acts.n"], "{id}: {values:?} after {floor:?}");
        if let Some(spend) = values.get("acts.spend") {
            new = true;
            let whole = *spend >= floor["acts.spend"] && values["acts.most"] <= floor["acts.most"];
            assert!(whole && values["acts.items"] >= floor["acts.items"], "{id}: {values:?} after {floor:?}");
        }
    }
    Ok(new)
}

async fn wait_until_some_are_filled(stack: &Stack, ids: &[String], floor: &Known) {
    wait_until("a partition to be filled", WITHIN, async || {
        let mut store = stack.feature_store();
        for _ in 0..200 {
            let progress = store.get_backfill(GetBackfillRequest {}).await.map_err(|status| status.to_string())?;
            if progress.into_inner().partitions_filled > 0 {
                return Ok(());
            }
            look(stack, ids, floor).await?;
        }
        Err("none is".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_features_are_filled_beside_the_stream_across_a_kill_and_reads_never_miss_a_beat() {
    let mut stack = Stack::new("views");
    let (before, next) = (stack.folder().join("before.yaml"), stack.folder().join("next.yaml"));
    fs::write(&before, VIEWS).unwrap();
    fs::write(&next, NEXT).unwrap();
    let (before, next) = (before.to_str().unwrap().to_owned(), next.to_str().unwrap().to_owned());
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", &before);
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    let start = now_ms() - 3_600_000;
    let mut sent: Vec<Event> = (0..BEFORE).map(|n| event(n, start + n as i64)).collect();
    for batch in sent.chunks(1_000) {
        collect(&stack, batch.to_vec()).await;
    }
    in_the_log(&stack, BEFORE).await;

    // Events keep coming, from now to the end.
    let coming = Coming::start(&stack, BEFORE, start);

    let (code, plan) = stack.ask(&["features", "plan", &next]);
    assert_eq!(
        (code, plan["changed"][0].as_str(), plan["unchanged"].as_u64()),
        (Some(0), Some("customer acts.most"), Some(3))
    );
    assert_eq!(plan["added"].as_array().map(Vec::len), Some(4), "{plan}");
    assert!(plan["events"].as_u64() >= Some(BEFORE as u64), "{plan}");
    let (code, applied) = stack.ask(&["features", "apply", "--no-wait", &next]);
    assert_eq!((code, &applied["generation"], &applied["in_force"]), (Some(0), &1.into(), &false.into()), "{applied}");
    let again = stack.rapportctl(&["features", "apply", &before]).output().unwrap();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is being filled"), "{again:?}");

    // Killed when states have begun to be folded by both, and again when a part of them is filled. All the
    // while reads have the old views, whole; then the new ones, whole.
    let ids: Vec<String> = (0..CUSTOMERS).map(|n| format!("c{n}")).collect();
    let floor = expected(&sent);
    // How soon they are filled depends on when Kafka's client tells how far it is: up to five seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    look(&stack, &ids, &floor).await.unwrap();
    stack.kill(Service::FeatureStore);
    stack.start(&[Service::FeatureStore]).await;
    wait_until_some_are_filled(&stack, &ids, &floor).await;
    stack.kill(Service::FeatureStore);
    stack.start(&[Service::FeatureStore]).await;
    wait_until("reads to have the new views", WITHIN, async || {
        let new = look(&stack, &ids, &floor).await?;
        check(new, || "they have the old ones".to_owned())
    })
    .await;

    sent.append(&mut coming.end().await);
    assert!(sent.len() > BEFORE + 500, "too few came meanwhile: {}", sent.len() - BEFORE);
    let expected = expected(&sent);
    each_event_counts_once(&stack, &expected).await;

    // A restart with the file of before has the generation that was applied.
    let (status, _) = stack.stop(Service::FeatureStore);
    assert!(status.success(), "{status}");
    stack.start(&[Service::FeatureStore]).await;
    let (code, progress) = stack.ask(&["features", "backfill"]);
    assert_eq!(
        (code, &progress["generation"], &progress["in_force"]),
        (Some(0), &1.into(), &true.into()),
        "{progress}"
    );
    let ann = values(&stack, "customer", &["c1".to_owned()]).await.unwrap().remove(0);
    assert_eq!(ann, expected[&("customer", "c1".to_owned())]);
}

/// A feature store beside the stack's own, in the same group.
struct Another {
    process: Process,
    admin: u16,
}

impl Another {
    fn start(stack: &Stack, name: &str) -> Self {
        let (grpc, admin) = (ports::free(), ports::free());
        let mut command = stack.command(Service::FeatureStore);
        command.env("RAPPORT_GRPC_ADDR", format!("127.0.0.1:{grpc}"));
        command.env("RAPPORT_ADMIN_ADDR", format!("127.0.0.1:{admin}"));
        let log = stack.folder().join("logs").join(format!("{name}.log"));
        Self { process: Process::start(name, &mut command, log), admin }
    }

    /// Partitions that it has.
    fn owned(&self) -> Result<String, String> {
        let (_, metrics) = get(&format!("http://127.0.0.1:{}/metrics", self.admin))?;
        let owned = metrics.lines().find(|line| line.starts_with("rapport_feature_store_partitions_owned "));
        owned.and_then(|line| line.rsplit(' ').next()).map(str::to_owned).ok_or_else(|| "none yet".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_or_counted_twice_while_stores_come_and_go_and_views_change() {
    let mut stack = Stack::new("scaling");
    let (before, next) = (stack.folder().join("before.yaml"), stack.folder().join("next.yaml"));
    fs::write(&before, VIEWS).unwrap();
    fs::write(&next, NEXT).unwrap();
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", before.to_str().unwrap());
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    let coming = Coming::start(&stack, 0, now_ms() - 3_600_000);

    // From one to three, each with a partition of its own.
    let mut others = [Another::start(&stack, "second"), Another::start(&stack, "third")];
    wait_until("three stores to share three partitions", WITHIN, async || {
        for other in &others {
            let owned = other.owned()?;
            check(owned == "1", || owned.clone())?;
        }
        Ok(())
    })
    .await;
    let (code, applied) = stack.ask(&["features", "apply", "--no-wait", next.to_str().unwrap()]);
    assert_eq!((code, &applied["generation"]), (Some(0), &1.into()), "{applied}");

    // And back, while the new features are filled: one is killed, one goes in order.
    tokio::time::sleep(Duration::from_secs(3)).await;
    others[0].process.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (status, _) = others[1].process.terminate(Duration::from_secs(40));
    assert!(status.success(), "{status}");
    let (code, progress) = stack.ask(&["features", "backfill"]);
    assert_eq!((code, &progress["in_force"]), (Some(0), &true.into()), "{progress}");

    let sent = coming.end().await;
    assert!(sent.len() > 1_000, "too few came: {}", sent.len());
    each_event_counts_once(&stack, &expected(&sent)).await;
}
