//! Reads of many customers with 250 features: the feature store, a bare tonic server that fetches the same
//! bytes from Redis and answers a vector of the same length, and, where it is installed, Feast's Python SDK with
//! its own online store in the same Redis.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rapport_events::{CleanEvent, EventTime, Position, Tenant};
use rapport_features::{CustomerState, Views};
use rapport_integration_tests::{
    events::now_ms,
    harness::{
        Broker, RedisServer, Service, Stack, clients::channel, ports, process::Process, stack::TENANT, wait::check,
        wait_until,
    },
};
use rapport_online::{Keys, Marked, OnlineArgs, OnlineWriter, Write};
use rapport_proto::features::{
    ApplyViewsRequest, ApplyViewsResponse, FeatureVector, GetBackfillRequest, GetBackfillResponse, GetFeaturesRequest,
    GetFeaturesResponse, GetHistoryRequest, GetHistoryResponse, GetStatisticsRequest, GetStatisticsResponse,
    ListViewsRequest, ListViewsResponse, PlanViewsRequest, PlanViewsResponse,
    feature_store_client::FeatureStoreClient,
    feature_store_server::{FeatureStore, FeatureStoreServer},
};
use redis::aio::MultiplexedConnection;
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    Scale, load,
    report::{LatencyRow, Report, Row, Run, Watch},
};

/// Rows of a call, and half of the p99 that Feast has published for its Java server at 250 features (0.8,
/// 2.23, 7.29 and 17 ms).
const ROWS: [(usize, &str); 4] = [(1, "- / 0.4"), (10, "- / 1.1"), (50, "- / 3.6"), (100, "- / 8.5")];
/// Callers that each make one call after the other: a latency is to be seen, not a queue.
const CALLERS: usize = 2;
const VIEWS: usize = 25;
const FEATURES: usize = 250;
const EVENTS: usize = 40;
/// Different states; every customer has one of them.
const STATES: usize = 2_000;
/// Customers that Feast writes, in Python: how many there are does not change what a read costs in Redis.
const FEASTS_CUSTOMERS: usize = 1_000;

pub async fn run(scale: Scale, report: &mut Report) {
    let redis = Arc::new(RedisServer::start("bench-features"));
    let mut stack = Stack::on("bench-features", Broker::shared(), Arc::clone(&redis));
    let path = stack.folder().join("views.yaml");
    std::fs::write(&path, views()).unwrap();
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", path.display().to_string());
    stack.start(&[Service::FeatureStore]).await;

    let customers = scale.feature_customers;
    eprintln!("features: {customers} customers with {FEATURES} features");
    let took = fill(&redis, stack.key_prefix(), customers).await;
    let bytes = used_memory(&redis).await;
    eprintln!(
        "  written in {:.1} s, {:.0} a second; Redis has {:.0} MiB, {:.0} bytes a customer",
        took.as_secs_f64(),
        customers as f64 / took.as_secs_f64(),
        bytes as f64 / f64::from(1 << 20),
        bytes as f64 / customers as f64,
    );
    let store = channel(&stack.grpc_uri(Service::FeatureStore));
    let first = ask(&store, vec![customer(0)]).await;
    assert_eq!((first.names.len(), first.vectors[0].found), (FEATURES, true));
    let (echo, echo_channel) = start_echo(&redis, stack.key_prefix()).await;
    let feast = feast(&redis, stack.folder(), scale);

    let ours_pid = stack.process(Service::FeatureStore).pid();
    for (rows, goal) in ROWS {
        let calls = (scale.feature_calls as f64 / (rows as f64).sqrt()) as usize;
        let processes = [("feature-store", ours_pid), ("redis", redis.pid())];
        let (mut ours, mut ceiling) = (Vec::new(), Vec::new());
        let mut latencies = [load::histogram(), load::histogram()];
        for round in 0..=scale.rounds {
            let (run, latency) =
                hammer(&echo_channel, rows, calls, customers, &[("echo", echo.pid()), processes[1]]).await;
            let (our_run, our_latency) = hammer(&store, rows, calls, customers, &processes).await;
            // The first round warms up.
            if round > 0 {
                ceiling.push(run);
                ours.push(our_run);
                latencies[0].add(latency).unwrap();
                latencies[1].add(our_latency).unwrap();
            }
        }
        report.add(Row { what: format!("features of {rows}"), unit: "calls", ours, ceiling, goal: None });
        let row = |what: String, latency: &Histogram<u64>, goal: &'static str| LatencyRow {
            what,
            p50: load::quantile(latency, 0.5),
            p99: load::quantile(latency, 0.99),
            goal,
            note: format!("{} calls of {CALLERS} callers", latency.len()),
        };
        report.add_latency(row(format!("{FEATURES} features of {rows}, the feature store"), &latencies[1], goal));
        report.add_latency(row(
            format!("{FEATURES} features of {rows}, an echo with the same bytes"),
            &latencies[0],
            "-",
        ));
        if let Some((p50, p99, calls)) = feast.as_ref().and_then(|read| feasts(read, rows)) {
            report.add_latency(LatencyRow {
                what: format!("{FEATURES} features of {rows}, Feast's Python SDK"),
                p50,
                p99,
                goal: "-",
                note: format!(
                    "{calls} calls of one caller; p99 {:.0} times ours",
                    p99.as_secs_f64() / load::quantile(&latencies[1], 0.99).as_secs_f64()
                ),
            });
        }
    }
}

/// 25 views of ten features each, over events of one type each: counts and sums over windows, and values of
/// the whole life.
fn views() -> String {
    let mut text = "version: 1\nviews:\n".to_owned();
    for n in 0..VIEWS {
        writeln!(
            text,
            "  - name: v{n}
    entity: customer
    where: {{ type: [kind{n}] }}
    features:
      - {{ name: count, aggregate: count, windows: [1d, 7d, 30d, lifetime] }}
      - {{ name: sum, aggregate: sum, windows: [7d, 30d, lifetime] }}
      - {{ name: most, aggregate: max, window: lifetime }}
      - {{ name: mean, aggregate: mean, window: lifetime }}
      - {{ name: last, aggregate: last, window: lifetime }}"
        )
        .unwrap();
    }
    text
}

fn customer(n: usize) -> String {
    format!("customer-{n:07}")
}

/// Writes every customer as the feature store does.
async fn fill(redis: &RedisServer, prefix: &str, customers: usize) -> Duration {
    let views = Arc::new(Views::parse(&views()).unwrap());
    assert_eq!(views.names(rapport_features::Entity::Customer).len(), FEATURES);
    let tenant = Tenant::parse(TENANT).unwrap();
    let states: Vec<CustomerState> = (0..STATES.min(customers)).map(|n| state(&views, &tenant, n)).collect();
    let mut writer = OnlineWriter::new(&OnlineArgs::at(redis.url(), prefix), None).unwrap();
    let keys = Keys::new(prefix);
    let started = Instant::now();
    let all: Vec<usize> = (0..customers).collect();
    for chunk in all.chunks(2_000) {
        let write = |&n: &usize| {
            let fence = Position { partition: 0, offset: n as i64 };
            let state = &states[n % states.len()];
            Write::customer(keys.customer(&tenant, &customer(n)), None, fence, Marked::default(), state)
        };
        writer.write(&chunk.iter().map(write).collect::<Vec<_>>()).await.unwrap();
    }
    started.elapsed()
}

/// A customer after 40 events of the last 60 days.
fn state(views: &Arc<Views>, tenant: &Tenant, n: usize) -> CustomerState {
    let (mut state, now) = (CustomerState::new(views), now_ms());
    for event in 0..EVENTS {
        let mixed = (n * EVENTS + event).wrapping_mul(2_654_435_761) >> 7;
        let time = EventTime::from_ms(now - (EVENTS - event) as i64 * 129_600_000);
        state.apply(&CleanEvent {
            tenant: tenant.clone(),
            event_id: format!("e-{n}-{event}"),
            kind: format!("kind{}", mixed % VIEWS),
            customer_id: customer(n),
            item_id: Some(format!("item-{}", mixed % 5_000)),
            category: None,
            session_id: None,
            segment: None,
            time,
            received_at: time,
            value: Some((mixed % 10_000) as f64 / 100.0),
        });
    }
    state
}

async fn used_memory(redis: &RedisServer) -> u64 {
    let mut connection = redis.client().get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap_or(0)
}

async fn ask(channel: &Channel, entity_ids: Vec<String>) -> GetFeaturesResponse {
    let mut client = FeatureStoreClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    let mut request = Request::new(GetFeaturesRequest { entity_ids, ..Default::default() });
    request.metadata_mut().insert("x-rapport-tenant", TENANT.parse().unwrap());
    client.get_features(request).await.expect("an answer").into_inner()
}

async fn hammer(
    channel: &Channel,
    rows: usize,
    calls: usize,
    customers: usize,
    processes: &[(&'static str, u32)],
) -> (Run, Histogram<u64>) {
    let (channel, watch) = (channel.clone(), Watch::start(processes));
    let latencies = load::closed_loop(CALLERS, calls, move |n| {
        let ids = (0..rows).map(|row| customer((n * 7_919 + row * 104_729) % customers)).collect();
        let channel = channel.clone();
        async move {
            let answer = ask(&channel, ids).await;
            assert_eq!(answer.vectors.len(), rows);
            assert!(answer.vectors.iter().all(|vector| vector.values.len() == FEATURES));
        }
    })
    .await;
    (watch.stop(calls), latencies)
}

#[derive(Debug, clap::Args)]
pub struct EchoArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    redis: String,
    #[arg(long)]
    prefix: String,
}

/// Fetches what the feature store fetches, in one pipeline, and answers vectors of the same length without
/// having looked at it.
struct Echo {
    redis: MultiplexedConnection,
    keys: Keys,
    tenant: Tenant,
    names: Vec<String>,
}

#[tonic::async_trait]
impl FeatureStore for Echo {
    async fn get_features(
        &self,
        request: Request<GetFeaturesRequest>,
    ) -> Result<Response<GetFeaturesResponse>, Status> {
        let ids = request.into_inner().entity_ids;
        let mut pipeline = redis::pipe();
        for id in &ids {
            pipeline.cmd("HMGET").arg(self.keys.customer(&self.tenant, id)).arg(&["o", "v", "t", "-", "f"]);
        }
        let fetched: Vec<redis::Value> =
            pipeline.query_async(&mut self.redis.clone()).await.map_err(|e| Status::internal(e.to_string()))?;
        let vectors = ids.into_iter().zip(fetched).map(|(entity_id, value)| FeatureVector {
            entity_id,
            found: value != redis::Value::Nil,
            values: vec![1.25; FEATURES],
            newest_event_time: None,
            version: 1,
            lists: Vec::new(),
        });
        let names = self.names.clone();
        Ok(Response::new(GetFeaturesResponse { names, vectors: vectors.collect(), ..Default::default() }))
    }

    async fn get_history(&self, _: Request<GetHistoryRequest>) -> Result<Response<GetHistoryResponse>, Status> {
        Err(only_features())
    }

    async fn list_views(&self, _: Request<ListViewsRequest>) -> Result<Response<ListViewsResponse>, Status> {
        Err(only_features())
    }

    async fn plan_views(&self, _: Request<PlanViewsRequest>) -> Result<Response<PlanViewsResponse>, Status> {
        Err(only_features())
    }

    async fn apply_views(&self, _: Request<ApplyViewsRequest>) -> Result<Response<ApplyViewsResponse>, Status> {
        Err(only_features())
    }

    async fn get_statistics(
        &self,
        _: Request<GetStatisticsRequest>,
    ) -> Result<Response<GetStatisticsResponse>, Status> {
        Err(only_features())
    }

    async fn get_backfill(&self, _: Request<GetBackfillRequest>) -> Result<Response<GetBackfillResponse>, Status> {
        Err(only_features())
    }
}

fn only_features() -> Status {
    Status::unimplemented("the echo only has features")
}

/// The echo's process.
pub async fn serve_echo(args: EchoArgs) {
    let client = redis::Client::open(args.redis).unwrap();
    let views = Views::parse(&views()).unwrap();
    let echo = Echo {
        redis: client.get_multiplexed_async_connection().await.unwrap(),
        keys: Keys::new(args.prefix),
        tenant: Tenant::parse(TENANT).unwrap(),
        names: views.names(rapport_features::Entity::Customer).to_vec(),
    };
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(FeatureStoreServer::new(echo))
        .serve(args.listen)
        .await
        .unwrap();
}

async fn start_echo(redis: &RedisServer, prefix: &str) -> (Process, Channel) {
    let listen = format!("127.0.0.1:{}", ports::free());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["feature-echo", "--listen", &listen, "--redis", &redis.url(), "--prefix", prefix]);
    let log = rapport_integration_tests::harness::stack::scratch("feature-echo").join("echo.log");
    let process = Process::start("echo", &mut command, log);
    let channel = channel(&format!("http://{listen}"));
    wait_until("the echo", Duration::from_secs(10), async || {
        let request = GetFeaturesRequest { entity_ids: vec![customer(0)], ..Default::default() };
        let answer = FeatureStoreClient::new(channel.clone()).get_features(request).await.map_err(|e| e.to_string())?;
        check(answer.get_ref().vectors.len() == 1, || "no vector".into())
    })
    .await;
    (process, channel)
}

/// Feast's latencies by rows. `None` where the package is not installed.
fn feast(redis: &RedisServer, folder: &Path, scale: Scale) -> Option<serde_json::Value> {
    let python = PathBuf::from(std::env::var_os("RAPPORT_CACHE")?).join("feast-venv/bin/python");
    if !python.is_file() {
        eprintln!("features: Feast's package is not installed (deploy/dev/setup.sh --feast); ours alone");
        return None;
    }
    eprintln!("features: Feast's Python SDK, {FEASTS_CUSTOMERS} customers in the same Redis");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/bench/features_feast.py");
    let calls = (scale.feature_calls / 10).max(20).to_string();
    let rows = ROWS.map(|(rows, _)| rows.to_string()).join(",");
    let output = Command::new(python)
        .arg(script)
        .args(["--redis", redis.url().trim_start_matches("redis://"), "--customers", &FEASTS_CUSTOMERS.to_string()])
        .args(["--features", &FEATURES.to_string(), "--calls", &calls, "--rows", &rows])
        .env("FEAST_USAGE", "False")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    if !output.status.success() {
        eprintln!("features: Feast could not be measured ({}); ours alone", output.status);
        return None;
    }
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Median, 99 % and calls of so many rows.
fn feasts(read: &serde_json::Value, rows: usize) -> Option<(Duration, Duration, u64)> {
    let of = &read[rows.to_string()];
    let seconds = |name: &str| Some(Duration::from_secs_f64(of[name].as_f64()?));
    Some((seconds("p50")?, seconds("p99")?, of["calls"].as_u64()?))
}
