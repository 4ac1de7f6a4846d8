use clap::Args;
use comfy_table::Cell;
use rapport_events::EventTime;
use rapport_proto::features::{GetFeaturesRequest, RequestValue, RequestValues, request_value};
use serde_json::{Map, Value, json};

use crate::commands::{number, right, time_text};
use crate::{context::Context, error::Usage, output};

#[derive(Debug, Args)]
pub struct Show {
    /// The customer's id; with --entity an item's, <customer>|<category>, <customer>|<session>,
    /// <customer>| for the newest session, or a segment's name
    id: String,
    /// Only these views
    #[arg(long, value_delimiter = ',')]
    views: Vec<String>,
    /// Whose features: customer, item, customer_category, session or segment
    #[arg(long, default_value = "customer")]
    entity: String,
    /// The moment that windows end at, for example 1998-04-01T00:00:00Z [default: now]
    #[arg(long)]
    at: Option<String>,
    /// A request value of on-demand features, as often as there are: price=19.99, device=mobile
    #[arg(long = "request", value_name = "NAME=VALUE", value_parser = request_value)]
    requested: Vec<(String, RequestValue)>,
}

/// A number where it reads as one; text otherwise.
fn request_value(argument: &str) -> Result<(String, RequestValue), String> {
    let (name, value) = argument.split_once('=').ok_or("must be <name>=<value>")?;
    let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
    let text = || request_value::Value::Text(value.to_owned());
    Ok((name.to_owned(), RequestValue { value: Some(number.map_or_else(text, request_value::Value::Number)) }))
}

impl Show {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let at = match &self.at {
            None => None,
            Some(text) => Some(
                EventTime::parse_rfc3339(text)
                    .ok_or_else(|| Usage(format!("--at {text:?} is no time such as 1998-04-01T00:00:00Z")))?
                    .to_proto(),
            ),
        };
        let one = |(name, value)| (name, RequestValues { values: vec![value] });
        let request = GetFeaturesRequest {
            request_values: self.requested.into_iter().map(one).collect(),
            views: self.views,
            entity: self.entity.clone(),
            entity_ids: vec![self.id.clone()],
            at,
        };
        let answer = context.feature_store()?.get_features(context.request(request)?).await;
        let answer = answer.map_err(|status| context.feature_store_refused(&status))?.into_inner();
        let vector = answer.vectors.into_iter().next().unwrap_or_default();
        let pairs = || answer.names.iter().zip(&vector.values);
        let lists = || answer.list_names.iter().zip(&vector.lists);
        context.output.answer(
            || {
                // JSON has no NaN: a feature without a value is null.
                let values = pairs().map(|(name, value)| (name.clone(), json!(value)));
                let lists = lists().map(|(name, list)| (name.clone(), json!(list.values)));
                let values: Map<String, Value> = values.chain(lists).collect();
                json!({
                    "entity": self.entity, "entity_id": self.id, "found": vector.found, "version": vector.version,
                    "newest_event_time": time_text(vector.newest_event_time.as_ref()), "features": values,
                })
            },
            |page| {
                let mut table = output::table(["feature", "value"]);
                for (name, value) in pairs() {
                    table.add_row(vec![Cell::new(name), right(number(*value))]);
                }
                for (name, list) in lists() {
                    let names = if list.values.is_empty() { "-".to_owned() } else { list.values.join(", ") };
                    table.add_row(vec![Cell::new(name), right(names)]);
                }
                page.table(&table);
                page.line(match time_text(vector.newest_event_time.as_ref()) {
                    Some(newest) if vector.found => {
                        format!("{} events applied, the newest of {newest}", output::thousands(vector.version))
                    }
                    _ => format!("the store has never seen the {} {:?}: an empty state's values", self.entity, self.id),
                });
            },
        );
        Ok(())
    }
}
