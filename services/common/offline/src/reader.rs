//! Reading a log: every record once, by partition and offset.

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStoreExt as _, path::Path};
use rapport_events::{LoggedEvent, Tenant};

use crate::{Error, ManifestFile, OfflineLog, Record, ServedList, manifest, store::within};

/// Files that are fetched at once.
const AT_ONCE: usize = 8;

/// Which events to read. Empty: all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub tenant: Option<Tenant>,
    /// First and last day of the event times, or of the serving, `YYYY-MM-DD`, both included.
    pub from_day: Option<String>,
    pub to_day: Option<String>,
}

impl Selection {
    pub fn of(tenant: &Tenant) -> Self {
        Self { tenant: Some(tenant.clone()), ..Self::default() }
    }

    fn takes(&self, file: &ManifestFile) -> bool {
        self.tenant.as_ref().is_none_or(|t| t.as_str() == file.tenant)
            && self.from_day.as_ref().is_none_or(|day| *day <= file.day)
            && self.to_day.as_ref().is_none_or(|day| file.day <= *day)
    }
}

impl OfflineLog {
    /// The selected events by partition and offset: the order in which the feature store folded
    /// them. Reads only what manifests name, and checks that it is all there.
    ///
    /// # Errors
    /// The store is away, the manifests have a gap, or a file is missing or corrupt; the file is
    /// named.
    pub fn read(&self, selection: &Selection) -> Result<Vec<LoggedEvent>, Error> {
        self.records(selection)
    }

    /// The selected lists that were served, by partition and offset of the served topic.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_served(&self, selection: &Selection) -> Result<Vec<ServedList>, Error> {
        self.records(selection)
    }

    fn records<R: Record>(&self, selection: &Selection) -> Result<Vec<R>, Error> {
        let store = self.store.as_ref();
        let mut records: Vec<R> = self.wait(async {
            let mut files: Vec<ManifestFile> = Vec::new();
            for partition in manifest::partitions::<R>(store).await? {
                for manifest in manifest::chain::<R>(store, partition).await? {
                    files.extend(manifest.files.into_iter().filter(|file| selection.takes(file)));
                }
            }
            let fetched = futures::stream::iter(files).map(|file| async move {
                let path = Path::from(file.path.as_str());
                let bytes = within(async { store.get(&path).await?.bytes().await }).await.map_err(|e| match e {
                    Error::Store(object_store::Error::NotFound { .. }) => {
                        Error::corrupt(&path, "is named by a manifest and is not there")
                    }
                    other => other,
                })?;
                Ok::<_, Error>((file, path, bytes))
            });
            let mut records = Vec::new();
            let mut fetched = fetched.buffer_unordered(AT_ONCE);
            while let Some((file, path, bytes)) = fetched.try_next().await? {
                let rows = R::unpack(&path, bytes, &mut records)?;
                if rows != file.rows {
                    return Err(Error::corrupt(&path, format!("has {rows} rows, its manifest says {}", file.rows)));
                }
            }
            Ok(records)
        })?;
        records.sort_unstable_by_key(Record::position);
        // Manifests never overlap; should a restored backup make them, a record still counts once.
        records.dedup_by_key(|record| record.position());
        Ok(records)
    }
}
