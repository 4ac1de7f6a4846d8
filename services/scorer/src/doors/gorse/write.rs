//! Writes: admitted as the collector admits, and answered once Kafka has all of them. What is wrong in one
//! row refuses the whole call before anything of it is written.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use prost::Message as _;
use rapport_admission::{admit, keys::Caller};
use rapport_events::{FieldError, event_key, limits};
use rapport_proto::{catalog::Item, events::Event};
use serde::Serialize;

use super::{
    Gorse, Sender,
    fault::Fault,
    publish::Write,
    wire::{self, Feedback, ItemPatch, NewItem, Second, User, in_gorses_words},
};

type House = State<Arc<Gorse>>;
type Written = Result<Json<Success>, Fault>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Success {
    row_affected: usize,
}

impl Gorse {
    /// Takes the rows from the caller's quota and writes them.
    async fn write(&self, caller: &Caller, writes: &[Write]) -> Written {
        let charge = caller.quota().take(writes.len())?;
        self.publish.write(caller.tenant(), writes, charge).await?;
        // Kafka has them, and so will the snapshot: whoever reads here next must not miss them.
        for write in writes {
            self.show(caller, write);
        }
        Ok(Json(Success { row_affected: writes.len() }))
    }

    fn show(&self, caller: &Caller, write: &Write) {
        let (item_id, value) = match write {
            Write::Event(_) => return,
            Write::Item(item) => (&item.item_id, Some(item.encode_to_vec())),
            Write::RemoveItem(item_id) => (item_id, None),
        };
        let key = event_key(caller.tenant(), item_id);
        if let Err(error) = self.service.recommender.catalog.apply(key.as_bytes(), value.as_deref()) {
            tracing::warn!(%error, "an item that was written is not shown yet");
        }
    }

    /// The record of an item that the catalog holds.
    fn held(&self, caller: &Caller, item_id: &str) -> Result<Item, Fault> {
        let catalog = self.service.recommender.catalog.of(caller.tenant());
        let entry = catalog.look(item_id, |entry| entry.cloned());
        let entry = entry.ok_or_else(|| Fault::NotFound("ItemId: the catalog does not hold it".into()))?;
        Ok(wire::item_of(caller.tenant().as_str(), item_id, entry))
    }
}

/// Rows of one call, each admitted.
fn admitted<T>(rows: Vec<T>, admit: impl Fn(T) -> Result<Write, FieldError>) -> Result<Vec<Write>, FieldError> {
    if rows.len() > limits::BATCH_EVENTS {
        let reason = format!("may hold {} rows, holds {}", limits::BATCH_EVENTS, rows.len());
        return Err(FieldError::size("body", reason));
    }
    let admitted = rows.into_iter().enumerate();
    admitted.map(|(n, row)| admit(row).map_err(|error| in_gorses_words(n, error))).collect()
}

fn event(mut event: Event) -> Result<Write, FieldError> {
    if event.customer_id.is_empty() {
        return Err(FieldError::identity("UserId", "is empty"));
    }
    admit::event(&mut event)?;
    Ok(Write::Event(event))
}

fn an_item(item: Item) -> Result<Write, FieldError> {
    admit::item(&item)?;
    Ok(Write::Item(item))
}

pub async fn feedback(house: House, sender: Sender, body: Bytes) -> Written {
    all_feedback(&house, &sender.caller, wire::read(&body)?, Second::Ignored).await
}

pub async fn feedback_anew(house: House, sender: Sender, body: Bytes) -> Written {
    all_feedback(&house, &sender.caller, wire::read(&body)?, Second::Counts).await
}

/// Feedback that a user was shown what an answer holds.
///
/// # Errors
/// As for feedback that comes by itself; the answer is not given then.
pub async fn write_back(gorse: &Gorse, caller: &Caller, shown: Vec<Feedback>) -> Result<(), Fault> {
    let _place = gorse.publish.place()?;
    all_feedback(gorse, caller, shown, Second::Ignored).await.map(drop)
}

async fn all_feedback(gorse: &Gorse, caller: &Caller, rows: Vec<Feedback>, second: Second) -> Written {
    let writes = admitted(rows, |row| event(row.event(second)?))?;
    gorse.write(caller, &writes).await
}

pub async fn user(house: House, sender: Sender, body: Bytes) -> Written {
    house.write(&sender.caller, &admitted(vec![wire::read::<User>(&body)?], |user| event(user.event()?))?).await
}

pub async fn users(house: House, sender: Sender, body: Bytes) -> Written {
    house.write(&sender.caller, &admitted(wire::read::<Vec<User>>(&body)?, |user| event(user.event()?))?).await
}

pub async fn patch_user(house: House, sender: Sender, Path(user_id): Path<String>, body: Bytes) -> Written {
    let user = User { user_id, ..wire::read(&body)? };
    house.write(&sender.caller, &admitted(vec![user], |user| event(user.event()?))?).await
}

pub async fn item(house: House, sender: Sender, body: Bytes) -> Written {
    all_items(&house, &sender.caller, vec![wire::read(&body)?]).await
}

pub async fn items(house: House, sender: Sender, body: Bytes) -> Written {
    all_items(&house, &sender.caller, wire::read(&body)?).await
}

async fn all_items(gorse: &Gorse, caller: &Caller, rows: Vec<NewItem>) -> Written {
    let tenant = caller.tenant().as_str();
    gorse.write(caller, &admitted(rows, |row| an_item(row.item(tenant)?))?).await
}

pub async fn patch_item(house: House, sender: Sender, Path(item): Path<String>, body: Bytes) -> Written {
    let patch: ItemPatch = wire::read(&body)?;
    let held = house.held(&sender.caller, &item)?;
    house.write(&sender.caller, &[an_item(patch.on(held)?)?]).await
}

pub async fn remove_item(house: House, sender: Sender, Path(item): Path<String>) -> Written {
    admit::item_id("ItemId", &item)?;
    house.write(&sender.caller, &[Write::RemoveItem(item)]).await
}

pub async fn add_category(house: House, sender: Sender, Path((item, category)): Path<(String, String)>) -> Written {
    let mut held = house.held(&sender.caller, &item)?;
    if !held.categories.contains(&category) {
        held.categories.push(category);
    }
    house.write(&sender.caller, &[an_item(held)?]).await
}

pub async fn remove_category(house: House, sender: Sender, Path((item, category)): Path<(String, String)>) -> Written {
    let mut held = house.held(&sender.caller, &item)?;
    held.categories.retain(|has| *has != category);
    house.write(&sender.caller, &[an_item(held)?]).await
}
