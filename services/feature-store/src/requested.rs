//! Request values: what a caller brings, checked by what views compute from it.

use std::collections::HashMap;

use rapport_events::EventTime;
use rapport_features::{Given, Inputs, OnDemand, Requested, Views};
use rapport_proto::features::{RequestValue, RequestValues, request_value::Value};
use rapport_rpc::status;
use tonic::Status;

use crate::read::Known;

/// Names that a refusal shows.
const SHOWN: usize = 20;

/// A row of an answer, from what an on-demand feature is computed.
pub(crate) struct Row<'a> {
    pub known: &'a Known,
    pub requested: &'a Requested,
    pub row: usize,
    pub at: EventTime,
}

impl Inputs for Row<'_> {
    fn number(&self, place: usize) -> f64 {
        self.known.values.get(place).copied().unwrap_or(f64::NAN)
    }

    fn list(&self, place: usize) -> &[String] {
        self.known.lists.get(place).map(Vec::as_slice).unwrap_or_default()
    }

    fn given(&self, name: &str) -> &Given {
        self.requested.of(name, self.row)
    }

    fn at(&self) -> EventTime {
        self.at
    }
}

/// What is wrong with a request value: the end of its field's name, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub field: String,
    pub reason: String,
}

/// Checks a column of request values of so many rows.
///
/// # Errors
/// Nobody asks for it, or a value is of another kind.
pub(crate) fn check(views: &Views, name: &str, column: &[Given], rows: usize) -> Result<(), Unfit> {
    let wrong = |field: String, reason: String| Unfit { field, reason };
    let Some(wanted) = views.request_values().get(name) else {
        let some: Vec<&str> = views.request_values().keys().take(SHOWN).map(String::as_str).collect();
        let reason = match some.is_empty() {
            true => "is computed with by no view".to_owned(),
            false => format!("is computed with by no view; there are {}", some.join(", ")),
        };
        return Err(wrong(shown(name), reason));
    };
    if column.len() != rows && column.len() != 1 {
        let reason = format!("has {} values, must have 1 or one for each of the {rows} rows", column.len());
        return Err(wrong(name.to_owned(), reason));
    }
    for (n, given) in column.iter().enumerate() {
        wanted.check(given).map_err(|reason| wrong(format!("{name}[{n}]"), reason.to_owned()))?;
    }
    Ok(())
}

/// A client's name, no longer than a feature's.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The first request value that these need and nobody gave, and what needs it.
pub(crate) fn missing<'a>(
    features: impl Iterator<Item = &'a OnDemand>,
    requested: &Requested,
) -> Option<(&'a str, &'a OnDemand)> {
    let needs = |feature: &'a OnDemand| feature.needs().iter().map(move |need| (need.as_str(), feature));
    features.flat_map(needs).find(|(need, _)| !requested.has(need))
}

/// What a call of ours brings.
///
/// # Errors
/// The field that is wrong.
pub(crate) fn of_call(views: &Views, given: HashMap<String, RequestValues>, rows: usize) -> Result<Requested, Status> {
    let mut requested = Requested::default();
    for (name, column) in given {
        let column: Vec<Given> = column.values.into_iter().map(of_proto).collect();
        check(views, &name, &column, rows)
            .map_err(|unfit| status::invalid(&format!("request_values.{}", unfit.field), unfit.reason))?;
        requested.put(name, column);
    }
    Ok(requested)
}

fn of_proto(value: RequestValue) -> Given {
    match value.value {
        Some(Value::Number(number)) => Given::Number(number),
        Some(Value::Text(text)) => Given::Text(text),
        None => Given::Missing,
    }
}
