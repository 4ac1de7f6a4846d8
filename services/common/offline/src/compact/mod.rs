//! Compaction: a partition's small files become large ones, and many manifests one.
//!
//! Merged files are written under names of their own, then one new version of what is compacted
//! ([`Compacted`]) names them in the place of the old ones. What it replaces is noted in it as garbage and deleted by a
//! later pass, after a time in which readers end. Whoever is killed in between leaves files that nobody names:
//! a pass notes them as garbage too, in a version of its own, which whoever still wanted to name them cannot follow.
//!
//! The newest manifest of a partition is left alone: it says where the writer goes on, and readers that follow
//! the log stand at it.

mod merge;
mod plan;

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, path::Path};
use rapport_events::LoggedEvent;

use crate::{
    Error, Manifest, OfflineLog, Record, ServedList,
    compacted::{Compacted, Garbage},
    manifest::{self, folder_of},
    store::{listed, within},
};
use merge::{Merged, merge};

/// How a pass goes about it.
#[derive(Debug, Clone)]
pub struct CompactionSettings {
    /// Rows of a merged manifest at most, which are in memory while it is made.
    pub rows: usize,
    /// Younger manifests are left alone: readers that follow the log stand there.
    pub settle: Duration,
    /// Files are deleted so long after they were replaced: no reader may take longer for one reading.
    pub grace: Duration,
}

impl Default for CompactionSettings {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { rows: 200_000, settle: hour, grace: hour }
    }
}

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compaction {
    pub manifests_merged: usize,
    pub files_merged: usize,
    pub files_written: usize,
    /// Rows that were written again.
    pub rows: usize,
    /// Files of which the grace has ended, manifests included.
    pub deleted: usize,
    /// Partitions at which another pass was at work and went ahead.
    pub overtaken: usize,
}

impl Compaction {
    fn add(&mut self, other: Self) {
        self.manifests_merged += other.manifests_merged;
        self.files_merged += other.files_merged;
        self.files_written += other.files_written;
        self.rows += other.rows;
        self.deleted += other.deleted;
        self.overtaken += other.overtaken;
    }
}

impl OfflineLog {
    /// One pass over every partition of the events and of the served lists, until `stop` says so. Several passes at
    /// once, here or elsewhere, do no harm: one of them wins, the others leave what it did.
    ///
    /// # Errors
    /// The store is away, or a file is not what its manifest says: it is named, and nothing was replaced.
    pub fn compact(&self, settings: &CompactionSettings, stop: &dyn Fn() -> bool) -> Result<Compaction, Error> {
        let mut done = self.compact_of::<LoggedEvent>(settings, stop)?;
        done.add(self.compact_of::<ServedList>(settings, stop)?);
        Ok(done)
    }

    fn compact_of<R: Record>(
        &self,
        settings: &CompactionSettings,
        stop: &dyn Fn() -> bool,
    ) -> Result<Compaction, Error> {
        let store = self.store.as_ref();
        let mut done = Compaction::default();
        let partitions = self.wait(manifest::partitions::<R>(store))?;
        if partitions.is_empty() {
            return Ok(done);
        }
        let mut passes = Vec::with_capacity(partitions.len());
        for partition in partitions {
            passes.push(self.wait(Pass::<R>::begin(store, partition, settings))?);
        }
        // After the chains, so that a file of a manifest that comes meanwhile lies behind all of them.
        let files = self.wait(listed(store.list(Some(&Path::from(R::FILES))), Some))?;
        // Instances that begin at the same time begin with different ones.
        let turn = usize::from(uuid::Uuid::new_v4().as_bytes()[0]) % passes.len();
        passes.rotate_left(turn);
        for mut pass in passes {
            if stop() {
                break;
            }
            pass.find_leftovers(&files, settings.grace);
            done.add(self.one(store, pass, settings, stop)?);
        }
        Ok(done)
    }

    fn one<R: Record>(
        &self,
        store: &dyn ObjectStore,
        mut pass: Pass<R>,
        settings: &CompactionSettings,
        stop: &dyn Fn() -> bool,
    ) -> Result<Compaction, Error> {
        let mut done = Compaction { deleted: self.wait(pass.sweep(store, settings.grace))?, ..Compaction::default() };
        let rows: Vec<usize> = pass.settled.iter().map(rows).collect();
        let runs = plan::runs(&rows, settings.rows);
        if runs.is_empty() && pass.changed && !self.wait(pass.commit(store, 0, None))? {
            done.overtaken = 1;
        }
        // Where a run stands after those before it have become one each.
        let mut shrunk = 0;
        for run in runs {
            if stop() {
                break;
            }
            let here = run.start - shrunk..run.end - shrunk;
            shrunk += run.len() - 1;
            let token = token();
            let neighbours = pass.settled[here.clone()].to_vec();
            let merged = match self.wait(merge::<R>(store, &neighbours, &token)) {
                Ok(merged) => merged,
                // Another pass may have replaced and deleted these.
                Err(_) if self.wait(Compacted::newest_version::<R>(store, pass.partition()))? > pass.version() => {
                    done.overtaken = 1;
                    break;
                }
                Err(error) => return Err(error),
            };
            if rows_of(&neighbours) != rows_of(std::slice::from_ref(&merged.manifest)) {
                return Err(Error::Pack("a merge has lost or made rows".into()));
            }
            let (written, replaced) = (merged.written.clone(), merged.replaced.len());
            if !self.wait(pass.commit(store, here.start, Some((here.len(), merged))))? {
                // Their names are this attempt's own, and its version can never hold.
                for path in &written {
                    self.wait(delete(store, path))?;
                }
                done.overtaken = 1;
                break;
            }
            done.manifests_merged += here.len();
            done.files_merged += replaced;
            done.files_written += written.len();
            done.rows += rows_of(&neighbours);
        }
        Ok(done)
    }
}

/// A partition under way.
struct Pass<R> {
    compacted: Compacted,
    /// What may be merged: what is compacted, and what has settled behind it.
    settled: Vec<Manifest>,
    /// Where the writer's own manifests of these begin in `settled`.
    own_from: usize,
    /// The end of what was compacted before this pass.
    end: i64,
    /// Files that are named, those behind the settled ones included.
    named: HashSet<String>,
    /// Garbage that is in no version yet: nothing of it may be deleted before it is.
    found: Vec<Garbage>,
    /// Whether there is something to write down even if nothing is merged.
    changed: bool,
    of: std::marker::PhantomData<R>,
}

impl<R: Record> Pass<R> {
    async fn begin(store: &dyn ObjectStore, partition: i32, settings: &CompactionSettings) -> Result<Self, Error> {
        let mut failed = None;
        loop {
            let compacted = Compacted::newest::<R>(store, partition).await?;
            let version = compacted.version;
            match Self::behind(store, compacted, settings).await {
                // Another pass went by.
                Err(_) if failed.is_none_or(|failed| failed < version) => failed = Some(version),
                begun => return begun,
            }
        }
    }

    async fn behind(
        store: &dyn ObjectStore,
        compacted: Compacted,
        settings: &CompactionSettings,
    ) -> Result<Self, Error> {
        let (partition, end) = (compacted.partition, compacted.end());
        let metas = listed(store.list(Some(&folder_of::<R>(partition))), Some).await?;
        let chain = manifest::chain_behind::<R>(store, &compacted).await?;
        let named = chain.iter().flat_map(|manifest| &manifest.files).map(|file| file.path.clone()).collect();

        let own_from = compacted.manifests.len();
        let old: HashSet<&Path> =
            metas.iter().filter(|meta| older(meta, settings.settle)).map(|meta| &meta.location).collect();
        let settled = |manifest: &Manifest| old.contains(&Manifest::path::<R>(partition, manifest.first));
        let last = chain.len().saturating_sub(1);
        let behind = chain[..last].iter().skip(own_from).take_while(|manifest| settled(manifest)).count();
        let settled = chain[..own_from + behind].to_vec();

        // A manifest that somebody who slept has made again.
        let known: HashSet<&str> = compacted.garbage.iter().map(|garbage| garbage.path.as_str()).collect();
        let first = |meta: &ObjectMeta| meta.location.filename()?.strip_suffix(".json")?.parse::<i64>().ok();
        let found: Vec<Garbage> = metas
            .iter()
            .filter(|meta| first(meta).is_some_and(|first| first <= end) && !known.contains(meta.location.as_ref()))
            .map(|meta| garbage(meta.location.to_string()))
            .collect();
        let changed = !found.is_empty();
        Ok(Self { compacted, settled, own_from, end, named, found, changed, of: std::marker::PhantomData })
    }

    fn partition(&self) -> i32 {
        self.compacted.partition
    }

    fn version(&self) -> u64 {
        self.compacted.version
    }

    /// Files that no manifest can name any more: of passes that were killed or overtaken, and of flushes that were.
    /// To name them now, such a pass would have to make a version that this one makes; but those of a pass that may
    /// still be at work are left to it.
    fn find_leftovers(&mut self, files: &[ObjectMeta], grace: Duration) {
        let partition = self.compacted.partition;
        let known: HashSet<&str> = self.compacted.garbage.iter().map(|garbage| garbage.path.as_str()).collect();
        let leftovers = files
            .iter()
            .filter(|meta| match Name::of(&meta.location, partition) {
                Some(name) if name.merged => older(meta, grace),
                Some(name) => name.last <= self.end,
                None => false,
            })
            .map(|meta| meta.location.to_string())
            .filter(|path| !self.named.contains(path) && !known.contains(path.as_str()));
        self.found.extend(leftovers.map(garbage));
        self.changed |= !self.found.is_empty();
    }

    /// Deletes what was garbage for long enough, in the version that was read: it holds, and a later one has it no more.
    async fn sweep(&mut self, store: &dyn ObjectStore, grace: Duration) -> Result<usize, Error> {
        let until = now_ms().saturating_sub(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        let (old, young): (Vec<Garbage>, Vec<Garbage>) =
            std::mem::take(&mut self.compacted.garbage).into_iter().partition(|garbage| garbage.since_ms <= until);
        for garbage in &old {
            delete(store, &garbage.path).await?;
        }
        self.compacted.garbage = young;
        self.changed |= !old.is_empty();
        // Versions below one that has held for so long are not read any more; nothing has to be written down for that.
        let versions = Compacted::versions::<R>(store, self.partition()).await?;
        let holds = versions.iter().find(|(version, _)| *version == self.version());
        let passed = versions.iter().filter(|(version, _)| *version < self.version());
        let passed: Vec<_> = passed.filter(|_| holds.is_some_and(|(_, meta)| older(meta, grace))).collect();
        for (_, meta) in &passed {
            delete(store, meta.location.as_ref()).await?;
        }
        Ok(old.len() + passed.len())
    }

    /// Makes the next version: the settled manifests up to a run that has become one, with what that replaces as
    /// garbage. False when somebody else was faster.
    async fn commit(
        &mut self,
        store: &dyn ObjectStore,
        at: usize,
        merged: Option<(usize, Merged)>,
    ) -> Result<bool, Error> {
        let partition = self.compacted.partition;
        let mut next = self.compacted.clone();
        next.version += 1;
        next.garbage.append(&mut self.found);
        if let Some((many, merged)) = merged {
            let replaced = at..at + many;
            // The writer's manifests that this version takes in, those before the run included.
            let own = self.settled.iter().take(replaced.end).skip(self.own_from);
            next.garbage.extend(own.map(|own| garbage(Manifest::path::<R>(partition, own.first).to_string())));
            next.garbage.extend(merged.replaced.into_iter().map(garbage));
            let taken = self.own_from.max(replaced.end);
            self.settled.splice(replaced, [merged.manifest]);
            self.own_from = taken + 1 - many;
            next.manifests = self.settled[..self.own_from].to_vec();
        }
        let made = next.commit::<R>(store).await?;
        self.compacted = next;
        self.changed = false;
        Ok(made)
    }
}

/// What a file's name says.
struct Name {
    last: i64,
    merged: bool,
}

impl Name {
    /// `p<partition>-<first>-<last>.parquet` of a flush, `p<partition>-<first>-<last>-<token>.parquet` of a merge.
    fn of(path: &Path, partition: i32) -> Option<Self> {
        let name = path.filename()?.strip_prefix(&format!("p{partition}-"))?.strip_suffix(".parquet")?;
        let mut parts = name.split('-').skip(1);
        let last = parts.next()?.parse().ok()?;
        Some(Self { last, merged: parts.next().is_some() })
    }
}

fn rows(manifest: &Manifest) -> usize {
    manifest.files.iter().map(|file| file.rows).sum()
}

fn rows_of(manifests: &[Manifest]) -> usize {
    manifests.iter().map(rows).sum()
}

fn garbage(path: String) -> Garbage {
    Garbage { path, since_ms: now_ms() }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn older(meta: &ObjectMeta, age: Duration) -> bool {
    SystemTime::now().duration_since(meta.last_modified.into()).is_ok_and(|since| since >= age) || age.is_zero()
}

/// What tells the files of one attempt from those of any other.
fn token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

async fn delete(store: &dyn ObjectStore, path: &str) -> Result<(), Error> {
    match within(store.delete(&Path::from(path))).await {
        Ok(()) | Err(Error::Store(object_store::Error::NotFound { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}
