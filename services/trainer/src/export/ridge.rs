//! The ridge as a graph: rows of the weights for the past items, decayed by their age, summed.

use super::graph::{Attribute, Graph, INPUT};
use crate::models::ridge::Ridge;

/// The encoded ONNX model. Age is counted from the end, and the row of padding is zero, so padding
/// on the left adds nothing.
pub fn ridge(model: &Ridge) -> Vec<u8> {
    let mut g = Graph::default();
    let width = model.width() as i64;
    let length = g.length();
    let one = g.ints("one", &[], &[1]);
    let minus_one = g.ints("minus_one", &[], &[-1]);
    let oldest = g.op("Sub", &[&length, &one], &[]);
    let ages = g.op("Range", &[&oldest, &minus_one, &minus_one], &[]);
    let ages = g.op("Cast", &[&ages], &[Attribute::Int("to", 1)]); // 1 = float32
    let first = g.ints("first_axis", &[1], &[0]);
    let middle = g.ints("middle_axis", &[1], &[1]);
    let mut scores: Option<String> = None;
    for (index, &decay) in model.decays().iter().enumerate() {
        let base = g.floats(&format!("decay_{index}"), &[], &[decay as f32]);
        let weights = g.floats(&format!("weights_{index}"), &[width, width], model.weights(index));
        // [length] -> [1, length]; rows [batch, length, width]; their product [batch, 1, width].
        let decayed = g.op("Pow", &[&base, &ages], &[]);
        let decayed = g.op("Unsqueeze", &[&decayed, &first], &[]);
        let rows = g.op("Gather", &[&weights, INPUT], &[Attribute::Int("axis", 0)]);
        let sum = g.op("MatMul", &[&decayed, &rows], &[]);
        scores = Some(match scores {
            None => sum,
            Some(before) => g.op("Add", &[&before, &sum], &[]),
        });
    }
    let scores = scores.unwrap_or_default(); // a ridge has at least one decay
    let scores = g.op("Squeeze", &[&scores, &middle], &[]);
    let mask = g.padding_mask(model.width());
    g.op("Add", &[&scores, &mask], &[]);
    g.finish("ridge", model.width(), model.sequence_length())
}
