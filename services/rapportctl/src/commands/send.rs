use anyhow::{Context as _, bail};
use clap::Args;
use rapport_events::{EventTime, new_event_id};
use rapport_proto::{
    collect::{CollectBatchRequest, Outcome, outcome::Status as Verdict},
    events::Event,
};
use serde_json::{Value, json};

use crate::{context::Context, error::Usage, lane, output};

#[derive(Debug, Args)]
pub struct Send {
    /// What happened: view, add_to_cart, purchase, rating, or a name of your own
    #[arg(long = "type")]
    kind: String,
    /// Who did it
    #[arg(long, required_unless_present = "anonymous", default_value = "")]
    customer: String,
    /// Who did it, when that is not known yet
    #[arg(long, default_value = "")]
    anonymous: String,
    /// What it was done to
    #[arg(long, default_value = "")]
    item: String,
    /// The item's category
    #[arg(long, default_value = "")]
    category: String,
    /// A rating, a price
    #[arg(long, allow_negative_numbers = true)]
    value: Option<f64>,
    /// ISO 4217 code, when the value is money
    #[arg(long, default_value = "")]
    currency: String,
    /// When it happened, for example 2026-11-24T06:00:00Z [default: now]
    #[arg(long)]
    time: Option<String>,
    /// Its id, the same when it is sent again [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// The visit that it belongs to [default: found by the cleaner, from the pauses between events]
    #[arg(long)]
    session: Option<String>,
    /// Anything else, as a JSON object
    #[arg(long)]
    properties: Option<String>,
    /// What is known of the customer, as a JSON object
    #[arg(long)]
    traits: Option<String>,
}

impl Send {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let time = match &self.time {
            None => EventTime::now(),
            Some(text) => EventTime::parse_rfc3339(text)
                .ok_or_else(|| Usage(format!("--time {text:?} is no time such as 2026-11-24T06:00:00Z")))?,
        };
        let properties = properties(self.properties.as_deref(), self.session)?;
        let event = Event {
            event_id: self.id.unwrap_or_else(new_event_id),
            r#type: self.kind,
            customer_id: self.customer,
            anonymous_id: self.anonymous,
            item_id: self.item,
            category: self.category,
            event_time: Some(time.to_proto()),
            value: self.value,
            currency: self.currency,
            properties,
            traits: self.traits.as_deref().map(traits).transpose()?,
            ..Event::default()
        };
        let started = std::time::Instant::now();
        let outcome =
            collect(context, vec![event]).await?.into_iter().next().context("the collector gave no outcome")?;
        let took = started.elapsed();
        context.output.answer(
            || json!({ "event_id": outcome.event_id, "status": "accepted", "acknowledged_s": took.as_secs_f64() }),
            |page| page.line(format!("event {} is on the log ({})", outcome.event_id, output::human(took))),
        );
        Ok(())
    }
}

/// What was given, with the visit where every door puts it.
fn properties(text: Option<&str>, session: Option<String>) -> anyhow::Result<Option<prost_types::Struct>> {
    if text.is_none() && session.is_none() {
        return Ok(None);
    }
    let wrong = |why: String| Usage(format!("--properties is no JSON object: {why}"));
    let mut json: Value = serde_json::from_str(text.unwrap_or("{}")).map_err(|e| wrong(e.to_string()))?;
    if let (Some(session), Some(object)) = (session, json.as_object_mut()) {
        let context = object.entry("context").or_insert_with(|| json!({}));
        let context = context.as_object_mut().ok_or_else(|| wrong("its context is no object".to_owned()))?;
        context.insert("sessionId".to_owned(), Value::String(session));
    }
    Ok(Some(rapport_events::json::to_struct("properties", json).map_err(|e| wrong(e.to_string()))?))
}

fn traits(text: &str) -> anyhow::Result<prost_types::Struct> {
    let wrong = |why: String| Usage(format!("--traits is no JSON object: {why}"));
    let json = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    Ok(rapport_events::json::to_struct("traits", json).map_err(|e| wrong(e.to_string()))?)
}

/// Sends events through `CollectBatch` until every one is accepted. Each must have an id: that
/// makes sending again safe.
///
/// # Errors
/// The collector refuses one, or asks for more than five attempts.
pub async fn collect(context: &Context, events: Vec<Event>) -> anyhow::Result<Vec<Outcome>> {
    const ATTEMPTS: u32 = 5;
    let mut client = context.collector()?;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(lane::backoff(attempt)).await;
        }
        let request = CollectBatchRequest { events: events.clone() };
        let outcomes = match client.collect_batch(context.request(request)?).await {
            Ok(answer) => answer.into_inner().outcomes,
            Err(status) if crate::error::retryable(&status) && attempt + 1 < ATTEMPTS => continue,
            Err(status) => return Err(context.collector_refused(&status)),
        };
        if let Some(refused) = outcomes.iter().find(|outcome| outcome.status() == Verdict::Refused) {
            bail!("the collector refused the event: {}: {}", refused.field, refused.message);
        }
        if outcomes.iter().all(|outcome| outcome.status() == Verdict::Accepted) {
            return Ok(outcomes);
        }
    }
    bail!("Kafka did not acknowledge the event in {ATTEMPTS} attempts; try: is Kafka running (`make status`)?")
}
