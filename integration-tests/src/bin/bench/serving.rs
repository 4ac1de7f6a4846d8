//! Recommendations, cached and made for the call, against a bare tonic echo with one Redis GET.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rapport_integration_tests::{
    harness::{Service, Stack, clients::channel, wait::check, wait_until},
    offline,
    walks::Walks,
};
use rapport_proto::{
    collect::{CollectBatchRequest, outcome},
    recommend::{RecommendRequest, RecommendResponse, provenance::Cache, recommender_client::RecommenderClient},
    train::{PromoteRequest, StartRunRequest, TrainingConfig, WatchRunRequest, run_progress::State},
};
use tonic::transport::Channel;

use crate::{
    Scale, echo, load,
    report::{LatencyRow, Report, Row, Run, Watch, rate},
};

const CALLERS: usize = 32;
const ITEMS: usize = 2_000;

pub async fn run(scale: Scale, report: &mut Report) {
    eprintln!("serving: training a model to serve");
    let (mut stack, customers) = served_stack("bench-serving", scale).await;

    eprintln!("serving: Recommend against an echo with one Redis GET");
    let mut answers = Vec::new();
    for customer in customers.iter() {
        answers
            .push((customer.clone(), ask(&mut RecommenderClient::new(stack.channel(Service::Scorer)), customer).await));
    }
    wait_until("cached lists", Duration::from_secs(30), async || {
        let answer = ask(&mut RecommenderClient::new(stack.channel(Service::Scorer)), &customers[0]).await;
        let cache = answer.provenance.unwrap_or_default().cache();
        check(cache == Cache::Hit, || format!("{cache:?}"))
    })
    .await;
    let (echo, echo_channel) = echo::start(&stack.redis, &answers).await;
    let redis = stack.redis.pid();
    let scorer = stack.process(Service::Scorer).pid();
    // Lists that were served go to Kafka.
    let warm = Instant::now() + scale.warm_up;
    let ours = channel(&stack.grpc_uri(Service::Scorer));
    while Instant::now() < warm {
        hammer(&ours, &customers, scale.recommend_calls, &[], None).await;
    }
    let (mut cached, mut uncached, mut ceiling) = (Vec::new(), Vec::new(), Vec::new());
    let mut latencies = [load::histogram(), load::histogram(), load::histogram()];
    for round in 0..=scale.rounds {
        let calls = if round == 0 { scale.recommend_calls / 4 } else { scale.recommend_calls };
        let mut keep = |which: usize, (run, latency): (Run, Histogram<u64>), runs: &mut Vec<Run>| {
            if round > 0 {
                runs.push(run);
                latencies[which].add(latency).unwrap();
            }
        };
        let uri = echo_channel.clone();
        keep(0, hammer(&uri, &customers, calls, &[("echo", echo.pid()), ("redis", redis)], None).await, &mut ceiling);
        let channel = ours.clone();
        let processes = [("scorer", scorer), ("redis", redis)];
        // Lists that a part before this one has dropped are made again here.
        hammer(&channel, &customers, customers.len(), &processes, None).await;
        settle(&stack, &customers).await;
        keep(1, hammer(&channel, &customers, calls, &processes, Some(Cache::Hit)).await, &mut cached);
        // Every customer once, and nobody has a list.
        drop_lists(&stack).await;
        keep(2, hammer(&channel, &customers, customers.len(), &processes, Some(Cache::Miss)).await, &mut uncached);
    }
    hammer(&ours, &customers, customers.len(), &[], None).await;
    settle(&stack, &customers).await;
    let most = rate(&cached);
    let half = [
        ("echo with one GET, as many calls as half of Recommend's full rate", &echo_channel, "-"),
        ("Recommend, cached, half of the full rate", &ours, "- / 3"),
    ];
    for (what, channel, goal) in half {
        let latencies = paced(channel, &customers, most / 2.0, scale.paced).await;
        report.add_latency(LatencyRow {
            what: what.into(),
            p50: load::quantile(&latencies, 0.5),
            p99: load::quantile(&latencies, 0.99),
            goal,
            note: format!("{:.0} calls/s for {:?}, from the moment that each was due", most / 2.0, scale.paced),
        });
    }
    // The same beside nothing that the scorer does not need: each service takes of the cores that callers, scorer,
    // Redis and Kafka share, the feature store most, which keeps every list that was served.
    for service in [Service::Collector, Service::Cleaner, Service::FeatureStore] {
        stack.stop(service);
    }
    hammer(&ours, &customers, customers.len(), &[], None).await;
    settle(&stack, &customers).await;
    let (mut alone, mut ceiling_alone) = (Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        let calls = if round == 0 { scale.recommend_calls / 4 } else { scale.recommend_calls };
        let (of_echo, _) =
            hammer(&echo_channel, &customers, calls, &[("echo", echo.pid()), ("redis", redis)], None).await;
        let processes = [("scorer", scorer), ("redis", redis)];
        let (of_ours, _) = hammer(&ours, &customers, calls, &processes, Some(Cache::Hit)).await;
        if round > 0 {
            ceiling_alone.push(of_echo);
            alone.push(of_ours);
        }
    }
    report.add(Row {
        what: "Recommend, cached, the other services stopped".into(),
        unit: "calls",
        ours: alone,
        ceiling: ceiling_alone,
        goal: Some(0.7),
    });
    let again = |runs: &[Run]| runs.iter().map(|r| Run { count: r.count, took: r.took, cpu: r.cpu.clone() }).collect();
    report.add(Row {
        what: "Recommend, cached".into(),
        unit: "calls",
        ours: cached,
        ceiling: again(&ceiling),
        goal: Some(0.7),
    });
    report.add(Row { what: "Recommend, made for the call".into(), unit: "calls", ours: uncached, ceiling, goal: None });
    for (name, latency) in
        ["echo with one GET", "Recommend, cached", "Recommend, made for the call"].iter().zip(&latencies)
    {
        report.add_latency(LatencyRow {
            what: format!("{name}, {CALLERS} callers"),
            p50: load::quantile(latency, 0.5),
            p99: load::quantile(latency, 0.99),
            goal: "-",
            note: format!("{} calls", latency.len()),
        });
    }
}

async fn ask(scorer: &mut RecommenderClient<Channel>, customer: &str) -> RecommendResponse {
    let request = RecommendRequest { customer_id: customer.to_owned(), limit: 10, ..Default::default() };
    scorer.recommend(request).await.expect("an answer").into_inner()
}

/// Waits until every customer's list is in the cache: lists are written behind the answers.
async fn settle(stack: &Stack, customers: &Arc<Vec<String>>) {
    let mut scorer = RecommenderClient::new(stack.channel(Service::Scorer));
    for customer in customers.iter() {
        wait_until("a cached list", Duration::from_secs(10), async || {
            let cache = ask(&mut scorer, customer).await.provenance.unwrap_or_default().cache();
            check(cache == Cache::Hit, || format!("{cache:?}"))
        })
        .await;
    }
}

async fn hammer(
    channel: &Channel,
    customers: &Arc<Vec<String>>,
    calls: usize,
    processes: &[(&'static str, u32)],
    expected: Option<Cache>,
) -> (Run, Histogram<u64>) {
    let (channel, customers) = (channel.clone(), Arc::clone(customers));
    let watch = Watch::start(processes);
    let latencies = load::closed_loop(CALLERS, calls, move |n| {
        let mut scorer = RecommenderClient::new(channel.clone());
        let customer = customers[n % customers.len()].clone();
        async move {
            let answer = ask(&mut scorer, &customer).await;
            assert_eq!(answer.items.len(), 10);
            if let Some(expected) = expected {
                assert_eq!(answer.provenance.unwrap_or_default().cache(), expected, "for {customer}");
            }
        }
    })
    .await;
    (watch.stop(calls), latencies)
}

/// Calls at a steady rate, whatever the answers do; each one's time counts from the moment that it was due, so that a
/// stall is not hidden by the calls that it held back. The clock ticks once a millisecond: half of one is its own.
async fn paced(
    channel: &Channel,
    customers: &Arc<Vec<String>>,
    calls_per_second: f64,
    wanted: Duration,
) -> Histogram<u64> {
    let every = Duration::from_secs_f64(1.0 / calls_per_second);
    let calls = (wanted.as_secs_f64() * calls_per_second) as usize;
    let began = tokio::time::Instant::now() + Duration::from_millis(50);
    let mut tasks = Vec::with_capacity(calls);
    for n in 0..calls {
        let due = began + every.mul_f64(n as f64);
        tokio::time::sleep_until(due).await;
        let mut scorer = RecommenderClient::new(channel.clone());
        let customer = customers[n % customers.len()].clone();
        tasks.push(tokio::spawn(async move {
            assert_eq!(ask(&mut scorer, &customer).await.items.len(), 10);
            due.elapsed()
        }));
    }
    let mut latencies = load::histogram();
    for task in tasks {
        load::record(&mut latencies, task.await.unwrap());
    }
    latencies
}

/// Deletes every cached list.
async fn drop_lists(stack: &Stack) {
    let mut connection = stack.redis.client().get_multiplexed_async_connection().await.unwrap();
    let mut cursor = 0u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{}:*:l", stack.key_prefix()))
            .arg("COUNT")
            .arg(1000)
            .query_async(&mut connection)
            .await
            .unwrap();
        if !keys.is_empty() {
            let () = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.unwrap();
        }
        cursor = next;
        if cursor == 0 {
            return;
        }
    }
}

/// All five services, customers with a history, and a sequence model that is live.
pub async fn served_stack(name: &str, scale: Scale) -> (Stack, Arc<Vec<String>>) {
    let mut stack = Stack::new(name);
    // The services' own default, where the tests are in more of a hurry.
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "5s");
    stack.start(&Service::ALL).await;
    let walks = Walks { items: ITEMS, events_per_customer: 20, noise: 0.2, start_ms: 1_767_225_600_000, seed: 3 };
    let events = walks.events(0..scale.customers);
    for batch in events.chunks(1_000) {
        let answer = stack.collector().collect_batch(CollectBatchRequest { events: batch.to_vec() }).await.unwrap();
        assert!(answer.get_ref().outcomes.iter().all(|o| o.status() == outcome::Status::Accepted));
    }
    let customers: Arc<Vec<String>> = Arc::new((0..scale.customers).map(Walks::customer).collect());
    wait_until("every event in the offline log", Duration::from_secs(120), async || {
        let found = offline::event_ids(&stack).len();
        check(found == events.len(), || format!("{found} of {}", events.len()))
    })
    .await;
    // How good the model is does not matter here, how much work it does: a sequence model of the
    // default size, after a short training.
    let config = TrainingConfig {
        kinds: vec!["ligr".into()],
        max_epochs: 1,
        time_budget_s: 30,
        dry_run: true,
        ..Default::default()
    };
    let run_id = stack.trainer().start_run(StartRunRequest { config: Some(config) }).await.unwrap().into_inner().run_id;
    let mut progress = stack.trainer().watch_run(WatchRunRequest { run_id }).await.unwrap().into_inner();
    let mut last = None;
    while let Some(step) = progress.message().await.unwrap() {
        last = Some(step);
    }
    let last = last.expect("a run reports its end");
    assert_eq!(last.state(), State::Succeeded, "{last:?}");
    let version = last.result.unwrap().versions[0].version.clone();
    let promote = PromoteRequest { name: "next-item".into(), version: version.clone(), force: true };
    stack.trainer().promote(promote).await.unwrap();
    let mut scorer = RecommenderClient::new(stack.channel(Service::Scorer));
    wait_until("the model to be live", Duration::from_secs(60), async || {
        let found = ask(&mut scorer, &customers[0]).await.provenance.unwrap_or_default().model_version;
        check(found == version, || format!("{found:?}"))
    })
    .await;
    stack.stop(Service::Trainer);
    (stack, customers)
}
