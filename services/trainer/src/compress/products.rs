//! Weights of products as int8, activations quantised while serving.

use std::collections::HashSet;

use super::{
    Error,
    exported::{Exported, is},
    integer::{Activations, Weights},
    quantise,
};
use crate::export::onnx_messages::data_type;

const KIND: &str = "int8-dynamic";

/// The weights of every product as int8 with a scale for each column; activations are quantised to
/// uint8 when they are there. Tables of items stay as they are, and so do convolutions and recurrent
/// layers.
///
/// # Errors
/// The model is not one of the exporter's, is compressed already, or has no product with weights (a
/// ridge has none).
pub fn int8_dynamic(model: &[u8]) -> Result<Vec<u8>, Error> {
    let mut model = Exported::open(model)?;
    if quantise(&mut model)? == 0 {
        return Err(Error::NothingToCompress { kind: KIND });
    }
    Ok(model.close(KIND))
}

/// Returns how many weights were quantised.
pub(super) fn quantise(model: &mut Exported) -> Result<usize, Error> {
    let names = model.product_weights();
    for name in &names {
        let Some(matrix) = model.matrix(name)? else { continue };
        let quantised = quantise::by_column(&matrix);
        let [integers, scales] = constants(name);
        let dims = [matrix.rows, matrix.columns];
        model.add_constant(&integers, &dims, data_type::INT8, bytes_of_integers(&quantised.integers));
        model.add_constant(&scales, &[matrix.columns], data_type::FLOAT, bytes_of_floats(&quantised.scales));
    }
    let weights: HashSet<&str> = names.iter().map(String::as_str).collect();
    let mut activations = Activations::default();
    let mut nodes = Vec::with_capacity(model.nodes.len());
    for node in std::mem::take(&mut model.nodes) {
        match (node.input.as_slice(), node.output.as_slice()) {
            ([input, weight], [output]) if is(&node, "MatMul") && weights.contains(weight.as_str()) => {
                let [integers, scales] = constants(weight);
                let weights = Weights { integers: &integers, scales: &scales };
                let name = node.name.as_deref().unwrap_or(weight);
                nodes.extend(activations.product(name, input, &weights, None, output));
            }
            _ => nodes.push(node),
        }
    }
    model.nodes = nodes;
    model.drop_unread(&names);
    Ok(names.len())
}

/// Names of the quantised values of a constant and of their scales.
pub(super) fn constants(name: &str) -> [String; 2] {
    [format!("{name}_integers"), format!("{name}_scales")]
}

pub(super) fn bytes_of_integers(integers: &[i8]) -> Vec<u8> {
    integers.iter().map(|&integer| integer as u8).collect()
}

pub(super) fn bytes_of_floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
