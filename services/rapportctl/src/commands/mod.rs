//! One file for each command.

pub mod account;
pub mod consent;
pub mod dead_letters;
pub mod evaluate;
pub mod experiments;
pub mod explain;
pub mod export;
pub mod features;
pub mod history;
pub mod import;
pub mod keys;
pub mod models;
pub mod offline;
pub mod placements;
pub mod policy;
pub mod predict;
pub mod rank;
pub mod recommend;
pub mod send;
pub mod similar;
pub mod simulate;
pub mod topics;
pub mod train;
pub mod watch_change;

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table};
use rapport_events::EventTime;
use rapport_proto::recommend::{Provenance, ScoredItem, provenance::Cache};
use serde_json::{Value, json};

use crate::output::{self, Page};

/// Items in their order, for people.
fn items_table(items: &[ScoredItem]) -> Table {
    let mut table = output::table(["#", "item", "title", "categories", "score", "from"]);
    for (rank, item) in (1..).zip(items) {
        table.add_row(vec![
            right(rank),
            Cell::new(&item.item_id),
            Cell::new(&item.title),
            Cell::new(item.categories.join(", ")),
            right(format!("{:.4}", item.score)),
            Cell::new(item.sources.join("+")),
        ]);
    }
    table
}

/// A list and how it came about.
fn show_list(page: &mut Page, items: &[ScoredItem], provenance: Option<&Provenance>, when_empty: &str) {
    if items.is_empty() {
        page.line(when_empty);
    } else {
        page.table(&items_table(items));
    }
    page.line(provenance_line(provenance));
}

/// A cell with a number.
fn right(content: impl ToString) -> Cell {
    Cell::new(content).set_alignment(CellAlignment::Right)
}

fn items_json(items: &[ScoredItem]) -> Value {
    let item = |item: &ScoredItem| {
        json!({
            "item_id": item.item_id, "score": item.score, "sources": item.sources,
            "title": item.title, "categories": item.categories,
        })
    };
    items.iter().map(item).collect()
}

fn provenance_json(provenance: Option<&Provenance>) -> Value {
    let Some(p) = provenance else { return Value::Null };
    json!({
        "request_id": p.request_id, "model": p.model, "model_version": p.model_version, "model_epoch": p.model_epoch,
        "newest_event_time": time_text(p.newest_event_time.as_ref()),
        "age_s": age(p).map(|age| age.as_secs_f64()),
        "list_version": p.list_version, "customer_version": p.customer_version,
        "cache": cache_text(p), "degraded": p.degraded,
        "placement": p.placement, "experiment": p.experiment, "arm": p.arm,
    })
}

/// How an answer came about, in one line: the model, how fresh it is, and what was missing.
fn provenance_line(provenance: Option<&Provenance>) -> String {
    let Some(p) = provenance else { return "the answer does not say how it came about".to_owned() };
    let model = if p.model_version.is_empty() {
        "no model".to_owned()
    } else {
        format!("{} {} (epoch {})", p.model, p.model_version, p.model_epoch)
    };
    let events = match (p.list_version, p.customer_version) {
        (0, 0) => "a stranger's list".to_owned(),
        (list, known) if list >= known => format!("all {known} events reflected"),
        (list, known) => format!("{list} of {known} events reflected"),
    };
    let newest = match (time_text(p.newest_event_time.as_ref()), age(p)) {
        (Some(time), Some(age)) => format!("; the newest is of {time}, {} ago", output::human(age)),
        (Some(time), None) => format!("; the newest is of {time}"),
        (None, _) => String::new(),
    };
    let degraded =
        if p.degraded.is_empty() { String::new() } else { format!("; DEGRADED: {} missing", p.degraded.join(", ")) };
    let placement = match (p.placement.as_str(), p.experiment.as_str()) {
        ("", _) => String::new(),
        (placement, "") => format!("; arranged for {placement}"),
        (placement, experiment) => format!("; arranged for {placement}, arm {} of {experiment}", p.arm),
    };
    format!("{model}; {events}{newest}; {}{placement}{degraded}", cache_text(p))
}

fn cache_text(provenance: &Provenance) -> &'static str {
    match provenance.cache() {
        Cache::Hit => "from the cache",
        Cache::Stale => "from the cache, being refreshed",
        Cache::Miss => "made for this call",
        Cache::Unspecified => "cache unknown",
    }
}

fn age(provenance: &Provenance) -> Option<Duration> {
    provenance.age.and_then(|age| Duration::try_from(age).ok())
}

fn time_text(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.and_then(EventTime::from_proto).map(|time| time.to_string())
}

/// A number for people: whole where it is whole.
fn number(value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_fresh_it_is_and_what_was_missing() {
        let provenance = Provenance {
            model: "next-item".into(),
            model_version: "v1".into(),
            model_epoch: 3,
            newest_event_time: Some(EventTime::from_ms(874_724_710_000).to_proto()),
            age: Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }),
            list_version: 4,
            customer_version: 6,
            cache: Cache::Stale.into(),
            degraded: vec!["catalog".into()],
            placement: "home".into(),
            experiment: "varied".into(),
            arm: "b".into(),
            ..Provenance::default()
        };
        let line = provenance_line(Some(&provenance));
        for part in [
            "next-item v1 (epoch 3)",
            "4 of 6 events",
            "2.50 s ago",
            "being refreshed",
            "catalog missing",
            "for home, arm b of varied",
        ] {
            assert!(line.contains(part), "{line} lacks {part}");
        }
        assert_eq!(provenance_json(Some(&provenance))["age_s"], 2.5);
    }

    #[test]
    fn numbers_are_whole_where_they_are() {
        assert_eq!([number(3.0), number(0.12345), number(f64::NAN)], ["3", "0.1235", "-"]);
    }
}
