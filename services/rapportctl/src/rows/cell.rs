//! A cell of Arrow as JSON.

use arrow::{
    array::{Array, AsArray as _},
    datatypes::{
        DataType, Date32Type, Date64Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use rapport_events::EventTime;
use serde_json::{Map, Value, json};

/// Whole numbers up to here are the same as a double and as an integer.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Numbers, texts and booleans as they are; times as RFC 3339 in UTC, dates as `YYYY-MM-DD`;
/// decimals as text, which loses no digit; lists and structs as JSON's. Anything else as the text
/// that Arrow shows.
pub fn json(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Int8 => json!(array.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => json!(array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => json!(array.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => json!(array.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => json!(array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => json!(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float32 => number(f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => number(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => json!(array.as_string::<i64>().value(row)),
        DataType::Utf8View => json!(array.as_string_view().value(row)),
        DataType::Timestamp(unit, _) => time(match unit {
            TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000),
            TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
            TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(1_000),
            TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000_000),
        }),
        DataType::Date32 => day(i64::from(array.as_primitive::<Date32Type>().value(row)).saturating_mul(86_400_000)),
        DataType::Date64 => day(array.as_primitive::<Date64Type>().value(row)),
        DataType::List(_) => list(array.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(row).as_ref()),
        DataType::FixedSizeList(..) => list(array.as_fixed_size_list().value(row).as_ref()),
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let named = fields.iter().zip(columns.columns());
            Value::Object(
                named.map(|(field, column)| (field.name().clone(), json(column.as_ref(), row))).collect::<Map<_, _>>(),
            )
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match json(dictionary.keys(), row).as_u64().and_then(|key| usize::try_from(key).ok()) {
                Some(key) => json(dictionary.values().as_ref(), key),
                None => Value::Null,
            }
        }
        _ => text(array, row),
    }
}

/// A double that is whole is an integer: a column of ids with gaps is often written as doubles.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < EXACT {
        #[allow(clippy::cast_possible_truncation)] // whole, and far inside i64's range
        return json!(value as i64);
    }
    // JSON has no NaN and no infinity: null.
    json!(value)
}

fn list(values: &dyn Array) -> Value {
    (0..values.len()).map(|row| json(values, row)).collect()
}

fn time(ms: i64) -> Value {
    let time = EventTime::from_ms(ms);
    if EventTime::from_proto(&time.to_proto()).is_some() { json!(time.to_string()) } else { Value::Null }
}

fn day(ms: i64) -> Value {
    let time = EventTime::from_ms(ms);
    if EventTime::from_proto(&time.to_proto()).is_some() { json!(time.day()) } else { Value::Null }
}

fn text(array: &dyn Array, row: usize) -> Value {
    match ArrayFormatter::try_new(array, &FormatOptions::default()) {
        Ok(formatter) => formatter.value(row).try_to_string().map_or(Value::Null, Value::String),
        Err(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{
            ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array, ListArray,
            StringArray, StructArray, TimestampNanosecondArray, UInt64Array,
        },
        datatypes::{Field, Int8Type},
    };

    use super::*;

    fn first(array: impl Array) -> Value {
        json(&array, 0)
    }

    #[test]
    fn cells_are_what_they_say() {
        assert_eq!(first(Int32Array::from(vec![-7])), json!(-7));
        assert_eq!(first(UInt64Array::from(vec![u64::MAX])), json!(u64::MAX));
        assert_eq!(first(BooleanArray::from(vec![true])), json!(true));
        assert_eq!(first(StringArray::from(vec!["x"])), json!("x"));
        assert_eq!(first(StringArray::from(vec![None::<&str>])), Value::Null);
        assert_eq!(first(Float64Array::from(vec![2.55])), json!(2.55));
        assert_eq!(
            first(TimestampNanosecondArray::from(vec![1_291_191_960_250_000_000])),
            json!("2010-12-01T08:26:00.250Z")
        );
        assert_eq!(first(Date32Array::from(vec![14_944])), json!("2010-12-01"));
        let decimals = Decimal128Array::from(vec![1_250]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(first(decimals), json!("12.50"));
        let words: DictionaryArray<Int8Type> = vec!["b", "a"].into_iter().collect();
        assert_eq!(json(&words, 1), json!("a"));
        assert_eq!(first(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])])), json!([1, null]));
        let inner: ArrayRef = Arc::new(Int32Array::from(vec![5]));
        let fields = StructArray::from(vec![(Arc::new(Field::new("n", DataType::Int32, true)), inner)]);
        assert_eq!(first(fields), json!({"n": 5}));
    }

    #[test]
    fn an_id_that_was_written_as_a_double_is_whole_again() {
        assert_eq!(first(Float64Array::from(vec![17_850.0])).to_string(), "17850");
        assert_eq!(first(Float64Array::from(vec![f64::NAN])), Value::Null);
        assert_eq!(first(Float64Array::from(vec![1e300])), json!(1e300));
    }
}
