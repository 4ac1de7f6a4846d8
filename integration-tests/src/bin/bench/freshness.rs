//! How long after an event is acknowledged the answer changes, while other events flow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack},
};
use rapport_proto::{
    collect::{CollectBatchRequest, outcome},
    recommend::{RecommendRequest, RecommendResponse, recommender_client::RecommenderClient},
};
use tonic::transport::Channel;

use crate::{
    Scale, load,
    report::{LatencyRow, Report},
    serving::served_stack,
};

/// Rates with the goal, and then those among which the highest is looked for.
const WITH_A_GOAL: [usize; 2] = [500, 2_000];
const LADDER: [usize; 6] = [4_000, 8_000, 12_000, 16_000, 24_000, 32_000];
/// Events per second and probes of one round of the warm-up, which does not count.
const WARM_UP: (usize, usize) = (2_000, 100);
/// The highest rate is the last one at which an event is in the answer within this time (p99).
const BOUND: Duration = Duration::from_secs(1);
/// Probes that are not answered in ten seconds: then the rate is too high, and nobody waits for the others.
const ENOUGH: usize = 3;

/// Beside these rates, or beside those that have a goal and then higher ones, until one is too high.
pub async fn run(scale: Scale, rates: &[u32], report: &mut Report) {
    eprintln!("freshness: training a model to serve");
    let (stack, customers) = served_stack("bench-freshness", scale).await;
    let warm = Instant::now() + scale.warm_up;
    let mut round = 0;
    while round == 0 || Instant::now() < warm {
        eprintln!("freshness: warming up, round {round}");
        at(&stack, &customers, &format!("warm-up-{round}"), WARM_UP.0, WARM_UP.1).await;
        round += 1;
    }
    let mut highest = None;
    let rates = match rates {
        [] => WITH_A_GOAL.into_iter().chain(LADDER).collect(),
        some => some.iter().map(|&rate| rate as usize).collect::<Vec<_>>(),
    };
    for (n, rate) in rates.into_iter().enumerate() {
        eprintln!("freshness: {rate} events/s in the background");
        let goal = if WITH_A_GOAL.contains(&rate) { "20 / 80" } else { "p99 below 1 s" };
        let measured = at(&stack, &customers, &format!("{n}-{rate}"), rate, scale.freshness_probes).await;
        let kept_up = measured.reached >= 0.95 * rate as f64;
        let p99 = load::quantile(&measured.latencies, 0.99);
        report.add_latency(LatencyRow {
            what: format!("freshness at {rate} events/s: acknowledged event to changed answer"),
            p50: load::quantile(&measured.latencies, 0.5),
            p99,
            goal,
            note: format!(
                "{} probes, {} timed out, {:.0} events/s in the background",
                measured.latencies.len(),
                measured.unchanged,
                measured.reached
            ),
        });
        if measured.unchanged > 0 || p99 >= BOUND || !kept_up {
            break;
        }
        highest = Some(rate);
    }
    match highest {
        Some(rate) => eprintln!("freshness: the highest rate tried with a p99 below {BOUND:?} is {rate} events/s"),
        None => eprintln!("freshness: no rate tried has a p99 below {BOUND:?}"),
    }
}

/// What the probes saw beside one rate.
struct Measured {
    latencies: hdrhistogram::Histogram<u64>,
    unchanged: usize,
    /// Events per second that were acknowledged in the background.
    reached: f64,
}

/// `run` is part of the events' ids: no two of them may be alike.
async fn at(stack: &Stack, customers: &[String], run: &str, rate: usize, probes: usize) -> Measured {
    let background = Background::start(stack, format!("background-{run}"), rate);
    background.reached(rate).await;
    let mut latencies = load::histogram();
    let mut scorer = RecommenderClient::new(stack.channel(Service::Scorer));
    let mut unchanged = 0;
    for probe in 0..probes {
        let customer = &customers[(probe * 37) % customers.len()];
        match change(stack, &mut scorer, customer, &format!("probe-{run}-{probe}")).await {
            Some(latency) => load::record(&mut latencies, latency),
            None => unchanged += 1,
        }
        if unchanged >= ENOUGH {
            break;
        }
    }
    let (sent, took) = background.end().await;
    Measured { latencies, unchanged, reached: sent as f64 / took.as_secs_f64() }
}

async fn ask(scorer: &mut RecommenderClient<Channel>, customer: &str) -> RecommendResponse {
    let request = RecommendRequest { customer_id: customer.to_owned(), limit: 10, ..Default::default() };
    scorer.recommend(request).await.expect("an answer").into_inner()
}

/// The customer views the first item of their list; the time from the acknowledgement to the first
/// answer without it.
async fn change(stack: &Stack, scorer: &mut RecommenderClient<Channel>, customer: &str, id: &str) -> Option<Duration> {
    let item = ask(scorer, customer).await.items.first().expect("a list").item_id.clone();
    let event = interaction(id, "view", customer, &item, now_ms());
    let answer = stack.collector().collect_batch(CollectBatchRequest { events: vec![event] }).await.unwrap();
    assert_eq!(answer.get_ref().outcomes[0].status(), outcome::Status::Accepted);
    let acknowledged = Instant::now();
    while acknowledged.elapsed() < Duration::from_secs(10) {
        if ask(scorer, customer).await.items.iter().all(|found| found.item_id != item) {
            return Some(acknowledged.elapsed());
        }
        // Asks about a thousand times a second: enough for a figure in milliseconds, and little load.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None
}

/// Other customers' events at a steady rate.
struct Background {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    started: Instant,
    task: tokio::task::JoinHandle<()>,
}

impl Background {
    fn start(stack: &Stack, run: String, rate: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count, collector) = (Arc::clone(&stop), Arc::clone(&sent), stack.collector());
        // Two hundred requests a second; fewer events in each where there are fewer.
        let in_one = (rate / 200).max(1);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(in_one as f64 / rate as f64));
            let mut requests = Vec::new();
            for batch in 0.. {
                ticks.tick().await;
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let events = (0..in_one).map(|n| {
                    let mut event = load::event(&run, batch * in_one + n, 5_000);
                    event.event_time = None;
                    event
                });
                let (request, mut collector) = (CollectBatchRequest { events: events.collect() }, collector.clone());
                let count = Arc::clone(&count);
                requests.retain(|request: &tokio::task::JoinHandle<()>| !request.is_finished());
                requests.push(tokio::spawn(async move {
                    collector.collect_batch(request).await.expect("the collector accepts");
                    count.fetch_add(in_one, Ordering::Relaxed);
                }));
            }
            for request in requests {
                request.await.unwrap();
            }
        });
        Self { stop, sent, started: Instant::now(), task }
    }

    async fn reached(&self, events: usize) {
        rapport_integration_tests::harness::wait_until("the background to flow", Duration::from_secs(30), async || {
            let sent = self.sent.load(Ordering::Relaxed);
            rapport_integration_tests::harness::wait::check(sent >= events, || format!("{sent} events"))
        })
        .await;
    }

    async fn end(self) -> (usize, Duration) {
        let took = self.started.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sent.load(Ordering::Relaxed);
        self.task.await.unwrap();
        (sent, took)
    }
}
