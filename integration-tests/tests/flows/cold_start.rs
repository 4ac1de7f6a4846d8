//! An item that was published after the model was trained has its place at once.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::now_ms,
    harness::{Service, Stack, heavy, stack::TENANT, wait::check, wait_until},
    walks::Walks,
};
use rapport_proto::{
    catalog::Item,
    collect::PutItemsRequest,
    recommend::{ExplainRequest, RecommendRequest, RecommendResponse, Served, reason::Kind},
    train::PromoteRequest,
};

use crate::models::{MODEL, WALKS, WITHIN, only, served_by, train, version, walk};

const RULES: &str = "
placements:
  plain: {}
  new: {new_items: {every: 5, within: 14d}}
";
const CUSTOMERS: usize = 200;
const DAY_MS: i64 = 86_400_000;

/// Items of one dozen have a word of their own.
fn title(place: usize) -> String {
    format!("The item {place} about topic{}", place / 12)
}

/// An item that was published so many days ago.
fn item(item_id: &str, title: String, days: i64) -> Item {
    let published = EventTime::from_ms(now_ms() - days * DAY_MS).to_string();
    Item {
        item_id: item_id.to_owned(),
        title,
        available: true,
        attributes: HashMap::from([("published".to_owned(), published)]),
        ..Item::default()
    }
}

async fn put(stack: &Stack, items: Vec<Item>) {
    let request = PutItemsRequest { items, ..Default::default() };
    stack.collector().put_items(request).await.expect("the catalog is taken");
}

async fn at(stack: &Stack, customer: &str, placement: &str, fresh: bool) -> RecommendResponse {
    let request = RecommendRequest {
        customer_id: customer.to_owned(),
        limit: 10,
        placement: placement.to_owned(),
        fresh,
        ..Default::default()
    };
    stack.scorer().recommend(request).await.expect("an answer").into_inner()
}

/// A stack whose scorer knows the rules, with a catalog, and a ridge over what its customers did.
async fn stack() -> Stack {
    let mut stack = Stack::new("cold_start");
    let folder: PathBuf = stack.folder().join("placements");
    fs::create_dir(&folder).unwrap();
    fs::write(Path::new(&folder).join(format!("{TENANT}.yaml")), RULES).unwrap();
    stack.set(Service::Scorer, "RAPPORT_PLACEMENTS", folder.to_str().unwrap());
    stack.start(&Service::ALL).await;
    put(&stack, (0..WALKS.items).map(|place| item(&WALKS.item(place), title(place), 400)).collect()).await;
    walk(&stack, 0..CUSTOMERS).await;
    let result = train(&stack, only("ridge")).await;
    let version = version(&result).to_owned();
    if !result.promoted {
        let promote = PromoteRequest { name: MODEL.to_owned(), version: version.clone(), force: true };
        stack.trainer().promote(promote).await.expect("an operator may insist");
    }
    served_by(&stack, &version).await;
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_item_whose_text_is_close_to_what_was_watched_has_its_kept_place_and_says_why() {
    let _alone = heavy().await;
    let stack = stack().await;
    let customer = Walks::customer(3);
    let before = wait_until("a whole list of the model", WITHIN, async || {
        let answer = at(&stack, &customer, "new", true).await;
        let whole = answer.items.len() == 10 && answer.items.iter().all(|item| item.sources[0] == "ridge");
        check(whole, || format!("{answer:?}"))?;
        Ok(answer)
    })
    .await;

    // Three new items: one about what the customer did last, one that is too old to be new here, and one about
    // something else.
    let walked = WALKS.events(3..4);
    let last = walked.last().and_then(|event| event.item_id.rsplit('-').next()).and_then(|place| place.parse().ok());
    let topic = format!("A novelty about topic{}", last.map_or(0, |place: usize| place / 12));
    let news = vec![item("novelty", topic.clone(), 1), item("dusty", topic, 60), item("other", "Cooking".into(), 1)];
    put(&stack, news).await;
    let ids = |answer: &RecommendResponse| answer.items.iter().map(|item| item.item_id.clone()).collect::<Vec<_>>();
    let with = wait_until("the new item in its place", WITHIN, async || {
        let answer = at(&stack, &customer, "new", true).await;
        check(ids(&answer)[4] == "novelty", || format!("{:?}", ids(&answer)))?;
        Ok(answer)
    })
    .await;
    assert_eq!(
        (with.items[4].sources.as_slice(), with.items[4].propensity),
        (["cold_start".to_owned()].as_slice(), 1.0)
    );
    // The others stand as before, around it.
    assert_eq!(ids(&with)[..4], ids(&before)[..4]);
    assert_eq!(ids(&with)[5..], ids(&before)[4..9]);
    let plain = at(&stack, &customer, "plain", true).await;
    assert_eq!(ids(&plain), ids(&before), "without the rule it does not come up");

    // A list that another placement had made comes with it too, from the cache.
    wait_until("the same from the cache", WITHIN, async || {
        let answer = at(&stack, &customer, "new", false).await;
        let cache = answer.provenance.as_ref().map(|of| of.cache().as_str_name()).unwrap_or_default();
        check(cache == "CACHE_HIT", || cache.to_owned())?;
        check(ids(&answer) == ids(&with), || format!("{:?}", ids(&answer)))
    })
    .await;

    let request_id = with.provenance.unwrap_or_default().request_id;
    let record = stack.broker.reader(&stack.topics.served).find("what was served", Duration::from_secs(30), |record| {
        record.decode::<Served>().provenance.unwrap_or_default().request_id == request_id
    });
    let shown = &record.decode::<Served>().items[4];
    assert_eq!((shown.item_id.as_str(), shown.sources.as_slice()), ("novelty", ["cold_start".to_owned()].as_slice()));

    let request = ExplainRequest {
        customer_id: customer,
        item_ids: ["novelty", "dusty", "other"].map(str::to_owned).to_vec(),
        placement: "new".to_owned(),
        limit: 10,
    };
    let why = stack.scorer().explain(request).await.expect("an explanation").into_inner();
    assert_eq!(why.items.iter().map(|item| item.place).collect::<Vec<_>>(), [5, 0, 0]);
    let reason = &why.items[0].reasons[0];
    assert_eq!(reason.kind(), Kind::ColdStart);
    assert!(reason.text.starts_with("new, and its text is close to that of The item"), "{reason:?}");
    assert!(why.stages.iter().any(|stage| stage.name == "source:cold_start" && stage.outcome == "ok"));
    assert_eq!((why.items[1].left_out_by.as_str(), why.items[2].left_out_by.as_str()), ("rank", "rank"));
}
