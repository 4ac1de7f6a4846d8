//! A fitted model in a file, with the schema by which rows are read for it.

use std::{fs, path::Path};

use anyhow::Context as _;
use rapport_tabular::{Model, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything that scoring a table needs.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredModel {
    /// What the recipe calls it.
    pub name: String,
    pub schema: Schema,
    pub model: Model,
}

/// As it stands in the file: one file, so that the schema and the model cannot come apart.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    name: String,
    schema: Schema,
    /// What [`Model::to_json`] writes. Its numbers are text, which loses nothing on the way.
    model: Value,
}

impl StoredModel {
    /// # Errors
    /// A model with a number that is not finite.
    pub fn to_json(&self) -> anyhow::Result<String> {
        let model = serde_json::from_str(&self.model.to_json()?)?;
        let layout = Layout { name: self.name.clone(), schema: self.schema.clone(), model };
        Ok(serde_json::to_string(&layout)? + "\n")
    }

    /// # Errors
    /// The file cannot be read, or is not one that [`StoredModel::to_json`] made.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| {
            format!("{} is no model that `rapportctl evaluate tabular --save` has written", path.display())
        })
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let Layout { name, schema, model } = serde_json::from_str(text)?;
        Ok(Self { name, schema, model: Model::from_json(&model.to_string())? })
    }
}

#[cfg(test)]
mod tests {
    use rapport_tabular::{Classifier as _, Config, Dataset};

    use super::*;

    fn stored() -> StoredModel {
        let schema =
            Schema { label: "churn".into(), positive: "yes".into(), id: None, drop: vec![], numeric: vec!["x".into()] };
        let rows: String = (0..90)
            .map(|n| format!("{},{},{}\n", f64::from(n) / 7.0, n % 4, if n % 3 == 0 || n > 60 { "yes" } else { "no" }))
            .collect();
        let data = Dataset::from_csv(format!("x,plan,churn\n{rows}").as_bytes(), &schema).unwrap();
        let model = Model::fit(&Config::default(), &data.table, &data.labels, None).unwrap();
        StoredModel { name: "trees".into(), schema, model }
    }

    #[test]
    fn a_model_comes_back_the_same() {
        let stored = stored();
        assert_eq!(StoredModel::parse(&stored.to_json().unwrap()).unwrap(), stored);
    }

    #[test]
    fn another_file_or_half_of_one_is_refused() {
        let text = stored().to_json().unwrap();
        assert!(StoredModel::parse(&text[..text.len() / 2]).is_err());
        assert!(StoredModel::parse("{}").is_err());
        let other = text.replace(r#""format_version":1"#, r#""format_version":9"#);
        assert!(StoredModel::parse(&other).unwrap_err().to_string().contains("format version 9"));
    }
}
