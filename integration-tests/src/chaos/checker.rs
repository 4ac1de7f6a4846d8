//! The judge: what was acknowledged against what stands on the topics. Pure, and able to fail.
//!
//! It is fed every record of the raw topic, then of the clean and the dead one. A record of the raw topic
//! is eight bytes, an event id three bits: some millions of events are some tens of megabytes.
//!
//! Two chains are followed. By id: every acknowledged event is clean once, or dead when it was broken on
//! purpose. By place: every raw record became one clean event or one dead letter, or its id is clean
//! from another place (a duplicate).

use std::fmt;

use super::{
    ids::{EventId, Nature, Natures},
    ledger::{Bitmap, Sent},
};

/// Where a record stands on the raw topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl Place {
    /// `partition:offset`, as the header rapport-source has it.
    pub fn parse(text: &str) -> Option<Self> {
        let (partition, offset) = text.split_once(':')?;
        Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// How often, and the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cases {
    pub count: u64,
    pub examples: Vec<String>,
}

impl Cases {
    fn add(&mut self, example: impl fmt::Display) {
        self.count += 1;
        if self.examples.len() < 5 {
            self.examples.push(example.to_string());
        }
    }
}

/// Every way in which a promise can be broken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Broken {
    /// Acknowledged, and neither clean nor (broken on purpose) dead.
    pub lost: Cases,
    /// On the raw topic, and nothing came of it: not clean, not dead, no duplicate of a clean one.
    pub unjudged: Cases,
    /// One raw record gave two results: it was copied twice.
    pub copied_twice: Cases,
    /// Two raw records with one id are both clean: the duplicate was not found.
    pub counted_twice: Cases,
    /// Clean and never sent, or not from the raw record that it names, or broken and yet clean.
    pub unexplained: Cases,
    /// Valid, and refused all the same.
    pub refused: Cases,
}

impl Broken {
    /// Each with its name, for a table.
    pub fn all(&self) -> [(&'static str, &Cases); 6] {
        [
            ("acknowledged and lost", &self.lost),
            ("on the raw topic and never judged", &self.unjudged),
            ("counted twice: one raw record copied twice", &self.copied_twice),
            ("counted twice: a duplicate not found", &self.counted_twice),
            ("unexplained", &self.unexplained),
            ("valid and yet dead", &self.refused),
        ]
    }

    pub fn nothing(&self) -> bool {
        self.all().iter().all(|(_, cases)| cases.count == 0)
    }
}

/// The account, in records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    pub acknowledged: u64,
    /// Never acknowledged, and there all the same (once): allowed.
    pub unacknowledged_arrived: u64,
    pub raw: u64,
    pub clean: u64,
    /// Dead letters of the cleaner: each stands for one raw record.
    pub dead: u64,
    /// Dead letters of the collector, which never were on the raw topic.
    pub dead_at_the_door: u64,
    /// Raw records whose id is clean from another place.
    pub duplicates: u64,
}

/// What the run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub counts: Counts,
    pub broken: Broken,
}

impl Verdict {
    pub fn kept(&self) -> bool {
        self.broken.nothing() && self.adds_up()
    }

    /// Whether raw = clean + dead + duplicates.
    pub fn adds_up(&self) -> bool {
        let c = &self.counts;
        c.raw == c.clean + c.dead + c.duplicates
    }
}

/// Nothing stands at this offset.
const NOTHING: u64 = u64::MAX;
/// A record that no sender wrote.
const FOREIGN: u64 = u64::MAX - 1;

fn packed(id: Option<EventId>) -> u64 {
    id.map_or(FOREIGN, |id| u64::from(id.sender) << 32 | u64::from(id.sequence))
}

fn unpacked(packed: u64) -> Option<EventId> {
    (packed < FOREIGN).then_some(EventId { sender: (packed >> 32) as u8, sequence: packed as u32 })
}

/// Fed in this order: all of raw, then clean and dead in any order.
pub struct Checker {
    natures: Natures,
    senders: Vec<Sent>,
    /// By partition and offset: whose event it is.
    raw: Vec<Vec<u64>>,
    /// By partition and offset: whether something came of it.
    judged: Vec<Bitmap>,
    /// By sender and sequence.
    clean: Vec<Bitmap>,
    dead: Vec<Bitmap>,
    verdict: Verdict,
}

impl Checker {
    pub fn new(natures: Natures, senders: Vec<Sent>) -> Self {
        let mut verdict = Verdict::default();
        verdict.counts.sent = senders.iter().map(|sender| u64::from(sender.sent)).sum();
        verdict.counts.acknowledged = senders.iter().map(|sender| sender.acknowledged.ones()).sum();
        let bitmaps = vec![Bitmap::default(); senders.len()];
        Self { natures, raw: Vec::new(), judged: Vec::new(), clean: bitmaps.clone(), dead: bitmaps, senders, verdict }
    }

    pub fn raw(&mut self, at: Place, id: Option<EventId>) {
        let (Ok(partition), Ok(offset)) = (usize::try_from(at.partition), usize::try_from(at.offset)) else { return };
        while self.raw.len() <= partition {
            self.raw.push(Vec::new());
            self.judged.push(Bitmap::default());
        }
        let records = &mut self.raw[partition];
        if records.len() <= offset {
            records.resize(offset + 1, NOTHING);
        }
        records[offset] = packed(id.filter(|id| was_sent(&self.senders, *id)));
        self.verdict.counts.raw += 1;
    }

    /// A clean event: its id as it stands there, and the raw record that it names.
    pub fn clean(&mut self, id_text: &str, source: Option<Place>) {
        self.verdict.counts.clean += 1;
        let broken = &mut self.verdict.broken;
        let Some(id) = EventId::parse(id_text).filter(|id| was_sent(&self.senders, *id)) else {
            return broken.unexplained.add(format!("{id_text} was never sent"));
        };
        let Some(source) = source.filter(|place| packed_at(&self.raw, *place) == packed(Some(id))) else {
            let named = source.map_or("no raw record".to_owned(), |place| place.to_string());
            return broken.unexplained.add(format!("{id} is clean from {named}, which is not it"));
        };
        if self.natures.of(id) != Nature::Valid {
            broken.unexplained.add(format!("{id} is broken and yet clean"));
        }
        let copied_before = self.judged[source.partition as usize].set(source.offset as u32);
        let clean_before = self.clean[usize::from(id.sender)].set(id.sequence);
        if copied_before {
            broken.copied_twice.add(format!("{id} from {source}"));
        } else if clean_before {
            broken.counted_twice.add(format!("{id} again from {source}"));
        }
    }

    /// A dead letter: the id in its original, and the raw record that it came from (`None` for one that
    /// the collector wrote).
    pub fn dead(&mut self, id: Option<EventId>, source: Option<Place>) {
        let broken = &mut self.verdict.broken;
        match source {
            None => self.verdict.counts.dead_at_the_door += 1,
            Some(source) => {
                self.verdict.counts.dead += 1;
                if packed_at(&self.raw, source) != packed(id) {
                    let id = id.map_or("somebody".to_owned(), |id| id.to_string());
                    return broken.unexplained.add(format!("{id} is dead from {source}, which is not it"));
                }
                if self.judged[source.partition as usize].set(source.offset as u32) {
                    broken.copied_twice.add(format!("dead letter from {source}"));
                }
            }
        }
        let Some(id) = id.filter(|id| was_sent(&self.senders, *id)) else {
            return broken.unexplained.add("a dead letter of nobody's event");
        };
        if self.natures.of(id) == Nature::Valid {
            broken.refused.add(id);
        }
        self.dead[usize::from(id.sender)].set(id.sequence);
    }

    /// When everything was read.
    pub fn verdict(mut self) -> Verdict {
        let Verdict { counts, broken } = &mut self.verdict;
        for (partition, records) in self.raw.iter().enumerate() {
            for (offset, record) in records.iter().enumerate() {
                if *record == NOTHING || self.judged[partition].has(offset as u32) {
                    continue;
                }
                let id = unpacked(*record);
                if id.is_some_and(|id| self.clean[usize::from(id.sender)].has(id.sequence)) {
                    counts.duplicates += 1;
                } else {
                    let id = id.map_or("a foreign record".to_owned(), |id| id.to_string());
                    broken.unjudged.add(format!("{id} at {partition}:{offset}"));
                }
            }
        }
        for (sender, account) in self.senders.iter().enumerate() {
            for sequence in 0..account.sent {
                let id = EventId { sender: sender as u8, sequence };
                let there = match self.natures.of(id) {
                    Nature::Valid => self.clean[sender].has(sequence),
                    Nature::Broken | Nature::BrokenAtTheDoor => self.dead[sender].has(sequence),
                };
                match (account.acknowledged.has(sequence), there) {
                    (true, false) => broken.lost.add(id),
                    (false, true) => counts.unacknowledged_arrived += 1,
                    (true, true) | (false, false) => {}
                }
            }
        }
        self.verdict
    }
}

fn was_sent(senders: &[Sent], id: EventId) -> bool {
    senders.get(usize::from(id.sender)).is_some_and(|sender| id.sequence < sender.sent)
}

fn packed_at(raw: &[Vec<u64>], at: Place) -> u64 {
    let (Ok(partition), Ok(offset)) = (usize::try_from(at.partition), usize::try_from(at.offset)) else {
        return NOTHING;
    };
    raw.get(partition).and_then(|records| records.get(offset)).copied().unwrap_or(NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATURES: Natures = Natures { seed: 1, broken_one_in: 0, doubled_one_in: 0 };

    fn id(sequence: u32) -> EventId {
        EventId { sender: 0, sequence }
    }

    fn at(offset: i64) -> Place {
        Place { partition: 0, offset }
    }

    /// Ten events of one sender on the raw topic, of which these were acknowledged.
    fn ten(natures: Natures, acknowledged: impl IntoIterator<Item = u32>) -> Checker {
        let mut sent = Sent { sent: 10, ..Sent::default() };
        for sequence in acknowledged {
            sent.acknowledged.set(sequence);
        }
        let mut checker = Checker::new(natures, vec![sent]);
        for sequence in 0..10 {
            checker.raw(at(i64::from(sequence)), Some(id(sequence)));
        }
        checker
    }

    fn clean(checker: &mut Checker, sequence: u32) {
        checker.clean(&id(sequence).to_string(), Some(at(i64::from(sequence))));
    }

    #[test]
    fn a_perfect_run_keeps_every_promise_and_the_account_adds_up() {
        let mut checker = ten(NATURES, 0..9);
        // Sent twice: once more on the raw topic, and not clean from there.
        checker.raw(at(10), Some(id(3)));
        (0..10).for_each(|sequence| clean(&mut checker, sequence));
        let verdict = checker.verdict();
        assert!(verdict.kept(), "{:?}", verdict.broken);
        let Counts { raw, clean, duplicates, acknowledged, unacknowledged_arrived, .. } = verdict.counts;
        assert_eq!((raw, clean, duplicates, acknowledged, unacknowledged_arrived), (11, 10, 1, 9, 1));
    }

    #[test]
    fn an_acknowledged_event_that_never_reached_the_log_is_lost_and_an_unacknowledged_one_is_not() {
        let mut sent = Sent { sent: 3, ..Sent::default() };
        sent.acknowledged.set(0);
        sent.acknowledged.set(1);
        let mut checker = Checker::new(NATURES, vec![sent]);
        checker.raw(at(0), Some(id(0)));
        clean(&mut checker, 0);
        let verdict = checker.verdict();
        assert!(!verdict.kept());
        assert_eq!(verdict.broken.lost, Cases { count: 1, examples: vec![id(1).to_string()] });
        assert!(Broken { lost: Cases::default(), ..verdict.broken }.nothing());
    }

    #[test]
    fn a_raw_record_of_which_nothing_came_is_found_even_when_nobody_was_told_that_it_is_there() {
        let mut checker = ten(NATURES, []);
        (0..9).for_each(|sequence| clean(&mut checker, sequence));
        let verdict = checker.verdict();
        assert_eq!((verdict.broken.unjudged.count, verdict.broken.lost.count), (1, 0));
        assert!(!verdict.kept() && !verdict.adds_up());
    }

    #[test]
    fn a_raw_record_that_was_copied_twice_is_found() {
        let mut checker = ten(NATURES, 0..10);
        (0..10).for_each(|sequence| clean(&mut checker, sequence));
        clean(&mut checker, 4);
        let verdict = checker.verdict();
        assert_eq!((verdict.broken.copied_twice.count, verdict.broken.counted_twice.count), (1, 0));
        assert!(!verdict.kept());
    }

    #[test]
    fn a_duplicate_that_passed_is_found() {
        let mut checker = ten(NATURES, 0..10);
        checker.raw(at(10), Some(id(3)));
        (0..10).for_each(|sequence| clean(&mut checker, sequence));
        checker.clean(&id(3).to_string(), Some(at(10)));
        let verdict = checker.verdict();
        assert_eq!((verdict.broken.copied_twice.count, verdict.broken.counted_twice.count), (0, 1));
        assert!(verdict.adds_up() && !verdict.kept());
    }

    #[test]
    fn a_clean_event_that_nobody_sent_or_that_names_a_wrong_place_is_unexplained() {
        let complete = || {
            let mut checker = ten(NATURES, 0..10);
            (0..10).for_each(|sequence| clean(&mut checker, sequence));
            checker
        };
        for (text, source) in [
            ("somebody-else", Some(at(0))),
            ("chaos-00-00000010", Some(at(0))),
            ("chaos-01-00000000", Some(at(0))),
            ("chaos-00-00000001", Some(at(2))),
            ("chaos-00-00000001", Some(at(99))),
            ("chaos-00-00000001", Some(Place { partition: 5, offset: -1 })),
            ("chaos-00-00000001", None),
        ] {
            let mut checker = complete();
            checker.clean(text, source);
            let verdict = checker.verdict();
            assert_eq!(verdict.broken.unexplained.count, 1, "{text} from {source:?}");
            assert!(!verdict.kept());
        }
    }

    #[test]
    fn broken_events_must_be_dead_once_for_each_raw_record_and_never_clean() {
        let all_broken = Natures { broken_one_in: 1, ..NATURES };
        let dead =
            |checker: &mut Checker, sequence: u32| checker.dead(Some(id(sequence)), Some(at(i64::from(sequence))));
        let mut checker = ten(all_broken, 0..10);
        (0..10).for_each(|sequence| dead(&mut checker, sequence));
        checker.dead(Some(id(1)), None);
        let verdict = checker.verdict();
        assert!(verdict.kept(), "{:?}", verdict.broken);
        assert_eq!((verdict.counts.dead, verdict.counts.dead_at_the_door), (10, 1));

        let mut checker = ten(all_broken, 0..10);
        (0..9).for_each(|sequence| dead(&mut checker, sequence));
        dead(&mut checker, 0);
        clean(&mut checker, 9);
        let Broken { lost, copied_twice, unexplained, .. } = checker.verdict().broken;
        assert_eq!((lost.count, copied_twice.count, unexplained.count), (1, 1, 1));
    }

    #[test]
    fn a_valid_event_that_is_refused_is_found() {
        let mut checker = ten(NATURES, 0..10);
        (0..9).for_each(|sequence| clean(&mut checker, sequence));
        checker.dead(Some(id(9)), Some(at(9)));
        let verdict = checker.verdict();
        assert_eq!((verdict.broken.refused.count, verdict.broken.lost.count), (1, 1));
    }
}
