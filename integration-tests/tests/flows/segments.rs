//! Customers in segments: said once, kept by the cleaner, in features of the segment and of training rows, and in
//! what is recommended. All of it outlives a cleaner and a Redis.

use std::{fs, sync::Arc, time::Duration};

use rapport_events::{EventTime, json::to_struct};
use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{
        Broker, RedisServer, Service, Stack,
        stack::{TENANT, agent},
        wait::check,
        wait_until,
    },
};
use rapport_proto::{events::Event, features::GetFeaturesRequest, recommend::RecommendRequest};
use serde_json::{Value as Json, json};

use crate::{doors::collect, exactly_once::flush, models::in_the_log, policies::clean};

const WITHIN: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;
const POLICY: &str = "
version: 1
enrich:
  segment: {from: traits.plan, values: [free, pro]}
";
const BEFORE: &str = "
version: 1
views: [{name: plan, entity: segment, features: [{name: events, aggregate: count}]}]
";
const NEXT: &str = "
version: 1
views:
  - name: plan
    entity: segment
    features:
      - {name: events, aggregate: count}
      - {name: members, aggregate: distinct, of: customer}
      - {name: spend, aggregate: sum, where: {type: [purchase]}}
      - {name: hits, aggregate: top_k, of: item, k: 2}
    on_demand:
      - {name: over, difference: [request.price, plan.spend]}
";

struct Told {
    start: i64,
    n: usize,
}

impl Told {
    /// An event, in whose traits a plan may stand.
    fn event(&mut self, customer: &str, kind: &str, item: &str, plan: Option<&str>) -> Event {
        let mut event = interaction(&format!("e{}", self.n), kind, customer, item, self.at(self.n));
        event.value = Some(10.0);
        event.traits = plan.map(|plan| to_struct("traits", json!({ "plan": plan })).unwrap());
        self.n += 1;
        event
    }

    fn at(&self, minute: usize) -> i64 {
        self.start + minute as i64 * MINUTE_MS
    }
}

/// Events, members and spend of a segment, and the items that lead in it.
async fn plan(stack: &Stack, segment: &str) -> (Vec<f64>, Vec<String>) {
    let request =
        GetFeaturesRequest { entity: "segment".to_owned(), entity_ids: vec![segment.to_owned()], ..Default::default() };
    let mut vector = stack.feature_store().get_features(request).await.unwrap().into_inner().vectors.remove(0);
    let hits = vector.lists.pop().map(|list| list.values).unwrap_or_default();
    (vector.values, hits)
}

async fn wait_for(stack: &Stack, pro: [f64; 3], free: [f64; 3]) {
    wait_until("the features of both segments", WITHIN, async || {
        let (is_pro, is_free) = (plan(stack, "pro").await.0, plan(stack, "free").await.0);
        let same = |is: &[f64], of: [f64; 3]| is.get(..3) == Some(&of);
        check(same(&is_pro, pro) && same(&is_free, free), || format!("{is_pro:?} {is_free:?}"))
    })
    .await;
}

async fn recommended(stack: &Stack, customer: &str, segment: &str) -> (Vec<String>, Vec<String>) {
    let request = RecommendRequest {
        customer_id: customer.to_owned(),
        segment: segment.to_owned(),
        limit: 2,
        ..RecommendRequest::default()
    };
    let answer = stack.scorer().recommend(request).await.unwrap().into_inner();
    let sources = answer.items.first().map(|item| item.sources.clone()).unwrap_or_default();
    (answer.items.into_iter().map(|item| item.item_id).collect(), sources)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_said_once_and_counts_in_features_in_training_rows_and_in_what_is_recommended() {
    let redis = Arc::new(RedisServer::start("segments"));
    let mut stack = Stack::on("segments", Broker::shared(), Arc::clone(&redis));
    let policies = stack.folder().join("policies");
    let (before, next) = (stack.folder().join("before.yaml"), stack.folder().join("next.yaml"));
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join(format!("{TENANT}.yaml")), POLICY).unwrap();
    fs::write(&before, BEFORE).unwrap();
    fs::write(&next, NEXT).unwrap();
    stack.set(Service::Cleaner, "RAPPORT_POLICIES", policies.to_string_lossy());
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", before.to_string_lossy());
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    stack.set(Service::FeatureStore, "RAPPORT_SKEW_SHARE", "1");
    stack.set(Service::FeatureStore, "RAPPORT_SKEW_EVERY", "1s");
    stack.set(Service::Scorer, "RAPPORT_VIEWS", before.to_string_lossy());
    let http = format!("127.0.0.1:{}", stack.ports(Service::FeatureStore).http);
    stack.set(Service::FeatureStore, "RAPPORT_FEAST_HTTP_ADDR", &http);
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer]).await;

    // Ann says her plan once, bob says his with every event, dora one that nobody declared, and carl nothing.
    let mut told = Told { start: now_ms() - 600 * MINUTE_MS, n: 0 };
    let early = vec![
        told.event("ann", "view", "drill", Some("Pro")),
        told.event("bob", "view", "doll", Some("free")),
        told.event("carl", "view", "hit", None),
        told.event("dora", "view", "hit", Some("gold")),
        told.event("ann", "purchase", "drill", None),
        told.event("carl", "purchase", "hit", None),
    ];
    let segments = ["pro", "free", "", "", "pro", ""];
    collect(&stack, early).await;
    for (n, segment) in segments.iter().enumerate() {
        assert_eq!(clean(&stack, &format!("e{n}")).await.segment, *segment, "e{n}");
    }
    in_the_log(&stack, 6).await;
    // Another cleaner knows it as well, and new features of a segment have what they missed.
    stack.kill(Service::Cleaner);
    let (code, applied) = stack.ask(&["features", "apply", &next.to_string_lossy()]);
    assert_eq!((code, &applied["in_force"]), (Some(0), &true.into()), "{applied}");
    stack.start(&[Service::Cleaner]).await;
    let late = vec![
        told.event("ann", "view", "saw", None),
        told.event("bob", "purchase", "doll", Some("free")),
        told.event("eve", "view", "drill", Some("pro")),
    ];
    collect(&stack, late).await;
    in_the_log(&stack, 9).await;
    wait_for(&stack, [4.0, 2.0, 10.0], [2.0, 1.0, 10.0]).await;
    assert_eq!(plan(&stack, "pro").await.1, ["drill", "saw"]);
    let (code, shown) = stack.ask(&["features", "pro", "--entity", "segment", "--request", "price=50"]);
    assert_eq!((code, &shown["features"]["plan.over"]), (Some(0), &40.0.into()), "{shown}");
    let (code, shown) = stack.ask(&["history", "ann"]);
    assert_eq!((code, &shown["segment"]), (Some(0), &"pro".into()), "{shown}");

    // What is recommended: ann has had the drill and the saw, others of her plan have not.
    wait_until("what is popular in each segment", WITHIN, async || {
        let [pro, free] = [recommended(&stack, "stranger", "pro").await, recommended(&stack, "stranger", "free").await];
        check(pro.0.first().is_some_and(|item| item == "drill") && free.0 == ["doll", "drill"], || {
            format!("{pro:?} {free:?}")
        })
    })
    .await;
    let (_, sources) = recommended(&stack, "stranger", "pro").await;
    assert_eq!(sources, ["popular_in", "trending"]);
    assert_eq!(recommended(&stack, "eve", "").await.0.first().unwrap(), "saw", "popular with pro, the drill is had");
    assert_eq!(recommended(&stack, "stranger", "").await.1, ["trending"]);
    let (code, why) = stack.ask(&["explain", "eve", "saw"]);
    assert_eq!(code, Some(0), "{why}");
    assert!(why.to_string().contains("of what customers in pro like now"), "{why}");

    // Feast's clients, and training rows as of a moment.
    let body = json!({"entities": {"segment": ["pro", "gold"]}, "features": ["plan:events", "plan:members"]});
    let mut answer = agent().post(format!("http://{http}/get-online-features")).send(body.to_string()).unwrap();
    let answer: Json = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let columns: Vec<_> = answer["results"].as_array().unwrap().iter().map(|of| of["values"].clone()).collect();
    assert_eq!(columns[1..], [json!([4.0, null]), json!([2.0, null])], "{answer}");
    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.ndjson"));
    let at = |minute: usize| EventTime::from_ms(told.at(minute)).to_string();
    fs::write(&spine, format!("segment,event_timestamp,price\npro,{},5\npro,{},5\nfree,{},5\n", at(3), at(8), at(8)))
        .unwrap();
    let offline = stack.offline_folder();
    let [spine, written, offline] = [&spine, &rows, &offline].map(|path| path.to_string_lossy().into_owned());
    let arguments = ["features", "join", "--spine", &spine, "--output", &written, "--offline-url", &offline];
    let (code, joined) = stack.ask(&arguments);
    assert_eq!(code, Some(0), "{joined}");
    let rows: Vec<Json> =
        fs::read_to_string(&rows).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |row: usize| ["events", "members", "spend", "over"].map(|f| rows[row][format!("plan.{f}")].as_f64().unwrap());
    assert_eq!([of(0), of(1), of(2)], [[1.0, 1.0, 0.0, 5.0], [4.0, 2.0, 10.0, -5.0], [2.0, 1.0, 10.0, -5.0]]);

    // What was served is folded again from the log.
    let compared = |result: &str| {
        let labels = format!("result=\"{result}\"");
        stack.metric(Service::FeatureStore, "rapport_feature_store_skew_compared_total", &labels).unwrap_or_default()
    };
    wait_until("a served segment to be folded again", WITHIN, async || {
        check(compared("same") >= 1.0, || format!("{}", compared("same")))
    })
    .await;
    assert_eq!(compared("differs"), 0.0);

    // A Redis that forgets: both sides know everything again from the logs.
    flush(&redis);
    wait_for(&stack, [4.0, 2.0, 10.0], [2.0, 1.0, 10.0]).await;
    let again = told.event("ann", "view", "lamp", None);
    let id = again.event_id.clone();
    collect(&stack, vec![again]).await;
    assert_eq!(clean(&stack, &id).await.segment, "pro");
    wait_for(&stack, [5.0, 2.0, 10.0], [2.0, 1.0, 10.0]).await;
    wait_until("the trends of the segment", WITHIN, async || {
        let (items, sources) = recommended(&stack, "stranger", "pro").await;
        check(items.first().is_some_and(|item| item == "drill") && sources[0] == "popular_in", || {
            format!("{items:?} {sources:?}")
        })
    })
    .await;
}
