//! What a caller brings to a read.

use std::collections::BTreeMap;

use rapport_events::EventTime;

/// Numbers from here on are milliseconds, below it seconds: the year 5138 in seconds, 1973 in milliseconds.
const MILLISECONDS_FROM: f64 = 1e11;
/// The last millisecond of the year 9999.
const LATEST_MS: f64 = 253_402_300_799_999.0;

/// One request value of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Given {
    #[default]
    Missing,
    Number(f64),
    Text(String),
}

impl Given {
    /// The moment that it names: [`moment`] of a text, seconds or milliseconds since 1970.
    pub fn moment(&self) -> Option<EventTime> {
        match self {
            Self::Missing => None,
            Self::Text(text) => moment(text),
            Self::Number(number) => {
                let ms = if number.abs() >= MILLISECONDS_FROM { *number } else { number * 1_000.0 };
                let sound = ms.is_finite() && ms.abs() <= LATEST_MS;
                sound.then(|| EventTime::from_ms(ms.round() as i64))
            }
        }
    }
}

/// A moment as people write it: `2026-11-01T12:00:00Z`, `2026-11-01 12:00:00` or `2026-11-01`, in UTC where it does
/// not say otherwise.
pub fn moment(text: &str) -> Option<EventTime> {
    let text = text.trim();
    let in_utc = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ if text.ends_with(['Z', 'z']) || text.get(19..).is_some_and(|rest| rest.contains(['+', '-'])) => {
            text.to_owned()
        }
        _ => format!("{text}Z"),
    };
    EventTime::parse_rfc3339(&in_utc.replacen(' ', "T", 1))
}

/// What a request value must be, by what it is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Number,
    Moment,
    /// Compared only: text or a number.
    Any,
}

impl Wanted {
    /// # Errors
    /// What it must be.
    pub fn check(self, given: &Given) -> Result<(), &'static str> {
        let fits = match (self, given) {
            (_, Given::Missing) | (Self::Any, _) => true,
            (Self::Number, given) => matches!(given, Given::Number(_)),
            (Self::Moment, given) => given.moment().is_some(),
        };
        match (fits, self) {
            (true, _) => Ok(()),
            (false, Self::Moment) => Err("must be a moment: RFC 3339, or seconds or milliseconds since 1970"),
            (false, Self::Number | Self::Any) => Err("must be a number"),
        }
    }
}

/// Request values by name: of each one for every row, or one for all.
#[derive(Debug, Default, PartialEq)]
pub struct Requested {
    columns: BTreeMap<String, Vec<Given>>,
}

impl Requested {
    pub fn put(&mut self, name: String, column: Vec<Given>) {
        self.columns.insert(name, column);
    }

    pub fn has(&self, name: &str) -> bool {
        self.columns.contains_key(name)
    }

    /// Of a row; missing where nothing was given.
    pub fn of(&self, name: &str, row: usize) -> &Given {
        const MISSING: &Given = &Given::Missing;
        let column = self.columns.get(name).map(Vec::as_slice).unwrap_or_default();
        match column {
            [all] => all,
            column => column.get(row).unwrap_or(MISSING),
        }
    }

    /// What one row has, as the only row there is.
    pub fn row(&self, row: usize) -> Self {
        Self { columns: self.columns.keys().map(|name| (name.clone(), vec![self.of(name, row).clone()])).collect() }
    }
}
