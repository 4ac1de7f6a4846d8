//! Exactly once, checked: what was sent against what came out.

use std::{collections::HashMap, fmt, hash::Hash};

/// What is wrong between what was sent and what came out, with a few examples of each.
#[derive(Debug, PartialEq, Eq)]
pub struct Discrepancy<T> {
    pub lost: Vec<T>,
    pub duplicated: Vec<T>,
    /// Came out and was never sent.
    pub unknown: Vec<T>,
}

impl<T: fmt::Debug> fmt::Display for Discrepancy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut part = |what: &str, ids: &[T]| write!(f, "{} {what} {:?}; ", ids.len(), &ids[..ids.len().min(5)]);
        part("lost", &self.lost)?;
        part("duplicated", &self.duplicated)?;
        part("unknown", &self.unknown)
    }
}

/// Whether everything that was `sent` came out once, and nothing else did.
///
/// # Errors
/// Every id that did not.
pub fn exactly_once<T: Eq + Hash + Ord + Clone>(
    sent: impl IntoIterator<Item = T>,
    seen: impl IntoIterator<Item = T>,
) -> Result<(), Discrepancy<T>> {
    let mut count: HashMap<T, u32> = sent.into_iter().map(|id| (id, 0)).collect();
    let mut unknown = Vec::new();
    for id in seen {
        match count.get_mut(&id) {
            Some(times) => *times += 1,
            None => unknown.push(id),
        }
    }
    let having = |wanted: fn(u32) -> bool| {
        let mut ids: Vec<T> = count.iter().filter(|(_, times)| wanted(**times)).map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids
    };
    unknown.sort();
    let found = Discrepancy { lost: having(|times| times == 0), duplicated: having(|times| times > 1), unknown };
    if found.lost.is_empty() && found.duplicated.is_empty() && found.unknown.is_empty() { Ok(()) } else { Err(found) }
}

/// Whether everything that was acknowledged came out at least once (what was not acknowledged may
/// have come out too).
///
/// # Errors
/// The ids that did not.
pub fn nothing_lost<T: Eq + Hash + Ord + Clone>(
    acknowledged: impl IntoIterator<Item = T>,
    seen: impl IntoIterator<Item = T>,
) -> Result<(), Vec<T>> {
    let seen: std::collections::HashSet<T> = seen.into_iter().collect();
    let lost: Vec<T> = acknowledged.into_iter().filter(|id| !seen.contains(id)).collect();
    if lost.is_empty() { Ok(()) } else { Err(lost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_doubled_and_a_foreign_event_are_each_reported() {
        let found = exactly_once([1, 2, 3, 4], [1, 3, 3, 4, 9]).unwrap_err();
        assert_eq!(found, Discrepancy { lost: vec![2], duplicated: vec![3], unknown: vec![9] });
        assert_eq!(found.to_string(), "1 lost [2]; 1 duplicated [3]; 1 unknown [9]; ");
    }

    #[test]
    fn order_does_not_matter_and_a_perfect_run_passes() {
        assert_eq!(exactly_once(0..1000, (0..1000).rev()), Ok(()));
        assert_eq!(exactly_once(0..0, 0..0), Ok(()));
    }

    #[test]
    fn an_acknowledged_event_that_is_not_there_is_reported_and_an_extra_one_is_not() {
        assert_eq!(nothing_lost([1, 2, 3], [3, 1, 1, 7]), Err(vec![2]));
        assert_eq!(nothing_lost([1, 2], [2, 1, 5]), Ok(()));
    }
}
