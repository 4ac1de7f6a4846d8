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
    replay::{Decision, Kin, Ledger, REPLAY_OF, Replayer, Seen},
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

/// What is to be sent, and what came of the rest.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    meant: u64,
    send: BTreeSet<Position>,
    /// Sent before; they passed or are on their way.
    replayed: Vec<Position>,
    /// Sent before, failed again, and the new letter stands for them.
    failed_again: Vec<(Position, Position)>,
    withheld: Vec<Position>,
    /// Left for another run by `--limit`.
    beyond_limit: u64,
    /// Ids that the topic does not have.
    missing: Vec<Position>,
}

impl Plan {
    fn make(request: &Request, seen: &Seen, ledger: &Ledger) -> Self {
        let mut plan = Self { meant: seen.meant.len() as u64, ..Self::default() };
        for &kin in &seen.meant {
            match seen.decide(kin, ledger, request.again) {
                Decision::Send(at) if plan.send.contains(&at) => {}
                Decision::Send(_) if plan.send.len() as u64 >= request.limit => plan.beyond_limit += 1,
                Decision::Send(at) => {
                    plan.send.insert(at);
                }
                Decision::Replayed => plan.replayed.push(kin.at),
                Decision::FailedAgainAs(newer) => plan.failed_again.push((kin.at, newer)),
                Decision::Withheld(at) => plan.withheld.push(at),
            }
        }
        let found: BTreeSet<Position> = seen.meant.iter().map(|kin| kin.at).collect();
        plan.missing = request.ids.difference(&found).copied().collect();
        plan
    }

    /// Where to read: from the first to after the last that is sent, partition by partition.
    fn ranges(&self, ends: &Offsets) -> (Offsets, Offsets) {
        let (mut from, mut until) = (ends.clone(), ends.clone());
        for at in self.send.iter().rev() {
            from.insert(at.partition, at.offset);
        }
        for at in &self.send {
            until.insert(at.partition, at.offset + 1);
        }
        (from, until)
    }

    fn remarks(&self) -> Vec<String> {
        let few = |places: &[Position]| {
            let shown: Vec<String> = places.iter().take(5).map(|&at| place_text(at)).collect();
            shown.join(", ") + if places.len() > 5 { ", .." } else { "" }
        };
        let mut out = Vec::new();
        if !self.replayed.is_empty() {
            let count = thousands(self.replayed.len() as u64);
            out.push(format!(
                "{count} were replayed before and have not come back: not sent ({})",
                few(&self.replayed)
            ));
        }
        if let Some((old, new)) = self.failed_again.first() {
            out.push(format!(
                "{} were replayed before and failed again: the newer letter stands for them (of {}: {}), or --again",
                thousands(self.failed_again.len() as u64),
                place_text(*old),
                place_text(*new)
            ));
        }
        if !self.withheld.is_empty() {
            out.push(format!(
                "{} are withheld: their customers agreed to no purpose, so there is no original to send ({})",
                thousands(self.withheld.len() as u64),
                few(&self.withheld)
            ));
        }
        if self.beyond_limit > 0 {
            out.push(format!("{} more are left for another run by --limit", thousands(self.beyond_limit)));
        }
        if !self.missing.is_empty() {
            out.push(format!("there is no dead letter at {}", few(&self.missing)));
        }
        out
    }

    fn json(&self) -> serde_json::Map<String, Value> {
        let places = |places: &[Position]| -> Vec<String> { places.iter().map(|&at| place_text(at)).collect() };
        let mut out = serde_json::Map::new();
        out.insert("meant".to_owned(), json!(self.meant));
        out.insert("replayed_before".to_owned(), json!(places(&self.replayed)));
        out.insert("withheld".to_owned(), json!(places(&self.withheld)));
        out.insert("missing".to_owned(), json!(places(&self.missing)));
        out.insert("left_by_limit".to_owned(), json!(self.beyond_limit));
        let pairs = self.failed_again.iter().map(|(old, new)| json!([place_text(*old), place_text(*new)]));
        out.insert("failed_again_as".to_owned(), pairs.collect());
        out
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
        rapport_kafka::ensure_topics(&context.kafka).await?;
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
    Ok((Plan::make(request, &seen, &ledger), ledger, ends))
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
        bail!("{} replays failed again; their cause is not fixed", thousands(done.came_back.len() as u64));
    }
    let not_sent = done.refused.len() + plan.withheld.len() + plan.missing.len();
    if not_sent > 0 {
        bail!("{} letters could not be sent", thousands(not_sent as u64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rapport_proto::events::Header;

    use super::*;
    use crate::replay::Entry;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        replay: Replay,
    }

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset }
    }

    fn letter(offset: i64, replay_of: Option<i64>) -> DeadLetter {
        let header = |of| Header { name: REPLAY_OF.into(), value: Some(format!("0:{of}").into_bytes()) };
        DeadLetter {
            failed_at: Some(EventTime::from_ms(offset).to_proto()),
            original_headers: replay_of.map(header).into_iter().collect(),
            withheld: offset == 13,
            ..DeadLetter::default()
        }
    }

    fn request(ids: &[i64], limit: u64) -> Request {
        Request {
            ids: ids.iter().map(|&offset| at(offset)).collect(),
            conditions: Settled::default(),
            again: false,
            limit,
            rate: None,
        }
    }

    fn made(request: &Request, letters: &[(i64, Option<i64>)], replayed: &[i64]) -> Plan {
        let mut seen = Seen::default();
        for &(offset, of) in letters {
            let letter = letter(offset, of);
            seen.letter(at(offset), &letter, request.means(at(offset), &letter));
        }
        let entry = |offset: i64| Entry { raw: "0:0".into(), replayed_at_ms: 0, failed_at_ms: offset };
        Plan::make(request, &seen, &replayed.iter().map(|&offset| (at(offset), entry(offset))).collect())
    }

    #[test]
    fn a_second_run_sends_nothing_and_says_why() {
        let plan = made(&request(&[], u64::MAX), &[(1, None), (2, None)], &[1, 2]);
        assert!(plan.send.is_empty());
        assert!(plan.remarks()[0].contains("replayed before"), "{:?}", plan.remarks());
    }

    #[test]
    fn what_is_left_out_is_accounted_for() {
        let letters = [(1, None), (2, None), (5, Some(2)), (13, None), (20, None), (21, None)];
        let plan = made(&request(&[], 2), &letters, &[1, 2]);
        assert_eq!(plan.send, BTreeSet::from([at(5), at(20)]));
        assert_eq!((plan.replayed, plan.failed_again), (vec![at(1)], vec![(at(2), at(5))]));
        assert_eq!((plan.withheld, plan.beyond_limit, plan.meant), (vec![at(13)], 1, 6));
    }

    #[test]
    fn an_id_that_is_not_there_is_told() {
        let plan = made(&request(&[1, 99], u64::MAX), &[(1, None), (2, None)], &[]);
        assert_eq!((plan.send, plan.missing.as_slice()), (BTreeSet::from([at(1)]), [at(99)].as_slice()));
    }

    #[test]
    fn only_what_is_sent_is_read_again() {
        let mut plan = Plan::default();
        plan.send.extend([at(4), at(9), Position { partition: 2, offset: 3 }]);
        let (from, until) = plan.ranges(&Offsets::from([(0, 100), (1, 100), (2, 100)]));
        assert_eq!(from, Offsets::from([(0, 4), (1, 100), (2, 3)]));
        assert_eq!(until, Offsets::from([(0, 10), (1, 100), (2, 4)]));
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
