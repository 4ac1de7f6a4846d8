//! A policy's text into a policy, with every mistake in it and not only the first.

use std::{
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use serde_yaml_ng::{Mapping, Value as Yaml};

use crate::{
    Bots, Collect, Consent, Enrich, Normalise, Policy, PolicyError, Privacy, Time,
    validate::{SCHEMA_BYTES, Written},
};

/// A policy that somebody wrote is a hundredth of this.
const FILE_BYTES: u64 = 1024 * 1024;
/// Who made more mistakes than this reads the first ones and tries again.
const MISTAKES: usize = 50;
pub(crate) const SECTIONS: &[&str] =
    &["version", "collect", "validate", "normalise", "time", "consent", "privacy", "bots", "enrich"];

/// What reading a policy gave.
pub(crate) struct Outcome {
    pub result: Result<Policy, Vec<PolicyError>>,
    /// The schema files that it names, whether or not they could be read: a change of them is a
    /// change of the policy.
    pub schema_files: Vec<PathBuf>,
}

/// The mistakes of one file.
struct Mistakes<'a> {
    file: &'a str,
    found: Vec<PolicyError>,
}

impl Mistakes<'_> {
    fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.found.push(PolicyError { file: self.file.to_owned(), path: path.into(), reason: reason.into() });
    }

    fn add_all(&mut self, section: &str, wrong: Vec<(String, String)>) {
        for (path, reason) in wrong {
            self.add(join(section, &path), reason);
        }
    }
}

/// Files that a policy names, looked for in its own folder.
pub(crate) struct SchemaFiles<'a> {
    folder: Option<&'a Path>,
    named: Vec<PathBuf>,
}

impl SchemaFiles<'_> {
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn read(&mut self, name: &Path) -> Result<serde_json::Value, String> {
        let Some(folder) = self.folder else {
            return Err("can only be read beside a policy in a file; write the schema itself".into());
        };
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("{} must be a path below the policy's folder", name.display()));
        }
        let path = folder.join(name);
        self.named.push(path.clone());
        let limit = u64::try_from(SCHEMA_BYTES).unwrap_or(u64::MAX);
        let text = read_text(&path, limit).map_err(|reason| format!("{}: {reason}", path.display()))?;
        // YAML reads JSON too.
        serde_yaml_ng::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Reads the policy of `tenant` in the text of `file`.
pub(crate) fn policy(file: &str, tenant: &str, text: &str, folder: Option<&Path>) -> Outcome {
    let mut mistakes = Mistakes { file, found: Vec::new() };
    let mut schemas = SchemaFiles { folder, named: Vec::new() };
    let policy = build(tenant, text, &mut schemas, &mut mistakes);
    mistakes.found.truncate(MISTAKES);
    let result = match policy {
        Some(policy) if mistakes.found.is_empty() => Ok(policy),
        _ => Err(mistakes.found),
    };
    Outcome { result, schema_files: schemas.named }
}

fn build(tenant: &str, text: &str, schemas: &mut SchemaFiles<'_>, mistakes: &mut Mistakes<'_>) -> Option<Policy> {
    let mut sections = match serde_yaml_ng::from_str::<Yaml>(text) {
        Ok(Yaml::Mapping(sections)) => sections,
        Ok(_) => {
            mistakes.add("", format!("must be a mapping with the keys {}", SECTIONS.join(", ")));
            return None;
        }
        Err(error) => {
            mistakes.add("", format!("is not YAML: {error}"));
            return None;
        }
    };
    let version = version(&mut sections, mistakes);
    let collect: Collect = section("collect", &mut sections, mistakes);
    let validate: Written = section("validate", &mut sections, mistakes);
    let normalise: Normalise = section("normalise", &mut sections, mistakes);
    let time: Time = section("time", &mut sections, mistakes);
    let consent: Consent = section("consent", &mut sections, mistakes);
    let privacy: Privacy = section("privacy", &mut sections, mistakes);
    let bots: Bots = section("bots", &mut sections, mistakes);
    let enrich: Enrich = section("enrich", &mut sections, mistakes);
    for key in sections.keys() {
        mistakes.add(key_text(key), format!("is no section of a policy; there are {}", SECTIONS.join(", ")));
    }
    let (validate, wrong) = validate.compile(schemas);
    mistakes.add_all("validate", wrong);
    mistakes.add_all("normalise", normalise.check());
    mistakes.add_all("consent", consent.check());
    mistakes.add_all("privacy", privacy.check());
    mistakes.add_all("bots", bots.check());
    mistakes.add_all("enrich", enrich.check());
    Some(Policy {
        version: format!("{tenant}@{version}"),
        collect,
        validate,
        normalise,
        time,
        consent,
        privacy,
        bots,
        enrich,
    })
}

fn version(sections: &mut Mapping, mistakes: &mut Mistakes<'_>) -> u64 {
    let right = "a number from 1; raise it with every change, since clean events carry it";
    let version = sections.remove("version");
    match version.as_ref().map(Yaml::as_u64) {
        Some(Some(version)) if version > 0 => return version,
        None => mistakes.add("version", format!("is missing; it is {right}")),
        Some(_) => mistakes.add("version", format!("must be {right}")),
    }
    0
}

/// Takes one section out of the file. Every mistake in it is told: what cannot be read is taken
/// out, and the rest is read again.
fn section<T: DeserializeOwned + Default>(name: &str, sections: &mut Mapping, mistakes: &mut Mistakes<'_>) -> T {
    let mut written = match sections.remove(name) {
        // A section of which every line is a comment.
        None | Some(Yaml::Null) => return T::default(),
        Some(written) => written,
    };
    for _ in 0..MISTAKES {
        let error = match serde_path_to_error::deserialize::<_, T>(written.clone()) {
            Ok(section) => return section,
            Err(error) => error,
        };
        let steps: Vec<&Segment> = error.path().iter().collect();
        let path = if steps.is_empty() { String::new() } else { error.path().to_string() };
        mistakes.add(join(name, &path), error.inner().to_string());
        if !take_out(&mut written, &steps) {
            break;
        }
    }
    T::default()
}

/// Removes what stands at `steps`; whether there was something.
fn take_out(from: &mut Yaml, steps: &[&Segment]) -> bool {
    let Some((last, way)) = steps.split_last() else { return false };
    let mut at = from;
    for step in way {
        let next = match (step, at) {
            (Segment::Map { key }, Yaml::Mapping(map)) => map.get_mut(key.as_str()),
            (Segment::Seq { index }, Yaml::Sequence(list)) => list.get_mut(*index),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    match (last, at) {
        (Segment::Map { key }, Yaml::Mapping(map)) => map.remove(key.as_str()).is_some(),
        (Segment::Seq { index }, Yaml::Sequence(list)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        // Something inside an enum, say: the whole of it is wrong.
        (_, at) if !matches!(at, Yaml::Null) => {
            *at = Yaml::Null;
            false
        }
        _ => false,
    }
}

fn join(section: &str, path: &str) -> String {
    if path.is_empty() || path == "." { section.to_owned() } else { format!("{section}.{path}") }
}

fn key_text(key: &Yaml) -> String {
    key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned)
}

/// # Errors
/// Why it cannot be read, without the path.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(limit + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit {
        return Err(format!("may have {limit} bytes"));
    }
    Ok(text)
}

/// A policy's own text.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn policy_text(path: &Path) -> Result<String, String> {
    read_text(path, FILE_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        match policy("acme.yaml", "acme", text, None).result {
            Ok(_) => Vec::new(),
            Err(found) => found.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_file_its_path_and_what_would_be_right() {
        let found = mistakes(
            "version: 0\n\
             colect: {}\n\
             collect: {client_ip: maybe, user_agent: often, referrer: keep}\n\
             time: {future: soon, on_future: receive_time}\n\
             consent: {mode: required, purposes: {ads: {fields: some}}}\n",
        );
        let expected = [
            ("acme.yaml: version: ", "a number from 1"),
            ("acme.yaml: collect.client_ip: ", "`truncate`"),
            ("acme.yaml: collect.user_agent: ", "`drop`"),
            ("acme.yaml: collect.referrer: ", "expected `client_ip` or `user_agent`"),
            ("acme.yaml: time.future: ", "15s or 2h"),
            ("acme.yaml: consent.purposes.ads.fields: ", "all, or a list"),
            ("acme.yaml: colect: ", "there are version, collect"),
        ];
        for (start, right) in expected {
            assert!(
                found.iter().any(|m| m.starts_with(start) && m.contains(right)),
                "{start} .. {right} in {found:#?}"
            );
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }

    #[test]
    fn a_policy_of_one_line_is_the_built_in_rules_under_its_own_name() {
        let policy = policy("acme.yaml", "acme", "version: 3\nbots:\n", None).result.unwrap();
        assert_eq!(policy.version, "acme@3");
        assert_eq!(policy.time, Time::default());
        assert_eq!(policy.collect, Collect::default());
    }

    #[test]
    fn what_is_no_mapping_or_no_yaml_says_so() {
        assert!(mistakes("- a\n- b\n")[0].contains("must be a mapping with the keys version"));
        assert!(mistakes("a: [1\n")[0].starts_with("acme.yaml: is not YAML"));
        assert!(mistakes("version: 1\nversion: 2\n")[0].contains("duplicate"));
        assert!(mistakes("")[0].contains("must be a mapping"));
    }

    proptest! {
        #[test]
        fn whatever_the_text_is_there_is_a_policy_or_a_reason(text in "[ \\n\\-:{}\\[\\]&*!a-z0-9,'\"]{0,200}") {
            let outcome = policy("acme.yaml", "acme", &text, None);
            prop_assert!(outcome.result.is_ok() || outcome.result.is_err_and(|e| !e.is_empty()));
        }

        #[test]
        fn any_value_in_the_place_of_a_section_is_a_mistake_of_that_section(
            section in proptest::sample::select(&SECTIONS[1..]), value in "(true|7|text|\\[1\\]|\\{zz: 1\\})",
        ) {
            let found = mistakes(&format!("version: 1\n{section}: {value}\n"));
            prop_assert!(found.iter().all(|m| m.contains(section)) && !found.is_empty(), "{:?}", found);
        }
    }
}
