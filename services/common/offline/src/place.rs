//! Where a reader of the log stands, and what has come since.

use std::collections::{BTreeMap, BTreeSet};

use rapport_events::LoggedEvent;
use serde::{Deserialize, Serialize};

use crate::{Error, Manifest, OfflineLog, Record, ServedList, compacted::Compacted, manifest};

/// The newest manifest that a reader has read, of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(BTreeMap<i32, Mark>);

/// One manifest, by what tells it from that of another log at the same offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    first: i64,
    last: i64,
    rows: usize,
    bytes: usize,
}

impl From<&Manifest> for Mark {
    fn from(manifest: &Manifest) -> Self {
        let Manifest { first, last, .. } = *manifest;
        let sum = |of: fn(&crate::ManifestFile) -> usize| manifest.files.iter().map(of).sum();
        Self { first, last, rows: sum(|file| file.rows), bytes: sum(|file| file.bytes) }
    }
}

impl Place {
    /// The manifest has been read: the next one of its partition is the one after it.
    pub fn pass(&mut self, manifest: &Manifest) {
        self.0.insert(manifest.partition, manifest.into());
    }

    /// The last offset of a partition that the reader has.
    pub fn offset(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition).map(|mark| mark.last)
    }
}

/// What a reader has not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newer {
    /// In the order in which each partition was written; none when the reader has everything.
    Manifests(Vec<Manifest>),
    /// The reader's newest manifest of this partition is not in the log: it was deleted, begun anew or
    /// restored, or compacted before the reader came back. It must be read from its beginning.
    AnotherLog { partition: i32 },
}

impl OfflineLog {
    /// What has been committed since `place`, checked for gaps. Reads the names of the newer manifests and
    /// those manifests, and one more of each partition.
    ///
    /// # Errors
    /// The store is away, or the manifest that does not fit.
    pub fn newer(&self, place: &Place) -> Result<Newer, Error> {
        self.newer_of::<LoggedEvent>(place)
    }

    /// The same of the lists that were served, whose place is one of its own.
    ///
    /// # Errors
    /// As [`Self::newer`].
    pub fn newer_served(&self, place: &Place) -> Result<Newer, Error> {
        self.newer_of::<ServedList>(place)
    }

    fn newer_of<R: Record>(&self, place: &Place) -> Result<Newer, Error> {
        let store = self.store.as_ref();
        self.wait(async {
            let mut newer = Vec::new();
            let written = manifest::partitions::<R>(store).await?;
            let partitions: BTreeSet<i32> = written.into_iter().chain(place.0.keys().copied()).collect();
            for partition in partitions {
                let mark = place.0.get(&partition);
                let compacted = Compacted::newest::<R>(store, partition).await?;
                if mark.is_none_or(|mark| mark.last <= compacted.end()) {
                    let chain = manifest::chain::<R>(store, partition).await?;
                    // Merged with others it is no more what the reader has read.
                    let behind = match mark {
                        None => 0,
                        Some(mark) => match chain.iter().position(|manifest| Mark::from(manifest) == *mark) {
                            Some(at) => at + 1,
                            None => return Ok(Newer::AnotherLog { partition }),
                        },
                    };
                    newer.extend(chain.into_iter().skip(behind));
                    continue;
                }
                if let Some(mark) = mark {
                    let path = Manifest::path::<R>(partition, mark.first);
                    match Manifest::read::<R>(store, &path).await {
                        Ok(manifest) if Mark::from(&manifest) == *mark => {}
                        Ok(_) | Err(Error::Store(object_store::Error::NotFound { .. })) => {
                            return Ok(Newer::AnotherLog { partition });
                        }
                        Err(error) => return Err(error),
                    }
                }
                let mut expected = mark.map_or(0, |mark| mark.last + 1);
                let paths = manifest::names::<R>(store, partition, mark.map(|mark| mark.first)).await?;
                for (manifest, path) in manifest::read_all::<R>(store, &paths).await?.into_iter().zip(&paths) {
                    manifest.must_begin_at(expected, partition, path)?;
                    expected = manifest.last + 1;
                    newer.push(manifest);
                }
            }
            Ok(Newer::Manifests(newer))
        })
    }
}
