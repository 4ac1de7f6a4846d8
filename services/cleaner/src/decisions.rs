//! The standing decisions of customers, from the privacy topic, in bounded memory.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use prost::Message as _;
use rapport_events::Tenant;
use rapport_kafka::{KafkaArgs, compacted};
use rapport_policy::Consent;
use rapport_proto::privacy;
use rapport_runtime::{Component, Lifecycle, OwnedThread};
use xxhash_rust::xxh3::xxh3_128;

use crate::consent::Standing;

/// A tenant's purposes: one bit each. A policy may name 32; decisions about older ones stay on the
/// topic.
const PURPOSES: usize = 64;

/// What customers decided. Shared by the thread that follows the topic and the steps.
#[derive(Debug)]
pub struct Decisions {
    known: RwLock<Known>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Known {
    /// By a hash of the topic's key, since ids are long: 32 bytes a customer, about 50 with the
    /// table around them.
    customers: HashMap<u128, Bits>,
    /// The names of each tenant's purposes; a purpose's bit is its place.
    tenants: HashMap<Box<str>, Vec<Box<str>>>,
    /// Somebody's decision had no place: from then on who is not known may have refused.
    full: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bits {
    decided: u64,
    agreed: u64,
}

/// A record of the privacy topic that cannot be used, and why.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("the value is no rapport.privacy.v1.Consent: {0}")]
    Value(#[from] prost::DecodeError),
    #[error("the key is not the value's tenant/customer_id")]
    Key,
    #[error("more than {PURPOSES} purposes of tenant {0}; the ones beyond count as refused")]
    Purposes(String),
    #[error(
        "more than {0} customers have decided; who is not known counts as having refused. Raise --consent-customers"
    )]
    Customers(usize),
}

impl Decisions {
    /// Of at most `limit` customers.
    pub fn of_at_most(limit: usize) -> Self {
        Self { known: RwLock::default(), limit }
    }

    /// Reads the privacy topic and follows it. `component` is ready when everything that was there
    /// at the start has been read.
    ///
    /// # Errors
    /// No thread, or a setting that librdkafka does not take.
    pub(crate) fn follow(
        self: &Arc<Self>,
        kafka: &KafkaArgs,
        lifecycle: &Lifecycle,
        component: Component,
    ) -> Result<OwnedThread, rapport_kafka::Error> {
        let known = Arc::clone(self);
        let mut full_told = false;
        compacted::follow(kafka, &kafka.topics().privacy, lifecycle, component, move |record| {
            match known.apply(record.key, record.value) {
                Ok(()) => {}
                Err(Unusable::Customers(_)) if full_told => {}
                Err(error) => {
                    full_told |= matches!(error, Unusable::Customers(_));
                    metrics::counter!("rapport_cleaner_unusable_decisions_total").increment(1);
                    tracing::error!(%error, partition = record.partition, offset = record.offset, "decision about consent");
                }
            }
        })
    }

    /// Takes one record of the topic. No value: the decision was taken back.
    pub(crate) fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), Unusable> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Some(value) = value else {
            known.customers.remove(&xxh3_128(key));
            return Ok(());
        };
        let consent = privacy::Consent::decode(value)?;
        if key != format!("{}/{}", consent.tenant, consent.customer_id).as_bytes() {
            return Err(Unusable::Key);
        }
        let known = &mut *known;
        if known.customers.len() >= self.limit && !known.customers.contains_key(&xxh3_128(key)) {
            known.full = true;
            return Err(Unusable::Customers(self.limit));
        }
        let names = known.tenants.entry(consent.tenant.as_str().into()).or_default();
        let (mut bits, mut beyond) = (Bits { decided: 0, agreed: 0 }, false);
        for (purpose, agreed) in &consent.purposes {
            let place = names.iter().position(|name| **name == **purpose).or_else(|| {
                (names.len() < PURPOSES).then(|| {
                    names.push(purpose.as_str().into());
                    names.len() - 1
                })
            });
            match place {
                Some(place) => {
                    bits.decided |= 1 << place;
                    bits.agreed |= u64::from(*agreed) << place;
                }
                None => beyond = true,
            }
        }
        known.customers.insert(xxh3_128(key), bits);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("rapport_cleaner_consent_customers").set(known.customers.len() as f64);
        if beyond { Err(Unusable::Purposes(consent.tenant)) } else { Ok(()) }
    }

    /// What a customer, by its id as clean events carry it, decided about the purposes of a policy.
    pub fn of(&self, tenant: &Tenant, customer: &str, rules: &Consent) -> Standing {
        let key = xxh3_128(rapport_events::event_key(tenant, customer).as_bytes());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(bits) = known.customers.get(&key) else {
            // Fails closed: the decision that found no place may have been this customer's refusal.
            return if known.full { Standing { decided: u32::MAX, agreed: 0 } } else { Standing::default() };
        };
        let names = known.tenants.get(tenant.as_str()).map(Vec::as_slice).unwrap_or_default();
        let mut standing = Standing::default();
        for (n, purpose) in rules.purposes.keys().take(32).enumerate() {
            match names.iter().position(|name| **name == **purpose) {
                Some(place) if bits.decided & (1 << place) != 0 => {
                    standing.decided |= 1 << n;
                    standing.agreed |= u32::from(bits.agreed & (1 << place) != 0) << n;
                }
                // A purpose that found no place: it may have been refused.
                None if names.len() >= PURPOSES => standing.decided |= 1 << n,
                Some(_) | None => {}
            }
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Tenant {
        Tenant::parse("acme").unwrap()
    }

    fn rules() -> Consent {
        let text = "version: 1\nconsent: {mode: required, purposes: {ads: {}, analytics: {}}}\n";
        rapport_policy::Policy::from_yaml("acme", text).unwrap().consent
    }

    fn decide(decisions: &Decisions, customer: &str, purposes: &[(&str, bool)]) -> Result<(), Unusable> {
        let consent = privacy::Consent {
            tenant: "acme".into(),
            customer_id: customer.into(),
            purposes: purposes.iter().map(|(name, agreed)| ((*name).to_owned(), *agreed)).collect(),
            ..privacy::Consent::default()
        };
        decisions.apply(format!("acme/{customer}").as_bytes(), Some(&consent.encode_to_vec()))
    }

    #[test]
    fn the_newest_decision_stands_until_it_is_taken_back() {
        let decisions = Decisions::of_at_most(10);
        assert_eq!(decisions.of(&acme(), "7", &rules()), Standing::default());
        decide(&decisions, "7", &[("analytics", true), ("ads", false), ("another", true)]).unwrap();
        assert_eq!(decisions.of(&acme(), "7", &rules()), Standing { decided: 3, agreed: 2 });
        decide(&decisions, "7", &[("ads", true)]).unwrap();
        assert_eq!(decisions.of(&acme(), "7", &rules()), Standing { decided: 1, agreed: 1 });
        assert_eq!(decisions.of(&Tenant::parse("bolt").unwrap(), "7", &rules()), Standing::default());
        decisions.apply(b"acme/7", None).unwrap();
        assert_eq!(decisions.of(&acme(), "7", &rules()), Standing::default());
    }

    #[test]
    fn who_finds_no_place_has_refused() {
        let decisions = Decisions::of_at_most(1);
        decide(&decisions, "7", &[("ads", true)]).unwrap();
        assert_eq!(decide(&decisions, "8", &[("ads", false)]), Err(Unusable::Customers(1)));
        assert_eq!(decisions.of(&acme(), "8", &rules()), Standing { decided: u32::MAX, agreed: 0 });
        assert_eq!(decisions.of(&acme(), "7", &rules()).agreed, 1, "who is known keeps its decision");
        decide(&decisions, "7", &[("ads", false)]).unwrap();
    }

    #[test]
    fn purposes_beyond_the_bound_count_as_refused() {
        let decisions = Decisions::of_at_most(10);
        let names: Vec<String> = (0..PURPOSES).map(|n| format!("p{n}")).collect();
        decide(&decisions, "6", &names.iter().map(|name| (name.as_str(), true)).collect::<Vec<_>>()).unwrap();
        assert_eq!(decide(&decisions, "7", &[("ads", true)]), Err(Unusable::Purposes("acme".into())));
        assert_eq!(decisions.of(&acme(), "7", &rules()), Standing { decided: 3, agreed: 0 });
    }

    #[test]
    fn a_record_that_is_no_decision_changes_nothing() {
        let decisions = Decisions::of_at_most(10);
        assert!(matches!(decisions.apply(b"acme/7", Some(b"\xff")), Err(Unusable::Value(_))));
        let consent = privacy::Consent { tenant: "acme".into(), customer_id: "8".into(), ..Default::default() };
        assert_eq!(decisions.apply(b"acme/7", Some(&consent.encode_to_vec())), Err(Unusable::Key));
    }
}
