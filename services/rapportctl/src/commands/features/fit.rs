use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use arrow::array::RecordBatch;
use clap::Args;
use rapport_features::{Entity, Fitted, Views};
use serde_json::json;

use crate::{
    context::Context,
    error::Usage,
    evaluate::whole_file,
    join::spine::Spine,
    output,
    rows::{Format, cell},
};

/// The block of a view file that this command writes, and the line before it.
const BLOCK: &str = "statistics:";
const NOTE: &str = "# What features are normalised by: written by `rapportctl features fit`.";
/// How a request value is named in a view file, and not in rows.
const REQUEST: &str = "request.";

#[derive(Debug, Args)]
pub struct Fit {
    /// The view file: its block `statistics` is written anew, everything else stays as it is
    file: PathBuf,
    /// Rows that `features join` made: .parquet, .csv or .ndjson
    #[arg(long)]
    rows: PathBuf,
    /// Where the view file goes [default: it is replaced]
    #[arg(long)]
    output: Option<PathBuf>,
}

impl Fit {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let yaml =
            std::fs::read_to_string(&self.file).map_err(|error| Usage(format!("{}: {error}", self.file.display())))?;
        let parse = |yaml: &str| Views::parse(yaml).map_err(|error| Usage(format!("{}: {error}", self.file.display())));
        let wanted = wanted(&parse(&yaml)?);
        if wanted.is_empty() {
            return Err(
                Usage(format!("{} normalises nothing: it has no zscore and no quantile", self.file.display())).into()
            );
        }
        let table = Spine::table(&self.rows, Format::of(&self.rows)?)?;
        let fitted = wanted.into_iter().map(|name| fitted(&table, name, &self.rows)).collect::<Result<_, _>>()?;
        let written = with_statistics(&yaml, &fitted)?;
        let views = parse(&written)?;
        let output = self.output.as_deref().unwrap_or(&self.file);
        whole_file::write(output, written.as_bytes()).with_context(|| format!("cannot write {}", output.display()))?;
        context.output.answer(
            || json!({ "fitted": fitted, "schema_hash": views.schema_hash(), "written": output }),
            |page| {
                let mut table = output::table(["normalised", "rows", "mean", "deviation", "smallest", "largest"]);
                for (name, Fitted { rows, mean, deviation, quantiles }) in &fitted {
                    let number = |x: Option<&f64>| x.map_or_else(String::new, |x| format!("{x:.4}"));
                    table.add_row([
                        name.clone(),
                        output::thousands(*rows),
                        number(Some(mean)),
                        number(Some(deviation)),
                        number(quantiles.first()),
                        number(quantiles.last()),
                    ]);
                }
                page.table(&table);
                page.line(format!("written: {} (schema {})", output.display(), views.schema_hash()));
            },
        );
        Ok(())
    }
}

/// What the views normalise by statistics, whether they have them or not.
fn wanted(views: &Views) -> Vec<String> {
    let features = Entity::ALL.into_iter().flat_map(|entity| views.on_demand(entity));
    let mut names: Vec<String> = features.filter_map(|feature| Some(feature.normalises()?.0)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn fitted(table: &RecordBatch, name: String, rows: &Path) -> Result<(String, Fitted), Usage> {
    let column_name = name.strip_prefix(REQUEST).unwrap_or(&name);
    let column = table
        .column_by_name(column_name)
        .ok_or_else(|| Usage(format!("{} has no column {column_name:?}, which is normalised", rows.display())))?;
    let number = |row: usize| cell::json(column.as_ref(), row).as_f64();
    let fitted = Fitted::of((0..column.len()).filter_map(number));
    let fitted = fitted.ok_or_else(|| Usage(format!("{}: {column_name} has no number in any row", rows.display())))?;
    Ok((name, fitted))
}

/// The file with this block of statistics in the place of its own.
fn with_statistics(yaml: &str, fitted: &BTreeMap<String, Fitted>) -> anyhow::Result<String> {
    let mut written = String::with_capacity(yaml.len());
    let mut within = false;
    for line in yaml.split_inclusive('\n') {
        let top = !line.starts_with([' ', '\t', '#', '\n', '\r']) && !line.is_empty();
        within = if top { line.starts_with(BLOCK) } else { within };
        if !within && line.trim_end() != NOTE {
            written.push_str(line);
        }
    }
    let kept = written.trim_end().len();
    written.truncate(kept);
    written.push_str(&format!("\n\n{NOTE}\n{BLOCK}\n"));
    for (name, fitted) in fitted {
        // JSON is YAML, and reads back to the same bits.
        written.push_str(&format!("  {name}: {}\n", serde_json::to_string(fitted)?));
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1
# Of the shop.
views:
  - name: buys
    entity: customer
    features: [{name: mean, aggregate: mean}]
    on_demand: [{name: z, zscore: buys.mean}, {name: q, quantile: request.price}]
";

    #[test]
    fn the_block_is_written_anew_and_the_rest_of_the_file_stays_as_it_is() {
        let of = |values: [f64; 3]| BTreeMap::from([("buys.mean".to_owned(), Fitted::of(values).unwrap())]);
        let once = with_statistics(FILE, &of([1.0, 2.0, 4.0])).unwrap();
        assert!(once.starts_with(FILE), "{once}");
        let lacking = Views::parse(&once).unwrap();
        assert_eq!(lacking.lack_statistics().into_keys().collect::<Vec<_>>(), ["request.price"]);
        let again = with_statistics(&once, &of([0.1, 0.2, 0.7])).unwrap();
        assert_eq!(again.matches("statistics:").count(), 1);
        assert_eq!(again.matches("rapportctl features fit").count(), 1, "{again}");
        let in_the_middle =
            once.replace("views:", "statistics:\n  a.b: {rows: 1, mean: 1, deviation: 0, quantiles: [1]}\nviews:");
        let moved = with_statistics(&in_the_middle, &of([1.0, 2.0, 4.0])).unwrap();
        assert_eq!(moved.matches("statistics:").count(), 1);
        assert_eq!(Views::parse(&moved).unwrap().schema_hash(), lacking.schema_hash());
    }

    #[test]
    fn each_normalised_value_is_fitted_once() {
        let twice = FILE.replace("{name: z, zscore", "{name: other, quantile: buys.mean}, {name: z, zscore");
        assert_eq!(wanted(&Views::parse(&twice).unwrap()), ["buys.mean", "request.price"]);
    }
}
