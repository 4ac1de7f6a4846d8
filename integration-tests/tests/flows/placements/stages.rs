//! Stages that are off at a placement, with a live model and its cached lists.

use std::{collections::HashSet, fs, path::PathBuf};

use rapport_integration_tests::{
    harness::{Service, Stack, heavy, stack::TENANT, wait::check, wait_until},
    walks::Walks,
};
use rapport_proto::{
    catalog::Item,
    collect::PutItemsRequest,
    recommend::{
        ExplainRequest, RecommendPageRequest, RecommendRequest, RecommendResponse, ScoredItem,
        recommend_page_request::Slot,
    },
    train::PromoteRequest,
};

use crate::{
    doors::make_a_trend,
    models::{MODEL, WALKS, WITHIN, only, served_by, train, version, walk},
};

const RULES: &str = "
placements:
  home: {}
  own: {sources: {without: [trending, cold_start]}}
  trends: {sources: {only: [trending]}}
  again: {filters: {without: [seen]}}
  soon: {filters: {without: [unavailable]}}
  letter: {}
experiments:
  sides:
    placement: letter
    interleaved: true
    arms: [{name: own, placement: own}, {name: trends, placement: trends}]
";
const CUSTOMERS: usize = 200;
/// More than there are items, and no more than a cached list holds.
const ALL: u32 = 150;

fn asked(customer: &str, placement: &str, limit: u32) -> RecommendRequest {
    RecommendRequest { customer_id: customer.into(), placement: placement.into(), limit, ..Default::default() }
}

async fn at(stack: &Stack, customer: &str, placement: &str, limit: u32) -> RecommendResponse {
    stack.scorer().recommend(asked(customer, placement, limit)).await.expect("an answer").into_inner()
}

fn ids(items: &[ScoredItem]) -> Vec<&str> {
    items.iter().map(|item| item.item_id.as_str()).collect()
}

fn cache(answer: &RecommendResponse) -> &'static str {
    answer.provenance.as_ref().map_or("", |of| of.cache().as_str_name())
}

fn only_from(items: &[ScoredItem], sources: &[&str]) -> bool {
    items.iter().all(|item| item.sources.iter().all(|source| sources.contains(&source.as_str())))
}

async fn put(stack: &Stack, items: Vec<Item>) {
    let request = PutItemsRequest { items, ..Default::default() };
    stack.collector().put_items(request).await.expect("the catalog is taken");
}

fn item(item_id: String, available: bool) -> Item {
    Item { title: format!("The {item_id}"), item_id, available, ..Item::default() }
}

/// A ridge over what some customers did, and twelve items that it does not know and everybody likes now.
async fn stack() -> (Stack, PathBuf) {
    let mut stack = Stack::new("stages");
    let folder = stack.folder().join("placements");
    fs::create_dir(&folder).unwrap();
    let file = folder.join(format!("{TENANT}.yaml"));
    fs::write(&file, RULES).unwrap();
    stack.set(Service::Scorer, "RAPPORT_PLACEMENTS", folder.to_str().unwrap());
    stack.start(&Service::ALL).await;
    let hits = (0..12).map(|n| format!("item-{n}"));
    put(&stack, (0..WALKS.items).map(|place| WALKS.item(place)).chain(hits).map(|id| item(id, true)).collect()).await;
    walk(&stack, 0..CUSTOMERS).await;
    let result = train(&stack, only("ridge")).await;
    let version = version(&result).to_owned();
    if !result.promoted {
        let promote = PromoteRequest { name: MODEL.to_owned(), version: version.clone(), force: true };
        stack.trainer().promote(promote).await.expect("an operator may insist");
    }
    served_by(&stack, &version).await;
    make_a_trend(&stack).await;
    wait_until("the twelve to be trending", WITHIN, async || {
        let answer = at(&stack, "nobody", "trends", ALL).await;
        let hits: HashSet<String> = (0..12).map(|n| format!("item-{n}")).collect();
        let first: HashSet<String> = answer.items.iter().take(12).map(|item| item.item_id.clone()).collect();
        check(first == hits, || format!("{first:?}"))
    })
    .await;
    (stack, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_off_at_a_placement_has_no_part_in_its_lists_cached_or_not_and_that_is_told() {
    let _alone = heavy().await;
    let (stack, file) = stack().await;
    let customer = Walks::customer(4);
    let walked = WALKS.events(4..5);
    let has: HashSet<&str> = walked.iter().map(|event| event.item_id.as_str()).collect();

    // Made for the call, and then from the list that was made behind it and that everybody is served from.
    let made = at(&stack, &customer, "own", ALL).await;
    assert_eq!(cache(&made), "CACHE_MISS");
    assert!(made.items.len() > 50 && only_from(&made.items, &["ridge", "similar"]), "{:?}", made.items);
    let cached = wait_until("the same from the cache", WITHIN, async || {
        let answer = at(&stack, &customer, "own", ALL).await;
        check(cache(&answer) == "CACHE_HIT", || format!("{:?}", answer.provenance))?;
        Ok(answer)
    })
    .await;
    assert_eq!(ids(&cached.items), ids(&made.items));
    assert!(only_from(&cached.items, &["ridge", "similar"]), "{:?}", cached.items);
    let home = at(&stack, &customer, "home", ALL).await;
    assert_eq!(cache(&home), "CACHE_HIT");
    assert_eq!(ids(&home.items)[..made.items.len()], ids(&made.items));
    assert_eq!(home.items.len(), made.items.len() + 12, "the others fill it up where they are on");

    // Trends alone stand in their own order, whatever the cached list says.
    let everybody = at(&stack, "nobody", "trends", ALL).await;
    let trends = at(&stack, &customer, "trends", ALL).await;
    let expected: Vec<&str> = ids(&everybody.items).into_iter().filter(|item| !has.contains(item)).collect();
    assert_eq!(ids(&trends.items), expected);
    assert!(only_from(&trends.items, &["trending"]) && trends.provenance.unwrap().degraded.is_empty());
    let stranger = at(&stack, "nobody", "own", ALL).await;
    assert!(stranger.items.is_empty() && stranger.provenance.unwrap().degraded.is_empty());

    // Several lists of one page, and two sides of one list: each by its own switches.
    let slot = |placement: &str| Slot { placement: placement.to_owned(), limit: 5 };
    let slots = vec![slot("own"), slot("trends"), slot("home")];
    let page = RecommendPageRequest { customer_id: customer.clone(), slots, ..Default::default() };
    let lists = stack.scorer().recommend_page(page).await.unwrap().into_inner().lists;
    assert_eq!(ids(&lists[0].items), ids(&made.items)[..5]);
    assert_eq!(ids(&lists[1].items), expected[..5]);
    assert_eq!(ids(&lists[2].items), ids(&made.items)[5..10]);
    let drafted = at(&stack, &customer, "letter", 10).await;
    let side = |arm: &str| {
        let items: Vec<ScoredItem> = drafted.items.iter().filter(|item| item.arm == arm).cloned().collect();
        assert_eq!(items.len(), 5, "{:?}", drafted.items);
        items
    };
    assert!(only_from(&side("own"), &["ridge", "similar"]) && only_from(&side("trends"), &["trending"]));

    // What the customer has, and what is sold out.
    let again = at(&stack, &customer, "again", 140).await;
    let include_seen = RecommendRequest { include_seen: true, ..asked(&customer, "home", 140) };
    let include_seen = stack.scorer().recommend(include_seen).await.unwrap().into_inner();
    assert_eq!(ids(&again.items), ids(&include_seen.items));
    assert!(again.items.iter().any(|item| has.contains(item.item_id.as_str())));
    let best = made.items[0].item_id.clone();
    put(&stack, vec![item(best.clone(), false)]).await;
    wait_until("the best item to be sold out", WITHIN, async || {
        let answer = at(&stack, &customer, "home", 10).await;
        check(answer.items[0].item_id != best, || best.clone())
    })
    .await;
    assert_eq!(at(&stack, &customer, "soon", 10).await.items[0].item_id, best);

    // Why, and what an operator sees.
    let request = ExplainRequest {
        customer_id: customer.clone(),
        item_ids: vec![best, "item-3".to_owned()],
        placement: "own".to_owned(),
        limit: ALL,
    };
    let why = stack.scorer().explain(request).await.unwrap().into_inner();
    let out: Vec<&str> = why.items.iter().map(|item| item.left_out_by.as_str()).collect();
    assert_eq!(out, ["unavailable", "source"]);
    let (code, told) = stack.ask(&["explain", &customer, "--placement", "own"]);
    let stages = told["stages"].as_array().unwrap();
    let stage = |name: &str| stages.iter().find(|stage| stage["name"] == name).expect(name);
    assert_eq!((code, &stage("source:model")["outcome"]), (Some(0), &"ok".into()));
    for off in ["source:trending", "source:cold_start"] {
        assert_eq!((&stage(off)["outcome"], &stage(off)["items"]), (&"off".into(), &0.into()));
    }
    assert_eq!(stage("filter:seen")["items"], has.len(), "each item once, however many sources named it");
    assert_eq!(stage("filter:unavailable")["items"], 1);
    assert_eq!(stage("merge")["items"], made.items.len() - 1);
    let off = stack.metric(Service::Scorer, "rapport_scorer_stage_total", "outcome=\"off\"");
    assert!(off.is_some_and(|off| off > 0.0), "{off:?}");
    let file = file.to_str().unwrap();
    let (code, checked) = stack.ask(&["placements", "check", file]);
    let does = checked["files"][0]["placements"].to_string();
    assert!(code == Some(0) && does.contains("; off: trending, cold_start"), "{does}");
    fs::write(file, RULES.replace("only: [trending]", "only: [trendings]")).unwrap();
    let (code, checked) = stack.ask(&["placements", "check", file]);
    assert_eq!((code, &checked["mistakes"][0]["path"]), (Some(1), &"placements.trends.sources.only".into()));
}
