//! The table that models are judged on.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{Context as _, bail, ensure};
use rapport_evaluation::Clusters;
use rapport_tabular::{Dataset, Schema};

use super::recipe::Recipe;

/// A labelled table, and which rows are of one customer.
pub struct Examples {
    pub data: Dataset,
    /// With the group among the columns that are no features: what a row to score is read by.
    pub schema: Schema,
    /// `[rows]`; `None` where every row is a customer of its own.
    pub groups: Option<Vec<String>>,
}

impl Examples {
    /// # Errors
    /// The file cannot be read or is not as the schema says, or has labels of one class only.
    pub fn read(path: &Path, recipe: &Recipe) -> anyhow::Result<Self> {
        let mut schema = recipe.schema.clone();
        let by_id = recipe.group.is_some() && recipe.group == schema.id;
        if let Some(group) = &recipe.group
            && !by_id
            && !schema.drop.contains(group)
        {
            schema.drop.push(group.clone());
        }
        let data = Dataset::from_csv(open(path)?, &schema).with_context(|| path.display().to_string())?;
        let groups = match &recipe.group {
            None => None,
            Some(_) if by_id => Some(data.ids.clone()),
            Some(group) => Some(column(path, group).with_context(|| path.display().to_string())?),
        };
        if let Some(row) = groups.iter().flatten().position(String::is_empty) {
            bail!("{}: record {} has an empty group: drop the record", path.display(), row + 1);
        }
        let examples = Self { data, schema, groups };
        let (positives, rows) = (examples.positives(), examples.data.labels.len());
        ensure!(
            positives > 0,
            "{}: no row has {:?} in column {}: correct schema.positive",
            path.display(),
            examples.schema.positive,
            examples.schema.label
        );
        ensure!(
            positives < rows,
            "{}: every row has {:?} in column {}: a classifier needs examples of both classes",
            path.display(),
            examples.schema.positive,
            examples.schema.label
        );
        Ok(examples)
    }

    pub fn positives(&self) -> usize {
        self.data.labels.iter().filter(|label| **label).count()
    }

    /// Rows that are drawn together where data are resampled.
    pub fn clusters(&self) -> Clusters {
        match &self.groups {
            Some(groups) => Clusters::by(groups),
            None => Clusters::each_row(self.data.labels.len()),
        }
    }
}

/// A CSV file that is not empty.
///
/// # Errors
/// It cannot be opened, or is empty.
pub fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let about = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    ensure!(about.is_file(), "{} is no file", path.display());
    ensure!(about.len() > 0, "{} is empty: it needs a header and rows", path.display());
    Ok(BufReader::new(file))
}

/// A single column, read as the table is.
fn column(path: &Path, name: &str) -> anyhow::Result<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(open(path)?);
    let at = reader.headers()?.iter().position(|column| column == name);
    let at = at.with_context(|| format!("the header lacks column {name}, which group names"))?;
    reader.records().map(|record| Ok(record?.get(at).unwrap_or_default().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, group: Option<&str>) -> anyhow::Result<Examples> {
        let folder = tempfile::tempdir().unwrap();
        let (recipe, table) = (folder.path().join("recipe.yaml"), folder.path().join("table.csv"));
        let group = group.map(|group| format!("group: {group}\n")).unwrap_or_default();
        let schema = "schema: {label: churn, positive: 'yes', id: id, numeric: [spend]}\nmodels: [{name: trees}]\n";
        std::fs::write(&recipe, format!("{group}{schema}")).unwrap();
        std::fs::write(&table, text).unwrap();
        Examples::read(&table, &Recipe::read(&recipe)?)
    }

    const ROWS: &str = "id,shop,spend,churn\na,x,1,yes\nb,x,2,no\nb,y,,no\n";

    #[test]
    fn a_group_is_an_id_or_a_column_that_is_then_no_feature() {
        let by_id = read(ROWS, Some("id")).unwrap();
        assert_eq!((by_id.groups.as_ref().unwrap().len(), by_id.data.table.columns().len()), (3, 2));
        assert_eq!(by_id.clusters().count(), 2);
        let by_shop = read(ROWS, Some("shop")).unwrap();
        assert_eq!(by_shop.groups.as_ref().unwrap(), &["x", "x", "y"]);
        assert_eq!((by_shop.data.table.columns().len(), by_shop.schema.drop.as_slice()), (1, &["shop".to_owned()][..]));
        assert_eq!(read(ROWS, None).unwrap().clusters().count(), 3);
    }

    #[test]
    fn what_cannot_be_learnt_from_is_told_before_any_fit() {
        let told = |text: &str, group| format!("{:#}", read(text, group).err().unwrap());
        assert!(told("", None).contains("is empty"));
        assert!(told(ROWS, Some("store")).contains("lacks column store"));
        assert!(told(ROWS, Some("spend")).contains("two roles"));
        assert!(told("id,spend,churn\na,1,no\n", None).contains("no row has \"yes\""));
        assert!(told("id,spend,churn\na,1,yes\n", None).contains("both classes"));
        assert!(
            told("id,shop,spend,churn\na,,1,yes\nb,x,1,no\n", Some("shop")).contains("record 1 has an empty group")
        );
        assert!(told("id,spend,churn\na,nan,yes\n", None).contains("not a finite number"));
    }
}
