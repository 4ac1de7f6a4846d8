//! A customer's newest interactions with items, by event time.

use std::collections::VecDeque;

use rapport_events::{CleanEvent, EventTime};

use crate::{
    Error,
    wire::{self, Reader},
};

/// Interactions that are kept: what sequence models look at.
pub const HISTORY: usize = 200;
const FORMAT: u8 = 1;

/// One event that names an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Interaction {
    pub item_id: String,
    /// The event's type.
    pub kind: String,
    pub time: EventTime,
    pub value: Option<f64>,
}

/// The newest [`HISTORY`] interactions, oldest first. Events of one moment stand in the order in
/// which they came.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History(VecDeque<Interaction>);

impl History {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Interaction> + ExactSizeIterator {
        self.0.iter()
    }

    pub(crate) fn apply(&mut self, event: &CleanEvent) {
        let Some(item_id) = &event.item_id else { return };
        let mut at = match self.0.back() {
            Some(newest) if newest.time > event.time => self.0.partition_point(|i| i.time <= event.time),
            Some(_) | None => self.0.len(),
        };
        if self.0.len() >= HISTORY {
            if at == 0 {
                return;
            }
            // Everything moves one place to the front, and so does the place to insert at.
            self.0.pop_front();
            at -= 1;
        }
        let interaction =
            Interaction { item_id: item_id.clone(), kind: event.kind.clone(), time: event.time, value: event.value };
        self.0.insert(at, interaction);
    }

    /// Types once, then a few bytes for each interaction.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut kinds: Vec<&str> = Vec::new();
        let mut body = Vec::with_capacity(self.0.len() * 16);
        let mut before = 0i64;
        for interaction in &self.0 {
            let kind = kinds.iter().position(|k| *k == interaction.kind).unwrap_or_else(|| {
                kinds.push(&interaction.kind);
                kinds.len() - 1
            });
            wire::put_text(&mut body, &interaction.item_id);
            wire::put_varint(&mut body, (kind as u64) << 1 | u64::from(interaction.value.is_some()));
            wire::put_signed(&mut body, interaction.time.as_ms().wrapping_sub(before));
            if let Some(value) = interaction.value {
                wire::put_f64(&mut body, value);
            }
            before = interaction.time.as_ms();
        }
        let mut out = Vec::with_capacity(body.len() + 32);
        out.push(FORMAT);
        wire::put_varint(&mut out, kinds.len() as u64);
        kinds.iter().for_each(|kind| wire::put_text(&mut out, kind));
        wire::put_varint(&mut out, self.0.len() as u64);
        out.extend_from_slice(&body);
        out
    }

    /// # Errors
    /// Bytes that [`Self::to_bytes`] did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("history", bytes);
        if reader.byte()? != FORMAT {
            return Err(reader.corrupt("has another format version"));
        }
        let kinds = (0..reader.count(1)?).map(|_| reader.text()).collect::<Result<Vec<_>, _>>()?;
        let n = reader.count(3)?;
        if n > HISTORY {
            return Err(reader.corrupt("is longer than a history can be"));
        }
        let mut interactions = VecDeque::with_capacity(n);
        let mut time = 0i64;
        for _ in 0..n {
            let item_id = reader.text()?.to_owned();
            let kind = reader.varint()?;
            time = time.wrapping_add(reader.signed()?);
            let value = if kind & 1 == 1 { Some(reader.f64()?) } else { None };
            let name = usize::try_from(kind >> 1).ok().and_then(|k| kinds.get(k));
            let kind = name.ok_or_else(|| reader.corrupt("names a type that it does not hold"))?;
            let time = EventTime::from_ms(time);
            interactions.push_back(Interaction { item_id, kind: (*kind).to_owned(), time, value });
        }
        reader.end()?;
        if !interactions.iter().is_sorted_by_key(|i| i.time) {
            return Err(reader.corrupt("is out of order"));
        }
        Ok(Self(interactions))
    }
}
