//! Every customer's list at once, for mails and for those who read tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rapport_integration_tests::{
    harness::{Service, Stack, heavy, stack::TENANT},
    offline,
    walks::Walks,
};
use rapport_proto::recommend::{RecommendRequest, Served};

use crate::models::{only, served_by, train, version, walk};

const CUSTOMERS: usize = 300;
const ITEMS: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn every_customers_list_goes_to_files_and_to_a_topic_and_counts_as_shown_to_nobody() {
    let alone = heavy().await;
    let mut stack = Stack::new("export");
    stack.set(Service::Trainer, "RAPPORT_TRAIN_BUDGET", "5s");
    stack.start(&Service::ALL).await;
    walk(&stack, 0..CUSTOMERS).await;
    let trained = train(&stack, only("ridge")).await;
    assert!(trained.promoted, "{trained:?}");
    served_by(&stack, version(&trained)).await;
    drop(alone);
    let (folder, log) = (stack.folder().join("lists"), stack.offline_folder());
    let (into, log) = (folder.to_string_lossy(), log.to_string_lossy());
    let (code, told) = stack.ask(&["export", "--output", &into, "--offline-url", &log, "-n", "5"]);
    assert_eq!(
        (code, told["lists"].as_u64(), told["empty"].as_u64()),
        (Some(0), Some(CUSTOMERS as u64), Some(0)),
        "{told}"
    );
    assert!(folder.join("_SUCCESS").exists());
    let again = stack.rapportctl(&["export", "--output", &into, "--offline-url", &log]).output().unwrap();
    assert_eq!(again.status.code(), Some(64), "a folder that holds something is left alone");

    // The same on a topic, of some customers.
    let topic = format!("{}mails", stack.topics.served);
    stack.broker.create_topics(&[&topic], 3).await;
    let some = stack.folder().join("some.txt");
    fs::write(&some, format!("{}\n{}\n\n", Walks::customer(3), Walks::customer(8))).unwrap();
    let (code, told) = stack.ask(&["export", "--topic", &topic, "--customers", &some.to_string_lossy(), "-n", "5"]);
    assert_eq!((code, told["lists"].as_u64()), (Some(0), Some(2)), "{told}");
    let on_topic: BTreeMap<String, Vec<String>> = stack
        .broker
        .read_all(&topic)
        .iter()
        .map(|record| {
            let served: Served = record.decode();
            assert_eq!(record.key_text(), format!("{TENANT}/{}", served.customer_id));
            (served.customer_id, served.items.into_iter().map(|item| item.item_id).collect())
        })
        .collect();
    assert_eq!(on_topic.len(), 2);

    // They are what a caller gets.
    for (customer, items) in &on_topic {
        let request = RecommendRequest {
            customer_id: customer.clone(),
            limit: ITEMS,
            not_shown: true,
            ..RecommendRequest::default()
        };
        let answer = stack.scorer().recommend(request).await.unwrap().into_inner();
        let asked: Vec<String> = answer.items.into_iter().map(|item| item.item_id).collect();
        assert_eq!(*items, asked, "the list of {customer}");
    }
    let part = folder.join("part-00000.parquet");
    let query = format!(
        "select count(*), count(distinct customer_id), max(place), min(model), (select string_agg(item_id, ',' order by place) \
         from rows where customer_id = '{}') from rows",
        Walks::customer(3)
    );
    match offline::duckdb_of(&part, &query) {
        None => eprintln!("skipped: no Python with DuckDB; deploy/dev/setup.sh --tests installs it"),
        Some(answer) => {
            let items = on_topic[&Walks::customer(3)].join(",");
            assert_eq!(
                answer,
                format!("{}|{CUSTOMERS}|{ITEMS}|{}|{items}", CUSTOMERS * ITEMS as usize, crate::models::MODEL)
            );
        }
    }
    // One customer was asked for until the model was live; nobody else was shown anything.
    let records = stack.broker.read_all(&stack.topics.served);
    let shown: BTreeSet<String> = records.iter().map(|record| record.decode::<Served>().customer_id).collect();
    assert!(shown.len() <= 1, "{} customers count as shown a list", shown.len());
}
