//! The spine: which entities, and when. Everything else in the file (labels above all) is kept as it is.

use std::{fs::File, path::Path, sync::Arc};

use anyhow::Context as _;
use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{Field, Schema},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rapport_events::EventTime;
use serde_json::{Map, Value};

use crate::{
    error::Usage,
    rows::{self, Body, Delimited, Format, cell},
};

/// A spine is in memory whole, with its vectors.
pub const MOST_ROWS: usize = 5_000_000;

/// Numbers from here on are milliseconds, below it seconds: the year 5138 in seconds, 1973 in milliseconds.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// The columns that say whose features and when.
#[derive(Debug, Clone)]
pub struct Columns {
    pub customer: String,
    pub item: String,
    pub category: String,
    pub session: String,
    pub segment: String,
    pub at: String,
}

/// A row's entities and moment. An entity that the row does not name has no features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub customer: Option<String>,
    pub item: Option<String>,
    pub category: Option<String>,
    pub session: Option<String>,
    pub segment: Option<String>,
    pub at: EventTime,
}

#[derive(Debug)]
pub struct Spine {
    pub table: RecordBatch,
    /// One for each row of the table.
    pub keys: Vec<Key>,
}

impl Spine {
    /// # Errors
    /// The file cannot be read, has a row that cannot, or lacks the column of moments or of every entity.
    pub fn read(path: &Path, format: Format, columns: &Columns) -> anyhow::Result<Self> {
        let table = Self::table(path, format)?;
        let keys = keys(&table, columns).with_context(|| format!("{}", path.display()))?;
        Ok(Self { table, keys })
    }

    /// The rows of a file, which are at least one.
    ///
    /// # Errors
    /// As [`Self::read`], but for the columns.
    pub fn table(path: &Path, format: Format) -> anyhow::Result<RecordBatch> {
        let table = match format {
            Format::Parquet => from_parquet(path)?,
            Format::Csv | Format::Ndjson => from_rows(path, format)?,
        };
        if table.num_rows() == 0 {
            return Err(empty(path).into());
        }
        Ok(table)
    }
}

fn empty(path: &Path) -> Usage {
    Usage(format!("{} has no row", path.display()))
}

fn too_many(path: &Path) -> Usage {
    Usage(format!("{} has more than {MOST_ROWS} rows; split it", path.display()))
}

fn from_parquet(path: &Path) -> anyhow::Result<RecordBatch> {
    let what = || format!("{} cannot be read as Parquet", path.display());
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(what)?;
    if usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(usize::MAX) > MOST_ROWS {
        return Err(too_many(path).into());
    }
    let schema = Arc::clone(builder.schema());
    let batches = builder.build().with_context(what)?.collect::<Result<Vec<_>, _>>().with_context(what)?;
    concat_batches(&schema, &batches).with_context(what)
}

fn from_rows(path: &Path, format: Format) -> anyhow::Result<RecordBatch> {
    let tabs = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".tsv"));
    let delimiter = if tabs { b'\t' } else { b',' };
    let how = Delimited { delimiter, quote: b'"', header: true, columns: None };
    let (rows, _) = rows::open(path, format, &how, 0)?;
    let mut objects: Vec<Map<String, Value>> = Vec::new();
    for row in rows {
        let row = row?;
        let number = row.number;
        let wrong = |reason: &str| Usage(format!("{}: row {number}: {reason}", path.display()));
        let body = match row.body.map_err(|bad| wrong(&bad.reason))? {
            Body::Object(value) => value,
            Body::Line(line) => serde_json::from_slice(&line).map_err(|error| wrong(&error.to_string()))?,
        };
        let Value::Object(object) = body else { return Err(wrong("is no JSON object").into()) };
        if objects.len() == MOST_ROWS {
            return Err(too_many(path).into());
        }
        objects.push(object);
    }
    if objects.is_empty() {
        return Err(empty(path).into());
    }
    tabulated(&objects).with_context(|| format!("{}", path.display()))
}

/// Objects as columns, in the order in which names first come up.
fn tabulated(objects: &[Map<String, Value>]) -> anyhow::Result<RecordBatch> {
    let mut names: Vec<&String> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for name in objects.iter().flat_map(Map::keys) {
        if known.insert(name) {
            names.push(name);
        }
    }
    let (mut fields, mut columns) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
    for name in names {
        let column = typed(objects.iter().map(|object| object.get(name).filter(|value| !blank(value))));
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn blank(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

/// Whole numbers, numbers or booleans where every value is one; text otherwise. Cells of CSV are text: one
/// that begins with a zero, as postcodes and ids do, stays text.
fn typed<'a>(values: impl Iterator<Item = Option<&'a Value>> + Clone) -> ArrayRef {
    let present = || values.clone().flatten();
    let padded = |text: &str| text.len() > 1 && text.starts_with('0') && !text.starts_with("0.");
    let whole = |value: &Value| match value {
        Value::String(text) if !padded(text) && !text.starts_with('+') => text.parse::<i64>().ok(),
        other => other.as_i64(),
    };
    let number = |value: &Value| match value {
        Value::String(text) if !padded(text) => text.parse::<f64>().ok().filter(|number| number.is_finite()),
        other => other.as_f64(),
    };
    if present().next().is_some() && present().all(|value| whole(value).is_some()) {
        return Arc::new(values.map(|value| value.and_then(whole)).collect::<Int64Array>());
    }
    if present().next().is_some() && present().all(|value| number(value).is_some()) {
        return Arc::new(values.map(|value| value.and_then(number)).collect::<Float64Array>());
    }
    if present().next().is_some() && present().all(Value::is_boolean) {
        return Arc::new(values.map(|value| value.and_then(Value::as_bool)).collect::<BooleanArray>());
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Arc::new(values.map(|value| value.map(text)).collect::<StringArray>())
}

fn keys(table: &RecordBatch, columns: &Columns) -> anyhow::Result<Vec<Key>> {
    let at = table.column_by_name(&columns.at);
    let at = at.ok_or_else(|| Usage(format!("has no column {:?}; name the moments with --at-column", columns.at)))?;
    let Columns { customer, item, category, session, segment, .. } = columns;
    let [customers, items, categories, sessions, segments] =
        [customer, item, category, session, segment].map(|name| table.column_by_name(name));
    if [customers, items, segments].iter().all(Option::is_none) {
        return Err(Usage(format!(
            "has neither a column {customer:?} nor {item:?} nor {segment:?}; name the one it has with \
             --customer-column, --item-column or --segment-column"
        ))
        .into());
    }
    (0..table.num_rows())
        .map(|row| {
            let given = cell::json(at.as_ref(), row);
            let at = moment(&given).ok_or_else(|| {
                Usage(format!(
                    "row {}: {} {given} is no time such as 2026-11-01T12:00:00Z, 2026-11-01 12:00:00 or 2026-11-01 (in \
                     UTC), nor seconds or milliseconds since 1970",
                    row + 1,
                    columns.at
                ))
            })?;
            let id = |column: Option<&ArrayRef>| column.and_then(|column| text(&cell::json(column.as_ref(), row)));
            Ok(Key {
                customer: id(customers),
                item: id(items),
                category: id(categories),
                session: id(sessions),
                segment: id(segments),
                at,
            })
        })
        .collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        other => Some(other.to_string()),
    }
}

fn moment(value: &Value) -> Option<EventTime> {
    let since_1970 = |number: i64| {
        let late = number.unsigned_abs() >= MILLISECONDS_FROM.unsigned_abs();
        let time = EventTime::from_ms(if late { number } else { number.checked_mul(1_000)? });
        EventTime::from_proto(&time.to_proto())
    };
    match value {
        Value::Number(number) => since_1970(number.as_i64()?),
        Value::String(text) => {
            let text = text.trim();
            if let Ok(number) = text.parse() {
                return since_1970(number);
            }
            rapport_features::moment(text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use serde_json::json;

    use super::*;

    fn columns() -> Columns {
        let name = str::to_owned;
        Columns {
            customer: name("customer_id"),
            item: name("item_id"),
            category: name("category"),
            session: name("session"),
            segment: name("segment"),
            at: name("at"),
        }
    }

    fn spine(name: &str, content: &str) -> anyhow::Result<Spine> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Spine::read(&path, Format::of(&path).unwrap(), &columns())
    }

    #[test]
    fn a_spine_keeps_its_columns_and_says_whose_features_and_when() {
        let read = spine("a.csv", "at,customer_id,item_id,label\n2026-11-01,007,,1\n1761955200,u2,5,0\n").unwrap();
        let first = EventTime::parse_rfc3339("2026-11-01T00:00:00Z").unwrap();
        let key = |customer: &str, item: Option<&str>, at| Key {
            customer: Some(customer.into()),
            item: item.map(str::to_owned),
            category: None,
            session: None,
            segment: None,
            at,
        };
        let second = EventTime::from_ms(1_761_955_200_000);
        assert_eq!(read.keys, [key("007", None, first), key("u2", Some("5"), second)]);
        let types: Vec<_> = read.table.schema().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Utf8, DataType::Utf8, DataType::Int64, DataType::Int64]);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let of = |value: Value| moment(&value).map(|time| time.to_string());
        for (given, read) in [
            (json!("2026-11-01T12:30:00Z"), "2026-11-01T12:30:00Z"),
            (json!("2026-11-01T12:30:00.250+01:00"), "2026-11-01T11:30:00.250Z"),
            (json!("2026-11-01 12:30:00"), "2026-11-01T12:30:00Z"),
            (json!("2026-11-01"), "2026-11-01T00:00:00Z"),
            (json!(1_761_955_200), "2025-11-01T00:00:00Z"),
            (json!(1_761_955_200_000i64), "2025-11-01T00:00:00Z"),
        ] {
            assert_eq!(of(given.clone()).as_deref(), Some(read), "{given}");
        }
        for given in [json!("soon"), json!(null), json!(""), json!("2026-13-01"), json!(i64::MAX), json!(true)] {
            assert_eq!(of(given.clone()), None, "{given}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_spine_is_said_with_its_row_or_column() {
        for (name, content, said) in [
            ("a.csv", "customer_id,at\nann,soon\n", "row 1: at \"soon\" is no time"),
            ("a.csv", "customer_id,when\nann,2026-11-01\n", "--at-column"),
            ("a.csv", "who,at\nann,2026-11-01\n", "--customer-column"),
            ("a.csv", "customer_id,at\n", "has no row"),
            ("a.ndjson", "{\"customer_id\":\"a\",\"at\":1}\n[]\n", "row 2: is no JSON object"),
            ("a.ndjson", "{\"customer_id\n", "row 1"),
        ] {
            let error = format!("{:#}", spine(name, content).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
