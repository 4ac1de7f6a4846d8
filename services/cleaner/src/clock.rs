//! A believable event time. Event time rules everywhere, so a wrong clock must not reach features.

use std::time::Duration;

use rapport_events::{EventTime, FieldError};
use rapport_policy::{OnAncient, OnFuture, Time};
use rapport_proto::events::{Event, Observation};

/// What became of the event's time.
#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    /// It stays as the producer stamped it.
    AsStamped,
    /// It was filled in, corrected, or replaced.
    Mended,
    /// It stays, and the policy's bound for the past is told.
    Ancient(Observation),
}

/// Fills or mends `event_time`: the producer's clock may be wrong, but the gap between its two
/// stamps is right (Segment's rule). What is left too far in the future or in the past is treated as
/// the policy says; without one, old events are history and not errors.
///
/// # Errors
/// `event_time`, by rule `time:future` or `time:ancient`, where the policy refuses.
pub fn settle(event: &mut Event, received_at: EventTime, rules: &Time) -> Result<Settled, FieldError> {
    // `validate` has refused stamps that are out of range.
    let stamp = |t: &Option<prost_types::Timestamp>| t.as_ref().and_then(EventTime::from_proto);
    let (stamped, sent) = (stamp(&event.event_time), stamp(&event.sent_at));
    let mut time = corrected(received_at, sent, stamped).or(stamped).unwrap_or(received_at);
    if time.since(received_at) > rules.future {
        if rules.on_future == OnFuture::Refuse {
            let reason = format!(
                "is {} after it was received; the policy believes {} at most",
                words(time.since(received_at)),
                words(rules.future)
            );
            return Err(FieldError::policy("event_time", reason).by_rule("time:future"));
        }
        time = received_at;
    }
    event.event_time = Some(time.to_proto());
    if let Some(oldest) = rules.oldest
        && received_at.since(time) > oldest
    {
        let reason = format!(
            "is {} before it was received; the policy's limit is {}",
            words(received_at.since(time)),
            words(oldest)
        );
        return match rules.on_ancient {
            OnAncient::Refuse => Err(FieldError::policy("event_time", reason).by_rule("time:ancient")),
            OnAncient::Mark => {
                Ok(Settled::Ancient(Observation { rule: "time:ancient".into(), field: "event_time".into(), reason }))
            }
        };
    }
    Ok(if Some(time) == stamped { Settled::AsStamped } else { Settled::Mended })
}

/// `event = received - (sent - stamped)`. `None` when the producer did not stamp both, or when the
/// result leaves the calendar.
pub fn corrected(received: EventTime, sent: Option<EventTime>, stamped: Option<EventTime>) -> Option<EventTime> {
    let gap = sent?.as_ms().checked_sub(stamped?.as_ms())?;
    let time = EventTime::from_ms(received.as_ms().checked_sub(gap)?);
    EventTime::from_proto(&time.to_proto())
}

/// A length of time for a person, in its largest whole unit: `3 days`.
fn words(length: Duration) -> String {
    let seconds = length.as_secs();
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "days"),
        7_200.. => (seconds / 3_600, "hours"),
        120.. => (seconds / 60, "minutes"),
        _ => (seconds, "seconds"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: EventTime = EventTime::from_ms(1_800_000_000_000);
    const HOUR: i64 = 3_600_000;

    fn by(rules: &Time, stamped: Option<i64>, sent: Option<i64>) -> Result<(i64, Settled), FieldError> {
        let proto = |ms: Option<i64>| ms.map(|ms| EventTime::from_ms(ms).to_proto());
        let mut event = Event { event_time: proto(stamped), sent_at: proto(sent), ..Event::default() };
        let settled = settle(&mut event, RECEIVED, rules)?;
        Ok((EventTime::from_proto(&event.event_time.unwrap()).unwrap().as_ms(), settled))
    }

    fn settled(stamped: Option<i64>, sent: Option<i64>) -> i64 {
        by(&Time::default(), stamped, sent).unwrap().0
    }

    #[test]
    fn a_phone_set_to_next_year_still_reports_the_right_moment() {
        let year = 365 * 24 * HOUR;
        let wrong_now = RECEIVED.as_ms() + year;
        assert_eq!(settled(Some(wrong_now - 5_000), Some(wrong_now)), RECEIVED.as_ms() - 5_000);
    }

    #[test]
    fn ratings_from_1997_are_history_and_stay() {
        let ratings = by(&Time::default(), Some(874_724_710_000), None).unwrap();
        assert_eq!(ratings, (874_724_710_000, Settled::AsStamped));
    }

    #[test]
    fn no_stamp_or_one_from_the_future_becomes_the_moment_of_receipt() {
        assert_eq!(settled(None, None), RECEIVED.as_ms());
        assert_eq!(settled(Some(RECEIVED.as_ms() + 48 * HOUR), None), RECEIVED.as_ms());
        assert_eq!(settled(Some(RECEIVED.as_ms() + HOUR), None), RECEIVED.as_ms() + HOUR, "a time zone off");
    }

    #[test]
    fn a_policy_may_refuse_the_future_and_the_past_and_says_how_far_off_they_were() {
        let strict = Time {
            future: Duration::from_secs(600),
            oldest: Some(Duration::from_secs(30 * 86_400)),
            on_future: OnFuture::Refuse,
            on_ancient: OnAncient::Refuse,
        };
        let ahead = by(&strict, Some(RECEIVED.as_ms() + HOUR), None).unwrap_err();
        assert_eq!(ahead.rule.as_deref(), Some("time:future"));
        assert_eq!(ahead.reason, "is 60 minutes after it was received; the policy believes 10 minutes at most");
        let ancient = by(&strict, Some(RECEIVED.as_ms() - 31 * 24 * HOUR), None).unwrap_err();
        assert_eq!(ancient.reason, "is 31 days before it was received; the policy's limit is 30 days");
        assert!(by(&strict, Some(RECEIVED.as_ms() - 29 * 24 * HOUR), None).is_ok());
    }

    #[test]
    fn an_ancient_event_that_is_only_marked_keeps_its_time() {
        let rules = Time { oldest: Some(Duration::from_secs(3_600)), ..Time::default() };
        let then = RECEIVED.as_ms() - 3 * HOUR;
        let (time, settled) = by(&rules, Some(then), None).unwrap();
        assert_eq!(time, then);
        assert!(matches!(settled, Settled::Ancient(seen) if seen.rule == "time:ancient"));
    }
}
