use clap::Args;
use rapport_proto::recommend::SimilarItemsRequest;
use serde_json::json;

use super::{items_json, provenance_json, show_list};
use crate::context::Context;

#[derive(Debug, Args)]
pub struct Similar {
    /// The item's id
    item: String,
    /// How many items
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

impl Similar {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = SimilarItemsRequest {
            item_id: self.item.clone(),
            limit: self.limit,
            with_titles: true,
            ..SimilarItemsRequest::default()
        };
        let answer = context.scorer()?.similar_items(context.request(request)?).await;
        let answer = answer.map_err(|status| context.scorer_refused(&status))?.into_inner();
        context.output.answer(
            || {
                json!({
                    "item_id": self.item,
                    "items": items_json(&answer.items),
                    "provenance": provenance_json(answer.provenance.as_ref()),
                })
            },
            |page| {
                show_list(
                    page,
                    &answer.items,
                    answer.provenance.as_ref(),
                    "nothing goes with it: no model has seen it, or there is no model yet",
                );
            },
        );
        Ok(())
    }
}
