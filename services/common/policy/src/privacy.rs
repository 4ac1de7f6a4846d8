//! What happens to personal data: by the field that it stands in, by the field's name, and by what
//! it looks like wherever it stands.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::compiled::Compiled;

/// The section `privacy`.
///
/// ```yaml
/// privacy:
///   fields:                          # first: exact places, `*` stands for one step
///     properties.note: drop
///     traits.children.*.name: hash
///     properties.support_email: keep
///   names:                           # then: any field with this name, at any depth
///     loyalty_card: mask
///   personal_names: true             # ... and the built-in list (email, phone, address, 手机 ...)
///   detect:                          # last: what a value or a part of a text looks like
///     email: hash
///     card: mask
///     ip: truncate
///   free_text: true                  # look inside longer texts, not only at whole values
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// Action by path (`properties.a.b`, `traits.*.c`; `*` is one step, also an element of a list).
    /// It covers everything below the path and goes before names and detectors.
    pub fields: BTreeMap<String, Action>,
    /// Action by a field's name at any depth. Letter case and separators do not count:
    /// `loyalty_card` also means `loyaltyCard` and `Loyalty-Card`.
    pub names: BTreeMap<String, Action>,
    /// Whether the built-in list of names counts: what stands under `email`, `phone`, `address` and
    /// so on is treated by the detector that knows it, and hashed where none does.
    pub personal_names: bool,
    pub detect: Detect,
    /// Whether detectors look inside longer texts. Without it they judge whole values only.
    pub free_text: bool,
    #[serde(skip)]
    compiled: Compiled<Index>,
}

impl Default for Privacy {
    fn default() -> Self {
        Self {
            fields: BTreeMap::new(),
            names: BTreeMap::new(),
            personal_names: true,
            detect: Detect::default(),
            free_text: true,
            compiled: Compiled::default(),
        }
    }
}

/// What is done with a value that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A keyed pseudonym, `hk1_` and 32 hex digits: the same value gives the same one.
    Hash,
    /// A keyed stand-in of the same form, from a range that no real value can be in.
    Tokenise,
    /// `****` and the last four characters; of an e-mail address the domain stays.
    Mask,
    /// An IP address to its network: /24, or /48 for version 6. Anything else is hashed.
    Truncate,
    /// The field goes. Inside a text, `[removed]` stands in its place.
    Drop,
    /// Nothing.
    Keep,
}

/// Action by what a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detect {
    pub email: Action,
    /// International numbers, with `+`.
    pub phone: Action,
    /// Mobile numbers of mainland China, with or without +86.
    pub chinese_mobile: Action,
    /// Resident identity card numbers of mainland China (GB 11643).
    pub chinese_resident_id: Action,
    /// Payment cards, by issuer, length and check digit.
    pub card: Action,
    pub iban: Action,
    pub ip: Action,
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            email: Action::Hash,
            phone: Action::Hash,
            chinese_mobile: Action::Hash,
            chinese_resident_id: Action::Hash,
            card: Action::Mask,
            iban: Action::Mask,
            ip: Action::Truncate,
        }
    }
}

impl Detect {
    fn entries(&self) -> [(&'static str, Action); 7] {
        [
            ("email", self.email),
            ("phone", self.phone),
            ("chinese_mobile", self.chinese_mobile),
            ("chinese_resident_id", self.chinese_resident_id),
            ("card", self.card),
            ("iban", self.iban),
            ("ip", self.ip),
        ]
    }
}

/// The paths of a policy, step by step.
#[derive(Debug, Default)]
pub struct PathNode {
    steps: HashMap<Box<str>, PathNode>,
    any: Option<Box<PathNode>>,
    /// What is done with everything from here down.
    pub action: Option<Action>,
}

impl PathNode {
    /// Where a step leads: by its name, and by `*`.
    pub fn next<'n>(&'n self, step: &str) -> impl Iterator<Item = &'n Self> {
        self.steps.get(step).into_iter().chain(self.any.as_deref())
    }

    /// Where an element of a list leads: only by `*`.
    pub fn element(&self) -> Option<&Self> {
        self.any.as_deref()
    }

    fn insert<'p>(&mut self, mut steps: impl Iterator<Item = &'p str>, action: Action) {
        match steps.next() {
            None => self.action = Some(action),
            Some("*") => self.any.get_or_insert_default().insert(steps, action),
            Some(step) => self.steps.entry(step.into()).or_default().insert(steps, action),
        }
    }
}

/// The section in the form that the cleaner asks.
#[derive(Debug, Default)]
struct Index {
    paths: PathNode,
    /// By [`plain_name`].
    names: HashMap<Box<str>, Action>,
}

impl Privacy {
    /// The root of the paths; its first steps are `properties` and `traits`. `None` without paths.
    pub fn paths(&self) -> Option<&PathNode> {
        (!self.fields.is_empty()).then(|| &self.index().paths)
    }

    /// The action for a field's [`plain_name`], where the policy names it.
    pub fn named(&self, plain: &str) -> Option<Action> {
        if self.names.is_empty() { None } else { self.index().names.get(plain).copied() }
    }

    fn index(&self) -> &Index {
        self.compiled.get(|| {
            let mut index = Index::default();
            for (path, action) in &self.fields {
                index.paths.insert(path.split('.'), *action);
            }
            index.names.extend(self.names.iter().map(|(name, action)| (plain_name(name).into(), *action)));
            index
        })
    }

    /// What is wrong with the section: the path within it, and what would be right.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        for path in self.fields.keys() {
            let mut steps = path.split('.');
            let rooted = matches!(steps.next(), Some("properties" | "traits"));
            if !rooted || path.split('.').count() < 2 || path.split('.').any(str::is_empty) {
                mistakes.push((
                    format!("fields.{path}"),
                    "must be a path below properties or traits, like traits.email or properties.items.*.note; \
                     customer_id and anonymous_id are protected by a rule of their own"
                        .to_owned(),
                ));
            }
        }
        for name in self.names.keys() {
            if plain_name(name).is_empty() || name.contains('.') {
                mistakes.push((
                    format!("names.{name}"),
                    "must be the name of a field, like loyalty_card; a path belongs under fields".to_owned(),
                ));
            }
        }
        for (detector, action) in self.detect.entries() {
            if action == Action::Truncate && detector != "ip" {
                mistakes.push((
                    format!("detect.{detector}"),
                    "truncate is for IP addresses; use hash, tokenise, mask, drop or keep".to_owned(),
                ));
            }
        }
        mistakes
    }
}

/// A field's name without what people spell differently: lower case, letters and digits only.
pub fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
