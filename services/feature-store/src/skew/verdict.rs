//! A vector beside what the log says. What was given out is judged, whatever way it was read; of a customer the
//! state that stands behind it is, too, which holds more than one vector shows.

use std::collections::BTreeMap;

use rapport_events::EventTime;
use rapport_features::{CustomerState, Entity, State};

use super::{Held, Sample};
use crate::{read::Known, requested::Row};

/// What sums of numbers may differ by when their parts were added in another order, as after a back-fill.
const RELATIVE: f64 = 1e-9;

/// What came of one sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Same,
    Differs(Differing),
    /// The customer, item or segment had been forgotten meanwhile and began anew.
    Forgotten,
}

/// The features that were something else, each once: its name, what was served and what the log says.
pub(super) type Differing = Vec<(String, String, String)>;

/// What the log says of a sample.
#[derive(Debug, Default)]
pub(super) struct Again {
    pub customer: Option<CustomerState>,
    /// An item's or a segment's parts, by source partition.
    pub shared: BTreeMap<i32, State>,
}

/// `forgets`: whether states are forgotten when nothing happens to them.
pub(super) fn verdict(sample: &Sample, again: &Again, forgets: bool) -> Verdict {
    let (views, served) = (&sample.views, &sample.served);
    let mut differing = Vec::new();
    match &sample.drawn.held {
        Held::Customer { state, .. } => {
            let nothing = CustomerState::new(views);
            let again = again.customer.as_ref().unwrap_or(&nothing);
            if forgets && state.version() < again.version() {
                return Verdict::Forgotten;
            }
            match &sample.drawn.part {
                None => {
                    let known = Known::of_customer(again, sample.at);
                    given(sample, &known, &again.read_exact_lists(sample.at), &mut differing);
                }
                // One that the log does not have is told by their number, below.
                Some((entity, part)) => {
                    if let Some(part) = again.part(*entity, part) {
                        let known = Known::of_state(part, sample.at);
                        given(sample, &known, &part.read_exact_lists(sample.at), &mut differing);
                    }
                }
            }
            stored(sample, state, again, &mut differing);
        }
        Held::Shared { entity, .. } => {
            // As reads do it: ascending by partition.
            let mut sum = State::new(views, *entity);
            again.shared.values().for_each(|part| sum.merge(part));
            if forgets && served.version < sum.events() {
                return Verdict::Forgotten;
            }
            let known = Known::of_state(&sum, sample.at);
            given(sample, &known, &sum.read_exact_lists(sample.at), &mut differing);
        }
    }
    if differing.is_empty() { Verdict::Same } else { Verdict::Differs(differing) }
}

/// What was given out.
fn given(sample: &Sample, again: &Known, exact_lists: &[Option<Vec<String>>], differing: &mut Differing) {
    let (entity, served) = (sample.drawn.entity(), &sample.served);
    numbers(sample.views.names(entity), &served.values, &again.values, differing);
    for ((name, served), again) in sample.views.list_names(entity).iter().zip(&served.lists).zip(exact_lists) {
        list(name, Some(served), again.as_ref(), differing);
    }
    count("(events)", served.version, again.version, differing);
    if served.newest != again.newest {
        let text = |newest: Option<EventTime>| newest.map(|newest| newest.to_string()).unwrap_or_default();
        differ(differing, "(newest event)", text(served.newest), text(again.newest));
    }
    // The numbers and lists below them have been judged; a bound that lies between two sums of other order is no skew.
    let row = Row { known: served, requested: &sample.requested, row: 0, at: sample.at };
    for (place, value) in &sample.computed {
        if let Some(feature) = sample.views.on_demand(entity).get(*place) {
            numbers(&[feature.name().to_owned()], &[*value], &[feature.value(&row)], differing);
        }
    }
}

/// What a customer's state holds beside the customer.
const PARTS: [Entity; 2] = [Entity::CustomerCategory, Entity::Session];

/// What the store holds of a customer.
fn stored(sample: &Sample, state: &CustomerState, again: &CustomerState, differing: &mut Differing) {
    let (views, at) = (sample.views.as_ref(), sample.at);
    numbers(views.names(Entity::Customer), &state.read(at), &again.read(at), differing);
    lists(views.list_names(Entity::Customer), &state.read_exact_lists(at), &again.read_exact_lists(at), differing);
    for entity in PARTS {
        for part in state.parts(entity) {
            let (Some(ours), Some(theirs)) = (state.part(entity, part), again.part(entity, part)) else { continue };
            numbers(views.names(entity), &ours.read(at), &theirs.read(at), differing);
            let (ours, theirs) = (ours.read_exact_lists(at), theirs.read_exact_lists(at));
            lists(views.list_names(entity), &ours, &theirs, differing);
        }
    }
    for (entity, what) in PARTS.into_iter().zip(["(categories)", "(sessions)"]) {
        if !state.parts(entity).eq(again.parts(entity)) {
            let parts = |state: &CustomerState| state.parts(entity).count().to_string();
            differ(differing, what, parts(state), parts(again));
        }
    }
    count("(events)", state.version(), again.version(), differing);
}

fn alike(served: f64, again: f64) -> bool {
    served.to_bits() == again.to_bits()
        || (served.is_nan() && again.is_nan())
        || (served - again).abs() <= RELATIVE * served.abs().max(again.abs())
}

fn numbers(names: &[String], served: &[f64], again: &[f64], differing: &mut Differing) {
    for ((name, served), again) in names.iter().zip(served).zip(again) {
        if !alike(*served, *again) {
            differ(differing, name, served.to_string(), again.to_string());
        }
    }
}

fn lists(names: &[String], served: &[Option<Vec<String>>], again: &[Option<Vec<String>>], differing: &mut Differing) {
    for ((name, served), again) in names.iter().zip(served).zip(again) {
        list(name, served.as_ref(), again.as_ref(), differing);
    }
}

/// Lists that are not exact may differ by the order that they were added up in.
fn list(name: &str, served: Option<&Vec<String>>, again: Option<&Vec<String>>, differing: &mut Differing) {
    if let (Some(served), Some(again)) = (served, again)
        && served != again
    {
        differ(differing, name, format!("{served:?}"), format!("{again:?}"));
    }
}

fn count(what: &str, served: u64, again: u64, differing: &mut Differing) {
    if served != again {
        differ(differing, what, served.to_string(), again.to_string());
    }
}

fn differ(differing: &mut Differing, name: &str, served: String, again: String) {
    if differing.iter().all(|(known, ..)| known != name) {
        differing.push((name.to_owned(), served, again));
    }
}
