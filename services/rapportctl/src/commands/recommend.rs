use clap::Args;
use rapport_proto::recommend::{RecommendRequest, RecommendResponse};
use serde_json::json;

use super::{items_json, provenance_json, show_list};
use crate::context::Context;

/// An empty list, explained.
pub const NOTHING: &str = "there is nothing to recommend: neither a model nor events to say what is trending";

#[derive(Debug, Args)]
pub struct Recommend {
    /// The customer's id
    customer: String,
    /// How many items
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Wait for a list that reflects every event known by now
    #[arg(long)]
    fresh: bool,
    /// Also items that the customer already has
    #[arg(long)]
    include_seen: bool,
    /// Only items of this category
    #[arg(long, default_value = "")]
    category: String,
    /// By the rules of this placement
    #[arg(long, default_value = "")]
    placement: String,
    /// The type of event to recommend for, a purchase for example, where the model was trained to be told
    #[arg(long, default_value = "", value_name = "TYPE")]
    outcome: String,
    /// The segment to recommend for [default: that of the customer's newest event]
    #[arg(long, default_value = "")]
    segment: String,
    /// The list is only looked at: the feedback loop does not count it as shown
    #[arg(long)]
    not_shown: bool,

    /// Leave these items out
    #[arg(long, value_delimiter = ',')]
    exclude: Vec<String>,
}

impl Recommend {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = RecommendRequest {
            customer_id: self.customer.clone(),
            limit: self.limit,
            with_titles: true,
            include_seen: self.include_seen,
            exclude_item_ids: self.exclude,
            category: self.category,
            fresh: self.fresh,
            placement: self.placement,
            outcome: self.outcome,
            not_shown: self.not_shown,
            segment: self.segment,
        };
        let answer = ask(context, request).await?;
        context.output.answer(
            || {
                json!({
                    "customer_id": self.customer,
                    "items": items_json(&answer.items),
                    "provenance": provenance_json(answer.provenance.as_ref()),
                })
            },
            |page| {
                show_list(page, &answer.items, answer.provenance.as_ref(), NOTHING);
            },
        );
        Ok(())
    }
}

/// One call.
pub async fn ask(context: &Context, request: RecommendRequest) -> anyhow::Result<RecommendResponse> {
    let answer = context.scorer()?.recommend(context.request(request)?).await;
    Ok(answer.map_err(|status| context.scorer_refused(&status))?.into_inner())
}
