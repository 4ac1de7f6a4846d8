use clap::Args;
use comfy_table::Cell;
use rapport_proto::features::{GetHistoryRequest, Interaction};
use serde_json::json;

use super::{number, right, time_text};
use crate::{catalog::Catalog, context::Context, output};

#[derive(Debug, Args)]
pub struct History {
    /// The customer's id
    customer: String,
    /// At most this many of the newest; 0 means all that is kept
    #[arg(long, short = 'n', default_value_t = 10)]
    limit: u32,
}

impl History {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = GetHistoryRequest { customer_ids: vec![self.customer.clone()], limit: self.limit };
        let answer = context.feature_store()?.get_history(context.request(request)?).await;
        let answer = answer.map_err(|status| context.feature_store_refused(&status))?.into_inner();
        let history = answer.histories.into_iter().next().unwrap_or_default();
        // Titles are for show: without Kafka the history is shown with ids alone.
        let catalog = match Catalog::read(&context.kafka, &context.tenant).await {
            Ok(catalog) => catalog,
            Err(error) => {
                context.output.note(format!("without titles: {error:#}"));
                Catalog::default()
            }
        };
        let interaction = |i: &Interaction| {
            json!({
                "item_id": i.item_id, "type": i.r#type, "event_time": time_text(i.event_time.as_ref()),
                "value": i.value, "title": catalog.title(&i.item_id), "categories": catalog.categories(&i.item_id),
            })
        };
        context.output.answer(
            || {
                json!({
                    "customer_id": self.customer, "found": history.found, "version": history.version,
                    "segment": history.segment,
                    "interactions": history.interactions.iter().map(interaction).collect::<Vec<_>>(),
                })
            },
            |page| {
                if !history.found {
                    page.line(format!("the feature store has never seen the customer {:?}", self.customer));
                    return;
                }
                let mut table = output::table(["when", "what", "value", "item", "title", "categories"]);
                for i in history.interactions.iter().rev() {
                    table.add_row(vec![
                        Cell::new(time_text(i.event_time.as_ref()).unwrap_or_default()),
                        Cell::new(&i.r#type),
                        right(i.value.map_or(String::new(), number)),
                        Cell::new(&i.item_id),
                        Cell::new(catalog.title(&i.item_id)),
                        Cell::new(catalog.categories(&i.item_id).join(", ")),
                    ]);
                }
                page.table(&table);
                let segment = match history.segment.as_str() {
                    "" => String::new(),
                    segment => format!("; in the segment {segment}"),
                };
                page.line(format!(
                    "newest first; {} events applied in all{segment}",
                    output::thousands(history.version)
                ));
            },
        );
        Ok(())
    }
}
