//! The clients under `examples/` do what they are there to show, each in its language.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rapport_integration_tests::harness::{
    Service, Stack,
    service::program,
    stack::{API_KEY, TENANT},
    wait::check,
    wait_until,
};

use crate::doors::{make_a_trend, recommend};

const WITHIN: Duration = Duration::from_secs(30);

fn cached(path: &str) -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("RAPPORT_CACHE").or_else(|| Some(variable("HOME")?.join(".cache/rapport"))).unwrap();
    let path = cache.join("examples").join(path);
    assert!(path.is_file(), "{} is missing: run deploy/dev/setup.sh --tests", path.display());
    path
}

async fn shows_what_it_is_there_for(language: &str, mut command: Command) {
    let mut stack = Stack::new(&format!("example-{language}"));
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer]).await;
    make_a_trend(&stack).await;
    wait_until("twelve trending items for a stranger", WITHIN, async || {
        let items = recommend(&stack, "a-stranger", 50).await?.items.len();
        check(items == 12, || format!("{items} items"))
    })
    .await;
    let address = |service| format!("127.0.0.1:{}", stack.ports(service).grpc);
    let customer = format!("somebody-in-{language}");
    let output = command
        .arg(&customer)
        .env("RAPPORT_COLLECTOR", address(Service::Collector))
        .env("RAPPORT_FEATURE_STORE", address(Service::FeatureStore))
        .env("RAPPORT_SCORER", address(Service::Scorer))
        .env("RAPPORT_API_KEY", API_KEY)
        .env("RAPPORT_TENANT", TENANT)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{wrong}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "accepted 3", "{said}");
    for feature in ["activity.events_lifetime = 3", "activity.items_lifetime = 3"] {
        assert!(lines.contains(&feature), "no {feature:?} in {said}");
    }
    let items: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("recommended ")?.split(' ').next()).collect();
    assert_eq!(items.len(), 5, "{said}");
    assert!(
        items.iter().all(|item| item.starts_with("item-")),
        "what the customer looked at is not shown again: {said}"
    );
    assert!(lines.last().unwrap().starts_with("degraded "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_example_sends_reads_and_asks() {
    shows_what_it_is_there_for("rust", Command::new(program("rapport-example"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_sends_reads_and_asks() {
    let mut command = Command::new(cached("venv/bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/example.py"));
    shows_what_it_is_there_for("python", command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_example_sends_reads_and_asks() {
    shows_what_it_is_there_for("go", Command::new(cached("example-go"))).await;
}
