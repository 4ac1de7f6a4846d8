//! What a person does about a dead letter, by the rule that refused it.

use rapport_proto::events::{DeadLetter, dead_letter::Kind};

/// One sentence, or two.
pub fn hint(letter: &DeadLetter) -> String {
    if letter.withheld {
        return "nothing: the customer agreed to no purpose, so the original was not kept".to_owned();
    }
    let field = if letter.field.is_empty() { "the record" } else { letter.field.as_str() };
    let (rule, tenant) = (letter.rule.as_str(), letter.tenant.as_str());
    let policy = format!("the policy {tenant}.yaml (rapportctl policy check tells its mistakes)");
    match (rule.split(':').next().unwrap_or_default(), letter.kind()) {
        ("plan", _) if rule == "plan:unplanned" => {
            format!("give this type a plan in {policy}, or allow types without one; then replay")
        }
        ("plan", _) => format!("send {field} as the plan says, or change the plan in {policy}; then replay"),
        ("normalise", _) => {
            format!("send {field} as a number, or take it out of normalise.numbers in {policy}; then replay")
        }
        ("time", _) => format!("look at the sender's clock, or change the section time of {policy}; then replay"),
        ("bot", _) => {
            format!(
                "if this is no machine, name it in bots.not_bots of {policy}, or let it be marked only; then replay"
            )
        }
        ("consent", _) => format!("if it may be used, change the section consent of {policy}; then replay"),
        (_, Kind::Policy) => format!("if it should pass, change {policy}; then replay"),
        (_, Kind::Decode) => "mend the sender: the bytes are not what content-type says. This record passes only when \
                              a newer cleaner reads its format"
            .to_owned(),
        (_, Kind::Schema) => format!("send {field} right; this record itself stays wrong"),
        (_, Kind::Size) => format!("send less in {field}; this record itself stays too large"),
        (_, Kind::Identity) => format!(
            "send a real id in {field}: see what the client sends before the customer is known. This record itself \
             stays nobody's"
        ),
        (_, Kind::Internal) => {
            "report it with this page: the fault is the cleaner's. Replay once it is mended".to_owned()
        }
        (_, Kind::Unspecified) => "a newer version wrote this letter: use the rapportctl of that version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 7] =
        [Kind::Unspecified, Kind::Decode, Kind::Schema, Kind::Size, Kind::Identity, Kind::Policy, Kind::Internal];

    #[test]
    fn every_kind_and_rule_has_a_hint_of_its_own() {
        let with = |kind: Kind, rule: &str| {
            hint(&DeadLetter {
                kind: kind.into(),
                rule: rule.into(),
                tenant: "acme".into(),
                field: "value".into(),
                ..DeadLetter::default()
            })
        };
        let mut hints: Vec<String> = KINDS.iter().map(|kind| with(*kind, "")).collect();
        for rule in ["plan:purchase", "plan:unplanned", "normalise", "time:future", "bot", "consent"] {
            let hint = with(Kind::Policy, rule);
            assert!(hint.contains("acme.yaml"), "{rule}: {hint}");
            hints.push(hint);
        }
        let all = hints.len();
        hints.sort();
        hints.dedup();
        assert_eq!(hints.len(), all);
    }

    #[test]
    fn of_a_withheld_letter_nothing_can_be_done() {
        for kind in KINDS {
            let letter = DeadLetter { kind: kind.into(), withheld: true, ..DeadLetter::default() };
            assert!(hint(&letter).starts_with("nothing"));
        }
    }
}
