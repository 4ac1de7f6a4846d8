//! What the parts of the feature store cost, and how each grows: with the features that are declared, with the
//! events of a customer, with the length of the history, with the customers that there are.

use std::{sync::Arc, time::Instant};

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use rapport_events::{CleanEvent, EventTime, Position, Tenant};
use rapport_features::{CustomerState, History, Vector, Views};
use rapport_integration_tests::{events::now_ms, harness::RedisServer};
use rapport_online::{Keys, Marked, OnlineArgs, OnlineReader, OnlineWriter, Write};

const TENANT: &str = "costs";
/// Runs of each measurement; the median counts.
const RUNS: usize = 9;
/// Repetitions in a run.
const TIMES: usize = 400;
const FEATURES: [usize; 3] = [10, 50, 250];
const EVENTS: [usize; 4] = [10, 100, 1_000, 10_000];
const HISTORIES: [usize; 4] = [10, 50, 100, 200];
const CUSTOMERS: [usize; 3] = [1_000, 10_000, 100_000];

pub async fn run() {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "grows with",
        "",
        "fold of an event, us",
        "state to bytes, us",
        "bytes to values, us",
        "bytes",
    ]);
    for features in FEATURES {
        let views = Arc::new(Views::parse(&views(features / 10)).unwrap());
        add(&mut table, "features", features, &views, 100);
    }
    let built_in = Arc::new(Views::built_in().unwrap());
    for events in EVENTS {
        add(&mut table, "events of the customer", events, &built_in, events);
    }
    right(&mut table);
    println!("\n{table}\n");

    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["history, items", "bytes to history, us", "bytes"]);
    for items in HISTORIES {
        let bytes = after(&built_in, items).history().to_bytes();
        let took = median(|| {
            assert_eq!(History::from_bytes(&bytes).unwrap().len(), items);
        });
        table.add_row([items.to_string(), format!("{took:.2}"), bytes.len().to_string()]);
    }
    right(&mut table);
    println!("{table}\n");

    let redis = Arc::new(RedisServer::start("bench-costs"));
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["customers in Redis", "read of one, us", "write of one, us"]);
    let prefix = "costs:";
    let mut writer = OnlineWriter::new(&OnlineArgs::at(redis.url(), prefix), None).unwrap();
    let reader = OnlineReader::new(&OnlineArgs::at(redis.url(), prefix)).unwrap();
    let (keys, tenant, state) = (Keys::new(prefix), Tenant::parse(TENANT).unwrap(), after(&built_in, 100));
    let write = |n: usize, offset: i64, expected: Option<Position>| {
        let fence = Position { partition: 0, offset };
        Write::customer(keys.customer(&tenant, &customer(n)), expected, fence, Marked::default(), &state)
    };
    let mut there = 0;
    for customers in CUSTOMERS {
        for chunk in (there..customers).collect::<Vec<_>>().chunks(1_000) {
            writer.write(&chunk.iter().map(|&n| write(n, 0, None)).collect::<Vec<_>>()).await.unwrap();
        }
        there = customers;
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for call in 0..4_000usize {
            let n = call.wrapping_mul(2_654_435_761) % customers;
            let began = Instant::now();
            assert!(reader.read_features(&tenant, &[customer(n)]).await.unwrap()[0].is_some());
            reads.push(began.elapsed().as_secs_f64() * 1e6);
            let (one, began) = ([write(n, 0, Some(Position { partition: 0, offset: 0 }))], Instant::now());
            writer.write(&one).await.unwrap();
            writes.push(began.elapsed().as_secs_f64() * 1e6);
        }
        table.add_row([customers.to_string(), format!("{:.0}", middle(reads)), format!("{:.0}", middle(writes))]);
    }
    right(&mut table);
    println!("{table}");
}

fn right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A row: what one of the customer's events costs to fold, and its state to write and to read.
fn add(table: &mut Table, grows: &str, size: usize, views: &Arc<Views>, events: usize) {
    let state = after(views, events);
    let (mut folded, mut n) = (state.clone(), events);
    let fold = median(|| {
        folded.apply(&event(n));
        n += 1;
    });
    let encode = median(|| {
        assert!(!state.features_to_bytes().is_empty());
    });
    let (features, now) = (state.features_to_bytes(), EventTime::from_ms(now_ms()));
    let (history, seen) = (state.history().to_bytes(), state.seen_to_bytes());
    let read = median(|| {
        assert!(!Vector::of_customer(views, &features, now).unwrap().values.is_empty());
    });
    let bytes = (features.len() + history.len() + seen.len()).to_string();
    table.add_row([
        grows.to_owned(),
        size.to_string(),
        format!("{fold:.2}"),
        format!("{encode:.2}"),
        format!("{read:.2}"),
        bytes,
    ]);
}

/// Microseconds of one repetition: the median of several runs, after one that does not count.
fn median(mut work: impl FnMut()) -> f64 {
    let runs = (0..=RUNS).map(|_| {
        let began = Instant::now();
        (0..TIMES).for_each(|_| work());
        began.elapsed().as_secs_f64() * 1e6 / TIMES as f64
    });
    middle(runs.skip(1).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// So many views of ten features, each over events of a type of its own.
fn views(views: usize) -> String {
    let view = |n: usize| {
        format!(
            "  - name: v{n}
    entity: customer
    where: {{ type: [kind{n}] }}
    features:
      - {{ name: count, aggregate: count, windows: [1d, 7d, 30d, lifetime] }}
      - {{ name: sum, aggregate: sum, windows: [7d, 30d, lifetime] }}
      - {{ name: most, aggregate: max, window: lifetime }}
      - {{ name: mean, aggregate: mean, window: lifetime }}
      - {{ name: last, aggregate: last, window: lifetime }}\n"
        )
    };
    format!("version: 1\nviews:\n{}", (0..views).map(view).collect::<String>())
}

fn customer(n: usize) -> String {
    format!("customer-{n:07}")
}

/// One event an hour, of every type in turn.
fn event(n: usize) -> CleanEvent {
    let mixed = n.wrapping_mul(2_654_435_761) >> 7;
    let time = EventTime::from_ms(1_700_000_000_000 + n as i64 * 3_600_000);
    CleanEvent {
        tenant: Tenant::parse(TENANT).unwrap(),
        event_id: format!("e-{n}"),
        kind: if n.is_multiple_of(3) { "purchase".into() } else { format!("kind{}", mixed % 25) },
        customer_id: customer(0),
        item_id: Some(format!("item-{}", mixed % 5_000)),
        category: Some(format!("category {}", mixed % 20)),
        session_id: Some(format!("visit {}", n / 10)),
        segment: None,
        time,
        received_at: time,
        value: Some((mixed % 10_000) as f64 / 100.0),
    }
}

fn after(views: &Arc<Views>, events: usize) -> CustomerState {
    let mut state = CustomerState::new(views);
    (0..events).for_each(|n| state.apply(&event(n)));
    state
}
