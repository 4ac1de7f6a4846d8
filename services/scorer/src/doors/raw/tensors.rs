//! Tensors between the wire and the graph: pure.

use rapport_events::FieldError;
use rapport_inference::raw::{Element, RawInput, TensorInfo};

/// Tensors of one call.
pub const MAX_TENSORS: usize = 16;

/// An element type as the protocol names it.
pub const fn datatype(info: &TensorInfo) -> &'static str {
    match info.element {
        Element::Int64 => "INT64",
        Element::Float32 => "FP32",
    }
}

/// An input whose values have been read.
///
/// # Errors
/// The field that is wrong; `place` is where the input stands.
pub fn input(
    place: usize,
    name: String,
    datatype: &str,
    shape: &[i64],
    values: Vec<i64>,
) -> Result<RawInput, FieldError> {
    let at = |field: &str| format!("inputs[{place}].{field}");
    if datatype != "INT64" {
        let shown: String = datatype.chars().take(16).collect();
        return Err(FieldError::schema(at("datatype"), format!("must be INT64, as the metadata says; is {shown:?}")));
    }
    let axes = shape.iter().map(|axis| usize::try_from(*axis).ok()).collect::<Option<Vec<usize>>>();
    let shape = axes.ok_or_else(|| FieldError::schema(at("shape"), "may hold no negative number"))?;
    Ok(RawInput { name, shape, values })
}

/// Values as bytes: little endian, without gaps.
///
/// # Errors
/// They end in the middle of one; `field` is where they stand.
pub fn from_bytes(field: &str, bytes: &[u8]) -> Result<Vec<i64>, FieldError> {
    let (values, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        let reason = format!("must be 8 bytes for each INT64, are {} bytes", bytes.len());
        return Err(FieldError::decode(field, reason));
    }
    Ok(values.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
}

pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A shape as the wire has it.
pub fn axes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX)).collect()
}

/// # Errors
/// There are more than [`MAX_TENSORS`].
pub fn bounded(field: &str, number: usize) -> Result<(), FieldError> {
    if number > MAX_TENSORS {
        return Err(FieldError::size(field, format!("may hold {MAX_TENSORS} tensors, holds {number}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_little_endian_and_a_part_of_one_is_refused() {
        assert_eq!(
            from_bytes("x", &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap(),
            [1, -1]
        );
        let error = from_bytes("raw_input_contents[0]", &[0; 9]).unwrap_err().to_string();
        assert_eq!(error, "raw_input_contents[0]: must be 8 bytes for each INT64, are 9 bytes");
        assert_eq!(to_bytes(&[1.0]), 1.0_f32.to_le_bytes());
    }

    #[test]
    fn other_types_and_negative_axes_are_refused_by_their_field() {
        let error =
            |datatype: &str, shape: &[i64]| input(1, "items".into(), datatype, shape, vec![]).unwrap_err().to_string();
        assert_eq!(error("FP32", &[1]), "inputs[1].datatype: must be INT64, as the metadata says; is \"FP32\"");
        assert_eq!(error("INT64", &[-1, 2]), "inputs[1].shape: may hold no negative number");
    }
}
