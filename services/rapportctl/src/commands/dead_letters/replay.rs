use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use comfy_table::Cell;
use rapport_events::{EventTime, Position};
use rapport_kafka::KafkaArgs;
use rapport_proto::events::DeadLetter;
use serde_json::{Value, json};

use super::{Filter, Reading, failed_at, filter::Settled, kind, place};
use crate::{
    account::{self, parse_position, place_text},
    blocking::on_thread,
    commands::account::CleanerWait,
    context::Context,
    error::Usage,
    original,
    output::{self, Page, Progress, thousands},
    replay::{Kin, Ledger, Plan, REPLAY_OF, Replayer, Seen},
    scan::Offsets,
};

pub const AFTER_HELP: &str = "\
Fix the cause first: change the policy, upgrade the cleaner, raise the limit. Each letter's record goes to the raw \
topic as it was (key, value, headers) with the header rapport-replay-of, in one Kafka transaction with a line in the \
ledger (topic events.dead.replays.v1): a crash neither loses nor doubles, and a second run sends nothing twice. A \
replay that fails again is a new dead letter, which stands for the old one. Two replays at once: the later one takes \
over. The exit code is 1 when something was not sent or came back.

  rapportctl dead-letters replay --rule plan:purchase --since 2h --dry-run
  rapportctl dead-letters replay --rule plan:purchase --since 2h --rate 500
  rapportctl dead-letters replay 3:17 3:18";

/// Letters of one transaction.
const BATCH: usize = 500;
/// Bytes of originals in one transaction: what this program holds in memory.
const BATCH_BYTES: usize = 8 << 20;
/// Letters that a dry run shows.
const SHOWN: usize = 20;
/// Entries of the ledger that one run removes, of letters that the dead topic no longer has.
const OUTLIVED: usize = 10_000;

#[derive(Debug, Args)]
pub struct Replay {
    /// Which ones, as partition:offset (the first column of `list`)
    #[arg(value_parser = place, conflicts_with_all = ["kind", "stage", "field", "rule", "event_type", "since", "until", "partition", "contains"])]
    at: Vec<Position>,
    /// Every dead letter that was not replayed yet
    #[arg(long)]
    all: bool,
    /// Say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// At most this many a second [default: as fast as Kafka takes them]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// At most this many in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Letters whose replay failed again: send their newest failure, whatever the filters say of it
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    waiting: CleanerWait,
}

/// Which letters are meant, where they are not filtered.
#[derive(Debug, Clone)]
struct Request {
    ids: BTreeSet<Position>,
    conditions: Settled,
    again: bool,
    limit: u64,
    rate: Option<u32>,
}

impl Request {
    fn means(&self, at: Position, letter: &DeadLetter) -> bool {
        if self.ids.is_empty() { self.conditions.takes(at.partition, letter) } else { self.ids.contains(&at) }
    }
}

/// What was sent and what the cleaner made of it.
#[derive(Debug, Default)]
struct Done {
    sent: BTreeMap<Position, Position>,
    refused: Vec<(Position, &'static str)>,
    /// What ended it before its end.
    broken: Option<String>,
    /// Failed replays: the old letter, the new one and why.
    came_back: Vec<(Position, Position, String)>,
    /// The cleaner has judged all of them.
    judged: bool,
    took: Duration,
}

impl Replay {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let narrowed = context.only_tenant.is_some() || !self.filter.is_empty();
        if self.at.is_empty() && !narrowed && !self.all {
            return Err(Usage(
                "nothing is chosen: give places (partition:offset), conditions such as --rule or --since, or --all"
                    .to_owned(),
            )
            .into());
        }
        let request = Request {
            ids: self.at.iter().copied().collect(),
            conditions: self.filter.settle(context.only_tenant.as_ref(), EventTime::now()),
            again: self.again,
            limit: self.limit.unwrap_or(u64::MAX),
            rate: self.rate,
        };
        let kafka = context.kafka.clone();
        if self.dry_run {
            let (plan, shown) = on_thread("dead-letters", move || dry_run(&kafka, &request)).await?;
            report_dry(context, &plan, &shown);
            return Ok(());
        }
        context.ensure_topics().await?;
        let waiting = self.waiting;
        let (plan, done) = on_thread("replay", move || replay(&kafka, &request, &waiting)).await?;
        report(context, &plan, &done);
        verdict(&plan, &done)
    }
}

/// Everything that a plan is made of.
fn plan(kafka: &KafkaArgs, request: &Request) -> anyhow::Result<(Plan, Ledger, Offsets)> {
    let ledger = Ledger::read(kafka)?;
    let mut reading = Reading::open(kafka)?;
    let ends = reading.scan.ends(&reading.topic)?;
    let mut seen = Seen::default();
    reading.all(&Offsets::new(), &ends, |at, letter| {
        seen.letter(at, &letter, request.means(at, &letter));
        Ok(())
    })?;
    Ok((Plan::make(&seen, &ledger, &request.ids, request.again, request.limit), ledger, ends))
}

fn dry_run(kafka: &KafkaArgs, request: &Request) -> anyhow::Result<(Plan, Vec<(Position, DeadLetter)>)> {
    let (plan, _, ends) = plan(kafka, request)?;
    let mut reading = Reading::open(kafka)?;
    let (from, until) = plan.ranges(&ends);
    let mut shown = Vec::new();
    reading.all(&from, &until, |at, letter| {
        if plan.send.contains(&at) && shown.len() < SHOWN {
            shown.push((at, letter));
        }
        Ok(())
    })?;
    Ok((plan, shown))
}

/// Reads the letters a second time and sends them, batch by batch.
fn replay(kafka: &KafkaArgs, request: &Request, waiting: &CleanerWait) -> anyhow::Result<(Plan, Done)> {
    // The transactional id comes first: from here on, nobody else adds to the ledger.
    let replayer = Replayer::open(kafka)?;
    let (plan, ledger, ends) = plan(kafka, request)?;
    let mut done = Done::default();
    if plan.send.is_empty() {
        done.judged = true;
        return Ok((plan, done));
    }
    let mut reading = Reading::open(kafka)?;
    let bounds = reading.scan.bounds(&reading.topic)?;
    let mut outlived = ledger.outlived(&bounds.iter().map(|(partition, (low, _))| (*partition, *low)).collect());
    outlived.truncate(OUTLIVED);

    let total = plan.send.len() as u64;
    let progress = Progress::start("replay", total, "letters");
    let started = Instant::now();
    let batch_size = batch_size(request.rate);
    let mut batch: Vec<(Position, DeadLetter)> = Vec::new();
    let mut bytes = 0;
    let mut send = |batch: &mut Vec<(Position, DeadLetter)>, done: &mut Done| -> anyhow::Result<()> {
        let sent = replayer.send(batch, &std::mem::take(&mut outlived), EventTime::now())?;
        batch.clear();
        for outcome in sent {
            match outcome.raw {
                Ok(raw) => {
                    done.sent.insert(outcome.letter, raw);
                }
                Err(why) => done.refused.push((outcome.letter, why)),
            }
        }
        progress.at(done.sent.len() as u64);
        if let Some(due) = due(request.rate, done.sent.len() as u64) {
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        Ok(())
    };
    let (from, until) = plan.ranges(&ends);
    let result = reading.all(&from, &until, |at, letter| {
        if plan.send.contains(&at) {
            bytes += letter.original_value.len();
            batch.push((at, letter));
            if batch.len() >= batch_size || bytes >= BATCH_BYTES {
                bytes = 0;
                send(&mut batch, &mut done)?;
            }
        }
        Ok(())
    });
    let result = result.and_then(|()| if batch.is_empty() { Ok(()) } else { send(&mut batch, &mut done) });
    done.broken = result.err().map(|error| format!("{error:#}"));
    done.took = started.elapsed();
    progress.finish(done.sent.len() as u64);
    if !waiting.no_wait && done.broken.is_none() {
        done.broken = follow(kafka, waiting, &ends, &mut done).err().map(|error| format!("{error:#}"));
    }
    Ok((plan, done))
}

/// Waits until the cleaner has judged what was sent, and reads what came back.
fn follow(kafka: &KafkaArgs, waiting: &CleanerWait, dead_ends: &Offsets, done: &mut Done) -> anyhow::Result<()> {
    let mut wanted = Offsets::new();
    for raw in done.sent.values() {
        let end = wanted.entry(raw.partition).or_default();
        *end = (*end).max(raw.offset + 1);
    }
    account::wait_for_group(kafka, &waiting.cleaner_group, &kafka.topics().raw, &wanted, waiting.patience)?;
    let mut reading = Reading::open(kafka)?;
    let ends = reading.scan.ends(&reading.topic)?;
    reading.all(dead_ends, &ends, |at, letter| {
        let parent = original::header(&letter, REPLAY_OF).and_then(parse_position);
        let raw = letter.source.as_ref().map(|at| Position { partition: at.partition, offset: at.offset });
        if let (Some(parent), Some(raw)) = (parent, raw)
            && done.sent.get(&parent) == Some(&raw)
        {
            let field = if letter.field.is_empty() { String::new() } else { format!("{}: ", letter.field) };
            done.came_back.push((parent, Kin::of(at, &letter).at, format!("{field}{}", letter.reason)));
        }
        Ok(())
    })?;
    done.judged = true;
    Ok(())
}

/// Small enough that the rate is smooth, large enough that transactions are few.
fn batch_size(rate: Option<u32>) -> usize {
    let Some(rate) = rate else { return BATCH };
    usize::try_from(rate / 4).unwrap_or(BATCH).clamp(1, BATCH)
}

/// How long `sent` letters take at this rate.
fn due(rate: Option<u32>, sent: u64) -> Option<Duration> {
    let ms = sent.saturating_mul(1000) / u64::from(rate?.max(1));
    Some(Duration::from_millis(ms))
}

fn report_dry(context: &Context, plan: &Plan, shown: &[(Position, DeadLetter)]) {
    context.output.answer(
        || {
            let mut json = plan.json();
            let send: Vec<String> = plan.send.iter().map(|&at| place_text(at)).collect();
            json.insert("would_send".to_owned(), json!(send));
            Value::Object(json)
        },
        |page| {
            if !shown.is_empty() {
                let mut table = output::table(["at", "when", "tenant", "kind", "type", "field", "reason"]);
                for (at, letter) in shown {
                    table.add_row(vec![
                        Cell::new(place_text(*at)),
                        Cell::new(output::moment(failed_at(letter))),
                        Cell::new(&letter.tenant),
                        Cell::new(kind(letter)),
                        Cell::new(original::event_type(letter).unwrap_or_default()),
                        Cell::new(&letter.field),
                        Cell::new(&letter.reason),
                    ]);
                }
                output::keep_whole(&mut table, &[0, 3]);
                page.table(&table);
                if plan.send.len() > shown.len() {
                    page.line(format!("the first {} of them", shown.len()));
                }
            }
            page.line(format!(
                "{} of {} letters would be sent; nothing was",
                thousands(plan.send.len() as u64),
                thousands(plan.meant)
            ));
            for remark in plan.remarks() {
                page.line(remark);
            }
        },
    );
}

fn report(context: &Context, plan: &Plan, done: &Done) {
    let sent = done.sent.len() as u64;
    context.output.answer(
        || {
            let mut json = plan.json();
            let refused = done.refused.iter().map(|(at, why)| json!({ "at": place_text(*at), "reason": why }));
            let back = done.came_back.iter().map(
                |(old, new, why)| json!({ "at": place_text(*old), "came_back_as": place_text(*new), "reason": why }),
            );
            json.insert("sent".to_owned(), json!(sent));
            json.insert("seconds".to_owned(), json!(done.took.as_secs_f64()));
            json.insert("not_sent".to_owned(), refused.collect());
            json.insert("judged".to_owned(), json!(done.judged));
            json.insert("came_back".to_owned(), back.collect());
            json.insert("ended_by".to_owned(), json!(done.broken));
            Value::Object(json)
        },
        |page| people(page, plan, done, sent),
    );
}

fn people(page: &mut Page, plan: &Plan, done: &Done, sent: u64) {
    page.line(format!("{} of {} letters were sent", thousands(sent), thousands(plan.meant)));
    for (at, why) in done.refused.iter().take(5) {
        page.line(format!("not sent: {}: {why}", place_text(*at)));
    }
    for remark in plan.remarks() {
        page.line(remark);
    }
    if sent == 0 {
        return;
    }
    if !done.judged {
        page.line("the cleaner has not been waited for; rapportctl account tells what came of them");
        return;
    }
    let back = done.came_back.len() as u64;
    page.line(format!(
        "the cleaner passed {} of them; {} came back",
        thousands(sent - back.min(sent)),
        thousands(back)
    ));
    for (old, new, why) in done.came_back.iter().take(5) {
        page.line(format!("{} came back as {}: {why}", place_text(*old), place_text(*new)));
    }
}

/// # Errors
/// What was meant and not sent, or came back.
fn verdict(plan: &Plan, done: &Done) -> anyhow::Result<()> {
    if let Some(broken) = &done.broken {
        bail!("{broken} ({} letters were sent before that)", thousands(done.sent.len() as u64));
    }
    if !done.came_back.is_empty() {
        bail!("came back: {} of {}; their cause is not fixed", done.came_back.len(), done.sent.len());
    }
    let not_sent = done.refused.len() + plan.withheld.len() + plan.missing.len();
    if not_sent > 0 {
        bail!("could not be sent: {not_sent} of {}", plan.meant.max(not_sent as u64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        replay: Replay,
    }

    #[test]
    fn places_and_conditions_exclude_each_other() {
        assert!(Line::try_parse_from(["x", "0:1", "1:2", "--dry-run"]).is_ok());
        assert!(Line::try_parse_from(["x", "0:1", "--rule", "plan"]).is_err());
    }

    #[test]
    fn a_rate_is_kept_in_small_steps() {
        assert_eq!(
            [batch_size(None), batch_size(Some(1)), batch_size(Some(100)), batch_size(Some(1_000_000))],
            [BATCH, 1, 25, BATCH]
        );
        assert_eq!(due(Some(50), 100), Some(Duration::from_secs(2)));
        assert_eq!(due(None, 100), None);
    }
}
