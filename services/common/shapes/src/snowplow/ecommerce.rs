//! Snowplow's e-commerce schemas: what the recommender reads of them.
//!
//! - `iglu:com.snowplowanalytics.snowplow.ecommerce/snowplow_ecommerce_action`: its `type` names the
//!   event; `product_view` is a `view`, `transaction` is a `purchase`. Item, category, price and currency
//!   come from the first `product` among the entities; value and currency of a transaction from the
//!   `transaction` entity.
//! - the older `add_to_cart` and `remove_from_cart`: `sku`, `category`, `unitPrice`, `currency`.
//! - `screen_view` is Segment's `screen`.
//! - any other: as a Segment track call (`product_id`, `item_id`, `sku`, `value`, `price`, `revenue`).

use rapport_proto::events::Event;

use super::payload::SelfDescribing;
use crate::{
    event_name::event_type,
    fields::{self, currency, number, scalar},
    tree::Fields,
};

const ACTION: &str = "iglu:com.snowplowanalytics.snowplow.ecommerce/snowplow_ecommerce_action/";
const ECOMMERCE: &str = "iglu:com.snowplowanalytics.snowplow.ecommerce/";

pub(super) fn describe(event: &mut Event, properties: &mut Fields, schema: &str, entities: &[SelfDescribing]) {
    if event.r#type == "screen_view" {
        "screen".clone_into(&mut event.r#type);
    }
    fields::describe(event, properties);
    if event.value.is_none() {
        event.value = properties.get("unitPrice").and_then(number);
    }
    if !schema.starts_with(ACTION) {
        return;
    }
    if let Some(action) = properties.get("type").and_then(scalar) {
        match action.as_str() {
            "product_view" => "view".clone_into(&mut event.r#type),
            "transaction" => "purchase".clone_into(&mut event.r#type),
            // An action that cannot be a type leaves the schema's name.
            _ => {
                if let Ok(kind) = event_type("type", &action, properties) {
                    event.r#type = kind;
                }
            }
        }
    }
    let entity = |name: &str| {
        entities.iter().find(|entity| entity.name == name && entity.schema.starts_with(ECOMMERCE)).map(|it| &it.data)
    };
    if let Some(product) = entity("product") {
        let text = |name: &str| product.get(name).and_then(scalar).unwrap_or_default();
        event.item_id = text("id");
        event.category = text("category");
        event.value = product.get("price").and_then(number);
        event.currency = product.get("currency").and_then(currency).unwrap_or_default();
    }
    if let Some(transaction) = entity("transaction") {
        event.value = transaction.get("revenue").and_then(number).or(event.value);
        if let Some(currency) = transaction.get("currency").and_then(currency) {
            event.currency = currency;
        }
    }
}
