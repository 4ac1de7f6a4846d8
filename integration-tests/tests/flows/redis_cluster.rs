//! On a Redis Cluster everything holds that holds on one node: while masters lose their memory, fail over and
//! give slots away.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;
use rapport_integration_tests::{
    events::{PROTOBUF, interaction, key, now_ms},
    harness::{
        RedisCluster, Service, Stack, heavy,
        redis_cluster::MASTERS,
        stack::{TENANT, get},
        wait::check,
        wait_until,
    },
};

use crate::{
    doors::{collect, make_a_trend, recommend},
    exactly_once::{Sending, customer, every_clean_event_stands_once, every_count_is_exact},
};

const WITHIN: Duration = Duration::from_secs(60);
const ALL_BUT_TRAINER: [Service; 4] = [Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer];

/// A key whose daily events are counted.
const LIMITED: &str = "
keys:
  - name: limited
    sha256: f33b2500796d61f96eeef0f5331ddc40c17e434aff139f4d9e00bfe75170d87a
    tenant: demo
    daily_events: 1000000
";

fn on_cluster(name: &str, replicas: usize) -> (RedisCluster, Stack) {
    let cluster = RedisCluster::start(name, replicas);
    let mut stack = Stack::new(name);
    for service in ALL_BUT_TRAINER {
        stack.set(service, "RAPPORT_REDIS_URL", cluster.url());
    }
    stack.set(Service::Collector, "RAPPORT_QUOTA_REDIS_URL", cluster.url());
    (cluster, stack)
}

/// Keys of a kind on each master.
fn spread(cluster: &RedisCluster, pattern: &str) -> Vec<usize> {
    (0..MASTERS).map(|n| cluster.keys(n, pattern).len()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_changes_the_answer_on_a_cluster_whose_masters_all_hold_customers() {
    let (cluster, mut stack) = on_cluster("cluster-way", 0);
    let keys = stack.folder().join("keys.yaml");
    fs::write(&keys, LIMITED).unwrap();
    stack.set(Service::Collector, "RAPPORT_API_KEYS_FILE", keys.to_string_lossy());
    stack.start(&ALL_BUT_TRAINER).await;
    make_a_trend(&stack).await;
    let events = (0..300).map(|n| interaction(&format!("e{n}"), "view", &format!("c{n}"), "item-1", now_ms()));
    collect(&stack, events.collect()).await;
    for n in [0, 77, 299] {
        wait_until("a list for a known customer", WITHIN, async || {
            let answer = recommend(&stack, &format!("c{n}"), 50).await?;
            let provenance = answer.provenance.unwrap_or_default();
            check(answer.items.len() == 11 && provenance.customer_version == 1, || {
                format!("{} items, {provenance:?}", answer.items.len())
            })
        })
        .await;
    }
    let prefix = stack.key_prefix().to_owned();
    let customers = wait_until("all customers in Redis", WITHIN, async || {
        let customers = spread(&cluster, &format!("{prefix}:{{*}}:s"));
        check(customers.iter().sum::<usize>() == 320, || format!("{customers:?}")).map(|()| customers)
    })
    .await;
    assert!(customers.iter().all(|of_one| *of_one >= 60), "customers on each master: {customers:?}");
    let buckets = spread(&cluster, &format!("{prefix}:d:1:*"));
    assert!(buckets.iter().all(|of_one| *of_one >= 60), "event ids on each master: {buckets:?}");
    wait_until("the collector's count of the day", WITHIN, async || {
        let counts = spread(&cluster, "rapport:quota:*");
        check(counts.iter().sum::<usize>() == 1, || format!("{counts:?}"))
    })
    .await;

    // Where a key belongs is what Redis itself says.
    let mut connection = cluster.connection(0);
    for key in ["a", "{}", "a{b}c", "{a}b}:s", "x{{y}}", "", "rapport:{demo/i/\u{e9}}:p"] {
        let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query(&mut connection).unwrap();
        assert_eq!(rapport_redis::slot_of(key.as_bytes()), slot, "{key:?}");
    }

    // A master away: services say so, the scorer goes on, and all is well when it is back.
    cluster.kill(1);
    wait_until("the feature store to be waiting", WITHIN, async || {
        let (status, body) = get(&stack.admin_url(Service::FeatureStore, "/readyz"))?;
        check(status == 503 && body.contains("redis"), || format!("{status}: {body}"))
    })
    .await;
    for call in 0..50 {
        let customer = format!("c{call}");
        recommend(&stack, &customer, 10).await.unwrap_or_else(|e| panic!("call {call} failed: {e}"));
    }
    cluster.restart(1);
    for service in [Service::FeatureStore, Service::Cleaner] {
        stack.wait_ready(service).await;
    }
    collect(&stack, vec![interaction("after", "view", "c77", "item-2", now_ms())]).await;
    wait_until("an event of after the outage in the answer", WITHIN, async || {
        let provenance = recommend(&stack, "c77", 50).await?.provenance.unwrap_or_default();
        check(provenance.customer_version == 2 && provenance.degraded.is_empty(), || format!("{provenance:?}"))
    })
    .await;
}

/// Events that the feature store has applied since it was started.
fn applied(stack: &Stack) -> f64 {
    stack.metric(Service::FeatureStore, "rapport_feature_store_events_total", "applied").unwrap_or(0.0)
}

async fn at_work(stack: &Stack, sending: &Sending) {
    let before = applied(stack);
    wait_until("the feature store to be at work", WITHIN, async || {
        let now = applied(stack);
        check(now - before >= 6_000.0, || format!("{now} after {before}"))
    })
    .await;
    assert!(sending.goes_on(), "it came after the stream");
}

fn rebuilds(stack: &Stack) -> f64 {
    stack.metric(Service::FeatureStore, "rapport_feature_store_rebuilds_total", "").unwrap_or(0.0)
}

/// How far each partition is by the note on one master.
fn notes(cluster: &RedisCluster, n: usize, prefix: &str) -> BTreeMap<String, i64> {
    let places = cluster.keys(n, &format!("{prefix}:{{*}}:folded"));
    redis::cmd("HGETALL").arg(places.first()).query(&mut cluster.connection(n)).expect("the note is a HASH")
}

async fn made_anew(stack: &Stack, before: f64) {
    wait_until("the store to notice", WITHIN, async || {
        let now = rebuilds(stack);
        check(now > before, || format!("{now} rebuilds"))
    })
    .await;
}

const COPIES: usize = 1_000;

/// The first events of the stream once more, each at another place; until all of them have been judged.
async fn send_copies(stack: &Stack) {
    let duplicates =
        |stack: &Stack| stack.metric(Service::Cleaner, "rapport_cleaner_records_total", "duplicate").unwrap_or(0.0);
    let before = duplicates(stack);
    let producer = stack.broker.producer();
    for n in 0..COPIES {
        let event = interaction(&format!("e{n:06}"), "view", &customer(n), "copy", now_ms());
        let headers = [("content-type", PROTOBUF), ("rapport-tenant", TENANT)];
        producer.send(&stack.topics.raw, Some(&key(TENANT, &customer(n))), &event.encode_to_vec(), &headers);
    }
    producer.flush();
    wait_until("the copies to be known as such", WITHIN, async || {
        let found = duplicates(stack) - before;
        check(found >= COPIES as f64, || format!("{found} of {COPIES}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_comes_back_empty_or_with_an_older_state_in_the_middle_of_a_stream_is_made_anew_with_every_count()
{
    let _alone = heavy().await;
    let (cluster, mut stack) = on_cluster("cluster-loss", 0);
    stack.start(&[Service::Cleaner, Service::FeatureStore]).await;
    let sending = Sending::start(Arc::clone(&stack.broker), stack.topics.raw.clone());
    for master in [1, 0] {
        at_work(&stack, &sending).await;
        let before = rebuilds(&stack);
        cluster.kill(master);
        cluster.restart_empty(master);
        made_anew(&stack, before).await;
    }
    at_work(&stack, &sending).await;
    let before = rebuilds(&stack);
    cluster.flush(2);
    made_anew(&stack, before).await;
    // One goes back in time: it has everything but the newest.
    at_work(&stack, &sending).await;
    cluster.keep(1);
    let kept = notes(&cluster, 1, stack.key_prefix());
    wait_until("every note to go on", WITHIN, async || {
        let now = notes(&cluster, 1, stack.key_prefix());
        check(kept.iter().all(|(partition, offset)| now[partition] > *offset), || format!("{now:?} after {kept:?}"))
    })
    .await;
    assert!(sending.goes_on(), "it came after the stream");
    let before = rebuilds(&stack);
    cluster.kill(1);
    cluster.restart_as_kept(1);
    made_anew(&stack, before).await;
    let events = sending.end().await;
    let read_back = stack.metric(Service::Cleaner, "rapport_cleaner_dedup_rebuild_records", "read");
    assert!(read_back > Some(0.0), "{read_back:?} event ids were read back");
    send_copies(&stack).await;
    every_clean_event_stands_once(&mut stack, events).await;
    every_count_is_exact(&mut stack, events).await;

    // One master, and then all of them, while nobody is there to see it.
    for lost in [vec![2], (0..MASTERS).collect()] {
        let (status, _) = stack.stop(Service::FeatureStore);
        assert!(status.success(), "the feature store ended with {status}");
        lost.iter().for_each(|master| cluster.flush(*master));
        stack.start(&[Service::FeatureStore]).await;
        every_count_is_exact(&mut stack, events).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_the_middle_of_a_stream_loses_nothing_that_replicas_must_have() {
    let _alone = heavy().await;
    let (cluster, mut stack) = on_cluster("cluster-failover", 1);
    for service in [Service::Cleaner, Service::FeatureStore] {
        stack.set(service, "RAPPORT_REDIS_REPLICAS", "1");
    }
    stack.start(&[Service::Cleaner, Service::FeatureStore]).await;
    let sending = Sending::start(Arc::clone(&stack.broker), stack.topics.raw.clone());
    let before = rebuilds(&stack);
    for master in [0, 2] {
        at_work(&stack, &sending).await;
        let (replica, gone) = (master + MASTERS, Instant::now());
        assert!(cluster.is_master(master) && !cluster.is_master(replica));
        if master == 0 {
            // Its replica has missed something when it takes over.
            cluster.freeze(replica);
            wait_until("writes that the replica has not got", WITHIN, async || {
                let behind = cluster.bytes_behind(master);
                check(behind > 10_000, || format!("{behind} bytes"))
            })
            .await;
            cluster.kill(master);
            cluster.thaw(replica);
        } else {
            // It keeps its connections and does not answer.
            cluster.freeze(master);
        }
        wait_until("the replica to take over", WITHIN, async || {
            check(cluster.is_master(replica), || "it is a replica".into())
        })
        .await;
        eprintln!("node {replica} took over after {:?}", gone.elapsed());
        // As its replica: what must stand on one more node than its master waits for it.
        if master == 0 {
            cluster.restart(master)
        } else {
            cluster.thaw(master)
        }
        cluster.wait_replicated();
    }
    at_work(&stack, &sending).await;
    let events = sending.end().await;
    send_copies(&stack).await;
    every_clean_event_stands_once(&mut stack, events).await;
    every_count_is_exact(&mut stack, events).await;
    assert!(rebuilds(&stack) <= before, "nothing had to be made anew");
}

/// Gives slots to another master as `redis-cli --cluster reshard` does, key by key.
fn give_away(cluster: &RedisCluster, from: usize, to: usize, slots: std::ops::Range<u16>) -> usize {
    let (giver, taker) = (cluster.id(from), cluster.id(to));
    let (mut giving, mut taking) = (cluster.connection(from), cluster.connection(to));
    let mut other = cluster.connection((0..MASTERS).find(|n| *n != from && *n != to).expect("a third master"));
    let mut moved = 0;
    for slot in slots {
        let set =
            |how: &str, whose: &str| redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how).arg(whose).to_owned();
        set("IMPORTING", &giver).exec(&mut taking).unwrap();
        set("MIGRATING", &taker).exec(&mut giving).unwrap();
        loop {
            let keys: Vec<Vec<u8>> =
                redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(10).query(&mut giving).unwrap();
            if keys.is_empty() {
                break;
            }
            moved += keys.len();
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(cluster.port(to)).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
            migrate.exec(&mut giving).unwrap();
        }
        for connection in [&mut taking, &mut giving, &mut other] {
            set("NODE", &taker).exec(connection).unwrap();
        }
    }
    moved
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_to_another_master_in_the_middle_of_a_stream_take_every_count_with_them() {
    let _alone = heavy().await;
    let (cluster, mut stack) = on_cluster("cluster-slots", 0);
    stack.start(&[Service::Cleaner, Service::FeatureStore]).await;
    let sending = Sending::start(Arc::clone(&stack.broker), stack.topics.raw.clone());
    at_work(&stack, &sending).await;
    let moved =
        tokio::task::block_in_place(|| give_away(&cluster, 0, 1, 0..3_000) + give_away(&cluster, 2, 0, 11_000..13_000));
    assert!(sending.goes_on(), "it came after the stream");
    assert!(moved > 1_000, "{moved} keys moved");
    let asked: BTreeMap<usize, usize> = (0..MASTERS).map(|n| (n, redirections(&cluster, n))).collect();
    eprintln!("{moved} keys moved; commands that were sent on, by master: {asked:?}");
    assert!(asked.values().sum::<usize>() > 0, "no command met a slot on its way");
    at_work(&stack, &sending).await;
    let events = sending.end().await;
    send_copies(&stack).await;
    every_clean_event_stands_once(&mut stack, events).await;
    every_count_is_exact(&mut stack, events).await;
    assert!(rebuilds(&stack) < 1.0, "nothing had to be made anew");
}

/// How many commands a master has sent on to another.
fn redirections(cluster: &RedisCluster, n: usize) -> usize {
    let mut connection = cluster.connection(n);
    let errors: String = redis::cmd("INFO").arg("errorstats").query(&mut connection).unwrap();
    let count = |kind: &str| {
        let line = errors.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{kind}:count=")))?;
        line.trim().parse::<usize>().ok()
    };
    count("ASK").unwrap_or(0) + count("MOVED").unwrap_or(0)
}
