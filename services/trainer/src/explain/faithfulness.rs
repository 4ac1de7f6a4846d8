//! The deletion tests of many customers as a table: means with intervals, and whether taking out what the
//! explanation says does more than another choice does.

use rapport_evaluation::{Clusters, Interval, PairedDifference, holm, wilcoxon};

use super::deletion::{Choice, Effect, Tested};
use crate::{Error, evaluate::bootstrap};

/// A choice and a number of deleted items.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub choice: Choice,
    pub deleted: usize,
    /// By how much the quantity falls.
    pub fall: Interval,
    /// Share of recommendations that leave the top 10.
    pub leaves: Interval,
    /// Against the explanation's choice of as many items; `None` for that one itself.
    pub against: Option<Comparison>,
}

/// The explanation's choice beside another one, customer by customer.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// How much further the quantity falls by the explanation's choice.
    pub difference: PairedDifference,
    /// Wilcoxon's signed-rank test of the falls, after Holm over all comparisons of the table.
    pub p_value: f64,
}

/// Rows by number of deleted items, then by choice. `deleted` as in the tests' settings.
///
/// # Errors
/// Fewer than two customers, or a fall that is not finite.
pub fn compare(tested: &[Tested], deleted: &[usize]) -> Result<Vec<Row>, Error> {
    let each = Clusters::each_row(tested.len());
    let mut rows = Vec::new();
    for (at, &deleted) in deleted.iter().enumerate() {
        let explained = values(tested, Choice::Explained, at, |effect| effect.fall);
        for choice in Choice::ALL {
            let falls = values(tested, choice, at, |effect| effect.fall);
            if falls.is_empty() {
                continue;
            }
            let against = match choice {
                Choice::Explained => None,
                _ => Some(Comparison {
                    difference: bootstrap().paired_difference(&explained, &falls, &each)?,
                    p_value: wilcoxon(&explained, &falls)?.p_value,
                }),
            };
            let fall = bootstrap().mean(&falls, &each)?;
            let leaves = bootstrap().mean(&values(tested, choice, at, |effect| effect.leaves), &each)?;
            rows.push(Row { choice, deleted, fall, leaves, against });
        }
    }
    let comparisons = || rows.iter().filter_map(|row| row.against.as_ref());
    let p_values: Vec<f64> = comparisons().map(|comparison| comparison.p_value).collect();
    if !p_values.is_empty() {
        let adjusted = holm(&p_values)?;
        let comparisons = rows.iter_mut().filter_map(|row| row.against.as_mut());
        comparisons.zip(adjusted).for_each(|(comparison, p_value)| comparison.p_value = p_value);
    }
    Ok(rows)
}

/// A number of each customer's; none where the choice was not tried.
fn values(tested: &[Tested], choice: Choice, at: usize, of: fn(&Effect) -> f64) -> Vec<f64> {
    let chosen = tested.iter().filter_map(|tested| tested.chosen.iter().find(|chosen| chosen.choice == choice));
    chosen.filter_map(|chosen| chosen.effects.get(at)).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Explanation, deletion::Chosen};

    #[test]
    fn each_choice_is_compared_with_the_explanation_on_the_same_customers() {
        let of = |customer: usize| {
            let chosen = |choice, fall: f64, leaves| Chosen {
                choice,
                effects: vec![Effect { fall: fall + customer as f64, leaves }],
                seconds: 0.0,
            };
            Tested {
                past: vec![1],
                item: 1,
                explanation: Explanation::nothing(),
                chosen: vec![chosen(Choice::Explained, 2.0, 1.0), chosen(Choice::Random, 1.5, 0.0)],
            }
        };
        let tested: Vec<Tested> = (0..20).map(of).collect();
        let rows = compare(&tested, &[1]).unwrap();
        assert_eq!(rows.iter().map(|row| row.choice).collect::<Vec<_>>(), [Choice::Explained, Choice::Random]);
        assert_eq!((rows[0].fall.estimate, rows[0].leaves.estimate), (11.5, 1.0));
        let against = rows[1].against.as_ref().unwrap();
        assert!((against.difference.interval.estimate - 0.5).abs() < 1e-12 && against.p_value < 1e-4);
        assert!(rows[0].against.is_none() && compare(&tested[..1], &[1]).is_err());
    }
}
