//! Files into the mesh: each row once, also when the import is killed.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rapport_integration_tests::{
    accounting::exactly_once,
    harness::{Service, Stack, wait::check, wait_until},
};
use rapport_proto::events::{CleanEvent, Event};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(120);
const ROWS: usize = 150_000;
/// One row in so many has a number that is none.
const BAD_EVERY: usize = 10_000;

const MAPPING: &str = "
version: 1
name: orders
events:
  - set:
      type: purchase
      customer_id: $.Customer
      item_id: \"$.Item No\"
      value: $.Price
      event_time: $.Day
";

/// A file of orders and its mapping.
fn orders(folder: &Path) -> (PathBuf, PathBuf) {
    let mut text = String::from("\u{feff}Customer;Item No;Price;Day\r\n");
    for n in 0..ROWS {
        let price = if n % BAD_EVERY == BAD_EVERY - 1 { "free".to_owned() } else { format!("{}.5", n % 90) };
        writeln!(text, "c{};\"item; {}\";{price};2026-01-02T03:04:05Z\r", n % 500, n % 300).unwrap();
    }
    let (file, mapping) = (folder.join("orders.csv"), folder.join("orders.yaml"));
    fs::write(&file, text).unwrap();
    fs::write(&mapping, MAPPING).unwrap();
    (file, mapping)
}

fn done_row(state: &Path) -> u64 {
    let text = fs::read_to_string(state).unwrap_or_default();
    serde_json::from_str::<Value>(&text).ok().and_then(|state| state["done_row"].as_u64()).unwrap_or(0)
}

fn clean_ids(stack: &Stack) -> Vec<String> {
    let clean = stack.broker.read_all(&stack.topics.clean);
    clean.iter().map(|record| record.header("rapport-event-id").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_and_every_row_is_clean_once() {
    let mut stack = Stack::new("import");
    stack.start(&[Service::Collector, Service::Cleaner]).await;
    let (file, mapping) = orders(stack.folder());
    let (file_text, mapping_text) = (file.display().to_string(), mapping.display().to_string());
    let import = ["import", "events", &file_text, "--mapping", &mapping_text, "--delimiter", ";"];

    let state = stack.folder().join("orders.csv.import.json");
    let mut running = stack.rapportctl(&import).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the first place to be kept", WITHIN, async || check(done_row(&state) > 0, || "nothing yet".to_owned()))
        .await;
    running.kill().unwrap();
    running.wait().unwrap();

    let (code, report) = stack.ask(&import);
    let bad = (ROWS / BAD_EVERY) as u64;
    assert_eq!(code, Some(1), "some rows were rejected: {report:#}");
    assert_eq!(report["rows"], ROWS, "{report:#}");
    assert_eq!(report["rejected"], bad, "{report:#}");
    assert_eq!(report["acknowledged"], ROWS as u64 - bad, "{report:#}");
    let rejected = fs::read_to_string(report["rejected_file"].as_str().unwrap()).unwrap();
    let rows: Vec<usize> = rejected
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["row"].as_u64().unwrap() as usize)
        .collect();
    assert_eq!(rows, (1..=bad as usize).map(|n| n * BAD_EVERY).collect::<Vec<_>>(), "each once and in order");
    assert!(rejected.contains("\"field\":\"value\""), "{rejected}");

    // A third run has nothing to do, and a tolerance makes it a success.
    let tolerant = [&import[..], &["--max-rejected", "20"]].concat();
    let (code, again) = stack.ask(&tolerant);
    assert_eq!((code, again["rows"].as_u64()), (Some(0), Some(ROWS as u64)), "{again:#}");

    // The account waits for the cleaner.
    let (code, account) = stack.ask(&["account"]);
    assert_eq!(code, Some(0), "{account:#}");
    let prefix = &report["file_sha256"].as_str().unwrap()[..16];
    let wanted = (1..=ROWS).filter(|row| row % BAD_EVERY != 0).map(|row| format!("{prefix}-{row}"));
    if let Err(found) = exactly_once(wanted, clean_ids(&stack)) {
        panic!("{found}");
    }
    let event: Event = stack.broker.read_all(&stack.topics.clean)[0].decode::<CleanEvent>().event.unwrap();
    assert!(event.item_id.starts_with("item; "), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_events_need_no_mapping_and_may_go_straight_to_kafka() {
    let stack = Stack::new("import-lines");
    stack.make_topics().await;
    let file = stack.folder().join("events.ndjson.gz");
    let lines = r#"{"event_id":"own-1","type":"view","customer_id":"ann","item_id":"lamp"}

{"type":"track","event":"Order Completed","userId":"bob","messageId":"seg-1"}
{"type":"view","customer_id":
{"type":"view","customer_id":"cid"}
"#;
    compress(lines.as_bytes(), &file);
    let file = file.display().to_string();
    let (code, report) = stack.ask(&["import", "events", &file, "--via", "kafka", "--max-rejected", "1"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!((report["rows"].as_u64(), report["acknowledged"].as_u64()), (Some(4), Some(3)), "{report:#}");
    let raw = stack.broker.read_all(&stack.topics.raw);
    let ids: BTreeSet<String> = raw.iter().map(|record| record.decode::<Event>().event_id).collect();
    let prefix = &report["file_sha256"].as_str().unwrap()[..16];
    assert_eq!(ids, BTreeSet::from(["own-1".to_owned(), "seg-1".to_owned(), format!("{prefix}-5")]));
}

/// Real data, where it is there: RAPPORT_SHARED_DATA names its folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_file_of_a_real_shop_comes_in_by_its_mapping() {
    let Some(shared) = std::env::var_os("RAPPORT_SHARED_DATA").map(PathBuf::from) else {
        eprintln!("skipped: RAPPORT_SHARED_DATA does not name the folder of data sets");
        return;
    };
    let file = shared.join("online-retail/online_retail_half_allcols.parquet");
    assert!(file.exists(), "{} is not there", file.display());
    let mapping = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mappings/online-retail.yaml");
    let mut stack = Stack::new("import-retail");
    stack.start(&[Service::Collector]).await;
    let (state, rejected) = (stack.folder().join("state.json"), stack.folder().join("rejected.ndjson"));
    let text = |path: &Path| path.display().to_string();
    let (file, mapping, state, rejected) = (text(&file), text(&mapping), text(&state), text(&rejected));
    let import = |limit: &[&str]| {
        let fixed = ["import", "events", &file, "--mapping", &mapping, "--state", &state, "--rejected", &rejected];
        stack.ask(&[&fixed[..], limit].concat())
    };
    // In two runs, the second from the middle of a row group.
    let (_, first) = import(&["--limit", "12345"]);
    assert_eq!((first["done_row"].as_u64(), first["complete"].as_bool()), (Some(12_345), Some(false)), "{first:#}");
    let (_, whole) = import(&[]);
    assert_eq!((whole["rows"].as_u64(), whole["complete"].as_bool()), (Some(240_007), Some(true)), "{whole:#}");
    let count = |name: &str| whole[name].as_u64().unwrap();
    assert_eq!(count("events"), count("acknowledged"), "{whole:#}");
    assert!(count("events") + count("passed_over") + count("rejected") >= 240_007, "{whole:#}");
    assert!(count("acknowledged") > 100_000, "{whole:#}");
    let raw = stack.broker.read_all(&stack.topics.raw);
    assert_eq!(raw.len() as u64, count("acknowledged"));
    let events: Vec<Event> = raw.iter().take(1_000).map(rapport_integration_tests::harness::Record::decode).collect();
    assert!(events.iter().all(|event| !event.customer_id.is_empty() && event.event_time.is_some()), "{:?}", events[0]);
}

/// gzip, by the program that everybody has.
fn compress(bytes: &[u8], to: &Path) {
    use std::io::Write as _;
    let out = fs::File::create(to).unwrap();
    let mut gzip = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(out).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(gzip.wait().unwrap().success());
}
