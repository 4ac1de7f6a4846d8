//! How good a model is, and how sure that is: pure functions from labels, scores and ranked lists to
//! metrics, intervals, tests and a report. No I/O, no clock; randomness comes from a seed.
//!
//! split (which rows train, which judge) -> score per user or row ([`RankingScores`], [`Confusion`],
//! [`roc_auc`], [`calibration()`]) -> certainty ([`Bootstrap`], [`wilcoxon`], [`mcnemar`], [`delong`],
//! [`holm`], [`anytime_difference`] for experiments that are watched, [`policy_value`] for what was drawn
//! by chance) -> groups ([`by_segment`]) and inputs ([`population_stability_index`]) -> [`Report`].
//!
//! Every interval and test reads the same per-row values as the mean beside it, so that a table
//! cannot contradict itself.

mod bootstrap;
mod calibration;
mod catalogue;
mod confusion;
mod drift;
mod error;
mod input;
mod off_policy;
mod ranking;
pub mod report;
mod roc;
mod segment;
mod sequential;
mod significance;
mod split;
mod temporal;

pub use bootstrap::{Bootstrap, Clusters, Interval, PairedDifference, ScoredMetric};
pub use calibration::{Calibration, CalibrationBin, brier_score, calibration, log_loss};
pub use catalogue::{Exposure, intra_list_diversity};
pub use confusion::{Averaging, ClassScores, Confusion};
pub use drift::{Drift, PsiBin, Stability, population_stability_index, stability_of_counts};
pub use error::Error;
pub use off_policy::{Drawn, PolicyValue, policy_difference, policy_value};
pub use ranking::{Metric, RankedList, RankingComparison, RankingScores, TiedRank};
pub use report::Report;
pub use roc::{GainPoint, RocPoint, average_precision, gain_and_lift, roc_auc, roc_curve};
pub use segment::{Bucket, Segment, by_segment};
pub use sequential::{AnytimeInterval, Dealt, anytime_difference, anytime_mean};
pub use significance::{DeLong, McNemar, Wilcoxon, delong, holm, mcnemar, wilcoxon};
pub use split::{Fold, grouped_k_fold, k_fold, stratified_k_fold};
pub use temporal::{GlobalCut, TemporalSplit, global_temporal, leave_one_out};
