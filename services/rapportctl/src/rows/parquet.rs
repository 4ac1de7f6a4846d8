//! Parquet, row group by row group: what is in memory is some pages and 1,024 rows.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};

use super::{Body, Extent, Row, Rows, cell};

const BATCH_ROWS: usize = 1_024;

/// # Errors
/// It is no Parquet file.
pub fn open(path: &Path, skip: u64) -> anyhow::Result<(Rows, Extent)> {
    let what = || format!("{} cannot be read as Parquet", path.display());
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(what)?;
    let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let offset = usize::try_from(skip.min(total)).unwrap_or(usize::MAX);
    let batches = builder.with_batch_size(BATCH_ROWS).with_offset(offset).build().with_context(what)?;
    let done = Arc::new(AtomicU64::new(skip.min(total)));
    let extent = Extent { total, done: Arc::clone(&done) };
    Ok((Box::new(Batches { batches, batch: None, next: 0, number: skip, done }), extent))
}

struct Batches {
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    /// The next row of `batch`.
    next: usize,
    number: u64,
    done: Arc<AtomicU64>,
}

impl Iterator for Batches {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.next < batch.num_rows()) {
                let body = object(batch, self.next);
                self.next += 1;
                self.number += 1;
                self.done.store(self.number, Ordering::Relaxed);
                return Some(Ok(Row { number: self.number, body: Ok(Body::Object(body)) }));
            }
            match self.batches.next()? {
                Ok(batch) => (self.batch, self.next) = (Some(batch), 0),
                Err(error) => {
                    let after = self.number;
                    return Some(Err(anyhow::Error::new(error).context(format!("reading after row {after}"))));
                }
            }
        }
    }
}

fn object(batch: &RecordBatch, row: usize) -> Value {
    let mut object = Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        object.insert(field.name().clone(), cell::json(column.as_ref(), row));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{DataType, Field, Schema},
    };
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
    use serde_json::json;

    use super::*;

    fn written(folder: &Path, rows: i64) -> std::path::PathBuf {
        let schema = Arc::new(Schema::new(vec![
            Field::new("Customer ID", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]));
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let names: ArrayRef =
            Arc::new(StringArray::from_iter((0..rows).map(|n| (n % 2 == 0).then(|| format!("n{n}")))));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![ids, names]).unwrap();
        let path = folder.join("a.parquet");
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(700)).build();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), schema, Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }

    #[test]
    fn rows_come_in_order_across_row_groups_and_from_any_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 3_000);
        for skip in [0, 1, 699, 700, 1_500, 2_999, 3_000, 9_999] {
            let (rows, extent) = open(&path, skip).unwrap();
            assert_eq!(extent.total, 3_000);
            let mut expected = skip;
            for row in rows {
                let row = row.unwrap();
                let name = if expected % 2 == 0 { json!(format!("n{expected}")) } else { Value::Null };
                assert_eq!(row.body, Ok(Body::Object(json!({"Customer ID": expected, "name": name}))));
                expected += 1;
                assert_eq!(row.number, expected);
            }
            assert_eq!(expected, skip.max(3_000), "from {skip}");
        }
    }

    #[test]
    fn what_is_no_parquet_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        std::fs::write(&path, b"id,name\n").unwrap();
        assert!(format!("{:#}", open(&path, 0).err().unwrap()).contains("x.parquet cannot be read as Parquet"));
    }
}
