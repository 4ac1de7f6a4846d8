//! Versions on trial: what scorers made with them beside the live one, and what becomes of them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message as _;
use rapport_events::Tenant;
use rapport_kafka::compacted;
use rapport_proto::recommend::{Shadow, shadow::Outcome};
use rapport_registry::{Challenger, Live};
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};

use crate::{Config, Error, Models};

const POLL: Duration = Duration::from_millis(500);
/// Versions whose lists are counted; the one that was heard of longest ago goes first.
const VERSIONS: usize = 256;
/// Of all lists, that may be late or fail.
const TOLERATED: f64 = 0.01;

/// What scorers made with one version.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    lists: u64,
    late: u64,
    failed: u64,
    /// Of the champion's items, summed over lists: how many the challenger has too.
    shared: f64,
    /// When it was heard of last, by a counter.
    heard: u64,
}

impl Tally {
    fn add(&mut self, shadow: &Shadow) {
        self.lists += 1;
        match shadow.outcome() {
            Outcome::Late => self.late += 1,
            Outcome::Failed | Outcome::Unspecified => self.failed += 1,
            Outcome::Ok => {
                let champion = &shadow.champion_item_ids;
                let shared = champion.iter().filter(|item| shadow.challenger_item_ids.contains(item)).count();
                self.shared += shared as f64 / champion.len().max(1) as f64;
            }
        }
    }

    /// Whether it goes live, and why; `None` while too few lists were made.
    fn verdict(&self, needed: u64) -> Option<(bool, String)> {
        if self.lists < needed {
            return None;
        }
        let bad = self.late + self.failed;
        let made = self.lists - bad;
        let share = bad as f64 / self.lists as f64;
        let counted = format!("of {} lists on trial {} were late and {} failed", self.lists, self.late, self.failed);
        if share > TOLERATED {
            return Some((false, counted));
        }
        Some((true, format!("{counted}; it shares {:.2} of the live model's first items", self.shared / made as f64)))
    }
}

#[derive(Default)]
struct Tallies {
    by_version: HashMap<(String, String, String), Tally>,
    heard: u64,
}

impl Tallies {
    fn add(&mut self, shadow: &Shadow) {
        let key = (shadow.tenant.clone(), shadow.model.clone(), shadow.challenger_version.clone());
        if !self.by_version.contains_key(&key) && self.by_version.len() >= VERSIONS {
            let oldest = self.by_version.iter().min_by_key(|(_, tally)| tally.heard).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.by_version.remove(&oldest));
        }
        self.heard += 1;
        let tally = self.by_version.entry(key).or_default();
        tally.heard = self.heard;
        tally.add(shadow);
    }

    fn of(&self, live: &Live, challenger: &Challenger) -> Tally {
        let key = (live.tenant.clone(), live.name.clone(), challenger.version.clone());
        self.by_version.get(&key).copied().unwrap_or_default()
    }
}

/// Starts counting, and ends trials whose time has come, where the configuration asks for trials.
///
/// # Errors
/// A Kafka setting that librdkafka does not take, or no thread.
pub(crate) fn start(config: &Config, models: Arc<Models>, lifecycle: &Lifecycle) -> Result<Vec<OwnedThread>, Error> {
    let Some(needed) = config.shadow_lists else { return Ok(Vec::new()) };
    let tallies: Arc<Mutex<Tallies>> = Arc::default();
    let counted = Arc::clone(&tallies);
    let component = lifecycle.component("trials");
    let following = compacted::follow(
        &config.kafka,
        &config.kafka.topics().shadow,
        lifecycle,
        component,
        move |record| match record.value.map(Shadow::decode) {
            Some(Ok(shadow)) => counted.lock().unwrap_or_else(PoisonError::into_inner).add(&shadow),
            Some(Err(error)) => tracing::warn!(%error, "a record of the shadow topic cannot be read"),
            None => {}
        },
    )?;
    let (inside, runtime) = (lifecycle.clone(), tokio::runtime::Handle::current());
    let deciding = spawn_thread::<Error, _>(lifecycle, "trials", move || {
        // Trials, by the record that began them, on which everything is said.
        let mut settled: HashSet<(String, u64)> = HashSet::new();
        while !inside.draining() {
            std::thread::sleep(POLL);
            let trials = models.in_shadow();
            let running: HashSet<(String, u64)> = trials.iter().map(|(live, _)| (live.key(), live.epoch)).collect();
            settled.retain(|trial| running.contains(trial));
            for (live, challenger) in trials {
                if settled.contains(&(live.key(), live.epoch)) {
                    continue;
                }
                let tally = tallies.lock().unwrap_or_else(PoisonError::into_inner).of(&live, &challenger);
                let Some((goes_live, why)) = tally.verdict(needed) else { continue };
                match runtime.block_on(end(&models, &live, &challenger, goes_live, &why)) {
                    Ok(()) => {
                        settled.insert((live.key(), live.epoch));
                    }
                    Err(error) => {
                        tracing::warn!(%error, version = %challenger.version, "a trial cannot be ended; trying on");
                    }
                }
            }
        }
        Ok(())
    })
    .map_err(Error::Thread)?;
    Ok(vec![following, deciding])
}

async fn end(models: &Models, live: &Live, challenger: &Challenger, goes_live: bool, why: &str) -> Result<(), Error> {
    let tenant = Tenant::parse(&live.tenant).map_err(|error| Error::Items(error.to_string()))?;
    let version = challenger.version.as_str();
    tracing::info!(version, goes_live, why, "the trial has its lists");
    if !goes_live {
        return models.end_trial(&tenant, &live.name, &format!("the trial of {version} failed: {why}")).await.map(drop);
    }
    match models.promote(&tenant, &live.name, version, false).await {
        // Somebody put it on trial to look at it: it stays there.
        Err(Error::Gate { reason, .. }) => {
            tracing::info!(version, reason, "it does not go live by itself");
            Ok(())
        }
        promoted => promoted.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(version: &str, outcome: Outcome) -> Shadow {
        let items = |of: &[&str]| of.iter().map(|item| (*item).to_owned()).collect();
        Shadow {
            tenant: "demo".into(),
            model: "next-item".into(),
            challenger_version: version.into(),
            champion_item_ids: items(&["a", "b", "c", "d"]),
            challenger_item_ids: items(&["d", "x", "a", "y"]),
            outcome: outcome.into(),
            ..Shadow::default()
        }
    }

    #[test]
    fn a_version_goes_live_after_enough_lists_unless_too_many_fail() {
        let mut tally = Tally::default();
        for _ in 0..99 {
            tally.add(&shadow("v2", Outcome::Ok));
        }
        assert_eq!(tally.verdict(100), None);
        tally.add(&shadow("v2", Outcome::Late));
        let (goes_live, why) = tally.verdict(100).unwrap();
        assert!(goes_live && why.contains("shares 0.50"), "{why}");
        tally.add(&shadow("v2", Outcome::Failed));
        let (goes_live, why) = tally.verdict(100).unwrap();
        assert!(!goes_live && why.contains("of 101 lists on trial 1 were late and 1 failed"), "{why}");
    }

    #[test]
    fn a_bounded_number_of_versions_is_counted() {
        let mut tallies = Tallies::default();
        for n in 0..VERSIONS + 10 {
            tallies.add(&shadow(&format!("v{n}"), Outcome::Ok));
            tallies.add(&shadow("kept", Outcome::Ok));
        }
        assert_eq!(tallies.by_version.len(), VERSIONS);
        let key = ("demo".to_owned(), "next-item".to_owned(), "kept".to_owned());
        assert_eq!(tallies.by_version[&key].lists as usize, VERSIONS + 10);
    }
}
