//! Experiments are judged while they run: an arm that harms is stopped by itself, the counts outlive the
//! instance that made them, and two rankers that draft one list are told apart.

use std::{fs, time::Duration};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, stack::TENANT, wait::check, wait_until},
};
use rapport_proto::recommend::RecommendResponse;
use serde_json::Value;

use crate::{
    doors::{collect, make_a_trend},
    placements::at,
};

const WITHIN: Duration = Duration::from_secs(60);
const ALL_BUT_TRAINER: [Service; 4] = [Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer];

const RULES: &str = "
placements:
  home: {}
  varied: {}
  letter: {}
  backwards: {boosts: [{items: [item-11], by: 10}, {items: [item-10], by: 9}]}
experiments:
  harm:
    placement: home
    window: 4s
    guard_rails: [{metric: purchased, at_most_worse: 0.1}]
    arms: [{name: control, share: 0.5, placement: home}, {name: varied, share: 0.5, placement: varied}]
  rankers:
    placement: letter
    window: 4s
    interleaved: true
    arms: [{name: control, placement: letter}, {name: backwards, placement: backwards}]
";

async fn stack() -> Stack {
    let mut stack = Stack::new("experiments");
    let folder = stack.folder().join("placements");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(format!("{TENANT}.yaml")), RULES).unwrap();
    for service in [Service::Scorer, Service::FeatureStore] {
        stack.set(service, "RAPPORT_PLACEMENTS", folder.to_str().unwrap());
    }
    stack.set(Service::FeatureStore, "RAPPORT_EXPERIMENTS_EVERY", "500ms");
    stack.start(&ALL_BUT_TRAINER).await;
    make_a_trend(&stack).await;
    wait_until("twelve trending items", WITHIN, async || {
        let answer = at(&stack, "nobody", "").await?;
        check(answer.items.len() == 12, || format!("{:?}", answer.items))
    })
    .await;
    stack
}

fn arm(answer: &RecommendResponse) -> &str {
    answer.provenance.as_ref().map_or("", |of| of.arm.as_str())
}

/// What the feature store has counted, once as many customers are settled.
async fn settled(stack: &Stack, experiment: &str, customers: u64) -> Value {
    wait_until("an experiment whose windows have ended", WITHIN, async || {
        let (code, status) = stack.ask(&["experiments", "status", experiment]);
        let arms = status["arms"].as_array().into_iter().flatten();
        let has: u64 = arms.filter_map(|arm| arm["customers"].as_u64()).sum();
        check(has == customers && status["still_in_window"] == 0, || format!("{code:?} {status}"))?;
        Ok(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arm_that_harms_is_stopped_by_itself_and_a_person_has_the_last_word() {
    let mut stack = stack().await;
    let mut buys = Vec::new();
    let mut varied = Vec::new();
    for n in 0..400 {
        let customer = format!("dealt-{n}");
        let answer = at(&stack, &customer, "home").await.unwrap();
        if arm(&answer) == "varied" {
            varied.push(customer);
        } else {
            let item = &answer.items[0].item_id;
            let mut event = interaction(&format!("buys-{customer}"), "purchase", &customer, item, now_ms());
            event.value = Some(20.0);
            buys.push(event);
        }
    }
    let buyers = buys.len();
    collect(&stack, buys).await;

    let status = settled(&stack, "harm", 400).await;
    let [control, harmed] = [&status["arms"][0], &status["arms"][1]];
    assert_eq!(
        (&control["arm"], &control["customers"], &control["control"]),
        (&"control".into(), &buyers.into(), &true.into())
    );
    assert_eq!(
        (&control["purchased"], &control["revenue"], &control["lists_acted_on"]),
        (&1.0.into(), &20.0.into(), &buyers.into())
    );
    assert_eq!((&harmed["customers"], &harmed["purchased"]), (&varied.len().into(), &0.0.into()));
    let purchased = &status["differences"][1];
    assert_eq!((&purchased["metric"], &purchased["arm"]), (&"purchased".into(), &"varied".into()));
    assert!(purchased["difference"]["high"].as_f64().unwrap() < -0.1, "{purchased}");

    // The same figures by another road: the topics, read here and now.
    let recounted = stack.ask(&["experiments", "recount", "harm", "--window", "4s"]).1;
    for of in ["customers", "purchased", "revenue", "lists", "lists_acted_on"] {
        assert_eq!([&recounted["arms"][0][of], &recounted["arms"][1][of]], [&control[of], &harmed[of]], "{of}");
    }
    assert_eq!(recounted["differences"].as_array().unwrap().len(), 3);

    // Its customers get the control's rules, and count no more.
    let stopped = async |customer: &str, expected: bool| {
        let answer = at(&stack, customer, "home").await?;
        let of = answer.provenance.unwrap_or_default();
        let is = of.placement == "home" && of.experiment.is_empty();
        check(is == expected, || format!("{of:?}"))
    };
    wait_until("the harmful arm to be stopped", WITHIN, async || stopped(&varied[0], true).await).await;
    let decision = &stack.ask(&["experiments", "status", "harm"]).1["arms"][1]["decision"];
    assert_eq!((&decision["stopped"], &decision["by"]), (&true.into(), &"guard rail".into()));
    assert!(decision["reason"].as_str().unwrap().starts_with("purchased: "));

    // A person may show it again, and then no guard rail stops it.
    let (code, said) = stack.ask(&["experiments", "resume", "harm", "varied", "--reason", "on purpose"]);
    assert_eq!((code, &said["stopped"]), (Some(0), &false.into()), "{said}");
    wait_until("the arm to be shown again", WITHIN, async || stopped(&varied[0], false).await).await;

    // The instance that counted is killed: the next one has the same counts, from the logs.
    stack.kill(Service::FeatureStore);
    stack.launch(Service::FeatureStore);
    stack.wait_ready(Service::FeatureStore).await;
    let computed = status["computed"].as_str().unwrap();
    let again = wait_until("the counts of the next instance", WITHIN, async || {
        let again = stack.ask(&["experiments", "status", "harm"]).1;
        check(again["computed"].as_str() > Some(computed), || again.to_string())?;
        check(
            stack
                .metric(Service::FeatureStore, "rapport_feature_store_experiment_customers", "arm=\"varied\"")
                .is_some(),
            || "not counted yet".to_owned(),
        )?;
        Ok(stack.ask(&["experiments", "status", "harm"]).1)
    })
    .await;
    for of in ["customers", "purchased", "revenue", "lists", "lists_acted_on"] {
        assert_eq!([&again["arms"][0][of], &again["arms"][1][of]], [&control[of], &harmed[of]], "{of}");
    }
    let decision = &again["arms"][1]["decision"];
    assert_eq!(
        (&decision["stopped"], &decision["by"], &decision["reason"]),
        (&false.into(), &"person".into(), &"on purpose".into())
    );

    // What does not exist is refused, with what there is.
    let refused = stack.rapportctl(&["experiments", "stop", "harm", "vraied"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("there are: control, varied"), "{said}");
    assert_eq!(stack.ask(&["experiments", "stop", "harm", "varied"]).0, Some(0));
    let stopped = async |customer: &str| {
        let of = at(&stack, customer, "home").await?.provenance.unwrap_or_default();
        check(of.experiment.is_empty(), || format!("{of:?}"))
    };
    wait_until("the arm to be stopped by hand", WITHIN, async || stopped(&varied[0]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rankers_that_draft_one_list_the_one_that_people_like_is_told() {
    let stack = stack().await;
    let mut views = Vec::new();
    let mut first = [0_usize; 2];
    for n in 0..150 {
        let customer = format!("reader-{n}");
        let answer = at(&stack, &customer, "letter").await.unwrap();
        assert_eq!(arm(&answer), "interleaved");
        let by = |arm: &str| answer.items.iter().filter(|item| item.arm == arm).count();
        assert_eq!((by("control"), by("backwards"), answer.items.len()), (6, 6, 12));
        first[usize::from(answer.items[0].arm == "backwards")] += 1;
        // Everybody likes what the second ranker lifts.
        let lifted = answer.items.iter().find(|item| item.arm == "backwards").unwrap();
        views.push(interaction(&format!("views-{customer}"), "view", &customer, &lifted.item_id, now_ms()));
    }
    assert!(first.iter().all(|times| *times > 40), "the first place is dealt fairly: {first:?}");
    collect(&stack, views).await;
    let status = settled(&stack, "rankers", 150).await;
    assert_eq!((&status["interleaved"], &status["arms"][0]["acted"]), (&true.into(), &1.0.into()));
    let [of] = status["differences"].as_array().unwrap().as_slice() else { panic!("{status}") };
    assert_eq!(
        (&of["arm"], &of["metric"], &of["difference"]["mean"]),
        (&"backwards".into(), &"preference".into(), &1.0.into())
    );
    assert!(of["difference"]["low"].as_f64().unwrap() > 0.5, "{of}");
}
