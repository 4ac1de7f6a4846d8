//! The chain of manifests: which offsets of a partition are in the log, and in which files.

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path};
use serde::{Deserialize, Serialize};

use rapport_events::LoggedEvent;

use crate::{
    Error, OfflineLog, Record, ServedList,
    compacted::Compacted,
    store::{listed, within},
};

const FORMAT: u32 = 1;
/// Manifests that are read at once.
const AT_ONCE: usize = 16;

/// One committed flush of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub partition: i32,
    /// The offsets that this flush covers, `first..=last`. Not every offset is an event: Kafka
    /// gives offsets to transaction markers too.
    pub first: i64,
    pub last: i64,
    pub files: Vec<ManifestFile>,
}

/// A file of a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// From the root of the log.
    pub path: String,
    pub tenant: String,
    /// The day of the events, `YYYY-MM-DD`.
    pub day: String,
    pub rows: usize,
    pub bytes: usize,
}

pub(crate) fn folder_of<R: Record>(partition: i32) -> Path {
    Path::from(format!("{}/p{partition}", R::MANIFESTS))
}

impl Manifest {
    pub(crate) fn new(partition: i32, first: i64, last: i64, files: Vec<ManifestFile>) -> Self {
        Self { format: FORMAT, partition, first, last, files }
    }

    /// Where the manifest that begins at `first` stands.
    pub(crate) fn path<R: Record>(partition: i32, first: i64) -> Path {
        Path::from(format!("{}/p{partition}/{first:020}.json", R::MANIFESTS))
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::Pack(e.to_string()))
    }

    /// # Errors
    /// It is not the one that comes next in its partition.
    pub(crate) fn must_begin_at(&self, expected: i64, partition: i32, path: &Path) -> Result<(), Error> {
        if self.first == expected && self.partition == partition {
            return Ok(());
        }
        let reason = format!("begins at offset {}, but the log before it ends at {}", self.first, expected - 1);
        Err(Error::corrupt(path, reason))
    }

    pub(crate) async fn read<R: Record>(store: &dyn ObjectStore, path: &Path) -> Result<Self, Error> {
        let bytes = within(async { store.get(path).await?.bytes().await }).await?;
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(path, e))?;
        if manifest.format != FORMAT {
            return Err(Error::corrupt(path, format!("format {} is not {FORMAT}", manifest.format)));
        }
        if *path != Self::path::<R>(manifest.partition, manifest.first) || manifest.last < manifest.first {
            return Err(Error::corrupt(path, "does not cover the offsets that its name says"));
        }
        Ok(manifest)
    }
}

/// The manifests of a partition by name, ascending; with `after`, those that begin behind that offset.
pub(crate) async fn names<R: Record>(
    store: &dyn ObjectStore,
    partition: i32,
    after: Option<i64>,
) -> Result<Vec<Path>, Error> {
    let folder = folder_of::<R>(partition);
    let listing = match after {
        Some(first) => store.list_with_offset(Some(&folder), &Manifest::path::<R>(partition, first)),
        None => store.list(Some(&folder)),
    };
    let json = |path: &Path| path.filename().is_some_and(|name| name.ends_with(".json"));
    let mut names = listed(listing, |meta| json(&meta.location).then_some(meta.location)).await?;
    names.sort_unstable();
    Ok(names)
}

/// These manifests, several at once: a store far away has many roundtrips under way.
pub(crate) async fn read_all<R: Record>(store: &dyn ObjectStore, paths: &[Path]) -> Result<Vec<Manifest>, Error> {
    let reads: Vec<_> = paths.iter().map(|path| Manifest::read::<R>(store, path)).collect();
    futures::stream::iter(reads).buffered(AT_ONCE).try_collect().await
}

/// The last offset that is in the log, or `None` when the partition has no log.
pub(crate) async fn committed<R: Record>(store: &dyn ObjectStore, partition: i32) -> Result<Option<i64>, Error> {
    let written = match names::<R>(store, partition, None).await?.last() {
        None => -1,
        Some(path) => Manifest::read::<R>(store, path).await?.last,
    };
    // Compaction leaves the newest manifest alone; a copy of a log may lack it.
    let end = written.max(Compacted::newest::<R>(store, partition).await?.end());
    Ok((end >= 0).then_some(end))
}

/// The whole chain of a partition, checked: each manifest begins where the one before it ended.
pub(crate) async fn chain<R: Record>(store: &dyn ObjectStore, partition: i32) -> Result<Vec<Manifest>, Error> {
    let mut failed = None;
    loop {
        let compacted = Compacted::newest::<R>(store, partition).await?;
        let version = compacted.version;
        match chain_behind::<R>(store, &compacted).await {
            // Compaction went by while this was read: its next version has what is missing here.
            Err(_) if failed.is_none_or(|failed| failed < version) => failed = Some(version),
            chain => return chain,
        }
    }
}

/// What is compacted, and the writer's manifests behind it.
pub(crate) async fn chain_behind<R: Record>(
    store: &dyn ObjectStore,
    compacted: &Compacted,
) -> Result<Vec<Manifest>, Error> {
    let (partition, end) = (compacted.partition, compacted.end());
    let mut chain = compacted.manifests.clone();
    let paths = names::<R>(store, partition, (end >= 0).then_some(end)).await?;
    for (manifest, path) in read_all::<R>(store, &paths).await?.into_iter().zip(&paths) {
        let expected = chain.last().map_or(0, |before| before.last + 1);
        manifest.must_begin_at(expected, partition, path)?;
        chain.push(manifest);
    }
    Ok(chain)
}

/// The partitions that have a log, ascending.
pub(crate) async fn partitions<R: Record>(store: &dyn ObjectStore) -> Result<Vec<i32>, Error> {
    let folders = within(store.list_with_delimiter(Some(&Path::from(R::MANIFESTS)))).await?.common_prefixes;
    let number = |path: &Path| path.filename()?.strip_prefix('p')?.parse::<i32>().ok();
    let mut partitions: Vec<i32> = folders.iter().filter_map(number).collect();
    partitions.sort_unstable();
    Ok(partitions)
}

impl OfflineLog {
    /// The last offset of a partition that is in the log: a consumer goes on after it.
    ///
    /// # Errors
    /// The store is away, or the last manifest is corrupt.
    pub fn committed_offset(&self, partition: i32) -> Result<Option<i64>, Error> {
        self.wait(committed::<LoggedEvent>(self.store.as_ref(), partition))
    }

    /// Every manifest of every partition of the events, checked for gaps.
    ///
    /// # Errors
    /// The store is away, or the manifest that does not fit.
    pub fn manifests(&self) -> Result<Vec<Manifest>, Error> {
        self.every_manifest::<LoggedEvent>()
    }

    /// Those of the served lists.
    ///
    /// # Errors
    /// As [`Self::manifests`].
    pub fn served_manifests(&self) -> Result<Vec<Manifest>, Error> {
        self.every_manifest::<ServedList>()
    }

    /// Those of one partition of the events, in order, checked for gaps.
    ///
    /// # Errors
    /// As [`Self::manifests`].
    pub fn manifests_of(&self, partition: i32) -> Result<Vec<Manifest>, Error> {
        self.wait(chain::<LoggedEvent>(self.store.as_ref(), partition))
    }

    pub(crate) fn every_manifest<R: Record>(&self) -> Result<Vec<Manifest>, Error> {
        self.wait(async {
            let mut all = Vec::new();
            for partition in partitions::<R>(self.store.as_ref()).await? {
                all.extend(chain::<R>(self.store.as_ref(), partition).await?);
            }
            Ok(all)
        })
    }
}
