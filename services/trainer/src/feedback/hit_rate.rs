//! How often the lists of a model are acted on, at first and of late.

use std::time::Duration;

use rapport_events::{EventTime, Tenant};
use rapport_offline::{OfflineLog, Selection, ServedList};
use rapport_runtime::parse_duration;

use super::{Credited, Outcomes, join};
use crate::Error;

/// When a fall of the hit rate asks for a training.
#[derive(Debug, Clone, clap::Args)]
pub struct HitRateArgs {
    /// Start a run when the live model's lists are acted on less often than in its first days, by this share
    /// of the rate (for example 0.2) and for sure at 1 %; for the default tenant
    #[arg(long, env = "RAPPORT_TRAIN_HIT_RATE_FALL", value_parser = share)]
    pub hit_rate_fall: Option<f64>,

    /// How long after a list was served an event with one of its items counts
    #[arg(long, env = "RAPPORT_TRAIN_HIT_RATE_WINDOW", default_value = "24h", value_parser = parse_duration)]
    pub hit_rate_window: Duration,

    /// What the first and the last days are, that are compared
    #[arg(long, env = "RAPPORT_TRAIN_HIT_RATE_SPAN", default_value = "72h", value_parser = parse_duration)]
    pub hit_rate_span: Duration,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err(format!("must be between 0 and 1, is {share}")) }
}

impl HitRateArgs {
    /// Why a run is due: the live model has fallen by enough. Reads the served log. Lists that it drafted with
    /// another one are left out.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn fallen(
        &self,
        log: &OfflineLog,
        tenant: &Tenant,
        live: &str,
        now: EventTime,
    ) -> Result<Option<String>, Error> {
        let Some(enough) = self.hit_rate_fall else { return Ok(None) };
        let mut lists = log.read_served(&Selection::of(tenant))?;
        let drafted = |list: &ServedList| list.items.iter().any(|item| !item.arm.is_empty());
        lists.retain(|list| list.model_version == live && !drafted(list));
        let from_day = lists.iter().map(|list| list.served_at.day()).min();
        let events = log.read(&Selection { from_day, ..Selection::of(tenant) })?;
        let outcomes = Outcomes { types: Vec::new(), window: self.hit_rate_window };
        let joined = join(lists, &events, &outcomes);
        let course = Course::of(joined.iter(), self.hit_rate_window, self.hit_rate_span, now);
        for (part, rate) in [("first", course.first), ("last", course.last)] {
            if let Some(rate) = rate.rate() {
                metrics::gauge!("rapport_trainer_hit_rate", "part" => part).set(rate);
            }
        }
        let Course { first, last } = course;
        let reason = |fall: f64| {
            let rate = |of: HitRate| format!("{:.4} of {}", of.rate().unwrap_or_default(), of.lists);
            format!(
                "lists of {live} are acted on {:.0} % less often: {} then, {} now",
                100.0 * fall,
                rate(first),
                rate(last)
            )
        };
        Ok(course.fall().filter(|fall| *fall >= enough).map(reason))
    }
}

/// Of some lists, how many were acted on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HitRate {
    pub lists: u64,
    pub hits: u64,
}

impl HitRate {
    /// Between 0 and 1; `None` of no list.
    pub fn rate(self) -> Option<f64> {
        (self.lists > 0).then(|| self.hits as f64 / self.lists as f64)
    }
}

/// A model's rate in its first days beside that of the last days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Course {
    pub first: HitRate,
    pub last: HitRate,
}

/// Lists below which nothing is said.
const FEWEST: u64 = 200;
/// One-sided 1 % of the normal distribution.
const SURE: f64 = 2.326_347_87;

impl Course {
    /// Of the lists of one version whose window has ended by `now`: those of its first `span`, and those of
    /// the `span` before the newest ended window. Spans that overlap say nothing.
    pub fn of<'a>(lists: impl Iterator<Item = &'a Credited>, window: Duration, span: Duration, now: EventTime) -> Self {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let ended = now.as_ms().saturating_sub(ms(window));
        let lists: Vec<&Credited> = lists.filter(|credited| credited.list.served_at.as_ms() <= ended).collect();
        let Some(began) = lists.iter().map(|credited| credited.list.served_at.as_ms()).min() else {
            return Self::default();
        };
        let (first_ends, last_begins) = (began.saturating_add(ms(span)), ended.saturating_sub(ms(span)));
        let mut course = Self::default();
        if last_begins < first_ends {
            return course;
        }
        for credited in lists {
            let at = credited.list.served_at.as_ms();
            let part = if at < first_ends {
                &mut course.first
            } else if at >= last_begins {
                &mut course.last
            } else {
                continue;
            };
            part.lists += 1;
            part.hits += u64::from(credited.acted_on());
        }
        course
    }

    /// The share of its first rate that is gone, where that is sure at 1 % (two proportions, pooled) and
    /// both parts have 200 lists or more.
    pub fn fall(&self) -> Option<f64> {
        if self.first.lists < FEWEST || self.last.lists < FEWEST {
            return None;
        }
        let (before, now) = (self.first.rate()?, self.last.rate()?);
        let (m, n) = (self.first.lists as f64, self.last.lists as f64);
        let pooled = (self.first.hits + self.last.hits) as f64 / (m + n);
        let error = (pooled * (1.0 - pooled) * (1.0 / m + 1.0 / n)).sqrt();
        (error > 0.0 && (before - now) / error > SURE).then(|| 1.0 - now / before)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Outcomes, join,
            join::tests::{event, list},
        },
        *,
    };

    const HOUR: i64 = 3_600_000;

    /// A list an hour, of which `hit` says whether it was acted on.
    fn served(hours: i64, hit: impl Fn(i64) -> bool) -> Vec<Credited> {
        let lists = (0..hours).map(|hour| list(&format!("c{hour}"), hour * HOUR, &[("a", 1.0)])).collect();
        let acted = |hour: &i64| hit(*hour);
        let events: Vec<_> =
            (0..hours).filter(acted).map(|hour| event(&format!("c{hour}"), "view", "a", hour * HOUR + 1)).collect();
        join(lists, &events, &Outcomes { types: Vec::new(), window: Duration::from_secs(3600) })
    }

    fn course(lists: &[Credited], hours: i64) -> Course {
        let span = Duration::from_secs(300 * 3600);
        Course::of(lists.iter(), Duration::from_secs(3600), span, EventTime::from_ms(hours * HOUR))
    }

    #[test]
    fn a_rate_that_halves_is_a_fall_and_one_that_stays_is_none() {
        let halves = served(1_000, |hour| if hour < 500 { hour % 5 < 2 } else { hour % 5 < 1 });
        let course_of_half = course(&halves, 1_000);
        assert_eq!((course_of_half.first.lists, course_of_half.first.hits), (300, 120));
        let fall = course_of_half.fall().unwrap();
        assert!((fall - 0.5).abs() < 0.02, "{fall}");
        assert_eq!(course(&served(1_000, |hour| hour % 5 < 2), 1_000).fall(), None);
        assert_eq!(course(&served(1_000, |_| false), 1_000).fall(), None, "nothing to fall from");
    }

    #[test]
    fn a_young_model_and_a_handful_of_lists_say_nothing() {
        let young = served(400, |hour| hour < 100);
        assert_eq!(course(&young, 400), Course::default(), "its first and last days overlap");
        let few = Course { first: HitRate { lists: 199, hits: 199 }, last: HitRate { lists: 500, hits: 0 } };
        assert_eq!(few.fall(), None);
    }

    #[test]
    fn lists_whose_window_has_not_ended_do_not_count_as_missed() {
        let lists = served(1_000, |_| true);
        let before = course(&lists, 700);
        assert_eq!((before.last.lists, before.last.hits), (301, 301));
    }
}
