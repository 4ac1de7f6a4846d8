//! When an event is made.

use serde_json::Value as Json;

use super::{
    path::{Path, Scope},
    value::{is_empty, number_of, text_of},
};

#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub path: Path,
    pub test: Test,
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    /// `equals`, `in`.
    OneOf(Vec<Json>),
    /// `not_equals`, `not_in`.
    NoneOf(Vec<Json>),
    Exists(bool),
    StartsWith(String),
    Above(f64),
    Below(f64),
}

impl Condition {
    pub fn holds(&self, scope: &Scope<'_>) -> bool {
        let found = self.path.find(scope);
        let value = found.unwrap_or(&Json::Null);
        match &self.test {
            Test::OneOf(all) => all.iter().any(|one| same(one, value)),
            Test::NoneOf(all) => !all.iter().any(|one| same(one, value)),
            Test::Exists(exists) => *exists != is_empty(value),
            Test::StartsWith(beginning) => text_of(value).is_some_and(|text| text.starts_with(beginning.as_str())),
            Test::Above(bound) => number_of(value).is_some_and(|number| number > *bound),
            Test::Below(bound) => number_of(value).is_some_and(|number| number < *bound),
        }
    }
}

/// Rows of files are text, so `7` is `"7"`.
fn same(one: &Json, other: &Json) -> bool {
    one == other || text_of(one).is_some_and(|text| text_of(other).is_some_and(|other| other == text))
}
