//! Writing the log: buffered by partition, flushed whole, committed by a manifest.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};
use rapport_events::LoggedEvent;

use crate::{
    Error, Manifest, ManifestFile, OfflineLog, Packed, Record,
    compacted::Compacted,
    manifest,
    store::{DEADLINE, listed, within as request},
};

/// Files that are written at once.
const AT_ONCE: usize = 16;
/// Looking for what crashed flushes left may take so long.
const ORPHANS: Duration = Duration::from_secs(10);

/// When a buffer is flushed, and when a leftover may be deleted.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    pub flush_rows: usize,
    pub flush_age: Duration,
    /// Files that no manifest names are deleted when a partition is taken over, if they are older
    /// than this: a flush that is still on its way elsewhere must not lose its files.
    pub orphan_age: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self { flush_rows: 20_000, flush_age: Duration::from_secs(5), orphan_age: Duration::from_secs(15 * 60) }
    }
}

/// What one partition has in hand.
struct Buffer<R> {
    /// The last offset that a manifest covers, -1 for none.
    committed: i64,
    /// The last offset that came in: a record's, or one that holds none.
    covered: i64,
    records: Vec<R>,
    since: Option<Instant>,
    /// The version of the compacted part that was looked at last.
    compacted: u64,
}

/// Collects records and writes them in large files. One writer for a process; several processes may
/// by accident hold one partition at once, and the log still has every record once.
pub struct LogWriter<R = LoggedEvent> {
    log: OfflineLog,
    settings: WriterSettings,
    buffers: HashMap<i32, Buffer<R>>,
}

impl<R: Record> LogWriter<R> {
    pub fn new(log: OfflineLog, settings: WriterSettings) -> Self {
        Self { log, settings, buffers: HashMap::new() }
    }

    /// Begins to write a partition: finds the end of its log and deletes what a crashed flush left.
    /// Returns the last offset that is in the log. Taking over what one already has changes nothing.
    ///
    /// # Errors
    /// The store is away, or the last manifest is corrupt.
    pub fn take_over(&mut self, partition: i32) -> Result<Option<i64>, Error> {
        if let Some(buffer) = self.buffers.get(&partition) {
            return Ok((buffer.committed >= 0).then_some(buffer.committed));
        }
        let store = self.log.store.as_ref();
        let age = self.settings.orphan_age;
        let committed = self.log.wait(async {
            let committed = manifest::committed::<R>(store, partition).await?;
            // They take room and nothing else: of a log with very many files they are left to compaction.
            match within(ORPHANS, delete_orphans::<R>(store, partition, committed.unwrap_or(-1), age)).await {
                Ok(()) | Err(Error::Timeout(_)) => Ok(committed),
                Err(error) => Err(error),
            }
        })?;
        let end = committed.unwrap_or(-1);
        self.buffers
            .insert(partition, Buffer { committed: end, covered: end, records: Vec::new(), since: None, compacted: 0 });
        Ok(committed)
    }

    /// Forgets a partition and what it has buffered: another consumer has it now.
    pub fn release(&mut self, partition: i32) {
        self.buffers.remove(&partition);
    }

    /// Takes a record in. One that is in the log or in the buffer already is left out.
    ///
    /// # Errors
    /// As [`Self::take_over`], when the partition is new to this writer.
    pub fn append(&mut self, record: R) -> Result<(), Error> {
        let position = record.position();
        self.take_over(position.partition)?;
        if let Some(buffer) = self.buffers.get_mut(&position.partition)
            && position.offset > buffer.covered
        {
            buffer.covered = position.offset;
            buffer.records.push(record);
            buffer.since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// The offset holds no record: it is covered without a row.
    pub fn skip(&mut self, partition: i32, offset: i64) {
        if let Some(buffer) = self.buffers.get_mut(&partition) {
            buffer.covered = buffer.covered.max(offset);
        }
    }

    /// Records that wait for a flush.
    pub fn buffered(&self) -> usize {
        self.buffers.values().map(|b| b.records.len()).sum()
    }

    /// The partitions whose buffer is full or old.
    pub fn due(&self) -> Vec<i32> {
        let due = |b: &Buffer<R>| {
            b.records.len() >= self.settings.flush_rows
                || b.since.is_some_and(|since| since.elapsed() >= self.settings.flush_age)
        };
        self.buffers.iter().filter(|(_, b)| due(b)).map(|(partition, _)| *partition).collect()
    }

    /// The partitions that have anything buffered.
    pub fn dirty(&self) -> Vec<i32> {
        self.buffers.iter().filter(|(_, b)| !b.records.is_empty()).map(|(partition, _)| *partition).collect()
    }

    /// Writes a partition's buffer and commits it. Returns the last offset below which everything
    /// that came in is in the log, `None` when nothing ever came in. After an error the buffer is as
    /// it was; the same call again goes on.
    ///
    /// # Errors
    /// The store is away or late.
    pub fn flush(&mut self, partition: i32) -> Result<Option<i64>, Error> {
        let Some(buffer) = self.buffers.get_mut(&partition) else { return Ok(None) };
        while !buffer.records.is_empty() {
            let (first, last) = (buffer.committed + 1, buffer.covered);
            let store = self.log.store.as_ref();
            let records = buffer.records.as_slice();
            let seen = buffer.compacted;
            let committing = commit(store, partition, (first, last), records, seen);
            match self.log.wait(within(DEADLINE, committing))? {
                Commit::Done { compacted } => {
                    buffer.committed = last;
                    buffer.compacted = compacted;
                }
                Commit::Overtaken { committed } => {
                    tracing::warn!(partition, first, committed, "somebody else has written on from here");
                    buffer.committed = committed;
                }
            }
            let committed = buffer.committed;
            buffer.records.retain(|record| record.position().offset > committed);
        }
        buffer.since = None;
        buffer.covered = buffer.covered.max(buffer.committed);
        Ok((buffer.covered >= 0).then_some(buffer.covered))
    }
}

/// The same error for work that takes too long and for a request that does.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::Timeout(limit)))
}

enum Commit {
    Done {
        compacted: u64,
    },
    /// The manifest was there: another writer, or this one before an answer was lost.
    Overtaken {
        committed: i64,
    },
}

async fn commit<R: Record>(
    store: &dyn ObjectStore,
    partition: i32,
    (first, last): (i64, i64),
    records: &[R],
    seen: u64,
) -> Result<Commit, Error> {
    let mut by_file: BTreeMap<(&str, String), Vec<&R>> = BTreeMap::new();
    for record in records {
        by_file.entry((record.tenant().as_str(), record.day())).or_default().push(record);
    }
    let write = |((tenant, day), records): ((&str, String), Vec<&R>)| {
        let path = format!("{}/tenant={tenant}/day={day}/p{partition}-{first}-{last}.parquet", R::FILES);
        let file = R::pack(&records).map(|Packed { bytes, rows }| {
            let size = bytes.len();
            (ManifestFile { path: path.clone(), tenant: tenant.to_owned(), day, rows, bytes: size }, bytes)
        });
        async move {
            let (file, bytes) = file?;
            // Overwriting is right: the same offsets give the same file.
            request(store.put(&Path::from(path), PutPayload::from(bytes))).await?;
            Ok::<_, Error>(file)
        }
    };
    let files = futures::stream::iter(by_file).map(write).buffered(AT_ONCE).try_collect().await?;
    let manifest = Manifest::new(partition, first, last, files);
    let payload = PutPayload::from(manifest.to_bytes()?);
    let options = PutOptions::from(PutMode::Create);
    let path = Manifest::path::<R>(partition, first);
    let put = store.put_opts(&path, payload, options);
    match tokio::time::timeout(DEADLINE, put).await {
        Ok(Ok(_)) => {
            // Who slept for long may have made a manifest whose namesake was compacted away: it counts for nobody.
            let compacted = Compacted::newest_version::<R>(store, partition).await?;
            if compacted > seen && Compacted::newest::<R>(store, partition).await?.end() >= first {
                return overtaken::<R>(store, partition, first).await;
            }
            Ok(Commit::Done { compacted })
        }
        Ok(Err(object_store::Error::AlreadyExists { .. })) => overtaken::<R>(store, partition, first).await,
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::Timeout(DEADLINE)),
    }
}

async fn overtaken<R: Record>(store: &dyn ObjectStore, partition: i32, first: i64) -> Result<Commit, Error> {
    let committed = manifest::committed::<R>(store, partition).await?.unwrap_or(first - 1);
    Ok(Commit::Overtaken { committed })
}

/// The last offset in a file's name, if it is a file of this partition.
fn last_offset_of(path: &Path, partition: i32) -> Option<i64> {
    let range = path.filename()?.strip_prefix(&format!("p{partition}-"))?.strip_suffix(".parquet")?;
    range.split_once('-')?.1.parse().ok()
}

/// Deletes the files of a partition above the end of its log: what a crashed flush left.
async fn delete_orphans<R: Record>(
    store: &dyn ObjectStore,
    partition: i32,
    committed: i64,
    age: Duration,
) -> Result<(), Error> {
    let orphans = listed(store.list(Some(&Path::from(R::FILES))), |meta| {
        let orphan = last_offset_of(&meta.location, partition).is_some_and(|last| last > committed);
        let old = SystemTime::now().duration_since(meta.last_modified.into()).is_ok_and(|since| since >= age);
        (orphan && old).then_some(meta.location)
    })
    .await?;
    for path in orphans {
        tracing::info!(file = %path, "deleting what a crashed flush left");
        match request(store.delete(&path)).await {
            Ok(()) | Err(Error::Store(object_store::Error::NotFound { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
