//! Consent, with what customers decided before.

use rapport_events::{FieldError, Tenant};
use rapport_policy::{Policy, Without};
use rapport_proto::events::{Event, Observation};
use rdkafka::message::Headers;

use super::{Settings, contained};
use crate::{
    RawRecord,
    consent::{self, Purposes},
    dead_letter::Refusal,
    decode, identity,
    step_counts::Outcome,
};

/// What may be used of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreed {
    /// The policy asks nobody.
    NotAsked,
    To(Purposes),
    /// To nothing: what is left is nobody's.
    Stripped,
}

/// Consent: removes what the customer did not agree to.
///
/// # Errors
/// Rule `consent`, when that is everything and the policy withholds such events.
pub(super) fn ask(
    settings: &Settings,
    event: &mut Event,
    seen: &mut Vec<Observation>,
    tenant: &Tenant,
    policy: &Policy,
) -> Result<(Outcome, Agreed), FieldError> {
    let rules = &policy.consent;
    if !rules.required() {
        return Ok((Outcome::Passed, Agreed::NotAsked));
    }
    let agreed = agreed(settings, event, tenant, policy);
    if agreed == 0 {
        if rules.without == Without::Withhold {
            return Err(consent::refusal(rules));
        }
        consent::strip(event);
        // Clients put customers' ids into event ids; duplicates can still be told by the hash.
        event.event_id = settings.pseudonymiser.pseudonym(tenant, &event.event_id);
        seen.clear();
        return Ok((Outcome::Changed, Agreed::Stripped));
    }
    let cut = consent::cut(event, seen, rules, agreed);
    Ok((if cut { Outcome::Changed } else { Outcome::Passed }, Agreed::To(agreed)))
}

/// The purposes that the event's customer agreed to: the customer's decision before the visitor's
/// that it was.
fn agreed(settings: &Settings, event: &Event, tenant: &Tenant, policy: &Policy) -> Purposes {
    let keyed = &settings.pseudonymiser;
    let of = |id: String| settings.decisions.of(tenant, &id, &policy.consent);
    let [customer, visitor] = [event.customer_id.trim(), event.anonymous_id.trim()];
    let mut standing = consent::Standing::default();
    if !customer.is_empty() {
        standing = of(identity::protected(customer, tenant, keyed));
    }
    if !visitor.is_empty() {
        standing = standing.or(of(identity::anonymous(visitor, tenant, keyed)));
    }
    consent::agreed(event, &policy.consent, standing)
}

/// Whether a dead letter may hold its record. Where consent is required, a record that any step
/// refuses is kept only if its customer agreed to something; one that cannot be read is kept, since
/// nobody can tell whose it is.
pub(super) fn may_be_kept<H: Headers>(
    settings: &Settings,
    record: &RawRecord<'_, H>,
    tenant: &Tenant,
    policy: &Policy,
    refusal: &Refusal,
) -> bool {
    if !policy.consent.required() {
        return true;
    }
    if refusal.error.rule.as_deref() == Some("consent") {
        return false;
    }
    // Read again, and contained again: the refusal may have been a fault.
    contained(|| match decode::event(record) {
        Ok(event) => agreed(settings, &event, tenant, policy) != 0,
        Err(_) => true,
    })
    .unwrap_or(false)
}
