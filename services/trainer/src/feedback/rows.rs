//! Every item that was shown, with its probability and what came of it, as a Parquet table.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use rapport_offline::{ServedItem, ServedList};

use super::{Credit, Credited};
use crate::Error;

/// Lists of one row group.
const LISTS: usize = 10_000;

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Schema::new(vec![
        text("customer_id"),
        text("request_id"),
        Field::new("served_at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        text("placement"),
        text("experiment"),
        text("arm"),
        text("model"),
        text("model_version"),
        // From 1.
        Field::new("place", DataType::Int32, false),
        text("item_id"),
        Field::new("score", DataType::Float64, false),
        Field::new("propensity", DataType::Float64, false),
        // What came of it: none of the three where nothing did.
        Field::new("outcome", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
        Field::new("after_ms", DataType::Int64, true),
    ])
}

/// Writes the table under a temporary name and puts it in place when it is whole. Returns its rows.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, lists: &[Credited]) -> Result<usize, Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder).map_err(Error::file(folder))?;
    let rows = write_to(file.as_file(), lists).map_err(|error| Error::Table { path: path.into(), reason: error })?;
    file.as_file().sync_all().map_err(Error::file(path))?;
    file.persist(path).map_err(|failed| Error::File { path: path.into(), source: failed.error })?;
    Ok(rows)
}

fn write_to(file: &File, lists: &[Credited]) -> Result<usize, String> {
    let schema = Arc::new(schema());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(|e| failed(&e))?;
    let mut rows = 0;
    for lists in lists.chunks(LISTS) {
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns(lists)).map_err(|e| failed(&e))?;
        rows += batch.num_rows();
        writer.write(&batch).map_err(|e| failed(&e))?;
    }
    writer.close().map_err(|e| failed(&e))?;
    Ok(rows)
}

fn columns(lists: &[Credited]) -> Vec<ArrayRef> {
    let rows: Vec<(&ServedList, i32, &ServedItem, Option<&Credit>)> = lists
        .iter()
        .flat_map(|Credited { list, credits }| {
            let places = (1..).zip(&list.items).zip(credits);
            places.map(move |((place, item), credit)| (list, place, item, credit.as_ref()))
        })
        .collect();
    let of_list = |of: fn(&ServedList) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(list, ..)| of(list))))
    };
    let number = |of: fn(&ServedItem) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, _, item, _)| of(item))))
    };
    let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|(list, ..)| list.served_at.as_ms()));
    let credits = || rows.iter().map(|(.., credit)| *credit);
    vec![
        of_list(|list| &list.customer_id),
        of_list(|list| &list.request_id),
        Arc::new(times.with_timezone("UTC")),
        of_list(|list| &list.placement),
        of_list(|list| &list.experiment),
        of_list(|list| &list.arm),
        of_list(|list| &list.model),
        of_list(|list| &list.model_version),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, place, ..)| *place))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, _, item, _)| item.item_id.as_str()))),
        number(|item| item.score),
        number(|item| item.propensity),
        Arc::new(credits().map(|credit| credit.map(|c| c.kind.as_str())).collect::<StringArray>()),
        Arc::new(credits().map(|credit| credit.and_then(|c| c.value)).collect::<Float64Array>()),
        Arc::new(credits().map(|credit| credit.map(|c| c.after)).collect::<Int64Array>()),
    ]
}
