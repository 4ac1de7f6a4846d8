//! What compaction has put in the place of the oldest manifests of a partition.
//!
//! `_compacted/p<partition>/<version, 20 digits>.json` says it whole: the manifests up to some offset, merged or as they
//! were, and what nothing names any more. A version is made only if nobody has made it, so versions follow one
//! another in one line; the newest holds. Behind its last offset the manifests of the writer go on.

use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Manifest, Record,
    store::{DEADLINE, listed, within},
};

const FORMAT: u32 = 1;
/// A version that is deleted between a listing and its reading has a successor; who looks so often again meets
/// something else.
const LOOKS: usize = 5;

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compacted {
    pub format: u32,
    pub partition: i32,
    /// Counts up from 1; 0 stands for a partition that was never compacted.
    pub version: u64,
    /// From offset 0 on, without a gap.
    pub manifests: Vec<Manifest>,
    pub garbage: Vec<Garbage>,
}

/// A file that nothing names any more. Who read the manifests before may still be reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Garbage {
    pub path: String,
    pub since_ms: i64,
}

fn folder<R: Record>(partition: i32) -> Path {
    Path::from(format!("{}/p{partition}", R::COMPACTED))
}

impl Compacted {
    pub(crate) fn nothing(partition: i32) -> Self {
        Self { format: FORMAT, partition, version: 0, manifests: Vec::new(), garbage: Vec::new() }
    }

    pub(crate) fn path<R: Record>(partition: i32, version: u64) -> Path {
        Path::from(format!("{}/p{partition}/{version:020}.json", R::COMPACTED))
    }

    /// The last offset that it covers, -1 for none.
    pub(crate) fn end(&self) -> i64 {
        self.manifests.last().map_or(-1, |manifest| manifest.last)
    }

    /// The newest version of a partition, which may be [`Self::nothing`].
    pub(crate) async fn newest<R: Record>(store: &dyn ObjectStore, partition: i32) -> Result<Self, Error> {
        let mut looks = 0;
        loop {
            let version = Self::newest_version::<R>(store, partition).await?;
            if version == 0 {
                return Ok(Self::nothing(partition));
            }
            looks += 1;
            match Self::read::<R>(store, partition, version).await {
                Err(Error::Store(object_store::Error::NotFound { .. })) if looks < LOOKS => {}
                read => return read,
            }
        }
    }

    /// Its number; 0 for none. Asks for one listing.
    pub(crate) async fn newest_version<R: Record>(store: &dyn ObjectStore, partition: i32) -> Result<u64, Error> {
        Ok(Self::versions::<R>(store, partition).await?.into_iter().map(|(version, _)| version).max().unwrap_or(0))
    }

    /// Those that are there, by number.
    pub(crate) async fn versions<R: Record>(
        store: &dyn ObjectStore,
        partition: i32,
    ) -> Result<Vec<(u64, ObjectMeta)>, Error> {
        let number = |meta: &ObjectMeta| meta.location.filename()?.strip_suffix(".json")?.parse().ok();
        listed(store.list(Some(&folder::<R>(partition))), |meta| Some((number(&meta)?, meta))).await
    }

    pub(crate) async fn read<R: Record>(store: &dyn ObjectStore, partition: i32, version: u64) -> Result<Self, Error> {
        let path = Self::path::<R>(partition, version);
        let bytes = within(async { store.get(&path).await?.bytes().await }).await?;
        let this: Self = serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(&path, e))?;
        if this.format != FORMAT || this.partition != partition || this.version != version {
            return Err(Error::corrupt(&path, "is not the version that its name says"));
        }
        let mut expected = 0;
        for manifest in &this.manifests {
            manifest.must_begin_at(expected, partition, &path)?;
            expected = manifest.last + 1;
        }
        Ok(this)
    }

    /// Makes this version. False when somebody else has made another with its number.
    pub(crate) async fn commit<R: Record>(&self, store: &dyn ObjectStore) -> Result<bool, Error> {
        let path = Self::path::<R>(self.partition, self.version);
        let payload = PutPayload::from(serde_json::to_vec(self).map_err(|e| Error::Pack(e.to_string()))?);
        let put = store.put_opts(&path, payload, PutOptions::from(PutMode::Create));
        match tokio::time::timeout(DEADLINE, put).await {
            Ok(Ok(_)) => Ok(true),
            // It may be this very one, whose answer was lost.
            Ok(Err(object_store::Error::AlreadyExists { .. })) => {
                Ok(Self::read::<R>(store, self.partition, self.version).await? == *self)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::Timeout(DEADLINE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rapport_events::LoggedEvent;

    use super::*;

    #[tokio::test]
    async fn a_version_is_made_once_and_its_maker_hears_so_though_the_answer_was_lost() {
        let store = object_store::memory::InMemory::new();
        let of = |first: i64| Compacted {
            version: 1,
            manifests: vec![Manifest::new(3, 0, first, Vec::new())],
            ..Compacted::nothing(3)
        };
        assert_eq!(Compacted::newest::<LoggedEvent>(&store, 3).await.unwrap(), Compacted::nothing(3));
        assert!(of(7).commit::<LoggedEvent>(&store).await.unwrap());
        assert!(!of(9).commit::<LoggedEvent>(&store).await.unwrap());
        assert!(of(7).commit::<LoggedEvent>(&store).await.unwrap(), "it is there, and ours");
        assert_eq!(Compacted::newest::<LoggedEvent>(&store, 3).await.unwrap().end(), 7);
        assert_eq!(Compacted::newest_version::<LoggedEvent>(&store, 4).await.unwrap(), 0);
    }
}
