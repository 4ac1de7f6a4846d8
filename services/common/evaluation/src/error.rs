/// Why a figure cannot be computed, and what the caller can do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("no {0}: pass at least one")]
    Empty(&'static str),
    #[error("{left} has {left_len} entries but {right} has {right_len}: pass one of each per row")]
    Lengths { left: &'static str, left_len: usize, right: &'static str, right_len: usize },
    #[error("{what} at row {row} is {value}: impute or leave out what is not finite")]
    NotFinite { what: &'static str, row: usize, value: f64 },
    #[error("the probability at row {row} is {value}: turn scores into 0..=1 first")]
    NotProbability { row: usize, value: f64 },
    #[error("{metric} needs both classes but all {rows} rows are {class}: widen the period or the group")]
    OneClass { metric: &'static str, rows: usize, class: bool },
    #[error("class {class} at row {row} is outside 0..{classes}: pass the number of classes of the model")]
    ClassOutOfRange { row: usize, class: usize, classes: usize },
    #[error("item {item} is outside the catalogue 0..{items}: pass the catalogue that the lists were drawn from")]
    ItemOutOfRange { item: usize, items: usize },
    #[error("{name} is {value}: it must be {rule}")]
    Argument { name: &'static str, value: String, rule: &'static str },
    #[error("the list of user {user} repeats an item at position {position}: remove duplicates before scoring")]
    DuplicateItem { user: usize, position: usize },
    #[error("user {user} has no relevant item: leave out users with nothing held back")]
    NoRelevantItem { user: usize },
    #[error("the held-back item {0} is not a candidate: it would count as missed; fix the filter of seen items")]
    TargetFiltered(usize),
    #[error("no scores at cutoff {cutoff}, only at {computed:?}: add it to the cutoffs")]
    CutoffNotComputed { cutoff: usize, computed: Vec<usize> },
    #[error("the feature is {value} in every reference row: a constant cannot be binned; leave it out")]
    ConstantFeature { value: f64 },
    #[error("{test} is undefined, its variance is zero: compare with Bootstrap::scored_difference instead")]
    NoVariance { test: &'static str },
    #[error("{have} {what}, but {need} are needed: use more data or fewer parts")]
    TooFew { what: &'static str, have: usize, need: usize },
    #[error("the statistic failed on {failed} of {resamples} resamples (first: {first}): use more data")]
    Resamples { failed: usize, resamples: usize, first: Box<Error> },
}
