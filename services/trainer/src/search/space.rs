//! What is searched: a domain for each hyper-parameter, and draws from it.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::SearchError;

/// The values that one hyper-parameter can take. In YAML:
///
/// ```yaml
/// dim: { draw: choice, values: [32, 64, 128] }
/// blocks: { draw: integer, low: 1, high: 4 }
/// dropout: { draw: uniform, low: 0.0, high: 0.5 }
/// learning_rate: { draw: log_uniform, low: 1e-4, high: 1e-1 }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "draw", rename_all = "snake_case", deny_unknown_fields)]
pub enum Domain {
    Choice {
        values: Vec<Value>,
    },
    /// Both ends included.
    Integer {
        low: i64,
        high: i64,
    },
    Uniform {
        low: f64,
        high: f64,
    },
    /// Every power of ten is as likely as every other.
    LogUniform {
        low: f64,
        high: f64,
    },
}

impl Domain {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Choice { values } if values.is_empty() => Err("a choice needs at least one value".into()),
            Self::Integer { low, high } if low > high => Err(format!("low {low} is above high {high}")),
            Self::Uniform { low, high } | Self::LogUniform { low, high } if !(high - low).is_finite() => {
                Err(format!("{low} to {high} is not a finite range"))
            }
            Self::Uniform { low, high } | Self::LogUniform { low, high } if low > high => {
                Err(format!("low {low} is above high {high}"))
            }
            Self::LogUniform { low, .. } if *low <= 0.0 => {
                Err(format!("low {low} has no logarithm: it must be above 0"))
            }
            Self::Choice { .. } | Self::Integer { .. } | Self::Uniform { .. } | Self::LogUniform { .. } => Ok(()),
        }
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> Value {
        match self {
            Self::Choice { values } => values.get(random.random_range(0..values.len())).cloned().unwrap_or(Value::Null),
            Self::Integer { low, high } => random.random_range(*low..=*high).into(),
            Self::Uniform { low, high } => {
                let share: f64 = random.random();
                short(low + share * (high - low)).clamp(*low, *high).into()
            }
            Self::LogUniform { low, high } => {
                let share: f64 = random.random();
                short((low.ln() + share * (high.ln() - low.ln())).exp()).clamp(*low, *high).into()
            }
        }
    }
}

/// Six digits: no hyper-parameter needs more, people read the table, and machines whose logarithms
/// differ in the last digit still draw the same.
fn short(number: f64) -> f64 {
    format!("{number:.5e}").parse().unwrap_or(number)
}

/// A domain for each hyper-parameter, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Domain>", into = "BTreeMap<String, Domain>")]
pub struct Space(BTreeMap<String, Domain>);

/// Draws of one trial before a space counts as used up.
const MOST_REPEATS: u32 = 100;

impl Space {
    /// # Errors
    /// No field; a choice of nothing; a range that is empty or not finite; a logarithmic one that does
    /// not lie above 0.
    pub fn new(fields: BTreeMap<String, Domain>) -> Result<Self, SearchError> {
        if fields.is_empty() {
            return Err(SearchError::NoFields);
        }
        for (field, domain) in &fields {
            domain.check().map_err(|reason| SearchError::Field { field: field.clone(), reason })?;
        }
        Ok(Self(fields))
    }

    pub fn fields(&self) -> &BTreeMap<String, Domain> {
        &self.0
    }

    /// At most `count` different draws, the same for the same seed; fewer where the space has no more.
    /// More draws begin with fewer draws.
    pub fn draws(&self, seed: u64, count: u32) -> Vec<Map<String, Value>> {
        let mut seen = BTreeSet::new();
        (0..count).map_while(|id| self.new_draw(seed, id, &mut seen)).collect()
    }

    /// A draw that is not among those seen; `None` when none is found.
    fn new_draw(&self, seed: u64, id: u32, seen: &mut BTreeSet<String>) -> Option<Map<String, Value>> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(id.into());
        (0..MOST_REPEATS)
            .map(|_| self.0.iter().map(|(field, domain)| (field.clone(), domain.draw(&mut random))).collect())
            .find(|values: &Map<String, Value>| seen.insert(Value::Object(values.clone()).to_string()))
    }
}

impl TryFrom<BTreeMap<String, Domain>> for Space {
    type Error = SearchError;

    fn try_from(fields: BTreeMap<String, Domain>) -> Result<Self, SearchError> {
        Self::new(fields)
    }
}

impl From<Space> for BTreeMap<String, Domain> {
    fn from(space: Space) -> Self {
        space.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Space, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_space_is_read_as_it_is_written() {
        let text = r#"{"blocks":{"draw":"integer","low":1,"high":4},"dim":{"draw":"choice","values":[32,64]},"dropout":{"draw":"uniform","low":0.0,"high":0.5},"learning_rate":{"draw":"log_uniform","low":0.0001,"high":0.1}}"#;
        assert_eq!(serde_json::to_string(&parse(text).unwrap()).unwrap(), text);
    }

    #[test]
    fn a_space_that_cannot_be_drawn_from_is_refused_with_its_field() {
        for (domain, reason) in [
            (r#"{"draw":"choice","values":[]}"#, "field x of the search space: a choice needs at least one value"),
            (r#"{"draw":"integer","low":3,"high":2}"#, "low 3 is above high 2"),
            (r#"{"draw":"uniform","low":3,"high":2}"#, "low 3 is above high 2"),
            (r#"{"draw":"uniform","low":-1e308,"high":1e308}"#, "not a finite range"),
            (r#"{"draw":"log_uniform","low":0,"high":2}"#, "low 0 has no logarithm"),
            (r#"{"draw":"uniform","low":0,"high":2,"step":1}"#, "unknown field `step`"),
        ] {
            let error = parse(&format!(r#"{{"x":{domain}}}"#)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(parse("{}").unwrap_err().contains("at least one field"));
    }

    #[test]
    fn a_small_space_is_drawn_out_and_nothing_is_drawn_twice() {
        let space =
            parse(r#"{"a":{"draw":"integer","low":1,"high":3},"b":{"draw":"choice","values":["x","y"]}}"#).unwrap();
        let draws = space.draws(1, 50);
        assert_eq!(draws.len(), 6);
        assert_eq!(
            draws.iter().map(|values| Value::Object(values.clone()).to_string()).collect::<BTreeSet<_>>().len(),
            6
        );
    }

    #[test]
    fn logarithmic_draws_fall_into_every_power_of_ten_alike() {
        let space = parse(r#"{"rate":{"draw":"log_uniform","low":1e-4,"high":1}}"#).unwrap();
        let draws = space.draws(3, 4000);
        for power in -4..0 {
            let within = |rate: f64| (10f64.powi(power)..10f64.powi(power + 1)).contains(&rate);
            let count = draws.iter().filter(|values| values["rate"].as_f64().is_some_and(within)).count();
            assert!((850..1150).contains(&count), "{count} of 4,000 from 1e{power} on");
        }
    }

    #[test]
    fn a_draw_says_nothing_about_the_next_one_nor_a_field_about_another() {
        let space = r#"{"a":{"draw":"uniform","low":-1,"high":1},"b":{"draw":"uniform","low":-1,"high":1}}"#;
        let draws = parse(space).unwrap().draws(1, 10_000);
        let of = |field: &str| draws.iter().filter_map(|values| values[field].as_f64()).collect::<Vec<f64>>();
        let (a, b) = (of("a"), of("b"));
        // Of independent numbers: 0 give or take .01.
        let correlation = |one: &[f64], other: &[f64]| {
            3.0 * one.iter().zip(other).map(|(x, y)| x * y).sum::<f64>() / one.len().min(other.len()) as f64
        };
        for found in [correlation(&a, &a[1..]), correlation(&b, &b[1..]), correlation(&a, &b)] {
            assert!(found.abs() < 0.04, "{found}");
        }
    }

    proptest! {
        #[test]
        fn draws_lie_in_their_ranges_and_follow_from_the_seed(
            seed: u64, low in -1e6..1e6f64, width in 0.0..1e6f64, small in 1e-9..1.0f64, factor in 1.0..1e9f64,
            least in -1000i64..1000, span in 0i64..1000,
        ) {
            let fields = [
                ("integer", Domain::Integer { low: least, high: least + span }),
                ("uniform", Domain::Uniform { low, high: low + width }),
                ("log", Domain::LogUniform { low: small, high: small * factor }),
            ];
            let space = Space::new(fields.map(|(name, domain)| (name.to_string(), domain)).into()).unwrap();
            let draws = space.draws(seed, 8);
            for values in &draws {
                prop_assert!((least..=least + span).contains(&values["integer"].as_i64().unwrap()));
                prop_assert!((low..=low + width).contains(&values["uniform"].as_f64().unwrap()));
                prop_assert!((small..=small * factor).contains(&values["log"].as_f64().unwrap()));
            }
            prop_assert_eq!(&space.draws(seed, 8), &draws);
            prop_assert_eq!(&space.draws(seed, 4)[..], &draws[..draws.len().min(4)]);
        }
    }
}
