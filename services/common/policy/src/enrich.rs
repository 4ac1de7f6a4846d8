//! What is added to an event from what it carries (client, referrer, campaign, session), and from the catalog.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rapport_events::{EventType, limits::SEGMENT_BYTES};
use serde::Deserialize;

/// The section `enrich`.
///
/// ```yaml
/// enrich:
///   client: true                          # browser, system and device from the user agent
///   referrer: true                        # where the visit came from
///   campaign: true                        # utm_ parameters and click ids
///   internal_hosts: [shop.example, pay.example]
///   sessions: {inactivity: 30m, client_ids: true}   # inactivity: none switches them off
///   catalog: {category: true, value: {purchase: price}}   # of the item, where the event says none
///   segment: {from: traits.plan, values: [free, pro]}     # of the customer, until another event says otherwise
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrich {
    pub client: bool,
    pub referrer: bool,
    pub campaign: bool,
    /// Hosts of one's own (with their subdomains), besides the page's own host: a visit from there
    /// is internal.
    pub internal_hosts: Vec<String>,
    pub sessions: Sessions,
    pub catalog: FromCatalog,
    pub segment: Option<Segment>,
}

impl Default for Enrich {
    fn default() -> Self {
        Self {
            client: true,
            referrer: true,
            campaign: true,
            internal_hosts: Vec::new(),
            sessions: Sessions::default(),
            catalog: FromCatalog::default(),
            segment: None,
        }
    }
}

/// What an event gets from the catalog's record of its item, as that stands when the event is cleaned, where it
/// says nothing itself. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FromCatalog {
    /// The item's most specific category.
    pub category: bool,
    /// By type of event the attribute, a number, that is its value.
    pub value: BTreeMap<String, String>,
}

/// Where events say to which segment their customer belongs. A customer stays in it until another event says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// A path into the event: `traits.plan`, `properties.context.traits.plan`.
    pub from: String,
    /// The segments that there are. Whoever is said to be in another one is in none of them.
    #[serde(deserialize_with = "shared")]
    pub values: Arc<[String]>,
}

fn shared<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Arc<[String]>, D::Error> {
    Vec::deserialize(from).map(Arc::from)
}

impl Segment {
    /// The declared name of what an event says, in whatever case it says it.
    pub fn known(&self, said: &str) -> Option<&str> {
        self.values.iter().find(|name| name.eq_ignore_ascii_case(said.trim())).map(String::as_str)
    }

    fn check(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        let mut steps = self.from.split('.');
        let begins = matches!(steps.next(), Some("traits" | "properties"));
        if !begins || steps.clone().next().is_none() || steps.any(str::is_empty) || self.from.len() > PATH_BYTES {
            let reason = format!("must be a path like traits.plan or properties.tier, of at most {PATH_BYTES} bytes");
            mistakes.push(("segment.from".to_owned(), format!("{reason}; is {:?}", self.from)));
        }
        if self.values.is_empty() || self.values.len() > SEGMENTS {
            let reason = format!("must name 1 to {SEGMENTS} segments, names {}", self.values.len());
            mistakes.push(("segment.values".to_owned(), reason));
        }
        for (i, name) in self.values.iter().enumerate() {
            let place = || format!("segment.values[{i}]");
            let good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | ':' | '-');
            if name.is_empty() || name.len() > SEGMENT_BYTES || !name.chars().all(good) {
                mistakes.push((place(), format!("must be 1 to {SEGMENT_BYTES} of a-z, 0-9 and _.:-, is {name:?}")));
            } else if self.values.iter().take(i).any(|before| before == name) {
                mistakes.push((place(), format!("{name:?} is named twice")));
            }
        }
        mistakes
    }
}

/// How visits are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// After this time without an event, in event time, the next one begins another visit. `none`:
    /// visits are not told apart.
    #[serde(deserialize_with = "crate::duration::read_or_none")]
    pub inactivity: Option<Duration>,
    /// Whether `context.sessionId`, where a client sends one, is the session.
    pub client_ids: bool,
}

impl Default for Sessions {
    /// Half an hour: what Google Analytics, Snowplow and Segment use.
    fn default() -> Self {
        Self { inactivity: Some(Duration::from_secs(30 * 60)), client_ids: true }
    }
}

const ATTRIBUTE_BYTES: usize = 64;
/// Each has trends and features of its own.
const SEGMENTS: usize = 32;
const PATH_BYTES: usize = 256;
/// A day is the longest pause that anybody calls one visit; it also bounds the state.
const INACTIVITY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);

impl Enrich {
    /// What is wrong with the section: the path within it, and what would be right.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        for (i, host) in self.internal_hosts.iter().enumerate() {
            let fine = !host.is_empty()
                && host.contains('.')
                && !host.starts_with('.')
                && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-'));
            if !fine {
                mistakes.push((
                    format!("internal_hosts[{i}]"),
                    format!("{host:?} must be a host like shop.example, without scheme, port or path"),
                ));
            }
        }
        if let Some(inactivity) = self.sessions.inactivity
            && !INACTIVITY.contains(&inactivity)
        {
            mistakes.push((
                "sessions.inactivity".to_owned(),
                format!("must be between 1s and 24h, or none; is {}s", inactivity.as_secs_f64()),
            ));
        }
        for (kind, attribute) in &self.catalog.value {
            if let Err(error) = EventType::parse(kind) {
                mistakes.push((format!("catalog.value.{kind}"), error.reason));
            } else if attribute.is_empty() || attribute.len() > ATTRIBUTE_BYTES {
                let reason = format!("must name an attribute of catalog items in 1 to {ATTRIBUTE_BYTES} bytes");
                mistakes.push((format!("catalog.value.{kind}"), reason));
            }
        }
        mistakes.extend(self.segment.iter().flat_map(Segment::check));
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrich(yaml: &str) -> Enrich {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn half_an_hour_ends_a_visit_until_a_policy_says_otherwise() {
        let minutes = |n: u64| Some(Duration::from_secs(n * 60));
        assert_eq!(Enrich::default().sessions.inactivity, minutes(30));
        assert_eq!(enrich("{sessions: {inactivity: 2h}}").sessions.inactivity, minutes(120));
        assert_eq!(enrich("{sessions: {inactivity: none}}").sessions.inactivity, None);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let rules = enrich(
            "{internal_hosts: [shop.example, 'https://shop.example', .example, shop], sessions: {inactivity: 48h}}",
        );
        let places: Vec<String> = rules.check().into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, ["internal_hosts[1]", "internal_hosts[2]", "internal_hosts[3]", "sessions.inactivity"]);
    }

    #[test]
    fn segments_are_few_and_declared_and_their_place_is_a_path() {
        let rules = enrich("{segment: {from: traits.plan, values: [free, pro]}}");
        assert!(rules.check().is_empty());
        let segment = rules.segment.unwrap();
        assert_eq!((segment.known(" PRO "), segment.known("gold")), (Some("pro"), None));
        let wrong = |yaml: &str| enrich(yaml).check().into_iter().map(|(place, _)| place).collect::<Vec<_>>();
        for path in ["plan", "traits", "traits.", "context.plan", "traits..plan"] {
            let yaml = format!("{{segment: {{from: '{path}', values: [a]}}}}");
            assert_eq!(wrong(&yaml), ["segment.from"], "{path}");
        }
        assert_eq!(wrong("{segment: {from: traits.p, values: []}}"), ["segment.values"]);
        let places = wrong("{segment: {from: traits.p, values: [a, Gold, a, 'x/y']}}");
        assert_eq!(places, ["segment.values[1]", "segment.values[2]", "segment.values[3]"]);
    }
}
