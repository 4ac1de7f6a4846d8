//! What each feature moves the score of a network.

use crate::network::{Network, dense, dot, sparse};

/// Parts of the way from the mean row to a row, where there is more than one hidden layer.
const SEGMENTS: usize = 32;

impl Network {
    /// `[first layer's outputs]` of the mean row, where explanations start.
    pub fn start(&self, means: &[f64]) -> Vec<f64> {
        let mut sums = Vec::new();
        self.layers[0].apply(dense(means), &mut sums);
        sums
    }

    /// The log-odds of the mean row.
    pub fn score_from(&self, start: &[f64]) -> f64 {
        self.upward(start.to_vec()).last().map_or(0.0, |sums| sums[0])
    }

    /// `[features]`: by what a feature's distance from the mean row is multiplied to give its part of
    /// the difference in score.
    ///
    /// These are the integrated gradients (Sundararajan, Taly and Yan 2017) on the straight way from
    /// the mean row. Between two points on the way, an activation's mean slope is its secant; taking
    /// the secants of each segment layer by layer (DeepLIFT's rescale rule, Shrikumar, Greenside and
    /// Kundaje 2017) makes the parts of a segment sum to its difference in score, however long it
    /// is. With one hidden layer a single segment is exact; with more, the parts tend to the
    /// integral as segments shrink and their sum needs no correction.
    pub fn multipliers(&self, start: &[f64], row: &[(u32, f64)]) -> Vec<f64> {
        let mut end = Vec::new();
        self.layers[0].apply(sparse(row), &mut end);
        let segments = if self.layers.len() > 2 { SEGMENTS } else { 1 };
        let at = |part: usize| -> Vec<Vec<f64>> {
            let share = part as f64 / segments as f64;
            self.upward(start.iter().zip(&end).map(|(from, to)| from + share * (to - from)).collect())
        };
        let mut first = vec![0.0; start.len()];
        let mut from = at(0);
        for part in 1..=segments {
            let to = at(part);
            let mut delta = vec![1.0];
            for (index, layer) in self.layers.iter().enumerate().skip(1).rev() {
                let ends = from[index - 1].iter().zip(&to[index - 1]).enumerate();
                let through = ends.map(|(input, (&a, &b))| self.activation.secant(a, b) * dot(layer.of(input), &delta));
                delta = through.collect();
            }
            first.iter_mut().zip(&delta).for_each(|(sum, delta)| *sum += delta / segments as f64);
            from = to;
        }
        let features = self.layers[0].weights.len() / first.len().max(1);
        (0..features).map(|feature| dot(self.layers[0].of(feature), &first)).collect()
    }

    /// The sums of every layer, given those of the first.
    fn upward(&self, first: Vec<f64>) -> Vec<Vec<f64>> {
        let mut all = vec![first];
        for layer in &self.layers[1..] {
            let below = all.last().map_or(&[][..], Vec::as_slice);
            let mut sums = Vec::new();
            layer.apply(below.iter().map(|&sum| self.activation.value(sum)).enumerate(), &mut sums);
            all.push(sums);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use crate::network::Pass;
    use crate::network::tests::{ACTIVATIONS, SHAPES, network, row};

    #[test]
    fn the_parts_of_a_score_are_the_integrated_gradients_and_sum_to_it_without_a_rest() {
        let (means, values) = ([0.2, -0.5, 1.0], [1.5, 0.8, -2.0]);
        for (hidden, activation) in SHAPES.iter().flat_map(|hidden| ACTIVATIONS.map(|one| (hidden, one))) {
            let network = network(hidden, activation);
            let start = network.start(&means);
            let multipliers = network.multipliers(&start, &row(values));
            let part = |feature: usize| multipliers[feature] * (values[feature] - means[feature]);
            let whole = network.score(&row(values), &mut Pass::default()) - network.score_from(&start);
            assert!((part(0) + part(1) + part(2) - whole).abs() < 1e-12, "{hidden:?} {activation:?}");
            // The definition, by many small steps on the way.
            let steps = 20_000;
            for feature in 0..3 {
                let slope = |step: usize| {
                    let share = (step as f64 + 0.5) / f64::from(steps);
                    let at = |moved: f64| {
                        let mut here = [0, 1, 2].map(|i| means[i] + share * (values[i] - means[i]));
                        here[feature] += moved;
                        network.score(&row(here), &mut Pass::default())
                    };
                    (at(1e-6) - at(-1e-6)) / 2e-6
                };
                let mean = (0..steps as usize).map(slope).sum::<f64>() / f64::from(steps);
                assert!((mean - multipliers[feature]).abs() < 2e-3, "{hidden:?} {activation:?} {feature}");
            }
        }
    }
}
