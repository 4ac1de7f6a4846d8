//! A part that is down does not fail a recommendation.

use std::{sync::Arc, time::Duration};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Broker, RedisServer, Service, Stack, wait::check, wait_until},
};
use rapport_proto::recommend::{RankRequest, RecommendRequest, SimilarItemsRequest};
use tonic::Code;
use tonic_types::StatusExt;

use crate::doors::{collect, make_a_trend, recommend};

const WITHIN: Duration = Duration::from_secs(30);
const ALL_BUT_TRAINER: [Service; 4] = [Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer];

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_answers_are_degraded_and_not_errors_and_all_is_well_when_it_is_back() {
    let redis = Arc::new(RedisServer::start("degraded"));
    let mut stack = Stack::on("degraded", Broker::shared(), Arc::clone(&redis));
    stack.start(&ALL_BUT_TRAINER).await;
    make_a_trend(&stack).await;
    collect(&stack, vec![interaction("known", "view", "ann", "item-1", now_ms())]).await;
    wait_until("a list for a known customer", WITHIN, async || {
        let answer = recommend(&stack, "ann", 50).await?;
        let provenance = answer.provenance.unwrap_or_default();
        check(answer.items.len() == 11 && provenance.customer_version == 1 && provenance.degraded.is_empty(), || {
            format!("{} items, {provenance:?}", answer.items.len())
        })
    })
    .await;

    redis.kill();
    // Every call, from the first on, is answered; and quickly, once the scorer knows.
    for call in 0..50 {
        let answer = recommend(&stack, "ann", 10).await.unwrap_or_else(|e| panic!("call {call} failed: {e}"));
        let degraded = answer.provenance.unwrap().degraded;
        assert!(degraded.iter().any(|part| part == "features"), "call {call}: degraded is {degraded:?}");
    }

    redis.restart();
    wait_until("answers that are whole again", WITHIN, async || {
        let answer = recommend(&stack, "ann", 50).await?;
        let provenance = answer.provenance.unwrap_or_default();
        check(provenance.degraded.is_empty() && provenance.customer_version == 1, || format!("{provenance:?}"))
    })
    .await;
    // And the stream goes on.
    collect(&stack, vec![interaction("after", "view", "ann", "item-2", now_ms())]).await;
    wait_until("an event of after the outage in the answer", WITHIN, async || {
        let provenance = recommend(&stack, "ann", 50).await?.provenance.unwrap_or_default();
        check(provenance.customer_version == 2, || format!("{provenance:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_customer_gets_what_is_trending() {
    let mut stack = Stack::new("strangers");
    stack.start(&ALL_BUT_TRAINER).await;
    make_a_trend(&stack).await;
    // One item with three times the interest of any other.
    let more = (0..60).map(|n| interaction(&format!("hit-{n}"), "view", &format!("crowd-{n}"), "hit", now_ms()));
    collect(&stack, more.collect()).await;
    let answer = wait_until("the hit on top", WITHIN, async || {
        let answer = recommend(&stack, "never seen before", 5).await?;
        check(answer.items.first().is_some_and(|item| item.item_id == "hit"), || format!("{:?}", answer.items))?;
        Ok(answer)
    })
    .await;
    assert_eq!(answer.items.len(), 5);
    for item in &answer.items {
        assert!(item.sources.iter().any(|source| source == "trending"), "{item:?}");
    }
    assert!(answer.items.windows(2).all(|pair| pair[0].score >= pair[1].score), "best first: {:?}", answer.items);
}

fn refused_field(status: &tonic::Status) -> (Code, Vec<String>) {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    (status.code(), violations.into_iter().map(|violation| violation.field).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_with_the_name_of_the_field() {
    let mut stack = Stack::new("bad-requests");
    stack.start(&[Service::Scorer]).await;
    let ask = async |change: &dyn Fn(&mut RecommendRequest)| {
        let mut request = RecommendRequest { customer_id: "ann".to_owned(), ..Default::default() };
        change(&mut request);
        refused_field(&stack.scorer().recommend(request).await.expect_err("a bad request"))
    };
    let named = |field: &str| (Code::InvalidArgument, vec![field.to_owned()]);
    assert_eq!(ask(&|r| r.customer_id.clear()).await, named("customer_id"));
    assert_eq!(ask(&|r| r.customer_id = "x".repeat(129)).await, named("customer_id"));
    assert_eq!(ask(&|r| r.limit = 501).await, named("limit"));
    assert_eq!(ask(&|r| r.exclude_item_ids = vec!["i".to_owned(); 1001]).await, named("exclude_item_ids"));

    let too_many =
        RankRequest { customer_id: "ann".to_owned(), item_ids: vec!["i".to_owned(); 1001], with_titles: false };
    assert_eq!(refused_field(&stack.scorer().rank(too_many).await.unwrap_err()), named("item_ids"));
    let unknown = SimilarItemsRequest { item_id: "no such item".to_owned(), ..Default::default() };
    assert_eq!(stack.scorer().similar_items(unknown).await.unwrap_err().code(), Code::NotFound);
}
