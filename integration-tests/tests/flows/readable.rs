//! The offline log is everybody's: DuckDB and Polars read what Rapport writes, as it lies there.

use std::{collections::BTreeSet, fs, time::Duration};

use prost::Message as _;
use rapport_events::EventTime;
use rapport_integration_tests::{
    harness::{Service, Stack, stack::TENANT, wait::check, wait_until},
    offline,
};
use rapport_proto::recommend::{Provenance, ScoredItem, Served};

use crate::{doors::collect, models::in_the_log, same_features::events};

const WITHIN: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;
const START_MS: i64 = 1_764_547_200_000;
const LISTS: usize = 40;
const ITEMS: usize = 3;

fn served(n: usize) -> Vec<u8> {
    let item = |place: usize| ScoredItem {
        item_id: format!("i{place}"),
        score: 0.5 / (place + 1) as f64,
        propensity: 0.25,
        ..ScoredItem::default()
    };
    let list = Served {
        tenant: TENANT.into(),
        customer_id: format!("c{}", n % 7),
        items: (0..ITEMS).map(item).collect(),
        provenance: Some(Provenance { request_id: format!("r{n}"), ..Provenance::default() }),
        served_at: Some(EventTime::from_ms(START_MS + n as i64 * 3_600_000).to_proto()),
    };
    list.encode_to_vec()
}

/// Both say the same, of the same files. False when one of them is not installed.
fn both_say(files: &[String], sql: &str, polars: &str, expected: &str) -> bool {
    let (Some(of_duckdb), Some(of_polars)) =
        (offline::duckdb(files, sql), offline::polars(files, None, &format!("'|'.join(map(str, {polars}))")))
    else {
        eprintln!("skipped: no Python with DuckDB and Polars; deploy/dev/setup.sh --tests installs them");
        return false;
    };
    assert_eq!((of_duckdb.as_str(), of_polars.as_str()), (expected, expected));
    true
}

fn files_of(stack: &Stack, arguments: &[&str]) -> Vec<String> {
    let folder = stack.offline_folder().display().to_string();
    let (code, files) = stack.ask(&[&["offline", "files", "--offline-url", &folder], arguments].concat());
    assert_eq!(code, Some(0), "{files}");
    files.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_and_polars_read_events_lists_and_training_rows_as_they_are_before_and_after_compaction() {
    let mut stack = Stack::new("readable");
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "100ms");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    let sent = events(3, START_MS, START_MS + 5 * DAY_MS);
    // Many flushes, and many small files.
    for (n, some) in (1..).zip(sent.chunks(sent.len() / 10)) {
        collect(&stack, some.to_vec()).await;
        in_the_log(&stack, (n * (sent.len() / 10)).min(sent.len())).await;
    }
    let producer = stack.broker.producer();
    (0..LISTS).for_each(|n| producer.send(&stack.topics.served, Some(&format!("{TENANT}/c{n}")), &served(n), &[]));
    producer.flush();
    wait_until("the offline log to have everything", WITHIN, async || {
        let lists = offline::read_served(&stack).map_err(|error| error.to_string())?.len();
        let found = offline::event_ids(&stack).len();
        check((found, lists) == (sent.len(), LISTS), || format!("{found} of {} and {lists} of {LISTS}", sent.len()))
    })
    .await;

    let folder = stack.offline_folder().display().to_string();
    let bought = sent.iter().filter(|event| event.r#type == "purchase").count();
    let unknown = sent.iter().filter(|event| event.value.is_none()).count();
    let days: BTreeSet<String> = (0..5).map(|day| EventTime::from_ms(START_MS + day * DAY_MS).day()).collect();
    let all_is_there = |stack: &Stack| {
        let pattern = |of: &str| vec![format!("{folder}/{of}/**/*.parquet")];
        for files in [pattern("events"), files_of(stack, &[])] {
            both_say(
                &files,
                "select count(*), count(distinct event_id), count(distinct day), min(tenant), \
                 count(*) filter (type = 'purchase'), count(*) - count(value) from rows",
                "rows.select(pl.len(), pl.col('event_id').n_unique().alias('ids'), \
                 pl.col('day').n_unique().alias('days'), pl.col('tenant').min(), \
                 (pl.col('type') == 'purchase').sum().alias('bought'), \
                 pl.col('value').is_null().sum().alias('unknown')).collect().row(0)",
                &format!("{n}|{n}|{}|{TENANT}|{bought}|{unknown}", days.len(), n = sent.len()),
            );
        }
        for files in [pattern("served"), files_of(stack, &["--served"])] {
            both_say(
                &files,
                "select count(*), count(distinct request_id), sum(propensity), max(place) from rows",
                "rows.select(pl.len(), pl.col('request_id').n_unique().alias('ids'), pl.col('propensity').sum(), \
                 pl.col('place').max()).collect().row(0)",
                &format!("{}|{LISTS}|{:.1}|{ITEMS}", LISTS * ITEMS, (LISTS * ITEMS) as f64 * 0.25),
            );
        }
    };
    all_is_there(&stack);
    let before = files_of(&stack, &[]).len();
    wait_until("compaction to have nothing to do", WITHIN, async || {
        let compact = ["offline", "compact", "--settle", "0s", "--grace", "0s", "--offline-url", &folder];
        let (code, done) = stack.ask(&compact);
        check(code == Some(0) && done["files_merged"] == 0 && done["deleted"] == 0, || done.to_string())
    })
    .await;
    let after = files_of(&stack, &[]).len();
    assert!(after < before, "{after} of {before} files");
    assert_eq!(offline::event_ids(&stack).len(), sent.len());
    all_is_there(&stack);

    // Training rows.
    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.parquet"));
    let at = EventTime::from_ms(START_MS + 5 * DAY_MS);
    let customers: BTreeSet<&str> = sent.iter().map(|event| event.customer_id.as_str()).collect();
    let lines: String = customers.iter().map(|customer| format!("{customer},{at},1\n")).collect();
    fs::write(&spine, format!("customer_id,event_timestamp,label\n{lines}")).unwrap();
    let (spine, output) = (spine.display().to_string(), rows.display().to_string());
    let join = ["features", "join", "--spine", &spine, "--output", &output, "--offline-url", &folder];
    let (code, told) = stack.ask(&join);
    assert_eq!((code, &told["rows"]), (Some(0), &customers.len().into()), "{told}");
    let column = "[n for n in rows.collect_schema().names() if '.events' in n and 'lifetime' in n][0]";
    let column = offline::polars(std::slice::from_ref(&output), None, column);
    if let Some(column) = column {
        both_say(
            &[output],
            &format!("select count(*), count(distinct customer_id), sum(\"{column}\"), sum(label::int) from rows"),
            &format!(
                "rows.select(pl.len(), pl.col('customer_id').n_unique().alias('n'), pl.col('{column}').sum(), \
                 pl.col('label').cast(pl.Int64).sum()).collect().row(0)"
            ),
            &format!("{n}|{n}|{:.1}|{n}", sent.len() as f64, n = customers.len()),
        );
    }
}
