//! The pure part of the cleaner, in the order that a record takes it.

mod consenting;
mod contained;
mod visit;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rapport_events::{EventTime, FieldError, Tenant, pseudonym::Pseudonymiser};
use rapport_policy::{Policies, Policy};
use rapport_proto::events::{Bot, CleanEvent, Coordinates, DeadLetter, Event, IdentityMerge};
use rdkafka::message::Headers;

use self::{consenting::Agreed, contained::contained};
use crate::{
    RawRecord,
    catalog::Catalog,
    clock, consent,
    dead_letter::{self, Refusal},
    decisions::Decisions,
    decode,
    enrich::{self, Context, Said},
    identity, normalise, privacy,
    step_counts::{Outcome, Step, StepCounts},
    validate::{self, Refused},
};

#[derive(Debug, Clone)]
pub struct Settings {
    /// Of records that name no tenant.
    pub default_tenant: Tenant,
    pub pseudonymiser: Pseudonymiser,
    pub policies: Arc<ArcSwap<Policies>>,
    /// What customers agreed to, for policies that ask.
    pub decisions: Arc<Decisions>,
    /// What is said of items, for policies that join events with it.
    pub catalog: Arc<Catalog>,
}

/// What becomes of a record, before it is known whether it was seen before.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Clean(Box<Cleaned>),
    Dead(Box<DeadLetter>),
}

/// A clean event, and what the stateful steps that follow (duplicates, sessions, rates) must know.
#[derive(Debug, Clone, PartialEq)]
pub struct Cleaned {
    pub event: CleanEvent,
    /// The anonymous visitor that this customer turned out to be.
    pub merge: Option<IdentityMerge>,
    pub session: SessionRule,
    pub segment: Said,
    /// How many events of one customer are still a person's. `None`: nobody counts.
    pub bot_rate: Option<rapport_policy::Rate>,
}

/// How the event's visit is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionRule {
    /// The pause in event time that ends a visit. `None`: visits are not told apart.
    pub inactivity: Option<Duration>,
    /// Whether `session_id` is the client's own already: then it stays.
    pub client_session: bool,
}

#[derive(Debug, Clone)]
pub struct Steps {
    settings: Settings,
}

impl Steps {
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Judges the records of one batch by the same rules: a policy that changes meanwhile holds
    /// from the next batch on.
    pub fn batch(&self, now: EventTime) -> Judge<'_> {
        Judge {
            settings: &self.settings,
            policies: self.settings.policies.load_full(),
            now,
            counts: StepCounts::default(),
            step: Step::Tenant,
            last: None,
        }
    }

    /// One record by itself.
    pub fn judge<H: Headers>(&self, record: &RawRecord<'_, H>, now: EventTime) -> Verdict {
        self.batch(now).judge(record)
    }
}

/// The steps of one batch. Its counts are told when it is dropped.
#[derive(Debug)]
pub struct Judge<'s> {
    settings: &'s Settings,
    policies: Arc<Policies>,
    now: EventTime,
    counts: StepCounts,
    /// Where a record is: a fault is a fault of this step.
    step: Step,
    /// The rules of the last record, since the next one mostly has the same tenant.
    last: Option<(Tenant, Arc<Policy>)>,
}

impl Drop for Judge<'_> {
    fn drop(&mut self) {
        self.counts.tell();
    }
}

impl Judge<'_> {
    /// Never fails and never panics: what cannot be cleaned becomes a dead letter, and so does a
    /// record that a step of ours breaks on.
    pub fn judge<H: Headers>(&mut self, record: &RawRecord<'_, H>) -> Verdict {
        self.step = Step::Tenant;
        let (tenant, policy) = match self.rules(record) {
            Ok(rules) => rules,
            Err(error) => {
                self.counts.add(Step::Tenant, Outcome::Refused);
                let tenant = self.settings.default_tenant.clone();
                let policy = Arc::clone(self.policies.of(&tenant));
                return self.dead(record, &tenant, &policy, Refusal::at(Step::Tenant.name(), error));
            }
        };
        self.counts.add(Step::Tenant, Outcome::Passed);
        let refusal = match contained(|| self.clean(record, &tenant, &policy)) {
            Ok(Ok(cleaned)) => return Verdict::Clean(cleaned),
            Ok(Err(refusal)) => refusal,
            Err(fault) => {
                self.counts.add(self.step, Outcome::Refused);
                dead_letter::internal(self.step.name(), &fault)
            }
        };
        self.dead(record, &tenant, &policy, refusal)
    }

    /// The way of a record. The order is the promise: nothing is counted as somebody's before
    /// consent was asked, and nothing leaves that privacy has not seen.
    fn clean<H: Headers>(
        &mut self,
        record: &RawRecord<'_, H>,
        tenant: &Tenant,
        policy: &Policy,
    ) -> Result<Box<Cleaned>, Refusal> {
        let settings = self.settings;
        let received_at = record.received_at(self.now);
        let mut event = self.run(Step::Decode, || Ok((Outcome::Passed, decoded(record)?)))?;
        let mut seen = self.run(Step::Validate, || {
            let kind = validate::event(&event)?;
            let seen = validate::plan(&event, &kind, &policy.validate)?;
            Ok((if seen.is_empty() { Outcome::Passed } else { Outcome::Observed }, seen))
        })?;
        self.run(Step::Normalise, || {
            normalise::event(&mut event, &policy.normalise)?;
            Ok((Outcome::Passed, ()))
        })?;
        self.run(Step::Time, || {
            Ok(match clock::settle(&mut event, received_at, &policy.time)? {
                clock::Settled::AsStamped => (Outcome::Passed, ()),
                clock::Settled::Mended => (Outcome::Changed, ()),
                clock::Settled::Ancient(observation) => (Outcome::Observed, seen.push(observation)),
            })
        })?;
        let agreed =
            self.run(Step::Consent, || Ok(consenting::ask(settings, &mut event, &mut seen, tenant, policy)?))?;
        let was = self.run(Step::Identity, || {
            if agreed == Agreed::Stripped {
                return Ok((Outcome::Passed, None));
            }
            let settled = identity::settle(&mut event)?;
            let outcome = match &settled {
                identity::Settled { was: Some(_), .. } => Outcome::Changed,
                identity::Settled { observation: Some(_), .. } => Outcome::Observed,
                identity::Settled { .. } => Outcome::Passed,
            };
            seen.extend(settled.observation);
            Ok((outcome, settled.was))
        })?;
        // These two read addresses and user agents, which privacy cuts.
        let reasons = self.run(Step::Bots, || Ok(visit::machine(&Context::of(&event), policy)?))?;
        let segment = match (&policy.enrich.segment, agreed) {
            (None, _) | (_, Agreed::Stripped) => Said::NotAsked,
            // What may not be used is not kept for later events either.
            (Some(rule), Agreed::To(agreed)) if !consent::keeps(&policy.consent, agreed, &rule.from) => {
                Said::Segment(String::new())
            }
            (Some(rule), Agreed::To(_) | Agreed::NotAsked) => enrich::segment(&event, rule),
        };
        let (mut visit, from_catalog) = self.run(Step::Enrich, || {
            let (outcome, read) = visit::read(&event, policy);
            let joined = settings.catalog.join(&mut event, tenant, &policy.enrich.catalog);
            // The campaign was read: its parameters may leave the address.
            normalise::addresses(&mut event, &policy.normalise);
            Ok((if joined.is_empty() { outcome } else { Outcome::Changed }, (read, joined)))
        })?;
        self.run(Step::Privacy, || {
            let (keyed, rules) = (&settings.pseudonymiser, &policy.privacy);
            privacy::protect(&mut event, tenant, keyed, rules);
            privacy::protect_visit(visit.referrer.as_mut(), visit.campaign.as_mut(), tenant, keyed, rules);
            Ok((Outcome::Passed, ()))
        })?;

        let source = Coordinates { topic: record.topic.to_owned(), partition: record.partition, offset: record.offset };
        let merge = was.and_then(|was| merge(&was, &event, tenant, &settings.pseudonymiser, &source));
        let session_id = match policy.enrich.sessions.client_ids {
            true => Context::of(&event).session_id().to_owned(),
            false => String::new(),
        };
        // Nobody has no visits, and no rate either.
        let somebody = agreed != Agreed::Stripped;
        // Large, and on its way through several hands: it is made where it stays.
        Ok(Box::new(Cleaned {
            session: SessionRule {
                inactivity: policy.enrich.sessions.inactivity.filter(|_| somebody),
                client_session: !session_id.is_empty(),
            },
            bot_rate: policy.bots.rate.filter(|_| somebody),
            merge,
            event: CleanEvent {
                event: Some(event),
                tenant: tenant.as_str().to_owned(),
                received_at: Some(received_at.to_proto()),
                source: Some(source),
                policy_version: policy.version.clone(),
                session_id,
                client: visit.client,
                referrer: visit.referrer,
                campaign: visit.campaign,
                bot: (!reasons.is_empty()).then(|| Bot { reasons: reasons.into_iter().map(str::to_owned).collect() }),
                purposes: match agreed {
                    Agreed::To(agreed) => consent::names(&policy.consent, agreed),
                    Agreed::NotAsked | Agreed::Stripped => Vec::new(),
                },
                observations: seen,
                from_catalog,
                segment: match &segment {
                    Said::Segment(name) => name.clone(),
                    Said::NotAsked | Said::Nothing(_) => String::new(),
                },
            },
            segment,
        }))
    }

    /// One step: remembers where the record is, counts what came out, and names the step that
    /// refused.
    fn run<T>(&mut self, step: Step, work: impl FnOnce() -> Result<(Outcome, T), Refused>) -> Result<T, Refusal> {
        self.step = step;
        match work() {
            Ok((outcome, value)) => {
                self.counts.add(step, outcome);
                Ok(value)
            }
            Err(Refused { error, plan_version }) => {
                self.counts.add(step, Outcome::Refused);
                Err(Refusal { stage: step.name(), error, rule_version: plan_version })
            }
        }
    }

    /// The record's tenant and its rules.
    fn rules<H: Headers>(&mut self, record: &RawRecord<'_, H>) -> Result<(Tenant, Arc<Policy>), FieldError> {
        let name = record.header(rapport_kafka::headers::TENANT);
        if let Some((tenant, policy)) = &self.last
            && name.is_some_and(|name| name == tenant.as_str())
        {
            return Ok((tenant.clone(), Arc::clone(policy)));
        }
        let tenant = match name {
            Some(name) => Tenant::parse(name)?,
            None => self.settings.default_tenant.clone(),
        };
        let policy = Arc::clone(self.policies.of(&tenant));
        self.last = Some((tenant.clone(), Arc::clone(&policy)));
        Ok((tenant, policy))
    }

    fn dead<H: Headers>(
        &self,
        record: &RawRecord<'_, H>,
        tenant: &Tenant,
        policy: &Policy,
        refusal: Refusal,
    ) -> Verdict {
        let letter = if consenting::may_be_kept(self.settings, record, tenant, policy, &refusal) {
            dead_letter::letter(record, tenant.as_str(), refusal, &policy.version, self.now)
        } else {
            dead_letter::withheld(record, tenant.as_str(), refusal, &policy.version, self.now)
        };
        Verdict::Dead(Box::new(letter))
    }
}

/// A plain producer need not make ids: where the record stands is one, and a replay of the record
/// has the same.
fn decoded<H: Headers>(record: &RawRecord<'_, H>) -> Result<Event, FieldError> {
    let mut event = decode::event(record)?;
    if event.event_id.is_empty() {
        event.event_id = format!("{}-{}", record.partition, record.offset);
    }
    Ok(event)
}

/// `None` for a customer that is itself a visitor: two visitors are never merged.
fn merge(
    was: &str,
    event: &Event,
    tenant: &Tenant,
    keyed: &Pseudonymiser,
    source: &Coordinates,
) -> Option<IdentityMerge> {
    if event.customer_id.starts_with(identity::ANONYMOUS_PREFIX) {
        return None;
    }
    Some(IdentityMerge {
        tenant: tenant.as_str().to_owned(),
        from_id: identity::anonymous(was, tenant, keyed),
        to_id: event.customer_id.clone(),
        merged_at: event.event_time,
        event_id: event.event_id.clone(),
        source: Some(source.clone()),
    })
}

#[cfg(test)]
mod tests;
