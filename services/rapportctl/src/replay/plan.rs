//! What a replay sends, and why not the rest. Pure.

use std::collections::BTreeSet;

use rapport_events::Position;
use serde_json::{Value, json};

use super::{Decision, Ledger, Seen};
use crate::{account::place_text, output::thousands, scan::Offsets};

/// What is to be sent, and what came of the rest.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub meant: u64,
    pub send: BTreeSet<Position>,
    /// Sent before; they passed or are on their way.
    pub replayed: Vec<Position>,
    /// Sent before, failed again, and the new letter stands for them.
    pub failed_again: Vec<(Position, Position)>,
    pub withheld: Vec<Position>,
    /// Left for another run by `--limit`.
    pub beyond_limit: u64,
    /// Ids that the topic does not have.
    pub missing: Vec<Position>,
}

impl Plan {
    /// `ids`: those that are asked for by name, which must be there. `limit`: letters that are sent.
    pub fn make(seen: &Seen, ledger: &Ledger, ids: &BTreeSet<Position>, again: bool, limit: u64) -> Self {
        let mut plan = Self { meant: seen.meant.len() as u64, ..Self::default() };
        for &kin in &seen.meant {
            match seen.decide(kin, ledger, again) {
                Decision::Send(at) if plan.send.contains(&at) => {}
                Decision::Send(_) if plan.send.len() as u64 >= limit => plan.beyond_limit += 1,
                Decision::Send(at) => {
                    plan.send.insert(at);
                }
                Decision::Replayed => plan.replayed.push(kin.at),
                Decision::FailedAgainAs(newer) => plan.failed_again.push((kin.at, newer)),
                Decision::Withheld(at) => plan.withheld.push(at),
            }
        }
        let found: BTreeSet<Position> = seen.meant.iter().map(|kin| kin.at).collect();
        plan.missing = ids.difference(&found).copied().collect();
        plan
    }

    /// Where to read: from the first to after the last that is sent, partition by partition.
    pub fn ranges(&self, ends: &Offsets) -> (Offsets, Offsets) {
        let (mut from, mut until) = (ends.clone(), ends.clone());
        for at in self.send.iter().rev() {
            from.insert(at.partition, at.offset);
        }
        for at in &self.send {
            until.insert(at.partition, at.offset + 1);
        }
        (from, until)
    }

    /// What is not sent and why, for people.
    pub fn remarks(&self) -> Vec<String> {
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

    pub fn json(&self) -> serde_json::Map<String, Value> {
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

#[cfg(test)]
mod tests {
    use rapport_events::EventTime;
    use rapport_proto::events::{DeadLetter, Header};

    use super::*;
    use crate::replay::{Entry, REPLAY_OF};

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

    fn made(ids: &[i64], limit: u64, letters: &[(i64, Option<i64>)], replayed: &[i64]) -> Plan {
        let mut seen = Seen::default();
        for &(offset, of) in letters {
            seen.letter(at(offset), &letter(offset, of), ids.is_empty() || ids.contains(&offset));
        }
        let entry = |offset: i64| Entry { raw: "0:0".into(), replayed_at_ms: 0, failed_at_ms: offset };
        let ledger = replayed.iter().map(|&offset| (at(offset), entry(offset))).collect();
        Plan::make(&seen, &ledger, &ids.iter().map(|&offset| at(offset)).collect(), false, limit)
    }

    #[test]
    fn a_second_run_sends_nothing_and_says_why() {
        let plan = made(&[], u64::MAX, &[(1, None), (2, None)], &[1, 2]);
        assert!(plan.send.is_empty());
        assert!(plan.remarks()[0].contains("replayed before"), "{:?}", plan.remarks());
    }

    #[test]
    fn what_is_left_out_is_accounted_for() {
        let letters = [(1, None), (2, None), (5, Some(2)), (13, None), (20, None), (21, None)];
        let plan = made(&[], 2, &letters, &[1, 2]);
        assert_eq!(plan.send, BTreeSet::from([at(5), at(20)]));
        assert_eq!((plan.replayed, plan.failed_again), (vec![at(1)], vec![(at(2), at(5))]));
        assert_eq!((plan.withheld, plan.beyond_limit, plan.meant), (vec![at(13)], 1, 6));
    }

    #[test]
    fn an_id_that_is_not_there_is_told() {
        let plan = made(&[1, 99], u64::MAX, &[(1, None), (2, None)], &[]);
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
}
