//! Values straight from stored bytes, for reads: the same as those of the decoded state, without making it. A state
//! of hundreds of windows is a small vector for each, made only to be added up.

use rapport_events::EventTime;

use crate::{
    Entity, Error, Views,
    state::{Header, Slot},
    views::Plan,
    wire::Reader,
};

/// What a read of one entity says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vector {
    /// One for each of [`Views::names`]; NaN where a feature has no value.
    pub values: Vec<f64>,
    /// One for each of [`Views::list_names`].
    pub lists: Vec<Vec<String>>,
    /// The newest event that they reflect.
    pub newest: Option<EventTime>,
    /// How many events have been applied.
    pub events: u64,
}

impl Vector {
    /// What the customer's state says at a moment, from the bytes of [`crate::CustomerState::features_to_bytes`]. Of
    /// what stands behind it (categories, visits) nothing is looked at.
    ///
    /// # Errors
    /// Bytes that hold no such state.
    pub fn of_customer(views: &Views, features: &[u8], now: EventTime) -> Result<Self, Error> {
        let mut reader = Reader::new("feature states", features);
        crate::customer::check_format(&mut reader)?;
        read(views.plan(Entity::Customer), &mut reader, now)
    }
}

fn read(plan: &Plan, reader: &mut Reader<'_>, now: EventTime) -> Result<Vector, Error> {
    let Header { events, newest, slots } = Header::take(plan, reader)?;
    let mut vector =
        Vector { values: plan.nothing.clone(), lists: vec![Vec::new(); plan.lists().len()], newest, events };
    for _ in 0..slots {
        let (fingerprint, payload) = (reader.u32()?, reader.bytes()?);
        let Some(&at) = plan.by_fingerprint.get(&fingerprint) else { continue };
        let Some(feature) = plan.features.get(at) else { continue };
        let mut reader = Reader::new("state", payload);
        match (vector.values.get_mut(at), at.checked_sub(plan.lists_from)) {
            (Some(value), _) => *value = Slot::read_bytes(feature, &mut reader, now.as_ms())?,
            (None, list) => {
                let slot = Slot::get(feature, &mut reader)?;
                if let Some(list) = list.and_then(|at| vector.lists.get_mut(at)) {
                    *list = Slot::list(Some(&slot), feature, now.as_ms()).0;
                }
            }
        }
        reader.end()?;
    }
    Ok(vector)
}
