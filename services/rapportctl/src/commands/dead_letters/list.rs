use std::collections::BTreeMap;

use clap::Args;
use comfy_table::Cell;
use rapport_events::{EventTime, Position};
use rapport_proto::events::DeadLetter;
use serde_json::Value;

use super::{Filter, Reading, failed_at, kind, show};
use crate::{
    account::place_text,
    blocking::on_thread,
    context::Context,
    output::{self, thousands},
};

/// As many fit into memory with originals of a MiB.
const MOST: u64 = 1_000;

#[derive(Debug, Args)]
pub struct List {
    /// How many
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=MOST))]
    limit: u64,
    #[command(flatten)]
    filter: Filter,
}

/// Keeps the newest letters.
struct Newest {
    limit: usize,
    kept: BTreeMap<(EventTime, Position), DeadLetter>,
    all: u64,
}

impl Newest {
    fn new(limit: usize) -> Self {
        Self { limit, kept: BTreeMap::new(), all: 0 }
    }

    fn add(&mut self, at: Position, letter: DeadLetter) {
        self.all += 1;
        self.kept.insert((failed_at(&letter), at), letter);
        if self.kept.len() > self.limit {
            self.kept.pop_first();
        }
    }

    fn newest_first(&self) -> impl Iterator<Item = (Position, &DeadLetter)> {
        self.kept.iter().rev().map(|((_, at), letter)| (*at, letter))
    }
}

impl List {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let conditions = self.filter.settle(context.only_tenant.as_ref(), EventTime::now());
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let kafka = context.kafka.clone();
        let (newest, remark) = on_thread("dead-letters", move || {
            let mut newest = Newest::new(limit);
            let mut reading = Reading::open(&kafka)?;
            reading.taken(&conditions, |at, letter| {
                newest.add(at, letter);
                Ok(())
            })?;
            Ok((newest, reading.remark()))
        })
        .await?;
        context.output.answer(
            || newest.newest_first().map(|(at, letter)| show::letter_json(at, letter)).collect::<Value>(),
            |page| {
                if newest.all == 0 {
                    page.line(if self.filter.is_empty() { "there are none" } else { "there are none like that" });
                    return;
                }
                let mut table = output::table(["at", "when", "tenant", "kind", "field", "reason"]);
                for (at, letter) in newest.newest_first() {
                    table.add_row(vec![
                        Cell::new(place_text(at)),
                        Cell::new(output::moment(failed_at(letter))),
                        Cell::new(&letter.tenant),
                        Cell::new(kind(letter)),
                        Cell::new(&letter.field),
                        Cell::new(&letter.reason),
                    ]);
                }
                output::keep_whole(&mut table, &[0, 3]);
                page.table(&table);
                page.line(format!(
                    "{} of {}, newest first; one whole: rapportctl dead-letters show AT",
                    newest.kept.len(),
                    thousands(newest.all)
                ));
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

    #[test]
    fn only_the_newest_are_kept_however_many_there_are() {
        let mut newest = Newest::new(3);
        for offset in [5, 1, 9, 7, 3] {
            let letter = DeadLetter { failed_at: Some(EventTime::from_ms(offset).to_proto()), ..DeadLetter::default() };
            newest.add(Position { partition: 0, offset }, letter);
        }
        let kept: Vec<i64> = newest.newest_first().map(|(at, _)| at.offset).collect();
        assert_eq!((kept, newest.all), (vec![9, 7, 5], 5));
    }
}
