//! A log replayed in the order of time through the running system, and the same model on the same cases
//! offline: `bench quality`.
//!
//! What lies before the 90 % point in time is imported and trained on; what lies after it is replayed by
//! `rapportctl evaluate served`. Afterwards the trainer judges the live model on its own hold-out, which is
//! then what was replayed.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets};
use rapport_events::EventTime;
use rapport_integration_tests::{
    harness::{Service, Stack, wait::check, wait_until},
    offline,
};
use rapport_proto::{
    recommend::RecommendRequest,
    train::{
        Evaluation, PromoteRequest, RunResult, StartRunRequest, TrainingConfig, WatchRunRequest, run_progress::State,
    },
};
use serde_json::{Value, json};

/// As the trainer's hold-out: what is not before this share of the events is for the test.
const BEFORE: f64 = 0.9;
const MODEL: &str = "next-item";
/// Between two events of a customer, for a file without times.
const MADE_UP_DAY_MS: i64 = 86_400_000;

/// A log replayed through the running system, beside the offline figure of the same model
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interactions: customer and item, then perhaps a rating, then perhaps a time in Unix seconds; separated by
    /// tabs, commas or spaces, with or without a header; oldest first within a customer
    file: PathBuf,
    /// Only the first so many customers
    #[arg(long)]
    customers: Option<usize>,
    /// What to train
    #[arg(long, value_delimiter = ',', default_value = "ridge,ligr,blend")]
    kinds: Vec<String>,
    /// Seconds for each network
    #[arg(long, default_value_t = 60)]
    budget_s: u32,
    /// Customers that act at once
    #[arg(long, default_value_t = 32)]
    at_once: u16,
    /// Write each case into this file
    #[arg(long)]
    cases: Option<PathBuf>,
}

struct Row {
    customer: String,
    item: String,
    rating: Option<f64>,
    at_ms: i64,
}

pub async fn run(args: Args) -> ExitCode {
    if !args.file.is_file() {
        println!("skipped: there is no {}", args.file.display());
        return ExitCode::SUCCESS;
    }
    let rows = read(&args.file, args.customers);
    let cutoff = rows[((rows.len() as f64 * BEFORE) as usize).min(rows.len() - 1)].at_ms;
    let (before, after) = rows.split_at(rows.partition_point(|row| row.at_ms < cutoff));

    let mut stack = Stack::new("quality");
    stack.set(Service::Trainer, "RAPPORT_TRAIN_THREADS", "2");
    stack.start(&Service::ALL).await;
    let (history, replay) = (stack.folder().join("before.ndjson"), stack.folder().join("after.ndjson"));
    write(&history, "b", before);
    write(&replay, "a", after);
    eprintln!("{} events before {}, {} from then on", before.len(), EventTime::from_ms(cutoff), after.len());
    ctl(&stack, &["import", "events", &history.display().to_string()]);
    in_the_log(&stack, before.len()).await;
    let (result, took) = train(&stack, &args.kinds, args.budget_s, false).await;
    let winner =
        result.versions.iter().find(|version| version.kind == result.winner).expect("the winner has a version");
    if !result.promoted {
        println!("the gate refused it ({}); promoted all the same, to be measured", result.reason);
        let request = PromoteRequest { name: MODEL.into(), version: winner.version.clone(), force: true };
        stack.trainer().promote(request).await.unwrap();
    }
    let mut scorer = stack.scorer();
    wait_until("answers by a model", Duration::from_secs(60), async || {
        let request = RecommendRequest { customer_id: before[0].customer.clone(), limit: 10, ..Default::default() };
        let answer = scorer.recommend(request).await.map_err(|e| e.to_string())?.into_inner();
        let found = answer.provenance.unwrap_or_default().model_version;
        check(found == winner.version, || format!("{found:?} is live"))
    })
    .await;
    eprintln!("trained in {took:.0} s: {} is live; replaying", result.winner);

    let (replay, history) = (replay.display().to_string(), history.display().to_string());
    let at_once = args.at_once.to_string();
    let mut command = vec!["evaluate", "served", &replay, "--history", &history, "--at-once", &at_once];
    let cases = args.cases.as_ref().map(|path| path.display().to_string());
    if let Some(cases) = &cases {
        command.extend(["--cases", cases]);
    }
    let served = ctl(&stack, &command);
    in_the_log(&stack, rows.len()).await;
    eprintln!("replayed in {:.0} s; judging the live model offline", served["seconds"].as_f64().unwrap_or_default());

    // The run is not for what it trains: it judges the live model, as it is, on the hold-out of the whole log.
    let (judged, _) = train(&stack, &["ridge".to_owned()], 1, true).await;
    let champion = judged.evaluations.iter().find(|row| row.model == "champion").expect("the live model is judged");
    report(&args, &result, champion, &served["judgement"]);
    ExitCode::SUCCESS
}

/// In the order of time, and of the file within a moment.
fn read(path: &Path, customers: Option<usize>) -> Vec<Row> {
    let text = fs::read_to_string(path).expect("the file can be read");
    let mut rows: Vec<(Row, bool)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut lines = text.lines().peekable();
    if lines.peek().is_some_and(|first| first.contains(":token")) {
        lines.next();
    }
    for line in lines {
        let cells: Vec<&str> = line.split(['\t', ',', ' ']).filter(|cell| !cell.is_empty()).collect();
        let (customer, item) = (cells[0].to_owned(), cells[1].to_owned());
        let number = known.len();
        let place = *known.entry(customer.clone()).or_insert(number);
        if customers.is_some_and(|most| place >= most) {
            continue;
        }
        let rating = cells.get(2).filter(|_| cells.len() > 3).and_then(|cell| cell.parse().ok());
        let time: Option<f64> = cells.get(2..).and_then(<[&str]>::last).and_then(|cell| cell.parse().ok());
        rows.push((Row { customer, item, rating, at_ms: (time.unwrap_or(0.0) * 1e3) as i64 }, time.is_some()));
    }
    let has_times = rows.iter().all(|(_, timed)| *timed);
    let mut rows: Vec<Row> = rows.into_iter().map(|(row, _)| row).collect();
    if !has_times {
        eprintln!("the file has no times: each customer's events are spread over the same 1,000 days");
        make_up_times(&mut rows);
    }
    rows.sort_by_key(|row| row.at_ms);
    rows
}

/// The first event of everybody at the beginning, the last one at the end: a moment divides the history of
/// every customer.
fn make_up_times(rows: &mut [Row]) {
    let mut counts: HashMap<String, i64> = HashMap::new();
    for row in rows.iter() {
        *counts.entry(row.customer.clone()).or_default() += 1;
    }
    let mut places: HashMap<String, i64> = HashMap::new();
    for row in rows {
        let place = places.entry(row.customer.clone()).or_default();
        let start = 1_577_836_800_000;
        row.at_ms = start + 1_000 * MADE_UP_DAY_MS * *place / counts[&row.customer];
        *place += 1;
    }
}

fn write(path: &Path, name: &str, rows: &[Row]) {
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        let time = EventTime::from_ms(row.at_ms).to_string();
        let event = json!({
            "event_id": format!("quality-{name}-{n}"), "type": "rating", "customer_id": row.customer,
            "item_id": row.item, "value": row.rating, "event_time": time,
        });
        text += &format!("{event}\n");
    }
    fs::write(path, text).expect("scratch is writable");
}

/// What the command line answers; its progress is shown.
fn ctl(stack: &Stack, arguments: &[&str]) -> Value {
    let output = stack
        .rapportctl(&[&["--json"], arguments].concat())
        .stderr(Stdio::inherit())
        .output()
        .expect("rapportctl can be started");
    assert!(output.status.success(), "rapportctl {arguments:?} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).expect("rapportctl answers in JSON")
}

async fn in_the_log(stack: &Stack, expected: usize) {
    wait_until("every event in the offline log", Duration::from_secs(300), async || {
        let found = offline::event_ids(stack).len();
        if found < expected {
            // Reading a large log again and again would slow down who writes it.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        check(found == expected, || format!("{found} of {expected}"))
    })
    .await;
}

async fn train(stack: &Stack, kinds: &[String], budget_s: u32, dry_run: bool) -> (RunResult, f64) {
    let config =
        TrainingConfig { kinds: kinds.to_vec(), time_budget_s: budget_s, dry_run, seed: 42, ..Default::default() };
    let run = stack.trainer().start_run(StartRunRequest { config: Some(config) }).await.unwrap();
    let watch = WatchRunRequest { run_id: run.into_inner().run_id };
    let mut progress = stack.trainer().watch_run(watch).await.unwrap().into_inner();
    let mut last = None;
    while let Some(step) = progress.message().await.unwrap() {
        last = Some(step);
    }
    let last = last.expect("a run reports its end");
    assert_eq!(last.state(), State::Succeeded, "{last:?}");
    let result = last.result.unwrap();
    let took = result.seconds;
    (result, took)
}

fn report(args: &Args, result: &RunResult, champion: &Evaluation, served: &Value) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["", "cases", "HR@10", "95 %", "NDCG@10", "95 %"]);
    let offline = |name: &str| format!("{:.4}", champion.metrics.get(name).copied().unwrap_or(f64::NAN));
    table.add_row([
        format!("the trainer, offline ({})", result.winner),
        champion.cases.to_string(),
        offline("hr@10"),
        String::new(),
        offline("ndcg@10"),
        String::new(),
    ]);
    for (what, name) in [
        ("served, reflecting every event", "fresh"),
        ("served at once", "at_once"),
        ("the first, items of the history only", "fresh_known_items"),
        ("customers without a history", "strangers"),
    ] {
        let row = &served[name];
        if row.is_null() {
            continue;
        }
        let number = |metric: &str, of: &str| row[metric][of].as_f64().unwrap_or(f64::NAN);
        let between = |metric: &str| format!("{:.4} to {:.4}", number(metric, "lower"), number(metric, "upper"));
        table.add_row([
            what.to_owned(),
            row["cases"].to_string(),
            format!("{:.4}", number("hr", "estimate")),
            between("hr"),
            format!("{:.4}", number("ndcg", "estimate")),
            between("ndcg"),
        ]);
    }
    println!("\n{}: next events in the order of time\n\n{table}\n", args.file.display());
    println!("{served:#}");
}
