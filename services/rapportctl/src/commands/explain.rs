use clap::Args;
use comfy_table::Cell;
use rapport_proto::recommend::{ExplainRequest, ExplainResponse, Explanation, Reason};
use serde_json::{Value, json};

use super::{provenance_json, provenance_line, right};
use crate::{
    context::Context,
    output::{self, Page},
};

#[derive(Debug, Args)]
pub struct Explain {
    /// The customer's id
    customer: String,
    /// The items to explain, at most 20; none: the first five of the customer's list
    items: Vec<String>,
    /// By the rules of this placement
    #[arg(long, default_value = "")]
    placement: String,
    /// How long the list is
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

impl Explain {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = ExplainRequest {
            customer_id: self.customer.clone(),
            item_ids: self.items,
            placement: self.placement,
            limit: self.limit,
        };
        let answer = context.scorer()?.explain(context.request(request)?).await;
        let answer = answer.map_err(|status| context.scorer_refused(&status))?.into_inner();
        context.output.answer(|| as_json(&self.customer, &answer), |page| show(page, &answer));
        Ok(())
    }
}

fn show(page: &mut Page, answer: &ExplainResponse) {
    if answer.items.is_empty() {
        page.line(super::recommend::NOTHING);
    } else {
        let mut table = output::table(["place", "item", "title", "why"]);
        for item in &answer.items {
            table.add_row(vec![
                right(if item.place == 0 { "-".to_owned() } else { item.place.to_string() }),
                Cell::new(&item.item_id),
                Cell::new(&item.title),
                Cell::new(why(item)),
            ]);
        }
        page.table(&table);
    }
    let mut stages = output::table(["stage", "items", "took", "outcome"]);
    for stage in &answer.stages {
        let took = stage.took.and_then(|took| std::time::Duration::try_from(took).ok()).unwrap_or_default();
        // Filters are asked on the way: they have no time of their own.
        let took = if took.is_zero() { String::new() } else { output::human(took) };
        stages.add_row(vec![Cell::new(&stage.name), right(stage.items), right(took), Cell::new(&stage.outcome)]);
    }
    page.table(&stages);
    page.line(provenance_line(answer.provenance.as_ref()));
}

/// One reason a line; what keeps it out, when it is not in the list.
fn why(item: &Explanation) -> String {
    let out = match item.left_out_by.as_str() {
        "" => None,
        "rank" => Some("not in the list: others are better".to_owned()),
        "source" => Some("not in the list: the sources that know it are off at this placement".to_owned()),
        "unknown" => Some("not in the list: neither model, trends nor catalog know it".to_owned()),
        filter => Some(format!("not in the list: left out by the filter {filter:?}")),
    };
    let reasons = item.reasons.iter().map(|reason| reason.text.clone());
    let for_it = (out.is_some() && !item.reasons.is_empty()).then(|| "what speaks for it:".to_owned());
    let lines: Vec<String> = out.into_iter().chain(for_it).chain(reasons).collect();
    if lines.is_empty() { format!("from {}", item.sources.join(" and ")) } else { lines.join("\n") }
}

fn as_json(customer: &str, answer: &ExplainResponse) -> Value {
    let reason = |reason: &Reason| {
        let kind = reason.kind().as_str_name().to_ascii_lowercase();
        json!({ "kind": kind, "item_id": reason.item_id, "title": reason.title, "value": reason.value, "text": reason.text })
    };
    let item = |item: &Explanation| {
        json!({
            "item_id": item.item_id, "title": item.title, "place": (item.place > 0).then_some(item.place),
            "score": item.score, "sources": item.sources, "left_out_by": item.left_out_by,
            "reasons": item.reasons.iter().map(reason).collect::<Vec<_>>(),
        })
    };
    let stage = |stage: &rapport_proto::recommend::Stage| {
        let took = stage.took.and_then(|took| std::time::Duration::try_from(took).ok()).unwrap_or_default();
        json!({ "name": stage.name, "items": stage.items, "took_s": took.as_secs_f64(), "outcome": stage.outcome })
    };
    json!({
        "customer_id": customer,
        "items": answer.items.iter().map(item).collect::<Vec<_>>(),
        "stages": answer.stages.iter().map(stage).collect::<Vec<_>>(),
        "provenance": provenance_json(answer.provenance.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_is_out_says_what_keeps_it_out_and_one_without_reasons_where_it_comes_from() {
        let out = |left_out_by: &str| why(&Explanation { left_out_by: left_out_by.into(), ..Explanation::default() });
        assert_eq!(out("seen"), "not in the list: left out by the filter \"seen\"");
        assert_eq!(out("rank"), "not in the list: others are better");
        assert_eq!(out("source"), "not in the list: the sources that know it are off at this placement");
        let plain = Explanation { sources: vec!["sequence".into(), "trending".into()], ..Explanation::default() };
        assert_eq!(why(&plain), "from sequence and trending");
        let reason = |text: &str| Reason { text: text.into(), ..Reason::default() };
        let both = Explanation { reasons: vec![reason("a"), reason("b")], ..plain };
        assert_eq!(why(&both), "a\nb");
        let out = Explanation { left_out_by: "rank".into(), ..both };
        assert_eq!(why(&out), "not in the list: others are better\nwhat speaks for it:\na\nb");
    }
}
