//! Deletion tests and reasons as text.

use comfy_table::{Cell, CellAlignment, Table, presets};
use rapport_evaluation::Interval;

use super::{
    Reason, because, compare,
    deletion::{Choice, Tested},
    titles::Titles,
};
use crate::{Error, dataset::Dataset};

/// Reasons that an example names.
const REASONS: usize = 3;

/// What each choice of deleted items does.
///
/// # Errors
/// As [`compare`].
pub fn deletions(tested: &[Tested], deleted: &[usize]) -> Result<Table, Error> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "taken out",
        "items",
        "score falls by",
        "95 %",
        "leaves top 10",
        "95 %",
        "explained: falls more by",
        "95 %",
        "p (Wilcoxon, Holm)",
    ]);
    for row in compare(tested, deleted)? {
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let difference = row.against.as_ref().map(|against| &against.difference.interval);
        table.add_row([
            Cell::new(row.choice.name()),
            number(row.deleted.to_string()),
            number(format!("{:.4}", row.fall.estimate)),
            number(limits(&row.fall)),
            number(format!("{:.4}", row.leaves.estimate)),
            number(limits(&row.leaves)),
            number(difference.map(|interval| format!("{:.4}", interval.estimate)).unwrap_or_default()),
            number(difference.map(limits).unwrap_or_default()),
            number(row.against.as_ref().map(|against| p_value(against.p_value)).unwrap_or_default()),
        ]);
    }
    Ok(table)
}

fn limits(interval: &Interval) -> String {
    format!("{:.4} to {:.4}", interval.lower, interval.upper)
}

fn p_value(p: f64) -> String {
    if p < 0.0001 { "< .0001".into() } else { format!("{p:.4}") }
}

/// How far the explanations miss what they should sum to, how many gradients they take, and the time of
/// each choice.
pub fn costs(tested: &[Tested]) -> String {
    let of = |value: &dyn Fn(&Tested) -> f64| {
        let mut values: Vec<f64> = tested.iter().map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let residuals = of(&|tested| tested.explanation.relative_residual());
    let gradients = of(&|tested| tested.explanation.gradients as f64);
    let times: Vec<String> = [Choice::Explained, Choice::Gradient, Choice::LeaveOneOut]
        .into_iter()
        .filter_map(|choice| {
            let seconds = |tested: &Tested| {
                tested.chosen.iter().find(|chosen| chosen.choice == choice).map(|chosen| chosen.seconds)
            };
            let mut seconds: Vec<f64> = tested.iter().filter_map(seconds).collect();
            seconds.sort_unstable_by(f64::total_cmp);
            let [median, p99] = [50, 99].map(|percent| quantile(&seconds, percent) * 1e3);
            (!seconds.is_empty()).then(|| format!("{} {median:.2} ms (p99 {p99:.2})", choice.name()))
        })
        .collect();
    format!(
        "{} customers. Residual, as a share of what is explained: median {:.1e}, p99 {:.1e}. Gradients: median {}, \
         p99 {}. Time: {}.",
        tested.len(),
        quantile(&residuals, 50),
        quantile(&residuals, 99),
        quantile(&gradients, 50),
        quantile(&gradients, 99),
        times.join(", ")
    )
}

/// The nearest rank of sorted values; 0 of none.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// `Aliens: because of Alien (41 %), ...`.
pub fn example(tested: &Tested, data: &Dataset, titles: &Titles) -> String {
    let title = |item: usize| titles.of(data.items.id(item).unwrap_or_default());
    let reason = |reason: &Reason| format!("{} ({:.0} %)", title(reason.item as usize), 100.0 * reason.share);
    let reasons: Vec<String> = because(&tested.explanation, &tested.past, REASONS).iter().map(reason).collect();
    match reasons.is_empty() {
        true => format!("{}: no past item speaks for it", title(tested.item)),
        false => format!("{}: because of {}", title(tested.item), reasons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&values, 50), quantile(&values, 99), quantile(&[], 50)), (100.0, 198.0, 0.0));
    }
}
