//! What a customer agreed to, and what an event keeps of it. Fails closed: a decision that cannot be
//! read is a refusal, and a field that no rule names goes.

use prost_types::{Struct, Value, value::Kind};
use rapport_events::FieldError;
use rapport_policy::{Consent, Decision, Fields, Purpose};
use rapport_proto::events::{Event, Observation};

use crate::properties;

/// The customer of an event that nobody agreed to: all of a tenant's share it.
pub const NOBODY: &str = "anon";

/// One bit per purpose, in the order of the policy's names.
pub type Purposes = u32;

/// A customer's standing decisions about a policy's purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    pub decided: Purposes,
    pub agreed: Purposes,
}

impl Standing {
    /// This one's decisions, and the other's where this one has none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            decided: self.decided | other.decided,
            agreed: (self.agreed & self.decided) | (other.agreed & other.decided & !self.decided),
        }
    }
}

/// What the event itself says, then the customer's standing decision, then the policy's default;
/// each purpose for itself.
pub fn agreed(event: &Event, rules: &Consent, standing: Standing) -> Purposes {
    let own = Own::of(event);
    rules.purposes.iter().enumerate().take(32).fold(0, |agreed, (n, (name, purpose))| {
        let bit = 1 << n;
        let stands = (standing.decided & bit != 0).then_some(standing.agreed & bit != 0);
        let yes = own.decision(name, purpose).or(stands).unwrap_or(rules.default == Decision::Allow);
        if yes { agreed | bit } else { agreed }
    })
}

/// What an event says about consent.
enum Own<'e> {
    Nothing,
    /// `properties.context.consent.categoryPreferences`.
    Categories(&'e Struct),
    /// Something stands there that is no decision.
    Unreadable,
}

impl<'e> Own<'e> {
    fn of(event: &'e Event) -> Self {
        match properties::at(event, &["context", "consent"]) {
            None | Some(Kind::NullValue(_)) => Self::Nothing,
            Some(Kind::StructValue(consent)) => {
                match consent.fields.get("categoryPreferences").map(|value| value.kind.as_ref()) {
                    None => Self::Nothing,
                    Some(Some(Kind::StructValue(categories))) => Self::Categories(categories),
                    Some(_) => Self::Unreadable,
                }
            }
            Some(_) => Self::Unreadable,
        }
    }

    fn decision(&self, name: &str, purpose: &Purpose) -> Option<bool> {
        let categories = match self {
            Self::Nothing => return None,
            Self::Unreadable => return Some(false),
            Self::Categories(categories) => categories,
        };
        let of = |category: &str| {
            let value = categories.fields.get(category)?;
            Some(matches!(value.kind, Some(Kind::BoolValue(true))))
        };
        if purpose.granted_by.is_empty() {
            return of(name);
        }
        purpose.granted_by.iter().filter_map(|category| of(category)).reduce(|all, this| all && this)
    }
}

/// The names of the purposes that are agreed to.
pub fn names(rules: &Consent, agreed: Purposes) -> Vec<String> {
    rules.purposes.keys().enumerate().filter(|(n, _)| agreed & (1 << n) != 0).map(|(_, name)| name.clone()).collect()
}

/// Why nothing of an event is kept.
pub fn refusal(rules: &Consent) -> FieldError {
    let purposes: Vec<&str> = rules.purposes.keys().map(String::as_str).collect();
    FieldError::policy(
        "properties.context.consent",
        format!("the customer has agreed to none of these: {}; nothing of the event is kept", purposes.join(", ")),
    )
    .by_rule("consent")
}

/// Leaves what says nothing of anybody: the event's id, type, time and item. The id is the caller's
/// to hide, since duplicates are still to be told.
pub fn strip(event: &mut Event) {
    *event = Event {
        event_id: std::mem::take(&mut event.event_id),
        r#type: std::mem::take(&mut event.r#type),
        event_time: event.event_time,
        item_id: std::mem::take(&mut event.item_id),
        customer_id: NOBODY.to_owned(),
        ..Event::default()
    };
}

/// Removes every field that the purposes agreed to do not cover, and from `observations` what was
/// seen in such a field. Returns whether anything was removed.
pub fn cut(event: &mut Event, observations: &mut Vec<Observation>, rules: &Consent, agreed: Purposes) -> bool {
    let cover = Cover::of(rules, agreed);
    if cover.everything() {
        return false;
    }
    let mut removed = false;
    for (path, text) in
        [("item_id", &mut event.item_id), ("category", &mut event.category), ("currency", &mut event.currency)]
    {
        if !text.is_empty() && !cover.keeps(path) {
            text.clear();
            removed = true;
        }
    }
    if event.value.is_some() && !cover.keeps("value") {
        event.value = None;
        removed = true;
    }
    for (name, slot) in [("properties", &mut event.properties), ("traits", &mut event.traits)] {
        let Some(object) = slot else { continue };
        let mut path = name.to_owned();
        if cover.ends_at(&path) {
            if !cover.keeps(&path) {
                removed |= !object.fields.is_empty();
                *slot = None;
            }
            continue;
        }
        removed |= cut_object(object, &mut path, &cover);
        if object.fields.is_empty() {
            *slot = None;
        }
    }
    if removed {
        observations.retain(|seen| cover.keeps_whole(&seen.field));
    }
    removed
}

/// Whether the purposes agreed to cover a field.
pub fn keeps(rules: &Consent, agreed: Purposes, path: &str) -> bool {
    Cover::of(rules, agreed).keeps(path)
}

fn cut_object(object: &mut Struct, path: &mut String, cover: &Cover<'_>) -> bool {
    let (length, mut removed) = (path.len(), false);
    object.fields.retain(|name, value| {
        path.push('.');
        path.push_str(name);
        let stays = cut_value(value, path, cover, &mut removed);
        path.truncate(length);
        removed |= !stays;
        stays
    });
    removed
}

/// Whether anything of the value stays. Elements of a list stand at the list's path.
fn cut_value(value: &mut Value, path: &mut String, cover: &Cover<'_>, removed: &mut bool) -> bool {
    if cover.ends_at(path) {
        return cover.keeps(path);
    }
    match &mut value.kind {
        Some(Kind::StructValue(inner)) => {
            *removed |= cut_object(inner, path, cover);
            !inner.fields.is_empty() || cover.keeps(path)
        }
        Some(Kind::ListValue(list)) => {
            list.values.retain_mut(|element| {
                let stays = cut_value(element, path, cover, removed);
                *removed |= !stays;
                stays
            });
            !list.values.is_empty() || cover.keeps(path)
        }
        _ => cover.keeps(path),
    }
}

/// Which fields the purposes agreed to cover. The rule that names a field most closely decides; of
/// two that are equally close, the one that keeps it.
struct Cover<'r> {
    kept: Vec<&'r str>,
    refused: Vec<&'r str>,
    /// Whether a purpose agreed to covers whatever no other names.
    rest: bool,
}

impl<'r> Cover<'r> {
    fn of(rules: &'r Consent, agreed: Purposes) -> Self {
        let mut cover =
            Self { kept: rules.always.iter().map(String::as_str).collect(), refused: Vec::new(), rest: false };
        for (n, purpose) in rules.purposes.values().enumerate() {
            match (&purpose.fields, agreed & (1 << n) != 0) {
                (Fields::All, true) => cover.rest = true,
                (Fields::All, false) => {}
                (Fields::Named(paths), true) => cover.kept.extend(paths.iter().map(String::as_str)),
                (Fields::Named(paths), false) => cover.refused.extend(paths.iter().map(String::as_str)),
            }
        }
        cover
    }

    fn everything(&self) -> bool {
        self.rest && self.refused.is_empty()
    }

    fn keeps(&self, path: &str) -> bool {
        let closest = |rules: &[&str]| rules.iter().filter(|rule| covers(rule, path)).map(|rule| rule.len()).max();
        match (closest(&self.kept), closest(&self.refused)) {
            (None, None) => self.rest,
            (kept, refused) => kept >= refused,
        }
    }

    /// Whether no rule names anything below.
    fn ends_at(&self, path: &str) -> bool {
        !self.kept.iter().chain(&self.refused).any(|rule| rule.len() > path.len() && covers(path, rule))
    }

    /// Whether the field of an observation stays with all that is below it.
    fn keeps_whole(&self, field: &str) -> bool {
        // A breach names an element of a list by its number; our paths do not.
        let without_numbers: Vec<&str> =
            field.split('.').filter(|step| !step.bytes().all(|b| b.is_ascii_digit())).collect();
        let always = matches!(field, "type" | "event_time");
        always || [field, &without_numbers.join(".")].iter().all(|path| self.keeps(path) && self.ends_at(path))
    }
}

/// Whether `path` is `rule` or stands below it.
fn covers(rule: &str, path: &str) -> bool {
    path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use rapport_events::json;
    use serde_json::json;

    use super::*;

    const RULES: &str = "
mode: required
purposes:
  ads: {granted_by: [Advertising], fields: [properties.context.campaign, traits.segment]}
  analytics: {granted_by: [Performance, Functional], fields: all}
  service: {fields: [traits.plan, item_id]}
always: [category]
";
    const ADS: Purposes = 1;
    const ANALYTICS: Purposes = 2;
    const SERVICE: Purposes = 4;

    fn rules(text: &str) -> Consent {
        rapport_policy::Policy::from_yaml("acme", &format!("version: 1\nconsent:{}", text.replace('\n', "\n  ")))
            .unwrap()
            .consent
    }

    fn event() -> Event {
        let object = |value| Some(json::to_struct("x", value).unwrap());
        Event {
            r#type: "view".into(),
            item_id: "50".into(),
            category: "shoes".into(),
            value: Some(1.5),
            properties: object(json!({
                "price": 5.0, "context": {"campaign": {"name": "may"}, "ip": "1.2.3.4"}, "list": [{"a": 1.0}],
            })),
            traits: object(json!({"plan": "gold", "segment": "s1", "age": 40.0})),
            ..Event::default()
        }
    }

    fn left(agreed: Purposes) -> (serde_json::Value, serde_json::Value, Event) {
        let mut event = event();
        cut(&mut event, &mut Vec::new(), &rules(RULES), agreed);
        let object = |object: &Option<Struct>| object.as_ref().map(json::from_struct).unwrap_or_default();
        (object(&event.properties), object(&event.traits), event)
    }

    #[test]
    fn all_keeps_everything_but_what_a_refused_purpose_names() {
        let (properties, traits, event) = left(ANALYTICS | SERVICE);
        assert_eq!(properties, json!({"price": 5.0, "context": {"ip": "1.2.3.4"}, "list": [{"a": 1.0}]}));
        assert_eq!(traits, json!({"plan": "gold", "age": 40.0}));
        assert_eq!((event.item_id.as_str(), event.value), ("50", Some(1.5)));
        let (properties, ..) = left(ANALYTICS | ADS | SERVICE);
        assert_eq!(properties["context"]["campaign"]["name"], "may");
    }

    #[test]
    fn without_all_only_what_is_named_stays() {
        let (properties, traits, event) = left(SERVICE);
        assert_eq!((properties, traits), (json!(null), json!({"plan": "gold"})));
        assert_eq!((event.item_id.as_str(), event.category.as_str(), event.value), ("50", "shoes", None));
        let (properties, traits, event) = left(ADS);
        assert_eq!(properties, json!({"context": {"campaign": {"name": "may"}}}));
        assert_eq!(traits, json!({"segment": "s1"}));
        assert_eq!(event.item_id, "");
    }

    fn decided(consent: serde_json::Value, standing: Standing) -> Purposes {
        let properties = json::to_struct("properties", json!({"context": {"consent": consent}})).unwrap();
        agreed(&Event { properties: Some(properties), ..Event::default() }, &rules(RULES), standing)
    }

    #[test]
    fn the_event_decides_before_the_customer_and_the_customer_before_the_default() {
        let none = Standing::default();
        assert_eq!(decided(json!({}), none), 0);
        assert_eq!(decided(json!({"categoryPreferences": {"Performance": true}}), none), ANALYTICS);
        assert_eq!(decided(json!({"categoryPreferences": {"service": true}}), none), SERVICE, "its own name");
        let standing = Standing { decided: ADS | ANALYTICS, agreed: ADS };
        assert_eq!(decided(json!({}), standing), ADS);
        assert_eq!(
            decided(json!({"categoryPreferences": {"Advertising": false, "Functional": true}}), standing),
            ANALYTICS
        );
        let mut open = rules(RULES);
        open.default = Decision::Allow;
        assert_eq!(agreed(&Event::default(), &open, standing), ADS | SERVICE);
    }

    #[test]
    fn what_is_no_decision_is_a_refusal() {
        let all = Standing { decided: 7, agreed: 7 };
        for consent in [json!("yes"), json!(true), json!([1]), json!({"categoryPreferences": "all"})] {
            assert_eq!(decided(consent.clone(), all), 0, "{consent}");
        }
        let text = json!({"categoryPreferences": {"Performance": "true"}});
        assert_eq!(decided(text, Standing::default()), 0);
        let torn = json!({"categoryPreferences": {"Performance": true, "Functional": false}});
        assert_eq!(decided(torn, Standing::default()), 0, "one refused category refuses");
    }

    #[test]
    fn a_known_customer_decides_before_the_visitor_that_it_was() {
        let customer = Standing { decided: 1, agreed: 0 };
        let visitor = Standing { decided: 3, agreed: 3 };
        assert_eq!(customer.or(visitor), Standing { decided: 3, agreed: 2 });
    }

    #[test]
    fn an_observation_about_a_removed_field_goes_with_it() {
        let seen = |field: &str| Observation { field: field.into(), ..Observation::default() };
        let mut observations: Vec<Observation> =
            ["properties.context.campaign.name", "properties.context", "properties.list.0.a", "event", "event_time"]
                .map(seen)
                .into();
        cut(&mut event(), &mut observations, &rules(RULES), ANALYTICS);
        let fields: Vec<&str> = observations.iter().map(|o| o.field.as_str()).collect();
        assert_eq!(fields, ["properties.list.0.a", "event", "event_time"]);
    }

    #[test]
    fn the_closest_rule_decides() {
        let rules = rules(
            "
mode: required
purposes:
  a: {fields: [properties, traits.x.y]}
  b: {fields: [properties.secret, traits]}
",
        );
        let cover = Cover::of(&rules, 1);
        assert!(cover.keeps("properties.price") && !cover.keeps("properties.secret.name"));
        assert!(cover.keeps("traits.x.y.z") && !cover.keeps("traits.x"));
    }
}
