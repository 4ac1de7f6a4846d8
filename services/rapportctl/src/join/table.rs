//! The table that comes out: the spine's columns as they were, and the features beside them.

use std::sync::Arc;

use anyhow::Context as _;
use arrow::{
    array::{ArrayRef, Float64Array, ListBuilder, RecordBatch, StringBuilder},
    datatypes::{Field, Schema},
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::metadata::KeyValue, file::properties::WriterProperties};
use serde_json::{Map, Value};

use super::past::Vectors;
use crate::{
    error::Usage,
    rows::{Format, cell},
};

/// The spine with the vectors as further columns; a feature without a value is null.
///
/// # Errors
/// The spine has a column of a feature's name.
pub fn beside(spine: &RecordBatch, vectors: &[Vectors]) -> anyhow::Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = spine.schema().fields().iter().cloned().collect();
    let mut columns = spine.columns().to_vec();
    let numbers = vectors.iter().flat_map(|vectors| vectors.names.iter().zip(&vectors.columns));
    let numbers = numbers.map(|(name, values)| {
        let values = values.iter().map(|value| (!value.is_nan()).then_some(*value));
        (name, Arc::new(values.collect::<Float64Array>()) as ArrayRef)
    });
    let lists = vectors.iter().flat_map(|vectors| vectors.list_names.iter().zip(&vectors.lists));
    for (name, column) in numbers.chain(lists.map(|(name, lists)| (name, list_column(lists)))) {
        if fields.iter().any(|field| field.name() == name) {
            return Err(Usage(format!("the spine has a column {name:?}, as a feature is called; rename it")).into());
        }
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn list_column(lists: &[Vec<String>]) -> ArrayRef {
    let mut column = ListBuilder::new(StringBuilder::new());
    for list in lists {
        list.iter().for_each(|name| column.values().append_value(name));
        column.append(!list.is_empty());
    }
    Arc::new(column.finish())
}

/// The table as a file; in CSV a list is JSON. `about` goes into Parquet's own notes.
///
/// # Errors
/// No memory, or a bug.
pub fn written(table: &RecordBatch, format: Format, about: &[(&str, String)]) -> anyhow::Result<Vec<u8>> {
    match format {
        Format::Parquet => {
            let notes = about.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone())).collect();
            let properties = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_key_value_metadata(Some(notes))
                .build();
            let mut writer = ArrowWriter::try_new(Vec::new(), table.schema(), Some(properties))?;
            writer.write(table)?;
            writer.into_inner().context("the Parquet file cannot be ended")
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(table.schema().fields().iter().map(|field| field.name()))?;
            for row in 0..table.num_rows() {
                writer.write_record(table.columns().iter().map(|column| text(&cell::json(column.as_ref(), row))))?;
            }
            writer.into_inner().context("the CSV file cannot be ended")
        }
        Format::Ndjson => {
            let mut out = Vec::new();
            let schema = table.schema();
            for row in 0..table.num_rows() {
                let named = schema.fields().iter().zip(table.columns());
                let object: Map<String, Value> =
                    named.map(|(field, column)| (field.name().clone(), cell::json(column.as_ref(), row))).collect();
                serde_json::to_writer(&mut out, &object)?;
                out.push(b'\n');
            }
            Ok(out)
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{array::StringArray, datatypes::DataType};
    use rapport_features::Entity;

    use super::*;

    fn table() -> anyhow::Result<RecordBatch> {
        let schema = Schema::new(vec![Field::new("customer_id", DataType::Utf8, true)]);
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a,b", "c"]));
        let spine = RecordBatch::try_new(Arc::new(schema), vec![ids]).unwrap();
        let vectors = Vectors {
            entity: Entity::Customer,
            names: vec!["v.count".into(), "v.mean".into()],
            columns: vec![vec![2.0, 0.0], vec![0.1, f64::NAN]],
            list_names: vec!["v.top".into()],
            lists: vec![vec![vec!["Sci-Fi".into(), "Comedy".into()], vec![]]],
        };
        beside(&spine, &[vectors])
    }

    #[test]
    fn a_feature_without_a_value_is_empty_in_every_format() {
        let table = table().unwrap();
        let csv = written(&table, Format::Csv, &[]).unwrap();
        assert_eq!(
            String::from_utf8(csv).unwrap(),
            "customer_id,v.count,v.mean,v.top\n\"a,b\",2,0.1,\"[\"\"Sci-Fi\"\",\"\"Comedy\"\"]\"\nc,0,,\n"
        );
        let lines = written(&table, Format::Ndjson, &[]).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines.lines().nth(1).unwrap(), r#"{"customer_id":"c","v.count":0,"v.mean":null,"v.top":null}"#);
        assert_eq!(&written(&table, Format::Parquet, &[]).unwrap()[..4], b"PAR1");
    }

    #[test]
    fn a_spine_that_has_a_features_column_is_refused() {
        let vectors = Vectors {
            entity: Entity::Customer,
            names: vec!["v.mean".into()],
            columns: vec![vec![1.0, 2.0]],
            list_names: Vec::new(),
            lists: Vec::new(),
        };
        let error = beside(&table().unwrap(), &[vectors]).unwrap_err();
        assert!(error.to_string().contains("\"v.mean\""), "{error}");
    }
}
