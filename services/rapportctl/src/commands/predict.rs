use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rapport_tabular::{Classifier as _, Explanations, Model, Table, Unlabelled};
use serde_json::{Value, json};

use crate::{
    blocking::on_thread,
    context::Context,
    evaluate::{examples, stored_model::StoredModel, tabular_report::unit_name, whole_file},
    output::{Output, Progress},
};

pub const AFTER_HELP: &str = "\
The model is one that rapportctl evaluate tabular --save has written; it holds the names of the columns that it needs. \
Other columns are passed over, and the label need not be there. Without --out the CSV goes to standard output.

  rapportctl predict --model churn.json --data customers.csv --out scores.csv
  rapportctl predict --model churn.json --data customers.csv --explain 3";

/// Rows that are explained at a time: a contribution for each column of each row is kept meanwhile.
const BATCH: usize = 1_000;

#[derive(Debug, Args)]
pub struct Predict {
    #[arg(long, value_name = "FILE.json")]
    model: PathBuf,
    /// CSV with a header
    #[arg(long, value_name = "FILE.csv")]
    data: PathBuf,
    /// Where to write the scores
    #[arg(long, value_name = "FILE.csv")]
    out: Option<PathBuf>,
    /// Give the N columns that move each row's score the most, with how far
    #[arg(long, value_name = "N", default_value_t = 0)]
    explain: usize,
}

/// A row's probability and the columns that moved it most.
struct Scored {
    probability: f64,
    reasons: Vec<(String, f64)>,
}

impl Predict {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        on_thread("predict", move || self.work(output)).await
    }

    fn work(self, output: Output) -> anyhow::Result<()> {
        if let Some(path) = &self.out {
            whole_file::check(path)?;
        }
        let StoredModel { schema, model, .. } = StoredModel::read(&self.model)?;
        let rows = Unlabelled::from_csv(examples::open(&self.data)?, &schema)
            .with_context(|| self.data.display().to_string())?;
        let scored = self.score(&model, &rows.table).with_context(|| self.data.display().to_string())?;
        let csv = self.csv(schema.id.as_deref(), &rows.ids, &scored)?;
        match &self.out {
            Some(path) => {
                whole_file::write(path, csv.as_bytes())?;
                let mean = scored.iter().map(|row| row.probability).sum::<f64>() / scored.len() as f64;
                let path = path.display().to_string();
                output.answer(
                    || json!({ "rows": scored.len(), "mean_probability": mean, "out": path }),
                    |page| page.line(format!("{} rows, mean probability {mean:.4}; wrote {path}", scored.len())),
                );
            }
            None => output.answer(|| answer(&rows.ids, &scored), |page| page.line(csv.trim_end())),
        }
        if self.explain > 0 {
            let unit = model.explain(&rows.table.select(&[0])?)?.unit;
            output.remark(format!("contributions are in {}, from the mean of the training rows", unit_name(unit)));
        }
        Ok(())
    }

    fn score(&self, model: &Model, table: &Table) -> Result<Vec<Scored>, rapport_tabular::Error> {
        let probabilities = model.predict_proba(table)?;
        if self.explain == 0 {
            let plain = |probability| Scored { probability, reasons: Vec::new() };
            return Ok(probabilities.into_iter().map(plain).collect());
        }
        let progress = Progress::start("explaining", table.rows() as u64, "rows");
        let mut scored = Vec::with_capacity(probabilities.len());
        let rows: Vec<usize> = (0..table.rows()).collect();
        for some in rows.chunks(BATCH) {
            let explained = model.explain(&table.select(some)?)?;
            for (row, parts) in some.iter().zip(&explained.contributions) {
                let probability = probabilities.get(*row).copied().unwrap_or(f64::NAN);
                scored.push(Scored { probability, reasons: self.largest(&explained, parts) });
            }
            progress.at(scored.len() as u64);
        }
        progress.clear();
        Ok(scored)
    }

    /// The columns with the largest contributions of a row, in either direction.
    fn largest(&self, explained: &Explanations, parts: &[f64]) -> Vec<(String, f64)> {
        let mut reasons: Vec<(&String, f64)> = explained.columns.iter().zip(parts.iter().copied()).collect();
        reasons.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        reasons.into_iter().take(self.explain).map(|(name, part)| (name.clone(), part)).collect()
    }

    fn csv(&self, id: Option<&str>, ids: &[String], scored: &[Scored]) -> anyhow::Result<String> {
        let reasons = scored.first().map_or(0, |row| row.reasons.len());
        let mut out = csv::Writer::from_writer(Vec::new());
        let mut header = vec![id.unwrap_or("row").to_owned(), "probability".to_owned()];
        header.extend((1..=reasons).flat_map(|n| [format!("column_{n}"), format!("contribution_{n}")]));
        out.write_record(&header)?;
        for (row, scored) in scored.iter().enumerate() {
            let mut cells = vec![named(ids, row), scored.probability.to_string()];
            cells.extend(scored.reasons.iter().flat_map(|(name, part)| [name.clone(), part.to_string()]));
            out.write_record(&cells)?;
        }
        Ok(String::from_utf8(out.into_inner()?)?)
    }
}

/// The row's id, or its number from 1 where the schema names none.
fn named(ids: &[String], row: usize) -> String {
    ids.get(row).cloned().unwrap_or_else(|| (row + 1).to_string())
}

fn answer(ids: &[String], scored: &[Scored]) -> Value {
    let row = |(row, scored): (usize, &Scored)| {
        let reason = |(name, part): &(String, f64)| json!({ "column": name, "contribution": part });
        json!({
            "id": named(ids, row), "probability": scored.probability,
            "contributions": scored.reasons.iter().map(reason).collect::<Vec<_>>(),
        })
    };
    scored.iter().enumerate().map(row).collect()
}
