//! What is added to an event from what it carries (client, referrer, campaign, session), and from the catalog.

use std::{collections::BTreeMap, time::Duration};

use rapport_events::EventType;
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
}
