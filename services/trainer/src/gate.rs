//! Whether a model may go live.

use rapport_registry::Gate;

use crate::evaluate::{Figures, Judged};

/// What chance may explain: a candidate that is better than the champion with a p-value below this is
/// better.
const SIGNIFICANT: f64 = 0.05;

/// What a candidate must beat on the test part.
#[derive(Debug, Clone, Default)]
pub struct Opponents {
    /// `popularity`, `markov`, ... with their figures.
    pub baselines: Vec<(String, Figures)>,
    pub champion: Option<Champion>,
}

/// The live model on the same cases.
#[derive(Debug, Clone)]
pub struct Champion {
    pub version: String,
    /// Its own weights. They may have been trained on the hold-out, which flatters them: beating
    /// them is proof enough, not beating them proves nothing.
    pub as_it_is: Judged,
    /// Its recipe, trained on the same past as the candidates: the fair comparison. `None` when it
    /// was not needed, or for a model that was brought.
    pub refitted: Option<Refitted>,
}

/// A champion's recipe on the candidates' footing.
#[derive(Debug, Clone)]
pub struct Refitted {
    pub judged: Judged,
    /// The candidate of this kind *is* the champion's recipe on newer data: being as good is enough.
    pub same_recipe_as: Option<String>,
}

/// Judges a candidate by NDCG@10 on the test part: strictly above every baseline, and better than the
/// champion as it is or its recipe on the same footing by more than chance explains (a paired
/// bootstrap over customers); a refresh of the champion's own recipe must only not be below it. With
/// fewer than `min_cases` cases nothing passes.
pub fn judge(kind: &str, test: &Judged, opponents: &Opponents, min_cases: u64) -> Gate {
    let figures = test.figures;
    if figures.cases < min_cases {
        let reason = format!("{} test cases are too few to judge by, at least {min_cases} are needed", figures.cases);
        return Gate { passed: false, reason };
    }
    let mut beaten = Vec::new();
    for (name, other) in &opponents.baselines {
        // Not "at most": a figure that is no number must not pass.
        if figures.ndcg.partial_cmp(&other.ndcg) != Some(std::cmp::Ordering::Greater) {
            let reason = format!("ndcg@10 {:.4} does not beat {name}'s {:.4}", figures.ndcg, other.ndcg);
            return Gate { passed: false, reason };
        }
        beaten.push(format!("{name} {:.4}", other.ndcg));
    }
    match &opponents.champion {
        None => beaten.push("no champion before it".into()),
        Some(champion) => match beats(kind, test, champion) {
            Ok(how) => beaten.push(how),
            Err(reason) => return Gate { passed: false, reason },
        },
    }
    Gate { passed: true, reason: format!("ndcg@10 {:.4} beats {}", figures.ndcg, beaten.join(", ")) }
}

/// How the champion is beaten, or why it is not.
fn beats(kind: &str, test: &Judged, champion: &Champion) -> Result<String, String> {
    let ndcg = test.figures.ndcg;
    let against_itself = significant(test, &champion.as_it_is);
    if let Ok(how) = against_itself {
        return Ok(format!("the champion's {how}"));
    }
    let Some(refitted) = &champion.refitted else {
        return Err(format!(
            "ndcg@10 {ndcg:.4} does not beat the champion's {} ({})",
            against_itself.unwrap_or_else(|why| why),
            champion.version
        ));
    };
    if refitted.same_recipe_as.as_deref() == Some(kind) && ndcg >= refitted.judged.figures.ndcg {
        return Ok("what it was: the champion's own recipe, refreshed on newer data".into());
    }
    match significant(test, &refitted.judged) {
        Ok(how) => Ok(format!("the champion's recipe on the same past {how}")),
        Err(why) => Err(format!(
            "ndcg@10 {ndcg:.4} does not beat the champion's recipe on the same past, {why} ({})",
            champion.version
        )),
    }
}

/// The other's figure with the p-value of the difference, when the difference is a win.
fn significant(test: &Judged, other: &Judged) -> Result<String, String> {
    let figure = other.figures.ndcg;
    match test.better_than(other) {
        Ok(difference) if difference.interval.estimate > 0.0 && difference.p_value < SIGNIFICANT => {
            Ok(format!("{figure:.4} (p = {:.3})", difference.p_value))
        }
        Ok(difference) if difference.interval.estimate > 0.0 => {
            Err(format!("{figure:.4} by more than chance (p = {:.3})", difference.p_value))
        }
        Ok(_) => Err(format!("{figure:.4}")),
        Err(error) => Err(format!("{figure:.4} ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataset::{Builder, Case, Dataset, Limits},
        models::{Each, NextItem, Past},
    };

    /// Puts the right item first in so many of every ten cases, and last in the others.
    struct Right {
        of_ten: usize,
        asked: usize,
        targets: Vec<u32>,
    }

    impl NextItem for Right {
        fn kind(&self) -> &str {
            "right"
        }

        fn score_prefixes(&mut self, _: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), crate::Error> {
            for &prefix in prefixes {
                let right = self.asked % 10 < self.of_ten;
                let mut scores: Vec<f32> = (0..40_u8).map(f32::from).collect();
                scores[self.targets[self.asked] as usize] = if right { 99.0 } else { -1.0 };
                self.asked += 1;
                each(prefix, &scores)?;
            }
            Ok(())
        }
    }

    fn data() -> (Dataset, Vec<Case>) {
        let mut builder = Builder::new(Limits { events: 10_000, items: 100 });
        for customer in 0..200_i64 {
            for place in 0..2 {
                let item = (customer * 2 + place) % 39;
                builder.add(&format!("{customer:03}"), &format!("{item:02}"), place, 0, customer).unwrap();
            }
        }
        let data = builder.finish("demo").unwrap();
        let cases = (0..data.customers.len()).map(|customer| Case { customer, prefix: 1 }).collect();
        (data, cases)
    }

    fn right(of_ten: usize) -> Judged {
        let (data, cases) = data();
        let targets = cases.iter().map(|case| data.customers[case.customer].items[1]).collect();
        crate::evaluate::judge(&mut Right { of_ten, asked: 0, targets }, &data, &cases, &|| false).unwrap()
    }

    /// The champion's own figures, and those of its recipe with the kind that it is.
    type Other<'a> = (usize, Option<(usize, Option<&'a str>)>);

    fn opponents(champion: Option<Other<'_>>) -> Opponents {
        let champion = champion.map(|(own, recipe)| Champion {
            version: "v1".into(),
            as_it_is: right(own),
            refitted: recipe
                .map(|(of_ten, same)| Refitted { judged: right(of_ten), same_recipe_as: same.map(str::to_owned) }),
        });
        let baseline = |name: &str, of_ten| (name.to_owned(), right(of_ten).figures);
        Opponents { baselines: vec![baseline("popularity", 1), baseline("markov", 2)], champion }
    }

    #[test]
    fn a_model_must_beat_every_baseline_and_the_champion() {
        assert!(judge("ridge", &right(4), &opponents(None), 10).passed);
        let weak = judge("ridge", &right(2), &opponents(None), 10);
        assert_eq!((weak.passed, weak.reason.as_str()), (false, "ndcg@10 0.2000 does not beat markov's 0.2000"));
        assert!(!judge("ridge", &right(4), &opponents(Some((6, None))), 10).passed);
        assert!(!judge("ridge", &right(4), &opponents(Some((4, None))), 10).passed);
        assert!(judge("ridge", &right(6), &opponents(Some((4, None))), 10).passed);
    }

    #[test]
    fn a_lead_that_chance_explains_is_no_win() {
        let (better, mut few) = (right(4), right(3));
        few.figures.ndcg = 0.399;
        let few_cases = |of_ten: usize| {
            let (data, cases) = data();
            let cases = &cases[..12];
            let targets = cases.iter().map(|case| data.customers[case.customer].items[1]).collect();
            crate::evaluate::judge(&mut Right { of_ten, asked: 0, targets }, &data, cases, &|| false).unwrap()
        };
        let champion = Champion { version: "v1".into(), as_it_is: few_cases(4), refitted: None };
        let opponents = Opponents { baselines: vec![], champion: Some(champion) };
        let gate = judge("ridge", &few_cases(5), &opponents, 10);
        assert!(!gate.passed && gate.reason.contains("by more than chance"), "{}", gate.reason);
        assert!(better.better_than(&few).unwrap().p_value < SIGNIFICANT);
    }

    #[test]
    fn a_champion_that_has_seen_the_hold_out_is_compared_by_its_recipe() {
        assert!(judge("ridge", &right(6), &opponents(Some((9, Some((4, None))))), 10).passed);
        assert!(!judge("ridge", &right(4), &opponents(Some((9, Some((6, None))))), 10).passed);
        assert!(!judge("ridge", &right(4), &opponents(Some((9, Some((4, None))))), 10).passed);
    }

    #[test]
    fn the_champions_own_recipe_on_newer_data_may_be_as_good() {
        assert!(judge("ridge", &right(4), &opponents(Some((9, Some((4, Some("ridge")))))), 10).passed);
        assert!(!judge("ridge", &right(4), &opponents(Some((9, Some((4, Some("ligr")))))), 10).passed);
    }

    #[test]
    fn a_handful_of_cases_proves_nothing() {
        let gate = judge("ridge", &right(9), &opponents(None), 201);
        assert!(!gate.passed && gate.reason.contains("too few"), "{}", gate.reason);
    }

    #[test]
    fn a_figure_that_is_no_number_never_passes() {
        let mut unknown = right(9);
        unknown.figures.ndcg = f64::NAN;
        assert!(!judge("ridge", &unknown, &opponents(None), 10).passed);
    }
}
