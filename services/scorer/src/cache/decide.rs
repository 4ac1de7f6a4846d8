use std::time::Duration;

use rapport_events::EventTime;

use super::list::{Header, ModelStamp};

/// A list that lacks new items is made anew behind an answer no sooner than this after it was made: while items
/// come all the time, each customer who is there costs a list a minute.
const NEWS_AFTER: Duration = Duration::from_secs(60);

/// What to do with what Redis holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It reflects everything that is known: serve it.
    Hit,
    /// This many events old: serve it after the filters, and make a new one behind the answer.
    Stale { lag: u64 },
    /// The same of a list that the model before the live one made, a moment ago.
    Outgoing { lag: u64 },
    /// Make a new one now.
    Compute(Why),
}

/// Why a list is made for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Missing,
    /// No model is live: trends are made anew at no cost.
    NoModel,
    /// Another model is live: promoting and rolling back are each one change of epoch.
    OtherModel,
    /// Too many events behind.
    Behind,
    /// It reflects events that the store has lost (a restore, a failover).
    Ahead,
    /// The caller does not take an older one.
    Fresh,
    /// Items came after it was made, and the placement keeps places for such.
    NewItems,
}

impl Why {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NoModel => "no_model",
            Self::OtherModel => "other_model",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
            Self::Fresh => "fresh",
            Self::NewItems => "new_items",
        }
    }
}

/// The rules of the cache, in order. Nothing is ever deleted on an event: the versions decide at
/// each read.
///
/// `outgoing`: the model before the live one, as long as its lists may be served. Made anew at once, the lists
/// of everybody who asks are more work than a scorer has time for; behind the answers, nobody waits for them.
pub fn decide(
    list: Option<&Header>,
    live: Option<ModelStamp>,
    outgoing: Option<ModelStamp>,
    version: u64,
    fresh: bool,
    max_lag: u64,
) -> Decision {
    let Some(live) = live else { return Decision::Compute(Why::NoModel) };
    let Some(list) = list else { return Decision::Compute(Why::Missing) };
    if list.model != live {
        let lag = version.checked_sub(list.version).filter(|lag| *lag <= max_lag && !fresh);
        return match lag {
            Some(lag) if Some(list.model) == outgoing => Decision::Outgoing { lag },
            _ => Decision::Compute(Why::OtherModel),
        };
    }
    match version.checked_sub(list.version) {
        None => Decision::Compute(Why::Ahead),
        Some(0) => Decision::Hit,
        Some(_) if fresh => Decision::Compute(Why::Fresh),
        Some(lag) if lag <= max_lag => Decision::Stale { lag },
        Some(_) => Decision::Compute(Why::Behind),
    }
}

impl Decision {
    /// The same where places are kept for new items, of which the newest came at `news`: a list that is older
    /// gives way as one does that is a few events old.
    pub fn with_news(self, list: Option<&Header>, news: Option<EventTime>, fresh: bool, now: EventTime) -> Self {
        let older = list.zip(news).filter(|(list, news)| list.created < *news);
        match (self, older) {
            (Self::Hit, Some(_)) if fresh => Self::Compute(Why::NewItems),
            (Self::Hit, Some((list, _))) if now.since(list.created) >= NEWS_AFTER => Self::Stale { lag: 0 },
            (decided, _) => decided,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIVE: ModelStamp = ModelStamp { epoch: 7, manifest: 42 };

    fn list(version: u64) -> Header {
        Header { model: LIVE, version, newest: None, created: EventTime::from_ms(0), complete: false }
    }

    #[test]
    fn the_versions_decide() {
        assert_eq!(decide(None, Some(LIVE), None, 10, false, 5), Decision::Compute(Why::Missing));
        assert_eq!(decide(Some(&list(10)), None, None, 10, false, 5), Decision::Compute(Why::NoModel));
        assert_eq!(decide(Some(&list(10)), Some(LIVE), None, 10, false, 5), Decision::Hit);
        assert_eq!(decide(Some(&list(10)), Some(LIVE), None, 10, true, 5), Decision::Hit, "nothing is fresher");
        assert_eq!(decide(Some(&list(5)), Some(LIVE), None, 10, false, 5), Decision::Stale { lag: 5 });
        assert_eq!(decide(Some(&list(4)), Some(LIVE), None, 10, false, 5), Decision::Compute(Why::Behind));
        assert_eq!(decide(Some(&list(9)), Some(LIVE), None, 10, true, 5), Decision::Compute(Why::Fresh));
        assert_eq!(decide(Some(&list(11)), Some(LIVE), None, 10, false, 5), Decision::Compute(Why::Ahead));
    }

    #[test]
    fn a_rollback_is_another_epoch_and_so_is_the_same_epoch_of_another_installation() {
        let back = ModelStamp { epoch: 8, ..LIVE };
        let elsewhere = ModelStamp { manifest: 1, ..LIVE };
        for live in [back, elsewhere] {
            assert_eq!(decide(Some(&list(10)), Some(live), None, 10, false, 5), Decision::Compute(Why::OtherModel));
        }
    }

    #[test]
    fn for_a_while_after_a_swap_a_list_of_the_model_before_is_served_like_one_that_is_a_few_events_old() {
        let live = Some(ModelStamp { epoch: 8, ..LIVE });
        let decided = |version, fresh| decide(Some(&list(10)), live, Some(LIVE), version, fresh, 5);
        assert_eq!(decided(10, false), Decision::Outgoing { lag: 0 });
        assert_eq!(decided(15, false), Decision::Outgoing { lag: 5 });
        for refused in [decided(10, true), decided(16, false), decided(9, false)] {
            assert_eq!(refused, Decision::Compute(Why::OtherModel));
        }
        let older = Some(ModelStamp { epoch: 6, ..LIVE });
        assert_eq!(decide(Some(&list(10)), live, older, 10, false, 5), Decision::Compute(Why::OtherModel));
    }

    #[test]
    fn a_list_that_is_older_than_the_newest_item_gives_way_after_a_minute_or_at_once_for_a_fresh_one() {
        let at = EventTime::from_ms;
        let list = Header { created: at(100_000), ..list(10) };
        let of = |news, fresh, now| Decision::Hit.with_news(Some(&list), news, fresh, at(now));
        assert_eq!(of(Some(at(120_000)), false, 159_999), Decision::Hit);
        assert_eq!(of(Some(at(120_000)), false, 160_000), Decision::Stale { lag: 0 });
        assert_eq!(of(Some(at(120_000)), true, 120_000), Decision::Compute(Why::NewItems));
        for nothing_new in [None, Some(at(100_000))] {
            assert_eq!(of(nothing_new, false, 900_000), Decision::Hit);
            assert_eq!(of(nothing_new, true, 900_000), Decision::Hit);
        }
        let stale = Decision::Stale { lag: 2 };
        assert_eq!(stale.with_news(Some(&list), Some(at(120_000)), false, at(900_000)), stale, "on its way already");
    }

    proptest! {
        #[test]
        fn what_is_served_is_of_the_live_model_and_within_the_lag(
            version: u64, listed: u64, epoch in 6u64..9, before in 6u64..9, fresh: bool, max_lag in 0u64..10,
        ) {
            let outgoing = Some(ModelStamp { epoch: before, ..LIVE });
            let live = ModelStamp { epoch, ..LIVE };
            match decide(Some(&list(listed)), Some(live), outgoing, version, fresh, max_lag) {
                Decision::Hit => prop_assert!(epoch == 7 && version == listed),
                Decision::Stale { lag } => {
                    prop_assert!(epoch == 7 && !fresh && lag <= max_lag);
                    prop_assert_eq!(listed + lag, version);
                }
                Decision::Outgoing { lag } => {
                    prop_assert!(epoch != 7 && before == 7 && !fresh && lag <= max_lag);
                    prop_assert_eq!(listed + lag, version);
                }
                Decision::Compute(_) => prop_assert!(epoch != 7 || version != listed),
            }
        }
    }
}
