//! Sends three events of a customer, reads the features that they changed, and asks what to show next.
//!
//! cargo run --release -p rapport-example -- ann
#![allow(clippy::print_stdout, reason = "it is what the example is for")]

use std::{
    env,
    error::Error,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rapport_proto::{
    collect::{CollectBatchRequest, collector_client::CollectorClient, outcome::Status},
    events::Event,
    features::{GetFeaturesRequest, feature_store_client::FeatureStoreClient},
    recommend::{RecommendRequest, recommender_client::RecommenderClient},
};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

const DEADLINE: Duration = Duration::from_secs(5);
const READABLE_WITHIN: Duration = Duration::from_secs(30);

async fn connect(variable: &str, default: &str) -> Result<Channel, Box<dyn Error>> {
    let address = env::var(variable).unwrap_or_else(|_| default.to_owned());
    Ok(Endpoint::from_shared(format!("http://{address}"))?.timeout(DEADLINE).connect().await?)
}

/// A request of the tenant.
fn of_tenant<T>(message: T, tenant: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-rapport-tenant", tenant.clone());
    request
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let customer = env::args().nth(1).unwrap_or_else(|| "ann".to_owned());
    let key = env::var("RAPPORT_API_KEY").unwrap_or_else(|_| "dev-key".to_owned());
    let tenant: MetadataValue<Ascii> = env::var("RAPPORT_TENANT").unwrap_or_else(|_| "demo".to_owned()).parse()?;

    // 1. Events. The id is the same when an event is sent again: the second one is dropped.
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let events = ["50", "172", "181"].into_iter().map(|item| Event {
        event_id: format!("rust-{customer}-{item}-{run}"),
        r#type: "view".into(),
        customer_id: customer.clone(),
        item_id: item.into(),
        ..Event::default()
    });
    let mut request = Request::new(CollectBatchRequest { events: events.collect() });
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse()?);
    let mut collector = CollectorClient::new(connect("RAPPORT_COLLECTOR", "127.0.0.1:7101").await?);
    let outcomes = collector.collect_batch(request).await?.into_inner().outcomes;
    for outcome in &outcomes {
        // RETRY would mean: send this one again, with the same id.
        if outcome.status() != Status::Accepted {
            return Err(format!("{}: {} {}", outcome.event_id, outcome.field, outcome.message).into());
        }
    }
    println!("accepted {}", outcomes.len());

    // 2. Features, a few milliseconds later: `version` counts the customer's events.
    let mut store = FeatureStoreClient::new(connect("RAPPORT_FEATURE_STORE", "127.0.0.1:7301").await?);
    let since = Instant::now();
    let (names, vector) = loop {
        let question = GetFeaturesRequest {
            entity_ids: vec![customer.clone()],
            views: vec!["activity".into()],
            ..GetFeaturesRequest::default()
        };
        let answer = store.get_features(of_tenant(question, &tenant)).await?.into_inner();
        let vector = answer.vectors.into_iter().next().ok_or("an answer has a vector for each id")?;
        if vector.version >= 3 {
            break (answer.names, vector);
        }
        if since.elapsed() > READABLE_WITHIN {
            return Err("the events did not become features".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for (name, value) in names.iter().zip(&vector.values) {
        println!("{name} = {value}");
    }

    // 3. What to show next. `degraded` says what the answer had to do without.
    let mut scorer = RecommenderClient::new(connect("RAPPORT_SCORER", "127.0.0.1:7501").await?);
    let question =
        RecommendRequest { customer_id: customer, limit: 5, with_titles: true, ..RecommendRequest::default() };
    let answer = scorer.recommend(of_tenant(question, &tenant)).await?.into_inner();
    for item in answer.items {
        println!("recommended {} {} {:.4}", item.item_id, item.title, item.score);
    }
    println!("degraded {:?}", answer.provenance.map(|p| p.degraded).unwrap_or_default());
    Ok(())
}
