//! One tenant's histories and the sums over them, brought on by the events that come.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use rapport_events::{LoggedEvent, Tenant};
use rapport_offline::Place;
use serde::{Deserialize, Serialize};

use super::Forgotten;
use crate::{Error, dataset::Dataset, models::ridge::Sums};

/// What the sums are of. Others are other sums, which begin anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    #[serde(with = "as_text")]
    pub tenant: Tenant,
    pub decays: Vec<f64>,
    pub since: Option<String>,
    pub event_types: Vec<String>,
}

/// A tenant as its name.
mod as_text {
    use super::{Deserialize as _, Tenant};

    pub fn serialize<S: serde::Serializer>(tenant: &Tenant, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(tenant)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Tenant, D::Error> {
        Tenant::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// How much may be kept of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub items: usize,
    pub customers: usize,
    /// Of the file.
    pub bytes: usize,
}

/// The log is larger than what may be kept: runs add it up themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event with an item, in the order of a history: by time, then as the log has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taken {
    pub time: i64,
    pub partition: i32,
    pub offset: i64,
    /// From 1, in the order in which the items came.
    pub item: u32,
}

/// Bytes of an event in the file.
pub(super) const EVENT_BYTES: usize = 24;

#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// In the sums, in order.
    pub folded: Vec<Taken>,
    /// Not yet.
    pending: Vec<Taken>,
}

impl History {
    pub fn of(folded: Vec<Taken>) -> Self {
        Self { folded, pending: Vec::new() }
    }

    fn items(&self) -> Vec<u32> {
        self.folded.iter().map(|taken| taken.item).collect()
    }

    fn len(&self) -> usize {
        self.folded.len() + self.pending.len()
    }
}

/// What one look brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    pub events: u64,
    /// Customers one of whose events came after a later one: their parts were taken out from there on and
    /// added again.
    pub reordered: u64,
}

/// One tenant's part of the log up to a place, summed up.
#[derive(Debug, Clone)]
pub struct Kept {
    pub(super) identity: Identity,
    bounds: Bounds,
    pub(super) place: Place,
    pub(super) items: Vec<String>,
    index: HashMap<String, u32>,
    pub(super) customers: BTreeMap<String, History>,
    events: usize,
    /// Bytes of the customers' ids.
    id_bytes: usize,
    pub(super) sums: Sums,
}

impl Kept {
    /// Nothing yet.
    ///
    /// # Errors
    /// Decays that no ridge has.
    pub fn new(identity: Identity, bounds: Bounds) -> Result<Self, Error> {
        let sums = Sums::new(0, &identity.decays)?;
        Ok(Self::from_parts(identity, bounds, Place::default(), Vec::new(), BTreeMap::new(), sums))
    }

    /// As it was kept.
    pub(super) fn from_parts(
        identity: Identity,
        bounds: Bounds,
        place: Place,
        items: Vec<String>,
        customers: BTreeMap<String, History>,
        sums: Sums,
    ) -> Self {
        let index = items.iter().zip(1..).map(|(id, index)| (id.clone(), index)).collect();
        let events = customers.values().map(History::len).sum();
        let id_bytes = customers.keys().map(String::len).sum();
        Self { identity, bounds, place, items, index, customers, events, id_bytes, sums }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Up to where the log is in it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    pub fn events(&self) -> usize {
        self.events
    }

    pub fn customers(&self) -> usize {
        self.customers.len()
    }

    /// Bytes of its file, about.
    pub fn bytes(&self) -> usize {
        let n = self.identity.decays.len() * self.items.len();
        let ids = self.items.iter().map(|id| id.len() + 4).sum::<usize>() + self.id_bytes + 8 * self.customers.len();
        (n * (n + 1) / 2 + n * self.items.len()) * 8 + self.events * EVENT_BYTES + ids
    }

    /// Whether everything that was taken is in the sums.
    pub fn settled(&self) -> bool {
        self.customers.values().all(|history| history.pending.is_empty())
    }

    /// Takes an event of the log, in any order. It is in the sums after the next [`Kept::fold`].
    ///
    /// # Errors
    /// It is one more than may be kept.
    pub fn take(&mut self, logged: &LoggedEvent, forgotten: &Forgotten) -> Result<(), Refused> {
        let LoggedEvent { position, event } = logged;
        let wanted = self.identity.event_types.is_empty() || self.identity.event_types.contains(&event.kind);
        let Some(id) = event.item_id.as_ref().filter(|_| wanted && event.tenant == self.identity.tenant) else {
            return Ok(());
        };
        if forgotten.has(&event.customer_id) {
            return Ok(());
        }
        let refused = |what: &str, limit: usize| Err(Refused(format!("its log has more than {limit} {what}")));
        let item = match self.index.get(id) {
            Some(&item) => item,
            None if self.items.len() >= self.bounds.items => return refused("items", self.bounds.items),
            None => {
                self.items.push(id.clone());
                let item = self.items.len() as u32;
                self.index.insert(id.clone(), item);
                item
            }
        };
        let taken = Taken { time: event.time.as_ms(), partition: position.partition, offset: position.offset, item };
        let many = self.customers.len() >= self.bounds.customers;
        match self.customers.get_mut(&event.customer_id) {
            Some(history) => history.pending.push(taken),
            None if many => return refused("customers", self.bounds.customers),
            None => {
                self.id_bytes += event.customer_id.len();
                let history = History { folded: Vec::new(), pending: vec![taken] };
                self.customers.insert(event.customer_id.clone(), history);
            }
        }
        self.events += 1;
        if self.events.is_multiple_of(1_000) && self.bytes() > self.bounds.bytes {
            return refused("bytes in its sums and histories", self.bounds.bytes);
        }
        Ok(())
    }

    /// Brings the sums on by everything that was taken. A customer's newer events are added to what is there;
    /// one that is late takes out what the events after it have taught and adds it again in the order of
    /// event time. Stopped in the middle, the next call goes on.
    ///
    /// # Errors
    /// The file would be larger than it may, or the sums than any ridge's.
    pub fn fold(&mut self, stop: &dyn Fn() -> bool) -> Result<Folded, Error> {
        if self.bytes() > self.bounds.bytes {
            let reason = format!("its sums and histories take more than {} bytes", self.bounds.bytes);
            return Err(Error::NotKept(Refused(reason)));
        }
        if self.items.len() > self.sums.items() {
            // Half again, so that few items more do not copy everything each time.
            let room = (self.items.len() * 3 / 2).max(64).min(self.bounds.items.max(self.items.len()));
            let order: Vec<Option<usize>> = (0..room).map(|k| (k < self.sums.items()).then_some(k)).collect();
            self.sums = self.sums.rearranged(&order)?;
        }
        let mut folded = Folded::default();
        for history in self.customers.values_mut().filter(|history| !history.pending.is_empty()) {
            if stop() {
                break;
            }
            history.pending.sort_unstable();
            folded.events += history.pending.len() as u64;
            let from = history.folded.partition_point(|taken| *taken < history.pending[0]);
            if from < history.folded.len() {
                self.sums.subtract(&history.items(), from);
                folded.reordered += 1;
            }
            history.folded.append(&mut history.pending);
            history.folded[from..].sort_unstable();
            self.sums.add(&history.items(), from);
        }
        Ok(folded)
    }

    /// Takes out, exactly, those customers that are to be forgotten. How many events that were.
    pub fn forget(&mut self, forgotten: &Forgotten) -> usize {
        let gone: Vec<String> = self.customers.keys().filter(|id| forgotten.has(id)).cloned().collect();
        let mut events = 0;
        for id in gone {
            let Some(history) = self.customers.remove(&id) else { continue };
            self.sums.subtract(&history.items(), 0);
            self.id_bytes -= id.len();
            events += history.len();
        }
        self.events -= events;
        events
    }

    /// Whether these are the sums over all of the data, with these decays.
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn fits(&self, data: &Dataset, decays: &[f64]) -> Result<(), String> {
        if self.identity.decays != decays {
            return Err(format!("they have decays {:?}, the recipe has {decays:?}", self.identity.decays));
        }
        if data.counts.rare_items > 0 {
            return Err(format!("{} events are of items beyond --max-items", data.counts.rare_items));
        }
        if data.counts.used != self.events as u64 || !self.settled() {
            return Err(format!("they are of {} events, the data has {}", self.events, data.counts.used));
        }
        match (1..data.width()).filter_map(|i| data.items.id(i)).find(|id| !self.index.contains_key(*id)) {
            Some(id) => Err(format!("they do not know the item {id}")),
            None => Ok(()),
        }
    }

    /// The sums over all of the data, by its item indexes. The data fits.
    ///
    /// # Errors
    /// No memory for them.
    pub fn sums(&self, data: &Dataset) -> Result<Sums, Error> {
        let own = |index: usize| data.items.id(index).and_then(|id| self.index.get(id)).map(|&own| own as usize - 1);
        self.sums.rearranged(&(1..data.width()).map(own).collect::<Vec<_>>())
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
