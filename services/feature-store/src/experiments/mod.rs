//! What experiments have shown, kept while they run. One instance, the owner of the served topic's first
//! partition, follows the two logs ([`follow`]), says every few seconds on the experiments topic what each
//! experiment has shown, and stops the arms that broke a guard rail. Scorers follow the topic; what a person
//! decided there, no guard rail changes.

mod follow;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use prost::Message as _;
use rapport_events::{EventTime, Tenant};
use rapport_experiments::{Declared, Report, broken, decision_key, judge, status, status_key};
use rapport_kafka::{KafkaArgs, Publisher, compacted, headers};
use rapport_offline::OfflineLog;
use rapport_placements::Placements;
use rapport_proto::experiments::{Decision, Record, record::Of};
use rapport_runtime::{Component, Lifecycle, OwnedThread};
use rdkafka::message::OwnedHeaders;

use self::follow::Follower;
use crate::Error;

const TICK: Duration = Duration::from_millis(100);
/// Keys of decisions that are kept: people and guard rails write a handful.
const DECISIONS: usize = 100_000;

/// The newest decision about each arm, by its key on the topic.
#[derive(Clone, Default)]
pub(crate) struct Decisions(Arc<Mutex<HashMap<String, Decision>>>);

impl Decisions {
    fn of(&self, key: &str) -> Option<Decision> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn apply(&self, key: &[u8], value: Option<&[u8]>) {
        let Ok(key) = std::str::from_utf8(key) else { return };
        let mut decisions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(value) = value else {
            decisions.remove(key);
            return;
        };
        match Record::decode(value) {
            Ok(Record { of: Some(Of::Decision(decision)) }) => {
                if decisions.len() < DECISIONS || decisions.contains_key(key) {
                    decisions.insert(key.to_owned(), decision);
                } else {
                    tracing::warn!(key, "there are {DECISIONS} decisions already: this one is passed over");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(key, %error, "a record of the experiments topic is passed over"),
        }
    }

    /// Follows the topic.
    pub(crate) fn follow(
        &self,
        kafka: &KafkaArgs,
        lifecycle: &Lifecycle,
        component: Component,
    ) -> Result<OwnedThread, Error> {
        let known = self.clone();
        let topic = kafka.topics().experiments;
        let apply = move |record: compacted::Record<'_>| known.apply(record.key, record.value);
        Ok(compacted::follow(kafka, &topic, lifecycle, component, apply)?)
    }
}

/// The thread that judges.
pub(crate) struct Experiments {
    pub log: OfflineLog,
    pub flush_age: Duration,
    pub placements: Arc<ArcSwap<Placements>>,
    pub decisions: Decisions,
    /// Whether the decisions are all there: before that, nothing is decided.
    pub caught_up: Component,
    /// Whether this instance has the served topic's first partition.
    pub owner: Arc<AtomicBool>,
    pub publisher: Arc<Publisher>,
    pub topic: String,
    pub every: Duration,
}

impl Experiments {
    /// Judges until a drain, on a thread of its own.
    pub(crate) fn run(self, lifecycle: &Lifecycle) -> Result<(), Error> {
        let mut follower = Follower::new(self.log.clone(), self.flush_age, lifecycle.clone());
        let mut waited = Duration::ZERO;
        while !lifecycle.draining() {
            if waited < self.every {
                std::thread::sleep(TICK);
                waited += TICK;
                continue;
            }
            waited = Duration::ZERO;
            if !self.owner.load(Ordering::Relaxed) || !self.caught_up.is_ready() {
                follower.forget();
                continue;
            }
            follower.declare(&self.placements.load());
            let now = EventTime::now();
            if let Err(error) = follower.look(now) {
                tracing::warn!(%error, "experiments are not counted on; trying again");
                continue;
            }
            // What was read may be half of the log: nothing is decided by it.
            if lifecycle.draining() {
                break;
            }
            for (tenant, name, followed) in follower.experiments() {
                let report = judge(&followed.units, &Declared::from(&followed.experiment));
                gauges(tenant, name, &report);
                for broken in broken(&report, &followed.experiment.judged.guard_rails) {
                    self.stop(tenant, name, &broken.arm, broken.reason, now);
                }
                let decided = |arm: &str| self.decisions.of(&decision_key(tenant, name, arm));
                let window = followed.experiment.judged.window;
                let status = status(&report, tenant, name, window, decided, now);
                self.publish(tenant, &status_key(tenant, name), Of::Status(status));
            }
        }
        Ok(())
    }

    /// Stops an arm, unless something was decided about it before.
    fn stop(&self, tenant: &Tenant, experiment: &str, arm: &str, reason: String, now: EventTime) {
        let key = decision_key(tenant, experiment, arm);
        if self.decisions.of(&key).is_some() {
            return;
        }
        tracing::warn!(%tenant, experiment, arm, reason, "a guard rail is broken: the arm is stopped");
        metrics::counter!("rapport_feature_store_arms_stopped_total", "tenant" => tenant.to_string()).increment(1);
        let decision = Decision {
            tenant: tenant.to_string(),
            experiment: experiment.to_owned(),
            arm: arm.to_owned(),
            stopped: true,
            by: "guard rail".to_owned(),
            reason,
            at: Some(now.to_proto()),
        };
        self.publish(tenant, &key, Of::Decision(decision));
    }

    fn publish(&self, tenant: &Tenant, key: &str, of: Of) {
        let owned = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
        let owned = headers::with(owned, headers::TENANT, tenant.as_str());
        let value = Record { of: Some(of) }.encode_to_vec();
        let mut records = self.publisher.batch(1);
        if records.send(&self.topic, Some(key.as_bytes()), Some(&value), owned).is_err() {
            // The next look says it again: a decision is known only when it is on the topic.
            tracing::debug!(%tenant, key, "Kafka takes no status now");
        }
        drop(records.close());
    }
}

/// What dashboards draw.
fn gauges(tenant: &Tenant, experiment: &str, report: &Report) {
    let labels =
        |arm: &str| [("tenant", tenant.to_string()), ("experiment", experiment.to_owned()), ("arm", arm.to_owned())];
    for arm in &report.arms {
        metrics::gauge!("rapport_feature_store_experiment_customers", &labels(&arm.arm)).set(arm.customers as f64);
    }
    for difference in &report.differences {
        let Some(interval) = difference.interval else { continue };
        for (bound, value) in [("low", interval.low), ("mean", interval.mean), ("high", interval.high)] {
            let [tenant, experiment, arm] = labels(&difference.arm);
            let labels =
                [tenant, experiment, arm, ("metric", difference.metric.to_owned()), ("bound", bound.to_owned())];
            metrics::gauge!("rapport_feature_store_experiment_difference", &labels).set(value);
        }
    }
}
