use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use rapport_evaluation::report::Report;
use rapport_tabular::{Dataset, Table};
use serde_json::json;

use crate::{
    blocking::on_thread,
    context::Context,
    evaluate::{
        calendar::{DateFormat, written},
        choices::Models,
        examples::Examples,
        forward::{Fitted, fit, predict},
        judgement::{best, compare, judge},
        moment::Moment,
        orders::{Account, Columns, Orders},
        shown,
        tabular_report::{Contributions, Findings},
        whole_file,
    },
    output::{Output, Progress},
};

pub const AFTER_HELP: &str = "\
Every customer who bought before a cutoff is a row: features come from before it, the label is whether something is \
bought within the horizon from it on. Models learn from the training cutoffs, whose outcome must be known by the test \
cutoff; settings are chosen among the training cutoffs, never on the test.

  rapportctl evaluate purchases --data orders.parquet --customer CustomerID --date InvoiceDate --quantity Quantity \\
      --price UnitPrice --train 2011-03-15,2011-04-14,2011-05-14,2011-06-13 --test 2011-09-11 \\
      --config deploy/learning/purchases.yaml";

#[derive(Debug, Args)]
pub struct Purchases {
    /// CSV with a header, NDJSON or Parquet; .gz and .zst are inflated (not of Parquet)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The column that names the customer; rows without one are left out
    #[arg(long, value_name = "COLUMN")]
    customer: String,
    /// The column of the day
    #[arg(long, value_name = "COLUMN")]
    date: String,
    /// The column of units; below zero is a return
    #[arg(long, value_name = "COLUMN")]
    quantity: String,
    /// The column of what a unit costs; what costs nothing is no purchase
    #[arg(long, value_name = "COLUMN")]
    price: String,
    /// The column of what was bought: adds features of the goods and of their other buyers
    #[arg(long, value_name = "COLUMN")]
    item: Option<String>,
    /// How dates are written, as in %m/%d/%Y; what follows behind a space or a T is ignored
    #[arg(long, value_name = "FORMAT", default_value = "%Y-%m-%d", value_parser = DateFormat::parse)]
    date_format: DateFormat,
    /// Cutoffs to learn from, several separated by commas; one whose horizon is not over by the test serves the nearer
    /// horizons of the configuration
    #[arg(long, value_name = "YYYY-MM-DD", value_delimiter = ',', required = true, value_parser = super::day)]
    train: Vec<i32>,
    /// The cutoff to be judged on
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = super::day)]
    test: i32,
    /// Days from a cutoff on in which a purchase counts
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(i32).range(1..=3650))]
    horizon: i32,
    /// The models and the settings to choose from
    #[arg(long, value_name = "FILE.yaml")]
    config: PathBuf,
    /// Bootstrap resamples behind each interval
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    resamples: u32,
    /// From this probability on a customer counts as predicted to buy
    #[arg(long, default_value_t = 0.5)]
    threshold: f64,
    /// Write what was found as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

impl Purchases {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        on_thread("evaluate", move || self.work(output)).await
    }

    fn work(mut self, output: Output) -> anyhow::Result<()> {
        self.report.iter().try_for_each(|path| whole_file::check(path))?;
        let models = Models::read(&self.config, self.horizon)?;
        self.train.sort_unstable();
        self.train.dedup();
        let columns = Columns {
            customer: &self.customer,
            date: &self.date,
            quantity: &self.quantity,
            price: &self.price,
            item: self.item.as_deref(),
            format: self.date_format.clone(),
        };
        let orders = Orders::read(&self.data, &columns)?;
        let horizons = models.horizons(self.horizon);
        self.check(&orders, &horizons)?;
        let train = self
            .train
            .iter()
            .map(|&cutoff| self.moment(&orders, cutoff, &horizons, self.test))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let test = self.moment(&orders, self.test, &[self.horizon], i32::MAX)?;

        let progress = Progress::start("models", 0, "");
        let fitted = fit(&models, &train, self.horizon, self.test, |step| progress.say(0, step));
        progress.clear();
        let fitted = fitted?;
        let said = predict(&fitted, &test)?;
        let recipe = models.recipe(&fitted, self.resamples as usize, self.threshold);
        let labels = test.outcomes.get(&self.horizon).context("the outcome of the test cutoff is unknown")?;
        let seen = |table: Table| {
            let data = Dataset { table, labels: labels.clone(), ids: Vec::new() };
            Examples { data, schema: recipe.schema.clone(), groups: None }
        };
        let examples = seen(test.table.clone());
        let progress = Progress::start("intervals", 0, "");
        progress.say(0, format!("{} resamples a figure", self.resamples));
        let judged = judge(&examples, &said, &recipe);
        progress.clear();
        let judgements = judged?;
        let comparisons = compare(&examples, &said, &judgements, &recipe)?;
        // The mean of models has no contributions of its own: the best of those that it is made of.
        let explained = fitted.get(best(judgements.get(..fitted.len()).unwrap_or_default())).context("no model")?;
        let model = explained.model().context("no model")?;
        let contributions = Contributions::of(model, &seen(explained.sees(&test)?))?;
        let findings = Findings {
            data: self.data.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            recipe: &recipe,
            examples: &examples,
            models: &said,
            judgements: &judgements,
            comparisons: &comparisons,
            contributions: &contributions,
            explained: format!("{}, fitted on the training cutoffs", explained.name),
        };
        let report = self.described(findings.report(), &orders.account, &train, &test, &fitted);
        if let Some(path) = &self.report {
            whole_file::write(path, report.to_html().as_bytes())?;
        }
        let json = || {
            json!({
                "rows": { "read": orders.account.rows, "purchases": orders.account.purchases },
                "horizon_days": self.horizon,
                "train": self.train.iter().map(|&day| written(day)).collect::<Vec<_>>(),
                "test": written(self.test),
                "chosen": fitted.iter().map(|one| json!({ "name": one.name, "config": one.config,
                    "auc": one.chosen_by_auc })).collect::<Vec<_>>(),
                "evaluation": findings.json(),
            })
        };
        output.answer(json, |page| shown::report(page, &report));
        if let Some(path) = &self.report {
            output.remark(format!("wrote {}", path.display()));
        }
        Ok(())
    }

    /// Whether the outcome of every cutoff is in the data, and that of some horizon known when the test begins.
    fn check(&self, orders: &Orders, horizons: &[i32]) -> anyhow::Result<()> {
        let nearest = horizons.first().copied().unwrap_or(self.horizon);
        let known = |cutoff: i32| cutoff.saturating_add(nearest);
        let until = |cutoff: i32| cutoff.saturating_add(self.horizon);
        if let Some(&late) = self.train.iter().find(|&&cutoff| known(cutoff) > self.test) {
            anyhow::bail!(
                "the outcome of training cutoff {} is known on {}, after the test cutoff {}: it would tell the future",
                written(late),
                written(known(late)),
                written(self.test)
            );
        }
        ensure!(
            until(self.test) <= orders.last_day.saturating_add(1),
            "the data end on {}: the {} days from {} on are not over by then",
            written(orders.last_day),
            self.horizon,
            written(self.test)
        );
        Ok(())
    }

    fn moment(&self, orders: &Orders, cutoff: i32, horizons: &[i32], by: i32) -> anyhow::Result<Moment> {
        let moment = Moment::at(orders, cutoff, horizons, by)
            .with_context(|| format!("nobody bought before {}", written(cutoff)))?;
        for (days, outcome) in &moment.outcomes {
            let buyers = bought(outcome);
            ensure!(
                buyers > 0 && buyers < outcome.len(),
                "of {} customers {buyers} buy in the {days} days from {} on: a classifier needs both",
                outcome.len(),
                written(cutoff)
            );
        }
        Ok(moment)
    }

    fn described(
        &self,
        report: Report,
        account: &Account,
        train: &[Moment],
        test: &Moment,
        fitted: &[Fitted],
    ) -> Report {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let moment = |moment: &Moment| {
            let share = |(days, outcome): (&i32, &Vec<bool>)| {
                let share = 100.0 * bought(outcome) as f64 / outcome.len() as f64;
                format!(", {share:.1} % buy within {days} days")
            };
            // The longest horizon that is known.
            let known = moment.outcomes.iter().next_back().map(share).unwrap_or_default();
            format!("{}: {} customers{known}", written(moment.cutoff), moment.table.rows())
        };
        let Account { rows, without_customer, returns, free, duplicates, purchases } = account;
        let chosen: Vec<String> =
            fitted.iter().filter_map(|one| one.chosen_by_auc.map(|auc| format!("{} {auc:.4}", one.name))).collect();
        let mut facts = vec![
            fact("data", self.data.display().to_string()),
            fact(
                "rows",
                format!(
                    "{rows}: {purchases} purchases, {returns} returns, {without_customer} without a customer, {free} \
                     free, {duplicates} duplicates"
                ),
            ),
            fact("test", moment(test)),
        ];
        facts.extend(train.iter().map(|one| fact("train", moment(one))));
        facts.push(fact("chosen by AUC on the newest training cutoff with the whole horizon", chosen.join(", ")));
        facts.extend(report.facts.into_iter().filter(|(name, _)| name == "seed" || name == "best by AUC"));
        Report { title: format!("Who buys within {} days", self.horizon), facts, sections: report.sections }
    }
}

fn bought(outcome: &[bool]) -> usize {
    outcome.iter().filter(|buys| **buys).count()
}
