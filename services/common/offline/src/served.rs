//! Lists that were served, as Parquet rows and back: a row for each item of a list.

use std::sync::Arc;

use arrow::{
    array::{
        Array as _, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMillisecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rapport_events::{EventTime, Position, Tenant};

use crate::{
    Error,
    columns::{column, widened, write},
    record::{Packed, Record},
};

/// A list that a customer was shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedList {
    /// On the served topic.
    pub position: Position,
    pub tenant: Tenant,
    pub customer_id: String,
    pub request_id: String,
    pub served_at: EventTime,
    pub placement: String,
    pub experiment: String,
    pub arm: String,
    pub model: String,
    pub model_version: String,
    /// Whether it came from the scorer's cache; `None` in files from before this was kept.
    pub cached: Option<bool>,
    /// As shown, at least one: a list of none leaves no row.
    pub items: Vec<ServedItem>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServedItem {
    pub item_id: String,
    pub score: f64,
    /// The probability with which it was drawn for its place given the ones before it: 1 where nothing
    /// was drawn, 0 where that is not known.
    pub propensity: f64,
    /// Where it came from, separated by commas.
    pub sources: String,
    /// The arm that put it there, in a list that two arms drafted together; empty elsewhere.
    pub arm: String,
}

/// What a list may do without: none, where a file was written before it existed.
const LATER: [&str; 5] = ["placement", "experiment", "arm", "propensity", "sources"];

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("tenant"),
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
        text("sources"),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        // Not in files that older feature stores wrote.
        Field::new("cached", DataType::Boolean, true),
        Field::new("item_arm", DataType::Utf8, true),
    ]))
}

impl Record for ServedList {
    const FILES: &'static str = "served";
    const MANIFESTS: &'static str = "_served";
    const COMPACTED: &'static str = "_served_compacted";

    fn position(&self) -> Position {
        self.position
    }

    fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    fn day(&self) -> String {
        self.served_at.day()
    }

    fn pack(lists: &[&Self]) -> Result<Packed, Error> {
        let rows: Vec<(&Self, i32, &ServedItem)> =
            lists.iter().flat_map(|list| (1..).zip(&list.items).map(|(place, item)| (*list, place, item))).collect();
        let of_list = |of: fn(&Self) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(list, ..)| of(list))))
        };
        let of_item = |of: fn(&ServedItem) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(.., item)| of(item))))
        };
        let number = |of: fn(&ServedItem) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|(.., item)| of(item))))
        };
        let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|(list, ..)| list.served_at.as_ms()));
        let columns: Vec<ArrayRef> = vec![
            of_list(|list| list.tenant.as_str()),
            of_list(|list| &list.customer_id),
            of_list(|list| &list.request_id),
            Arc::new(times.with_timezone("UTC")),
            of_list(|list| &list.placement),
            of_list(|list| &list.experiment),
            of_list(|list| &list.arm),
            of_list(|list| &list.model),
            of_list(|list| &list.model_version),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, place, _)| *place))),
            of_item(|item| &item.item_id),
            number(|item| item.score),
            number(|item| item.propensity),
            of_item(|item| &item.sources),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(list, ..)| list.position.partition))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(list, ..)| list.position.offset))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|(list, ..)| list.cached))),
            Arc::new(StringArray::from_iter(
                rows.iter().map(|(.., item)| Some(item.arm.as_str()).filter(|arm| !arm.is_empty())),
            )),
        ];
        Ok(Packed { rows: rows.len(), bytes: write(schema(), columns)? })
    }

    fn unpack(path: &Path, bytes: Bytes, lists: &mut Vec<Self>) -> Result<usize, Error> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        let mut rows = 0;
        let begins = lists.len();
        let schema = schema();
        let later = |field: &Field| LATER.contains(&field.name().as_str());
        for batch in reader.map_err(|e| Error::corrupt(path, e))? {
            let batch = batch.map_err(|e| Error::corrupt(path, e))?;
            let batch = widened(path, &batch, &schema, later)?;
            let text = |name: &str| column::<StringArray>(path, &batch, name);
            let [tenants, customers, requests, placements, experiments] =
                [text("tenant")?, text("customer_id")?, text("request_id")?, text("placement")?, text("experiment")?];
            let [arms, models, versions, items, sources] =
                [text("arm")?, text("model")?, text("model_version")?, text("item_id")?, text("sources")?];
            let times: &TimestampMillisecondArray = column(path, &batch, "served_at")?;
            let scores: &Float64Array = column(path, &batch, "score")?;
            let propensities: &Float64Array = column(path, &batch, "propensity")?;
            let partitions: &Int32Array = column(path, &batch, "partition")?;
            let offsets: &Int64Array = column(path, &batch, "offset")?;
            let cached = batch.column_by_name("cached").and_then(|of| of.as_any().downcast_ref::<BooleanArray>());
            let item_arms = batch.column_by_name("item_arm").and_then(|of| of.as_any().downcast_ref::<StringArray>());
            for i in 0..batch.num_rows() {
                let position = Position { partition: partitions.value(i), offset: offsets.value(i) };
                let item = ServedItem {
                    item_id: items.value(i).to_owned(),
                    score: scores.value(i),
                    propensity: propensities.value(i),
                    sources: sources.value(i).to_owned(),
                    arm: item_arms.filter(|of| of.is_valid(i)).map(|of| of.value(i).to_owned()).unwrap_or_default(),
                };
                // The rows of a list follow each other.
                match lists.get_mut(begins..).and_then(<[Self]>::last_mut) {
                    Some(list) if list.position == position => list.items.push(item),
                    Some(_) | None => lists.push(Self {
                        position,
                        tenant: Tenant::parse(tenants.value(i)).map_err(|e| Error::corrupt(path, e))?,
                        customer_id: customers.value(i).to_owned(),
                        request_id: requests.value(i).to_owned(),
                        served_at: EventTime::from_ms(times.value(i)),
                        placement: placements.value(i).to_owned(),
                        experiment: experiments.value(i).to_owned(),
                        arm: arms.value(i).to_owned(),
                        model: models.value(i).to_owned(),
                        model_version: versions.value(i).to_owned(),
                        cached: cached.filter(|of| of.is_valid(i)).map(|of| of.value(i)),
                        items: vec![item],
                    }),
                }
            }
            rows += batch.num_rows();
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_before_the_newer_columns_is_read_without_them() {
        let list = ServedList {
            position: Position { partition: 0, offset: 3 },
            tenant: Tenant::parse("demo").unwrap(),
            customer_id: "ann".into(),
            request_id: "r".into(),
            served_at: EventTime::from_ms(1_000),
            placement: String::new(),
            experiment: "e".into(),
            arm: "interleaved".into(),
            model: String::new(),
            model_version: String::new(),
            cached: Some(true),
            items: vec![ServedItem {
                item_id: "x".into(),
                score: 1.0,
                propensity: 1.0,
                sources: String::new(),
                arm: "b".into(),
            }],
        };
        let path = Path::from("served/file.parquet");
        let bytes = Bytes::from(ServedList::pack(&[&list]).unwrap().bytes);
        let (mut as_written, mut older) = (Vec::new(), Vec::new());
        ServedList::unpack(&path, bytes.clone(), &mut as_written).unwrap();
        assert_eq!(as_written, std::slice::from_ref(&list));

        let mut batches = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let batch = batches.next().unwrap().unwrap();
        let kept = batch.project(&(0..batch.num_columns() - 2).collect::<Vec<_>>()).unwrap();
        let bytes = Bytes::from(write(kept.schema(), kept.columns().to_vec()).unwrap());
        ServedList::unpack(&path, bytes, &mut older).unwrap();
        let mut expected = list;
        (expected.cached, expected.items[0].arm) = (None, String::new());
        assert_eq!(older, [expected]);
    }
}
