//! What an evaluation of purchases found, for people and for programs.

use std::collections::BTreeMap;

use rapport_evaluation::report::{Axis, Block, Plot, Point, Report, Section, Series, Table, number};
use rapport_lifetime::{Fit, Independence, Segment, Warning};
use serde_json::{Value, json};

use super::{
    calendar::written,
    lifetime::{Customer, Fits, Judged, Settings},
    transactions::Transactions,
};

/// All that was found.
pub struct Findings<'a> {
    /// The name of the file.
    pub data: String,
    pub settings: &'a Settings,
    pub transactions: &'a Transactions,
    pub judged: Option<&'a Judged>,
    pub fits: &'a Fits,
    pub customers: &'a [Customer],
}

/// The customers of a segment together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Members {
    customers: usize,
    spend: f64,
    /// Of the customers whose value is finite.
    value: f64,
    purchases: f64,
}

/// What tools call the segments.
pub fn segment_name(segment: Segment) -> &'static str {
    match segment {
        Segment::Champion => "champion",
        Segment::Loyal => "loyal",
        Segment::PotentialLoyalist => "potential_loyalist",
        Segment::New => "new",
        Segment::Promising => "promising",
        Segment::NeedAttention => "need_attention",
        Segment::AboutToSleep => "about_to_sleep",
        Segment::CannotLose => "cannot_lose",
        Segment::AtRisk => "at_risk",
        Segment::Hibernating => "hibernating",
    }
}

impl Findings<'_> {
    fn segments(&self) -> BTreeMap<Segment, Members> {
        let mut segments: BTreeMap<Segment, Members> = BTreeMap::new();
        for customer in self.customers {
            let members = segments.entry(customer.segment).or_default();
            members.customers += 1;
            members.spend += customer.summary.spend;
            members.value += customer.outlook.value.unwrap_or(0.0);
            members.purchases += customer.outlook.purchases;
        }
        segments
    }

    /// What a reader should know before trusting a figure, one sentence each.
    fn remarks(&self) -> Vec<String> {
        let account = &self.transactions.account;
        let mut remarks = Vec::new();
        let mut say = |holds: bool, text: String| remarks.extend(holds.then_some(text));
        say(
            account.without_customer > 0,
            format!("{} rows name no customer and were passed over.", account.without_customer),
        );
        say(
            account.not_positive > 0,
            format!(
                "{} customers whose total is not above zero (everything returned, or only free orders) are left out.",
                account.not_positive
            ),
        );
        say(
            account.return_days > 0,
            format!(
                "{} days hold returns that are worth at least the day's purchases; they count as no purchase, and \
                 their {} is not taken from other days.",
                account.return_days,
                number(account.returned)
            ),
        );
        say(self.judged.is_none(), "Nothing was held back: --split DATE judges the expected purchases.".to_owned());
        if let Some(Judged { fit, .. }) = self.judged {
            remarks.extend(fit.warnings.iter().map(|warning| format!("Before the split: {}", warning_text(warning))));
        }
        let Fits { purchases, amounts, independence } = self.fits;
        remarks.extend(purchases.warnings.iter().chain(&amounts.warnings).map(warning_text));
        match independence {
            Some(Independence::Independent { .. }) => {}
            Some(Independence::Correlated { correlation }) => remarks.push(format!(
                "How often customers buy and how much go together (correlation {}), which Gamma-Gamma takes them not \
                 to: values are off at both ends; fit groups apart.",
                number(*correlation)
            )),
            None => remarks.push("Too few returning customers differ to tell whether amounts depend on counts.".into()),
        }
        remarks
    }

    /// As a page, and as the tables of a terminal.
    pub fn report(&self) -> Report {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let Settings { months, discount, l2, .. } = self.settings;
        let (first, last) = (written(self.transactions.first_day), written(self.transactions.last_day));
        let total: f64 = self.customers.iter().filter_map(|customer| customer.outlook.value).sum();
        let mut sections = vec![Section { title: "Models".into(), blocks: vec![Block::Table(self.parameters())] }];
        if let Some(judged) = self.judged {
            sections.push(Section { title: "Hold-out".into(), blocks: held_out(judged, &last) });
        }
        sections.push(Section { title: "Segments".into(), blocks: vec![Block::Table(self.segment_table())] });
        let remarks: Vec<Block> = self.remarks().into_iter().map(Block::Text).collect();
        if !remarks.is_empty() {
            sections.push(Section { title: "Before you trust it".into(), blocks: remarks });
        }
        Report {
            title: format!("What {} customers will do", self.customers.len()),
            facts: vec![
                fact("data", format!("{}, {} rows", self.data, self.transactions.account.rows)),
                fact("observed", format!("{first} to {last}")),
                fact("horizon", format!("{months} months, discounted by {} % a year", number(100.0 * discount))),
                fact("unit of time", self.unit().to_owned()),
                fact("L2 penalty", number(*l2)),
                fact("value of all customers", number(total)),
            ],
            sections,
        }
    }

    fn unit(&self) -> &'static str {
        match self.settings.unit {
            rapport_lifetime::TimeUnit::Days => "days",
            rapport_lifetime::TimeUnit::Weeks => "weeks",
        }
    }

    fn parameters(&self) -> Table {
        let mut table =
            Table::new("Parameters", &["model", "parameter", "estimate", "standard error"]).with_text(&["parameter"]);
        let Fits { purchases, amounts, .. } = self.fits;
        rows(&mut table, "BG/NBD", ["r", "alpha", "a", "b"], purchases.model.parameters(), purchases.standard_errors());
        rows(&mut table, "Gamma-Gamma", ["p", "q", "v"], amounts.model.parameters(), amounts.standard_errors());
        table.row(["BG/NBD".to_owned(), "log-likelihood".into(), number(purchases.log_likelihood)]);
        table.row(["Gamma-Gamma".to_owned(), "log-likelihood".into(), number(amounts.log_likelihood)]);
        table
    }

    fn segment_table(&self) -> Table {
        let caption =
            format!("Segments by recency and frequency, with what the next {} months bring", self.settings.months);
        let header = ["segment", "customers", "share", "spent so far", "expected purchases", "value", "value each"];
        let mut table = Table::new(caption, &header);
        let all = self.customers.len() as f64;
        for (segment, of) in self.segments() {
            let customers = of.customers as f64;
            table.row([
                segment_name(segment).replace('_', " "),
                of.customers.to_string(),
                format!("{:.1} %", 100.0 * customers / all),
                number(of.spend),
                number(of.purchases),
                number(of.value),
                number(of.value / customers),
            ]);
        }
        table
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let account = &self.transactions.account;
        let segments = self.segments().into_iter().map(|(segment, of)| {
            json!({
                "segment": segment_name(segment), "customers": of.customers, "spend": of.spend,
                "expected_purchases": of.purchases, "value": of.value,
            })
        });
        let Fits { purchases, amounts, independence } = self.fits;
        json!({
            "data": self.data, "rows": account.rows, "rows_without_customer": account.without_customer,
            "customers": self.customers.len(), "customers_left_out": account.not_positive,
            "return_days": account.return_days, "returned": account.returned,
            "first_day": written(self.transactions.first_day), "last_day": written(self.transactions.last_day),
            "unit": self.unit(), "months": self.settings.months, "discount": self.settings.discount,
            "l2": self.settings.l2,
            "bg_nbd": fit_json(purchases, purchases.model.parameters(), purchases.standard_errors()),
            "gamma_gamma": fit_json(amounts, amounts.model.parameters(), amounts.standard_errors()),
            "independence": independence,
            "holdout": self.judged.map(|judged| json!({
                "split": written(judged.split), "parameters": judged.fit.model.parameters(), "figures": judged.holdout,
            })),
            "segments": segments.collect::<Vec<_>>(),
            "remarks": self.remarks(),
        })
    }
}

fn rows<const N: usize>(table: &mut Table, model: &str, names: [&str; N], values: [f64; N], errors: Option<[f64; N]>) {
    for (at, (name, value)) in names.into_iter().zip(values).enumerate() {
        let error = errors.as_ref().and_then(|errors| errors.get(at)).map_or_else(|| "-".to_owned(), |e| number(*e));
        table.row([model.to_owned(), name.to_owned(), number(value), error]);
    }
}

fn fit_json<M, const N: usize>(fit: &Fit<M, N>, parameters: [f64; N], errors: Option<[f64; N]>) -> Value {
    json!({
        "parameters": parameters.as_slice(), "standard_errors": errors.as_ref().map(<[f64; N]>::as_slice),
        "log_likelihood": fit.log_likelihood, "customers": fit.customers, "warnings": fit.warnings,
    })
}

fn held_out(judged: &Judged, last: &str) -> Vec<Block> {
    let Judged { split, holdout, .. } = judged;
    let caption = format!("Expected and actual purchase days from {} to {last}, by repeats before", written(*split));
    let mut table = Table::new(caption, &["repeats before", "customers", "expected each", "actual each"]);
    for group in &holdout.groups {
        let more = if group.repeats >= 7 { " or more" } else { "" };
        table.row([
            format!("{}{more}", group.repeats),
            group.customers.to_string(),
            number(group.mean_predicted),
            number(group.mean_actual),
        ]);
    }
    let mut all = Table::new("Together", &["figure", "value"]);
    all.row(["customers known at the split".to_owned(), holdout.customers.to_string()]);
    all.row(["expected purchase days".to_owned(), number(holdout.predicted)]);
    all.row(["actual purchase days".to_owned(), number(holdout.actual)]);
    all.row(["mean absolute error, by customer".to_owned(), number(holdout.mean_absolute_error)]);
    all.row(["correlation, by customer".to_owned(), holdout.correlation.map_or_else(|| "-".to_owned(), number)]);
    let line = |name: &str, of: fn(&rapport_lifetime::FrequencyGroup) -> f64| {
        let points = holdout.groups.iter().map(|group| Point::at(f64::from(group.repeats), of(group)));
        Series::line(name, points.collect())
    };
    let plot = Plot {
        title: "Purchase days in the hold-out, by repeats before (7: or more)".into(),
        x: Axis::new("repeats before the split"),
        y: Axis::new("mean purchase days"),
        series: vec![line("expected", |group| group.mean_predicted), line("actual", |group| group.mean_actual)],
        diagonal: false,
    };
    vec![Block::Table(table), Block::Table(all), Block::Plot(plot)]
}

fn warning_text(warning: &Warning) -> String {
    match warning {
        Warning::NoDropout { mean } => format!(
            "Almost nobody leaves after a purchase (chance {}): expected purchases stay right, but the chance to be \
             alive says nothing; rank by recency and frequency instead.",
            number(*mean)
        ),
        Warning::InfiniteMean { q } => format!(
            "Gamma-Gamma's q is {}, not above 1: customers without a repeat have no finite expected amount, and no value.",
            number(*q)
        ),
        Warning::Uncertain { parameter, standard_error } => format!(
            "The data leave {parameter} open (standard error of its logarithm: {}); try --l2 0.01 or more customers.",
            number(*standard_error)
        ),
        Warning::Flat => {
            "The likelihood is flat at its optimum, so there are no standard errors; try --l2 0.01 or more customers."
                .to_owned()
        }
    }
}
