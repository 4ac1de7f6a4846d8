use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rapport_tabular::{Classifier as _, Model};

use crate::{
    blocking::on_thread,
    context::Context,
    evaluate::{
        examples::Examples,
        held_out::held_out,
        judgement::{best, compare, judge},
        recipe::Recipe,
        shown,
        stored_model::StoredModel,
        tabular_report::{Contributions, Findings},
        whole_file,
    },
    output::{Output, Progress},
};

pub const AFTER_HELP: &str = "\
Each row is judged by a model that was fitted without it (or, with group in the recipe, without its customer). The \
recipe names the columns, the folds and the models; deploy/learning/ has examples.

  rapportctl evaluate tabular --data customers.csv --config deploy/learning/telco-churn.yaml
  rapportctl evaluate tabular --data customers.csv --config churn.yaml --report churn.html --save churn.json
  rapportctl predict --model churn.json --data customers.csv --explain 3";

#[derive(Debug, Args)]
pub struct Tabular {
    /// CSV with a header, a customer (or a customer's moment) a row
    #[arg(long, value_name = "FILE.csv")]
    data: PathBuf,
    /// The recipe: columns, folds, models
    #[arg(long, value_name = "FILE.yaml")]
    config: PathBuf,
    /// Write what was found as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the best model, fitted on all rows, for rapportctl predict
    #[arg(long, value_name = "FILE.json")]
    save: Option<PathBuf>,
}

impl Tabular {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        on_thread("evaluate", move || self.work(output)).await
    }

    fn work(self, output: Output) -> anyhow::Result<()> {
        for path in [&self.report, &self.save].into_iter().flatten() {
            whole_file::check(path)?;
        }
        let recipe = Recipe::read(&self.config)?;
        let examples = Examples::read(&self.data, &recipe)?;

        let fits = recipe.models.len() * recipe.folds;
        let progress = Progress::start("cross-validation", fits as u64, "fits");
        let models = held_out(&examples, &recipe, |done, next| progress.say(done as u64, next));
        progress.clear();
        let models = models?;
        let progress = Progress::start("intervals", 0, "");
        progress.say(0, format!("{} resamples a figure", recipe.resamples));
        let judged = judge(&examples, &models, &recipe);
        progress.clear();
        let judgements = judged?;
        let comparisons = compare(&examples, &models, &judgements, &recipe)?;

        let chosen = recipe.models.get(best(&judgements)).context("no model was judged")?;
        let model = Model::fit(&chosen.config, &examples.data.table, &examples.data.labels, None)
            .with_context(|| format!("fitting {:?} on all rows", chosen.name))?;
        let contributions = Contributions::of(&model, &examples)?;
        let findings = Findings {
            data: self.data.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            recipe: &recipe,
            examples: &examples,
            models: &models,
            judgements: &judgements,
            comparisons: &comparisons,
            contributions: &contributions,
            explained: format!("{}, fitted on everything", chosen.name),
        };
        let report = findings.report();
        if let Some(path) = &self.report {
            whole_file::write(path, report.to_html().as_bytes())?;
        }
        if let Some(path) = &self.save {
            let stored = StoredModel { name: chosen.name.clone(), schema: examples.schema.clone(), model };
            whole_file::write(path, stored.to_json()?.as_bytes())?;
        }
        output.answer(|| findings.json(), |page| shown::report(page, &report));
        for path in [&self.report, &self.save].into_iter().flatten() {
            output.remark(format!("wrote {}", path.display()));
        }
        Ok(())
    }
}
