//! A product of activations with int8 weights, in operators of ONNX's own (DynamicQuantizeLinear,
//! MatMulInteger, Cast, Mul, Add), in the order in which ONNX Runtime fuses them into one.

use std::collections::HashMap;

use super::exported::{cast_to_float, node};
use crate::export::onnx_messages::NodeProto;

/// Activations as uint8 with one scale and zero point for the whole tensor, found while serving.
/// Those that several products read are quantised once.
#[derive(Default)]
pub(super) struct Activations(HashMap<String, [String; 3]>);

/// Weights as int8, `[in, out]`, and the scale of each output, `[out]`: names of constants.
pub(super) struct Weights<'a> {
    pub(super) integers: &'a str,
    pub(super) scales: &'a str,
}

impl Activations {
    /// The nodes that compute `output = input * weights (+ bias)`: `[.., in]` to `[.., out]`. `name`
    /// begins the names of what lies between.
    ///
    /// Where a processor adds pairs of 8-bit products in 16 bits (x86 without VNNI), sums of extreme
    /// values saturate in ONNX Runtime: compare on the kind of machine that serves.
    pub(super) fn product(
        &mut self,
        name: &str,
        input: &str,
        weights: &Weights<'_>,
        bias: Option<&str>,
        output: &str,
    ) -> Vec<NodeProto> {
        let mut nodes = Vec::new();
        let [integers, scale, zero] = self.0.entry(input.into()).or_insert_with(|| {
            let names = ["quantised", "quantised_scale", "quantised_zero"].map(|part| format!("{input}_{part}"));
            let [integers, scale, zero] = names.each_ref().map(String::as_str);
            nodes.push(node("DynamicQuantizeLinear", &[input], &[integers, scale, zero], vec![]));
            names
        });
        let [sum, real, scales, scaled] = ["sum", "real", "scales", "scaled"].map(|part| format!("{name}_{part}"));
        let scaled = if bias.is_some() { scaled.as_str() } else { output };
        nodes.push(node("MatMulInteger", &[integers, weights.integers, zero], &[&sum], vec![]));
        nodes.push(cast_to_float(&sum, &real));
        nodes.push(node("Mul", &[scale, weights.scales], &[&scales], vec![]));
        nodes.push(node("Mul", &[&real, &scales], &[scaled], vec![]));
        if let Some(bias) = bias {
            nodes.push(node("Add", &[scaled, bias], &[output], vec![]));
        }
        nodes
    }
}
