//! What was known of one entity at many moments of the past: the rows that models learn from.

use rapport_events::{CleanEvent, EventTime};

use crate::{CustomerState, State};

/// Something that events are folded into.
pub trait Fold: Clone {
    fn apply(&mut self, event: &CleanEvent);
}

impl Fold for CustomerState {
    fn apply(&mut self, event: &CleanEvent) {
        Self::apply(self, event);
    }
}

impl Fold for State {
    fn apply(&mut self, event: &CleanEvent) {
        Self::apply(self, event);
    }
}

/// From when on an event is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// From its own time: what came late counts where it belongs.
    ByTime,
    /// From when it had happened and had been received: what serving could have had.
    ByArrival,
}

impl Known {
    pub fn since(self, event: &CleanEvent) -> EventTime {
        match self {
            Self::ByTime => event.time,
            Self::ByArrival => event.time.max(event.received_at),
        }
    }
}

/// The events of one entity and, of an item, of one source partition, folded up to one moment after
/// another: each time what was known by then, in the order of the log, as serving folds it. Cheap while
/// moments ascend and the log is in the order of time; what is out of order is folded from the start again.
#[derive(Debug)]
pub struct Moments<'a, S> {
    /// In log order.
    events: Vec<&'a CleanEvent>,
    /// When each is known, and where it stands in `events`; ascending.
    by_time: Vec<(EventTime, usize)>,
    /// How many of `by_time` are folded in.
    known: usize,
    /// The last of `events` that is folded in.
    last: Option<usize>,
    fresh: S,
    state: S,
}

impl<'a, S: Fold> Moments<'a, S> {
    /// `events` in log order, into `fresh`.
    pub fn new(fresh: S, events: impl IntoIterator<Item = &'a CleanEvent>, known: Known) -> Self {
        let events: Vec<_> = events.into_iter().collect();
        let mut by_time: Vec<_> = events.iter().enumerate().map(|(n, event)| (known.since(event), n)).collect();
        by_time.sort_unstable();
        Self { events, by_time, known: 0, last: None, state: fresh.clone(), fresh }
    }

    /// The state of what was known at the moment, or before it.
    pub fn at(&mut self, moment: EventTime) -> &S {
        let until = self.by_time.partition_point(|(time, _)| *time <= moment);
        let in_order = until >= self.known && {
            let news = self.by_time.get(self.known..until).unwrap_or_default();
            news.iter().all(|(_, n)| self.last.is_none_or(|last| *n > last))
        };
        let from = if in_order {
            self.known
        } else {
            (self.state, self.last) = (self.fresh.clone(), None);
            0
        };
        let mut news: Vec<usize> = self.by_time.get(from..until).unwrap_or_default().iter().map(|(_, n)| *n).collect();
        news.sort_unstable();
        for n in news {
            if let Some(event) = self.events.get(n) {
                self.state.apply(event);
            }
            self.last = Some(n);
        }
        self.known = until;
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rapport_events::{LoggedEvent, Position, Tenant};

    use super::*;
    use crate::{Views, vector_at};

    fn logged(offset: i64, time: i64, late: i64) -> LoggedEvent {
        let event = CleanEvent {
            tenant: Tenant::parse("demo").unwrap(),
            event_id: offset.to_string(),
            kind: if offset % 3 == 0 { "purchase" } else { "view" }.into(),
            customer_id: "ann".into(),
            item_id: Some(format!("i{}", offset % 5)),
            category: Some(format!("k{}", offset % 2)),
            session_id: None,
            segment: None,
            time: EventTime::from_ms(time),
            received_at: EventTime::from_ms(time + late),
            // Sums that round show the order of the fold in the last bit.
            value: Some(offset as f64 / 3.0 + 0.1),
        };
        LoggedEvent { position: Position { partition: 0, offset }, event }
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn a_row_is_bit_for_bit_what_the_log_up_to_its_moment_says(
            times in prop::collection::vec((0i64..40_000_000, 0i64..9_000_000), 0..40),
            moments in prop::collection::vec(0i64..50_000_000, 1..20),
        ) {
            let views = Arc::new(Views::built_in().unwrap());
            let log: Vec<_> = times.iter().enumerate().map(|(n, (time, late))| logged(n as i64, *time, *late)).collect();
            let tenant = Tenant::parse("demo").unwrap();
            for known in [Known::ByTime, Known::ByArrival] {
                let events = log.iter().map(|logged| &logged.event);
                let mut rows = Moments::new(CustomerState::new(&views), events, known);
                for moment in moments.iter().copied().map(EventTime::from_ms) {
                    let by_then: Vec<_> = log.iter().filter(|l| known.since(&l.event) <= moment).cloned().collect();
                    let wanted = vector_at(&views, &by_then, &tenant, "ann", moment);
                    prop_assert_eq!(bits(&rows.at(moment).read(moment)), bits(&wanted));
                }
            }
        }
    }

    #[test]
    fn an_event_counts_at_its_own_moment_and_a_late_one_by_arrival_only_when_it_came() {
        let views = Arc::new(Views::built_in().unwrap());
        let log = [logged(0, 1_000, 0), logged(1, 2_000, 60_000)];
        let of = |known, moment| {
            let events = log.iter().map(|logged| &logged.event);
            Moments::new(CustomerState::new(&views), events, known).at(EventTime::from_ms(moment)).version()
        };
        assert_eq!([999, 1_000, 2_000, 62_000].map(|ms| of(Known::ByTime, ms)), [0, 1, 2, 2]);
        assert_eq!([999, 1_000, 2_000, 62_000].map(|ms| of(Known::ByArrival, ms)), [0, 1, 1, 2]);
    }
}
