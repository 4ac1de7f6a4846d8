use clap::Args;
use rapport_proto::recommend::RankRequest;
use serde_json::json;

use super::{items_json, provenance_json, show_list};
use crate::context::Context;

#[derive(Debug, Args)]
pub struct Rank {
    /// The customer's id
    customer: String,
    /// The items to put in order
    #[arg(required = true, num_args = 1.., value_delimiter = ',')]
    items: Vec<String>,
}

impl Rank {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = RankRequest { customer_id: self.customer.clone(), item_ids: self.items, with_titles: true };
        let answer = context.scorer()?.rank(context.request(request)?).await;
        let answer = answer.map_err(|status| context.scorer_refused(&status))?.into_inner();
        context.output.answer(
            || {
                json!({
                    "customer_id": self.customer,
                    "items": items_json(&answer.items),
                    "provenance": provenance_json(answer.provenance.as_ref()),
                })
            },
            |page| {
                show_list(page, &answer.items, answer.provenance.as_ref(), "no item came back");
            },
        );
        Ok(())
    }
}
