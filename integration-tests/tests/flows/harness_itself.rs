//! The harness's own promises: without them a green flow would mean nothing.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use rapport_integration_tests::harness::{Broker, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_comes_back_with_its_key_its_headers_and_its_bytes() {
    let broker = Broker::shared();
    broker.create_topics(&["harness.roundtrip"], 3).await;
    let producer = broker.producer();
    for n in 0..1000 {
        producer.send(
            "harness.roundtrip",
            Some(&format!("k{n}")),
            format!("v{n}").as_bytes(),
            &[("n", &n.to_string())],
        );
    }
    producer.flush();
    let records = broker.read_all("harness.roundtrip");
    assert_eq!(records.len(), 1000);
    for record in records {
        let n = record.header("n").unwrap();
        assert_eq!(record.key_text(), format!("k{n}"));
        assert_eq!(record.value.as_deref(), Some(format!("v{n}").as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_comes_back_on_its_port_with_its_data() {
    let server = RedisServer::start("redis-restart");
    let mut before = server.client().get_connection().unwrap();
    redis::cmd("SET").arg("a").arg(1).exec(&mut before).unwrap();
    server.kill();
    assert!(server.client().get_connection_with_timeout(Duration::from_millis(200)).is_err());
    server.restart();
    let mut after = server.client().get_connection().unwrap();
    assert_eq!(redis::cmd("GET").arg("a").query::<i32>(&mut after).unwrap(), 1);
}

/// Runs this very test binary on one hidden test that starts a child and then kills itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_test_binary_started_is_ended_too() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "harness_itself::starts_a_redis_and_dies", "--ignored", "--nocapture"])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "it was to die");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let url = said.lines().find_map(|line| line.split("listening on ").nth(1)).expect("it said where");
    let client = redis::Client::open(url.trim()).unwrap();
    wait_until("the orphan's end", Duration::from_secs(10), async || {
        match client.get_connection_with_timeout(Duration::from_millis(100)) {
            Ok(_) => Err("it still answers".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
}

#[test]
#[ignore = "run by what_a_killed_test_binary_started_is_ended_too"]
fn starts_a_redis_and_dies() {
    let server = RedisServer::start("orphan");
    println!("listening on {}", server.url());
    Command::new("sh").args(["-c", &format!("kill -9 {}", std::process::id())]).status().unwrap();
    drop(server);
}
