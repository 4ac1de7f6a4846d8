//! Which visit an event belongs to, by inactivity in event time. Pure: who calls keeps the state.
//!
//! A visit's id follows from tenant, customer and the visit's first known event, so that a replay of
//! the same events from the same state gives the same ids. Events may come late and out of order:
//! one that lies inside the gap around a visit joins it, on either side.

use std::time::Duration;

use rapport_events::EventTime;
use xxhash_rust::xxh3::Xxh3;

/// What is kept of a customer: the visit that goes on, and the one before it, which late events of
/// a phone that was offline belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    current: Visit,
    previous: Option<Visit>,
}

/// One visit: the event that it is named after, and how far it reaches to both sides of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Visit {
    anchor_ms: i64,
    /// At most 49 days each: a visit that never pauses is cut there.
    before_ms: u32,
    after_ms: u32,
}

impl Visit {
    const fn at(ms: i64) -> Self {
        Self { anchor_ms: ms, before_ms: 0, after_ms: 0 }
    }

    fn first_ms(self) -> i64 {
        self.anchor_ms.saturating_sub(i64::from(self.before_ms))
    }

    fn last_ms(self) -> i64 {
        self.anchor_ms.saturating_add(i64::from(self.after_ms))
    }

    /// The visit with this event in it; `None` when the event is too far from it.
    fn joined_by(self, ms: i64, gap_ms: i64) -> Option<Self> {
        let near = ms >= self.first_ms().saturating_sub(gap_ms) && ms <= self.last_ms().saturating_add(gap_ms);
        if !near {
            return None;
        }
        let before = u32::try_from(self.anchor_ms.saturating_sub(ms).max(0)).ok()?;
        let after = u32::try_from(ms.saturating_sub(self.anchor_ms).max(0)).ok()?;
        Some(Self { before_ms: self.before_ms.max(before), after_ms: self.after_ms.max(after), ..self })
    }
}

/// The visit that an event of `customer` at `at` belongs to, and what to keep.
///
/// An event from before both known visits does not change what is kept. It gets the id of its
/// stretch of time (as long as the inactivity), so that late events from the same moment mostly
/// share one.
pub fn assign(
    state: Option<Session>,
    tenant: &str,
    customer: &str,
    at: EventTime,
    inactivity: Duration,
) -> (String, Session) {
    let (ms, gap_ms) = (at.as_ms(), i64::try_from(inactivity.as_millis()).unwrap_or(i64::MAX).max(1));
    let name = |visit: Visit| id(tenant, customer, visit.anchor_ms);
    let Some(state) = state else {
        let current = Visit::at(ms);
        return (name(current), Session { current, previous: None });
    };
    if let Some(current) = state.current.joined_by(ms, gap_ms) {
        return (name(current), Session { current, ..state });
    }
    if let Some(previous) = state.previous.and_then(|visit| visit.joined_by(ms, gap_ms)) {
        return (name(previous), Session { previous: Some(previous), ..state });
    }
    if ms > state.current.last_ms() {
        let current = Visit::at(ms);
        return (name(current), Session { current, previous: Some(state.current) });
    }
    if state.previous.is_none_or(|previous| ms > previous.last_ms()) {
        let between = Visit::at(ms);
        return (name(between), Session { previous: Some(between), ..state });
    }
    (name(Visit::at(ms.div_euclid(gap_ms).saturating_mul(gap_ms))), state)
}

/// 32 hex digits.
fn id(tenant: &str, customer: &str, anchor_ms: i64) -> String {
    let mut hash = Xxh3::new();
    hash.update(tenant.as_bytes());
    // A tenant's name holds no slash.
    hash.update(b"/");
    hash.update(customer.as_bytes());
    hash.update(&anchor_ms.to_be_bytes());
    format!("{:032x}", hash.digest128())
}

/// What stands in place of a previous visit when there is none.
const NONE: i64 = i64::MIN;

impl Session {
    pub const BYTES: usize = 32;

    /// The latest event of the visit that goes on. A store may forget a customer a few times the
    /// inactivity after it.
    pub fn last(&self) -> EventTime {
        EventTime::from_ms(self.current.last_ms())
    }

    /// Whether all that has changed since `earlier` is how far the current visit reaches.
    pub fn only_goes_on_from(&self, earlier: &Self) -> bool {
        let ended_as_earlier = Visit { after_ms: earlier.current.after_ms, ..self.current };
        ended_as_earlier == earlier.current && self.previous == earlier.previous
    }

    /// For the state store. Two visits of 16 bytes: anchor, and the reach to both sides, big-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let previous = self.previous.unwrap_or(Visit::at(NONE));
        for (half, visit) in bytes.chunks_exact_mut(16).zip([self.current, previous]) {
            half[..8].copy_from_slice(&visit.anchor_ms.to_be_bytes());
            half[8..12].copy_from_slice(&visit.before_ms.to_be_bytes());
            half[12..].copy_from_slice(&visit.after_ms.to_be_bytes());
        }
        bytes
    }

    /// `None` when the bytes are not from [`Self::to_bytes`]: the customer begins anew.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let visit = |at: usize| {
            Some(Visit {
                anchor_ms: i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?),
                before_ms: u32::from_be_bytes(bytes.get(at + 8..at + 12)?.try_into().ok()?),
                after_ms: u32::from_be_bytes(bytes.get(at + 12..at + 16)?.try_into().ok()?),
            })
        };
        let previous = visit(16)?;
        Some(Self { current: visit(0)?, previous: (previous.anchor_ms != NONE).then_some(previous) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const GAP: Duration = Duration::from_secs(30 * 60);
    const MINUTE: i64 = 60_000;

    /// The ids of a customer's events at these minutes, in this order.
    fn ids(minutes: &[i64]) -> Vec<String> {
        let mut state = None;
        minutes
            .iter()
            .map(|minute| {
                let (id, next) = assign(state, "demo", "42", EventTime::from_ms(minute * MINUTE), GAP);
                state = Some(next);
                id
            })
            .collect()
    }

    #[test]
    fn a_visit_goes_on_until_half_an_hour_without_an_event() {
        let ids = ids(&[0, 29, 59, 90]);
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[1], ids[2], "the pause counts from the last event, not from the first");
        assert_ne!(ids[2], ids[3]);
    }

    #[test]
    fn an_event_that_comes_late_joins_the_visit_that_it_was_made_in() {
        let ids = ids(&[0, 100, 10, 95, 200, 110, 1000, 205]);
        assert_eq!(ids[2], ids[0], "the visit before");
        assert_eq!(ids[3], ids[1], "before the first event of the visit that goes on");
        assert_eq!(ids[5], ids[1]);
        assert_eq!(ids[7], ids[4]);
    }

    #[test]
    fn an_event_between_two_visits_is_a_visit_and_one_of_long_ago_disturbs_none() {
        let between = ids(&[0, 600, 300, 305, 610]);
        assert_eq!(between.iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(between[2], between[3]);
        let ancient = ids(&[1_000, 2_000, 3, 4, 1_001, 2_001]);
        assert_eq!((&ancient[4], &ancient[5]), (&ancient[0], &ancient[1]));
        assert_eq!(ancient[2], ancient[3]);
    }

    #[test]
    fn customers_and_tenants_share_no_visit() {
        let of = |tenant, customer| assign(None, tenant, customer, EventTime::from_ms(5), GAP).0;
        let ids = BTreeSet::from([of("a", "1"), of("a", "2"), of("b", "1"), of("b", "2")]);
        assert_eq!(ids.len(), 4);
        assert!(ids.iter().all(|id| id.len() == 32));
    }

    proptest! {
        #[test]
        fn a_replay_gives_the_same_ids(minutes in proptest::collection::vec(-500i64..500, 1..40)) {
            prop_assert_eq!(ids(&minutes), ids(&minutes));
        }

        #[test]
        fn an_event_seen_again_right_away_is_in_the_same_visit(
            minutes in proptest::collection::vec(-500i64..500, 1..40)
        ) {
            let doubled: Vec<i64> = minutes.iter().flat_map(|m| [*m, *m]).collect();
            for pair in ids(&doubled).chunks(2) {
                prop_assert_eq!(&pair[0], &pair[1]);
            }
        }

        #[test]
        fn the_order_of_two_events_within_the_gap_does_not_matter(start in -9_000_000i64..9_000_000, later in 0i64..=30) {
            let (forth, back) = (ids(&[start, start + later]), ids(&[start + later, start]));
            prop_assert_eq!(&forth[0], &forth[1]);
            prop_assert_eq!(&back[0], &back[1]);
        }

        #[test]
        fn a_longer_pause_always_begins_another_visit(start in -9_000_000i64..9_000_000, pause in 31i64..9_000_000) {
            let ids = ids(&[start, start + pause]);
            prop_assert_ne!(&ids[0], &ids[1]);
        }

        #[test]
        fn in_order_the_visits_are_exactly_the_stretches_without_a_pause(
            pauses in proptest::collection::vec(0i64..80, 1..30)
        ) {
            let mut minutes = vec![0];
            for pause in &pauses { minutes.push(minutes[minutes.len() - 1] + pause); }
            let ids = ids(&minutes);
            for (i, pause) in pauses.iter().enumerate() {
                prop_assert_eq!(ids[i] == ids[i + 1], *pause <= 30);
            }
        }

        #[test]
        fn what_is_kept_reads_back(minutes in proptest::collection::vec(-500i64..500, 1..10)) {
            let mut state = None;
            for minute in minutes {
                state = Some(assign(state, "demo", "42", EventTime::from_ms(minute * MINUTE), GAP).1);
            }
            prop_assert_eq!(state.and_then(|s| Session::from_bytes(&s.to_bytes())), state);
        }

        #[test]
        fn no_bytes_and_no_time_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), ms: i64) {
            let state = Session::from_bytes(&bytes);
            let (_, next) = assign(state, "t", "c", EventTime::from_ms(ms), GAP);
            let _ = next.last();
        }
    }
}
