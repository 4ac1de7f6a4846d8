//! The pure part of the account: what was seen where, and what follows from it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use rapport_events::Position;
use serde_json::{Value, json};

/// How many records that something is wrong with are kept as examples.
const EXAMPLES: usize = 10;

/// An event id is unique within its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    pub tenant: String,
    pub id: String,
}

/// What became of one raw record.
#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    clean: u32,
    dead: u32,
    withheld: bool,
    replay: bool,
}

/// Takes down what the topics hold, in any order after the raw records.
#[derive(Debug, Default)]
pub struct Ledger {
    received: HashMap<Position, (Option<EventKey>, Fate)>,
    ids: HashSet<EventKey>,
    /// Raw coordinates of the clean record of each id in `ids`.
    cleaned_from: HashMap<EventKey, Vec<Position>>,
}

impl Ledger {
    /// A raw record; `None` when it has no id that can be read. `replay`: it is a dead letter that
    /// was sent again.
    pub fn received(&mut self, at: Position, event: Option<EventKey>, replay: bool) {
        if let Some(event) = &event {
            self.ids.insert(event.clone());
        }
        self.received.insert(at, (event, Fate { replay, ..Fate::default() }));
    }

    /// A clean record and the raw coordinates that it came from.
    pub fn clean(&mut self, source: Position, event: EventKey) {
        if let Some((_, fate)) = self.received.get_mut(&source) {
            fate.clean += 1;
        }
        if self.ids.contains(&event) {
            self.cleaned_from.entry(event).or_default().push(source);
        }
    }

    /// A dead letter, the raw coordinates that it came from, and whether its original is withheld.
    pub fn dead(&mut self, source: Position, withheld: bool) {
        if let Some((_, fate)) = self.received.get_mut(&source) {
            fate.dead += 1;
            fate.withheld |= withheld;
        }
    }

    fn verdict(&self, at: Position, event: Option<&EventKey>, fate: Fate) -> Option<Verdict> {
        match (fate.clean, fate.dead) {
            (0, 0) => {
                let elsewhere = event.and_then(|event| self.cleaned_from.get(event));
                elsewhere.is_some_and(|places| places.iter().any(|&place| place != at)).then_some(Verdict::Duplicate)
            }
            (1, 0) => Some(Verdict::Clean),
            (0, 1) => Some(Verdict::Dead),
            _ => Some(Verdict::Twice),
        }
    }

    /// The sum. `wanted` are the ids that must have been received (empty: none in particular).
    pub fn settle<'a>(&self, wanted: impl IntoIterator<Item = &'a EventKey>) -> Account {
        let mut account = Account::default();
        for (at, (event, fate)) in &self.received {
            account.received += 1;
            account.replays += u64::from(fate.replay);
            let note = |list: &mut Vec<String>| {
                if list.len() < EXAMPLES {
                    let id = event.as_ref().map_or("no readable id", |event| event.id.as_str());
                    list.push(format!("{}:{} {id}", at.partition, at.offset));
                }
            };
            match self.verdict(*at, event.as_ref(), *fate) {
                Some(Verdict::Clean) => account.clean += 1,
                Some(Verdict::Dead) => {
                    account.dead += 1;
                    account.withheld += u64::from(fate.withheld);
                }
                Some(Verdict::Duplicate) => account.duplicate += 1,
                Some(Verdict::Twice) => {
                    account.twice += 1;
                    note(&mut account.twice_at);
                }
                None => {
                    account.unexplained += 1;
                    note(&mut account.unexplained_at);
                }
            }
        }
        // The same id clean from two places: a duplicate that was not dropped.
        account.counted_twice = self.cleaned_from.values().filter(|places| places.len() > 1).count() as u64;
        for event in wanted {
            if !self.ids.contains(event) {
                account.missing += 1;
                if account.missing_ids.len() < EXAMPLES {
                    account.missing_ids.push(event.id.clone());
                }
            }
        }
        account
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Clean,
    Dead,
    Duplicate,
    /// Both, or one of them more than once.
    Twice,
}

/// Where everything went.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Account {
    /// Records on the raw topic.
    pub received: u64,
    /// Those of them that are dead letters, sent again.
    pub replays: u64,
    /// Those with exactly one clean record.
    pub clean: u64,
    /// Those with exactly one dead letter.
    pub dead: u64,
    /// Those of them whose original is not kept, for want of consent.
    pub withheld: u64,
    /// Those whose event id is clean from other raw coordinates.
    pub duplicate: u64,
    /// Those with two outcomes: must be 0.
    pub twice: u64,
    /// Event ids with more than one clean record: must be 0.
    pub counted_twice: u64,
    /// Those that left no trace: must be 0.
    pub unexplained: u64,
    /// Ids that were sent and are not on the raw topic: must be 0.
    pub missing: u64,
    pub twice_at: Vec<String>,
    pub unexplained_at: Vec<String>,
    pub missing_ids: Vec<String>,
}

impl Account {
    /// True when every record is explained once.
    pub fn balances(&self) -> bool {
        self.received == self.clean + self.dead + self.duplicate
            && [self.twice, self.counted_twice, self.unexplained, self.missing].iter().all(|&count| count == 0)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "received": self.received, "clean": self.clean, "dead": self.dead, "duplicate": self.duplicate,
            "replays": self.replays, "withheld": self.withheld,
            "twice": self.twice, "counted_twice": self.counted_twice, "unexplained": self.unexplained,
            "missing": self.missing, "balances": self.balances(),
            "examples": { "twice": self.twice_at, "unexplained": self.unexplained_at, "missing": self.missing_ids },
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::output::thousands as n;
        let of_which =
            |count: u64, what: &str| if count == 0 { String::new() } else { format!(" ({} {what})", n(count)) };
        write!(
            f,
            "received {}{} = clean {} + dead {}{} + duplicate {}",
            n(self.received),
            of_which(self.replays, "replayed"),
            n(self.clean),
            n(self.dead),
            of_which(self.withheld, "withheld"),
            n(self.duplicate)
        )?;
        if self.balances() {
            return f.write_str("; nothing is unexplained");
        }
        for (count, what, examples) in [
            (self.unexplained, "left no trace", &self.unexplained_at),
            (self.twice, "have two outcomes", &self.twice_at),
            (self.missing, "were sent and are not on the raw topic", &self.missing_ids),
        ] {
            if count > 0 {
                write!(f, "; {} {what}, for example {}", n(count), examples.join(", "))?;
            }
        }
        if self.counted_twice > 0 {
            write!(f, "; {} event ids are clean more than once", n(self.counted_twice))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset }
    }

    fn event(id: &str) -> EventKey {
        EventKey { tenant: "demo".into(), id: id.into() }
    }

    #[test]
    fn a_second_import_is_all_duplicates_proven_by_the_first() {
        let mut ledger = Ledger::default();
        for offset in 100..200 {
            ledger.received(at(offset), Some(event(&format!("e{}", offset - 100))), false);
        }
        assert_eq!(ledger.settle([]).unexplained, 100);
        for offset in 0..100 {
            ledger.clean(at(offset), event(&format!("e{offset}")));
        }
        let account = ledger.settle([]);
        assert_eq!((account.received, account.clean, account.duplicate), (100, 0, 100));
        assert!(account.balances());
    }

    #[test]
    fn a_record_without_a_trace_is_not_called_a_duplicate() {
        let mut ledger = Ledger::default();
        ledger.received(at(1), Some(event("a")), false);
        ledger.received(at(2), Some(event("lost")), false);
        ledger.received(at(3), None, false);
        ledger.clean(at(1), event("a"));
        ledger.dead(at(3), false);
        let account = ledger.settle([&event("a"), &event("never sent")]);
        assert_eq!((account.clean, account.dead, account.unexplained, account.missing), (1, 1, 1, 1));
        assert!(!account.balances());
        let text = account.to_string();
        assert!(text.contains("0:2 lost") && text.contains("never sent"), "{text}");
    }

    #[test]
    fn an_event_that_is_clean_from_two_places_does_not_balance() {
        let mut ledger = Ledger::default();
        ledger.received(at(1), Some(event("a")), false);
        ledger.received(at(2), Some(event("a")), false);
        ledger.clean(at(1), event("a"));
        ledger.clean(at(2), event("a"));
        assert_eq!(ledger.settle([]).counted_twice, 1);
        assert!(!ledger.settle([]).balances());
    }

    #[test]
    fn a_record_that_is_clean_and_dead_does_not_balance() {
        let mut ledger = Ledger::default();
        ledger.received(at(1), Some(event("a")), false);
        ledger.clean(at(1), event("a"));
        ledger.dead(at(1), false);
        let account = ledger.settle([]);
        assert_eq!((account.twice, account.clean, account.balances()), (1, 0, false));
    }

    #[test]
    fn a_replay_and_a_withheld_letter_are_told_and_balance() {
        let mut ledger = Ledger::default();
        ledger.received(at(1), Some(event("a")), false);
        ledger.received(at(2), Some(event("a")), true);
        ledger.received(at(3), Some(event("b")), false);
        ledger.dead(at(1), false);
        ledger.dead(at(3), true);
        ledger.clean(at(2), event("a"));
        let account = ledger.settle([]);
        assert!(account.balances(), "{account}");
        assert_eq!(
            account.to_string(),
            "received 3 (1 replayed) = clean 1 + dead 2 (1 withheld) + duplicate 0; nothing is unexplained"
        );
    }

    #[test]
    fn the_same_id_of_another_tenant_proves_nothing() {
        let mut ledger = Ledger::default();
        ledger.received(at(5), Some(event("a")), false);
        ledger.clean(at(1), EventKey { tenant: "other".into(), id: "a".into() });
        assert_eq!(ledger.settle([]).unexplained, 1);
    }

    proptest! {
        #[test]
        fn a_right_cleaner_always_balances(ids in proptest::collection::vec(0u8..20, 0..200)) {
            let mut ledger = Ledger::default();
            for (offset, id) in (0..).zip(&ids) {
                ledger.received(at(offset), Some(event(&id.to_string())), false);
            }
            let mut seen = HashSet::new();
            for (offset, id) in (0..).zip(&ids) {
                match id {
                    0 => ledger.dead(at(offset), false),
                    id if seen.insert(*id) => ledger.clean(at(offset), event(&id.to_string())),
                    _ => {}
                }
            }
            let account = ledger.settle([]);
            prop_assert!(account.balances(), "{}", account);
            prop_assert_eq!(account.received, ids.len() as u64);
        }
    }
}
