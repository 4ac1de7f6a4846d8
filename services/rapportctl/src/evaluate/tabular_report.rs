//! What an evaluation of a table found, for people and for programs.

use rapport_evaluation::report::{Block, Plot, Report, Section, Table, limits, number};
use rapport_tabular::{Classifier as _, Model, Unit};
use serde_json::{Map, Value, json};

use super::{
    examples::Examples,
    held_out::HeldOut,
    judgement::{CALIBRATION_BINS, Comparison, Judgement, MEASURES, best},
    recipe::Recipe,
};

/// An explanation costs as much as many predictions: so many rows give the mean of a column to two
/// digits.
const EXPLAINED_ROWS: usize = 500;

/// How far a column moves the scores of the best model.
pub struct Contributions {
    pub unit: Unit,
    /// Rows that were explained, evenly spaced over the table.
    pub rows: usize,
    /// Column and mean absolute contribution, the greatest first.
    pub columns: Vec<(String, f64)>,
}

impl Contributions {
    /// # Errors
    /// As [`rapport_tabular::Classifier::explain`].
    pub fn of(model: &Model, examples: &Examples) -> anyhow::Result<Self> {
        let all = examples.data.labels.len();
        let rows: Vec<usize> = (0..all).step_by(all.div_ceil(EXPLAINED_ROWS).max(1)).collect();
        let explained = model.explain(&examples.data.table.select(&rows)?)?;
        let mut columns: Vec<(String, f64)> = explained.columns.into_iter().map(|name| (name, 0.0)).collect();
        for parts in &explained.contributions {
            for ((_, mean), part) in columns.iter_mut().zip(parts) {
                *mean += part.abs() / rows.len() as f64;
            }
        }
        columns.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(Self { unit: explained.unit, rows: rows.len(), columns })
    }
}

/// The unit of contributions, for people.
pub fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::LogOdds => "log-odds",
        Unit::Probability => "probability",
    }
}

/// All that was found.
pub struct Findings<'a> {
    /// The name of the file.
    pub data: String,
    pub recipe: &'a Recipe,
    pub examples: &'a Examples,
    pub models: &'a [HeldOut],
    pub judgements: &'a [Judgement],
    pub comparisons: &'a [Comparison],
    pub contributions: &'a Contributions,
    /// Which model the contributions are of, and what it was fitted on.
    pub explained: String,
}

impl Findings<'_> {
    fn best_name(&self) -> &str {
        self.models.get(best(self.judgements)).map_or("", |model| model.name.as_str())
    }

    fn rows(&self) -> usize {
        self.examples.data.labels.len()
    }

    fn folds(&self) -> String {
        let Recipe { folds, group, .. } = self.recipe;
        match group {
            Some(group) => format!("{folds}, by {group}: {} customers", self.examples.clusters().count()),
            None => format!("{folds}, stratified"),
        }
    }

    /// As a page, and as the tables of a terminal.
    pub fn report(&self) -> Report {
        let positives = self.examples.positives();
        let share = 100.0 * positives as f64 / self.rows() as f64;
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let label = &self.recipe.schema.label;
        Report {
            title: format!("Models of {label}, by {} held-out rows", self.rows()),
            facts: vec![
                fact("data", self.data.clone()),
                fact("positive", format!("{positives} rows of {} ({share:.1} %)", self.rows())),
                fact("folds", self.folds()),
                fact("seed", self.recipe.seed.to_string()),
                fact("best by AUC", self.best_name().to_owned()),
            ],
            sections: vec![
                Section { title: "How good".into(), blocks: vec![Block::Table(self.figures()), self.reading()] },
                Section { title: "Which is better".into(), blocks: self.differences() },
                Section { title: "Curves".into(), blocks: self.curves() },
                Section { title: "What the best model goes by".into(), blocks: vec![Block::Table(self.columns())] },
            ],
        }
    }

    /// A row for each figure, a column for each model: names are few and figures many.
    fn figures(&self) -> Table {
        let names = self.models.iter().map(|model| model.name.as_str());
        let header: Vec<&str> = std::iter::once("held out").chain(names).collect();
        let caption = format!("Held-out figures with 95 % intervals ({} resamples)", self.recipe.resamples);
        let mut table = Table::new(caption, &header);
        table.row(std::iter::once("kind").chain(self.models.iter().map(|model| model.kind)));
        for (at, measure) in MEASURES.iter().enumerate() {
            let figure = |judgement: &Judgement| {
                judgement
                    .figures
                    .get(at)
                    .map_or_else(String::new, |figure| format!("{} {}", number(figure.estimate), limits(figure)))
            };
            table.row(std::iter::once(measure.name.to_owned()).chain(self.judgements.iter().map(figure)));
        }
        let by_fold = self.models.iter().map(|model| match mean_and_deviation(&model.fold_aucs) {
            Some((mean, deviation)) => format!("{} +- {}", number(mean), number(deviation)),
            None => "-".to_owned(),
        });
        if self.models.iter().any(|model| !model.fold_aucs.is_empty()) {
            table.row(std::iter::once("AUC by fold, mean +- deviation".to_owned()).chain(by_fold));
        }
        let seconds = self.models.iter().map(|model| match mean_and_deviation(&model.fit_seconds) {
            Some((mean, _)) => format!("{} s", number(mean)),
            None => "-".to_owned(),
        });
        table.row(std::iter::once("time of a fit".to_owned()).chain(seconds));
        table
    }

    fn reading(&self) -> Block {
        let drawn = if self.examples.groups.is_some() { "customers" } else { "rows" };
        Block::Text(format!(
            "Accuracy, precision, recall and F1 count a probability of at least {} as positive. The calibration error \
             is over {CALIBRATION_BINS} bins of equal width. Intervals resample {drawn}, not fits.",
            self.recipe.threshold
        ))
    }

    fn differences(&self) -> Vec<Block> {
        if self.comparisons.is_empty() {
            return vec![Block::Text("A single model has nothing to be compared with.".into())];
        }
        let header = ["comparison", "AUC difference", "95 % interval", "p", "p (Holm)", "test"];
        let mut table = Table::new("Paired comparisons by AUC", &header).with_text(&["test"]);
        for comparison in self.comparisons {
            table.row([
                format!("{} - {}", comparison.first, comparison.second),
                number(comparison.difference.estimate),
                limits(&comparison.difference),
                number(comparison.p_value),
                number(comparison.adjusted_p_value),
                comparison.test.to_owned(),
            ]);
        }
        vec![Block::Table(table)]
    }

    fn curves(&self) -> Vec<Block> {
        fn of<'a, T: ?Sized>(
            models: &'a [HeldOut],
            judgements: &'a [Judgement],
            curve: fn(&'a Judgement) -> &'a T,
        ) -> Vec<(&'a str, &'a T)> {
            models.iter().map(|model| model.name.as_str()).zip(judgements.iter().map(curve)).collect()
        }
        let (models, judgements) = (self.models, self.judgements);
        vec![
            Block::Plot(Plot::roc("ROC", &of(models, judgements, |judgement| judgement.roc.as_slice()))),
            Block::Plot(Plot::calibration(
                format!("Calibration, {CALIBRATION_BINS} bins"),
                &of(models, judgements, |judgement| &judgement.calibration),
            )),
            Block::Plot(Plot::gain("Cumulative gain", &of(models, judgements, |judgement| judgement.gain.as_slice()))),
        ]
    }

    fn columns(&self) -> Table {
        let Contributions { unit, rows, columns } = self.contributions;
        let unit = unit_name(*unit);
        let caption = format!("{}: mean absolute contribution over {rows} rows", self.explained);
        let total: f64 = columns.iter().map(|(_, mean)| mean).sum();
        let mut table = Table::new(caption, &["column", unit, "share"]);
        for (name, mean) in columns {
            let share = if total > 0.0 { 100.0 * mean / total } else { 0.0 };
            table.row([name.clone(), number(*mean), format!("{share:.1} %")]);
        }
        table
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let models = self.models.iter().zip(self.judgements).map(|(model, judgement)| {
            let figures: Map<String, Value> = MEASURES
                .iter()
                .zip(&judgement.figures)
                .map(|(measure, figure)| (measure.key.to_owned(), json!(figure)))
                .collect();
            json!({
                "name": model.name, "kind": model.kind, "figures": figures,
                "fold_aucs": model.fold_aucs, "fit_seconds": model.fit_seconds,
            })
        });
        let comparison = |comparison: &Comparison| {
            json!({
                "first": comparison.first, "second": comparison.second, "test": comparison.test,
                "auc_difference": comparison.difference,
                "p_value": comparison.p_value, "adjusted_p_value": comparison.adjusted_p_value,
            })
        };
        let columns = self.contributions.columns.iter().map(|(name, mean)| json!({ "column": name, "mean": mean }));
        json!({
            "data": self.data, "rows": self.rows(), "positives": self.examples.positives(),
            "folds": self.recipe.folds, "group": self.recipe.group, "seed": self.recipe.seed,
            "threshold": self.recipe.threshold, "resamples": self.recipe.resamples,
            "models": models.collect::<Vec<_>>(),
            "comparisons": self.comparisons.iter().map(comparison).collect::<Vec<_>>(),
            "best": self.best_name(),
            "contributions": {
                "unit": unit_name(self.contributions.unit), "rows": self.contributions.rows,
                "columns": columns.collect::<Vec<_>>(),
            },
        })
    }
}

/// `None` without a value; the deviation is of the values themselves (over n).
fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (squares / n).sqrt()))
}
