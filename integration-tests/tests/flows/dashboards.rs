//! What the dashboards ask for is what the running services export: under that name, of that kind, with
//! those labels. That the code has each name at all is checked in `deploy/tests`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use rapport_integration_tests::harness::{Service, Stack, stack::get, wait::check, wait_until};
use rapport_proto::features::GetFeaturesRequest;
use serde_json::Value as Json;

use crate::doors::{make_a_trend, recommend};

const WITHIN: Duration = Duration::from_secs(30);

/// A metric as exported: its type, and the labels of its samples.
#[derive(Debug, Default)]
struct Exported {
    kind: String,
    labels: BTreeSet<String>,
}

/// The parts of a histogram and of a summary that are samples of their own.
fn base(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].into_iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

fn labels_of(braced: &str) -> impl Iterator<Item = String> {
    braced.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim_end_matches('!').trim().to_owned()))
}

fn exported(stack: &Stack, services: &[Service]) -> BTreeMap<String, Exported> {
    let mut all: BTreeMap<String, Exported> = BTreeMap::new();
    for service in services {
        let (_, text) = get(&stack.admin_url(*service, "/metrics")).unwrap();
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                all.entry(name.to_owned()).or_default().kind = kind.to_owned();
            } else if let Some((name, rest)) = line.split_once('{') {
                let name = if all.contains_key(name) { name } else { base(name) };
                let braced = rest.split_once('}').map_or("", |(labels, _)| labels);
                all.entry(name.to_owned()).or_default().labels.extend(labels_of(braced));
            }
        }
    }
    all
}

/// Every metric in an expression, with the labels that it selects by.
fn asked(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("rapport_") {
        // A name inside a label's value is none.
        let quoted = expression[..expression.len() - rest.len() + at].matches('"').count() % 2 == 1;
        rest = &rest[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let braced = after.strip_prefix('{').and_then(|a| a.split_once('}')).map_or("", |(labels, _)| labels);
        if !quoted {
            found.push((name.to_owned(), labels_of(braced).collect()));
        }
        rest = after;
    }
    found
}

/// The labels that an expression sums by.
fn summed_by(expression: &str) -> BTreeSet<String> {
    let by = expression.split(" by (").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    by.flat_map(|labels| labels.split(',').map(|label| label.trim().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_services_export_what_the_dashboards_ask_for_with_their_kinds_and_labels() {
    let mut stack = Stack::new("dashboards");
    let services = [Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer];
    stack.start(&services).await;
    make_a_trend(&stack).await;
    wait_until("an answer from the trend, twice", WITHIN, async || {
        let answer = recommend(&stack, "crowd-1", 5).await?;
        let other = recommend(&stack, "a-stranger", 5).await?;
        check(!answer.items.is_empty() || !other.items.is_empty(), || "no items".into())
    })
    .await;
    let request = GetFeaturesRequest { entity_ids: vec!["crowd-1".into()], ..Default::default() };
    stack.feature_store().get_features(request).await.unwrap();
    let all = wait_until("the metrics of a flush", WITHIN, async || {
        let all = exported(&stack, &services);
        let flushed = all.contains_key("rapport_feature_store_parquet_rows_total");
        check(flushed, || format!("{} metrics", all.len()))?;
        Ok(all)
    })
    .await;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana");
    for (dashboard, at_least) in [("overview", 15), ("feature-store", 8), ("scorer", 8)] {
        let json: Json =
            serde_json::from_str(&fs::read_to_string(folder.join(format!("{dashboard}.json"))).unwrap()).unwrap();
        let mut seen = BTreeSet::new();
        let panels = json["panels"].as_array().unwrap();
        for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
            let expression = target["expr"].as_str().unwrap();
            for (name, selected) in asked(expression) {
                // What only a failure brings forth is not there now.
                let Some(metric) = all.get(&name).or_else(|| all.get(base(&name))) else { continue };
                seen.insert(name.clone());
                let whole = all.contains_key(&name);
                assert!(
                    if name.ends_with("_bucket") {
                        metric.kind == "histogram"
                    } else {
                        whole || metric.kind != "gauge"
                    },
                    "{dashboard}: {name} is of a {}: {expression}",
                    metric.kind
                );
                for label in selected.iter().chain(&summed_by(expression)).filter(|label| *label != "le") {
                    assert!(
                        metric.labels.contains(label),
                        "{dashboard}: {name} has no {label}, has {:?}",
                        metric.labels
                    );
                }
            }
        }
        assert!(seen.len() >= at_least, "only {} metrics of {dashboard} were exported: {seen:?}", seen.len());
    }
}
