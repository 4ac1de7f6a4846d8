//! Which views are in force, and which are being filled.
//!
//! Generation 0 is what the service was started with. [`Generations::apply`] declares the next one in the
//! offline store, where every feature store finds it. From then on states are folded by both, reads have the
//! old one, and [`crate::backfill`] adds what the new features missed. When all partitions are filled, reads
//! have the new one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rapport_features::{Difference, Views};
use rapport_offline::{Generation, OfflineLog};
use rapport_online::Marker;
use rapport_runtime::Lifecycle;
use tokio::sync::watch;

use crate::Error;

const LOOK_EVERY: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);

/// What holds at a moment.
#[derive(Debug)]
pub(crate) struct InForce {
    /// The newest generation that was declared.
    pub generation: u32,
    /// Whether reads have it.
    pub filled: bool,
    /// What reads have.
    pub reading: Arc<Views>,
    /// What states are folded by: what reads have, and beside it what is being filled.
    pub writing: Arc<Views>,
    /// The features that are being filled.
    pub missing: Arc<Views>,
}

/// What other views would change, and what it would cost.
pub(crate) struct Plan {
    pub difference: Difference,
    pub reading: Arc<Views>,
    pub planned: Views,
    /// Events that are read.
    pub events: u64,
}

/// How far the newest generation is.
pub(crate) struct Progress {
    pub in_force: Arc<InForce>,
    pub schema_hash: String,
    pub partitions: usize,
    pub filled: usize,
}

/// The declared generations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Generations {
    log: OfflineLog,
    first: Arc<Views>,
    in_force: watch::Sender<Arc<InForce>>,
    /// One looks at a time: who read earlier must not have the last word.
    looking: Arc<Mutex<()>>,
    /// Of the clean topic; 0 until somebody has asked Kafka.
    partitions: Arc<AtomicUsize>,
}

impl Generations {
    /// `first` is generation 0.
    ///
    /// # Errors
    /// The log is away, or holds a generation that cannot be read.
    pub(crate) fn open(log: OfflineLog, first: Arc<Views>) -> Result<Self, Error> {
        let nothing = InForce {
            generation: 0,
            filled: true,
            reading: Arc::clone(&first),
            writing: Arc::clone(&first),
            missing: Arc::clone(&first),
        };
        let this = Self {
            log,
            first,
            in_force: watch::Sender::new(Arc::new(nothing)),
            looking: Arc::default(),
            partitions: Arc::default(),
        };
        this.look()?;
        let in_force = this.in_force();
        if in_force.generation > 0 && in_force.reading.schema_hash() != this.first.schema_hash() {
            let (generation, reads) = (in_force.generation, in_force.reading.schema_hash());
            tracing::info!(
                generation,
                reads,
                started_with = this.first.schema_hash(),
                "views were applied since: what the service is started with is not in force"
            );
        }
        Ok(this)
    }

    pub(crate) fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.borrow())
    }

    /// What reads have.
    pub(crate) fn reading(&self) -> Arc<Views> {
        Arc::clone(&self.in_force.borrow().reading)
    }

    fn views_of(&self, generation: u32) -> Result<Arc<Views>, Error> {
        if generation == 0 {
            return Ok(Arc::clone(&self.first));
        }
        let text = self.log.generation_text(generation)?;
        Ok(Arc::new(Views::parse(&text).map_err(|error| Error::Generation { generation, reason: error.to_string() })?))
    }

    /// Reads what is declared. Must not be called on an asynchronous thread that others wait for.
    pub(crate) fn look(&self) -> Result<(), Error> {
        let _one_at_a_time = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let declared = self.log.generations()?;
        let (generation, filled) =
            declared.last_key_value().map_or((0, true), |(number, generation)| (*number, generation.filled));
        let now = self.in_force();
        if (generation, filled) == (now.generation, now.filled) {
            return Ok(());
        }
        let next = self.views_of(generation)?;
        let in_force = if filled {
            // Who folds by both goes on to: a reader may be a moment behind.
            let both = now.generation == generation;
            let writing = if both { Arc::clone(&now.writing) } else { Arc::clone(&next) };
            InForce { generation, filled, writing, missing: Arc::clone(&next), reading: next }
        } else {
            let before = declared.iter().rev().find(|(_, generation)| generation.filled).map_or(0, |(n, _)| *n);
            let reading = self.views_of(before)?;
            let wrong = |error: rapport_features::Error| Error::Generation { generation, reason: error.to_string() };
            let writing = Arc::new(next.beside(&reading).map_err(wrong)?);
            let missing = Arc::new(next.new_since(&reading).map_err(wrong)?);
            InForce { generation, filled, reading, writing, missing }
        };
        let schema_hash = in_force.reading.schema_hash();
        tracing::info!(generation, filled, reads = schema_hash, "feature views");
        metrics::gauge!("rapport_feature_store_views_generation").set(f64::from(generation));
        self.in_force.send_replace(Arc::new(in_force));
        Ok(())
    }

    /// Looks every two seconds until a drain, on a thread of its own.
    pub(crate) fn keep(self, lifecycle: &Lifecycle) -> Result<(), Error> {
        let mut waited = Duration::ZERO;
        while !lifecycle.draining() {
            std::thread::sleep(TICK);
            waited += TICK;
            if waited >= LOOK_EVERY {
                waited = Duration::ZERO;
                if let Err(error) = self.look() {
                    tracing::warn!(%error, "the generations of views cannot be read; trying on");
                }
            }
        }
        Ok(())
    }

    /// What a view file would change of what reads have.
    ///
    /// # Errors
    /// Where the text is wrong, or the log is away.
    pub(crate) fn plan(&self, yaml: &str) -> Result<Plan, Error> {
        let planned = Views::parse(yaml).map_err(Error::Declared)?;
        let reading = self.reading();
        let difference = reading.difference(&planned);
        let rows = |log: &OfflineLog| -> Result<u64, Error> {
            let files = log.manifests()?.into_iter().flat_map(|manifest| manifest.files);
            Ok(files.map(|file| file.rows as u64).sum())
        };
        let events = if difference.fills() { rows(&self.log)? } else { 0 };
        Ok(Plan { difference, reading, planned, events })
    }

    /// Declares a view file as the next generation, unless it is the newest one. Gives back its number.
    ///
    /// # Errors
    /// As [`Self::plan`]; the views cannot be filled, or others are being filled.
    pub(crate) fn apply(&self, yaml: &str) -> Result<u32, Error> {
        self.look()?;
        let plan = self.plan(yaml)?;
        let now = self.in_force();
        if !now.filled {
            return Err(Error::Filling { generation: now.generation });
        }
        if let Some(reason) = plan.difference.refusal {
            return Err(Error::NotFilled { reason });
        }
        // Another text is another generation, if only for its descriptions: then there is nothing to fill.
        if now.generation > 0 && self.log.generation_text(now.generation)? == yaml {
            return Ok(now.generation);
        }
        let generation = now.generation + 1;
        if !self.log.declare_generation(generation, yaml)? {
            return Err(Error::Filling { generation });
        }
        self.look()?;
        Ok(generation)
    }

    /// How far the newest generation is.
    ///
    /// # Errors
    /// The log is away.
    pub(crate) fn progress(&self) -> Result<Progress, Error> {
        self.look()?;
        let partitions = self.partitions();
        let in_force = self.in_force();
        let declared = self.log.generations()?.remove(&in_force.generation);
        let filled = match declared {
            Some(Generation { filled: false, partitions, .. }) => partitions.len(),
            _ => partitions,
        };
        let schema_hash = self.views_of(in_force.generation)?.schema_hash().to_owned();
        Ok(Progress { in_force, schema_hash, partitions, filled })
    }

    /// Partitions of the clean topic, all of which are filled in the end.
    pub(crate) fn partitions(&self) -> usize {
        self.partitions.load(Ordering::Relaxed)
    }

    pub(crate) fn note_partitions(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// A partition is filled; with the last one, all is, and reads have it.
    ///
    /// # Errors
    /// The log is away.
    pub(crate) fn partition_filled(&self, generation: u32, partition: i32) -> Result<(), Error> {
        let partitions = self.partitions();
        self.log.note_partition_filled(generation, partition)?;
        let filled = self.log.generations()?.remove(&generation).map_or(0, |generation| generation.partitions.len());
        tracing::info!(generation, partition, filled, partitions, "a partition has the new features");
        if partitions > 0 && filled >= partitions {
            self.log.note_filled(generation)?;
            self.look()?;
        }
        Ok(())
    }

    /// Partitions that have the generation already.
    ///
    /// # Errors
    /// The log is away.
    pub(crate) fn filled_partitions(&self, generation: u32) -> Result<Vec<i32>, Error> {
        let declared = self.log.generations()?.remove(&generation).unwrap_or_default();
        Ok(declared.partitions.into_iter().collect())
    }
}

/// The newest generation among markers, if it is newer than this one.
pub(crate) fn newer_than(generation: u32, markers: impl Iterator<Item = Marker>) -> Option<u32> {
    markers.map(|marker| marker.generation).max().filter(|newest| *newest > generation)
}

/// Looks for a generation by which some state is folded already.
///
/// # Errors
/// It is not to be found yet: try again.
pub(crate) fn newest(generations: &Generations, wanted: u32) -> Result<Arc<InForce>, rapport_online::Error> {
    if let Err(error) = generations.look() {
        tracing::warn!(%error, "the generations of views cannot be read");
    }
    let in_force = generations.in_force();
    if in_force.generation >= wanted {
        Ok(in_force)
    } else {
        Err(rapport_online::Error::NewerViews { generation: wanted })
    }
}

#[cfg(test)]
mod tests {
    use rapport_offline::OfflineArgs;

    use super::*;

    const NEXT: &str = "version: 1\nviews: [{name: v, entity: item, features: [{name: f, aggregate: count}]}]";

    fn generations(folder: &tempfile::TempDir) -> Generations {
        let log = OfflineLog::open(&OfflineArgs::at(folder.path().display().to_string())).unwrap();
        Generations::open(log, Arc::new(Views::parse(&NEXT.replace("count", "mean")).unwrap())).unwrap()
    }

    #[test]
    fn reads_have_the_new_views_when_the_last_partition_is_filled_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (generations(&folder), generations(&folder));
        [&one, &other].into_iter().for_each(|generations| generations.note_partitions(2));
        let before = one.reading().schema_hash().to_owned();
        assert_eq!(one.apply(NEXT).unwrap(), 1);
        other.look().unwrap();
        for generations in [&one, &other] {
            let now = generations.in_force();
            assert_eq!((now.generation, now.filled, now.reading.schema_hash()), (1, false, before.as_str()));
        }
        let refused = other.apply(&NEXT.replace("count", "max")).unwrap_err();
        assert!(matches!(refused, Error::Filling { generation: 1 }), "{refused}");
        one.partition_filled(1, 0).unwrap();
        assert_eq!(one.progress().unwrap().filled, 1);
        assert_eq!(one.reading().schema_hash(), before);
        other.partition_filled(1, 1).unwrap();
        one.look().unwrap();
        let now = one.in_force();
        assert!(now.filled && now.reading.schema_hash() != before);
        assert_eq!(one.apply(NEXT).unwrap(), 1, "they are in force");
        assert_eq!(generations(&folder).in_force().generation, 1, "after a restart too");
    }

    #[test]
    fn a_state_of_views_that_nobody_was_told_of_sends_its_owner_to_look() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (generations(&folder), generations(&folder));
        one.apply(NEXT).unwrap();
        let of = |generation| Marker { generation, begins: Some(3) };
        assert_eq!(newer_than(1, [of(0), of(1)].into_iter()), None);
        assert_eq!(newer_than(0, [of(0), of(1)].into_iter()), Some(1));
        assert_eq!(newest(&other, 1).unwrap().generation, 1);
        assert!(newest(&other, 2).unwrap_err().retryable(), "its file is not there yet");
    }

    #[test]
    fn what_is_wrong_or_cannot_be_filled_declares_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let one = generations(&folder);
        assert!(matches!(one.apply("views: x").unwrap_err(), Error::Declared(_)));
        let seen = format!("seen: {{type: [purchase]}}\n{NEXT}");
        assert!(matches!(one.apply(&seen).unwrap_err(), Error::NotFilled { .. }));
        assert_eq!(one.in_force().generation, 0);
    }
}
