//! Numbers of a stored model as decimal text, such as `"0.1"`.
//!
//! serde_json reads its own numbers with a fast method that may miss the last bit, unless a feature is
//! on that slows every other user of serde_json in the program. The shortest text that stands for a
//! double and for no other, read by the standard library, is exact and stays readable.

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{self, Serialize, Serializer};

fn text<E: ser::Error>(value: f64) -> Result<String, E> {
    // Debug, unlike Display, writes very large and very small numbers with an exponent.
    if value.is_finite() { Ok(format!("{value:?}")) } else { Err(E::custom(format_args!("{value} is not finite"))) }
}

fn number<E: de::Error>(text: &str) -> Result<f64, E> {
    let finite = text.parse().ok().filter(|value: &f64| value.is_finite());
    finite.ok_or_else(|| E::custom(format_args!("{text:?} is not a finite number")))
}

/// `#[serde(with = "crate::exact::one")]`: a single number.
pub mod one {
    use super::*;

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*value)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        number(&String::deserialize(deserializer)?)
    }
}

/// `#[serde(with = "crate::exact::many")]`: a list of numbers.
pub mod many {
    use super::*;

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = values.iter().map(|value| text(*value)).collect::<Result<_, _>>()?;
        texts.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| number(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Numbers {
        #[serde(with = "super::one")]
        one: f64,
        #[serde(with = "super::many")]
        many: Vec<f64>,
    }

    fn there_and_back(value: f64) -> Numbers {
        let text = serde_json::to_string(&Numbers { one: value, many: vec![value, -value] }).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_text_is_short_and_what_is_not_a_finite_number_is_refused() {
        let text = serde_json::to_string(&Numbers { one: 0.1, many: vec![1e-300, -2.0] }).unwrap();
        assert_eq!(text, r#"{"one":"0.1","many":["1e-300","-2.0"]}"#);
        assert!(serde_json::to_string(&Numbers { one: f64::NAN, many: vec![] }).is_err());
        for wrong in [r#""NaN""#, r#""inf""#, r#""1e999""#, r#""""#, r#""one""#, "1.0"] {
            let text = format!(r#"{{"one":{wrong},"many":[]}}"#);
            assert!(serde_json::from_str::<Numbers>(&text).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_finite_double_comes_back_with_all_its_bits(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let back = there_and_back(value);
            prop_assert_eq!(back.one.to_bits(), bits);
            prop_assert_eq!(back.many.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), vec![bits, (-value).to_bits()]);
        }
    }
}
