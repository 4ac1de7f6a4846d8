//! What customers and items cost in Redis, by samples: `rapport_feature_store_value_bytes`.

use std::{collections::VecDeque, time::Duration};

use rapport_online::{SizeSampler, Sizes};
use rapport_runtime::Lifecycle;

use crate::Error;

const EVERY: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(200);
/// Sizes that are kept of each kind: the newest.
const KEPT: usize = 1_000;

pub(crate) struct Memory {
    pub sampler: SizeSampler,
    pub runtime: tokio::runtime::Handle,
}

impl Memory {
    /// A page of keys now and then, until a drain.
    pub(crate) fn run(mut self, lifecycle: &Lifecycle) -> Result<(), Error> {
        let (mut customers, mut lists, mut items) = (Kept::default(), Kept::default(), Kept::default());
        let (mut waited, mut refused) = (EVERY, false);
        while !lifecycle.draining() {
            if waited < EVERY {
                std::thread::sleep(TICK);
                waited += TICK;
                continue;
            }
            waited = Duration::ZERO;
            match self.runtime.block_on(self.sampler.next()) {
                Ok(Sizes { customers: of_customers, lists: of_lists, items: of_items }) => {
                    customers.add("customer", of_customers);
                    lists.add("list", of_lists);
                    items.add("item", of_items);
                }
                // Redis away is told elsewhere; one that does not tell sizes costs a metric.
                Err(error) => {
                    if !std::mem::replace(&mut refused, true) {
                        tracing::warn!(%error, "sizes of values in Redis are not known");
                    }
                }
            }
        }
        Ok(())
    }
}

/// The newest sizes of one kind.
#[derive(Default)]
struct Kept(VecDeque<u64>);

impl Kept {
    fn add(&mut self, kind: &'static str, sizes: Vec<u64>) {
        self.0.extend(sizes);
        self.0.drain(..self.0.len().saturating_sub(KEPT));
        if let Some(spread) = self.spread() {
            for (of, bytes) in [("mean", spread.mean), ("p50", spread.p50), ("p99", spread.p99), ("max", spread.max)] {
                metrics::gauge!("rapport_feature_store_value_bytes", "kind" => kind, "of" => of).set(bytes);
            }
        }
    }

    fn spread(&self) -> Option<Spread> {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get((sorted.len().saturating_sub(1)) * share / 100).map(|bytes| *bytes as f64);
        let mean = sorted.iter().sum::<u64>() as f64 / sorted.len().max(1) as f64;
        Some(Spread { mean, p50: at(50)?, p99: at(99)?, max: at(100)? })
    }
}

#[derive(Debug, PartialEq)]
struct Spread {
    mean: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sizes_are_spread_and_none_of_before() {
        let mut kept = Kept::default();
        assert_eq!(kept.spread(), None);
        kept.add("customer", vec![9_000; KEPT]);
        kept.add("customer", (1..=KEPT as u64).collect());
        assert_eq!(kept.spread(), Some(Spread { mean: 500.5, p50: 500.0, p99: 990.0, max: 1_000.0 }));
        assert_eq!(kept.0.len(), KEPT);
    }
}
