//! Feast's clients read what our own service says, over gRPC and over HTTP, and are told the same when
//! something is wrong.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Broker, RedisServer, Service, Stack, stack::agent, wait::check, wait_until},
};
use rapport_proto::{
    feast::{
        serving::{
            FeatureList, FieldStatus, GetFeastServingInfoRequest, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
            get_online_features_request::Kind, serving_service_client::ServingServiceClient,
        },
        types::{RepeatedValue, Value, value::Val},
    },
    features::GetFeaturesRequest,
};
use serde_json::{Value as Json, json};
use tonic::{Code, Request};

use crate::doors::collect;

const WITHIN: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

const VIEWS: &str = "
version: 1
views:
  - name: purchases
    entity: customer
    max_age: 30d
    where: { type: [purchase] }
    features:
      - { name: spend, aggregate: sum, windows: [7d, lifetime] }
      - { name: rating, aggregate: mean, where: { type: [purchase] } }
  - name: looks
    entity: customer
    where: { type: [view] }
    features:
      - { name: count, aggregate: count }
      - { name: score, aggregate: mean }
      - { name: items, aggregate: top_k, of: item, k: 2 }
  - name: offer
    entity: customer
    on_demand:
      - { name: share, ratio: [request.price, purchases.spend_lifetime] }
      - { name: dear, bucket: request.price, bounds: [10] }
  - name: shelf
    entity: item
    features: [{ name: events, aggregate: count }]
  - name: taste
    entity: customer_category
    features: [{ name: events, aggregate: count }]
";

/// A feature store with Feast's door over HTTP and a few events: Ann buys and looks, Bob bought long ago.
async fn store(name: &str, redis: Arc<RedisServer>) -> Stack {
    let mut stack = Stack::on(name, Broker::shared(), redis);
    let views = stack.folder().join("views.yaml");
    fs::write(&views, VIEWS).unwrap();
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", views.to_string_lossy());
    let http = format!("127.0.0.1:{}", stack.ports(Service::FeatureStore).http);
    stack.set(Service::FeatureStore, "RAPPORT_FEAST_HTTP_ADDR", http);
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    let now = now_ms();
    let mut events = vec![
        interaction("e1", "purchase", "ann", "i1", now - DAY_MS),
        interaction("e2", "view", "ann", "i2", now - 60_000),
        interaction("e3", "purchase", "196", "i1", now - 40 * DAY_MS),
    ];
    events[0].value = Some(19.99);
    events[0].category = "Games".into();
    events[2].value = Some(5.0);
    collect(&stack, events).await;
    let features = [("customer", vec!["ann", "196"], 3), ("item", vec!["i1", "i2"], 3)];
    for (entity, ids, events) in features {
        wait_until("the events to be readable", WITHIN, async || {
            let request = GetFeaturesRequest {
                entity: entity.into(),
                entity_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
                ..Default::default()
            };
            let answer = stack.feature_store().get_features(request).await.map_err(|e| e.to_string())?.into_inner();
            let applied: u64 = answer.vectors.iter().map(|vector| vector.version).sum();
            check(applied == events, || format!("{applied} of {events} of {entity}"))
        })
        .await;
    }
    stack
}

fn http_url(stack: &Stack, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", stack.ports(Service::FeatureStore).http)
}

fn question(features: &[&str], entities: &[(&str, &[&str])]) -> GetOnlineFeaturesRequest {
    let column = |ids: &[&str]| {
        let val = ids.iter().map(|id| Value { val: Some(Val::StringVal((*id).to_owned())) });
        RepeatedValue { val: val.collect() }
    };
    GetOnlineFeaturesRequest {
        kind: Some(Kind::Features(FeatureList { val: features.iter().map(|f| (*f).to_owned()).collect() })),
        entities: entities.iter().map(|(key, ids)| ((*key).to_owned(), column(ids))).collect(),
        ..Default::default()
    }
}

/// A column of an answer: values, statuses, event times in ms.
type Column = (Vec<Option<f64>>, Vec<FieldStatus>, Vec<i64>);

fn columns(answer: &GetOnlineFeaturesResponse) -> BTreeMap<String, Column> {
    let names = answer.metadata.as_ref().unwrap().feature_names.as_ref().unwrap();
    let number = |value: &Value| match value.val {
        Some(Val::DoubleVal(number)) => Some(number),
        _ => None,
    };
    assert_eq!(names.val.len(), answer.results.len());
    let column = |c: &rapport_proto::feast::serving::get_online_features_response::FeatureVector| {
        let times = c.event_timestamps.iter().map(|t| t.seconds * 1000 + i64::from(t.nanos) / 1_000_000);
        (c.values.iter().map(number).collect(), c.statuses().collect(), times.collect())
    };
    names.val.iter().cloned().zip(answer.results.iter().map(column)).collect()
}

/// As Feast's package posts a question: status, headers of ours, and the body as JSON.
fn post(url: &str, tenant: Option<&str>, body: &Json) -> (u16, BTreeMap<String, String>, Json) {
    let mut request = agent().post(url).header("content-type", "application/json");
    if let Some(tenant) = tenant {
        request = request.header("x-rapport-tenant", tenant);
    }
    let mut response = request.send(body.to_string()).unwrap();
    let kept =
        |name: &&str| response.headers().get(*name).map(|v| ((*name).to_owned(), v.to_str().unwrap().to_owned()));
    let headers = ["retry-after", "x-rapport-rebuilding", "content-type"].iter().filter_map(kept).collect();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), headers, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

/// What Feast's client reads out of an error's body: the exception's class and its message.
fn exception(body: &Json) -> (String, String) {
    let inner: Json = serde_json::from_str(body.as_str().expect("a string that holds JSON")).unwrap();
    let text = |name: &str| inner[name].as_str().unwrap().to_owned();
    assert_eq!(inner["module"], "feast.errors");
    (text("class"), text("message"))
}

/// What our own service says of customers: values by name, and the newest event's time.
async fn own(stack: &Stack, ids: &[&str]) -> (Vec<String>, Vec<(Vec<f64>, Option<i64>)>) {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let request = GetFeaturesRequest { entity_ids: ids, ..Default::default() };
    let answer = stack.feature_store().get_features(request).await.unwrap().into_inner();
    let time = |t: prost_types::Timestamp| t.seconds * 1000 + i64::from(t.nanos) / 1_000_000;
    (answer.names, answer.vectors.into_iter().map(|v| (v.values, v.newest_event_time.map(time))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn feasts_clients_read_over_grpc_and_http_what_our_own_service_says() {
    use FieldStatus::{NotFound, NullValue, OutsideMaxAge, Present};
    let stack = store("feast", RedisServer::shared()).await;
    let mut client = ServingServiceClient::new(stack.channel(Service::FeatureStore));
    let info = client.get_feast_serving_info(GetFeastServingInfoRequest {}).await.unwrap().into_inner();
    assert!(info.version.starts_with("rapport-"), "{info:?}");

    let asked = || {
        question(
            &[
                "purchases:spend_7d",
                "purchases:spend_lifetime",
                "looks:count",
                "looks:score",
                "shelf:events",
                "taste:events",
            ],
            &[
                ("customer_id", &["ann", "196", "nobody"]),
                ("item_id", &["i1", "i2", "i3"]),
                ("category", &["Games", "Games", "Games"]),
            ],
        )
    };
    let full = || GetOnlineFeaturesRequest { full_feature_names: true, ..asked() };
    let answer = client.get_online_features(full()).await.unwrap().into_inner();
    let grpc = columns(&answer);
    let (names, vectors) = own(&stack, &["ann", "196", "nobody"]).await;
    let own_value = |row: usize, name: &str| {
        let at = names.iter().position(|n| n == name).unwrap();
        Some(vectors[row].0[at]).filter(|value| !value.is_nan())
    };
    let (values, statuses, times) = &grpc["purchases__spend_7d"];
    assert_eq!(*values, [own_value(0, "purchases.spend_7d"), None, None]);
    assert_eq!(values[0], Some(19.99));
    assert_eq!(*statuses, [Present, OutsideMaxAge, NotFound], "Bob's newest event is older than the view's max_age");
    assert_eq!(*times, [vectors[0].1.unwrap(), vectors[1].1.unwrap(), 0]);
    let (values, statuses, _) = &grpc["looks__count"];
    assert_eq!(*values, [own_value(0, "looks.count"), own_value(1, "looks.count"), None]);
    assert_eq!((values[0], values[1]), (Some(1.0), Some(0.0)), "a count of nothing is a value");
    assert_eq!(*statuses, [Present, Present, NotFound]);
    assert_eq!(grpc["looks__score"].1, [NullValue, NullValue, NotFound], "a mean of nothing is none");
    assert_eq!(grpc["shelf__events"].0, [Some(2.0), Some(1.0), None]);
    assert_eq!(grpc["taste__events"].1, [Present, NotFound, NotFound]);

    // Two features are called `events`: the answer cannot name both by their short names.
    let short = client.get_online_features(asked()).await.unwrap_err();
    assert_eq!(short.code(), Code::InvalidArgument);
    assert!(short.message().starts_with("features: two are named \"events\""), "{short}");
    let unknown = client.get_online_features(question(&["sales:sum"], &[("customer_id", &["ann"])])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.message().starts_with("features[0]: \"sales\" is no view"), "{unknown}");

    // Over HTTP, with the body that the package sends (feast 0.67, infra/online_stores/remote.py).
    let body = json!({
        "entities": {
            "customer_id": ["ann", 196, "nobody"], "item_id": ["i1", "i2", "i3"], "category": ["Games", "Games", "Games"],
        },
        "full_feature_names": true,
        "include_feature_view_version_metadata": false,
        "features": ["purchases:spend_7d", "purchases:spend_lifetime", "looks:count", "looks:score", "shelf:events", "taste:events"],
    });
    let (status, headers, over_http) = post(&http_url(&stack, "/get-online-features"), None, &body);
    assert_eq!((status, headers["content-type"].as_str()), (200, "application/json"), "{over_http}");
    let names = over_http["metadata"]["feature_names"].as_array().unwrap();
    assert_eq!(over_http["results"][1]["values"], json!(["ann", 196, "nobody"]), "ids come back as they were sent");
    for (name, column) in names.iter().zip(over_http["results"].as_array().unwrap()).skip(3) {
        let (values, statuses, times) = &grpc[name.as_str().unwrap()];
        assert_eq!(column["values"], json!(values), "{name}");
        let by_name: Vec<_> = statuses.iter().map(FieldStatus::as_str_name).collect();
        assert_eq!(column["statuses"], json!(by_name), "{name}");
        for (text, ms) in column["event_timestamps"].as_array().unwrap().iter().zip(times) {
            let time = rapport_events::EventTime::parse_rfc3339(text.as_str().unwrap()).unwrap();
            assert_eq!(time.as_ms(), *ms, "{name}");
        }
    }

    // The same question again, after others: no read changes what another one is answered.
    let again = columns(&client.get_online_features(full()).await.unwrap().into_inner());
    assert_eq!(again, grpc);

    // Another tenant knows nobody, whether metadata, a header or the path names it.
    let mut elsewhere = Request::new(full());
    elsewhere.metadata_mut().insert("x-rapport-tenant", "other".parse().unwrap());
    let other = columns(&client.get_online_features(elsewhere).await.unwrap().into_inner());
    assert_eq!(other["purchases__spend_7d"].1, [NotFound; 3]);
    for (path, tenant) in [("/get-online-features", Some("other")), ("/other/get-online-features", None)] {
        let (status, _, other) = post(&http_url(&stack, path), tenant, &body);
        assert_eq!(
            (status, &other["results"][3]["statuses"]),
            (200, &json!(["NOT_FOUND", "NOT_FOUND", "NOT_FOUND"])),
            "{other}"
        );
    }

    for (body, status, class, said) in [
        (
            json!({"entities": {"customer_id": ["ann"]}, "features": ["sales:sum"]}),
            404,
            "FeatureViewNotFoundException",
            "features[0]: \"sales\" is no view",
        ),
        (
            json!({"entities": {"driver": ["ann"]}, "features": ["looks:count"]}),
            404,
            "EntityNotFoundException",
            "entities.driver: is no join key",
        ),
        (
            json!({"entities": {"customer_id": [1.5]}, "features": ["looks:count"]}),
            400,
            "FeastError",
            "entities.customer_id[0]: must be text",
        ),
        (json!({"features": ["looks:count"]}), 400, "FeastError", "body: missing field `entities`"),
        (
            json!({"entities": {}, "features": ["x".repeat(2 << 20)]}),
            400,
            "FeastError",
            "body: broke off, or has more than",
        ),
    ] {
        let (answered, _, refused) = post(&http_url(&stack, "/get-online-features"), None, &body);
        let (kind, message) = exception(&refused);
        assert_eq!((answered, kind.as_str()), (status, class), "{message}");
        assert!(message.starts_with(said), "{message}");
    }
    assert!(stack.metric(Service::FeatureStore, "rapport_feature_store_feast_http_seconds_count", "200").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn feasts_clients_are_told_when_the_store_is_away_or_being_made_anew() {
    let redis = Arc::new(RedisServer::start("feast-away"));
    let stack = store("feast-away", Arc::clone(&redis)).await;
    let mut client = ServingServiceClient::new(stack.channel(Service::FeatureStore));
    let asked = || question(&["looks:count"], &[("customer_id", &["ann"])]);
    let body = json!({"entities": {"customer_id": ["ann"]}, "features": ["looks:count"], "full_feature_names": false});
    let url = http_url(&stack, "/get-online-features");

    // Of a partition that nobody has, so that its note stays.
    let key = format!("{}:{{_}}:rebuilding", stack.key_prefix());
    let mut connection = redis.client().get_connection().unwrap();
    let _: () = redis::cmd("HSET").arg(&key).arg("p99").arg("1/2").query(&mut connection).unwrap();
    wait_until("answers to say that the store is being made anew", WITHIN, async || {
        let answer = client.get_online_features(asked()).await.map_err(|e| e.to_string())?;
        let over_grpc = answer.metadata().get("x-rapport-rebuilding").and_then(|v| v.to_str().ok());
        let (_, headers, _) = post(&url, None, &body);
        let over_http = headers.get("x-rapport-rebuilding").map(String::as_str);
        check((over_grpc, over_http) == (Some("0.50"), Some("0.50")), || format!("{over_grpc:?} and {over_http:?}"))
    })
    .await;

    redis.kill();
    let failed = client.get_online_features(asked()).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "{failed}");
    let (status, headers, refused) = post(&url, None, &body);
    assert_eq!((status, headers["retry-after"].as_str()), (503, "1"));
    assert_eq!(exception(&refused), ("FeastError".into(), "the online store does not answer".into()));
    redis.restart();
    wait_until("reads to go on", WITHIN, async || {
        let answer = client.get_online_features(asked()).await.map_err(|e| e.to_string())?;
        check(answer.get_ref().results.len() == 2, || "no column".into())
    })
    .await;
}

/// The package in an environment of its own: with what it depends on it takes 600 MB, so only
/// `setup.sh --feast` installs it.
fn feasts_python() -> Option<PathBuf> {
    let cache = std::env::var_os("RAPPORT_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/rapport")))?;
    Some(cache.join("feast-venv/bin/python")).filter(|python| python.is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn feasts_own_package_reads_through_its_remote_online_store_and_its_own_stub() {
    let Some(python) = feasts_python() else {
        eprintln!("skipped: the package feast is not installed; deploy/dev/setup.sh --feast does that");
        return;
    };
    let stack = store("feast-package", RedisServer::shared()).await;
    let asked = json!({
        "features": ["purchases:spend_7d", "looks:score", "looks:count", "looks:items", "offer:share", "offer:dear"],
        "entities": {"customer_id": ["ann", 196, "nobody"], "price": [39.98, 1.25, 10.0]},
        "full_feature_names": true,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/feast_read.py");
    let output = Command::new(python)
        .arg(script)
        .arg(http_url(&stack, ""))
        .arg(format!("127.0.0.1:{}", stack.ports(Service::FeatureStore).grpc))
        .arg(asked.to_string())
        .env("FEAST_USAGE", "False")
        .current_dir(stack.folder())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read: Json = serde_json::from_slice(&output.stdout).unwrap();
    let values = json!({
        "customer_id": ["ann", 196, "nobody"],
        "purchases__spend_7d": [19.99, null, null],
        "looks__score": [null, null, null],
        "looks__count": [1.0, 0.0, null],
        "looks__items": [["i2"], null, null],
        "offer__share": [2.0, 0.25, null],
        "offer__dear": [1.0, 0.0, 1.0],
    });
    let statuses = json!([[1, 1, 1], [1, 4, 3], [2, 2, 3], [1, 1, 3], [1, 2, 3], [1, 1, 3], [1, 1, 1]]);
    assert_eq!(read["http"]["values"], values);
    assert_eq!(read["http"]["statuses"], statuses);
    assert_eq!(read["http"]["refused"]["class"], "FeatureViewNotFoundException", "{read}");
    assert_eq!(read["view"]["values"], json!([19.99, null, null]));
    assert_eq!(read["grpc"]["values"], values);
    assert_eq!(read["grpc"]["statuses"], statuses);
    let (_, vectors) = own(&stack, &["ann"]).await;
    assert_eq!(read["grpc"]["event_ms"][1][0], json!(vectors[0].1.unwrap()));
}
