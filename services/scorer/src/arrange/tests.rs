use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use rapport_placements::{Boost, Diversity, Explore, Match, NewItems};

use super::*;
use crate::pipeline::{SourceSet, Tag, fixture};

const NOW: EventTime = EventTime::from_ms(1_800_000_000_000);

pub fn picks(items: &[(&str, f32)]) -> Vec<Pick> {
    let pick = |(item, score): &(&str, f32)| Pick {
        item: (*item).into(),
        score: *score,
        sources: SourceSet::of(Tag::Sequence),
    };
    items.iter().map(pick).collect()
}

fn names(arranged: &Arranged) -> Vec<&str> {
    arranged.items.iter().map(|placed| placed.pick.item.as_str()).collect()
}

fn placement() -> Placement {
    Placement { name: "home".into(), candidates: 60, ..Placement::default() }
}

fn arranged(placement: &Placement, best: &[(&str, f32)], limit: usize) -> Arranged {
    let catalog = fixture::catalog(&[
        ("a", true, &["x"]),
        ("b", true, &["x"]),
        ("c", true, &["x", "offers"]),
        ("d", true, &["y"]),
    ]);
    let world = World { catalog: &catalog, model: None, now: NOW };
    arrange(placement, picks(best), Vec::new(), limit, &world, &mut StdRng::seed_from_u64(1))
}

const BEST: [(&str, f32); 4] = [("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0)];

#[test]
fn without_rules_nothing_moves() {
    assert_eq!(names(&arranged(&placement(), &BEST, 3)), ["a", "b", "c"]);
}

#[test]
fn a_boost_lifts_by_standard_deviations_of_the_scores() {
    // The deviation of 4, 3, 2, 1 is 1.118: half of one does not pass the next item, 1.8 pass two.
    let by = |by| Placement { boosts: vec![Boost { matches: Match::Category("offers".into()), by }], ..placement() };
    assert_eq!(names(&arranged(&by(0.5), &BEST, 4)), ["a", "b", "c", "d"]);
    let lifted = arranged(&by(1.8), &BEST, 4);
    assert_eq!(names(&lifted), ["c", "a", "b", "d"]);
    assert_eq!((lifted.items[0].boost, lifted.items[1].boost), (1.8, 0.0));
    assert_eq!(lifted.stages[0].items, 3, "three stand elsewhere than before");
    assert_eq!(names(&arranged(&by(-5.0), &BEST, 4)), ["a", "b", "d", "c"]);
}

#[test]
fn new_items_are_lifted_and_less_with_each_half_life() {
    let day = Duration::from_secs(24 * 3600);
    let catalog = fixture::catalog(&[]);
    for (item, days) in [("b", 28), ("c", 0), ("d", -3)] {
        let published = Some(EventTime::from_ms(NOW.as_ms() - days * 24 * 3_600_000));
        catalog.put(item, crate::catalog::Entry { available: true, published, ..Default::default() });
    }
    let boosts = vec![Boost { matches: Match::Fresh(14 * day), by: 4.0 }];
    let world = World { catalog: &catalog, model: None, now: NOW };
    let list = arrange(
        &Placement { boosts, ..placement() },
        picks(&BEST),
        Vec::new(),
        4,
        &world,
        &mut StdRng::seed_from_u64(1),
    );
    let lifted: Vec<(&str, f32)> = list.items.iter().map(|of| (of.pick.item.as_str(), of.boost)).collect();
    // What is not out yet is as new as can be; of a nothing is said.
    assert_eq!(lifted, [("c", 4.0), ("d", 4.0), ("b", 1.0), ("a", 0.0)]);
}

#[test]
fn a_category_has_its_most_places_while_there_are_others_and_the_list_stays_full() {
    let of = |most| Placement { diversity: Diversity { same_category: Some(most), mmr: None }, ..placement() };
    assert_eq!(names(&arranged(&of(1), &BEST, 2)), ["a", "d"]);
    assert_eq!(names(&arranged(&of(2), &BEST, 3)), ["a", "b", "d"]);
    assert_eq!(names(&arranged(&of(1), &BEST, 4)), ["a", "d", "b", "c"], "then the best of the others");
}

#[test]
fn relevance_and_unlikeness_are_weighed() {
    let of = |mmr| Placement { diversity: Diversity { same_category: None, mmr: Some(mmr) }, ..placement() };
    assert_eq!(names(&arranged(&of(0.99), &BEST, 4)), ["a", "b", "c", "d"]);
    // d is unlike a; b is wholly like it, c by half.
    assert_eq!(names(&arranged(&of(0.3), &BEST, 3)), ["a", "d", "c"]);
}

#[test]
fn items_that_the_model_holds_for_alike_are_kept_apart() {
    let mut model = LiveModel::for_tests(&["a", "b", "c", "d"], |_| Vec::new());
    // Kept on one side only, as where the other one's nearest are nearer still.
    model.neighbours = vec![vec![], vec![(2, 0.9)], vec![], vec![], vec![]];
    let catalog = fixture::catalog(&[]);
    let rules = Placement { diversity: Diversity { same_category: None, mmr: Some(0.6) }, ..placement() };
    let of = |model| {
        let world = World { catalog: &catalog, model, now: NOW };
        let list = arrange(&rules, picks(&BEST), Vec::new(), 3, &world, &mut StdRng::seed_from_u64(1));
        names(&list).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(None), ["a", "b", "c"]);
    assert_eq!(of(Some(&model)), ["a", "c", "b"]);
}

/// `n1` to `n4`, published so many days ago, in reserve.
fn with_new(rule: NewItems, explore: Option<Explore>, limit: usize) -> Vec<(String, f64)> {
    let catalog = fixture::catalog(&[]);
    let mut reserve = Vec::new();
    for (item, days) in [("n1", 20), ("n2", 1), ("n3", -2), ("n4", 3)] {
        let published = Some(EventTime::from_ms(NOW.as_ms() - days * 24 * 3_600_000));
        catalog.put(item, crate::catalog::Entry { available: true, published, ..Default::default() });
        reserve.push(Pick { item: item.into(), score: -9.0, sources: SourceSet::of(Tag::ColdStart) });
    }
    let rules = Placement { new_items: Some(rule), explore, ..placement() };
    let world = World { catalog: &catalog, model: None, now: NOW };
    let list = arrange(&rules, picks(&BEST), reserve, limit, &world, &mut StdRng::seed_from_u64(1));
    list.items.into_iter().map(|placed| (placed.pick.item, placed.propensity)).collect()
}

#[test]
fn places_are_kept_for_new_items_that_are_young_enough() {
    let of = |every, days: Option<u64>, limit| {
        let within = days.map(|days| Duration::from_secs(days * 24 * 3600));
        let list = with_new(NewItems { every, within }, None, limit);
        list.into_iter().map(|(item, _)| item).collect::<Vec<_>>()
    };
    assert_eq!(of(2, None, 4), ["a", "n1", "b", "n2"]);
    assert_eq!(of(2, Some(14), 4), ["a", "n2", "b", "n3"], "what is announced for later is new, n1 is not");
    assert_eq!(of(3, Some(2), 4), ["a", "b", "n2", "c"]);
    assert_eq!(of(5, None, 4), ["a", "b", "c", "d"], "no run is whole");
    assert_eq!(of(2, None, 1), ["a"]);
}

#[test]
fn a_new_item_that_stands_there_anyway_counts() {
    let mut best = picks(&BEST);
    best[0].sources = SourceSet::of(Tag::Trending).with(Tag::ColdStart);
    best[3].sources = SourceSet::of(Tag::ColdStart);
    let reserve = vec![Pick { item: "n".into(), score: -9.0, sources: SourceSet::of(Tag::ColdStart) }];
    let catalog = fixture::catalog(&[]);
    let world = World { catalog: &catalog, model: None, now: NOW };
    let list = |rule, best: Vec<Pick>| {
        let rules = Placement { new_items: rule, ..placement() };
        let list = arrange(&rules, best, reserve.clone(), 4, &world, &mut StdRng::seed_from_u64(1));
        (names(&list).join(" "), list.stages.last().map_or(0, |done| done.items))
    };
    let every = |every| Some(NewItems { every, within: None });
    assert_eq!(list(every(2), best.clone()), ("a b c d".into(), 0));
    best[0].sources = SourceSet::of(Tag::Sequence);
    assert_eq!(list(every(2), best.clone()), ("a d b n".into(), 2), "the candidates' own come first");
    assert_eq!(list(None, best), ("a b c d".into(), 0), "without the rule nothing moves");
}

#[test]
fn kept_places_are_certain_and_the_draws_are_among_the_others() {
    let explore = Explore { slots: 2, temperature: 0.5 };
    let list = with_new(NewItems { every: 2, within: None }, Some(explore), 4);
    let certain: Vec<(&str, f64)> = list[..2].iter().map(|(item, of)| (item.as_str(), *of)).collect();
    assert_eq!(certain, [("a", 1.0), ("n1", 1.0)]);
    for (item, propensity) in &list[2..] {
        assert!(["b", "c", "d"].contains(&item.as_str()) && *propensity < 1.0, "{item} {propensity}");
    }
}

#[test]
fn the_last_places_are_drawn_with_the_propensities_that_are_told() {
    let explore = Explore { slots: 1, temperature: 1.0 };
    let rules = Placement { explore: Some(explore), ..placement() };
    let catalog = fixture::catalog(&[]);
    let world = World { catalog: &catalog, model: None, now: NOW };
    let mut dice = StdRng::seed_from_u64(7);
    let mut drawn: std::collections::BTreeMap<String, (u32, f64)> = std::collections::BTreeMap::new();
    for _ in 0..20_000 {
        let list = arrange(&rules, picks(&BEST), Vec::new(), 2, &world, &mut dice).items;
        assert_eq!((list.len(), list[0].pick.item.as_str(), list[0].propensity), (2, "a", 1.0));
        let entry = drawn.entry(list[1].pick.item.clone()).or_default();
        *entry = (entry.0 + 1, list[1].propensity);
    }
    assert_eq!(drawn.len(), 3);
    for (item, (times, propensity)) in drawn {
        let share = f64::from(times) / 20_000.0;
        // Five standard errors.
        assert!((share - propensity).abs() < 0.018, "{item}: drawn {share}, told {propensity}");
    }
    assert_eq!(names(&arranged(&rules, &BEST, 1)), ["a"], "never the only place");
}

proptest! {
    #[test]
    fn whatever_the_rules_no_item_is_lost_twice_or_invented(
        scores in prop::collection::vec(prop_oneof![-5.0f32..5.0, Just(1.0), Just(f32::MIN)], 0..40),
        limit in 0usize..50,
        mmr in prop::option::of(0.01f32..0.99),
        same_category in prop::option::of(1usize..4),
        slots in prop::option::of(1usize..5),
        by in -10.0f32..10.0,
        new in prop::option::of((2usize..8, prop::collection::vec(any::<bool>(), 40), 0usize..10)),
        seed: u64,
    ) {
        let is_new = |n: usize| new.as_ref().is_some_and(|(_, of, _)| of[n]);
        let source = |new| SourceSet::of(if new { Tag::ColdStart } else { Tag::Sequence });
        let best: Vec<Pick> = scores.iter().enumerate().map(|(n, score)| Pick {
            item: format!("i{n}"), score: *score, sources: source(is_new(n)),
        }).collect();
        let reserve: Vec<Pick> = (0..new.as_ref().map_or(0, |(.., reserve)| *reserve)).map(|n| Pick {
            item: format!("new{n}"), score: -10.0, sources: source(true),
        }).collect();
        let entries: Vec<(String, &str)> = (0..scores.len()).map(|n| (format!("i{n}"), ["x", "y", "z"][n % 3])).collect();
        let categories: Vec<[&str; 1]> = entries.iter().map(|(_, category)| [*category]).collect();
        let listed: Vec<(&str, bool, &[&str])> =
            entries.iter().zip(&categories).map(|((item, _), of)| (item.as_str(), true, of.as_slice())).collect();
        let catalog = fixture::catalog(&listed);
        let rules = Placement {
            boosts: vec![Boost { matches: Match::Category("y".into()), by }],
            diversity: Diversity { same_category, mmr },
            explore: slots.map(|slots| Explore { slots, temperature: 0.5 }),
            new_items: new.as_ref().map(|(every, ..)| NewItems { every: *every, within: None }),
            ..placement()
        };
        let world = World { catalog: &catalog, model: None, now: NOW };
        let list = arrange(&rules, best.clone(), reserve.clone(), limit, &world, &mut StdRng::seed_from_u64(seed)).items;
        prop_assert!(list.len() >= limit.min(best.len()));
        prop_assert!(list.len() <= limit.min(best.len() + reserve.len()));
        let mut items: Vec<&str> = list.iter().map(|placed| placed.pick.item.as_str()).collect();
        items.sort_unstable();
        items.dedup();
        prop_assert_eq!(items.len(), list.len());
        for placed in &list {
            prop_assert!(best.contains(&placed.pick) || reserve.contains(&placed.pick));
            prop_assert!(placed.propensity > 0.0 && placed.propensity <= 1.0);
        }
        if let Some((every, ..)) = new {
            let there = |picks: &[Pick]| picks.iter().filter(|pick| pick.sources.holds(Tag::ColdStart)).count();
            let certain = limit - slots.unwrap_or(0).min(limit.saturating_sub(1));
            let shown: Vec<bool> =
                list.iter().take(certain).map(|placed| placed.pick.sources.holds(Tag::ColdStart)).collect();
            let runs = shown.chunks_exact(every);
            let missed = runs.filter(|run| run.iter().all(|new| !new)).count();
            let shown_in_all = shown.iter().filter(|new| **new).count();
            prop_assert!(missed == 0 || shown_in_all >= there(&best) + there(&reserve), "{:?}", shown);
        }
    }
}
