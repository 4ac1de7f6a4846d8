//! Gorse's own client, unchanged, against the scorer: what it writes is what the mesh knows, and what it
//! reads is what the recommender says.

use std::{collections::BTreeSet, time::Duration};

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::now_ms,
    harness::{
        Service, Stack, heavy,
        others::{Client, Refused},
        stack::{self, API_KEY},
        wait::check,
        wait_until,
    },
    offline,
    walks::Walks,
};
use serde_json::{Value, json};

use crate::models::{WALKS, only, served_by, train, version};

const WITHIN: Duration = Duration::from_secs(60);
const CUSTOMERS: usize = 60;

fn client(stack: &Stack, key: &str) -> Client {
    Client::start("conformance/venv", "gorse_python.py", &[&url(stack, ""), key])
}

/// The ids of a list, in its order.
fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one["Id"].as_str().unwrap().to_owned()).collect()
}

fn recommended(gorse: &mut Client, user: &str) -> Vec<String> {
    ids(&gorse.call("get_recommend", json!({"user_id": user, "n": 10})).unwrap())
}

fn url(stack: &Stack, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", stack.ports(Service::Scorer).http)
}

/// What a GET with the key gives: the status, and the JSON or the text.
fn get(stack: &Stack, path: &str) -> (u16, Value) {
    let call = stack::agent().get(url(stack, path)).header("X-API-Key", API_KEY).call();
    let mut response = call.unwrap();
    let body = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

fn status(refused: Result<Value, Refused>) -> String {
    refused.unwrap_err().0
}

/// Waits until the offline log holds so many events.
async fn logged(stack: &Stack, expected: usize) {
    wait_until("the feedback in the offline log", WITHIN, async || {
        let found = offline::event_ids(stack).len();
        check(found == expected, || format!("{found} of {expected}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gorses_own_client_fills_the_mesh_and_is_recommended_what_it_wrote() {
    let _alone = heavy().await;
    let mut stack = Stack::new("gorse");
    let addr = format!("127.0.0.1:{}", stack.ports(Service::Scorer).http);
    stack.set(Service::Scorer, "RAPPORT_GORSE_ADDR", addr);
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    // No collector: the scorer's door writes by itself.
    stack.start(&[Service::Cleaner, Service::FeatureStore, Service::Trainer, Service::Scorer]).await;
    let mut gorse = client(&stack, API_KEY);

    // Who is not known gets nowhere.
    let mut stranger = client(&stack, "wrong-key");
    assert_eq!(status(stranger.call("get_recommend", json!({"user_id": "ann"}))), "401");
    assert_eq!(status(stranger.call("insert_item", json!({"item": {"ItemId": "x"}}))), "401");

    // Items are there for whoever reads next.
    for n in 0..WALKS.items {
        let category = if n % 2 == 0 { "even" } else { "odd" };
        let day = format!("2026-01-{:02}", n % 28 + 1);
        let item = json!({
            "ItemId": WALKS.item(n), "IsHidden": false, "Categories": [category], "Timestamp": day,
            "Labels": {"place": n}, "Comment": format!("Item {n}"),
        });
        assert_eq!(gorse.call("insert_item", json!({ "item": item })).unwrap(), json!({"RowAffected": 1}));
    }
    let item = gorse.call("get_item", json!({"item_id": "item-0007"})).unwrap();
    assert_eq!(
        (&item["Comment"], &item["Categories"], &item["Labels"]["place"]),
        (&json!("Item 7"), &json!(["odd"]), &json!(7))
    );
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = gorse.call("get_items", json!({"n": 50, "cursor": cursor})).unwrap();
        seen.extend(page[0].as_array().unwrap().iter().map(|item| item["ItemId"].as_str().unwrap().to_owned()));
        cursor = page[1].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, (0..WALKS.items).map(|n| WALKS.item(n)).collect::<Vec<_>>());

    // The last that appeared, by whoever can speak HTTP; probes need no key.
    let latest = get(&stack, "/api/latest?n=5").1;
    let newest = [("item-0027", 28), ("item-0055", 28), ("item-0083", 28), ("item-0111", 28), ("item-0026", 27)];
    let newest = newest.map(|(id, day)| {
        let at = EventTime::parse_rfc3339(&format!("2026-01-{day}T00:00:00Z")).unwrap();
        json!({"Id": id, "Score": (at.as_ms() / 1000) as f64})
    });
    assert_eq!(latest, json!(newest));
    assert_eq!(stack::get(&url(&stack, "/api/health/ready")).unwrap().0, 200);
    assert_eq!(stack::get(&url(&stack, "/api/latest")).unwrap().0, 401);
    assert_eq!(get(&stack, "/api/measurements/x").0, 404);

    // Feedback, all of it twice: counted once.
    let events = WALKS.events(0..CUSTOMERS);
    let feedback = |event: &rapport_proto::events::Event| {
        let time = EventTime::from_proto(event.event_time.as_ref().unwrap()).unwrap().to_string();
        json!({"FeedbackType": "view", "UserId": event.customer_id, "ItemId": event.item_id, "Timestamp": time, "Value": 0})
    };
    let rows: Vec<Value> = events.iter().map(feedback).collect();
    // A walk may come by an item again: for Gorse that is the same feedback.
    let distinct: BTreeSet<_> = events.iter().map(|event| (&event.customer_id, &event.item_id)).collect();
    for _ in 0..2 {
        for some in rows.chunks(1_000) {
            let written = gorse.call("insert_feedbacks", json!({ "feedbacks": some })).unwrap();
            assert_eq!(written, json!({"RowAffected": some.len()}));
        }
    }
    logged(&stack, distinct.len()).await;
    let result = train(&stack, only("ridge")).await;
    served_by(&stack, version(&result)).await;

    // The list reflects what the user did: what is read leaves it, and others come up.
    let ann = Walks::customer(0);
    let before = recommended(&mut gorse, &ann);
    assert_eq!(before.len(), 10);
    let now = EventTime::from_ms(now_ms()).to_string();
    let read = json!({"feedback_type": "view", "user_id": ann, "item_id": before[0], "timestamp": now});
    gorse.call("insert_feedback", read.clone()).unwrap();
    let mut after = Vec::new();
    wait_until("a list that reflects the feedback", WITHIN, async || {
        after = recommended(&mut gorse, &ann);
        check(!after.contains(&before[0]), || format!("{after:?}"))
    })
    .await;
    assert_eq!(after.len(), 10);
    gorse.call("insert_feedback", read).unwrap();
    logged(&stack, distinct.len() + 1).await;
    let kept = gorse.call("list_feedbacks", json!({"feedback_type": "view", "user_id": ann})).unwrap();
    assert_eq!(kept[0]["ItemId"], json!(before[0]), "the newest first");

    // Pages, categories, and ids alone.
    wait_until("a list that is not being made anew", WITHIN, async || {
        let second = gorse.call("get_recommend", json!({"user_id": ann, "n": 5, "offset": 5})).unwrap();
        after = recommended(&mut gorse, &ann);
        check(ids(&second) == after[5..], || format!("{second} and {after:?}"))
    })
    .await;
    let even = gorse.call("get_recommend", json!({"user_id": ann, "n": 10, "category": "even"})).unwrap();
    assert!(ids(&even).iter().all(|item| item[5..].parse::<usize>().unwrap() % 2 == 0), "{even}");

    let (status_of, bare) = get(&stack, &format!("/api/recommend/{ann}?n=3"));
    assert_eq!((status_of, bare), (200, json!(after[..3])));
    let popular = get(&stack, &format!("/api/popular/odd?n=50&user-id={ann}")).1;
    let odd = |item: &String| item[5..].parse::<usize>().unwrap() % 2 == 1;
    assert!(!ids(&popular).is_empty() && ids(&popular).iter().all(odd), "{popular}");
    assert!(!ids(&popular).contains(&before[0]), "what the user has is left out");

    // What goes with an item, and with a visit.
    let neighbors = gorse.call("get_neighbors", json!({"item_id": "item-0050", "n": 4})).unwrap();
    let (near, known) = (ids(&neighbors), |item: &String| seen.contains(item));
    assert!(near.len() == 4 && near.iter().all(known) && !near.contains(&"item-0050".to_owned()), "{neighbors}");
    let visit = json!([{"FeedbackType": "view", "UserId": "", "ItemId": "item-0050", "Timestamp": now}]);
    let next = gorse.call("session_recommend", json!({"feedbacks": visit, "n": 5})).unwrap();
    assert!(ids(&next).len() == 5 && !ids(&next).contains(&"item-0050".to_owned()), "{next}");

    // A hidden item leaves every list, and a deleted one the catalog.
    let hide = json!({"item_id": after[0], "is_hidden": true});
    assert_eq!(gorse.call("update_item", hide).unwrap(), json!({"RowAffected": 1}));
    assert!(!recommended(&mut gorse, &ann).contains(&after[0]));
    assert_eq!(gorse.call("get_item", json!({"item_id": after[0]})).unwrap()["IsHidden"], json!(true));
    gorse.call("delete_item", json!({"item_id": after[1]})).unwrap();
    assert_eq!(status(gorse.call("get_item", json!({"item_id": after[1]}))), "404");
    assert!(!recommended(&mut gorse, &ann).contains(&after[1]));

    // What is shown is written back, once however often it is shown; a user is known by what was told.
    let back = json!({"user_id": "bob", "n": 3, "write_back_type": "shown"});
    gorse.call("insert_users", json!({"users": [{"UserId": "bob", "Labels": {"city": "x"}}]})).unwrap();
    let shown = ids(&gorse.call("get_recommend", back.clone()).unwrap());
    assert_eq!(shown.len(), 3);
    logged(&stack, distinct.len() + 1 + 1 + 3).await;
    let again = json!({"feedback_type": "shown", "user_id": "bob", "item_id": shown[0], "timestamp": now});
    gorse.call("insert_feedback", again).unwrap();
    gorse
        .call("insert_user", json!({"user": {"UserId": "bob", "Comment": "told after it, on the same partition"}}))
        .unwrap();
    logged(&stack, distinct.len() + 1 + 2 + 3).await;
    assert_eq!(gorse.call("get_user", json!({"user_id": "bob"})).unwrap()["UserId"], json!("bob"));
    assert_eq!(status(gorse.call("get_user", json!({"user_id": "nobody"}))), "404");

    // What Rapport has no counterpart for is said, not pretended.
    for (method, arguments, says) in [
        ("get_feedbacks", json!({"n": 10}), "clean events"),
        ("delete_feedback", json!({"user_id": ann, "item_id": "item-0001"}), "hide or delete an item"),
        ("delete_user", json!({"user_id": ann}), "rapportctl consent"),
        ("get_users", json!({"n": 10}), "offline log"),
        ("search_items", json!({"query": "x"}), "no search"),
    ] {
        let (status, message) = gorse.call(method, arguments).unwrap_err();
        assert_eq!(status, "501", "{method}: {message}");
        assert!(message.contains(says), "{method}: {message}");
    }
    let wrong = json!({"feedback_type": "view", "user_id": ann, "item_id": "a", "timestamp": "yesterday"});
    let (status, message) = gorse.call("insert_feedback", wrong).unwrap_err();
    assert_eq!((status.as_str(), message.contains("[0].Timestamp")), ("400", true), "{message}");

    // The door drains with the service.
    let (ended, _) = stack.stop(Service::Scorer);
    assert!(ended.success());
}
