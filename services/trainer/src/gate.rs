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

/// The live model's recipe, trained and tested on the same split.
#[derive(Debug, Clone)]
pub struct Champion {
    pub version: String,
    pub figures: Figures,
    /// The candidate is the champion's own recipe on newer data: to be as good is enough.
    pub same_recipe_as: Option<&'static str>,
    /// How it was compared, for reports.
    pub how: &'static str,
}

/// Judges a candidate by NDCG@10 on the test part: strictly above both baselines and above the
/// champion; a refresh of the champion's own recipe must only not be below it. With fewer than
/// `min_cases` cases nothing passes.
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
        Some(champion) => {
            let refresh = champion.same_recipe_as == Some(kind);
            let enough = test.ndcg > champion.figures.ndcg || (refresh && test.ndcg >= champion.figures.ndcg);
            if !enough {
                let reason = format!(
                    "ndcg@10 {:.4} does not beat the champion's {:.4} ({}, {})",
                    test.ndcg, champion.figures.ndcg, champion.version, champion.how
                );
                return Gate { passed: false, reason };
            }
            let refreshed = if refresh { ", refreshed on newer data" } else { "" };
            beaten.push(format!("champion {:.4} ({}{refreshed})", champion.figures.ndcg, champion.how));
        }
    }
    Gate { passed: true, reason: format!("ndcg@10 {:.4} beats {}", test.ndcg, beaten.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ndcg: f64) -> Figures {
        Figures { ndcg, cases: 100, ..Figures::default() }
    }

    fn opponents(champion: Option<(f64, Option<&'static str>)>) -> Opponents {
        let champion = champion.map(|(ndcg, same_recipe_as)| Champion {
            version: "v1".into(),
            figures: figures(ndcg),
            same_recipe_as,
            how: "refitted",
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
    fn the_champions_own_recipe_on_newer_data_may_be_as_good() {
        assert!(judge("ridge", &figures(0.1), &opponents(Some((0.1, Some("ridge")))), 10).passed);
        assert!(!judge("ridge", &figures(0.1), &opponents(Some((0.1, Some("sasrec")))), 10).passed);
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
