//! Whether a model may go live.

use rapport_registry::Gate;

use crate::evaluate::Figures;

/// What a candidate must beat on the test part.
#[derive(Debug, Clone, Default)]
pub struct Opponents {
    /// `popularity`, `markov`, with their figures.
    pub baselines: Vec<(&'static str, Figures)>,
    pub champion: Option<Champion>,
}

/// The live model on the same cases.
#[derive(Debug, Clone)]
pub struct Champion {
    pub version: String,
    /// Its own weights. They may have been trained on the hold-out, which flatters them: beating
    /// them is proof enough, not beating them proves nothing.
    pub as_it_is: Figures,
    /// Its recipe, trained on the same past as the candidates: the fair comparison. `None` when it
    /// was not needed, or for a model that was brought.
    pub refitted: Option<Refitted>,
}

/// A champion's recipe on the candidates' footing.
#[derive(Debug, Clone, Copy)]
pub struct Refitted {
    pub figures: Figures,
    /// The candidate of this kind *is* the champion's recipe on newer data: being as good is enough.
    pub same_recipe_as: Option<&'static str>,
}

/// Judges a candidate by NDCG@10 on the test part: strictly above both baselines, and above the
/// champion as it is or its recipe on the same footing; a refresh of the champion's own recipe must
/// only not be below it. With fewer than `min_cases` cases nothing passes.
pub fn judge(kind: &str, test: &Figures, opponents: &Opponents, min_cases: u64) -> Gate {
    if test.cases < min_cases {
        let reason = format!("{} test cases are too few to judge by, at least {min_cases} are needed", test.cases);
        return Gate { passed: false, reason };
    }
    let mut beaten = Vec::new();
    for (name, figures) in &opponents.baselines {
        if test.ndcg <= figures.ndcg {
            let reason = format!("ndcg@10 {:.4} does not beat {name}'s {:.4}", test.ndcg, figures.ndcg);
            return Gate { passed: false, reason };
        }
        beaten.push(format!("{name} {:.4}", figures.ndcg));
    }
    match &opponents.champion {
        None => beaten.push("no champion before it".into()),
        Some(champion) => match beats(kind, test.ndcg, champion) {
            Ok(how) => beaten.push(how),
            Err(reason) => return Gate { passed: false, reason },
        },
    }
    Gate { passed: true, reason: format!("ndcg@10 {:.4} beats {}", test.ndcg, beaten.join(", ")) }
}

/// How the champion is beaten, or why it is not.
fn beats(kind: &str, ndcg: f64, champion: &Champion) -> Result<String, String> {
    let own = champion.as_it_is.ndcg;
    if ndcg > own {
        return Ok(format!("the champion's {own:.4}"));
    }
    let Some(refitted) = champion.refitted else {
        return Err(format!("ndcg@10 {ndcg:.4} does not beat the champion's {own:.4} ({})", champion.version));
    };
    let recipe = refitted.figures.ndcg;
    if ndcg > recipe {
        Ok(format!("the champion's recipe on the same past {recipe:.4}"))
    } else if refitted.same_recipe_as == Some(kind) && ndcg >= recipe {
        Ok("what it was: the champion's own recipe, refreshed on newer data".into())
    } else {
        Err(format!(
            "ndcg@10 {ndcg:.4} does not beat the champion's recipe on the same past, {recipe:.4} ({})",
            champion.version
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ndcg: f64) -> Figures {
        Figures { ndcg, cases: 100, ..Figures::default() }
    }

    /// The champion's own figure, and that of its recipe with the kind that it is.
    type Other = (f64, Option<(f64, Option<&'static str>)>);

    fn opponents(champion: Option<Other>) -> Opponents {
        let champion = champion.map(|(own, recipe)| Champion {
            version: "v1".into(),
            as_it_is: figures(own),
            refitted: recipe.map(|(ndcg, same_recipe_as)| Refitted { figures: figures(ndcg), same_recipe_as }),
        });
        Opponents { baselines: vec![("popularity", figures(0.05)), ("markov", figures(0.08))], champion }
    }

    #[test]
    fn a_model_must_beat_both_baselines_and_the_champion() {
        assert!(judge("ridge", &figures(0.1), &opponents(None), 10).passed);
        let weak = judge("ridge", &figures(0.08), &opponents(None), 10);
        assert_eq!((weak.passed, weak.reason.as_str()), (false, "ndcg@10 0.0800 does not beat markov's 0.0800"));
        assert!(!judge("ridge", &figures(0.1), &opponents(Some((0.11, None))), 10).passed);
        assert!(!judge("ridge", &figures(0.1), &opponents(Some((0.1, None))), 10).passed);
        assert!(judge("ridge", &figures(0.1), &opponents(Some((0.09, None))), 10).passed);
    }

    #[test]
    fn a_champion_that_has_seen_the_hold_out_is_compared_by_its_recipe() {
        assert!(judge("ridge", &figures(0.1), &opponents(Some((0.3, Some((0.09, None))))), 10).passed);
        assert!(!judge("ridge", &figures(0.1), &opponents(Some((0.3, Some((0.11, None))))), 10).passed);
        assert!(!judge("ridge", &figures(0.1), &opponents(Some((0.3, Some((0.1, None))))), 10).passed);
    }

    #[test]
    fn the_champions_own_recipe_on_newer_data_may_be_as_good() {
        assert!(judge("ridge", &figures(0.1), &opponents(Some((0.3, Some((0.1, Some("ridge")))))), 10).passed);
        assert!(!judge("ridge", &figures(0.1), &opponents(Some((0.3, Some((0.1, Some("sasrec")))))), 10).passed);
    }

    #[test]
    fn a_handful_of_cases_proves_nothing() {
        let gate = judge("ridge", &figures(0.9), &opponents(None), 101);
        assert!(!gate.passed && gate.reason.contains("too few"), "{}", gate.reason);
    }

    #[test]
    fn a_figure_that_is_no_number_never_passes() {
        assert!(!judge("ridge", &figures(f64::NAN), &opponents(Some((0.1, None))), 10).passed);
    }
}
