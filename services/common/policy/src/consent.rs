use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

/// More purposes than any law or consent dialogue knows; decisions fit into one word.
const PURPOSES: usize = 32;
/// The fields that a rule may name, each with what stands below it. An event's id, type and time
/// are always there, and who it was stays as soon as one purpose is agreed to.
const FIELDS: &[&str] = &["item_id", "category", "value", "currency", "properties", "traits"];

/// What a customer must have agreed to, and what an event keeps of it.
///
/// Whether a purpose is agreed to is asked of the event's own
/// `properties.context.consent.categoryPreferences`, then of the customer's standing decision (topic
/// `privacy.v1`), then of `default`. The rule that names a field most closely decides about it:
/// `always` and the purposes that are agreed to keep it, refused purposes remove it, and of two that
/// are equally close the one that keeps it counts. A field that no rule names stays only where a
/// purpose with `fields: all` is agreed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consent {
    pub mode: ConsentMode,
    /// The decision of who has made none.
    pub default: Decision,
    pub purposes: BTreeMap<String, Purpose>,
    /// What becomes of an event that no purpose is agreed to for.
    pub without: Without,
    /// Fields that need no purpose.
    pub always: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentMode {
    /// Nobody is asked.
    #[default]
    Off,
    Required,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    #[default]
    Deny,
    Allow,
}

/// What becomes of an event that no purpose is agreed to for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Without {
    /// A dead letter that says so and holds nothing of the event: it cannot be replayed.
    #[default]
    Withhold,
    /// A clean event of nobody: its type, time and item.
    Strip,
}

/// Something that data may be used for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Purpose {
    /// The names of the consent dialogue's categories that stand for it; without any, its own name.
    /// One that is agreed to grants the purpose, one that is refused refuses it, whatever the others
    /// say.
    pub granted_by: Vec<String>,
    pub fields: Fields,
}

/// `all`, or a list of paths such as `properties.context.campaign`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    All,
    Named(Vec<String>),
}

impl Default for Fields {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("all, or a list of fields such as [value, properties.price]")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Fields, E> {
                if text == "all" {
                    Ok(Fields::All)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Fields, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Fields::Named).map_err(A::Error::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

impl Consent {
    pub fn required(&self) -> bool {
        self.mode == ConsentMode::Required
    }

    /// What serde cannot see, as (path, reason).
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.required() && self.purposes.is_empty() {
            wrong.push(("purposes".into(), "is empty, but mode is required; name at least one purpose".into()));
        }
        if self.purposes.len() > PURPOSES {
            wrong.push(("purposes".into(), format!("may have {PURPOSES} purposes, has {}", self.purposes.len())));
        }
        for (name, purpose) in &self.purposes {
            let plain = !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
            if !plain {
                wrong.push((
                    format!("purposes.{name}"),
                    "a purpose's name has 1 to 64 characters of a-z, 0-9, '_' and '-'".into(),
                ));
            }
            if let Fields::Named(paths) = &purpose.fields {
                check_paths(&format!("purposes.{name}.fields"), paths, &mut wrong);
            }
        }
        check_paths("always", &self.always, &mut wrong);
        wrong
    }
}

fn check_paths(at: &str, paths: &[String], wrong: &mut Vec<(String, String)>) {
    for (n, path) in paths.iter().enumerate() {
        let (first, rest) = path.split_once('.').map_or((path.as_str(), None), |(first, rest)| (first, Some(rest)));
        let holds_fields = matches!(first, "properties" | "traits");
        let reason = if matches!(first, "customer_id" | "anonymous_id" | "event_id" | "type" | "event_time" | "sent_at")
        {
            format!(
                "{first} is no field that a rule may name: who it was stays as soon as one purpose is agreed to, and an event's id, type and time always"
            )
        } else if !FIELDS.contains(&first) {
            format!(
                "{path:?} is no field of an event; name one of {}, or something below properties or traits",
                FIELDS.join(", ")
            )
        } else if rest.is_some() && !holds_fields {
            format!("{first} has nothing below it")
        } else if rest.is_some_and(|rest| rest.split('.').any(str::is_empty)) {
            format!("{path:?} has an empty step; write it like properties.context.campaign")
        } else {
            continue;
        };
        wrong.push((format!("{at}[{n}]"), reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Consent {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn fields_are_all_or_a_list() {
        let consent = read("{mode: required, purposes: {a: {fields: all}, b: {fields: [value, traits.plan]}, c: {}}}");
        assert_eq!(consent.purposes["a"].fields, Fields::All);
        assert_eq!(consent.purposes["b"].fields, Fields::Named(vec!["value".into(), "traits.plan".into()]));
        assert_eq!(consent.purposes["c"].fields, Fields::Named(vec![]));
        assert!(consent.check().is_empty());
        let error = serde_yaml_ng::from_str::<Fields>("everything").unwrap_err().to_string();
        assert!(error.contains("expected all, or a list"), "{error}");
    }

    #[test]
    fn a_rule_about_a_field_that_no_event_has_is_a_mistake_with_its_place() {
        let consent =
            read("{mode: required, always: [item, value.x, traits.], purposes: {Ads: {fields: [customer_id]}}}");
        let places: Vec<String> = consent.check().into_iter().map(|(path, _)| path).collect();
        assert_eq!(places, ["purposes.Ads", "purposes.Ads.fields[0]", "always[0]", "always[1]", "always[2]"]);
        assert_eq!(read("{mode: required}").check()[0].0, "purposes");
    }
}
