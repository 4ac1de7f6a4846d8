//! A believable event time. Event time rules everywhere, so a wrong clock must not reach features.

use std::time::Duration;

use rapport_events::EventTime;
use rapport_proto::events::Event;

/// An event further in the future than this cannot be right in any time zone (PostHog's bound).
const FUTURE: Duration = Duration::from_secs(23 * 3600);

/// Fills or mends `event_time`: the producer's clock may be wrong, but the gap between its two
/// stamps is right (Segment's rule). Old events are history, not errors.
pub fn settle(event: &mut Event, received_at: EventTime) {
    // `validate` has refused stamps that are out of range.
    let stamp = |t: &Option<prost_types::Timestamp>| t.as_ref().and_then(EventTime::from_proto);
    let (stamped, sent) = (stamp(&event.event_time), stamp(&event.sent_at));
    let time = corrected(received_at, sent, stamped).or(stamped).unwrap_or(received_at);
    let believable = if time > received_at && time.since(received_at) > FUTURE { received_at } else { time };
    event.event_time = Some(believable.to_proto());
}

/// `event = received - (sent - stamped)`. `None` when the producer did not stamp both, or when the
/// result leaves the calendar.
pub fn corrected(received: EventTime, sent: Option<EventTime>, stamped: Option<EventTime>) -> Option<EventTime> {
    let gap = sent?.as_ms().checked_sub(stamped?.as_ms())?;
    let time = EventTime::from_ms(received.as_ms().checked_sub(gap)?);
    EventTime::from_proto(&time.to_proto())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: EventTime = EventTime::from_ms(1_800_000_000_000);

    fn settled(stamped: Option<i64>, sent: Option<i64>) -> i64 {
        let proto = |ms: Option<i64>| ms.map(|ms| EventTime::from_ms(ms).to_proto());
        let mut event = Event { event_time: proto(stamped), sent_at: proto(sent), ..Event::default() };
        settle(&mut event, RECEIVED);
        EventTime::from_proto(&event.event_time.unwrap()).unwrap().as_ms()
    }

    #[test]
    fn a_phone_set_to_next_year_still_reports_the_right_moment() {
        let year = 365 * 24 * 3_600_000;
        let wrong_now = RECEIVED.as_ms() + year;
        assert_eq!(settled(Some(wrong_now - 5_000), Some(wrong_now)), RECEIVED.as_ms() - 5_000);
    }

    #[test]
    fn ratings_from_1997_are_history_and_stay() {
        assert_eq!(settled(Some(874_724_710_000), None), 874_724_710_000);
    }

    #[test]
    fn no_stamp_or_one_from_the_future_becomes_the_moment_of_receipt() {
        assert_eq!(settled(None, None), RECEIVED.as_ms());
        assert_eq!(settled(Some(RECEIVED.as_ms() + 48 * 3_600_000), None), RECEIVED.as_ms());
        assert_eq!(settled(Some(RECEIVED.as_ms() + 3_600_000), None), RECEIVED.as_ms() + 3_600_000, "a time zone off");
    }
}
