//! How good the models are, how sure that is, and whether one is better than another.

use std::thread;

use anyhow::{Context as _, anyhow};
use rapport_evaluation::{
    Bootstrap, Calibration, Clusters, Confusion, Error, GainPoint, Interval, RocPoint, average_precision, brier_score,
    calibration, delong, gain_and_lift, holm, log_loss, roc_auc, roc_curve,
};

use super::{
    examples::Examples,
    held_out::HeldOut,
    recipe::{CompareWith, Recipe},
};

/// Bins of the calibration curve and of its expected error.
pub const CALIBRATION_BINS: usize = 10;
/// Where lift is read off.
const CONTACTED: f64 = 0.1;
/// Points of the gain curve: every twentieth of the customers.
const GAIN_POINTS: u32 = 20;
/// Of all intervals.
const CONFIDENCE: f64 = 0.95;
/// Standard errors each way that hold 95 % of a normal distribution.
const NORMAL_95: f64 = 1.959_963_984_540_054;

/// Of labels `[rows]`, probabilities `[rows]` and the threshold.
type Of = fn(&[bool], &[f64], f64) -> Result<f64, Error>;

/// A figure of a model.
pub struct Measure {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    of: Of,
}

/// In the order in which they are shown.
pub static MEASURES: [Measure; 10] = [
    Measure { key: "auc", name: "AUC", of: |labels, p, _| roc_auc(labels, p) },
    Measure { key: "average_precision", name: "average precision", of: |labels, p, _| average_precision(labels, p) },
    Measure { key: "accuracy", name: "accuracy", of: |labels, p, at| Ok(predicted(labels, p, at)?.accuracy()) },
    Measure {
        key: "precision",
        name: "precision",
        of: |labels, p, at| Ok(predicted(labels, p, at)?.class(1)?.precision),
    },
    Measure { key: "recall", name: "recall", of: |labels, p, at| Ok(predicted(labels, p, at)?.class(1)?.recall) },
    Measure { key: "f1", name: "F1", of: |labels, p, at| Ok(predicted(labels, p, at)?.class(1)?.f1) },
    Measure { key: "log_loss", name: "log loss", of: |labels, p, _| log_loss(labels, p) },
    Measure { key: "brier", name: "Brier score", of: |labels, p, _| brier_score(labels, p) },
    Measure {
        key: "ece",
        name: "calibration error (ECE)",
        of: |labels, p, _| Ok(calibration(labels, p, CALIBRATION_BINS)?.expected_error),
    },
    Measure { key: "lift_at_10_percent", name: "lift at 10 %", of: |labels, p, _| lift(labels, p) },
];

fn predicted(labels: &[bool], probabilities: &[f64], threshold: f64) -> Result<Confusion, Error> {
    Confusion::at_threshold(labels, probabilities, threshold)
}

fn lift(labels: &[bool], probabilities: &[f64]) -> Result<f64, Error> {
    Ok(gain_and_lift(labels, probabilities, &[CONTACTED])?.first().map_or(f64::NAN, |point| point.lift))
}

/// A model's figures and curves.
pub struct Judgement {
    /// One for each of [`MEASURES`].
    pub figures: Vec<Interval>,
    pub roc: Vec<RocPoint>,
    pub calibration: Calibration,
    pub gain: Vec<GainPoint>,
}

impl Judgement {
    pub fn auc(&self) -> f64 {
        self.figures.first().map_or(f64::NAN, |figure| figure.estimate)
    }
}

/// A model against another on the same rows, by AUC.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub first: String,
    pub second: String,
    /// The AUC of the first less that of the second.
    pub difference: Interval,
    pub p_value: f64,
    /// By Holm's method over all comparisons: below the level, the difference is no chance.
    pub adjusted_p_value: f64,
    pub test: &'static str,
}

/// Judges every model, several at a time.
///
/// # Errors
/// A figure that is undefined, or too often so among resamples.
pub fn judge(examples: &Examples, models: &[HeldOut], recipe: &Recipe) -> anyhow::Result<Vec<Judgement>> {
    let (labels, clusters) = (&examples.data.labels, &examples.clusters());
    let mut judgements = Vec::with_capacity(models.len());
    for some in models.chunks(recipe.threads) {
        let judged: Vec<anyhow::Result<Judgement>> = thread::scope(|scope| {
            let started: Vec<_> =
                some.iter().map(|model| scope.spawn(move || of_model(labels, model, clusters, recipe))).collect();
            started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread died")))).collect()
        });
        for (judgement, model) in judged.into_iter().zip(some) {
            judgements.push(judgement.with_context(|| format!("judging model {:?}", model.name))?);
        }
    }
    Ok(judgements)
}

fn of_model(labels: &[bool], model: &HeldOut, clusters: &Clusters, recipe: &Recipe) -> anyhow::Result<Judgement> {
    let bootstrap = bootstrap(recipe);
    let p = &model.probabilities;
    let figure = |measure: &Measure| {
        let resampled = bootstrap.statistic(clusters, |rows| {
            let labels: Vec<bool> = rows.iter().filter_map(|row| labels.get(*row)).copied().collect();
            let p: Vec<f64> = rows.iter().filter_map(|row| p.get(*row)).copied().collect();
            (measure.of)(&labels, &p, recipe.threshold)
        });
        resampled.with_context(|| measure.name)
    };
    let fractions: Vec<f64> = (1..=GAIN_POINTS).map(|part| f64::from(part) / f64::from(GAIN_POINTS)).collect();
    Ok(Judgement {
        figures: MEASURES.iter().map(figure).collect::<anyhow::Result<_>>()?,
        roc: roc_curve(labels, p)?,
        calibration: calibration(labels, p, CALIBRATION_BINS)?,
        gain: gain_and_lift(labels, p, &fractions)?,
    })
}

fn bootstrap(recipe: &Recipe) -> Bootstrap {
    Bootstrap { resamples: recipe.resamples, confidence: CONFIDENCE, seed: recipe.seed }
}

/// The model with the greatest AUC; the first of equals.
pub fn best(judgements: &[Judgement]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (position, judgement) in judgements.iter().enumerate() {
        if judgement.auc() > best.1 {
            best = (position, judgement.auc());
        }
    }
    best.0
}

/// Every other model against the one that the recipe names: DeLong's test where rows are independent,
/// the paired bootstrap where customers repeat or DeLong's has no variance.
///
/// # Errors
/// As the tests.
pub fn compare(
    examples: &Examples,
    models: &[HeldOut],
    judgements: &[Judgement],
    recipe: &Recipe,
) -> anyhow::Result<Vec<Comparison>> {
    let against = match recipe.compare_with {
        CompareWith::Best => best(judgements),
        CompareWith::First => 0,
    };
    let Some(second) = models.get(against) else { return Ok(Vec::new()) };
    let clusters = examples.clusters();
    let others = models.iter().enumerate().filter(|(position, _)| *position != against).map(|(_, model)| model);
    let mut comparisons = Vec::new();
    for first in others {
        let (difference, p_value, test) = difference(examples, &clusters, first, second, recipe)
            .with_context(|| format!("comparing {:?} with {:?}", first.name, second.name))?;
        comparisons.push(Comparison {
            first: first.name.clone(),
            second: second.name.clone(),
            difference,
            p_value,
            adjusted_p_value: p_value,
            test,
        });
    }
    if !comparisons.is_empty() {
        let adjusted = holm(&comparisons.iter().map(|comparison| comparison.p_value).collect::<Vec<_>>())?;
        for (comparison, p_value) in comparisons.iter_mut().zip(adjusted) {
            comparison.adjusted_p_value = p_value;
        }
    }
    Ok(comparisons)
}

fn difference(
    examples: &Examples,
    clusters: &Clusters,
    first: &HeldOut,
    second: &HeldOut,
    recipe: &Recipe,
) -> Result<(Interval, f64, &'static str), Error> {
    let labels = &examples.data.labels;
    let (a, b) = (&first.probabilities, &second.probabilities);
    if examples.groups.is_none() {
        match delong(labels, a, b) {
            Ok(test) => {
                let reach = NORMAL_95 * test.standard_error;
                let (lower, upper) = (test.difference - reach, test.difference + reach);
                let interval = Interval { estimate: test.difference, lower, upper, confidence: CONFIDENCE };
                return Ok((interval, test.p_value, "DeLong"));
            }
            Err(Error::NoVariance { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    let paired = bootstrap(recipe).scored_difference(labels, a, b, clusters, roc_auc)?;
    Ok((paired.interval, paired.p_value, "paired bootstrap"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(auc: f64) -> Judgement {
        let figure = Interval { estimate: auc, lower: auc, upper: auc, confidence: CONFIDENCE };
        let calibration = calibration(&[true, false], &[0.9, 0.1], CALIBRATION_BINS).unwrap();
        Judgement { figures: vec![figure], roc: vec![], calibration, gain: vec![] }
    }

    #[test]
    fn the_best_has_the_greatest_area_and_of_equals_the_first_wins() {
        assert_eq!(best(&[judged(0.7), judged(0.8), judged(0.8)]), 1);
        assert_eq!(best(&[]), 0);
    }

    #[test]
    fn every_measure_of_a_perfect_forecast_is_at_its_end() {
        let labels = [true, false, false, false, true, false, false, false, false, false];
        let certain = labels.map(|label| f64::from(u8::from(label)));
        let figures: Vec<f64> = MEASURES.iter().map(|measure| (measure.of)(&labels, &certain, 0.5).unwrap()).collect();
        for (figure, expected) in figures.iter().zip([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 5.0]) {
            assert!((figure - expected).abs() < 1e-9, "{figures:?}");
        }
    }
}
