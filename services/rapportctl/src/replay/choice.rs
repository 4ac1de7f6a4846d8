//! Which dead letters are sent again. Pure.

use std::collections::{BTreeSet, HashMap};

use rapport_events::{EventTime, Position};
use rapport_proto::events::DeadLetter;

use super::{Ledger, REPLAY_OF};
use crate::{account::parse_position, original};

/// What a choice needs to know of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kin {
    pub at: Position,
    pub failed_at: EventTime,
    /// Its original is not kept.
    pub withheld: bool,
}

impl Kin {
    pub fn of(at: Position, letter: &DeadLetter) -> Self {
        let failed_at = letter.failed_at.as_ref().and_then(EventTime::from_proto).unwrap_or_default();
        Self { at, failed_at, withheld: letter.withheld }
    }
}

/// What the dead topic holds: the letters that are meant, and which letters are failed replays.
#[derive(Debug, Default)]
pub struct Seen {
    pub meant: Vec<Kin>,
    /// The newest failed replay of a letter.
    failed_again: HashMap<Position, Kin>,
}

/// What becomes of one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This letter is sent: itself, or (with `--again`) the newest failure of its replay.
    Send(Position),
    /// Its replay has not come back: it passed, or is on its way.
    Replayed,
    /// Its replay came back as this letter, which stands for it.
    FailedAgainAs(Position),
    /// There is nothing to send.
    Withheld(Position),
}

impl Seen {
    /// Takes a letter down. `meant`: the filters or ids ask for it.
    pub fn letter(&mut self, at: Position, letter: &DeadLetter, meant: bool) {
        let kin = Kin::of(at, letter);
        if let Some(parent) = original::header(letter, REPLAY_OF).and_then(parse_position) {
            let newest = self.failed_again.entry(parent).or_insert(kin);
            if (newest.failed_at, newest.at) < (kin.failed_at, kin.at) {
                *newest = kin;
            }
        }
        if meant {
            self.meant.push(kin);
        }
    }

    /// `again`: a letter whose replay failed is followed to that failure, which is sent instead.
    pub fn decide(&self, letter: Kin, ledger: &Ledger, again: bool) -> Decision {
        let mut current = letter;
        // Bounds a chain that somebody has knotted by hand.
        let mut visited = BTreeSet::new();
        while ledger.of(current.at, current.failed_at).is_some() {
            match self.failed_again.get(&current.at) {
                Some(&failure) if visited.insert(failure.at) => current = failure,
                _ => return Decision::Replayed,
            }
        }
        if current.at != letter.at && !again {
            return Decision::FailedAgainAs(current.at);
        }
        if current.withheld { Decision::Withheld(current.at) } else { Decision::Send(current.at) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_proto::events::Header;

    use super::*;
    use crate::replay::Entry;

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset }
    }

    fn letter(offset: i64, replay_of: Option<i64>) -> DeadLetter {
        let header = |of| Header { name: REPLAY_OF.into(), value: Some(format!("0:{of}").into_bytes()) };
        DeadLetter {
            failed_at: Some(EventTime::from_ms(offset).to_proto()),
            original_headers: replay_of.map(header).into_iter().collect(),
            ..DeadLetter::default()
        }
    }

    /// Letters as (offset, offset of the letter that it is a failed replay of).
    fn seen(letters: &[(i64, Option<i64>)]) -> Seen {
        let mut seen = Seen::default();
        for &(offset, of) in letters {
            seen.letter(at(offset), &letter(offset, of), true);
        }
        seen
    }

    fn ledger(offsets: &[i64]) -> Ledger {
        let entry = |offset| Entry { raw: "0:0".into(), replayed_at_ms: 0, failed_at_ms: offset };
        Ledger::from_iter(offsets.iter().map(|&offset| (at(offset), entry(offset))))
    }

    fn decisions(seen: &Seen, ledger: &Ledger, again: bool) -> Vec<Decision> {
        seen.meant.iter().map(|&kin| seen.decide(kin, ledger, again)).collect()
    }

    #[test]
    fn a_letter_that_passed_is_not_sent_again_whatever_is_asked() {
        let seen = seen(&[(1, None), (2, None)]);
        for again in [false, true] {
            assert_eq!(decisions(&seen, &ledger(&[1]), again), [Decision::Replayed, Decision::Send(at(2))]);
        }
    }

    #[test]
    fn a_replay_that_failed_is_sent_in_place_of_the_first_letter() {
        let seen = seen(&[(1, None), (5, Some(1))]);
        let ledger = ledger(&[1]);
        assert_eq!(decisions(&seen, &ledger, false), [Decision::FailedAgainAs(at(5)), Decision::Send(at(5))]);
        assert_eq!(decisions(&seen, &ledger, true), [Decision::Send(at(5)), Decision::Send(at(5))]);
    }

    #[test]
    fn a_chain_of_failures_ends_where_one_passed() {
        let seen = seen(&[(1, None), (5, Some(1)), (9, Some(5))]);
        assert_eq!(decisions(&seen, &ledger(&[1, 5, 9]), true), [Decision::Replayed; 3]);
        assert_eq!(decisions(&seen, &ledger(&[1, 5]), true), [Decision::Send(at(9)); 3]);
    }

    #[test]
    fn a_withheld_letter_is_refused() {
        let mut seen = Seen::default();
        seen.letter(at(3), &DeadLetter { withheld: true, ..letter(3, None) }, true);
        assert_eq!(decisions(&seen, &ledger(&[]), false), [Decision::Withheld(at(3))]);
    }

    proptest! {
        #[test]
        fn every_chain_ends_even_a_knotted_one(
            links in proptest::collection::vec((0i64..12, proptest::option::of(0i64..12)), 0..40),
            replayed in proptest::collection::vec(0i64..12, 0..12), again: bool,
        ) {
            let (seen, ledger) = (seen(&links), ledger(&replayed));
            for decision in decisions(&seen, &ledger, again) {
                if let Decision::Send(target) = decision {
                    prop_assert!(ledger.of(target, EventTime::from_ms(target.offset)).is_none());
                }
            }
        }
    }
}
