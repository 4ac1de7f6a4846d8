//! A status as people and programs read it.

use comfy_table::Cell;
use rapport_experiments::PREFERENCE;
use rapport_proto::experiments::{Arm, Decision, Difference, Status};
use serde_json::{Value, json};

use super::super::{right, time_text};
use crate::output::{self, Page};

pub(super) fn show(page: &mut Page, status: &Status) {
    if status.arms.is_empty() {
        page.line(format!("{}: no customer's window has ended yet: there is nothing to judge", status.experiment));
    } else {
        page.table(&arms(status));
        page.table(&differences(status));
    }
    page.line(format!(
        "{} customers are still in their window, {} changed arms and are left out",
        status.customers_in_window, status.customers_changed_arms
    ));
    for arm in &status.arms {
        if let Some(decision) = &arm.decision {
            page.line(said(decision));
        }
    }
    if status.full {
        page.line("there are more customers than are kept: those who came later are left out");
    }
    if status.share_mismatch {
        page.line("CUSTOMERS CAME IN OTHER SHARES THAN DECLARED: do not trust the figures before you know why");
    }
}

fn said(decision: &Decision) -> String {
    let at = time_text(decision.at.as_ref()).unwrap_or_default();
    let done = if decision.stopped { "STOPPED" } else { "shown again" };
    let why = if decision.reason.is_empty() { String::new() } else { format!(": {}", decision.reason) };
    format!("{} was {done} by a {} at {at}{why}", decision.arm, decision.by)
}

fn arms(status: &Status) -> comfy_table::Table {
    let mut table = output::table([
        status.experiment.as_str(),
        "customers",
        "acted on a shown item",
        "purchased",
        "revenue each",
        "lists",
        "acted on",
        "from the cache",
        "acted on",
    ]);
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let share = |part: u64, of: u64| if of == 0 { "-".to_owned() } else { percent(part as f64 / of as f64) };
    for arm in &status.arms {
        let control = if arm.name == status.control { " (control)" } else { "" };
        table.add_row(vec![
            Cell::new(format!("{}{control}", arm.name)),
            right(arm.customers),
            right(percent(arm.acted)),
            right(percent(arm.purchased)),
            right(format!("{:.2}", arm.revenue)),
            right(arm.lists),
            right(share(arm.lists_acted_on, arm.lists)),
            right(share(arm.cached_lists, arm.lists)),
            right(share(arm.cached_lists_acted_on, arm.cached_lists)),
        ]);
    }
    table
}

fn differences(status: &Status) -> comfy_table::Table {
    let mut table = output::table(["against the control", "", "difference", "at any time between", ""]);
    for of in &status.differences {
        let number = |value: f64| match of.metric.as_str() {
            "revenue" | PREFERENCE => format!("{value:+.3}"),
            _ => format!("{:+.2} %", value * 100.0),
        };
        let (mean, between) = match (of.mean, of.low, of.high) {
            (Some(mean), Some(low), Some(high)) => (number(mean), format!("{} and {}", number(low), number(high))),
            _ => ("-".to_owned(), "-".to_owned()),
        };
        table.add_row(vec![
            Cell::new(&of.arm),
            Cell::new(&of.metric),
            right(mean),
            right(between),
            Cell::new(verdict(of)),
        ]);
    }
    table
}

fn verdict(of: &Difference) -> &'static str {
    match (of.low, of.high) {
        (Some(low), _) if low > 0.0 => "better",
        (_, Some(high)) if high < 0.0 => "worse",
        (Some(_), Some(_)) => "open",
        _ => "too few",
    }
}

pub(super) fn as_json(status: &Status) -> Value {
    let decision = |of: &Decision| json!({ "stopped": of.stopped, "by": of.by, "reason": of.reason, "at": time_text(of.at.as_ref()) });
    let arm = |arm: &Arm| {
        json!({
            "arm": arm.name, "control": arm.name == status.control, "customers": arm.customers,
            "acted": arm.acted, "purchased": arm.purchased, "revenue": arm.revenue,
            "lists": arm.lists, "lists_acted_on": arm.lists_acted_on,
            "cached_lists": arm.cached_lists, "cached_lists_acted_on": arm.cached_lists_acted_on,
            "decision": arm.decision.as_ref().map(decision),
        })
    };
    let difference = |of: &Difference| {
        let interval = of.mean.map(|mean| json!({ "mean": mean, "low": of.low, "high": of.high }));
        json!({ "arm": of.arm, "metric": of.metric, "difference": interval })
    };
    json!({
        "experiment": status.experiment, "interleaved": status.interleaved,
        "began": time_text(status.began.as_ref()), "computed": time_text(status.computed.as_ref()),
        "arms": status.arms.iter().map(arm).collect::<Vec<_>>(),
        "differences": status.differences.iter().map(difference).collect::<Vec<_>>(),
        "still_in_window": status.customers_in_window, "changed_arms": status.customers_changed_arms,
        "share_mismatch": status.share_mismatch, "full": status.full,
    })
}
