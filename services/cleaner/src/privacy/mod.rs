//! Personal data leaves the cleaner hashed, masked, cut or not at all, before anything else sees it.
//!
//! What is done with a value is decided by the first that speaks: the policy's path, the policy's
//! name, a built-in name (`email`, `billing_phone`, `手机号`), and what the value looks like, whole or
//! in a text. Customer ids have a rule of their own that readers share:
//! [`Pseudonymiser::customer_id`].

mod detect;
mod names;
mod stand_in;

use std::collections::BTreeMap;

use prost_types::{Value, value::Kind as ValueKind};
use rapport_events::{Tenant, pseudonym::Pseudonymiser};
use rapport_policy::{Action, PathNode, Privacy, plain_name};
use rapport_proto::events::{Campaign, Event, Referrer};

use self::{
    detect::{Found, find, is_card_number},
    stand_in::Keyed,
};

/// Protects the ids, `properties` and `traits` of an event by the tenant's policy.
pub fn protect(event: &mut Event, tenant: &Tenant, keyed: &Pseudonymiser, policy: &Privacy) {
    for id in [&mut event.customer_id, &mut event.anonymous_id] {
        protect_id(id, tenant, keyed);
    }
    let guard = Guard { keyed: Keyed { tenant, key: keyed }, policy };
    for (root, fields) in [("properties", &mut event.properties), ("traits", &mut event.traits)] {
        if let Some(object) = fields {
            let place = Place { traits: root == "traits", level: 0, name: root };
            let nodes: Vec<&PathNode> = policy.paths().into_iter().flat_map(|paths| paths.next(root)).collect();
            guard.object(&mut object.fields, place, &nodes, Rule::Looks);
        }
    }
}

/// A customer or anonymous id in its stored form, as [`Pseudonymiser::customer_id`] has it; `anon:`
/// before an id stays.
pub fn protect_id(id: &mut String, tenant: &Tenant, keyed: &Pseudonymiser) {
    let anonymous = id.strip_prefix(crate::identity::ANONYMOUS_PREFIX);
    let Some(personal) = keyed.personal_id(tenant, anonymous.unwrap_or(id)) else { return };
    *id = match anonymous {
        Some(_) => format!("{}{personal}", crate::identity::ANONYMOUS_PREFIX),
        None => personal,
    };
}

/// Protects what was read from an address before it was protected itself: a campaign's name may
/// hold an e-mail address, and so may a search term.
pub fn protect_visit(
    referrer: Option<&mut Referrer>,
    campaign: Option<&mut Campaign>,
    tenant: &Tenant,
    keyed: &Pseudonymiser,
    policy: &Privacy,
) {
    let guard = Guard { keyed: Keyed { tenant, key: keyed }, policy };
    if let Some(referrer) = referrer {
        guard.text_alone(&mut referrer.term);
    }
    if let Some(c) = campaign {
        for text in [&mut c.source, &mut c.medium, &mut c.name, &mut c.term, &mut c.content] {
            guard.text_alone(text);
        }
    }
}

/// A text with more matches than this is a list of persons, and hashed as a whole: it bounds what
/// one event may cost.
const MATCHES: usize = 100;

/// What is done with a value, and who said so. The later ones give way to the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The policy, by path; holds for everything below.
    Path(Action),
    /// The policy, by name; holds for everything below.
    Name(Action),
    /// A built-in name: the detector that knows the value decides, else it is hashed.
    Personal,
    /// Nobody yet: what it looks like.
    Looks,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
struct Place<'e> {
    /// In a customer's traits, where `name` is a person's.
    traits: bool,
    /// 0 for `properties` and `traits` themselves.
    level: usize,
    /// The name of the field; a list's elements have the list's.
    name: &'e str,
}

struct Guard<'a> {
    keyed: Keyed<'a>,
    policy: &'a Privacy,
}

impl Guard<'_> {
    fn object(&self, fields: &mut BTreeMap<String, Value>, place: Place<'_>, nodes: &[&PathNode], above: Rule) {
        let mut dropped: Vec<String> = Vec::new();
        let mut renamed: Vec<(String, String)> = Vec::new();
        let in_context = place.level == 1 && !place.traits && place.name == "context";
        for (name, value) in fields.iter_mut() {
            if in_context && nodes.is_empty() && DESCRIPTIONS.contains(&name.as_str()) {
                continue;
            }
            let below: Vec<&PathNode> = nodes.iter().flat_map(|node| node.next(name)).collect();
            let rule = self.rule(name, place, &below, above);
            let traits = place.traits || (in_context && name == "traits");
            if !self.value(value, Place { traits, level: place.level + 1, name }, &below, rule) {
                dropped.push(name.clone());
            } else if rule == Rule::Looks && may_hold_person(name) {
                // A map of persons: `{"ann@example.com": 1}`.
                let mut protected = name.clone();
                if !self.text(&mut protected, "", true) {
                    dropped.push(name.clone());
                } else if protected != *name {
                    renamed.push((name.clone(), protected));
                }
            }
        }
        for name in dropped {
            fields.remove(&name);
        }
        for (name, protected) in renamed {
            if let Some(value) = fields.remove(&name) {
                fields.insert(protected, value);
            }
        }
    }

    fn rule(&self, name: &str, place: Place<'_>, below: &[&PathNode], above: Rule) -> Rule {
        if let Some(action) = below.iter().find_map(|node| node.action) {
            return Rule::Path(action);
        }
        if matches!(above, Rule::Path(_)) {
            return above;
        }
        if !self.policy.names.is_empty()
            && let Some(action) = self.policy.named(&plain_name(name))
        {
            return Rule::Name(action);
        }
        match above {
            Rule::Looks if self.policy.personal_names && names::is_personal(name, place.traits) => Rule::Personal,
            above => above,
        }
    }

    /// `false` when the value goes.
    fn value(&self, value: &mut Value, place: Place<'_>, nodes: &[&PathNode], rule: Rule) -> bool {
        if let Rule::Path(Action::Drop) | Rule::Name(Action::Drop) = rule {
            return false;
        }
        match &mut value.kind {
            Some(ValueKind::StringValue(text)) => self.leaf(text, place.name, rule),
            Some(ValueKind::NumberValue(number)) => {
                let Some(mut text) = self.number_as_text(*number, place.name, rule) else { return true };
                let stays = self.leaf(&mut text, place.name, rule);
                value.kind = Some(ValueKind::StringValue(text));
                stays
            }
            Some(ValueKind::StructValue(inner)) => {
                self.object(&mut inner.fields, place, nodes, rule);
                true
            }
            Some(ValueKind::ListValue(list)) => {
                let nodes: Vec<&PathNode> = nodes.iter().filter_map(|node| node.element()).collect();
                let rule = nodes.iter().find_map(|node| node.action).map_or(rule, Rule::Path);
                list.values.retain_mut(|v| self.value(v, place, &nodes, rule));
                true
            }
            Some(ValueKind::BoolValue(_) | ValueKind::NullValue(_)) | None => true,
        }
    }

    /// `false` when the value goes.
    fn leaf(&self, text: &mut String, name: &str, rule: Rule) -> bool {
        match rule {
            Rule::Path(action) | Rule::Name(action) => self.whole(text, action),
            Rule::Personal => self.personal(text),
            Rule::Looks => self.text(text, name, self.policy.free_text),
        }
    }

    /// One action for the whole value; the detector that knows it gives it its form.
    fn whole(&self, text: &mut String, action: Action) -> bool {
        if action == Action::Drop {
            return false;
        }
        if action == Action::Keep || text.is_empty() {
            return true;
        }
        let stand_in = match alone(text) {
            Some(found) => self.keyed.found(&found, text, action),
            None => self.keyed.whole(text, action),
        };
        if let Some(stand_in) = stand_in {
            *text = stand_in;
        }
        true
    }

    fn personal(&self, text: &mut String) -> bool {
        let known = if text.is_empty() { None } else { alone(text) };
        let action = known.map(|found| found.kind.action(&self.policy.detect)).filter(|action| *action != Action::Keep);
        self.whole(text, action.unwrap_or(Action::Hash))
    }

    /// Replaces what detectors find. `false` when the whole value was something that is dropped.
    fn text(&self, text: &mut String, name: &str, inside: bool) -> bool {
        let mut found = find(text);
        if found.is_empty() {
            return true;
        }
        if found.len() > MATCHES {
            *text = self.keyed.hash(text);
            return true;
        }
        let whole = found.len() == 1 && found[0].range == trimmed(text);
        if whole && found[0].kind.is_bare_number() && names::is_things_number(name) || !(whole || inside) {
            return true;
        }
        if whole && found[0].kind.action(&self.policy.detect) == Action::Drop {
            return false;
        }
        let mut out = String::with_capacity(text.len() + 40 * found.len());
        let mut from = 0;
        for one in found.drain(..) {
            let original = &text[one.range.clone()];
            if let Some(stand_in) = self.keyed.found(&one, original, one.kind.action(&self.policy.detect)) {
                out.push_str(&text[from..one.range.start]);
                out.push_str(&stand_in);
                from = one.range.end;
            }
        }
        if from > 0 {
            out.push_str(&text[from..]);
            *text = out;
        }
        true
    }

    /// A text that cannot go, only become empty.
    fn text_alone(&self, text: &mut String) {
        if !self.text(text, "", self.policy.free_text) {
            text.clear();
        }
    }

    /// A number's digits, where the number is not to stay one: under a rule, and a card's number.
    fn number_as_text(&self, number: f64, name: &str, rule: Rule) -> Option<String> {
        match rule {
            Rule::Path(Action::Keep) | Rule::Name(Action::Keep) => None,
            Rule::Path(_) | Rule::Name(_) | Rule::Personal => Some(number.to_string()),
            // Whole numbers are exact up to 2^53, which has 16 digits: a resident id of 18 is not
            // sent as a number, and any 11 digits may be an amount.
            Rule::Looks => {
                let long = (1e13..9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0;
                let digits = if long { number.to_string() } else { return None };
                let acts = self.policy.detect.card != Action::Keep;
                (acts && is_card_number(&digits) && !names::is_things_number(name)).then_some(digits)
            }
        }
    }
}

/// Fields of the context that describe software and its settings, never a person; the longest texts
/// of most events.
const DESCRIPTIONS: &[&str] = &["userAgent", "library", "locale", "timezone", "screen", "consent", "os", "bot"];

/// A field's own name is looked into only when it could hold an address or a number.
fn may_hold_person(name: &str) -> bool {
    name.len() >= 6 && (name.contains('@') || name.bytes().filter(u8::is_ascii_digit).count() >= 7)
}

/// The match that is the whole text, but for outer white space.
fn alone(text: &str) -> Option<Found> {
    let mut found = find(text);
    let one = found.pop()?;
    (found.is_empty() && one.range == trimmed(text)).then_some(one)
}

fn trimmed(text: &str) -> std::ops::Range<usize> {
    let start = text.len() - text.trim_start().len();
    start..start + text.trim().len()
}

#[cfg(test)]
mod tests;
