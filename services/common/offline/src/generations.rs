//! Generations of feature views, beside the log that they are filled from.
//!
//! | file | what it says |
//! |---|---|
//! | `_views/<n>.yaml` | generation n, from 1, was declared; its text |
//! | `_views/<n>.p<partition>` | a partition's part of the online store is filled by it |
//! | `_views/<n>.filled` | all of it is: reads have it |
//!
//! Each file is made once and never changed. Generation 0 is what the services were started with.

use std::collections::{BTreeMap, BTreeSet};

use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};

use crate::{
    Error, OfflineLog,
    store::{listed, within},
};

const FOLDER: &str = "_views";

/// What is known of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generation {
    pub partitions: BTreeSet<i32>,
    pub filled: bool,
    declared: bool,
}

fn path(generation: u32, what: &str) -> Path {
    Path::from(format!("{FOLDER}/{generation}.{what}"))
}

impl OfflineLog {
    /// The declared generations by number.
    ///
    /// # Errors
    /// The store is away.
    pub fn generations(&self) -> Result<BTreeMap<u32, Generation>, Error> {
        let folder = Path::from(FOLDER);
        let names = self.wait(listed(self.store.list(Some(&folder)), |meta| Some(meta.location)))?;
        let mut generations: BTreeMap<u32, Generation> = BTreeMap::new();
        for (number, what) in names.iter().filter_map(Path::filename).filter_map(|name| name.split_once('.')) {
            let Ok(number) = number.parse() else { continue };
            let generation = generations.entry(number).or_default();
            match (what, what.strip_prefix('p').and_then(|partition| partition.parse().ok())) {
                ("yaml", _) => generation.declared = true,
                ("filled", _) => generation.filled = true,
                (_, Some(partition)) => drop(generation.partitions.insert(partition)),
                _ => {}
            }
        }
        generations.retain(|_, generation| generation.declared);
        Ok(generations)
    }

    /// The text of a generation.
    ///
    /// # Errors
    /// The store is away, or has no such generation.
    pub fn generation_text(&self, generation: u32) -> Result<String, Error> {
        let path = path(generation, "yaml");
        let bytes = self.wait(within(async { self.store.get(&path).await?.bytes().await }))?;
        String::from_utf8(bytes.to_vec()).map_err(|e| Error::corrupt(&path, e))
    }

    /// Declares a generation. False when somebody else has declared that number.
    ///
    /// # Errors
    /// The store is away.
    pub fn declare_generation(&self, generation: u32, yaml: &str) -> Result<bool, Error> {
        self.make(&path(generation, "yaml"), yaml.as_bytes())
    }

    /// Notes that a partition's part of the online store is filled.
    ///
    /// # Errors
    /// The store is away.
    pub fn note_partition_filled(&self, generation: u32, partition: i32) -> Result<(), Error> {
        self.make(&path(generation, &format!("p{partition}")), b"").map(drop)
    }

    /// Notes that all is filled, so that reads have the generation.
    ///
    /// # Errors
    /// The store is away.
    pub fn note_filled(&self, generation: u32) -> Result<(), Error> {
        self.make(&path(generation, "filled"), b"").map(drop)
    }

    /// Makes a file that is not there yet.
    pub(crate) fn make(&self, path: &Path, bytes: &[u8]) -> Result<bool, Error> {
        let payload = PutPayload::from(bytes.to_vec());
        let options = PutOptions::from(PutMode::Create);
        let made = self.wait(within(async {
            match self.store.put_opts(path, payload, options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        }))?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_generation_is_declared_once_and_says_how_far_it_is() {
        let log = OfflineLog::on(Arc::new(object_store::memory::InMemory::new())).unwrap();
        assert!(log.generations().unwrap().is_empty());
        assert!(log.declare_generation(1, "version: 1").unwrap());
        assert!(!log.declare_generation(1, "other").unwrap());
        assert_eq!(log.generation_text(1).unwrap(), "version: 1");
        log.note_partition_filled(1, 0).unwrap();
        log.note_partition_filled(1, 2).unwrap();
        log.note_partition_filled(1, 2).unwrap();
        assert_eq!(log.generations().unwrap()[&1].partitions, BTreeSet::from([0, 2]));
        log.note_filled(1).unwrap();
        log.note_filled(9).unwrap();
        let generations = log.generations().unwrap();
        assert!(generations[&1].filled && generations.len() == 1, "{generations:?}");
        assert!(log.generation_text(2).is_err());
    }
}
