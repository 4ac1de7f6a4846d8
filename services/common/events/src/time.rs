use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// When something happened: milliseconds since 1970-01-01 UTC. May be negative (history).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventTime(i64);

/// Years 0001 to 9999: what protobuf's Timestamp can hold.
const MIN_MS: i64 = -62_135_596_800_000;
const MAX_MS: i64 = 253_402_300_799_999;

impl EventTime {
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// The time of a clock, for the edges: nothing pure calls this.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// `None` outside the years 1 to 9999, or with nanoseconds outside their range.
    pub fn from_proto(t: &prost_types::Timestamp) -> Option<Self> {
        if !(0..1_000_000_000).contains(&t.nanos) {
            return None;
        }
        let ms = t.seconds.checked_mul(1000)?.checked_add(i64::from(t.nanos / 1_000_000))?;
        (MIN_MS..=MAX_MS).contains(&ms).then_some(Self(ms))
    }

    pub fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(1000),
            nanos: i32::try_from(self.0.rem_euclid(1000) * 1_000_000).unwrap_or(0),
        }
    }

    /// An RFC 3339 stamp such as `2026-11-24T06:00:00.250Z`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let time: prost_types::Timestamp = text.trim().parse().ok()?;
        Self::from_proto(&time)
    }

    /// Time from `earlier` to this, zero when that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `YYYY-MM-DD` in UTC: the partition of the offline log.
    pub fn day(self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

impl From<SystemTime> for EventTime {
    fn from(time: SystemTime) -> Self {
        let ms = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(MAX_MS),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(MAX_MS),
        };
        Self(ms.clamp(MIN_MS, MAX_MS))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_proto().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stamp_reads_back_as_it_was_written() {
        let time = EventTime::parse_rfc3339("1997-09-20T03:05:10.250Z").unwrap();
        assert_eq!(time.as_ms(), 874_724_710_250);
        assert_eq!(time.day(), "1997-09-20");
        assert_eq!(EventTime::parse_rfc3339(&time.to_string()), Some(time));
    }

    proptest! {
        #[test]
        fn protobuf_keeps_every_millisecond(ms in MIN_MS..=MAX_MS) {
            let time = EventTime::from_ms(ms);
            prop_assert_eq!(EventTime::from_proto(&time.to_proto()), Some(time));
        }

        #[test]
        fn no_timestamp_panics(seconds: i64, nanos: i32) {
            let _ = EventTime::from_proto(&prost_types::Timestamp { seconds, nanos });
        }
    }
}
