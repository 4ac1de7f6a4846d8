use rapport_placements::NewItems;

use super::Standing;
use crate::pipeline::Tag;
use rapport_events::EventTime;

/// Takes the next `places` from `candidates`, in their order, and sees to it that there is a new item in each
/// run of `every` places: where none has come by itself, the last place of the run goes to the next one of
/// the candidates, or of the reserve. How many places were given away.
pub(super) fn apply(
    rule: &NewItems,
    candidates: &mut Vec<Standing>,
    reserve: Vec<Standing>,
    places: usize,
    now: EventTime,
) -> (Vec<Standing>, usize) {
    let new = |standing: &Standing| is_new(rule, standing, now);
    let mut reserve = reserve.into_iter().filter(new);
    let mut placed: Vec<Standing> = Vec::with_capacity(places);
    let (mut given, mut has_one) = (0, false);
    while placed.len() < places {
        let due = (placed.len() + 1).is_multiple_of(rule.every) && !has_one;
        let next = match due.then(|| candidates.iter().position(new)) {
            Some(Some(at)) => {
                given += usize::from(at > 0);
                Some(candidates.remove(at))
            }
            Some(None) => reserve.next().inspect(|_| given += 1),
            None => None,
        };
        let next = next.or_else(|| (!candidates.is_empty()).then(|| candidates.remove(0)));
        let Some(next) = next.or_else(|| reserve.next()) else { break };
        has_one |= new(&next);
        placed.push(next);
        if placed.len().is_multiple_of(rule.every) {
            has_one = false;
        }
    }
    (placed, given)
}

/// Whether the model does not know it and the catalog says that it is young enough. What is announced for
/// later is as new as can be.
fn is_new(rule: &NewItems, standing: &Standing, now: EventTime) -> bool {
    let young = || match rule.within {
        Some(within) => standing.published.is_some_and(|published| now.since(published) <= within),
        None => true,
    };
    standing.pick.sources.holds(Tag::ColdStart) && young()
}
