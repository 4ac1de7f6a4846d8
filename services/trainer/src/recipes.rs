//! Which recipes a run trains: what the caller asks for, over the files of the operator, over the
//! defaults of each kind.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use crate::models::{DEFAULT_KINDS, blend, family};

/// What a caller asks for. Zero and empty mean nothing.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub kinds: Vec<String>,
    /// Passes over the data of sequence models.
    pub max_epochs: u32,
    pub seed: u64,
}

/// Complete recipes of the wanted kinds, each once, blends last. `folder` may hold a `<kind>.yaml`
/// for each.
///
/// # Errors
/// A kind that there is not, a file that cannot be read, or a field that is wrong, for a person.
pub fn complete(wanted: &Wanted, folder: Option<&Path>) -> Result<Vec<Value>, String> {
    let mut kinds: Vec<&str> = wanted.kinds.iter().map(String::as_str).collect();
    if kinds.is_empty() {
        kinds = DEFAULT_KINDS.to_vec();
    }
    let mut recipes: Vec<Value> = Vec::new();
    for kind in kinds {
        let recipe = one(kind, wanted, folder)?;
        if !recipes.contains(&recipe) {
            recipes.push(recipe);
        }
    }
    recipes.sort_by_key(|recipe| recipe.get("kind").and_then(Value::as_str) == Some(blend::KIND));
    Ok(recipes)
}

fn one(kind: &str, wanted: &Wanted, folder: Option<&Path>) -> Result<Value, String> {
    if kind == blend::KIND {
        return Ok(serde_json::json!({ "kind": blend::KIND }));
    }
    let family = family(kind)?;
    let mut fields = match folder {
        Some(folder) => file(&folder.join(format!("{kind}.yaml")))?,
        None => Map::new(),
    };
    let defaults = family.recipe(&Value::Object(Map::new()))?;
    let mut set = |name: &str, value: u64| {
        if value > 0 && defaults.get(name).is_some() {
            fields.insert(name.into(), value.into());
        }
    };
    set("epochs", wanted.max_epochs.into());
    set("seed", wanted.seed);
    family.recipe(&Value::Object(fields)).map_err(|reason| format!("{kind}: {reason}"))
}

/// The fields of a recipe file; none when there is no file.
///
/// # Errors
/// The file cannot be read or is no mapping.
pub fn file(path: &Path) -> Result<Map<String, Value>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let value: Value = serde_yaml_ng::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(fields) => Ok(fields),
        _ => Err(format!("{}: a recipe is a mapping of fields", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(names: &[&str]) -> Wanted {
        Wanted { kinds: names.iter().map(|&name| name.into()).collect(), ..Wanted::default() }
    }

    #[test]
    fn a_caller_overrides_a_file_which_overrides_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ligr.yaml"), "dim: 32\nhidden: 48\nepochs: 7\n").unwrap();
        let wanted = Wanted { max_epochs: 3, seed: 5, ..kinds(&["ligr", "ridge"]) };
        let recipes = complete(&wanted, Some(folder.path())).unwrap();
        let fields = |name: &str| recipes[0].get(name).and_then(Value::as_i64);
        assert_eq!(
            (fields("dim"), fields("hidden"), fields("epochs"), fields("seed")),
            (Some(32), Some(48), Some(3), Some(5))
        );
        assert_eq!(fields("blocks"), Some(2));
        assert_eq!(recipes[1].get("lambda").and_then(Value::as_f64), Some(300.0));
    }

    #[test]
    fn every_kind_has_defaults_that_work_and_a_blend_comes_last() {
        let all: Vec<&str> = std::iter::once("blend").chain(crate::models::FAMILIES.iter().map(|f| f.name())).collect();
        let recipes = complete(&kinds(&all), None).unwrap();
        assert_eq!(recipes.len(), all.len());
        assert_eq!(recipes.last().and_then(crate::models::kind_of), Some("blend"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(complete(&kinds(&["bert"]), None).unwrap_err().contains("ridge, ligr"));
        let folder = tempfile::tempdir().unwrap();
        let wrong = |text: &str| {
            fs::write(folder.path().join("ligr.yaml"), text).unwrap();
            complete(&kinds(&["ligr"]), Some(folder.path())).unwrap_err()
        };
        assert!(wrong("dimension: 32").contains("dimension"));
        assert!(wrong("dim: 30\nheads: 4").contains("multiple"));
        assert!(wrong("- 1").contains("mapping"));
        assert!(wrong("dropout: 1.5").contains("dropout"));
    }
}
