//! Times as files and other people's systems write them.

use rapport_events::EventTime;
use serde_json::Value as Json;

use crate::fields::from_ms;

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TimeFormat {
    Rfc3339,
    UnixSeconds,
    UnixMilliseconds,
    /// Parts between literal characters, and the offset from UTC in minutes of times that name none.
    Parts {
        parts: Vec<Part>,
        offset_minutes: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Literal(char),
    /// `%Y`, four digits.
    Year,
    /// `%y`, two digits: 69 to 99 are of the 20th century, as in POSIX.
    ShortYear,
    /// `%m`.
    Month,
    /// `%b`, `%B`: the English name or its first three letters.
    MonthName,
    /// `%d`.
    Day,
    /// `%H`.
    Hour,
    /// `%I`, with `%p`.
    HalfDayHour,
    /// `%p`: AM or PM.
    HalfDay,
    /// `%M`.
    Minute,
    /// `%S`.
    Second,
    /// `%f`: digits of a fraction of a second.
    Fraction,
    /// `%z`: `+0100`, `+01:00` or `Z`.
    Offset,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl TimeFormat {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, timezone: Option<&str>) -> Result<Self, String> {
        let named = match text {
            "rfc3339" => Some(Self::Rfc3339),
            "unix_s" => Some(Self::UnixSeconds),
            "unix_ms" => Some(Self::UnixMilliseconds),
            _ => None,
        };
        if let Some(format) = named {
            return match timezone {
                None => Ok(format),
                Some(_) => Err(format!("{text} needs no timezone; only a format like \"%Y-%m-%d %H:%M\" has one")),
            };
        }
        let parts = parts(text)?;
        for (part, name) in [(Part::Day, "%d"), (Part::Month, "%m")] {
            let other = part == Part::Month && parts.contains(&Part::MonthName);
            if !(parts.contains(&part) || other) {
                return Err(format!("{text:?} has no {name}; a format has a year, a month and a day"));
            }
        }
        if !(parts.contains(&Part::Year) || parts.contains(&Part::ShortYear)) {
            return Err(format!("{text:?} has neither %Y nor %y; a format has a year, a month and a day"));
        }
        if parts.contains(&Part::HalfDayHour) != parts.contains(&Part::HalfDay) {
            return Err(format!("{text:?} has %I or %p without the other"));
        }
        let offset_minutes = match timezone {
            None => 0,
            Some(text) => match offset(text) {
                Some((minutes, "")) => minutes,
                _ => return Err(format!("timezone must be an offset such as +01:00 or Z, is {text:?}")),
            },
        };
        Ok(Self::Parts { parts, offset_minutes })
    }

    /// `None` when the value is not written so.
    pub fn read(&self, value: &Json) -> Option<EventTime> {
        let number = || match value {
            Json::Number(number) => number.as_f64(),
            Json::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match self {
            Self::Rfc3339 => EventTime::parse_rfc3339(value.as_str()?),
            Self::UnixSeconds => from_ms(number()? * 1000.0),
            Self::UnixMilliseconds => from_ms(number()?),
            Self::Parts { parts, offset_minutes } => read(parts, *offset_minutes, value.as_str()?.trim()),
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            parts.push(Part::Literal(c));
            continue;
        }
        parts.push(match chars.next() {
            Some('Y') => Part::Year,
            Some('y') => Part::ShortYear,
            Some('m') => Part::Month,
            Some('b' | 'B') => Part::MonthName,
            Some('d') => Part::Day,
            Some('H') => Part::Hour,
            Some('I') => Part::HalfDayHour,
            Some('p') => Part::HalfDay,
            Some('M') => Part::Minute,
            Some('S') => Part::Second,
            Some('f') => Part::Fraction,
            Some('z') => Part::Offset,
            Some('%') => Part::Literal('%'),
            other => {
                let what = other.map_or_else(|| "%".to_owned(), |c| format!("%{c}"));
                return Err(format!(
                    "{what} in {text:?} is not known; %Y %y %m %b %d %H %I %p %M %S %f %z are, and rfc3339, unix_s and unix_ms by name"
                ));
            }
        });
    }
    Ok(parts)
}

#[derive(Default)]
struct Moment {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    ms: i64,
    afternoon: Option<bool>,
    offset_minutes: Option<i32>,
}

fn read(parts: &[Part], offset_minutes: i32, mut rest: &str) -> Option<EventTime> {
    let mut moment = Moment::default();
    for part in parts {
        rest = match part {
            Part::Literal(c) => rest.strip_prefix(*c)?,
            Part::Year => digits(rest, 4, 4, &mut moment.year)?,
            Part::ShortYear => {
                let after = digits(rest, 2, 2, &mut moment.year)?;
                moment.year += if moment.year < 69 { 2000 } else { 1900 };
                after
            }
            Part::Month => digits(rest, 1, 2, &mut moment.month)?,
            Part::MonthName => {
                let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
                let (name, after) = rest.split_at(length);
                let name = name.to_ascii_lowercase();
                let is = |month: &&str| *month == name || month.get(..3) == Some(name.as_str());
                moment.month = i64::try_from(MONTHS.iter().position(is)?).ok()? + 1;
                after
            }
            Part::Day => digits(rest, 1, 2, &mut moment.day)?,
            Part::Hour | Part::HalfDayHour => digits(rest, 1, 2, &mut moment.hour)?,
            Part::HalfDay => {
                let (half, after) = rest.split_at_checked(2)?;
                moment.afternoon = Some(half.eq_ignore_ascii_case("pm"));
                if !half.eq_ignore_ascii_case("am") && !half.eq_ignore_ascii_case("pm") {
                    return None;
                }
                after
            }
            Part::Minute => digits(rest, 1, 2, &mut moment.minute)?,
            Part::Second => digits(rest, 1, 2, &mut moment.second)?,
            Part::Fraction => {
                let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let (fraction, after) = rest.split_at(length);
                let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
                moment.ms = if fraction.is_empty() { return None } else { thousandths.parse().ok()? };
                after
            }
            Part::Offset => {
                let (minutes, after) = offset(rest)?;
                moment.offset_minutes = Some(minutes);
                after
            }
        };
    }
    if !rest.is_empty() {
        return None;
    }
    moment.time(offset_minutes)
}

impl Moment {
    fn time(mut self, offset_minutes: i32) -> Option<EventTime> {
        if let Some(afternoon) = self.afternoon {
            if !(1..=12).contains(&self.hour) {
                return None;
            }
            self.hour = self.hour % 12 + if afternoon { 12 } else { 0 };
        }
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let days = match self.month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + i64::from(leap),
            1..=12 => 31,
            _ => return None,
        };
        let in_range =
            (1..=days).contains(&self.day) && self.hour < 24 && self.minute < 60 && self.second < 61 && self.year > 0;
        if !in_range {
            return None;
        }
        // A leap second counts as the one before it, as everywhere here.
        let second = self.second.min(59);
        let minutes = (days_since_1970(self.year, self.month, self.day) * 24 + self.hour) * 60 + self.minute
            - i64::from(self.offset_minutes.unwrap_or(offset_minutes));
        let time = EventTime::from_ms((minutes * 60 + second) * 1000 + self.ms);
        EventTime::from_proto(&time.to_proto())
    }
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn digits<'a>(text: &'a str, least: usize, most: usize, into: &mut i64) -> Option<&'a str> {
    let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(length).filter(|_| length >= least)?;
    *into = digits.parse().ok()?;
    Some(rest)
}

/// Minutes east of UTC, and what follows.
fn offset(text: &str) -> Option<(i32, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((0, rest));
    }
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (mut hours, mut minutes) = (0, 0);
    let rest = digits(rest, 2, 2, &mut hours)?;
    let rest = digits(rest.strip_prefix(':').unwrap_or(rest), 2, 2, &mut minutes)?;
    let total = i32::try_from(hours * 60 + minutes).ok().filter(|_| hours < 24 && minutes < 60)?;
    Some((sign * total, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(format: &str, value: impl Into<Json>) -> Option<String> {
        let time = TimeFormat::parse(format, None).unwrap().read(&value.into());
        time.map(|time| time.to_string())
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("%m/%d/%Y %H:%M", "12/1/2010 8:26"), some("2010-12-01T08:26:00Z"));
        assert_eq!(read("%m/%d/%y %H:%M", "12/1/10 8:26"), some("2010-12-01T08:26:00Z"));
        assert_eq!(read("%m/%d/%Y %H:%M", "12/1/10 8:26"), None);
        assert_eq!(read("%d %b %Y, %I:%M %p", "03 Feb 2024, 12:05 AM"), some("2024-02-03T00:05:00Z"));
        assert_eq!(read("%B %d %Y %I%p", "may 3 1969 4pm"), some("1969-05-03T16:00:00Z"));
        assert_eq!(read("%Y-%m-%dT%H:%M:%S.%f%z", "2024-02-29T23:59:60.5+01:00"), some("2024-02-29T22:59:59.500Z"));
        assert_eq!(read("%Y%m%d", "20230229"), None, "no leap year");
        assert_eq!(read("unix_s", 1_795_513_670), some("2026-11-24T09:47:50Z"));
        assert_eq!(read("unix_s", "1795513670.25"), some("2026-11-24T09:47:50.250Z"));
        assert_eq!(read("unix_ms", json!(1_795_513_670_250_i64)), some("2026-11-24T09:47:50.250Z"));
        assert_eq!(read("rfc3339", "2008-01-10T11:00:00-05:00"), some("2008-01-10T16:00:00Z"));
        let berlin = TimeFormat::parse("%d.%m.%Y %H:%M", Some("+01:00")).unwrap();
        assert_eq!(berlin.read(&json!("24.11.2026 10:47")).unwrap().to_string(), "2026-11-24T09:47:00Z");
    }

    #[test]
    fn a_wrong_format_says_what_would_be_right() {
        let reason = |format: &str, zone: Option<&str>| TimeFormat::parse(format, zone).unwrap_err();
        assert!(reason("%Q", None).starts_with("%Q in \"%Q\" is not known; %Y"));
        assert!(reason("%Y-%m", None).contains("has no %d"));
        assert!(reason("%d.%m.", None).contains("neither %Y nor %y"));
        assert!(reason("%Y-%m-%d %I", None).contains("%I or %p without the other"));
        assert!(reason("%Y-%m-%d", Some("CET")).contains("an offset such as +01:00"));
        assert!(reason("unix_s", Some("Z")).contains("needs no timezone"));
    }

    proptest! {
        #[test]
        fn every_moment_is_read_as_prost_writes_it(ms in -62_135_596_800_000_i64..=253_402_300_799_999) {
            let time = EventTime::from_ms(ms - ms.rem_euclid(1000));
            prop_assert_eq!(read("%Y-%m-%dT%H:%M:%SZ", time.to_string()), Some(time.to_string()));
        }

        #[test]
        fn no_text_panics(format in "(%[YymbBdHIpMSfz]|[ -~]){0,10}", text in "\\PC{0,20}") {
            if let Ok(format) = TimeFormat::parse(&format, None) {
                prop_assert!(format.read(&json!(text)).is_none_or(|time| EventTime::from_proto(&time.to_proto()).is_some()));
            }
        }
    }
}
