use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rapport_lifetime::TimeUnit;

use crate::{
    blocking::on_thread,
    context::Context,
    error::Usage,
    evaluate::{
        calendar::DateFormat,
        lifetime::{Customer, Settings, customers, fit, judge},
        lifetime_report::{Findings, segment_name},
        shown,
        transactions::{Columns, Transactions},
        whole_file,
    },
    output::{Output, Progress},
};

pub const AFTER_HELP: &str = "\
One row is an order, or a return with a negative amount. Orders of a day count as one purchase of their sum, less what \
was returned that day. With --split, the purchase model is also fitted to what was known on that day and judged by what \
came after it.

  rapportctl evaluate lifetime --data orders.csv --customer customer_id --date ordered_at --amount total
  rapportctl evaluate lifetime --data orders.csv --customer id --date day --amount paid --split 2026-06-30 \\
      --unit weeks --out customers.csv --report lifetime.html";

/// The bar's length: how many histories differ is known late.
const STEPS: u64 = 1000;

#[derive(Debug, Args)]
pub struct Lifetime {
    /// CSV with a header, NDJSON or Parquet; .gz and .zst are inflated (not of Parquet)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The column that names the customer
    #[arg(long, value_name = "COLUMN")]
    customer: String,
    /// The column of the day
    #[arg(long, value_name = "COLUMN")]
    date: String,
    /// The column of what was paid; returns are negative
    #[arg(long, value_name = "COLUMN")]
    amount: String,
    /// How dates are written, as in %m/%d/%Y; what follows behind a space or a T is ignored
    #[arg(long, value_name = "FORMAT", default_value = "%Y-%m-%d", value_parser = DateFormat::parse)]
    date_format: DateFormat,
    /// Judge a fit to what was known at the end of this day by what came after
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = super::day)]
    split: Option<i32>,
    /// The unit of the models' time; publications on CDNOW count in weeks
    #[arg(long, value_enum, default_value_t = Unit::Days)]
    unit: Unit,
    /// How far to look ahead
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=600))]
    months: u32,
    /// What a purchase in a year is worth less today: 0.1 is 10 %
    #[arg(long, value_name = "RATE", default_value_t = 0.1, value_parser = rate)]
    discount: f64,
    /// Penalty of both fits; 0.001 to 0.1 steadies a fit to few customers
    #[arg(long, value_name = "PENALTY", default_value_t = 0.0, value_parser = rate)]
    l2: f64,
    /// Write every customer as CSV
    #[arg(long, value_name = "FILE.csv")]
    out: Option<PathBuf>,
    /// Write what was found as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unit {
    Days,
    Weeks,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
    rate.ok_or_else(|| format!("{text:?} is not a number from 0 on"))
}

impl Lifetime {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        on_thread("evaluate", move || self.work(output)).await
    }

    fn work(self, output: Output) -> anyhow::Result<()> {
        for path in [&self.out, &self.report].into_iter().flatten() {
            whole_file::check(path)?;
        }
        let settings = Settings {
            unit: match self.unit {
                Unit::Days => TimeUnit::Days,
                Unit::Weeks => TimeUnit::Weeks,
            },
            months: self.months,
            discount: self.discount,
            l2: self.l2,
            split: self.split,
        };
        if self.customer == self.date || self.customer == self.amount || self.date == self.amount {
            return Err(Usage("--customer, --date and --amount must name three columns".to_owned()).into());
        }
        let columns = Columns {
            customer: &self.customer,
            date: &self.date,
            amount: &self.amount,
            format: self.date_format.clone(),
        };
        let transactions = Transactions::read(&self.data, &columns)?;
        let judged = judge(&transactions, &settings)?;
        let known = transactions.ledger.as_of(transactions.last_day);
        let fits = fit(&known, &settings)?;
        let progress = Progress::share("values", STEPS, "");
        let customers = customers(&known, &fits, &settings, |done, of| {
            progress.say(STEPS * done as u64 / of.max(1) as u64, format!("of {of} different histories"));
        });
        progress.clear();
        let customers = customers?;

        let findings = Findings {
            data: self.data.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            settings: &settings,
            transactions: &transactions,
            judged: judged.as_ref(),
            fits: &fits,
            customers: &customers,
        };
        let report = findings.report();
        if let Some(path) = &self.out {
            whole_file::write(path, &csv(&customers)?)?;
        }
        if let Some(path) = &self.report {
            whole_file::write(path, report.to_html().as_bytes())?;
        }
        output.answer(|| findings.json(), |page| shown::report(page, &report));
        for path in [&self.out, &self.report].into_iter().flatten() {
            output.remark(format!("wrote {}", path.display()));
        }
        Ok(())
    }
}

/// A customer a row, as the fits know them on the last day.
fn csv(customers: &[Customer]) -> anyhow::Result<Vec<u8>> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "customer",
        "purchase_days",
        "spend",
        "days_since_last",
        "alive",
        "no_purchase",
        "expected_purchases",
        "expected_amount",
        "value",
        "value_low",
        "value_high",
        "recency",
        "frequency",
        "money",
        "segment",
    ])?;
    let share = |share: f64| format!("{share:.6}");
    let money = |amount: Option<f64>| amount.map_or_else(String::new, |amount| format!("{amount:.4}"));
    for Customer { id, summary, outlook, score, segment } in customers {
        out.write_record([
            id.clone(),
            summary.orders.to_string(),
            money(Some(summary.spend)),
            summary.days_since_last().to_string(),
            share(outlook.alive),
            share(outlook.no_purchase),
            share(outlook.purchases),
            money(outlook.amount),
            money(outlook.value),
            money(outlook.interval.map(|interval| interval.low)),
            money(outlook.interval.map(|interval| interval.high)),
            score.recency.to_string(),
            score.frequency.to_string(),
            score.money.to_string(),
            segment_name(*segment).to_owned(),
        ])?;
    }
    Ok(out.into_inner()?)
}
