//! A file's text into placements, with every mistake in it and not only the first.

mod experiment;
mod placement;
mod stages;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::Deserialize;

use self::{
    experiment::{WrittenArm, WrittenExperiment, experiment},
    placement::{WrittenPlacement, placement},
};
use crate::TenantPlacements;

const NAME_BYTES: usize = 64;

/// What is wrong, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    /// `placements.home.explore.slots`; empty for the file as a whole.
    pub path: String,
    pub reason: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}: {}", self.file, self.reason),
            path => write!(f, "{}: {path}: {}", self.file, self.reason),
        }
    }
}

/// Every mistake of a file or a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    pub(crate) fn one(file: &str, reason: impl Into<String>) -> Self {
        Self(vec![Mistake { file: file.to_owned(), path: String::new(), reason: reason.into() }])
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    placements: BTreeMap<String, WrittenPlacement>,
    #[serde(default)]
    experiments: BTreeMap<String, WrittenExperiment>,
}

/// Collects mistakes under a path.
struct Check<'a> {
    file: &'a str,
    found: Vec<Mistake>,
}

impl Check<'_> {
    fn that(&mut self, right: bool, path: &str, reason: impl FnOnce() -> String) {
        if !right {
            self.found.push(Mistake { file: self.file.to_owned(), path: path.to_owned(), reason: reason() });
        }
    }

    fn name(&mut self, path: &str, name: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let right = !name.is_empty() && name.len() <= NAME_BYTES && name.chars().all(plain);
        self.that(right, path, || format!("{name:?} must be 1 to {NAME_BYTES} of a-z, A-Z, 0-9, '-', '_' and '.'"));
    }
}

pub(crate) fn placements(file: &str, text: &str) -> Result<TenantPlacements, Mistakes> {
    let yaml = serde_yaml_ng::Deserializer::from_str(text);
    let written: WrittenFile = serde_path_to_error::deserialize(yaml).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let reason = error.into_inner().to_string();
        // The parser names the place too, where it has one.
        let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(&reason).to_owned();
        Mistakes(vec![Mistake { file: file.to_owned(), path, reason }])
    })?;
    let mut check = Check { file, found: Vec::new() };
    let placements: BTreeMap<_, _> = written
        .placements
        .into_iter()
        .map(|(name, of)| (name.clone(), Arc::new(placement(&mut check, name, of))))
        .collect();
    let mut on = BTreeMap::new();
    let mut experiments = BTreeMap::new();
    for (name, of) in written.experiments {
        let at = format!("experiments.{name}");
        check.name(&at, &name);
        let known = |placement: &str| placements.contains_key(placement);
        let names = || placements.keys().cloned().collect::<Vec<_>>().join(", ");
        check.that(known(&of.placement), &format!("{at}.placement"), || {
            format!("{:?} is not declared; there are: {}", of.placement, names())
        });
        for (n, arm) in of.arms.iter().enumerate() {
            check.that(known(&arm.placement), &format!("{at}.arms[{n}].placement"), || {
                format!("{:?} is not declared; there are: {}", arm.placement, names())
            });
        }
        if let Some(other) = on.insert(of.placement.clone(), name.clone()) {
            check.that(false, &format!("{at}.placement"), || {
                format!("{:?} is under experiment {other:?} already; a placement has one at a time", of.placement)
            });
        }
        if let (true, [one, other]) = (of.interleaved, of.arms.as_slice()) {
            // One list of candidates serves both.
            let rules =
                |arm: &WrittenArm| placements.get(&arm.placement).map(|of| (&of.only_categories, &of.never_categories));
            check.that(rules(one) == rules(other), &format!("{at}.arms"), || {
                "arms that draft together must want, and never show, the same categories".into()
            });
        }
        experiments.insert(name.clone(), experiment(&mut check, &at, name, of));
    }
    if check.found.is_empty() { Ok(TenantPlacements { placements, experiments }) } else { Err(Mistakes(check.found)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{GuardRail, INTERLEAVED, Judged, Match, Metric, Model, NewItems, Placement, SOURCES};

    const EXAMPLE: &str = include_str!("../../../../deploy/placements/example.yaml");

    fn mistakes(text: &str) -> Vec<String> {
        let Err(Mistakes(found)) = placements("t.yaml", text) else { panic!("passed: {text}") };
        found.into_iter().map(|mistake| mistake.to_string()).collect()
    }

    #[test]
    fn the_example_is_right_and_shows_everything() {
        let read = placements("example.yaml", EXAMPLE).unwrap();
        let home = read.resolve("home", "ann", |_, _| false).unwrap();
        let all: Vec<&Placement> = read.placements().map(AsRef::as_ref).collect();
        assert!(all.iter().any(|p| p.explore.is_some()) && all.iter().any(|p| p.diversity.mmr.is_some()));
        assert!(all.iter().any(|p| p.narrows()) && all.iter().any(|p| p.boosts.len() == 4));
        assert!(all.iter().any(|p| p.new_items.as_ref().is_some_and(|of| of.within.is_some())));
        assert!(all.iter().any(|p| !p.stages.all_on()) && all.iter().any(|p| !p.stages.budgets.is_empty()));
        assert!(home.experiment.is_some(), "all customers take part");
        assert_eq!(read.resolve("nowhere", "ann", |_, _| false), None);
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        let found = mistakes(
            "placements:\n  home:\n    candidates: 0\n    boosts: [{by: 1}, {category: a, by: 99}]\n    diversity: {mmr: 1}\n    explore: {slots: 60, temperature: 0}\nexperiments:\n  e:\n    placement: hom\n    arms: [{name: a, share: 0.5, placement: home}, {name: a, share: 0.4, placement: x}]\n",
        );
        let expected = [
            "t.yaml: placements.home.candidates: must be 1 to 500, is 0",
            "t.yaml: placements.home.boosts[0]: needs exactly one of category, source, items and fresh",
            "t.yaml: placements.home.boosts[1].by: must be -10 to 10 standard deviations, is 99",
            "t.yaml: placements.home.diversity.mmr: must be above 0 and below 1 (the weight of the score), is 1",
            "t.yaml: placements.home.explore.slots: must be at least 1 and below candidates (0), is 60",
            "t.yaml: placements.home.explore.temperature: must be above 0, is 0",
            "t.yaml: experiments.e.placement: \"hom\" is not declared; there are: home",
            "t.yaml: experiments.e.arms[1].placement: \"x\" is not declared; there are: home",
            "t.yaml: experiments.e.arms[1].name: \"a\" stands twice",
            "t.yaml: experiments.e.arms: their shares must add up to 1, they add up to 0.9",
        ];
        assert_eq!(found, expected);
        assert!(mistakes("placements: {home: {candidate: 3}}")[0].contains("placements.home.candidate"));
        let [negative] = mistakes("placements: {home: {candidates: -1}}").try_into().unwrap();
        assert!(negative.starts_with("t.yaml: placements.home.candidates: invalid type: integer"), "{negative}");
    }

    #[test]
    fn a_stopped_arm_gets_the_controls_rules_and_takes_no_part_any_more() {
        let text = "placements: {home: {}, varied: {}}\nexperiments: {e: {placement: home, arms: [{name: a, share: 0.5, \
                    placement: home}, {name: b, share: 0.5, placement: varied}]}}";
        let read = placements("t.yaml", text).unwrap();
        let names = (0..100).map(|n| n.to_string());
        let has = |name: &str, stopped: bool| {
            let of = read.resolve("home", name, |experiment, arm| stopped && (experiment, arm) == ("e", "b")).unwrap();
            (of.placement.name.clone(), of.experiment.map(|(_, arm)| arm))
        };
        let (mut kept, mut moved) = (0, 0);
        for name in names {
            match has(&name, false) {
                (_, Some(arm)) if arm == "b" => {
                    moved += 1;
                    assert_eq!(has(&name, true), ("home".to_owned(), None));
                }
                of => {
                    kept += 1;
                    assert_eq!(has(&name, true), of);
                }
            }
        }
        assert!(kept > 20 && moved > 20, "{kept} {moved}");
    }

    #[test]
    fn two_arms_draft_together_and_are_stopped_together() {
        let text = "placements: {home: {}, varied: {}}\nexperiments: {e: {placement: home, interleaved: true, arms: [{name: \
                    a, placement: home}, {name: b, placement: varied}]}}";
        let read = placements("t.yaml", text).unwrap();
        let of = read.resolve("home", "ann", |_, _| false).unwrap();
        let draft = of.draft.unwrap();
        assert_eq!((of.placement.name.as_str(), draft.against.name.as_str()), ("home", "varied"));
        assert_eq!((of.experiment, draft.arms), (Some(("e".into(), INTERLEAVED.into())), ["a".into(), "b".into()]));
        let stopped = read.resolve("home", "ann", |_, arm| arm == "b").unwrap();
        assert_eq!((stopped.placement.name.as_str(), stopped.experiment, stopped.draft), ("home", None, None));
        let differ = text.replace("varied: {}", "varied: {only_categories: [x]}");
        assert!(mistakes(&differ)[0].ends_with("must want, and never show, the same categories"));
        let wrong = text
            .replace("name: b", "name: b, share: 0.5")
            .replace("interleaved", "guard_rails: [{metric: acted}], interleaved");
        assert_eq!(
            mistakes(&wrong),
            [
                "t.yaml: experiments.e.arms: arms that draft together have no shares",
                "t.yaml: experiments.e.guard_rails: are for arms that have customers of their own, not for ones that draft together",
            ]
        );
    }

    #[test]
    fn how_an_experiment_is_judged_is_read_and_checked() {
        let text = |more: &str| {
            format!(
                "placements: {{p: {{}}}}\nexperiments: {{e: {{placement: p, {more}, arms: [{{name: a, share: 0.5, \
                 placement: p}}, {{name: b, share: 0.5, placement: p}}]}}}}"
            )
        };
        let read = placements(
            "t.yaml",
            &text("window: 2h, purchase: order, alpha: 0.01, guard_rails: [{metric: revenue, at_most_worse: 0.05}]"),
        );
        let read = read.unwrap();
        let (_, of) = read.experiments().next().unwrap();
        let rails = vec![GuardRail { metric: Metric::Revenue, at_most_worse: 0.05 }];
        let expected =
            Judged { window: Duration::from_secs(7200), purchase: "order".into(), alpha: 0.01, guard_rails: rails };
        assert_eq!(of.judged, expected);
        for (more, named) in [
            ("window: soon", "experiments.e.window"),
            ("window: 91d", "experiments.e.window: must be 1s to 90 days"),
            ("alpha: 1", "experiments.e.alpha"),
            ("purchase: ''", "experiments.e.purchase"),
            ("guard_rails: [{metric: acted, at_most_worse: 5}]", "guard_rails[0].at_most_worse"),
            ("guard_rails: [{metric: luck}]", "guard_rails[0].metric"),
        ] {
            let found = mistakes(&text(more));
            assert!(found.iter().any(|mistake| mistake.contains(named)), "{named}: {found:?}");
        }
    }

    #[test]
    fn how_long_an_item_is_new_is_read_and_checked() {
        let text = |fresh: &str| format!("placements: {{p: {{boosts: [{{fresh: {fresh}, by: 1}}]}}}}");
        let read = placements("t.yaml", &text("14d")).unwrap();
        let boost = &read.placements().next().unwrap().boosts[0];
        assert_eq!(boost.matches, Match::Fresh(Duration::from_secs(14 * 24 * 3600)));
        for wrong in ["soon", "1s", "100years"] {
            assert!(mistakes(&text(wrong))[0].starts_with("t.yaml: placements.p.boosts[0].fresh: "), "{wrong}");
        }
    }

    #[test]
    fn places_for_new_items_are_read_and_checked() {
        let text = |rule: &str| format!("placements: {{p: {{new_items: {{{rule}}}}}}}");
        let of = |rule: &str| placements("t.yaml", &text(rule)).unwrap().placements().next().unwrap().new_items.clone();
        let fortnight = Some(Duration::from_secs(14 * 24 * 3600));
        assert_eq!(of("every: 5, within: 14d"), Some(NewItems { every: 5, within: fortnight }));
        assert_eq!(of("every: 2"), Some(NewItems { every: 2, within: None }));
        for (wrong, named) in
            [("every: 1", "every: must be 2 to 500, is 1"), ("every: 5, within: 1s", "within: must be 1 minute")]
        {
            let found = mistakes(&text(wrong));
            assert!(found[0].starts_with(&format!("t.yaml: placements.p.new_items.{named}")), "{found:?}");
        }
        assert!(mistakes(&text("within: 14d"))[0].contains("missing field `every`"));
    }

    #[test]
    fn a_placement_may_ask_the_version_on_trial_and_then_its_lists_are_its_own() {
        let text = "placements: {home: {}, trial: {model: trial}}\nexperiments: {e: {placement: home, interleaved: true, \
                    arms: [{name: a, placement: home}, {name: b, placement: trial}]}}";
        let read = placements("t.yaml", text).unwrap();
        let models: Vec<_> = read.placements().map(|of| (of.model, of.shares_lists())).collect();
        assert_eq!(models, [(Model::Live, true), (Model::Trial, false)]);
        let of = read.resolve("home", "ann", |_, _| false).unwrap();
        let sides = of.sides().unwrap().map(|side| side.placement.model);
        assert_eq!(sides, [Model::Live, Model::Trial], "each has candidates of its own");
        assert!(mistakes("placements: {p: {model: newest}}")[0].contains("unknown variant `newest`"));
        let off = mistakes("placements: {p: {model: trial, sources: {without: [model]}}}");
        assert_eq!(
            off,
            ["t.yaml: placements.p.model: says which model is asked, and the source model is off at this placement"]
        );
    }

    #[test]
    fn stages_are_switched_by_their_names_and_a_switch_that_leaves_no_source_is_refused() {
        let text = |rules: &str| format!("placements: {{p: {{{rules}}}}}");
        let of = |rules: &str| placements("t.yaml", &text(rules)).unwrap().placements().next().unwrap().stages.clone();
        let some = of("sources: {without: [cold_start, trending]}, filters: {without: [seen]}, budgets: {model: 8ms}");
        assert_eq!(
            (some.without_sources.as_slice(), some.without_filters.as_slice()),
            (&["trending", "cold_start"][..], &["seen"][..])
        );
        assert_eq!((some.asks("model"), some.asks("trending"), some.applies("seen")), (true, false, false));
        assert_eq!((some.budget("model"), some.budget("similar")), (Some(Duration::from_millis(8)), None));
        let only = of("sources: {only: [trending]}");
        assert!(SOURCES.iter().all(|source| only.asks(source) == (*source == "trending")));
        assert!(of("").all_on());
        let known = SOURCES.join(", ");
        for (wrong, told) in [
            ("sources: {without: [trendin]}", format!("sources.without: \"trendin\" is no source; there are: {known}")),
            ("sources: {only: [caller]}", format!("sources.only: \"caller\" is no source; there are: {known}")),
            ("sources: {only: []}", format!("sources: leaves none; at least one must stay of: {known}")),
            (
                &format!("sources: {{without: [{known}]}}"),
                format!("sources: leaves none; at least one must stay of: {known}"),
            ),
            ("sources: {}", "sources: needs exactly one of only and without".to_owned()),
            ("sources: {only: [model], without: [model]}", "sources: needs exactly one of only and without".to_owned()),
            (
                "filters: {without: [category]}",
                "filters.without: \"category\" is no filter that can be off; there are: seen, unavailable".to_owned(),
            ),
            ("budgets: {modl: 8ms}", format!("budgets.modl: \"modl\" is no source; there are: {known}")),
            ("budgets: {model: 0s}", "budgets.model: must be 1ms to 1 minute, is 0ns".to_owned()),
            (
                "sources: {only: [trending]}, budgets: {model: 8ms}",
                "budgets.model: the source is off at this placement".to_owned(),
            ),
            (
                "sources: {without: [cold_start]}, new_items: {every: 5}",
                "new_items: keeps places for what the source cold_start finds, which is off at this placement"
                    .to_owned(),
            ),
        ] {
            assert_eq!(mistakes(&text(wrong)), [format!("t.yaml: placements.p.{told}")], "{wrong}");
        }
        assert!(mistakes(&text("budgets: {model: soon}"))[0].starts_with("t.yaml: placements.p.budgets.model: "));
        assert!(mistakes(&text("filters: {only: [seen]}"))[0].contains("placements.p.filters"));
    }

    #[test]
    fn arms_that_draft_together_have_lists_of_their_own_where_their_stages_differ() {
        let text = |stages: &str| {
            format!(
                "placements: {{p: {{}}, q: {{{stages}}}}}\nexperiments: {{e: {{placement: p, interleaved: true, arms: \
                 [{{name: a, placement: p}}, {{name: b, placement: q}}]}}}}"
            )
        };
        let sides = |stages: &str| {
            placements("t.yaml", &text(stages)).unwrap().resolve("p", "ann", |_, _| false).unwrap().sides()
        };
        assert_eq!(sides("diversity: {mmr: 0.5}"), None);
        let [one, other] = sides("sources: {without: [trending]}").unwrap();
        assert_eq!((one.placement.name.as_str(), other.placement.name.as_str()), ("p", "q"));
        assert!(one.draft.is_none() && other.draft.is_none());
    }

    #[test]
    fn a_placement_is_under_one_experiment_at_a_time() {
        let arms = "arms: [{name: a, share: 0.5, placement: p}, {name: b, share: 0.5, placement: p}]";
        let text = format!(
            "placements: {{p: {{}}}}\nexperiments:\n  x: {{placement: p, {arms}}}\n  y: {{placement: p, {arms}}}\n"
        );
        assert!(mistakes(&text)[0].contains("is under experiment \"x\" already"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            if let Err(Mistakes(found)) = placements("t.yaml", &text) {
                prop_assert!(!found.is_empty(), "a refusal says why");
            }
        }
    }
}
