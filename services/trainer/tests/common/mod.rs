//! What the tests share: real data where it is, small made-up data where not.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests

use std::{path::PathBuf, time::Duration};

use rapport_events::{CleanEvent, EventTime, LoggedEvent, Position, Tenant};
use rapport_trainer::{
    Compression,
    dataset::{Limits, Memory},
    run::{self, Plan},
};

/// A file of a data set: under `RAPPORT_DATA` (the development set-up's cache) or
/// `RAPPORT_SHARED_DATA`. `None`, with a message, when it is in neither.
pub fn data_file(name: &str) -> Option<PathBuf> {
    let found = ["RAPPORT_DATA", "RAPPORT_SHARED_DATA"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(|root| PathBuf::from(root).join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is neither under RAPPORT_DATA nor under RAPPORT_SHARED_DATA");
    }
    found
}

/// An event as the log holds it.
pub fn event(customer: &str, item: &str, time_ms: i64, offset: i64) -> LoggedEvent {
    let time = EventTime::from_ms(time_ms);
    LoggedEvent {
        position: Position { partition: 0, offset },
        event: CleanEvent {
            tenant: Tenant::parse("demo").unwrap(),
            event_id: format!("e{offset}"),
            kind: "rating".into(),
            customer_id: customer.into(),
            item_id: Some(item.into()),
            category: None,
            session_id: None,
            segment: None,
            time,
            received_at: time,
            value: Some(4.0),
        },
    }
}

/// MovieLens 100K as events, in the order of its file.
#[allow(dead_code)] // not every test binary uses it
pub fn movielens_100k() -> Option<Vec<LoggedEvent>> {
    let text = std::fs::read_to_string(data_file("ml-100k/ml-100k.inter")?).unwrap();
    let events = text.lines().skip(1).enumerate().map(|(offset, line)| {
        let fields: Vec<&str> = line.split('\t').collect();
        let seconds: f64 = fields[3].parse().unwrap();
        let mut logged = event(fields[0], fields[1], seconds as i64 * 1000, offset as i64);
        logged.event.value = Some(fields[2].parse().unwrap());
        logged
    });
    Some(events.collect())
}

/// Customers who walk along two circles of about 50 items in turn, a step here and a step there: what
/// comes next follows from the item before the last, which a first-order chain cannot see. At most
/// 100 steps, so that nobody comes by the same item twice.
#[allow(dead_code)]
pub fn walks(customers: i64, steps: i64) -> Vec<LoggedEvent> {
    let mut events = Vec::new();
    for step in 0..steps {
        for customer in 0..customers {
            let turn = step % 2;
            let circle = customer % 2 * 2 + turn;
            let item = format!("{circle}-{}", (customer * (7 + 4 * turn) + step / 2) % (50 + circle));
            let offset = events.len() as i64;
            events.push(event(&customer.to_string(), &item, (step * customers + customer) * 60_000, offset));
        }
    }
    events
}

/// A run of these recipes on the log of the tenant `demo`, that makes nothing live.
#[allow(dead_code)]
pub fn plan(recipes: Vec<serde_json::Value>) -> Plan {
    Plan {
        tenant: Tenant::parse("demo").unwrap(),
        model: "next-item".into(),
        recipes,
        budget: Duration::from_secs(120),
        compress: Compression::Off,
        min_cases: 30,
        limits: Limits { events: 1_000_000, items: 20_000 },
        memory: Memory::default(),
        since: None,
        event_types: Vec::new(),
        asked: None,
        dry_run: true,
        because: String::new(),
        checkpoints: None,
        checkpoint_every: run::CHECKPOINT_EVERY,
    }
}
