//! What a run showed, for a person and for an exit code.

use std::{fmt, sync::Arc, sync::atomic::Ordering, time::Duration};

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{Plan, Sabotage, checker::Verdict, inflict::Inflicted, ledger::Ledger, senders::Kind, watch::Watched};

/// Everything that is worth saying.
pub struct Report {
    pub plan: Plan,
    pub took: Duration,
    /// From the first event to the last answer.
    pub sent_for: Duration,
    pub senders: Vec<Sender>,
    pub inflicted: Inflicted,
    pub watched: Watched,
    pub verdict: Verdict,
    /// What did not come back, drain or catch up when it should have.
    pub troubles: Vec<String>,
}

/// One kind of sender.
pub struct Sender {
    pub kind: Kind,
    pub sent: u64,
    pub acknowledged: u64,
    pub resent: u64,
    pub refused: u64,
}

/// Adds up the senders of each kind.
pub fn senders(ledgers: &[Arc<Ledger>]) -> Vec<Sender> {
    [Kind::GrpcBatches, Kind::GrpcStream, Kind::Segment, Kind::Kafka]
        .into_iter()
        .map(|kind| {
            let of_kind = || (0u8..).zip(ledgers).filter(|(n, _)| Kind::of(*n) == kind).map(|(_, ledger)| ledger);
            Sender {
                kind,
                sent: of_kind().map(|ledger| u64::from(ledger.sent())).sum(),
                acknowledged: of_kind().map(|ledger| ledger.acknowledged()).sum(),
                resent: of_kind().map(|ledger| ledger.resent.load(Ordering::Relaxed)).sum(),
                refused: of_kind().map(|ledger| ledger.refused.load(Ordering::Relaxed)).sum(),
            }
        })
        .collect()
}

impl Report {
    /// Every promise was kept, and everything came back by itself.
    pub fn kept(&self) -> bool {
        self.verdict.kept() && self.troubles.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nchaos, seed {}, {:.0} s in all{}",
            self.plan.seed,
            self.took.as_secs_f64(),
            match self.plan.sabotage {
                None => "",
                Some(Sabotage::AcksOne) => ", sabotaged: producers and collectors with acks=1",
                Some(Sabotage::NoTransactions) => ", sabotaged: copiers without transactions in place of the cleaners",
            }
        )?;
        writeln!(f, "\n{}", self.faults())?;
        writeln!(f, "\n{}", self.sending())?;
        self.account(f)?;
        writeln!(f, "\n{}", self.promises())?;
        for trouble in &self.troubles {
            writeln!(f, "trouble: {trouble}")?;
        }
        let verdict = match (self.verdict.kept(), self.troubles.is_empty()) {
            (true, true) => "every promise was kept",
            (true, false) => "every event is accounted for, but not everything came back",
            (false, _) => "A PROMISE IS BROKEN",
        };
        writeln!(f, "\n{verdict} (seed {})", self.plan.seed)
    }
}

impl Report {
    fn faults(&self) -> Table {
        let mut table = table(&["fault", "done", "fresh again everywhere: median", "longest"], &[1, 2, 3]);
        for (kind, done) in &self.inflicted.by_kind {
            let (median, longest) = match self.watched.recoveries.get(kind).filter(|recovered| recovered.times > 0) {
                Some(recovered) => (seconds(recovered.median), seconds(recovered.longest)),
                None => ("-".to_owned(), "-".to_owned()),
            };
            table.add_row([(*kind).to_owned(), done.to_string(), median, longest]);
        }
        table
    }

    fn sending(&self) -> Table {
        let mut table = table(&["sender", "events", "acknowledged", "sent again", "refused"], &[1, 2, 3, 4]);
        for sender in &self.senders {
            let numbers = [sender.sent, sender.acknowledged, sender.resent, sender.refused].map(grouped);
            table.add_row([sender.kind.name().to_owned()].into_iter().chain(numbers));
        }
        table
    }

    fn account(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.verdict.counts;
        let per_second = counts.acknowledged as f64 / self.sent_for.as_secs_f64().max(0.001);
        writeln!(
            f,
            "{} events acknowledged of {} sent, {per_second:.0} a second; {} more came although nobody was told",
            grouped(counts.acknowledged),
            grouped(counts.sent),
            grouped(counts.unacknowledged_arrived)
        )?;
        writeln!(
            f,
            "raw {} = clean {} + dead {} + duplicates {}: {}; and {} dead at the door",
            grouped(counts.raw),
            grouped(counts.clean),
            grouped(counts.dead),
            grouped(counts.duplicates),
            if self.verdict.adds_up() { "it adds up" } else { "IT DOES NOT ADD UP" },
            grouped(counts.dead_at_the_door)
        )?;
        let [median, most, all] = self.watched.age.map(seconds);
        writeln!(f, "an event's age when it could be read, clean: median {median}, 99 % {most}, oldest {all}")?;
        let Inflicted { left_out, ended_by_themselves, fenced, not_fenced, .. } = &self.inflicted;
        writeln!(
            f,
            "replaced cleaners that woke up: {fenced} ended, {not_fenced} idled on until they were killed; \
             faults left out for lack of time: {left_out}"
        )?;
        writeln!(f, "processes that ended by themselves and were started again: {}", ended_by_themselves.len())?;
        ended_by_themselves.iter().try_for_each(|how| writeln!(f, "  {how}"))
    }

    fn promises(&self) -> Table {
        let mut table = table(&["promise broken", "events", "for example"], &[1]);
        for (what, cases) in self.verdict.broken.all() {
            table.add_row([what.to_owned(), grouped(cases.count), cases.examples.join("\n")]);
        }
        table
    }
}

pub(crate) fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.iter().map(Cell::new));
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Thousands apart: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
