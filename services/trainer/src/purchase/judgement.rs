//! What the probabilities are worth, beside recency alone.

use rapport_evaluation::{
    Bootstrap, Clusters, Confusion, Error, Report, average_precision, brier_score, calibration, delong, gain_and_lift,
    log_loss,
    report::{Block, Section, Table, limits, number},
    roc_auc,
};

/// From this probability on a customer counts as predicted to buy.
const THRESHOLD: f64 = 0.5;
const CALIBRATION_BINS: usize = 10;
/// Share of the customers at which lift is read off.
const CONTACTED: f64 = 0.1;
/// Standard errors each way that hold 95 % of a normal distribution.
const NORMAL_95: f64 = 1.959_963_984_540_054;

type Measure = (&'static str, fn(&[bool], &[f64]) -> Result<f64, Error>);

const MEASURES: [Measure; 10] = [
    ("AUC", roc_auc),
    ("average precision", average_precision),
    ("accuracy", |labels, p| Ok(Confusion::at_threshold(labels, p, THRESHOLD)?.accuracy())),
    ("precision", |labels, p| Ok(Confusion::at_threshold(labels, p, THRESHOLD)?.class(1)?.precision)),
    ("recall", |labels, p| Ok(Confusion::at_threshold(labels, p, THRESHOLD)?.class(1)?.recall)),
    ("F1", |labels, p| Ok(Confusion::at_threshold(labels, p, THRESHOLD)?.class(1)?.f1)),
    ("log loss", log_loss),
    ("Brier score", brier_score),
    ("calibration error (ECE)", |labels, p| Ok(calibration(labels, p, CALIBRATION_BINS)?.expected_error)),
    ("lift at 10 %", |labels, p| {
        Ok(gain_and_lift(labels, p, &[CONTACTED])?.first().map_or(f64::NAN, |point| point.lift))
    }),
];

/// Figures with 95 % intervals, and the difference to `recency` (any score that falls with the days since
/// the newest event). All `[rows]`, each a customer.
///
/// # Errors
/// One class, or a probability that is none.
pub(super) fn report(
    title: String,
    facts: Vec<(String, String)>,
    labels: &[bool],
    probabilities: &[f64],
    recency: &[f64],
) -> Result<Report, Error> {
    let bootstrap = Bootstrap::default();
    let rows = Clusters::each_row(labels.len());
    let mut figures = Table::new("On the test cutoff; intervals resample customers", &["figure", "value", "95 %"]);
    for (name, of) in MEASURES {
        let interval = bootstrap.scored(labels, probabilities, &rows, of)?;
        figures.row([name.to_owned(), number(interval.estimate), limits(&interval)]);
    }
    let test = delong(labels, probabilities, recency)?;
    let reach = NORMAL_95 * test.standard_error;
    let columns = ["AUC", "of recency alone", "difference", "95 %", "p (DeLong)"];
    let mut against = Table::new("Against recency alone", &columns);
    against.row([
        number(roc_auc(labels, probabilities)?),
        number(roc_auc(labels, recency)?),
        number(test.difference),
        format!("[{}, {}]", number(test.difference - reach), number(test.difference + reach)),
        number(test.p_value),
    ]);
    let blocks = vec![Block::Table(figures), Block::Table(against)];
    Ok(Report { title, facts, sections: vec![Section { title: "How good".into(), blocks }] })
}
