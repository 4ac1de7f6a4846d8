//! Which instance is killed when, and when the model is swapped: all of it follows from the seed.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::harness::Service;

/// Of each service that answers or copies.
pub const INSTANCES: usize = 2;
/// Drawn from without putting back, and filled again when it is empty. Scorers twice: their kills are those
/// that calls feel.
const BAG: [Service; 5] =
    [Service::Scorer, Service::Scorer, Service::FeatureStore, Service::Cleaner, Service::Collector];
/// Milliseconds from a kill until the instance is started again, as an orchestrator would.
const AWAY_MS: std::ops::Range<u64> = 500..4_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Kill {
        service: Service,
        instance: usize,
        /// Until it is started again.
        away: Duration,
    },
    /// The other version goes live.
    Swap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub at: Duration,
    pub act: Act,
}

/// A kill every `every`, the first after half of it, and swaps after a third and after two thirds.
pub fn schedule(seed: u64, lasts: Duration, every: Duration) -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bag: Vec<Service> = Vec::new();
    let mut steps: Vec<Step> = (1..3).map(|third| Step { at: lasts * third / 3, act: Act::Swap }).collect();
    let mut at = every / 2;
    while at < lasts {
        if bag.is_empty() {
            bag = BAG.to_vec();
            bag.shuffle(&mut rng);
        }
        let Some(service) = bag.pop() else { break };
        let away = Duration::from_millis(rng.random_range(AWAY_MS));
        steps.push(Step { at, act: Act::Kill { service, instance: rng.random_range(0..INSTANCES), away } });
        at += every;
    }
    steps.sort_by_key(|step| step.at);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_have_ten_kills_of_every_service_and_two_swaps_and_the_same_seed_gives_the_same() {
        let minute = Duration::from_secs(60);
        let steps = schedule(7, 10 * minute, minute);
        assert_eq!(steps, schedule(7, 10 * minute, minute));
        assert_ne!(steps, schedule(8, 10 * minute, minute));
        let killed: Vec<Service> = steps
            .iter()
            .filter_map(|s| if let Act::Kill { service, .. } = s.act { Some(service) } else { None })
            .collect();
        assert_eq!((killed.len(), steps.len()), (10, 12));
        for (service, times) in
            [(Service::Scorer, 4), (Service::FeatureStore, 2), (Service::Cleaner, 2), (Service::Collector, 2)]
        {
            assert_eq!(killed.iter().filter(|killed| **killed == service).count(), times, "{service:?}");
        }
        assert!(steps.is_sorted_by_key(|step| step.at));
    }
}
