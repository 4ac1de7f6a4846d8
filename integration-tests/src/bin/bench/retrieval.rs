//! The best items of large catalogues: searched in 8 bits against scored by ONNX Runtime, on one inference
//! thread and through the scorer.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_inference::{Asked, BatchSettings, QueryModel, Retrieval, Workers};
use rapport_integration_tests::{
    events::interaction,
    harness::{Service, Stack, clients::channel, service, stack::TENANT, wait::check, wait_until},
};
use rapport_proto::{
    collect::CollectBatchRequest,
    recommend::{RecommendRequest, RecommendResponse, provenance::Cache, recommender_client::RecommenderClient},
    train::PromoteRequest,
};
use tonic::transport::Channel;

use crate::{
    Scale, load,
    report::{LatencyRow, Report, median},
};

/// Items of a list that is made for the cache, and what the scorer searches for beyond it.
const WANTED: usize = 150 + 32 + 20;
/// Items of a history: as many as the network looks at.
const HISTORY: usize = 100;
/// Questions that wait together, as many as an inference thread takes at once.
const TOGETHER: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);
const CUSTOMERS: usize = 100;

pub async fn run(scale: Scale, catalogues: &[u32], report: &mut Report) {
    rapport_inference::init(None).unwrap();
    let mut rows = Vec::new();
    for &items in catalogues {
        eprintln!("retrieval: {items} items, on one inference thread");
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), items);
        rows.extend(on_one_thread(scale, &folder.path().join(TENANT).join("next-item/made-up"), items).await);
    }
    report.add_table(["items", "", "p50 ms", "p99 ms", "beside the ceilings (p50)"], rows);
    for &items in catalogues {
        through_the_scorer(scale, items, report).await;
    }
}

/// A network of so many items that has learned nothing.
fn make(registry: &Path, items: u32) {
    let mut command = Command::new(service::program("bench-train"));
    command.arg("made-up").arg("--items").arg(items.to_string()).arg("--registry-dir").arg(registry);
    assert!(command.args(["--tenant", TENANT]).status().unwrap().success(), "the network is written");
}

/// A history of items at random.
fn history(draws: &mut ChaCha8Rng, items: u32) -> Asked {
    Asked::of((0..HISTORY).map(|_| i64::from(draws.random_range(1..=items))).collect())
}

/// What is timed in turn, a round of each.
#[derive(Default)]
struct Timed {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Timed {
    fn round(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
        self.p50.push(at(0.5));
        self.p99.push(at(0.99));
    }

    /// Medians of the rounds, in milliseconds; the first round warms up.
    fn medians(&self) -> (f64, f64) {
        (median(self.p50[1..].to_vec()), median(self.p99[1..].to_vec()))
    }
}

async fn on_one_thread(scale: Scale, artifact: &Path, items: u32) -> Vec<[String; 5]> {
    let path = |file: &str| -> PathBuf { artifact.join(file) };
    let parts = Retrieval::open(&path("query.onnx"), &path("item_vectors.bin"), items as usize).unwrap();
    let (settings, model) = (BatchSettings::default(), path("model.onnx"));
    let split = Workers::start_retrieving("split", &model, &parts, 1, settings, 64).unwrap();
    let whole = Workers::start("whole", &model, 1, settings, 64).unwrap();
    let mut query = QueryModel::load(&path("query.onnx"), 1).unwrap();
    let (vectors, width) = (&parts.vectors, items as usize + 1);
    let bytes = vec![1_u64; vectors.scanned_bytes() / 8];
    let mut draws = ChaCha8Rng::seed_from_u64(items.into());
    let mut timed: [Timed; 6] = Default::default();
    let mut scored = Vec::new();
    for _ in 0..=scale.rounds {
        let asked: Vec<Asked> = (0..scale.searches).map(|_| history(&mut draws, items)).collect();
        let queries = query.queries(&asked, width).unwrap();
        timed[0].round(times(scale.searches, |_| {
            black_box(black_box(&bytes).iter().fold(0, |sum: u64, next| sum.wrapping_add(*next)));
        }));
        timed[1].round(times(scale.searches, |n| {
            black_box(query.queries(&asked[n..=n], width).unwrap());
        }));
        timed[2].round(times(scale.searches, |n| {
            scored.push(vectors.counted(&queries[n], WANTED).1 as f64);
        }));
        let alone = async |workers: &Workers| {
            let mut times = Vec::new();
            for asked in &asked {
                let started = Instant::now();
                black_box(workers.best(asked.clone(), WANTED, started + PATIENCE).await.unwrap());
                times.push(started.elapsed());
            }
            times
        };
        timed[3].round(alone(&split).await);
        timed[4].round(alone(&whole).await);
        let mut together = Vec::new();
        for asked in asked.chunks_exact(TOGETHER) {
            let started = Instant::now();
            let all = asked.iter().map(|asked| split.best(asked.clone(), WANTED, started + PATIENCE));
            black_box(futures::future::join_all(all).await);
            together.push(started.elapsed() / TOGETHER as u32);
        }
        timed[5].round(together);
    }
    let [streamed, asked, searched, ours, theirs, together] = timed.map(|timed| timed.medians());
    let megabytes = vectors.scanned_bytes() as f64 / 1e6;
    let times = |name: &str, (p50, p99): (f64, f64), beside: String| {
        [items.to_string(), name.to_owned(), format!("{p50:.3}"), format!("{p99:.3}"), beside]
    };
    let ratio = |of: f64| format!("{:.2} of ONNX Runtime's", of / theirs.0);
    vec![
        times("ceiling: read what is scanned", streamed, format!("{:.1} GB/s", megabytes / streamed.0)),
        times("ceiling: ONNX Runtime scores all, then top-k", theirs, String::new()),
        times("the graph that makes a query", asked, String::new()),
        times(
            &format!("search ({:?}; {:.0} items scored in 32 bits)", vectors.kernel(), median(scored)),
            searched,
            format!("{:.2} times the reading", searched.0 / streamed.0),
        ),
        times("query and search, through the queue", ours, ratio(ours.0)),
        times("the same, 16 together, each", together, ratio(together.0)),
    ]
}

fn times(count: usize, mut work: impl FnMut(usize)) -> Vec<Duration> {
    let timed = |n| {
        let started = Instant::now();
        work(n);
        started.elapsed()
    };
    (0..count).map(timed).collect()
}

/// `Recommend` with `include_seen`, which no cached list answers, for customers with a history, by a scorer that searches and by one that scores all.
async fn through_the_scorer(scale: Scale, items: u32, report: &mut Report) {
    eprintln!("retrieval: {items} items, through the scorer");
    let mut stack = Stack::new("bench-retrieval");
    make(&stack.registry_folder(), items);
    stack.set(Service::Scorer, "RAPPORT_RETRIEVE_FROM", "1");
    stack.set(Service::Scorer, "RAPPORT_MODEL_TIMEOUT", "10s");
    stack.set(Service::Scorer, "RAPPORT_ANSWER_TIMEOUT", "20s");
    stack.start(&Service::ALL).await;
    let mut draws = ChaCha8Rng::seed_from_u64(items.into());
    for customer in 0..CUSTOMERS {
        let events = (0..HISTORY).map(|n| {
            let item = format!("item-{:07}", draws.random_range(1..=items));
            let at = 1_767_225_600_000 + n as i64 * 60_000;
            interaction(&format!("made-up-{customer}-{n}"), "view", &customer_id(customer), &item, at)
        });
        let request = CollectBatchRequest { events: events.collect() };
        stack.collector().collect_batch(request).await.unwrap();
    }
    let promote = PromoteRequest { name: "next-item".into(), version: "made-up".into(), force: true };
    stack.trainer().promote(promote).await.unwrap();
    let mut latencies = [load::histogram(), load::histogram()];
    for round in 0..=scale.rounds {
        for (way, from) in ["1", "4000000000"].into_iter().enumerate() {
            stack.stop(Service::Scorer);
            stack.set(Service::Scorer, "RAPPORT_RETRIEVE_FROM", from);
            stack.start(&[Service::Scorer]).await;
            let channel = channel(&stack.grpc_uri(Service::Scorer));
            ready(&channel).await;
            for n in 0..scale.searches.min(if round == 0 { 20 } else { usize::MAX }) {
                let started = Instant::now();
                let answer = ask(&channel, n % CUSTOMERS).await;
                if round > 0 {
                    load::record(&mut latencies[way], started.elapsed());
                }
                assert_eq!(answer.provenance.unwrap_or_default().cache(), Cache::Miss);
                assert_eq!(answer.items.len(), 10);
            }
        }
    }
    for (way, name) in ["searched", "all scored in the graph"].into_iter().enumerate() {
        report.add_latency(LatencyRow {
            what: format!("Recommend, made for the call, {items} items, {name}"),
            p50: load::quantile(&latencies[way], 0.5),
            p99: load::quantile(&latencies[way], 0.99),
            goal: if way == 0 && items == 100_000 { "- / 10" } else { "-" },
            note: format!("{} calls, one after another", latencies[way].len()),
        });
    }
}

fn customer_id(n: usize) -> String {
    format!("made-up-{n:04}")
}

async fn ask(channel: &Channel, customer: usize) -> RecommendResponse {
    let customer_id = customer_id(customer);
    let request = RecommendRequest { customer_id, limit: 10, include_seen: true, ..Default::default() };
    RecommenderClient::new(channel.clone()).recommend(request).await.expect("an answer").into_inner()
}

/// Waits until every customer's list is the model's.
async fn ready(channel: &Channel) {
    for customer in 0..CUSTOMERS {
        wait_until("lists by the model", PATIENCE, async || {
            let answer = ask(channel, customer).await;
            let sources = answer.items.first().map(|item| item.sources.clone()).unwrap_or_default();
            check(sources.iter().any(|source| source == "sequence"), || format!("{sources:?}"))
        })
        .await;
    }
}
