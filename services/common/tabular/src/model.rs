use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::{Boosting, Classifier, Config, Error, Explanations, Forest, Kind, Logistic, Mlp, Table};

/// What stored models of this build carry. Raise it whenever the meaning of a stored field changes.
pub const FORMAT_VERSION: u32 = 1;

/// Any of the models, chosen by [`Config::kind`]; the form in which a model is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    Logistic(Logistic),
    Boosting(Boosting),
    Forest(Forest),
    Mlp(Mlp),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<M> {
    format_version: u32,
    model: M,
}

impl Model {
    /// The model as JSON with its format version; numbers stand there as decimal text, so that it gives
    /// the same bits when it is read back.
    pub fn to_json(&self) -> Result<String, Error> {
        Ok(serde_json::to_string(&Stored { format_version: FORMAT_VERSION, model: self })?)
    }

    /// A model that [`Model::to_json`] wrote. Errors: another format version, not JSON of this
    /// shape, or a model that no fit can have written.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        // The version first: the fields of another one need not be of this shape.
        let Stored { format_version, model: IgnoredAny } = serde_json::from_str(text)?;
        if format_version != FORMAT_VERSION {
            return Err(Error::FormatVersion { found: format_version, supported: FORMAT_VERSION });
        }
        let model = serde_json::from_str::<Stored<Self>>(text)?.model;
        match &model {
            Self::Logistic(model) => model.check(),
            Self::Boosting(model) => model.check(),
            Self::Forest(model) => model.check(),
            Self::Mlp(model) => model.check(),
        }?;
        Ok(model)
    }
}

impl Classifier for Model {
    fn fit(config: &Config, table: &Table, labels: &[bool], weights: Option<&[f64]>) -> Result<Self, Error> {
        Ok(match config.kind {
            Kind::Logistic => Self::Logistic(Logistic::fit(config, table, labels, weights)?),
            Kind::Boosting => Self::Boosting(Boosting::fit(config, table, labels, weights)?),
            Kind::Forest => Self::Forest(Forest::fit(config, table, labels, weights)?),
            Kind::Mlp => Self::Mlp(Mlp::fit(config, table, labels, weights)?),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Logistic(model) => model.name(),
            Self::Boosting(model) => model.name(),
            Self::Forest(model) => model.name(),
            Self::Mlp(model) => model.name(),
        }
    }

    fn scores(&self, table: &Table) -> Result<Vec<f64>, Error> {
        match self {
            Self::Logistic(model) => model.scores(table),
            Self::Boosting(model) => model.scores(table),
            Self::Forest(model) => model.scores(table),
            Self::Mlp(model) => model.scores(table),
        }
    }

    fn predict_proba(&self, table: &Table) -> Result<Vec<f64>, Error> {
        match self {
            Self::Logistic(model) => model.predict_proba(table),
            Self::Boosting(model) => model.predict_proba(table),
            Self::Forest(model) => model.predict_proba(table),
            Self::Mlp(model) => model.predict_proba(table),
        }
    }

    fn explain(&self, table: &Table) -> Result<Explanations, Error> {
        match self {
            Self::Logistic(model) => model.explain(table),
            Self::Boosting(model) => model.explain(table),
            Self::Forest(model) => model.explain(table),
            Self::Mlp(model) => model.explain(table),
        }
    }
}
