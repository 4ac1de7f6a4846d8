//! On-demand features: computed when features are read, from what the caller brings (request values) and from
//! other features of the same entity. A closed set of expressions without state; the same code at every door and
//! in training rows.

mod declare;
mod fitted;
mod request;

use std::fmt;

use rapport_events::EventTime;

pub(crate) use declare::{Declaration, computed};
pub use fitted::Fitted;
pub use request::{Given, Requested, Wanted, moment};

const HOUR_MS: f64 = 3_600_000.0;

/// What an expression is computed from.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Number(f64),
    Text(String),
    /// A request value's name.
    Request(String),
    /// A feature of the entity and its place in the vector.
    Feature {
        place: usize,
        name: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Difference(Operand, Operand),
    Product(Operand, Operand),
    Ratio(Operand, Operand),
    /// From a moment of the request to that of the read.
    HoursSince(String),
    Equals(Operand, Operand),
    /// Whether it is in a list of the entity, which has this place among the lists.
    Among {
        of: Operand,
        place: usize,
        list: String,
    },
    /// How many of the bounds are not above it.
    Bucket(Operand, Vec<f64>),
    Log(Operand),
    /// Where it stands among the values that a model learned from, as far as the file says how these are spread.
    Placed {
        of: Operand,
        by: By,
        among: Option<Fitted>,
    },
}

/// How a value is placed among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Deviations,
    Share,
}

/// An on-demand feature.
#[derive(Debug, Clone, PartialEq)]
pub struct OnDemand {
    name: String,
    expression: Expression,
    needs: Vec<String>,
}

/// What is known when an expression is computed: one row of an answer or of a table.
pub trait Inputs {
    /// A value of the entity's vector.
    fn number(&self, place: usize) -> f64;
    /// One of the entity's lists.
    fn list(&self, place: usize) -> &[String];
    /// A request value.
    fn given(&self, name: &str) -> &Given;
    /// The moment of the read.
    fn at(&self) -> EventTime;
}

/// A value that an expression goes on with.
enum Term<'a> {
    Number(f64),
    Text(&'a str),
    Missing,
}

impl Term<'_> {
    /// Numbers are compared with text as the text that people write: a column of ids is read as numbers from a
    /// file, and sent as text.
    fn same(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Missing, _) | (_, Self::Missing) => None,
            (Self::Number(a), Self::Number(b)) => Some(a == b),
            (Self::Text(a), Self::Text(b)) => Some(a == b),
            (Self::Number(number), Self::Text(text)) | (Self::Text(text), Self::Number(number)) => {
                Some(number.to_string() == *text)
            }
        }
    }

    const fn number(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(_) | Self::Missing => f64::NAN,
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Request(name) => write!(f, "request.{name}"),
            Self::Feature { name, .. } => f.write_str(name),
        }
    }
}

impl Expression {
    const fn name(&self) -> &'static str {
        match self {
            Self::Difference(..) => "difference",
            Self::Product(..) => "product",
            Self::Ratio(..) => "ratio",
            Self::HoursSince(_) => "hours_since",
            Self::Equals(..) => "equals",
            Self::Among { .. } => "among",
            Self::Bucket(..) => "bucket",
            Self::Log(_) => "log",
            Self::Placed { by: By::Deviations, .. } => "zscore",
            Self::Placed { by: By::Share, .. } => "quantile",
        }
    }
}

impl Operand {
    fn term<'a>(&'a self, inputs: &'a impl Inputs) -> Term<'a> {
        let number = |x: f64| if x.is_nan() { Term::Missing } else { Term::Number(x) };
        match self {
            Self::Number(x) => number(*x),
            Self::Text(text) => Term::Text(text),
            Self::Feature { place, .. } => number(inputs.number(*place)),
            Self::Request(name) => match inputs.given(name) {
                Given::Number(x) => number(*x),
                Given::Text(text) => Term::Text(text),
                Given::Missing => Term::Missing,
            },
        }
    }
}

impl OnDemand {
    /// `<view>.<feature>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The request values that it takes.
    pub fn needs(&self) -> &[String] {
        &self.needs
    }

    /// What it is computed as, for people and for hashes: `ratio(request.price, purchases.mean)`.
    pub fn definition(&self) -> String {
        let name = self.expression.name();
        match &self.expression {
            Expression::Difference(a, b)
            | Expression::Product(a, b)
            | Expression::Ratio(a, b)
            | Expression::Equals(a, b) => format!("{name}({a}, {b})"),
            Expression::HoursSince(of) => format!("{name}(request.{of})"),
            Expression::Among { of, list, .. } => format!("{name}({of}, {list})"),
            Expression::Bucket(of, bounds) => format!("{name}({of}, {bounds:?})"),
            Expression::Log(of) => format!("{name}({of})"),
            Expression::Placed { of, among: Some(among), .. } => format!("{name}({of}; {})", among.definition()),
            Expression::Placed { of, among: None, .. } => format!("{name}({of}; no statistics)"),
        }
    }

    /// The expression's name.
    pub fn kind(&self) -> &'static str {
        self.expression.name()
    }

    /// Of a normalised feature: the name of what is normalised, and whether the file has its statistics.
    pub fn normalises(&self) -> Option<(String, bool)> {
        match &self.expression {
            Expression::Placed { of, among, .. } => Some((of.to_string(), among.is_some())),
            _ => None,
        }
    }

    /// Whether it is computed from nothing but what the request brings.
    pub fn of_request_alone(&self) -> bool {
        let stored = |operand: &Operand| matches!(operand, Operand::Feature { .. });
        match &self.expression {
            Expression::Difference(a, b)
            | Expression::Product(a, b)
            | Expression::Ratio(a, b)
            | Expression::Equals(a, b) => !stored(a) && !stored(b),
            Expression::Bucket(of, _) | Expression::Log(of) | Expression::Placed { of, .. } => !stored(of),
            Expression::HoursSince(_) => true,
            Expression::Among { .. } => false,
        }
    }

    /// Its value: NaN where something is missing that it is computed from, and where there is none (a ratio to
    /// 0, a product beyond a double). Truths are 1 and 0.
    pub fn value(&self, inputs: &impl Inputs) -> f64 {
        let number = |operand: &Operand| operand.term(inputs).number();
        let truth = |truth: Option<bool>| truth.map_or(f64::NAN, |truth| f64::from(u8::from(truth)));
        let value = match &self.expression {
            Expression::Difference(a, b) => number(a) - number(b),
            Expression::Product(a, b) => number(a) * number(b),
            Expression::Ratio(a, b) => number(a) / number(b),
            Expression::HoursSince(name) => {
                let since = inputs.given(name).moment();
                since.map_or(f64::NAN, |since| inputs.at().as_ms().saturating_sub(since.as_ms()) as f64 / HOUR_MS)
            }
            Expression::Equals(a, b) => truth(a.term(inputs).same(&b.term(inputs))),
            Expression::Among { of, place, .. } => {
                let term = of.term(inputs);
                let same = |name: &String| term.same(&Term::Text(name)) == Some(true);
                truth((!matches!(term, Term::Missing)).then(|| inputs.list(*place).iter().any(same)))
            }
            Expression::Bucket(of, bounds) => match number(of) {
                of if of.is_nan() => f64::NAN,
                of => bounds.partition_point(|bound| *bound <= of) as f64,
            },
            Expression::Log(of) => fitted::log(number(of)),
            Expression::Placed { of, by, among: Some(among) } => match by {
                By::Deviations => among.zscore(number(of)),
                By::Share => among.share_below(number(of)),
            },
            Expression::Placed { among: None, .. } => f64::NAN,
        };
        if value.is_finite() { value } else { f64::NAN }
    }
}

#[cfg(test)]
mod tests;
