//! Weights stored in float16, arithmetic in float32.

use half::f16;

use super::{
    Error,
    exported::{Exported, cast_to_float, floats, is_row_lookup, node},
};
use crate::export::onnx_messages::{NodeProto, TensorProto, data_type};

const KIND: &str = "float16";

/// Every weight and table in float16; they become float32 again before they are used, so that the
/// model computes as before with weights that have 11 significant bits. Of a table that is only
/// looked up in, no more than the rows that are asked for become float32.
///
/// Vectors and single numbers (biases, scales, the mask of padding) stay float32: they are small,
/// and the attention's "never" lies beyond float16. So does a matrix with a value beyond its range.
///
/// # Errors
/// The model is not one of the exporter's, is compressed already, or has no matrix that fits.
pub fn half(model: &[u8]) -> Result<Vec<u8>, Error> {
    let mut model = Exported::open(model)?;
    let mut halved = Vec::new();
    for tensor in &mut model.initializers {
        if let Some(smaller) = halve(tensor) {
            halved.extend(tensor.name.clone());
            *tensor = smaller;
        }
    }
    if halved.is_empty() {
        return Err(Error::NothingToCompress { kind: KIND });
    }
    let (tables, weights): (Vec<String>, Vec<String>) =
        halved.into_iter().partition(|name| model.readers(name).all(|node| is_lookup_in(node, name)));
    let mut nodes: Vec<NodeProto> = weights.iter().map(|name| cast_to_float(&stored(name), name)).collect();
    for node in std::mem::take(&mut model.nodes) {
        match tables.iter().find(|table| is_lookup_in(&node, table)) {
            Some(table) => nodes.extend(lookup(&node, table)),
            None => nodes.push(node),
        }
    }
    model.nodes = nodes;
    Ok(model.close(KIND))
}

/// Whether the node looks rows up in `table` and does not read it otherwise.
fn is_lookup_in(node: &NodeProto, table: &str) -> bool {
    is_row_lookup(node) && matches!(node.input.as_slice(), [first, index] if first == table && index != table)
}

/// The same lookup in the float16 table, and its rows as float32. (A node without an output does
/// nothing, and leaves nothing.)
fn lookup(gather: &NodeProto, table: &str) -> Vec<NodeProto> {
    let (Some(index), Some(rows)) = (gather.input.get(1), gather.output.first()) else { return Vec::new() };
    let in_half = format!("{rows}_half");
    vec![node("Gather", &[&stored(table), index], &[&in_half], gather.attribute.clone()), cast_to_float(&in_half, rows)]
}

/// The name that the float16 values of a constant have.
fn stored(name: &str) -> String {
    format!("{name}_half")
}

/// The constant in float16; `None` when it is no matrix of floats or has a value that is finite only
/// in float32.
fn halve(tensor: &TensorProto) -> Option<TensorProto> {
    if tensor.dims.len() < 2 || tensor.data_type != Some(data_type::FLOAT) {
        return None;
    }
    let values = floats(tensor);
    if values.iter().any(|&value| value.is_finite() && !f16::from_f32(value).is_finite()) {
        return None;
    }
    Some(TensorProto {
        dims: tensor.dims.clone(),
        data_type: Some(data_type::FLOAT16),
        name: tensor.name.as_deref().map(stored),
        raw_data: Some(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()),
        ..TensorProto::default()
    })
}
