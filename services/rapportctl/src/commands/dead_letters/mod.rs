//! What the cleaner (or a door) refused: look at it, count it, send it again.

mod filter;
mod hint;
mod list;
mod replay;
mod show;
mod stats;

use clap::Subcommand;
use prost::Message as _;
use rapport_events::{EventTime, Position};
use rapport_kafka::KafkaArgs;
use rapport_proto::events::{Coordinates, DeadLetter};
use rdkafka::Message as _;

use self::filter::{Filter, Settled};
use crate::{
    account::{parse_position, place_text},
    context::Context,
    scan::{Isolation, Offsets, Scan},
};

/// A record's own stamp may be this much older than the letter's inside.
const STAMP_SLACK_MS: i64 = 5 * 60 * 1000;

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// How many, by kind, step and field, with an example of each
    Stats(stats::Stats),
    /// The newest ones, with their reasons
    List(list::List),
    /// One of them whole: reason, what to do, headers, original
    Show(show::Show),
    /// Send them again once their cause is fixed, each once
    #[command(after_help = replay::AFTER_HELP)]
    Replay(replay::Replay),
}

impl DeadLetters {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Stats(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::Replay(command) => command.run(context).await,
        }
    }
}

/// Where a letter stands, as people type it.
fn place(text: &str) -> Result<Position, String> {
    parse_position(text).ok_or_else(|| format!("{text:?} is not partition:offset, for example 0:12"))
}

/// Reads letters one by one, so that memory does not grow with the topic.
struct Reading {
    scan: Scan,
    topic: String,
    /// Records that are no letters: passed over, and told.
    strange: u64,
}

impl Reading {
    fn open(kafka: &KafkaArgs) -> anyhow::Result<Self> {
        Ok(Self { scan: Scan::open(kafka, Isolation::Committed)?, topic: kafka.topics().dead, strange: 0 })
    }

    /// Hands every letter that the conditions take to `each`. Letters before `since` are not read.
    fn taken(
        &mut self,
        conditions: &Settled,
        mut each: impl FnMut(Position, DeadLetter) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut from = match conditions.since {
            Some(since) => self.scan.offsets_at(&self.topic, since.as_ms().saturating_sub(STAMP_SLACK_MS).max(0))?,
            None => Offsets::new(),
        };
        let ends = self.scan.ends(&self.topic)?;
        from.extend(ends.iter().filter(|(partition, _)| !conditions.takes_partition(**partition)));
        self.all(
            &from,
            &ends,
            |at, letter| {
                if conditions.takes(at.partition, &letter) { each(at, letter) } else { Ok(()) }
            },
        )
    }

    /// Hands every letter between the offsets to `each`.
    fn all(
        &mut self,
        from: &Offsets,
        until: &Offsets,
        mut each: impl FnMut(Position, DeadLetter) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let strange = &mut self.strange;
        self.scan.read(&self.topic, from, until, |record| {
            match DeadLetter::decode(record.payload().unwrap_or_default()) {
                Ok(letter) => each(Position { partition: record.partition(), offset: record.offset() }, letter),
                Err(_) => {
                    *strange += 1;
                    Ok(())
                }
            }
        })
    }

    /// What to tell of records that are no letters.
    fn remark(&self) -> Option<String> {
        (self.strange > 0)
            .then(|| format!("passed over {} records of {} that are no dead letters", self.strange, self.topic))
    }
}

fn failed_at(letter: &DeadLetter) -> EventTime {
    letter.failed_at.as_ref().and_then(EventTime::from_proto).unwrap_or_default()
}

fn kind(letter: &DeadLetter) -> String {
    letter.kind().as_str_name().trim_start_matches("KIND_").to_lowercase()
}

/// The rule with its version, as far as there is one.
fn rule(letter: &DeadLetter) -> String {
    match (letter.rule.as_str(), letter.rule_version.as_str()) {
        (rule, "") => rule.to_owned(),
        ("", version) => format!("version {version}"),
        (rule, version) => format!("{rule}, version {version}"),
    }
}

fn source(letter: &DeadLetter) -> String {
    let place = |at: &Coordinates| {
        format!("{} {}", at.topic, place_text(Position { partition: at.partition, offset: at.offset }))
    };
    letter.source.as_ref().map_or("none: it was refused at the door".to_owned(), place)
}
