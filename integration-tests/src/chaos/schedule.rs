//! Which faults, when, for how long: a pure function of the seed.
//!
//! Kinds are drawn from a bag that holds each of them once and is filled again when it is empty, so
//! that every kind comes about equally often and in random order.

use std::{fmt, time::Duration};

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::harness::cluster::NODES;

/// How many of each there are.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub collectors: usize,
    pub cleaners: usize,
    /// No fault lasts longer: a short run has no time for the longest.
    pub longest: Duration,
}

/// What is done to whom. Numbers count from 0; a person sees them from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillCollector(usize),
    PauseCollector(usize),
    KillCleaner(usize),
    /// Longer than its session: when it wakes up, its partitions are another's.
    PauseCleaner(usize),
    /// Another process takes the name of one that is paused; the old one wakes up and must be fenced.
    ReplaceCleaner(usize),
    KillBroker(usize),
    PauseBroker(usize),
    /// Its followers are paused, then it is killed: what it alone has is gone.
    CutOffBroker(usize),
    PauseRedis,
    /// One replica of every partition of a topic goes away and later comes back elsewhere in the order.
    MoveReplicas {
        topic: usize,
        without: usize,
    },
    /// Every partition gets another leader.
    MoveLeaders {
        by: usize,
    },
}

/// Topics whose replicas are moved: raw, clean, dead, the offsets and the transactions.
pub const MOVED_TOPICS: usize = 5;

impl Fault {
    pub const fn kind(self) -> &'static str {
        match self {
            Self::KillCollector(_) => "kill collector",
            Self::PauseCollector(_) => "pause collector",
            Self::KillCleaner(_) => "kill cleaner",
            Self::PauseCleaner(_) => "pause cleaner",
            Self::ReplaceCleaner(_) => "replace paused cleaner",
            Self::KillBroker(_) => "kill broker",
            Self::PauseBroker(_) => "pause broker",
            Self::CutOffBroker(_) => "cut off and kill broker",
            Self::PauseRedis => "pause redis",
            Self::MoveReplicas { .. } => "move replicas",
            Self::MoveLeaders { .. } => "move leaders",
        }
    }

    /// Faults of one group never overlap: with two brokers away nobody could write, and that is no news.
    pub const fn group(self) -> Group {
        match self {
            Self::KillCollector(n) | Self::PauseCollector(n) => Group::Collector(n),
            Self::KillCleaner(n) | Self::PauseCleaner(n) | Self::ReplaceCleaner(n) => Group::Cleaner(n),
            Self::KillBroker(_) | Self::PauseBroker(_) | Self::CutOffBroker(_) => Group::Brokers,
            Self::PauseRedis => Group::Redis,
            Self::MoveReplicas { .. } | Self::MoveLeaders { .. } => Group::Placement,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::KillCollector(n)
            | Self::PauseCollector(n)
            | Self::KillCleaner(n)
            | Self::PauseCleaner(n)
            | Self::ReplaceCleaner(n)
            | Self::KillBroker(n)
            | Self::PauseBroker(n)
            | Self::CutOffBroker(n) => write!(f, " {}", n + 1),
            Self::MoveReplicas { topic, without } => write!(f, " of topic {topic}, broker {} out", without + 1),
            Self::MoveLeaders { by } => write!(f, " by {by}"),
            Self::PauseRedis => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Collector(usize),
    Cleaner(usize),
    Brokers,
    Redis,
    Placement,
}

/// A fault, when it is due, and how long until it is undone (restarted, woken, put back).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub at: Duration,
    pub fault: Fault,
    pub lasts: Duration,
}

/// Faults for `window`, one about every `every` (between a half and one and a half of it).
pub fn schedule(seed: u64, window: Duration, every: Duration, size: Size) -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bag: Vec<usize> = Vec::new();
    let (mut at, mut steps) = (every / 2, Vec::new());
    while at < window {
        let kind = bag.pop().unwrap_or_else(|| {
            bag = (0..KINDS).collect();
            bag.shuffle(&mut rng);
            bag.pop().unwrap_or_default()
        });
        let (fault, [shortest, longest]) = draw(kind, size, &mut rng);
        let lasts = Duration::from_millis(rng.random_range(shortest..=longest)).min(size.longest);
        steps.push(Step { at, fault, lasts });
        at += every.mul_f64(rng.random_range(0.5..1.5));
    }
    steps
}

const KINDS: usize = 11;

/// A target, and the bounds of how long it lasts in milliseconds. A cleaner's session is 6 s, its
/// transactions' timeout 10 s: a pause is longer than the first and sometimes than the second.
fn draw(kind: usize, size: Size, rng: &mut ChaCha8Rng) -> (Fault, [u64; 2]) {
    let collector = rng.random_range(0..size.collectors);
    let cleaner = rng.random_range(0..size.cleaners);
    let broker = rng.random_range(0..NODES);
    match kind {
        0 => (Fault::KillCollector(collector), [0, 3_000]),
        1 => (Fault::PauseCollector(collector), [1_000, 6_000]),
        2 => (Fault::KillCleaner(cleaner), [0, 4_000]),
        3 => (Fault::PauseCleaner(cleaner), [7_000, 14_000]),
        4 => (Fault::ReplaceCleaner(cleaner), [3_000, 9_000]),
        5 => (Fault::KillBroker(broker), [0, 8_000]),
        6 => (Fault::PauseBroker(broker), [2_000, 9_000]),
        7 => (Fault::CutOffBroker(broker), [2_500, 4_000]),
        8 => (Fault::PauseRedis, [500, 5_000]),
        9 => (Fault::MoveReplicas { topic: rng.random_range(0..MOVED_TOPICS), without: broker }, [2_000, 5_000]),
        _ => (Fault::MoveLeaders { by: rng.random_range(1..NODES) }, [0, 0]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SIZE: Size = Size { collectors: 2, cleaners: 3, longest: Duration::from_secs(60) };

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
        let of = |seed| schedule(seed, Duration::from_secs(600), Duration::from_secs(6), SIZE);
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }

    #[test]
    fn every_kind_comes_about_equally_often_inside_the_window() {
        let steps = schedule(9, Duration::from_secs(600), Duration::from_secs(6), SIZE);
        let mut kinds = BTreeMap::new();
        for step in &steps {
            assert!(step.at < Duration::from_secs(600));
            *kinds.entry(step.fault.kind()).or_insert(0) += 1;
        }
        assert_eq!(kinds.len(), KINDS);
        let (least, most) = (kinds.values().min().unwrap(), kinds.values().max().unwrap());
        assert!(most - least <= 1, "{kinds:?}");
    }
}
