//! Dates of files as days since 1970-01-01.

use rapport_events::EventTime;

const DAY_MS: i64 = 86_400_000;

/// How a file writes dates. What follows the date behind a space or a `T` is a time of day and does
/// not count: a day is the one that stands there, whatever its time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateFormat(Vec<Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Literal(char),
    /// `%Y`, four digits.
    Year,
    /// `%y`, two digits: 69 to 99 are of the 20th century, as in POSIX.
    ShortYear,
    /// `%m`, one or two digits.
    Month,
    /// `%d`, one or two digits.
    Day,
}

impl DateFormat {
    /// `2026-11-24`.
    pub fn iso() -> Self {
        Self(vec![Part::Year, Part::Literal('-'), Part::Month, Part::Literal('-'), Part::Day])
    }

    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            parts.push(match letter {
                '%' => match letters.next() {
                    Some('Y') => Part::Year,
                    Some('y') => Part::ShortYear,
                    Some('m') => Part::Month,
                    Some('d') => Part::Day,
                    _ => return Err(format!("{text:?} may have %Y, %y, %m and %d; a time behind a space is ignored")),
                },
                letter => Part::Literal(letter),
            });
        }
        let count = |wanted: &[Part]| parts.iter().filter(|part| wanted.contains(part)).count();
        if [count(&[Part::Year, Part::ShortYear]), count(&[Part::Month]), count(&[Part::Day])] != [1, 1, 1] {
            return Err(format!("{text:?} must have a year, a month and a day, each once, as in %Y-%m-%d"));
        }
        Ok(Self(parts))
    }

    /// The day of `text`; `None` where it is no date of this format.
    pub fn day(&self, text: &str) -> Option<i32> {
        let (mut year, mut month, mut day) = (0, 0, 0);
        let mut rest = text.trim();
        for part in &self.0 {
            rest = match part {
                Part::Literal(letter) => rest.strip_prefix(*letter)?,
                Part::Year => digits(rest, 4, 4, &mut year)?,
                Part::ShortYear => {
                    let after = digits(rest, 2, 2, &mut year)?;
                    year += if year < 69 { 2000 } else { 1900 };
                    after
                }
                Part::Month => digits(rest, 1, 2, &mut month)?,
                Part::Day => digits(rest, 1, 2, &mut day)?,
            };
        }
        if !(rest.is_empty() || rest.starts_with([' ', 'T'])) {
            return None;
        }
        let midnight = EventTime::parse_rfc3339(&format!("{year:04}-{month:02}-{day:02}T00:00:00Z"))?;
        let days = midnight.as_ms().div_euclid(DAY_MS);
        // 31 June must not become 1 July.
        (midnight.day() == format!("{year:04}-{month:02}-{day:02}")).then(|| i32::try_from(days).ok())?
    }
}

/// Takes from `least` to `most` digits.
fn digits<'a>(text: &'a str, least: usize, most: usize, into: &mut u32) -> Option<&'a str> {
    let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(length).filter(|_| length >= least)?;
    *into = digits.parse().ok()?;
    Some(rest)
}

/// A day as `2026-11-24`.
pub fn written(day: i32) -> String {
    EventTime::from_ms(i64::from(day) * DAY_MS).day()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_and_written_back_and_its_time_does_not_count() {
        let iso = DateFormat::iso();
        assert_eq!(iso.day("1970-01-01"), Some(0));
        for text in ["2026-11-24", " 2026-11-24 ", "2026-11-24T23:59:59+09:00", "2026-11-24 08:26"] {
            assert_eq!(iso.day(text).map(written).as_deref(), Some("2026-11-24"), "{text}");
        }
        assert_eq!(iso.day("2024-02-29").map(written).as_deref(), Some("2024-02-29"));
        let american = DateFormat::parse("%m/%d/%y").unwrap();
        assert_eq!(american.day("12/1/10 8:26").map(written).as_deref(), Some("2010-12-01"));
        assert_eq!(DateFormat::parse("%Y%m%d").unwrap().day("19970930").map(written).as_deref(), Some("1997-09-30"));
    }

    #[test]
    fn what_is_no_day_is_none() {
        let iso = DateFormat::iso();
        for text in ["", "2026-11", "2026-13-01", "2026-02-30", "2026-06-31", "24.11.2026", "2026-11-24x", "0000-00-00"]
        {
            assert_eq!(iso.day(text), None, "{text}");
        }
        for format in ["", "%Y-%m", "%Y-%m-%d-%d", "%H:%M", "%"] {
            assert!(DateFormat::parse(format).is_err(), "{format}");
        }
    }
}
