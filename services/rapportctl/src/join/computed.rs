//! On-demand features of a spine's rows: computed from its columns and from what was known at its moments.

use arrow::array::{Array as _, RecordBatch};
use rapport_events::EventTime;
use rapport_features::{Entity, Given, Inputs, OnDemand, Requested, Views};
use serde_json::Value;

use super::{past::Vectors, spine::Key};
use crate::{error::Usage, rows::cell};

/// One row of the vectors of an entity.
struct Row<'a> {
    vectors: &'a Vectors,
    requested: &'a Requested,
    row: usize,
    at: EventTime,
}

impl Inputs for Row<'_> {
    fn number(&self, place: usize) -> f64 {
        self.vectors.columns.get(place).and_then(|column| column.get(self.row)).copied().unwrap_or(f64::NAN)
    }

    fn list(&self, place: usize) -> &[String] {
        let list = self.vectors.lists.get(place).and_then(|column| column.get(self.row));
        list.map(Vec::as_slice).unwrap_or_default()
    }

    fn given(&self, name: &str) -> &Given {
        self.requested.of(name, self.row)
    }

    fn at(&self) -> EventTime {
        self.at
    }
}

/// The request values that the spine's columns of the same name hold.
///
/// # Errors
/// A row has one of another kind.
pub fn requested(table: &RecordBatch, views: &Views) -> Result<Requested, Usage> {
    let mut requested = Requested::default();
    for (name, wanted) in views.request_values() {
        let Some(column) = table.column_by_name(name) else { continue };
        let given = (0..column.len()).map(|row| {
            let given = given(&cell::json(column.as_ref(), row));
            let wrong = |reason| Usage(format!("row {}: {name} {reason}, as on-demand features take it", row + 1));
            wanted.check(&given).map(|()| given).map_err(wrong)
        });
        requested.put(name.clone(), given.collect::<Result<_, _>>()?);
    }
    Ok(requested)
}

/// A truth is 1 or 0, as at the doors.
fn given(value: &Value) -> Given {
    match value {
        Value::Null => Given::Missing,
        Value::Bool(truth) => Given::Number(u8::from(*truth).into()),
        Value::Number(number) => number.as_f64().map_or(Given::Missing, Given::Number),
        Value::String(text) if text.is_empty() => Given::Missing,
        Value::String(text) => Given::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => Given::Text(value.to_string()),
    }
}

/// The on-demand features of the entities that the rows name, as further columns after those of the vectors.
/// Where a row names no such entity there is no value.
pub fn append(vectors: &mut [Vectors], views: &Views, keys: &[Key], requested: &Requested) {
    for of_entity in vectors {
        let named = |key: &Key| match of_entity.entity {
            Entity::Customer => key.customer.is_some(),
            Entity::Item => key.item.is_some(),
            Entity::CustomerCategory => key.customer.is_some() && key.category.is_some(),
            Entity::Session => key.customer.is_some(),
            Entity::Segment => key.segment.is_some(),
        };
        let column = |feature: &OnDemand| {
            let value = |(row, key): (usize, &Key)| match named(key) {
                true => feature.value(&Row { vectors: of_entity, requested, row, at: key.at }),
                false => f64::NAN,
            };
            keys.iter().enumerate().map(value).collect::<Vec<f64>>()
        };
        let features = views.on_demand(of_entity.entity);
        let columns: Vec<_> = features.iter().map(column).collect();
        of_entity.columns.extend(columns);
        of_entity.names.extend(features.iter().map(|feature| feature.name().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    const YAML: &str = "
version: 1
views:
  - {name: buys, entity: customer, features: [{name: mean, aggregate: mean}, {name: kinds, aggregate: top_k, k: 2}]}
  - name: offer
    entity: customer
    on_demand:
      - {name: over, difference: [request.price, buys.mean]}
      - {name: liked, among: [request.kind, buys.kinds]}
      - {name: new, equals: [request.fresh, 1]}
      - {name: waited, hours_since: request.seen}
";

    fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<_> =
            columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect())
            .unwrap()
    }

    #[test]
    fn a_row_is_computed_from_its_own_columns_and_what_was_known_at_its_own_moment() {
        let views = Views::parse(YAML).unwrap();
        let spine = table(vec![
            ("price", Arc::new(Float64Array::from(vec![Some(25.0), Some(5.0), None]))),
            ("kind", Arc::new(Int64Array::from(vec![7, 8, 7]))),
            ("fresh", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("seen", Arc::new(StringArray::from(vec!["2026-11-01", "2026-11-01 06:00:00", "2026-11-02"]))),
        ]);
        let at = EventTime::parse_rfc3339("2026-11-01T12:00:00Z").unwrap();
        let key = |customer: Option<&str>| Key {
            customer: customer.map(str::to_owned),
            item: None,
            category: None,
            session: None,
            segment: None,
            at,
        };
        let mut vectors = [Vectors {
            entity: Entity::Customer,
            names: vec!["buys.mean".into()],
            columns: vec![vec![20.0, 4.0, 1.0]],
            list_names: vec!["buys.kinds".into()],
            lists: vec![vec![vec!["7".into()]; 3]],
        }];
        let requested = requested(&spine, &views).unwrap();
        append(&mut vectors, &views, &[key(Some("ann")), key(Some("bob")), key(None)], &requested);
        let names = ["buys.mean", "offer.over", "offer.liked", "offer.new", "offer.waited"];
        assert_eq!(vectors[0].names, names);
        let row = |n: usize| vectors[0].columns[1..].iter().map(|column| column[n]).collect::<Vec<_>>();
        assert_eq!((row(0), row(1)), (vec![5.0, 1.0, 1.0, 12.0], vec![1.0, 0.0, 0.0, 6.0]));
        assert!(row(2).iter().all(|value| value.is_nan()), "the row names no customer");
    }

    #[test]
    fn a_column_of_another_kind_is_refused_with_its_row() {
        let views = Views::parse(YAML).unwrap();
        let spine = table(vec![("price", Arc::new(StringArray::from(vec![None, Some("cheap")])))]);
        let refused = requested(&spine, &views).unwrap_err().to_string();
        assert!(refused.starts_with("row 2: price must be a number"), "{refused}");
    }
}
