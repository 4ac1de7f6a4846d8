use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use clap::Args;
use rapport_events::{EventTime, new_event_id};
use rapport_proto::{
    events::Event,
    recommend::{RecommendRequest, RecommendResponse},
};
use serde_json::json;

use super::{items_json, provenance_json, recommend, send, show_list};
use crate::{catalog::Catalog, context::Context, output};

#[derive(Debug, Args)]
pub struct WatchChange {
    /// The customer; a new one by default, so that the list starts from nothing
    #[arg(long)]
    customer: Option<String>,
    /// The items that the customer rates, one after the other [default: the first three of the
    /// list before]
    #[arg(long, value_delimiter = ',')]
    items: Vec<String>,
    /// The rating of each
    #[arg(long, default_value_t = 5.0)]
    rating: f64,
    /// How many items to show
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// How long to wait for each change
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    patience: Duration,
}

/// One event and how long it took to show.
struct Change {
    item: String,
    title: String,
    /// From sending to Kafka's acknowledgement.
    acknowledged: Duration,
    /// From the acknowledgement to the first answer that reflects the event.
    changed: Duration,
    asked: u32,
}

impl WatchChange {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let customer = self.customer.clone().unwrap_or_else(new_customer);
        let before = self.ask(context, &customer).await?;
        let items: Vec<String> = if self.items.is_empty() {
            before.items.iter().take(3).map(|item| item.item_id.clone()).collect()
        } else {
            self.items.clone()
        };
        if items.is_empty() {
            bail!("there are no items to rate: the list is empty; try: --items with ids of the catalog");
        }
        let catalog = Catalog::read(&context.kafka, &context.tenant).await?;
        let mut version = known_version(&before);
        let mut changes = Vec::new();
        let mut after = None;
        for item in &items {
            let (change, answer) = self.rate(context, &customer, item, &catalog, version + 1).await?;
            version = known_version(&answer).max(version + 1);
            changes.push(change);
            after = Some(answer);
        }
        let after = after.unwrap_or_default();
        report(context, &customer, &before, &after, &changes);
        Ok(())
    }

    /// Sends one rating, then asks until the answer reflects it: its list counts `version` events.
    async fn rate(
        &self,
        context: &Context,
        customer: &str,
        item: &str,
        catalog: &Catalog,
        version: u64,
    ) -> anyhow::Result<(Change, RecommendResponse)> {
        let event = Event {
            event_id: new_event_id(),
            r#type: "rating".to_owned(),
            customer_id: customer.to_owned(),
            item_id: item.to_owned(),
            category: catalog.categories(item).first().cloned().unwrap_or_default(),
            event_time: Some(EventTime::now().to_proto()),
            value: Some(self.rating),
            ..Event::default()
        };
        let sent = Instant::now();
        send::collect(context, vec![event]).await?;
        let acknowledged_at = Instant::now();
        let mut asked = 0;
        loop {
            let answer = self.ask(context, customer).await?;
            asked += 1;
            let reflected = answer.provenance.as_ref().map_or(0, |p| p.list_version);
            if reflected >= version {
                let change = Change {
                    item: item.to_owned(),
                    title: catalog.title(item).to_owned(),
                    acknowledged: acknowledged_at - sent,
                    changed: acknowledged_at.elapsed(),
                    asked,
                };
                return Ok((change, answer));
            }
            if acknowledged_at.elapsed() > self.patience {
                bail!(
                    "the answer for {customer} reflects {reflected} events after {}, expected {version}; try: are the \
                     cleaner and the feature store running (`make status`)?",
                    humantime::format_duration(self.patience)
                );
            }
        }
    }

    async fn ask(&self, context: &Context, customer: &str) -> anyhow::Result<RecommendResponse> {
        let request = RecommendRequest {
            customer_id: customer.to_owned(),
            limit: self.limit,
            with_titles: true,
            ..RecommendRequest::default()
        };
        recommend::ask(context, request).await
    }
}

fn known_version(answer: &RecommendResponse) -> u64 {
    answer.provenance.as_ref().map_or(0, |p| p.customer_version)
}

/// An id that nobody has.
fn new_customer() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("new-{:x}", since.as_millis())
}

fn report(
    context: &Context,
    customer: &str,
    before: &RecommendResponse,
    after: &RecommendResponse,
    changes: &[Change],
) {
    let list = |answer: &RecommendResponse| json!({ "items": items_json(&answer.items), "provenance": provenance_json(answer.provenance.as_ref()) });
    let stayed = after.items.iter().filter(|a| before.items.iter().any(|b| a.item_id == b.item_id)).count();
    context.output.answer(
        || {
            let change = |c: &Change| {
                json!({
                    "item_id": c.item, "title": c.title, "acknowledged_s": c.acknowledged.as_secs_f64(),
                    "changed_s": c.changed.as_secs_f64(), "asked": c.asked,
                })
            };
            json!({
                "customer_id": customer, "before": list(before), "after": list(after),
                "changes": changes.iter().map(change).collect::<Vec<_>>(),
            })
        },
        |page| {
            page.line(format!("customer {customer}, before:"));
            show_list(page, &before.items, before.provenance.as_ref(), recommend::NOTHING);
            page.line("");
            for change in changes {
                page.line(format!(
                    "rated {} {}: acknowledged after {}, in the answer {} after that ({} calls)",
                    change.item,
                    change.title,
                    output::human(change.acknowledged),
                    output::human(change.changed),
                    change.asked
                ));
            }
            page.line("");
            page.line(format!("after ({stayed} of {} items are as before):", after.items.len()));
            show_list(page, &after.items, after.provenance.as_ref(), recommend::NOTHING);
        },
    );
}
