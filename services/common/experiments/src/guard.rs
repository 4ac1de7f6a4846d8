//! Guard rails: what stops an arm while the experiment runs.

use rapport_placements::{GuardRail, Metric};

use crate::{Difference, Report};

/// An arm that broke a guard rail, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub arm: String,
    pub reason: String,
}

/// The arms that are surely worse than the control by more than they may be. "Surely" is the interval's: it
/// holds at all times at once, so looking every few seconds stops a harmless arm as rarely as looking once.
/// Where customers came in other shares than declared, nothing is sure.
pub fn broken(report: &Report, rails: &[GuardRail]) -> Vec<Broken> {
    let Some(control) = report.arms.iter().find(|arm| arm.arm == report.control) else { return Vec::new() };
    if report.mismatch {
        return Vec::new();
    }
    let mut broken: Vec<Broken> = Vec::new();
    for rail in rails {
        let mean = control.mean(rail.metric);
        let allowed = -rail.at_most_worse * mean.abs();
        for Difference { arm, interval, .. } in report.differences.iter().filter(|of| of.metric == rail.metric.name()) {
            let Some(interval) = interval.filter(|interval| interval.high < allowed) else { continue };
            if broken.iter().any(|known| known.arm == *arm) {
                continue;
            }
            let reason = format!(
                "{}: {} less than the control's {}, surely more than {}, with {} customers; {} is allowed",
                rail.metric.name(),
                said(rail.metric, -interval.mean),
                said(rail.metric, mean),
                said(rail.metric, -interval.high),
                interval.count,
                said(rail.metric, -allowed),
            );
            broken.push(Broken { arm: arm.clone(), reason });
        }
    }
    broken
}

fn said(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Acted | Metric::Purchased => format!("{:.2} %", value * 100.0),
        Metric::Revenue => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge,
        verdict::tests::{halves, units},
    };

    fn rail(metric: Metric, at_most_worse: f64) -> [GuardRail; 1] {
        [GuardRail { metric, at_most_worse }]
    }

    #[test]
    fn an_arm_that_is_surely_worse_than_allowed_is_named_with_the_reason() {
        let report = judge(&units(&[("a", 5_000, 1_000), ("b", 5_000, 500)]), &halves());
        let [Broken { arm, reason }] = broken(&report, &rail(Metric::Purchased, 0.1)).try_into().unwrap();
        assert_eq!(arm, "b");
        assert!(
            reason.starts_with("purchased: 10.00 % less than the control's 20.00 %, surely more than "),
            "{reason}"
        );
        assert!(reason.ends_with(" with 10000 customers; 2.00 % is allowed"), "{reason}");
        assert_eq!(broken(&report, &rail(Metric::Purchased, 0.6)), [], "half as many are within 60 %");
        assert_eq!(broken(&report, &rail(Metric::Revenue, 0.0)).len(), 1);
    }

    #[test]
    fn what_is_better_or_open_or_not_to_be_believed_breaks_nothing() {
        let rails = rail(Metric::Acted, 0.0);
        for arms in [
            [("a", 5_000, 500), ("b", 5_000, 900)],
            [("a", 5_000, 500), ("b", 5_000, 490)],
            [("a", 40, 40), ("b", 40, 0)],
        ] {
            assert_eq!(broken(&judge(&units(&arms), &halves()), &rails), []);
        }
        let off = judge(&units(&[("a", 5_000, 1_000), ("b", 4_000, 100)]), &halves());
        assert!(off.mismatch);
        assert_eq!(broken(&off, &rails), []);
    }
}
