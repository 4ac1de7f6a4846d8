//! Reports as they stand on the experiments topic.

use std::time::Duration;

use rapport_events::{EventTime, Tenant, event_key};
use rapport_proto::experiments::{Arm, Decision, Difference, Status};

use crate::Report;

/// The key of an experiment's status.
pub fn status_key(tenant: &Tenant, experiment: &str) -> String {
    event_key(tenant, experiment)
}

/// The key of the decision about an arm.
pub fn decision_key(tenant: &Tenant, experiment: &str, arm: &str) -> String {
    format!("{}/{arm}", event_key(tenant, experiment))
}

/// A report for the topic, with the newest decision about each arm.
pub fn status(
    report: &Report,
    tenant: &Tenant,
    experiment: &str,
    window: Duration,
    decision: impl Fn(&str) -> Option<Decision>,
    now: EventTime,
) -> Status {
    let arms = report.arms.iter().map(|of| Arm {
        name: of.arm.clone(),
        customers: of.customers as u64,
        acted: of.acted,
        purchased: of.purchased,
        revenue: of.revenue,
        lists: of.lists,
        lists_acted_on: of.lists_acted_on,
        cached_lists: of.cached_lists,
        cached_lists_acted_on: of.cached_lists_acted_on,
        decision: decision(&of.arm),
    });
    let differences = report.differences.iter().map(|of| Difference {
        arm: of.arm.clone(),
        metric: of.metric.to_owned(),
        mean: of.interval.map(|interval| interval.mean),
        low: of.interval.map(|interval| interval.low),
        high: of.interval.map(|interval| interval.high),
    });
    Status {
        tenant: tenant.to_string(),
        experiment: experiment.to_owned(),
        computed: Some(now.to_proto()),
        began: report.began.map(EventTime::to_proto),
        window: window.try_into().ok(),
        control: report.control.clone(),
        arms: arms.collect(),
        differences: differences.collect(),
        customers_in_window: report.in_window as u64,
        customers_changed_arms: report.changed_arms as u64,
        share_mismatch: report.mismatch,
        full: report.full,
        interleaved: report.interleaved,
    }
}
