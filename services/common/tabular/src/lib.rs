//! Classifiers for tabular customer data: churn, purchase, credit and other yes-or-no
//! labels, behind one interface.
//!
//! CSV or any source -> [`Table`] (checked once) -> [`Classifier::fit`] -> probabilities,
//! explanations, and JSON that gives the same bits when it is read back ([`Model`]).
//!
//! [`Logistic`] and [`Mlp`] see a table through one-hot categories and standardised numbers; [`Boosting`]
//! and [`Forest`] see it as bins of one byte and grow their trees with the same code. Everything that is
//! learnt from a table (vocabularies, means, cuts) is learnt from the rows given to `fit`, so that a
//! held-out fold stays unseen. No clock and no I/O beyond the reader that the caller hands over; the
//! same seed, data and configuration give the same model on any number of threads.

mod activation;
mod attribution;
mod bins;
mod boosting;
mod config;
mod csv_source;
mod descent;
mod design;
mod error;
mod exact;
mod examples;
mod explain;
mod forest;
mod grow;
mod link;
mod logistic;
mod mlp;
mod model;
mod network;
mod newton;
mod parallel;
mod shap;
mod split;
mod table;
mod tree;
mod vocabulary;

pub use boosting::Boosting;
pub use config::{Activation, BoostingConfig, Config, ForestConfig, Kind, LogisticConfig, MlpConfig};
pub use csv_source::{Dataset, Schema, Unlabelled};
pub use error::Error;
pub use explain::{Explanations, Unit};
pub use forest::{Forest, OutOfBag};
pub use logistic::Logistic;
pub use mlp::Mlp;
pub use model::{FORMAT_VERSION, Model};
pub use table::{Column, Table, TableBuilder, Values};

/// A fitted model of a binary label.
pub trait Classifier: Sized {
    /// Fits the model to the rows of `table` with their `labels` `[rows]` and, where given, their
    /// `weights` `[rows]` (finite, not negative; a row of weight 0 is not looked at). A weight counts
    /// as that many rows, beside the penalties and the least child weights: keep the mean near 1.
    ///
    /// Errors: a configuration out of range, lengths that differ, weights that cannot be, labels of
    /// one class, columns that are all constant; logistic regression also [`Error::NotConverged`]
    /// and [`Error::TooLarge`], a network [`Error::Diverged`], [`Error::TooLarge`] and
    /// [`Error::TooManyWeights`]. A single constant column is no error: it gets no influence.
    fn fit(config: &Config, table: &Table, labels: &[bool], weights: Option<&[f64]>) -> Result<Self, Error>;

    /// What the model is called in reports.
    fn name(&self) -> &'static str;

    /// `[rows]`: the raw scores that [`Classifier::explain`] takes apart, in its unit.
    ///
    /// The columns of training are found by name and others are ignored; an unknown category and a
    /// missing number are no errors. Errors: [`Error::MissingColumn`], [`Error::ColumnKind`].
    fn scores(&self, table: &Table) -> Result<Vec<f64>, Error>;

    /// `[rows]`: the probability that the label is true. Errors as [`Classifier::scores`].
    fn predict_proba(&self, table: &Table) -> Result<Vec<f64>, Error>;

    /// How much each column moves each row's score from the base. Errors as [`Classifier::scores`].
    fn explain(&self, table: &Table) -> Result<Explanations, Error>;
}
