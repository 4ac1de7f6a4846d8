//! One experiment, checked.

use std::time::Duration;

use rapport_runtime::parse_duration;
use serde::Deserialize;

use super::Check;
use crate::{Arm, Experiment, GuardRail, INTERLEAVED, Judged, Metric};

const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(90 * 24 * 3600);
/// Shares are written with a few digits.
const SHARES_TOLERANCE: f64 = 1e-6;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenExperiment {
    pub placement: String,
    salt: Option<String>,
    #[serde(default = "all")]
    traffic: f64,
    pub arms: Vec<WrittenArm>,
    #[serde(default)]
    pub interleaved: bool,
    window: Option<String>,
    purchase: Option<String>,
    alpha: Option<f64>,
    #[serde(default)]
    guard_rails: Vec<WrittenGuardRail>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGuardRail {
    metric: Metric,
    #[serde(default)]
    at_most_worse: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenArm {
    name: String,
    share: Option<f64>,
    pub placement: String,
}

fn all() -> f64 {
    1.0
}

pub(super) fn experiment(check: &mut Check<'_>, at: &str, name: String, written: WrittenExperiment) -> Experiment {
    check.that(written.traffic > 0.0 && written.traffic <= 1.0, &format!("{at}.traffic"), || {
        format!("must be above 0 and at most 1, is {}", written.traffic)
    });
    check.that(written.arms.len() >= 2, &format!("{at}.arms"), || "needs at least two arms, the control first".into());
    for (n, arm) in written.arms.iter().enumerate() {
        check.name(&format!("{at}.arms[{n}].name"), &arm.name);
        let twice = written.arms.iter().take(n).any(|before| before.name == arm.name);
        check.that(!twice, &format!("{at}.arms[{n}].name"), || format!("{:?} stands twice", arm.name));
        check.that(arm.name != INTERLEAVED, &format!("{at}.arms[{n}].name"), || {
            format!("{INTERLEAVED:?} stands for arms that draft together; give it another name")
        });
    }
    if written.interleaved {
        check.that(written.arms.len() == 2, &format!("{at}.arms"), || {
            format!("two arms draft a list together, not {}", written.arms.len())
        });
        let shared = written.arms.iter().any(|arm| arm.share.is_some());
        check.that(!shared, &format!("{at}.arms"), || "arms that draft together have no shares".into());
        check.that(written.guard_rails.is_empty(), &format!("{at}.guard_rails"), || {
            "are for arms that have customers of their own, not for ones that draft together".into()
        });
    } else {
        shares(check, at, &written.arms);
    }
    let judged = judged(check, at, &written);
    let even = 1.0 / written.arms.len().max(1) as f64;
    let arm = |arm: WrittenArm| Arm { name: arm.name, share: arm.share.unwrap_or(even), placement: arm.placement };
    Experiment {
        placement: written.placement,
        salt: written.salt.unwrap_or(name),
        traffic: written.traffic,
        arms: written.arms.into_iter().map(arm).collect(),
        interleaved: written.interleaved,
        judged,
    }
}

fn shares(check: &mut Check<'_>, at: &str, arms: &[WrittenArm]) {
    for (n, arm) in arms.iter().enumerate() {
        let path = format!("{at}.arms[{n}].share");
        match arm.share {
            None => check.that(false, &path, || "is missing: the arm's share of those who take part".into()),
            Some(share) => {
                check.that(share > 0.0 && share <= 1.0, &path, || format!("must be above 0 and at most 1, is {share}"))
            }
        }
    }
    let sum: f64 = arms.iter().filter_map(|arm| arm.share).sum();
    check.that((sum - 1.0).abs() <= SHARES_TOLERANCE, &format!("{at}.arms"), || {
        format!("their shares must add up to 1, they add up to {sum}")
    });
}

fn judged(check: &mut Check<'_>, at: &str, written: &WrittenExperiment) -> Judged {
    let default = Judged::default();
    let window = written.window.as_deref().map_or(Ok(default.window), parse_duration);
    let window = window.unwrap_or_else(|reason| {
        check.that(false, &format!("{at}.window"), || reason);
        default.window
    });
    check.that((SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window), &format!("{at}.window"), || {
        format!("must be 1s to 90 days, is {window:?}")
    });
    let alpha = written.alpha.unwrap_or(default.alpha);
    check.that(alpha > 0.0 && alpha < 1.0, &format!("{at}.alpha"), || {
        format!("must be above 0 and below 1, is {alpha}")
    });
    let purchase = written.purchase.clone().unwrap_or(default.purchase);
    check.that(!purchase.is_empty(), &format!("{at}.purchase"), || "must name a type of events".into());
    for (n, rail) in written.guard_rails.iter().enumerate() {
        check.that((0.0..1.0).contains(&rail.at_most_worse), &format!("{at}.guard_rails[{n}].at_most_worse"), || {
            format!("must be a share of the control's mean, 0 or above and below 1, is {}", rail.at_most_worse)
        });
    }
    let rail = |rail: &WrittenGuardRail| GuardRail { metric: rail.metric, at_most_worse: rail.at_most_worse };
    Judged { window, purchase, alpha, guard_rails: written.guard_rails.iter().map(rail).collect() }
}
