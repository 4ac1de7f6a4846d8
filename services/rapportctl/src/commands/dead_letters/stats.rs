use std::collections::BTreeMap;

use clap::Args;
use comfy_table::Cell;
use rapport_events::{EventTime, Position};
use rapport_proto::events::DeadLetter;
use serde_json::{Value, json};

use super::{Filter, Reading, failed_at, kind};
use crate::{
    account::place_text,
    blocking::on_thread,
    commands::right,
    context::Context,
    output::{self, Page, thousands},
    replay::Ledger,
};

/// Groups of one table. Fields are named by whoever sends events, so their number has no bound of
/// its own; what comes after these is counted together.
const GROUPS: usize = 1_000;
/// Rows that a person sees of each table, largest first.
const SHOWN: usize = 25;

#[derive(Debug, Args)]
pub struct Stats {
    #[command(flatten)]
    filter: Filter,
}

/// The letters of one group.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    count: u64,
    replayed: u64,
    first: EventTime,
    last: EventTime,
    /// The newest one, and its reason.
    example: Position,
    reason: String,
}

/// Groups by their key.
#[derive(Debug, Default)]
struct Table {
    groups: BTreeMap<Vec<String>, Group>,
    /// Letters of groups beyond [`GROUPS`].
    others: u64,
}

impl Table {
    fn add(&mut self, key: Vec<String>, at: Position, letter: &DeadLetter, replayed: bool) {
        let time = failed_at(letter);
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            self.others += 1;
            return;
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            count: 0,
            replayed: 0,
            first: time,
            last: time,
            example: at,
            reason: letter.reason.clone(),
        });
        group.count += 1;
        group.replayed += u64::from(replayed);
        group.first = group.first.min(time);
        if time >= group.last {
            (group.last, group.example) = (time, at);
            group.reason.clone_from(&letter.reason);
        }
    }

    fn largest_first(&self) -> Vec<(&Vec<String>, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        groups
    }

    fn json(&self, names: &[&str]) -> Value {
        let group = |(key, group): &(&Vec<String>, &Group)| {
            let mut out: serde_json::Map<String, Value> =
                names.iter().zip(key.iter()).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            out.extend([
                ("count".to_owned(), json!(group.count)),
                ("replayed".to_owned(), json!(group.replayed)),
                ("first".to_owned(), json!(group.first.to_string())),
                ("last".to_owned(), json!(group.last.to_string())),
                ("example".to_owned(), json!(place_text(group.example))),
                ("reason".to_owned(), json!(group.reason)),
            ]);
            Value::Object(out)
        };
        self.largest_first().iter().map(group).collect()
    }
}

/// The three tables.
#[derive(Debug, Default)]
struct Tables {
    all: u64,
    replayed: u64,
    by_kind: Table,
    by_stage: Table,
    by_field: Table,
}

impl Tables {
    fn add(&mut self, at: Position, letter: &DeadLetter, replayed: bool) {
        self.all += 1;
        self.replayed += u64::from(replayed);
        self.by_kind.add(vec![letter.tenant.clone(), kind(letter)], at, letter, replayed);
        self.by_stage.add(vec![letter.stage.clone()], at, letter, replayed);
        self.by_field.add(vec![letter.field.clone(), letter.rule.clone()], at, letter, replayed);
    }

    fn show(&self, page: &mut Page) {
        let times = |group: &Group| [Cell::new(output::moment(group.first)), Cell::new(output::moment(group.last))];
        let counts = |group: &Group| [right(thousands(group.count)), right(thousands(group.replayed))];

        let mut table = output::table(["tenant", "kind", "letters", "replayed", "first", "last"]);
        for (key, group) in self.by_kind.largest_first().into_iter().take(SHOWN) {
            table.add_row(key.iter().map(Cell::new).chain(counts(group)).chain(times(group)));
        }
        page.table(&table);
        let mut table = output::table(["step", "letters", "replayed", "first", "last"]);
        for (key, group) in self.by_stage.largest_first().into_iter().take(SHOWN) {
            table.add_row(key.iter().map(Cell::new).chain(counts(group)).chain(times(group)));
        }
        page.table(&table);
        let mut table = output::table(["field", "rule", "letters", "replayed", "example", "its reason"]);
        for (key, group) in self.by_field.largest_first().into_iter().take(SHOWN) {
            let example = [Cell::new(place_text(group.example)), Cell::new(&group.reason)];
            table.add_row(key.iter().map(Cell::new).chain(counts(group)).chain(example));
        }
        output::keep_whole(&mut table, &[2, 3, 4]);
        page.table(&table);
        let rows = self.by_field.groups.len();
        if rows > SHOWN {
            page.line(format!("the {SHOWN} largest of {rows} groups; all: --json"));
        }
        page.line(format!(
            "{} dead letters, {} of them replayed; one whole: rapportctl dead-letters show EXAMPLE",
            thousands(self.all),
            thousands(self.replayed)
        ));
    }
}

impl Stats {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let conditions = self.filter.settle(context.only_tenant.as_ref(), EventTime::now());
        let kafka = context.kafka.clone();
        let (tables, remark) = on_thread("dead-letters", move || {
            let ledger = Ledger::read(&kafka)?;
            let mut tables = Tables::default();
            let mut reading = Reading::open(&kafka)?;
            reading.taken(&conditions, |at, letter| {
                tables.add(at, &letter, ledger.of(at, failed_at(&letter)).is_some());
                Ok(())
            })?;
            Ok((tables, reading.remark()))
        })
        .await?;
        context.output.answer(
            || {
                json!({
                    "letters": tables.all, "replayed": tables.replayed,
                    "by_kind": tables.by_kind.json(&["tenant", "kind"]),
                    "by_stage": tables.by_stage.json(&["stage"]),
                    "by_field": tables.by_field.json(&["field", "rule"]),
                    "beyond_the_largest_groups": tables.by_field.others,
                })
            },
            |page| {
                if tables.all == 0 {
                    page.line(if self.filter.is_empty() { "there are none" } else { "there are none like that" });
                } else {
                    tables.show(page);
                }
            },
        );
        if let Some(remark) = remark {
            context.output.remark(remark);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(field: &str, at_ms: i64) -> DeadLetter {
        DeadLetter {
            field: field.into(),
            reason: format!("seen at {at_ms}"),
            failed_at: Some(EventTime::from_ms(at_ms).to_proto()),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn a_group_knows_its_first_its_last_and_the_newest_example() {
        let mut tables = Tables::default();
        for (offset, at_ms) in [(0, 20), (1, 10), (2, 30)] {
            tables.add(Position { partition: 0, offset }, &letter("value", at_ms), offset == 1);
        }
        let json = tables.by_field.json(&["field", "rule"]);
        assert_eq!((json[0]["count"].as_u64(), json[0]["replayed"].as_u64()), (Some(3), Some(1)));
        assert_eq!((json[0]["example"].as_str(), json[0]["reason"].as_str()), (Some("0:2"), Some("seen at 30")));
        assert_eq!(json[0]["first"], EventTime::from_ms(10).to_string());
    }

    #[test]
    fn fields_without_end_do_not_fill_memory() {
        let mut tables = Tables::default();
        for n in 0..(GROUPS + 50) {
            tables.add(Position { partition: 0, offset: 0 }, &letter(&format!("properties.{n}"), 1), false);
        }
        assert_eq!((tables.by_field.groups.len(), tables.by_field.others), (GROUPS, 50));
        assert_eq!(tables.all as usize, GROUPS + 50);
    }
}
