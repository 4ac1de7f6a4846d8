//! What another model would have earned at the places that were drawn by chance (off-policy evaluation).
//!
//! At each such place, given the customer's events that were known when the list was served and the items
//! above the place, the model's choice is its best item among those that the placement has ever drawn and
//! that the customer does not have. A draw counts for the model with one over its probability where it is
//! what the model would have chosen ([`rapport_evaluation::policy_value`]).

use std::collections::{HashMap, HashSet};

use rapport_evaluation::{Clusters, Drawn};
use rapport_events::{EventTime, LoggedEvent};
use rapport_inference::{Asked, NextItemModel};
use rapport_registry::{Artifact, ItemTable};

use super::Credited;
use crate::Error;

/// Histories in one run of the model.
const BATCH: usize = 64;

/// What an outcome is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reward {
    /// 1 for an item that was acted on.
    Count,
    /// The event's value.
    Value,
}

/// A place that was drawn by chance.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    /// The list, by its number.
    list: usize,
    /// From 0.
    place: usize,
}

/// The places that were drawn, and what everybody had done when they were.
pub struct Draws<'a> {
    lists: Vec<&'a Credited>,
    places: Vec<Place>,
    /// Each customer's events with items, by event time.
    pasts: HashMap<&'a str, Vec<&'a LoggedEvent>>,
    /// What each placement has drawn.
    drawn: HashMap<&'a str, HashSet<&'a str>>,
    reward: Reward,
}

impl<'a> Draws<'a> {
    /// Of lists whose window has ended.
    pub fn of(lists: impl Iterator<Item = &'a Credited>, events: &'a [LoggedEvent], reward: Reward) -> Self {
        let by_chance = |propensity: f64| propensity > 0.0 && propensity < 1.0;
        let lists: Vec<&Credited> =
            lists.filter(|credited| credited.list.items.iter().any(|item| by_chance(item.propensity))).collect();
        let mut places = Vec::new();
        let mut drawn: HashMap<&str, HashSet<&str>> = HashMap::new();
        for (number, Credited { list, .. }) in lists.iter().enumerate() {
            for (place, item) in list.items.iter().enumerate().filter(|(_, item)| by_chance(item.propensity)) {
                drawn.entry(&list.placement).or_default().insert(&item.item_id);
                places.push(Place { list: number, place });
            }
        }
        let mut pasts: HashMap<&str, Vec<&LoggedEvent>> = HashMap::new();
        for logged in events.iter().filter(|logged| logged.event.item_id.is_some()) {
            pasts.entry(&logged.event.customer_id).or_default().push(logged);
        }
        pasts.values_mut().for_each(|past| past.sort_by_key(|logged| (logged.event.time, logged.position)));
        Self { lists, places, pasts, drawn, reward }
    }

    pub fn lists(&self) -> usize {
        self.lists.len()
    }

    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The rows of a customer belong together.
    pub fn clusters(&self) -> Clusters {
        let customers: Vec<&str> = self.places.iter().map(|at| self.list(at).list.customer_id.as_str()).collect();
        Clusters::by(&customers)
    }

    fn list(&self, at: &Place) -> &Credited {
        self.lists[at.list]
    }

    /// What had happened and was known when a list was served: later events, and those that came late,
    /// would tell the model what the scorer could not know.
    fn past(&self, customer: &str, served_at: EventTime) -> impl Iterator<Item = &'a LoggedEvent> {
        let past = self.pasts.get(customer).map_or(&[][..], Vec::as_slice).iter().copied();
        past.filter(move |logged| logged.event.time < served_at && logged.event.received_at <= served_at)
    }

    /// A draw for each place, with whether `model` would have chosen it.
    ///
    /// # Errors
    /// The model failed.
    pub fn judged_by(&self, model: &mut Judge) -> Result<Vec<Drawn>, Error> {
        let mut chosen: Vec<Vec<Option<usize>>> = Vec::with_capacity(self.lists.len());
        for chunk in self.lists.chunks(BATCH) {
            let asked: Vec<Asked> = chunk.iter().map(|credited| model.asked(self, credited)).collect();
            let scores = model.scores(&asked)?;
            for (credited, scores) in chunk.iter().zip(&scores) {
                chosen.push(model.choices(self, credited, scores));
            }
        }
        let drawn = |at: &Place| {
            let Credited { list, credits } = self.list(at);
            let item = &list.items[at.place];
            let reward = match (&credits[at.place], self.reward) {
                (None, _) => 0.0,
                (Some(_), Reward::Count) => 1.0,
                (Some(credit), Reward::Value) => credit.value.unwrap_or(0.0),
            };
            let theirs = chosen[at.list][at.place].and_then(|index| model.items.id(index));
            let target = f64::from(u8::from(theirs == Some(item.item_id.as_str())));
            Drawn { reward, propensity: item.propensity, target }
        };
        Ok(self.places.iter().map(drawn).collect())
    }
}

/// A version of a model, asked what it would have shown.
pub struct Judge {
    model: NextItemModel,
    items: ItemTable,
    /// The model's numbers of the types of events; none for one that does not look at them.
    types: HashMap<String, i64>,
    sequence_length: usize,
}

impl Judge {
    /// # Errors
    /// The artifact cannot be read, or its graph is no next-item model.
    pub fn open(artifact: &Artifact, threads: usize) -> Result<Self, Error> {
        let model = NextItemModel::load(&artifact.model_path(), threads)?;
        let about = &artifact.manifest().description;
        let types = about.event_types.iter().cloned().zip(1..).collect();
        Ok(Self { model, items: artifact.items()?, types, sequence_length: about.sequence_length })
    }

    fn asked(&self, draws: &Draws<'_>, of: &Credited) -> Asked {
        let now = of.list.served_at.as_ms().div_euclid(1000);
        let mut asked = Asked { now, ..Asked::default() };
        for logged in draws.past(&of.list.customer_id, of.list.served_at) {
            let item = logged.event.item_id.as_deref().and_then(|item| self.items.index_of(item));
            let Some(item) = item else { continue };
            asked.items.push(i64::from(item));
            asked.times.push(logged.event.time.as_ms().div_euclid(1000));
            if !self.types.is_empty() {
                asked.types.push(self.types.get(&logged.event.kind).copied().unwrap_or(0));
            }
        }
        asked.newest(self.sequence_length)
    }

    /// Nothing for a customer of whom the model knows no item: it has no opinion there.
    fn scores(&mut self, asked: &[Asked]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let known: Vec<Asked> = asked.iter().filter(|asked| !asked.items.is_empty()).cloned().collect();
        let mut scores = self.model.scores(&known)?.into_iter();
        Ok(asked.iter().map(|asked| if asked.items.is_empty() { None } else { scores.next() }).collect())
    }

    /// For each place of a list, the index of the item that it would have had there, given the items above.
    fn choices(&self, draws: &Draws<'_>, of: &Credited, scores: &Option<Vec<f32>>) -> Vec<Option<usize>> {
        let list = &of.list;
        let Some(scores) = scores else { return vec![None; list.items.len()] };
        let had: HashSet<&str> = draws
            .past(&list.customer_id, list.served_at)
            .filter_map(|logged| logged.event.item_id.as_deref())
            .collect();
        let pool = draws.drawn.get(list.placement.as_str());
        let mut best: Vec<(usize, f32)> = pool
            .into_iter()
            .flatten()
            .filter(|item| !had.contains(**item))
            .filter_map(|item| self.items.index_of(item))
            .filter_map(|index| Some((index as usize, *scores.get(index as usize)?)))
            .filter(|(_, score)| score.is_finite())
            .collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let place = |place: usize| {
            let above: HashSet<&str> = list.items[..place].iter().map(|item| item.item_id.as_str()).collect();
            let free = |(index, _): &&(usize, f32)| self.items.id(*index).is_some_and(|id| !above.contains(id));
            best.iter().find(free).map(|(index, _)| *index)
        };
        (0..list.items.len()).map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            Outcomes, join,
            join::tests::{event, list},
        },
        *,
    };

    #[test]
    fn a_model_is_asked_with_what_was_known_when_the_list_was_served() {
        let mut late = event("ann", "view", "late", 90);
        late.event.received_at = EventTime::from_ms(101);
        let events =
            [event("ann", "view", "a", 50), late, event("ann", "view", "b", 100), event("bob", "view", "c", 1)];
        let outcomes = Outcomes { types: Vec::new(), window: Duration::from_secs(1) };
        let lists = join(vec![list("ann", 100, &[("x", 1.0), ("y", 0.5)])], &events, &outcomes);
        let draws = Draws::of(lists.iter(), &events, Reward::Count);
        let known: Vec<_> =
            draws.past("ann", EventTime::from_ms(100)).filter_map(|logged| logged.event.item_id.as_deref()).collect();
        assert_eq!(known, ["a"], "neither what came at that moment nor what came late");
        assert_eq!((draws.lists(), draws.places()), (1, 1));
    }
}
