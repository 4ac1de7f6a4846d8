//! A tensor's numbers in JSON, nested by its axes or flat, read without a tree of values in between.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Tensors nest no deeper than they have axes.
const DEPTH: usize = 4;

/// The numbers, row after row, or what is wrong with the first that is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub values: Vec<i64>,
    pub wrong: Option<String>,
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Self::default();
        Nested { into: &mut numbers, depth: DEPTH }.deserialize(deserializer)?;
        Ok(numbers)
    }
}

/// One list, or one number of it.
struct Nested<'a> {
    into: &'a mut Numbers,
    depth: usize,
}

impl Nested<'_> {
    fn wrong<E>(self, what: impl fmt::Display) -> Result<(), E> {
        let reason = || format!("must hold whole numbers of 64 bits, holds {what}");
        self.into.wrong.get_or_insert_with(reason);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, in lists")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.into.values.push(value);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.wrong(value),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.wrong(value)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.wrong(value)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.wrong("a string")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.wrong("null")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.depth == 0 {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return self.wrong("lists deeper than its axes");
        }
        while list.next_element_seed(Nested { into: &mut *self.into, depth: self.depth - 1 })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.wrong("an object")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Numbers {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn numbers_are_the_same_nested_or_flat() {
        assert_eq!(read("[[1, -2], [3, 4]]").values, [1, -2, 3, 4]);
        assert_eq!(read("[1, -2, 3, 4]"), read("[[1, -2], [3, 4]]"));
    }

    #[test]
    fn what_is_no_whole_number_is_told_and_the_first_of_them_counts() {
        let wrong = |json: &str| read(json).wrong.unwrap();
        assert_eq!(wrong("[1, 1.5, true]"), "must hold whole numbers of 64 bits, holds 1.5");
        assert!(wrong("[18446744073709551615]").ends_with("holds 18446744073709551615"));
        assert!(wrong("[[\"a\"]]").ends_with("holds a string"));
        assert!(wrong("[null]").ends_with("holds null"));
        assert!(wrong("[{\"a\": [1]}]").ends_with("holds an object"));
        assert!(wrong("[[[[[1]]]]]").ends_with("deeper than its axes"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}0-9a-z\",:.-]{0,40}") {
            if let Ok(numbers) = serde_json::from_str::<Numbers>(&text) {
                prop_assert!(numbers.values.len() <= text.len());
            }
        }
    }
}
