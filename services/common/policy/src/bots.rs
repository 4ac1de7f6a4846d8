//! Which events are a machine's, and what happens to them.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::{RegexSet, RegexSetBuilder};
use serde::Deserialize;

use crate::compiled::Compiled;

/// The section `bots`.
///
/// ```yaml
/// bots:
///   action: mark                  # mark the event, or refuse it (a dead letter of kind policy)
///   user_agents: true             # the built-in list of crawlers, monitors and HTTP libraries
///   patterns: ["^acme-probe/"]    # more of them, as regular expressions; letter case does not count
///   not_bots: ["^OurShopApp/"]    # what no list may take for a bot
///   networks: [203.0.113.0/24]    # addresses that are machines
///   client_flag: true             # believe context.bot
///   rate: {per_minute: 600, action: mark}
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bots {
    pub action: BotAction,
    pub user_agents: bool,
    pub patterns: Vec<String>,
    pub not_bots: Vec<String>,
    /// In CIDR notation, or single addresses.
    pub networks: Vec<String>,
    pub client_flag: bool,
    /// More events of one customer in a minute than a person makes. Off without it.
    pub rate: Option<Rate>,
    #[serde(skip)]
    compiled: Compiled<Lists>,
}

impl Default for Bots {
    fn default() -> Self {
        Self {
            action: BotAction::Mark,
            user_agents: true,
            patterns: Vec::new(),
            not_bots: Vec::new(),
            networks: Vec::new(),
            client_flag: true,
            rate: None,
            compiled: Compiled::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BotAction {
    /// The event stays, with its reasons in `bot`.
    #[default]
    Mark,
    /// The event becomes a dead letter of kind policy, rule `bot`.
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Events of one customer in one minute of event time.
    pub per_minute: u32,
    #[serde(default)]
    pub action: BotAction,
}

#[derive(Debug)]
struct Lists {
    bots: RegexSet,
    not_bots: RegexSet,
    networks: Vec<IpNet>,
}

/// A compiled list may take this much memory, and a search over it stays linear in the text.
const PATTERN_BYTES: usize = 4 << 20;
const PATTERNS: usize = 1_000;
/// They are looked through one by one for every event with an address.
const NETWORKS: usize = 1_000;

impl Bots {
    /// Whether one of the policy's own patterns knows the user agent as a bot.
    pub fn knows(&self, user_agent: &str) -> bool {
        !self.patterns.is_empty() && self.lists().bots.is_match(user_agent)
    }

    /// Whether the policy says that this user agent is no bot, whatever lists say.
    pub fn clears(&self, user_agent: &str) -> bool {
        !self.not_bots.is_empty() && self.lists().not_bots.is_match(user_agent)
    }

    /// Whether the address is in one of the policy's networks.
    pub fn holds(&self, address: IpAddr) -> bool {
        !self.networks.is_empty() && self.lists().networks.iter().any(|net| net.contains(&address))
    }

    /// What does not parse never gets here: [`Self::check`] refuses the policy.
    fn lists(&self) -> &Lists {
        self.compiled.get(|| Lists {
            bots: set(&self.patterns).unwrap_or_else(|_| RegexSet::empty()),
            not_bots: set(&self.not_bots).unwrap_or_else(|_| RegexSet::empty()),
            networks: self.networks.iter().filter_map(|net| network(net)).collect(),
        })
    }

    /// What is wrong with the section: the path within it, and what would be right.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        for (name, patterns) in [("patterns", &self.patterns), ("not_bots", &self.not_bots)] {
            if patterns.len() > PATTERNS {
                mistakes.push((name.to_owned(), format!("may hold {PATTERNS} patterns, holds {}", patterns.len())));
                continue;
            }
            let mut each_fine = true;
            for (i, pattern) in patterns.iter().enumerate() {
                let problem = if pattern.is_empty() {
                    Some("is empty and would match everything".to_owned())
                } else {
                    set(std::slice::from_ref(pattern))
                        .err()
                        .map(|error| format!("is no regular expression: {}", one_line(&error)))
                };
                if let Some(problem) = problem {
                    each_fine = false;
                    mistakes.push((format!("{name}[{i}]"), problem));
                }
            }
            if each_fine && set(patterns).is_err() {
                mistakes.push((name.to_owned(), "is too large to compile; use fewer or simpler patterns".to_owned()));
            }
        }
        for (i, net) in self.networks.iter().enumerate() {
            if network(net).is_none() {
                mistakes.push((
                    format!("networks[{i}]"),
                    format!("{net:?} must be a network like 203.0.113.0/24 or 2001:db8::/32, or an address"),
                ));
            }
        }
        if self.networks.len() > NETWORKS {
            mistakes
                .push(("networks".to_owned(), format!("may hold {NETWORKS} networks, holds {}", self.networks.len())));
        }
        if let Some(rate) = self.rate
            && rate.per_minute == 0
        {
            mistakes
                .push(("rate.per_minute".to_owned(), "must be 1 or more; leave rate out to switch it off".to_owned()));
        }
        mistakes
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn set(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns).case_insensitive(true).size_limit(PATTERN_BYTES).build()
}

/// The parser draws the pattern over several lines; the last one says what is wrong.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bots(yaml: &str) -> Bots {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn patterns_and_networks_are_asked_as_they_are_written() {
        let rules = bots(
            "{action: refuse, patterns: ['^acme-probe/', uptime], not_bots: ['^OurApp/'], \
             networks: [203.0.113.0/24, '2001:db8::/32', 198.51.100.7], rate: {per_minute: 600}}",
        );
        assert_eq!(rules.check(), []);
        assert!(rules.knows("ACME-probe/1") && rules.knows("x uptime") && !rules.knows("the acme-probe/1"));
        assert!(rules.clears("ourapp/2") && !rules.clears("x"));
        for (address, inside) in
            [("203.0.113.9", true), ("198.51.100.7", true), ("198.51.100.8", false), ("2001:db8::1", true)]
        {
            assert_eq!(rules.holds(address.parse().unwrap()), inside, "{address}");
        }
        assert_eq!(rules.rate, Some(Rate { per_minute: 600, action: BotAction::Mark }));
        let default = Bots::default();
        assert!(!default.knows("x") && !default.clears("x") && !default.holds("203.0.113.9".parse().unwrap()));
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let rules =
            bots("{patterns: ['(', ''], not_bots: ['['], networks: [203.0.113.0/33, host], rate: {per_minute: 0}}");
        let places: Vec<String> = rules.check().into_iter().map(|(place, _)| place).collect();
        assert_eq!(
            places,
            ["patterns[0]", "patterns[1]", "not_bots[0]", "networks[0]", "networks[1]", "rate.per_minute"]
        );
        assert!(rules.check().iter().all(|(_, reason)| !reason.contains('\n')), "one line each");
    }

    #[test]
    fn a_pattern_that_would_take_too_much_memory_is_refused() {
        let rules = Bots { patterns: vec!["(a{500}){500}".into()], ..Bots::default() };
        assert_eq!(rules.check().len(), 1);
    }
}
