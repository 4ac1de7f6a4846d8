//! The offline log in a bucket: a real server that speaks S3, which is killed on the way.

use std::{fs, process::Command, sync::Arc, time::Duration};

use rapport_events::EventTime;
use rapport_integration_tests::{
    harness::{Broker, RedisServer, S3Server, Service, Stack, heavy, service::program, wait::check, wait_until},
    offline,
};

use crate::{
    exactly_once::{Sending, every_clean_event_stands_once, every_count_is_exact, flush},
    models::{only, train, walk},
};

const WITHIN: Duration = Duration::from_secs(60);

fn of_the_store(stack: &Stack, name: &str, labels: &str) -> f64 {
    stack.metric(Service::FeatureStore, name, labels).unwrap_or_default()
}

async fn at_work(stack: &Stack, events: f64) {
    let applied = |stack: &Stack| of_the_store(stack, "rapport_feature_store_events_total", "applied");
    let before = applied(stack);
    wait_until("the feature store to be at work", WITHIN, async || {
        check(applied(stack) - before >= events, || format!("{} since {before}", applied(stack)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_a_bucket_has_every_event_once_and_makes_redis_anew_though_the_server_was_killed() {
    let Some(s3) = S3Server::start("s3") else { return };
    let _alone = heavy().await;
    let redis = Arc::new(RedisServer::start("s3-redis"));
    let mut stack = Stack::on("s3", Broker::shared(), Arc::clone(&redis));
    stack.keep_the_log_in(&s3);
    // Compaction is at work all the time.
    for (name, value) in [("EVERY", "1s"), ("SETTLE", "2s"), ("GRACE", "5s")] {
        stack.set(Service::FeatureStore, &format!("RAPPORT_COMPACT_{name}"), value);
    }

    // A store that is away at the start is waited for, and named.
    s3.kill();
    stack.launch(Service::FeatureStore);
    wait_until("the missing store to be named", WITHIN, async || {
        let (status, said) =
            rapport_integration_tests::harness::stack::get(&stack.admin_url(Service::FeatureStore, "/readyz"))?;
        check(status == 503 && said.contains("offline") && said.contains(&s3.endpoint()), || {
            format!("{status}: {said}")
        })
    })
    .await;
    s3.restart();
    stack.wait_ready(Service::FeatureStore).await;
    stack.start(&[Service::Cleaner]).await;

    let sending = Sending::start(Arc::clone(&stack.broker), stack.topics.raw.clone());
    at_work(&stack, 5_000.0).await;
    s3.kill();
    wait_until("the store to miss its log", WITHIN, async || {
        let missed = of_the_store(&stack, "rapport_feature_store_retries_total", "offline");
        check(missed > 0.0, || "nothing was tried again".into())
    })
    .await;
    assert!(sending.goes_on(), "it came after the stream");
    s3.restart();
    at_work(&stack, 5_000.0).await;
    flush(&redis);
    wait_until("redis to be made anew", WITHIN, async || {
        let rebuilds = of_the_store(&stack, "rapport_feature_store_rebuilds_total", "");
        check(rebuilds >= 1.0, || format!("{rebuilds}"))
    })
    .await;
    let events = sending.end().await;
    every_clean_event_stands_once(&mut stack, events).await;
    wait_until("compaction beside the stream", WITHIN, async || {
        let merged = of_the_store(&stack, "rapport_feature_store_compacted_files_total", "");
        check(merged > 0.0, || "nothing was merged".into())
    })
    .await;
    every_count_is_exact(&mut stack, events).await;

    // What others see of it, over S3: the files that hold.
    let url = s3.url(&stack.name);
    let ask = |arguments: &[&str]| -> serde_json::Value {
        let mut command = stack.rapportctl(&[&["--json"], arguments, &["--offline-url", &url]].concat());
        let output = command.envs(s3.variables()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let files = |told: serde_json::Value| -> Vec<String> {
        told.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
    };
    let before = files(ask(&["offline", "files"]));
    // Merged as far as it goes, and tidied up: then those are all there are.
    wait_until("compaction to have nothing to do", WITHIN, async || {
        let done = ask(&["offline", "compact", "--settle", "0s", "--grace", "0s"]);
        let nothing = ["files_merged", "deleted", "overtaken"].iter().all(|what| done[what] == 0);
        check(nothing, || done.to_string())
    })
    .await;
    let after = files(ask(&["offline", "files"]));
    assert!(after.len() <= before.len(), "{before:?} {after:?}");
    let counted = "rows.select(pl.len(), pl.col('event_id').n_unique().alias('ids')).collect().row(0)";
    for files in [after, vec![format!("{url}/events/**/*.parquet")]] {
        if let Some(counted) = offline::polars(&files, Some(&s3), counted) {
            assert_eq!(counted, format!("({events}, {events})"));
        }
    }
    // Redis is made anew from what was merged.
    let (status, _) = stack.stop(Service::FeatureStore);
    assert!(status.success(), "the feature store ended with {status}");
    flush(&redis);
    stack.start(&[Service::FeatureStore]).await;
    every_count_is_exact(&mut stack, events).await;
    customers_cost_what_redis_says(&stack).await;

    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.ndjson"));
    fs::write(&spine, format!("customer_id,event_timestamp\nc0,{}\n", EventTime::now())).unwrap();
    let join = ["features", "join", "--spine", "spine.csv", "--output", "rows.ndjson", "--offline-url"];
    let joined = stack.rapportctl(&[&join[..], &[&url]].concat()).envs(s3.variables()).output().unwrap();
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let row: serde_json::Value = serde_json::from_str(fs::read_to_string(&rows).unwrap().trim()).unwrap();
    let of_c0 = (0..events).filter(|n| crate::exactly_once::customer(*n) == "c0").count();
    let lifetime =
        row.as_object().unwrap().iter().find(|(name, _)| name.contains(".events") && name.contains("lifetime"));
    assert_eq!(lifetime.and_then(|(_, count)| count.as_f64()), Some(of_c0 as f64), "{row}");

    // Whoever has no leave, or forgot to give it, is told so.
    let mut variables = s3.variables();
    variables.retain(|(name, _)| *name != "AWS_ALLOW_HTTP");
    let refused = stack.rapportctl(&[&join[..], &[&url]].concat()).envs(variables).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("AWS_ALLOW_HTTP=true"), "{said}");
    let mut another = stack.rapportctl(&[&join[..], &[&url]].concat());
    let refused = another.envs(s3.variables()).env("AWS_SECRET_ACCESS_KEY", "another").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("403 Forbidden"), "{said}");
}

async fn customers_cost_what_redis_says(stack: &Stack) {
    let told = async |of: &str| {
        let labels = format!("kind=\"customer\",of=\"{of}\"");
        wait_until("sizes of customers", WITHIN, async || {
            let told = stack.metric(Service::FeatureStore, "rapport_feature_store_value_bytes", &labels);
            told.ok_or_else(|| "none are known".to_owned())
        })
        .await
    };
    let mut redis = stack.redis.client().get_connection().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{}:*}}:s", stack.key_prefix())).query(&mut redis).unwrap();
    let size = |key: &String| -> f64 {
        redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query(&mut redis).unwrap()
    };
    let sizes: Vec<f64> = keys.iter().map(size).collect();
    let (least, most) = (sizes.iter().copied().fold(f64::MAX, f64::min), sizes.iter().copied().fold(0.0, f64::max));
    let (mean, max) = (told("mean").await, told("max").await);
    assert!(least > 0.0 && least <= mean && mean <= max && max <= most, "{mean} and {max} of {least} to {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_learns_from_a_bucket() {
    let Some(s3) = S3Server::start("s3-trainer") else { return };
    let _alone = heavy().await;
    let mut stack = Stack::new("s3-trainer");
    stack.keep_the_log_in(&s3);
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Trainer]).await;
    walk(&stack, 0..300).await;
    let learned = train(&stack, only("ridge")).await;
    assert_eq!(learned.versions.len(), 1, "{learned:?}");
    // The command line reads events and served lists there too.
    let replay = Command::new(program("rapport-trainer"))
        .args(["replay", "--tenant", "demo", "--outcomes", "view", "--offline-url", &s3.url(&stack.name)])
        .envs(s3.variables())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&replay.stderr).into_owned();
    assert!(said.contains("no list was served"), "{said}");
}
