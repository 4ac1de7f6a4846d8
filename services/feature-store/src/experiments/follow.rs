//! An experiment's customers, kept by following the two logs: lists first, then the events that are old
//! enough for their lists to be there.

use std::{collections::BTreeMap, time::Duration};

use rapport_events::{EventTime, LoggedEvent, Tenant};
use rapport_experiments::{Declared, Happened, Shown, ShownItem, Units};
use rapport_offline::{Newer, OfflineLog, Place, Selection, ServedList};
use rapport_placements::{Experiment, Placements};
use rapport_runtime::Lifecycle;

use crate::Error;

/// Lists and events reach their logs by roads of their own. An event waits so long beyond a flush until the
/// list that it belongs to is surely there.
const SLACK: Duration = Duration::from_secs(2);
/// Events that may wait; further ones are counted at once.
const MOST_WAITING: usize = 1_000_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One experiment as it is declared.
pub(crate) struct Followed {
    pub experiment: Experiment,
    pub units: Units,
}

impl Followed {
    fn new(experiment: Experiment) -> Self {
        let Declared { drafting, .. } = Declared::from(&experiment);
        let units = Units::new(experiment.judged.window, &experiment.judged.purchase, drafting);
        Self { experiment, units }
    }
}

/// All experiments of one tenant, and how far the logs are read.
struct OfTenant {
    experiments: BTreeMap<String, Followed>,
    served: Place,
    events: Place,
    /// Read, and too young to be counted.
    waiting: Vec<LoggedEvent>,
}

/// The experiments of all tenants.
pub(crate) struct Follower {
    log: OfflineLog,
    /// What a record may need from its topic into the log.
    flush_age: Duration,
    /// A long log is left half read when a drain is asked for.
    lifecycle: Lifecycle,
    tenants: BTreeMap<Tenant, OfTenant>,
}

impl Follower {
    pub(crate) fn new(log: OfflineLog, flush_age: Duration, lifecycle: Lifecycle) -> Self {
        Self { log, flush_age, lifecycle, tenants: BTreeMap::new() }
    }

    /// Forgets everything: another instance follows now.
    pub(crate) fn forget(&mut self) {
        self.tenants.clear();
    }

    /// Follows what is declared. A tenant with an experiment that is new or was changed is read again from
    /// the beginning of the log.
    pub(crate) fn declare(&mut self, placements: &Placements) {
        let declared: BTreeMap<&Tenant, BTreeMap<&str, &Experiment>> = placements
            .tenants()
            .map(|(tenant, of)| (tenant, of.experiments().collect::<BTreeMap<_, _>>()))
            .filter(|(_, experiments)| !experiments.is_empty())
            .collect();
        self.tenants.retain(|tenant, of| {
            let Some(experiments) = declared.get(tenant) else { return false };
            of.experiments.retain(|name, followed| {
                experiments.get(name.as_str()).is_some_and(|now| followed.experiment.counts_as(now))
            });
            of.experiments.len() == experiments.len()
        });
        for (tenant, experiments) in declared {
            let known = self.tenants.entry(tenant.clone()).or_insert_with(|| OfTenant {
                experiments: experiments
                    .iter()
                    .map(|(name, of)| ((*name).to_owned(), Followed::new((*of).clone())))
                    .collect(),
                served: Place::default(),
                events: Place::default(),
                waiting: Vec::new(),
            });
            // Guard rails and the level may change without another count.
            for (name, followed) in &mut known.experiments {
                if let Some(now) = experiments.get(name.as_str()) {
                    followed.experiment = (*now).clone();
                }
            }
        }
    }

    /// Reads what has come since the last look, and settles whose window has ended.
    ///
    /// # Errors
    /// The offline store is away, or a file is corrupt: what was read stays, and the rest is read next time. After a
    /// drain was asked for the rest is not read either.
    pub(crate) fn look(&mut self, now: EventTime) -> Result<(), Error> {
        let patience = self.flush_age + SLACK;
        for (tenant, of) in &mut self.tenants {
            of.look(&self.log, &self.lifecycle, tenant, now, patience)?;
        }
        Ok(())
    }

    pub(crate) fn experiments(&self) -> impl Iterator<Item = (&Tenant, &str, &Followed)> {
        self.tenants.iter().flat_map(|(tenant, of)| {
            of.experiments.iter().map(move |(name, followed)| (tenant, name.as_str(), followed))
        })
    }
}

impl OfTenant {
    fn look(
        &mut self,
        log: &OfflineLog,
        lifecycle: &Lifecycle,
        tenant: &Tenant,
        now: EventTime,
        patience: Duration,
    ) -> Result<(), Error> {
        // Events that are in the log now: their lists are in theirs a little later at most.
        let events = match log.newer(&self.events)? {
            Newer::Manifests(manifests) => manifests,
            Newer::AnotherLog { .. } => {
                self.begin_anew(tenant);
                return Ok(());
            }
        };
        let served = match log.newer_served(&self.served)? {
            Newer::Manifests(manifests) => manifests,
            Newer::AnotherLog { .. } => {
                self.begin_anew(tenant);
                return Ok(());
            }
        };
        for manifest in served {
            if lifecycle.draining() {
                return Ok(());
            }
            for list in log.served_of(std::slice::from_ref(&manifest), &Selection::of(tenant))? {
                if let Some(followed) = self.experiments.get_mut(&list.experiment) {
                    followed.units.shown(&shown(&list));
                }
            }
            self.served.pass(&manifest);
        }
        // What happened before the first list is no outcome. Where none is known yet, one may be on its way.
        let began = self.experiments.values().filter_map(|followed| followed.units.began()).min();
        let from = began.unwrap_or_else(|| earlier(now, DAY)).day();
        let selection = Selection { from_day: Some(from), ..Selection::of(tenant) };
        let mut experiments: Vec<&mut Followed> = self.experiments.values_mut().collect();
        let mut count = |logged: &LoggedEvent| {
            experiments.iter_mut().for_each(|followed| followed.units.happened(&happened(logged)));
        };
        let too_young = |logged: &LoggedEvent| now.since(logged.event.received_at) < patience;
        self.waiting.retain(|logged| {
            let waits = too_young(logged);
            if !waits {
                count(logged);
            }
            waits
        });
        for manifest in events {
            if lifecycle.draining() {
                return Ok(());
            }
            for logged in log.events_of(std::slice::from_ref(&manifest), &selection)? {
                if too_young(&logged) && self.waiting.len() < MOST_WAITING {
                    self.waiting.push(logged);
                } else {
                    count(&logged);
                }
            }
            self.events.pass(&manifest);
        }
        // Not before the last event of a window can have been counted.
        let settled = earlier(now, 2 * patience);
        experiments.iter_mut().for_each(|followed| followed.units.settle(settled));
        Ok(())
    }

    fn begin_anew(&mut self, tenant: &Tenant) {
        tracing::warn!(%tenant, "the log is another one: experiments are counted from its beginning");
        let experiments = std::mem::take(&mut self.experiments);
        *self = Self {
            experiments: experiments.into_iter().map(|(name, of)| (name, Followed::new(of.experiment))).collect(),
            served: Place::default(),
            events: Place::default(),
            waiting: Vec::new(),
        };
    }
}

fn earlier(time: EventTime, by: Duration) -> EventTime {
    EventTime::from_ms(time.as_ms().saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

fn shown(list: &ServedList) -> Shown<'_> {
    Shown {
        customer: &list.customer_id,
        arm: &list.arm,
        at: list.served_at,
        cached: list.cached == Some(true),
        items: list.items.iter().map(|item| ShownItem { id: &item.item_id, arm: &item.arm }).collect(),
    }
}

fn happened(logged: &LoggedEvent) -> Happened<'_> {
    let event = &logged.event;
    Happened {
        customer: &event.customer_id,
        kind: &event.kind,
        item: event.item_id.as_deref().unwrap_or_default(),
        at: event.time,
        value: event.value,
    }
}
