//! The feedback loop: what was shown is kept, and joined with what came of it.

use std::{collections::HashMap, process::Command, time::Duration};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, service::program, wait::check, wait_until},
    offline,
};
use rapport_proto::{events::DeadLetter, recommend::ScoredItem};

use crate::{
    doors::collect,
    placements::{at, stack},
};

const WITHIN: Duration = Duration::from_secs(30);
const LISTS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn every_list_that_was_served_is_kept_once_across_a_kill_and_joined_with_what_came_of_it() {
    let (mut stack, _) = stack("feedback").await;
    let producer = stack.broker.producer();
    producer.send(&stack.topics.served, Some("demo/x"), b"no served list", &[]);
    producer.flush();

    let mut shown: HashMap<String, Vec<ScoredItem>> = HashMap::new();
    let mut drawn = Vec::new();
    for n in 0..LISTS {
        let customer = format!("shown-{n}");
        let answer = at(&stack, &customer, "drawn").await.unwrap();
        let first_drawn = answer.items.iter().find(|item| item.propensity < 1.0).expect("two places are drawn");
        drawn.push((customer, first_drawn.item_id.clone()));
        shown.insert(answer.provenance.unwrap().request_id, answer.items);
        if n == LISTS / 3 {
            stack.kill(Service::FeatureStore);
            stack.launch(Service::FeatureStore);
        }
    }
    // A third of the customers act on the first item that was drawn for them.
    let acts = |(customer, item): &(String, String)| {
        interaction(&format!("acts-{customer}"), "purchase", customer, item, now_ms())
    };
    collect(&stack, drawn.iter().step_by(3).map(acts).collect()).await;
    stack.wait_ready(Service::FeatureStore).await;
    let kept = wait_until("every list in the log", 2 * WITHIN, async || {
        let kept = offline::read_served(&stack).map_err(|error| error.to_string())?;
        let ours = kept.iter().filter(|list| list.placement == "drawn").count();
        check(ours >= LISTS, || format!("{ours} of {LISTS}"))?;
        Ok(kept)
    })
    .await;
    let kept: Vec<_> = kept.into_iter().filter(|list| list.placement == "drawn").collect();
    assert_eq!(kept.len(), LISTS, "each once");
    for list in &kept {
        let items = &shown[&list.request_id];
        let as_shown: Vec<_> = items.iter().map(|item| (item.item_id.as_str(), item.propensity)).collect();
        let as_kept: Vec<_> = list.items.iter().map(|item| (item.item_id.as_str(), item.propensity)).collect();
        assert_eq!(as_kept, as_shown);
    }
    let letter = stack.broker.reader(&stack.topics.dead).find("the record that is no list", WITHIN, |record| {
        record.decode::<DeadLetter>().original_value == b"no served list"
    });
    let letter = letter.decode::<DeadLetter>();
    assert_eq!((letter.stage.as_str(), letter.field.as_str()), ("feature-store", "value"));

    let rows = stack.folder().join("rows.parquet");
    wait_until("the lists joined with what came of them", 2 * WITHIN, async || {
        let replay = Command::new(program("rapport-trainer"))
            .args(["replay", "--tenant", rapport_integration_tests::harness::stack::TENANT])
            .args(["--placement", "drawn", "--outcomes", "purchase", "--window", "20s", "--offline-url"])
            .arg(stack.offline_folder())
            .arg("--rows")
            .arg(&rows)
            .output()
            .map_err(|error| error.to_string())?;
        let (text, complaint) = (String::from_utf8_lossy(&replay.stdout), String::from_utf8_lossy(&replay.stderr));
        let acted = text.lines().find(|line| line.contains("drawn") && line.contains("300"));
        check(acted.is_some_and(|line| line.contains(" 0.3333 ")), || format!("{text}{complaint}"))
    })
    .await;
    let bought = offline::duckdb_of(&rows, "select count(*), count(outcome), count(distinct request_id) from rows");
    if let Some(bought) = bought {
        assert_eq!(bought, "3600|100|300");
    }
}
