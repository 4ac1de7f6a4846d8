//! Whether a machine made the event: its user agent, its address, its own word, its rate.

pub mod rate;

use rapport_policy::Bots;

use crate::enrich::{Context, user_agent};

/// Why the event is taken for a machine's, as [`rapport_proto::events::Bot`] carries it; empty when
/// it is not. Any one of them is enough. `rate` is [`rate::Outliers`]' to say.
pub fn reasons(context: &Context<'_>, rules: &Bots) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    let agent = context.user_agent();
    if !agent.is_empty() {
        let listed = rules.knows(agent) || (rules.user_agents && user_agent::is_bot(agent));
        if listed && !rules.clears(agent) {
            reasons.push("user_agent");
        }
    }
    if !rules.networks.is_empty() && context.ip().is_some_and(|ip| rules.holds(ip)) {
        reasons.push("ip");
    }
    if rules.client_flag && context.says_bot() {
        reasons.push("client");
    }
    reasons
}

#[cfg(test)]
mod tests {
    use rapport_events::json::to_struct;
    use rapport_proto::events::Event;
    use serde_json::{Value, json};

    use super::*;

    fn found(context: Value, rules: &Bots) -> Vec<&'static str> {
        let properties = to_struct("properties", json!({ "context": context })).unwrap();
        let event = Event { properties: Some(properties), ..Event::default() };
        reasons(&Context::of(&event), rules)
    }

    #[test]
    fn any_sign_of_a_machine_is_a_reason_and_people_have_none() {
        let mut rules = Bots::default();
        rules.networks = vec!["203.0.113.0/24".into(), "2001:db8::/32".into()];
        let person = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/17.5 Mobile/15E148 Safari/604.1";
        assert!(found(json!({"userAgent": person, "ip": "198.51.100.7", "bot": false}), &rules).is_empty());
        assert!(found(json!({}), &rules).is_empty());
        assert_eq!(found(json!({"userAgent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}), &rules), ["user_agent"]);
        assert_eq!(found(json!({"ip": "203.0.113.9"}), &rules), ["ip"]);
        assert_eq!(found(json!({"ip": "2001:db8::1"}), &rules), ["ip"]);
        assert_eq!(found(json!({"userAgent": person, "bot": true}), &rules), ["client"]);
    }

    #[test]
    fn a_policy_adds_patterns_and_clears_its_own_software() {
        let mut rules = Bots::default();
        rules.patterns = vec!["^acme-probe/".into()];
        rules.not_bots = vec!["Acme-Monitor".into()];
        assert_eq!(found(json!({"userAgent": "ACME-Probe/2"}), &rules), ["user_agent"]);
        assert!(found(json!({"userAgent": "acme-monitor Googlebot/2.1"}), &rules).is_empty());
        let mut off = Bots::default();
        (off.user_agents, off.client_flag) = (false, false);
        assert!(found(json!({"userAgent": "Googlebot/2.1", "bot": true}), &off).is_empty());
    }
}
