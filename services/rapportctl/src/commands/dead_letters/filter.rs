//! Which dead letters are meant.

use clap::{Args, ValueEnum};
use rapport_events::{EventTime, EventType, Tenant};
use rapport_proto::events::{DeadLetter, dead_letter::Kind as ProtoKind};

use crate::original;

/// The class of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The bytes are not what their content type says
    Decode,
    /// A value breaks a rule of the schema
    Schema,
    /// Longer, larger or deeper than its limit
    Size,
    /// Nobody, or an id that stands for nobody
    Identity,
    /// The tenant's policy refuses it
    Policy,
    /// A fault of the cleaner itself
    Internal,
}

impl From<Kind> for ProtoKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Decode => Self::Decode,
            Kind::Schema => Self::Schema,
            Kind::Size => Self::Size,
            Kind::Identity => Self::Identity,
            Kind::Policy => Self::Policy,
            Kind::Internal => Self::Internal,
        }
    }
}

/// A moment as people say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Ago(std::time::Duration),
    At(EventTime),
}

impl Moment {
    /// `2h`, `2026-11-24` or `2026-11-24T06:00:00Z`.
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        EventTime::parse_rfc3339(text)
            .or_else(|| EventTime::parse_rfc3339(&format!("{text}T00:00:00Z")))
            .map(Self::At)
            .ok_or_else(|| format!("{text:?} is no moment; say 2h (ago), 2026-11-24 or 2026-11-24T06:00:00Z"))
    }

    fn at(self, now: EventTime) -> EventTime {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => {
                EventTime::from_ms(now.as_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

/// Every condition must hold. `--tenant` (or `RAPPORT_TENANT`) narrows to one tenant.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which dead letters (all conditions must hold; --tenant narrows too)")]
pub struct Filter {
    /// Class of the refusal; several separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<Kind>,
    /// The step that refused them, for example validate
    #[arg(long, value_name = "STEP")]
    stage: Option<String>,
    /// The field that is wrong, or what it stands in: properties also means properties.price
    #[arg(long, value_name = "PATH")]
    field: Option<String>,
    /// The rule that refused them, or its beginning: plan also means plan:purchase
    #[arg(long)]
    rule: Option<String>,
    /// The event's type, where the original can be read
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Refused then or later: 2h (ago), 2026-11-24 or 2026-11-24T06:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Refused before
    #[arg(long, value_name = "WHEN", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// Only these partitions of the dead topic, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    partition: Vec<i32>,
    /// Text in the reason, the original's key or its bytes
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Of all tenants, although RAPPORT_TENANT names one
    #[arg(long)]
    all_tenants: bool,
}

impl Filter {
    /// True when it narrows nothing: every letter is meant.
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
            && self.partition.is_empty()
            && [&self.stage, &self.field, &self.rule, &self.event_type, &self.contains].iter().all(|f| f.is_none())
            && self.since.is_none()
            && self.until.is_none()
    }

    /// The conditions with the moments fixed and the names in the form that letters have.
    pub fn settle(&self, only_tenant: Option<&Tenant>, now: EventTime) -> Settled {
        Settled {
            kinds: self.kind.iter().map(|&kind| kind.into()).collect(),
            stage: self.stage.clone(),
            field: self.field.clone(),
            rule: self.rule.clone(),
            tenant: only_tenant.filter(|_| !self.all_tenants).cloned(),
            event_type: self.event_type.as_deref().map(normal_type),
            since: self.since.map(|moment| moment.at(now)),
            until: self.until.map(|moment| moment.at(now)),
            partitions: self.partition.clone(),
            contains: self.contains.clone().map(String::into_bytes),
        }
    }
}

/// A type as the cleaner writes it; as it stands where it has no such form.
fn normal_type(name: &str) -> String {
    EventType::parse(name).map_or_else(|_| name.trim().to_owned(), EventType::into_string)
}

/// A [`Filter`] at a moment.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    kinds: Vec<ProtoKind>,
    stage: Option<String>,
    field: Option<String>,
    rule: Option<String>,
    tenant: Option<Tenant>,
    event_type: Option<String>,
    pub since: Option<EventTime>,
    until: Option<EventTime>,
    partitions: Vec<i32>,
    contains: Option<Vec<u8>>,
}

impl Settled {
    pub fn takes_partition(&self, partition: i32) -> bool {
        self.partitions.is_empty() || self.partitions.contains(&partition)
    }

    /// Whether a letter is meant. Cheap conditions come first: the original is read last.
    pub fn takes(&self, partition: i32, letter: &DeadLetter) -> bool {
        let failed_at = letter.failed_at.as_ref().and_then(EventTime::from_proto).unwrap_or_default();
        self.takes_partition(partition)
            && (self.kinds.is_empty() || self.kinds.contains(&letter.kind()))
            && self.tenant.as_ref().is_none_or(|tenant| letter.tenant == tenant.as_str())
            && self.stage.as_ref().is_none_or(|stage| letter.stage == *stage)
            && self.field.as_ref().is_none_or(|field| begins_path(&letter.field, field))
            && self.rule.as_ref().is_none_or(|rule| begins_path(&letter.rule, rule))
            && self.since.is_none_or(|since| failed_at >= since)
            && self.until.is_none_or(|until| failed_at < until)
            && self.contains.as_ref().is_none_or(|text| {
                [letter.reason.as_bytes(), letter.original_key.as_deref().unwrap_or_default(), &letter.original_value]
                    .iter()
                    .any(|bytes| holds(bytes, text))
            })
            && self
                .event_type
                .as_ref()
                .is_none_or(|wanted| original::event_type(letter).is_some_and(|found| normal_type(&found) == *wanted))
    }
}

/// `properties` begins `properties.price`, and `plan` begins `plan:purchase`, but not `plans`.
fn begins_path(path: &str, beginning: &str) -> bool {
    path.strip_prefix(beginning).is_some_and(|rest| {
        rest.is_empty() || rest.starts_with(['.', ':', '[', '/']) || beginning.ends_with([':', '.'])
    })
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;
    use prost::Message as _;
    use rapport_proto::events::Event;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(arguments: &[&str]) -> Settled {
        let line = Line::try_parse_from([&["x"], arguments].concat()).unwrap();
        line.filter.settle(None, EventTime::from_ms(1_800_000_000_000))
    }

    fn letter() -> DeadLetter {
        DeadLetter {
            kind: ProtoKind::Policy.into(),
            field: "properties.price".into(),
            rule: "plan:purchase".into(),
            reason: "must be a number".into(),
            stage: "validate".into(),
            tenant: "acme".into(),
            failed_at: Some(EventTime::from_ms(1_800_000_000_000 - 3_600_000).to_proto()),
            original_value: Event { r#type: "Order Done".into(), customer_id: "c-17".into(), ..Event::default() }
                .encode_to_vec(),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn every_condition_must_hold() {
        for (arguments, taken) in [
            (vec![], true),
            (vec!["--kind", "policy,schema"], true),
            (vec!["--kind", "decode"], false),
            (vec!["--stage", "validate"], true),
            (vec!["--field", "properties"], true),
            (vec!["--field", "prop"], false),
            (vec!["--rule", "plan"], true),
            (vec!["--rule", "plan:"], true),
            (vec!["--rule", "plan:view"], false),
            (vec!["--since", "2h"], true),
            (vec!["--since", "30m"], false),
            (vec!["--until", "2h"], false),
            (vec!["--since", "2027-01-15"], true),
            (vec!["--since", "2027-01-15T08:00:00Z"], false),
            (vec!["--partition", "0,2"], true),
            (vec!["--partition", "1"], false),
            (vec!["--contains", "c-17"], true),
            (vec!["--contains", "a number"], true),
            (vec!["--contains", "c-18"], false),
            (vec!["--type", "order done"], true),
            (vec!["--type", "view"], false),
            (vec!["--kind", "policy", "--type", "view"], false),
        ] {
            assert_eq!(filter(&arguments).takes(0, &letter()), taken, "{arguments:?}");
        }
    }

    #[test]
    fn a_tenant_narrows_unless_all_are_asked_for() {
        let bolt = Tenant::parse("bolt").unwrap();
        let line = Line::try_parse_from(["x"]).unwrap().filter;
        assert!(line.is_empty());
        assert!(!line.settle(Some(&bolt), EventTime::default()).takes(0, &letter()));
        let all = Line::try_parse_from(["x", "--all-tenants"]).unwrap().filter;
        assert!(all.settle(Some(&bolt), EventTime::default()).takes(0, &letter()));
    }

    #[test]
    fn a_moment_that_is_none_says_what_would_be() {
        let error = Line::try_parse_from(["x", "--since", "yesterday"]).err().unwrap().to_string();
        assert!(error.contains("2026-11-24T06:00:00Z"), "{error}");
    }

    proptest! {
        #[test]
        fn what_a_value_holds_is_found(before: Vec<u8>, text in proptest::collection::vec(any::<u8>(), 1..9), after: Vec<u8>) {
            prop_assert!(holds(&[before, text.clone(), after].concat(), &text));
        }
    }
}
