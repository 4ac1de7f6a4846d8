//! Events as Parquet columns and back.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
        new_null_array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use bytes::Bytes;
use object_store::path::Path;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Compression,
    file::properties::WriterProperties,
};
use rapport_events::{CleanEvent, EventTime, LoggedEvent, Position, Tenant};

use crate::Error;

fn schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("tenant", DataType::Utf8, false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("type", DataType::Utf8, false),
        Field::new("customer_id", DataType::Utf8, false),
        Field::new("item_id", DataType::Utf8, true),
        Field::new("category", DataType::Utf8, true),
        Field::new("event_time", time(), false),
        Field::new("received_at", time(), false),
        Field::new("value", DataType::Float64, true),
        // Where the event stands on the clean topic: the order of the fold.
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        // Files of before there were these have none: they read as null.
        Field::new("session_id", DataType::Utf8, true),
        Field::new("segment", DataType::Utf8, true),
    ]))
}

/// Packs events into one Parquet file.
pub(crate) fn pack(events: &[&LoggedEvent]) -> Result<Vec<u8>, Error> {
    let text = |of: fn(&CleanEvent) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| of(&e.event))))
    };
    let maybe = |of: fn(&CleanEvent) -> Option<&str>| -> ArrayRef {
        Arc::new(events.iter().map(|e| of(&e.event)).collect::<StringArray>())
    };
    let time = |of: fn(&CleanEvent) -> EventTime| -> ArrayRef {
        let stamps = TimestampMillisecondArray::from_iter_values(events.iter().map(|e| of(&e.event).as_ms()));
        Arc::new(stamps.with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        text(|e| e.tenant.as_str()),
        text(|e| &e.event_id),
        text(|e| &e.kind),
        text(|e| &e.customer_id),
        maybe(|e| e.item_id.as_deref()),
        maybe(|e| e.category.as_deref()),
        time(|e| e.time),
        time(|e| e.received_at),
        Arc::new(events.iter().map(|e| e.event.value).collect::<Float64Array>()),
        Arc::new(Int32Array::from_iter_values(events.iter().map(|e| e.position.partition))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.position.offset))),
        maybe(|e| e.session_id.as_deref()),
        maybe(|e| e.segment.as_deref()),
    ];
    write(schema(), columns)
}

/// One Parquet file of these columns.
pub(crate) fn write(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<Vec<u8>, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Pack(e.to_string());
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| failed(&e))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(|e| failed(&e))?;
    writer.write(&batch).map_err(|e| failed(&e))?;
    writer.into_inner().map_err(|e| failed(&e))
}

pub(crate) fn column<'a, A: 'static>(path: &Path, batch: &'a RecordBatch, name: &str) -> Result<&'a A, Error> {
    let column = batch.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<A>());
    column.ok_or_else(|| Error::corrupt(path, format!("has no column {name} of the type that it should have")))
}

/// A batch with null where its file was written before a column existed, if that may be: `later` says of which.
pub(crate) fn widened(
    path: &Path,
    batch: &RecordBatch,
    schema: &Schema,
    later: impl Fn(&Field) -> bool,
) -> Result<RecordBatch, Error> {
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = Default::default();
    for field in schema.fields() {
        let column = match batch.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None if later(field) => new_null_array(field.data_type(), batch.num_rows()),
            // Who asks for it says so.
            None => continue,
        };
        fields.push(Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone()).with_nullable(true)));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| Error::corrupt(path, e))
}

/// Unpacks one Parquet file, appending to `events`. Returns how many rows it had.
pub(crate) fn unpack(path: &Path, bytes: Bytes, events: &mut Vec<LoggedEvent>) -> Result<usize, Error> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
    let mut rows = 0;
    let mut known_tenant: Option<Tenant> = None;
    let schema = schema();
    for batch in reader.map_err(|e| Error::corrupt(path, e))? {
        let batch = batch.map_err(|e| Error::corrupt(path, e))?;
        let batch = widened(path, &batch, &schema, Field::is_nullable)?;
        let text = |name: &str| column::<StringArray>(path, &batch, name);
        let time = |name: &str| column::<TimestampMillisecondArray>(path, &batch, name);
        let (tenants, ids, kinds, customers) =
            (text("tenant")?, text("event_id")?, text("type")?, text("customer_id")?);
        let (items, categories, sessions) = (text("item_id")?, text("category")?, text("session_id")?);
        let segments = text("segment")?;
        let (times, received) = (time("event_time")?, time("received_at")?);
        let values: &Float64Array = column(path, &batch, "value")?;
        let partitions: &Int32Array = column(path, &batch, "partition")?;
        let offsets: &Int64Array = column(path, &batch, "offset")?;
        let maybe = |column: &StringArray, i: usize| column.is_valid(i).then(|| column.value(i).to_owned());
        for i in 0..batch.num_rows() {
            let tenant = match &known_tenant {
                Some(tenant) if tenant.as_str() == tenants.value(i) => tenant.clone(),
                Some(_) | None => Tenant::parse(tenants.value(i)).map_err(|e| Error::corrupt(path, e))?,
            };
            known_tenant = Some(tenant.clone());
            events.push(LoggedEvent {
                position: Position { partition: partitions.value(i), offset: offsets.value(i) },
                event: CleanEvent {
                    tenant,
                    event_id: ids.value(i).to_owned(),
                    kind: kinds.value(i).to_owned(),
                    customer_id: customers.value(i).to_owned(),
                    item_id: maybe(items, i),
                    category: maybe(categories, i),
                    session_id: maybe(sessions, i),
                    segment: maybe(segments, i),
                    time: EventTime::from_ms(times.value(i)),
                    received_at: EventTime::from_ms(received.value(i)),
                    value: values.is_valid(i).then(|| values.value(i)),
                },
            });
        }
        rows += batch.num_rows();
    }
    Ok(rows)
}
