//! A part of the clean topic, as a person names it and as offsets.

use std::{collections::BTreeMap, fmt, str::FromStr};

use rapport_events::EventTime;

/// Where a range begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// An offset for each partition that is read.
    Offsets(BTreeMap<i32, i64>),
    /// The first record that Kafka has stamped at this time or later.
    Time(EventTime),
}

impl FromStr for Bound {
    type Err = String;

    /// `0:1200,1:1187`, or an RFC 3339 time.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(time) = EventTime::parse_rfc3339(text) {
            return Ok(Self::Time(time));
        }
        let wrong = || format!("{text:?} is neither a time (2026-11-01T00:00:00Z) nor offsets (0:1200,1:1187)");
        let mut offsets = BTreeMap::new();
        for part in text.split(',') {
            let (partition, offset) = part.split_once(':').ok_or_else(wrong)?;
            let partition = partition.trim().parse().ok().filter(|partition| *partition >= 0).ok_or_else(wrong)?;
            let offset = offset.trim().parse().ok().filter(|offset| *offset >= 0).ok_or_else(wrong)?;
            if offsets.insert(partition, offset).is_some() {
                return Err(format!("{text:?} names partition {partition} twice"));
            }
        }
        Ok(Self::Offsets(offsets))
    }
}

impl Bound {
    pub(super) fn partitions(&self) -> Option<impl Iterator<Item = i32>> {
        match self {
            Self::Offsets(offsets) => Some(offsets.keys().copied()),
            Self::Time(_) => None,
        }
    }
}

/// What a partition holds, as its broker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The first offset that retention has left.
    pub low: i64,
    /// The one after the last that is committed.
    pub high: i64,
    /// The first record at or after the time that `--from` and `--to` say, where they say one and there is one.
    pub from: Option<i64>,
    pub to: Option<i64>,
}

/// Offsets `start..end` of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range(pub BTreeMap<i32, (i64, i64)>);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (partition, (start, end))) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}partition {partition}: {start}..{end}")?;
        }
        Ok(())
    }
}

impl Range {
    /// What is to be read of what is held. Without offsets every partition is, without a bound from the first
    /// record that is there to the last.
    ///
    /// # Errors
    /// For a person: a partition that there is not, records that retention has taken, an end beyond the end.
    pub(super) fn of(held: &BTreeMap<i32, Held>, from: Option<&Bound>, to: Option<&Bound>) -> Result<Self, String> {
        let named: Vec<i32> = match [from, to].into_iter().flatten().find_map(Bound::partitions) {
            Some(partitions) => partitions.collect(),
            None => held.keys().copied().collect(),
        };
        let mut range = BTreeMap::new();
        for partition in named {
            let Some(&held) = held.get(&partition) else {
                return Err(format!("there is no partition {partition}, only 0 to {}", held.len() as i64 - 1));
            };
            let unnamed = |flag: &str| format!("{flag} names no offset for partition {partition}, the other flag does");
            let start = match from {
                None => held.low,
                Some(Bound::Offsets(offsets)) => *offsets.get(&partition).ok_or_else(|| unnamed("--from"))?,
                // Nothing is as new as that.
                Some(Bound::Time(_)) => held.from.unwrap_or(held.high),
            };
            let end = match to {
                None => held.high,
                Some(Bound::Offsets(offsets)) => *offsets.get(&partition).ok_or_else(|| unnamed("--to"))?,
                Some(Bound::Time(_)) => held.to.unwrap_or(held.high),
            };
            let gone = match from {
                Some(Bound::Offsets(_)) => start < held.low,
                // The first record that is left is newer than the time: older ones may have been, too.
                Some(Bound::Time(_)) => held.low > 0 && start == held.low,
                None => false,
            };
            if gone {
                return Err(format!(
                    "retention has deleted the beginning: partition {partition} holds offsets from {} on; begin \
                     there, or learn from the offline log, which keeps everything",
                    held.low
                ));
            }
            if end > held.high {
                let high = held.high;
                return Err(format!(
                    "--to is beyond the end of partition {partition}, which is committed up to {high}"
                ));
            }
            if end < start {
                return Err(format!("it ends before it begins in partition {partition}: {start}..{end}"));
            }
            range.insert(partition, (start, end));
        }
        if let (Some(Bound::Offsets(from)), Some(Bound::Offsets(to))) = (from, to)
            && let Some(partition) = to.keys().find(|partition| !from.contains_key(partition))
        {
            return Err(format!("--to names partition {partition}, --from does not"));
        }
        if range.values().all(|(start, end)| start == end) {
            return Err("it holds no record".into());
        }
        Ok(Self(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str) -> Option<Bound> {
        Some(text.parse().unwrap())
    }

    fn range(from: &str, to: &str) -> Result<String, String> {
        let held = |low, high, from, to| Held { low, high, from, to };
        let held = BTreeMap::from([(0, held(0, 100, Some(40), Some(60))), (1, held(10, 50, Some(12), None))]);
        let of = |text: &str| if text.is_empty() { None } else { bound(text) };
        Range::of(&held, of(from).as_ref(), of(to).as_ref()).map(|range| range.to_string())
    }

    #[test]
    fn offsets_name_the_partitions_and_times_take_them_all() {
        let is = |from: &str, to: &str, what: &str| assert_eq!(range(from, to).unwrap(), what);
        is("", "", "partition 0: 0..100, partition 1: 10..50");
        is("0:5", "", "partition 0: 5..100");
        is("", "1:20", "partition 1: 10..20");
        is("0:5,1:10", "1:20,0:7", "partition 0: 5..7, partition 1: 10..20");
        is("2026-11-01T00:00:00Z", "", "partition 0: 40..100, partition 1: 12..50");
        is("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", "partition 0: 40..60, partition 1: 12..50");
        is("2026-11-01T00:00:00Z", "0:60", "partition 0: 40..60");
    }

    #[test]
    fn a_range_that_cannot_be_read_is_refused_with_what_would_do() {
        let says = |from: &str, to: &str, what: &str| {
            let reason = range(from, to).unwrap_err();
            assert!(reason.contains(what), "{reason}");
        };
        says("1:3", "", "retention has deleted the beginning: partition 1 holds offsets from 10 on");
        says("", "0:101", "committed up to 100");
        says("7:0", "", "no partition 7, only 0 to 1");
        says("0:50", "0:40", "ends before it begins");
        says("0:50", "0:50", "holds no record");
        says("0:5,1:10", "0:7", "--to names no offset for partition 1");
        says("0:5", "0:7,1:20", "--to names partition 1, --from does not");
        assert!("yesterday".parse::<Bound>().unwrap_err().contains("2026-11-01T00:00:00Z"));
        assert!("0:1,0:2".parse::<Bound>().unwrap_err().contains("twice"));
    }

    #[test]
    fn a_time_before_what_retention_has_left_is_refused() {
        let held = BTreeMap::from([(0, Held { low: 10, high: 50, from: Some(10), to: None })]);
        let reason = Range::of(&held, bound("2026-11-01T00:00:00Z").as_ref(), None).unwrap_err();
        assert!(reason.contains("offsets from 10 on"), "{reason}");
    }
}
