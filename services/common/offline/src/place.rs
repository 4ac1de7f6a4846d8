//! Where a reader of the log stands, and what has come since.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use object_store::{ObjectStore, path::Path};
use rapport_events::LoggedEvent;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Manifest, OfflineLog, Record, ServedList,
    manifest::{self, folder_of},
    store::within,
};

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

    /// Whether the reader has the events of this manifest.
    pub fn covers(&self, manifest: &Manifest) -> bool {
        self.0.get(&manifest.partition).is_some_and(|mark| manifest.last <= mark.last)
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
    /// restored, and must be read from its beginning.
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
            for (&partition, mark) in &place.0 {
                match Manifest::read::<R>(store, &Manifest::path::<R>(partition, mark.first)).await {
                    Ok(manifest) if Mark::from(&manifest) == *mark => {}
                    Ok(_) | Err(Error::Store(object_store::Error::NotFound { .. })) => {
                        return Ok(Newer::AnotherLog { partition });
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut newer = Vec::new();
            for partition in manifest::partitions::<R>(store).await? {
                let mark = place.0.get(&partition);
                let mut expected = mark.map_or(0, |mark| mark.last + 1);
                for path in names_after::<R>(store, partition, mark).await? {
                    let manifest = Manifest::read::<R>(store, &path).await?;
                    manifest.must_begin_at(expected, partition, &path)?;
                    expected = manifest.last + 1;
                    newer.push(manifest);
                }
            }
            Ok(Newer::Manifests(newer))
        })
    }
}

/// The manifests of a partition after a mark, by name, ascending.
async fn names_after<R: Record>(
    store: &dyn ObjectStore,
    partition: i32,
    mark: Option<&Mark>,
) -> Result<Vec<Path>, Error> {
    let folder = folder_of::<R>(partition);
    let listed = match mark {
        Some(mark) => store.list_with_offset(Some(&folder), &Manifest::path::<R>(partition, mark.first)),
        None => store.list(Some(&folder)),
    };
    let mut names: Vec<Path> = within(listed.map_ok(|meta| meta.location).try_collect()).await?;
    names.retain(|path| path.filename().is_some_and(|name| name.ends_with(".json")));
    names.sort_unstable();
    Ok(names)
}
