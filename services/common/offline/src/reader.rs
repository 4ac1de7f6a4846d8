//! Reading a log: every record once, by partition and offset.

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStoreExt as _, path::Path};
use rapport_events::{LoggedEvent, Position, Tenant};

use crate::{Error, Manifest, ManifestFile, OfflineLog, Place, Record, ServedList, store::within};

/// Files that are fetched at once.
const AT_ONCE: usize = 8;
/// Rows of a file for which memory is taken on its manifest's word.
const MOST_ROWS: usize = 1 << 20;

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

    /// Whether a file is selected.
    pub fn takes(&self, file: &ManifestFile) -> bool {
        self.tenant.as_ref().is_none_or(|t| t.as_str() == file.tenant)
            && self.from_day.as_ref().is_none_or(|day| *day <= file.day)
            && self.to_day.as_ref().is_none_or(|day| file.day <= *day)
    }
}

/// A file of the log, and the offsets that its events must have.
struct Part {
    file: ManifestFile,
    partition: i32,
    offsets: RangeInclusive<i64>,
    /// The last offset that is wanted of it.
    until: i64,
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
        let mut records = Vec::new();
        self.each_file_of::<R, Error>(&self.every_manifest::<R>()?, selection, None, &mut |mut of_file| {
            records.append(&mut of_file);
            Ok(())
        })?;
        records.sort_unstable_by_key(Record::position);
        Ok(records)
    }

    /// Hands the selected events to `each`, file by file, so that never more than a few files are in memory.
    /// The files come in the order in which each partition was written; events of one file by offset. With
    /// `until`, only what that reader has read.
    ///
    /// # Errors
    /// As [`OfflineLog::read`], or `each` did.
    pub fn each_file<E: From<Error>>(
        &self,
        selection: &Selection,
        until: Option<&Place>,
        each: &mut dyn FnMut(Vec<LoggedEvent>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each_file_of(&self.manifests()?, selection, until, each)
    }

    /// The selected events of some manifests, by file and offset.
    ///
    /// # Errors
    /// As [`OfflineLog::read`].
    pub fn events_of(&self, manifests: &[Manifest], selection: &Selection) -> Result<Vec<LoggedEvent>, Error> {
        let mut events = Vec::new();
        self.each_file_of(manifests, selection, None, &mut |mut of_file| {
            events.append(&mut of_file);
            Ok::<_, Error>(())
        })?;
        Ok(events)
    }

    /// The selected served lists of some manifests, by file and offset.
    ///
    /// # Errors
    /// As [`OfflineLog::read`].
    pub fn served_of(&self, manifests: &[Manifest], selection: &Selection) -> Result<Vec<ServedList>, Error> {
        let mut lists = Vec::new();
        self.each_file_of(manifests, selection, None, &mut |mut of_file| {
            lists.append(&mut of_file);
            Ok::<_, Error>(())
        })?;
        Ok(lists)
    }

    fn each_file_of<R: Record, E: From<Error>>(
        &self,
        manifests: &[Manifest],
        selection: &Selection,
        until: Option<&Place>,
        each: &mut dyn FnMut(Vec<R>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Files may have been merged since with what came after that place.
        let until = |partition| until.map_or(i64::MAX, |place| place.offset(partition).unwrap_or(-1));
        let parts: Vec<Part> = manifests
            .iter()
            .filter(|manifest| manifest.first <= until(manifest.partition))
            .flat_map(|manifest| {
                let taken = manifest.files.iter().filter(|file| selection.takes(file)).cloned();
                let (partition, first, last) = (manifest.partition, manifest.first, manifest.last);
                let until = until(partition);
                taken.map(move |file| Part { file, partition, offsets: first..=last, until })
            })
            .collect();
        for at_once in parts.chunks(AT_ONCE) {
            for (part, bytes) in at_once.iter().zip(self.fetch(at_once)?) {
                each(part.unpack(bytes)?)?;
            }
        }
        Ok(())
    }

    fn fetch(&self, parts: &[Part]) -> Result<Vec<Bytes>, Error> {
        let store = self.store.as_ref();
        let one = |part: &Part| {
            let path = Path::from(part.file.path.as_str());
            async move {
                within(async { store.get(&path).await?.bytes().await }).await.map_err(|e| match e {
                    Error::Store(object_store::Error::NotFound { .. }) => {
                        Error::corrupt(&path, "is named by a manifest and is not there")
                    }
                    other => other,
                })
            }
        };
        let fetched: Vec<_> = parts.iter().map(one).collect();
        self.wait(async { futures::stream::iter(fetched).buffered(AT_ONCE).try_collect().await })
    }
}

impl Part {
    /// The file's records, each of which must stand where its manifest says: no two manifests of a partition
    /// overlap, so a record counts once.
    fn unpack<R: Record>(&self, bytes: Bytes) -> Result<Vec<R>, Error> {
        let path = Path::from(self.file.path.as_str());
        let mut records = Vec::with_capacity(self.file.rows.min(MOST_ROWS));
        let rows = R::unpack(&path, bytes, &mut records)?;
        if rows != self.file.rows {
            return Err(Error::corrupt(&path, format!("has {rows} rows, its manifest says {}", self.file.rows)));
        }
        let stray = records
            .iter()
            .map(Record::position)
            .find(|position| position.partition != self.partition || !self.offsets.contains(&position.offset));
        match stray {
            None => {
                records.retain(|record| record.position().offset <= self.until);
                Ok(records)
            }
            Some(Position { partition, offset }) => Err(Error::corrupt(
                &path,
                format!("holds offset {offset} of partition {partition}, which its manifest does not cover"),
            )),
        }
    }
}
