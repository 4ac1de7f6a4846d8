//! Where a list stands: rules that change without a restart, experiments that are logged, and answers to
//! the question why.

#[path = "placements/stages.rs"]
mod stages;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, stack::TENANT, wait::check, wait_until},
};
use rapport_proto::{
    catalog::Item,
    collect::PutItemsRequest,
    recommend::{
        ExplainRequest, RecommendPageRequest, RecommendRequest, RecommendResponse, Served, SessionRecommendRequest,
        reason::Kind, recommend_page_request::Slot,
    },
};

use crate::doors::{collect, make_a_trend};

const WITHIN: Duration = Duration::from_secs(30);
const ALL_BUT_TRAINER: [Service; 4] = [Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer];

const RULES: &str = "
placements:
  home: {}
  drawn: {explore: {slots: 2, temperature: 0.5}}
  even: {only_categories: [even]}
experiments:
  draw:
    placement: home
    arms: [{name: control, share: 0.5, placement: home}, {name: drawn, share: 0.5, placement: drawn}]
";

/// A scorer with placements, what is trending, and a catalog; and the file of the rules.
pub async fn stack(name: &str) -> (Stack, PathBuf) {
    let mut stack = Stack::new(name);
    let folder = stack.folder().join("placements");
    fs::create_dir(&folder).unwrap();
    let file = folder.join(format!("{TENANT}.yaml"));
    fs::write(&file, RULES).unwrap();
    stack.set(Service::Scorer, "RAPPORT_PLACEMENTS", folder.to_str().unwrap());
    stack.start(&ALL_BUT_TRAINER).await;
    make_a_trend(&stack).await;
    let item = |n: usize| Item {
        item_id: format!("item-{n}"),
        title: format!("Item {n}"),
        categories: vec![if n.is_multiple_of(2) { "even" } else { "odd" }.to_owned()],
        available: true,
        ..Item::default()
    };
    let items = PutItemsRequest { items: (0..12).map(item).collect(), ..Default::default() };
    stack.collector().put_items(items).await.expect("the catalog is taken");
    wait_until("twelve trending items with titles", WITHIN, async || {
        let answer = at(&stack, "nobody", "").await?;
        check(answer.items.len() == 12 && answer.items.iter().all(|item| !item.title.is_empty()), || {
            format!("{:?}", answer.items)
        })
    })
    .await;
    (stack, file)
}

pub async fn at(stack: &Stack, customer: &str, placement: &str) -> Result<RecommendResponse, String> {
    let request = RecommendRequest {
        customer_id: customer.to_owned(),
        limit: 12,
        with_titles: true,
        placement: placement.to_owned(),
        ..Default::default()
    };
    Ok(stack.scorer().recommend(request).await.map_err(|status| status.to_string())?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_follow_the_rules_of_their_placement_and_the_served_topic_knows_the_arm_and_the_propensity() {
    let (stack, file) = stack("placements").await;

    // Rules hold; another text holds two seconds later; a wrong one changes nothing.
    let even = at(&stack, "ann", "even").await.unwrap();
    assert_eq!(even.items.len(), 6);
    assert!(even.items.iter().all(|item| item.categories == ["even"]), "{:?}", even.items);
    assert!(at(&stack, "ann", "cart").await.unwrap_err().contains("there are: drawn, even, home"));
    fs::write(&file, format!("{}\n", RULES.replace("[even]", "[odd]"))).unwrap();
    wait_until("the new rules", WITHIN, async || {
        let odd = at(&stack, "ann", "even").await?;
        check(odd.items.iter().all(|item| item.categories == ["odd"]), || format!("{:?}", odd.items))
    })
    .await;
    fs::write(&file, "placements: {even: {candidates: -1}}").unwrap();
    wait_until("the wrong rules to be refused", WITHIN, async || {
        let refused = stack.metric(Service::Scorer, "rapport_placement_reloads_total", "refused");
        check(refused == Some(1.0), || format!("{refused:?}"))
    })
    .await;
    assert_eq!(at(&stack, "ann", "even").await.unwrap().items[0].categories, ["odd"]);

    // Each customer has one arm, and about half have each.
    let mut arms: BTreeMap<String, usize> = BTreeMap::new();
    let (mut drawn_for, mut dealt) = (None, Vec::new());
    for n in 0..240 {
        let customer = format!("dealt-{n}");
        let (first, second) =
            (at(&stack, &customer, "home").await.unwrap(), at(&stack, &customer, "home").await.unwrap());
        let (first_of, of) = (first.provenance.unwrap(), second.provenance.unwrap());
        assert_eq!((&first_of.arm, of.experiment.as_str()), (&of.arm, "draw"));
        if of.arm == "drawn" {
            drawn_for = Some((of.request_id.clone(), second.items));
        }
        dealt.push((customer, of.arm.clone(), first.items[0].item_id.clone()));
        *arms.entry(of.arm).or_default() += 1;
    }
    assert!(arms.len() == 2 && arms.values().all(|has| *has >= 80), "{arms:?}");

    arm_that_is_liked_better_wins(&stack, &dealt).await;

    // What was drawn is on the topic with its probability.
    let (request_id, shown) = drawn_for.expect("somebody has that arm");
    let record = stack.broker.reader(&stack.topics.served).find("what was served", WITHIN, |record| {
        record.decode::<Served>().provenance.unwrap_or_default().request_id == request_id
    });
    let served = record.decode::<Served>();
    let of = served.provenance.clone().unwrap();
    assert_eq!((of.placement.as_str(), of.experiment.as_str(), of.arm.as_str()), ("drawn", "draw", "drawn"));
    let propensities: Vec<f64> = served.items.iter().map(|item| item.propensity).collect();
    assert_eq!(propensities, shown.iter().map(|item| item.propensity).collect::<Vec<_>>());
    assert!(propensities[..10].iter().all(|p| *p == 1.0), "{propensities:?}");
    assert!(propensities[10] > 0.0 && propensities[10] < 1.0, "{propensities:?}");
}

/// Everybody of one arm buys what was shown first, and nobody of the other: that is told, with both
/// topics read from the broker.
async fn arm_that_is_liked_better_wins(stack: &Stack, dealt: &[(String, String, String)]) {
    let buys = dealt.iter().filter(|(_, arm, _)| arm == "drawn").map(|(customer, _, item)| {
        let mut event = interaction(&format!("buys-{customer}"), "purchase", customer, item, now_ms());
        event.value = Some(20.0);
        event
    });
    let buys: Vec<_> = buys.collect();
    let buyers = buys.len();
    collect(stack, buys).await;
    let status = wait_until("an experiment whose windows have ended", 2 * WITHIN, async || {
        let status = stack.ask(&["experiments", "recount", "draw", "--window", "15s"]).1;
        let bought = status["arms"][1]["purchased"].as_f64().unwrap_or_default();
        check(status["still_in_window"] == 0 && bought == 1.0, || status.to_string())?;
        Ok(status)
    })
    .await;
    assert_eq!((&status["arms"][1]["arm"], &status["arms"][1]["customers"]), (&"drawn".into(), &buyers.into()));
    assert_eq!((&status["arms"][0]["purchased"], &status["arms"][1]["revenue"]), (&0.0.into(), &20.0.into()));
    let differences = status["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 3);
    for of in differences {
        assert!(of["difference"]["low"].as_f64().unwrap() > 0.0, "{of}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_no_item_twice_a_visit_needs_no_customer_and_a_list_says_why() {
    let (stack, _) = stack("placements").await;
    let slot = |placement: &str, limit| Slot { placement: placement.to_owned(), limit };
    let page = RecommendPageRequest {
        customer_id: "ann".to_owned(),
        slots: vec![slot("even", 4), slot("home", 5)],
        ..Default::default()
    };
    let lists = stack.scorer().recommend_page(page).await.unwrap().into_inner().lists;
    assert_eq!(lists.iter().map(|list| list.items.len()).collect::<Vec<_>>(), [4, 5]);
    let mut items: Vec<&str> = lists.iter().flat_map(|list| &list.items).map(|item| item.item_id.as_str()).collect();
    items.sort_unstable();
    items.dedup();
    assert_eq!(items.len(), 9);

    let visit = SessionRecommendRequest { item_ids: vec!["item-1".to_owned()], limit: 50, ..Default::default() };
    let next = stack.scorer().session_recommend(visit).await.unwrap().into_inner();
    assert_eq!(next.items.len(), 11, "all but the one of the visit");
    assert!(next.items.iter().all(|item| item.item_id != "item-1"));

    collect(&stack, vec![interaction("seen-1", "view", "bob", "item-3", now_ms())]).await;
    let why = wait_until("an explanation of what was seen", WITHIN, async || {
        let items = ["item-3", "item-4", "item-99"].map(str::to_owned).to_vec();
        let request =
            ExplainRequest { customer_id: "bob".to_owned(), item_ids: items, limit: 12, ..Default::default() };
        let why = stack.scorer().explain(request).await.map_err(|status| status.to_string())?.into_inner();
        check(why.items[0].left_out_by == "seen", || format!("{:?}", why.items[0]))?;
        Ok(why)
    })
    .await;
    let (four, unknown) = (&why.items[1], &why.items[2]);
    assert!(four.place > 0 && four.title == "Item 4", "{four:?}");
    assert_eq!(four.reasons[0].kind(), Kind::Trending);
    assert!(four.reasons[0].text.contains("of what everybody likes now"));
    assert_eq!(unknown.left_out_by, "unavailable", "no catalog entry: it cannot be had");
    assert!(why.stages.iter().any(|stage| stage.name == "source:trending" && stage.outcome == "ok" && stage.items > 0));
}
