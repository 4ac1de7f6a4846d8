//! Follows the log for each tenant, keeps the sums on disk, and lends them to runs.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rapport_events::Tenant;
use rapport_offline::{Newer, OfflineLog, Selection};

use super::{Bounds, Forgotten, Identity, Kept, Refused, SumsArgs, file, state::Folded};
use crate::{
    Error, TrainingArgs,
    models::ridge::{self, RidgeRecipe},
    recipes,
    run::Plan,
};

/// Between two files: what a crash costs is reading so much of the log again.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Of the time, at most this part goes into writing files.
const SAVE_SHARE: u32 = 20;
/// Manifests without an event of the tenant that are worth a new file.
const MANY_MANIFESTS: usize = 1_000;

/// The kept sums of all tenants that are followed.
pub struct Keeper {
    folder: PathBuf,
    every: Duration,
    bounds: Bounds,
    training: TrainingArgs,
    tenants: BTreeMap<Tenant, Mutex<Tracked>>,
    started: Instant,
    /// Held while this process is the one that keeps them.
    lock: Mutex<Option<File>>,
}

/// One tenant.
#[derive(Default)]
struct Tracked {
    /// A run that uses it holds it too: then it stays as it is.
    kept: Option<Arc<Kept>>,
    loaded: bool,
    refused: Option<Refused>,
    forgotten: Option<Forgotten>,
    /// Events and manifests that are not in the file.
    unsaved: (u64, usize),
    saved: Option<(Instant, Duration)>,
    /// When the sums last had everything that was in the log.
    current_at: Option<Instant>,
}

impl Keeper {
    /// What is kept in a trainer's state folder.
    pub fn new(state: &Path, args: &SumsArgs, default_tenant: &Tenant, training: &TrainingArgs) -> Self {
        let tenants = match args.sums_tenants.as_slice() {
            _ if args.sums_items == 0 => Vec::new(),
            [] => vec![default_tenant.clone()],
            some => some.to_vec(),
        };
        Self {
            folder: Self::folder(state),
            every: args.sums_every,
            bounds: args.bounds(),
            training: training.clone(),
            tenants: tenants.into_iter().map(|tenant| (tenant, Mutex::default())).collect(),
            started: Instant::now(),
            lock: Mutex::default(),
        }
    }

    /// Who is followed, and how often.
    pub(super) fn followed(&self) -> (impl Iterator<Item = &Tenant>, Duration) {
        (self.tenants.keys(), self.every)
    }

    /// Where it lies.
    pub fn folder(state: &Path) -> PathBuf {
        state.join("sums")
    }

    /// Who is not to be learned from.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn forgotten(&self, tenant: &Tenant) -> Result<Forgotten, Error> {
        Forgotten::read(&self.folder, tenant)
    }

    /// The sums of the plan's log as it is now; `None`, the reason told in the log, where they are not kept or
    /// cannot be brought up to it. While the caller holds them they stay as they are.
    pub fn current(&self, log: &OfflineLog, plan: &Plan, stop: &dyn Fn() -> bool) -> Option<Arc<Kept>> {
        let mut tracked = self.tracked(&plan.tenant)?;
        if let Err(error) = self.look(&mut tracked, &plan.tenant, log, stop) {
            tracing::warn!(tenant = %plan.tenant, %error, "the kept sums cannot be used");
            return None;
        }
        let kept = tracked.kept.as_ref()?;
        let identity = kept.identity();
        let same = identity.since == plan.since && identity.event_types == plan.event_types;
        (same && kept.settled()).then(|| Arc::clone(kept))
    }

    /// Brings one tenant's sums up to the log. Nothing happens while a run uses them, while another process
    /// keeps them, or once the log was found too large.
    ///
    /// # Errors
    /// The log or the disk cannot be read: what was kept stays.
    pub fn follow(&self, tenant: &Tenant, log: &OfflineLog, stop: &dyn Fn() -> bool) -> Result<(), Error> {
        let Some(mut tracked) = self.tracked(tenant) else { return Ok(()) };
        let looked = self.look(&mut tracked, tenant, log, stop);
        let age = tracked.current_at.unwrap_or(self.started).elapsed().as_secs_f64();
        metrics::gauge!("rapport_trainer_sums_age_seconds", "tenant" => tenant.to_string()).set(age);
        looked
    }

    /// Takes out those who are on record as forgotten, without looking at the log, and writes what is left. How
    /// many events that were.
    ///
    /// # Errors
    /// The disk fails: the file of before stays.
    pub fn take_out_forgotten(&self, tenant: &Tenant) -> Result<usize, Error> {
        let forgotten = self.forgotten(tenant)?;
        let Some(mut tracked) = self.tracked(tenant) else { return Ok(0) };
        if !std::mem::replace(&mut tracked.loaded, true) {
            tracked.kept = self.load(tenant).map(Arc::new);
        }
        let events = tracked.kept.as_mut().and_then(Arc::get_mut).map_or(0, |kept| kept.forget(&forgotten));
        tracked.unsaved.0 += events as u64;
        drop(tracked);
        self.save(tenant, true)?;
        Ok(events)
    }

    /// Writes what is not on disk yet; `at_once` whether or not the time has come.
    ///
    /// # Errors
    /// The disk fails: the file of before stays, and the next call tries again.
    pub fn save(&self, tenant: &Tenant, at_once: bool) -> Result<(), Error> {
        let Some(mut tracked) = self.tracked(tenant) else { return Ok(()) };
        let (events, manifests) = tracked.unsaved;
        let due = tracked.saved.is_none_or(|(at, took)| at.elapsed() >= SAVE_EVERY.max(took * SAVE_SHARE));
        let worth = events > 0 || manifests >= MANY_MANIFESTS || (at_once && manifests > 0);
        let Some(kept) = tracked.kept.clone().filter(|kept| worth && (due || at_once) && kept.settled()) else {
            return Ok(());
        };
        let started = Instant::now();
        file::save(&self.path(tenant), &kept)?;
        tracked.unsaved = (0, 0);
        tracked.saved = Some((Instant::now(), started.elapsed()));
        Ok(())
    }

    /// Whether this process keeps the tenant's sums.
    pub fn keeps(&self, tenant: &Tenant) -> bool {
        self.tenants.contains_key(tenant) && self.locked()
    }

    fn tracked(&self, tenant: &Tenant) -> Option<MutexGuard<'_, Tracked>> {
        let tracked = self.tenants.get(tenant)?;
        self.locked().then(|| tracked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the folder is this process's. Another's lock ends with it.
    fn locked(&self) -> bool {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            return true;
        }
        let opened = fs::create_dir_all(&self.folder).and_then(|()| File::create(self.folder.join("lock")));
        match opened.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file)) {
            Ok(file) => *lock = Some(file),
            Err(TryLockError::WouldBlock) => {
                tracing::info!(folder = %self.folder.display(), "another trainer keeps the sums");
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(folder = %self.folder.display(), %error, "the sums cannot be kept");
            }
        }
        lock.is_some()
    }

    fn path(&self, tenant: &Tenant) -> PathBuf {
        self.folder.join(format!("{tenant}.sums"))
    }

    /// As the recipes are now.
    fn identity(&self, tenant: &Tenant) -> Result<Identity, Error> {
        let wanted = recipes::Wanted { kinds: vec![ridge::KIND.into()], ..recipes::Wanted::default() };
        let recipe = recipes::complete(&wanted, self.training.recipes.as_deref())
            .and_then(|mut recipes| recipes.pop().ok_or_else(|| "there is none".into()))
            .and_then(|recipe| crate::models::parse::<RidgeRecipe>(&recipe))
            .map_err(|reason| Error::CannotTrain { model: ridge::KIND, reason })?;
        let TrainingArgs { since, event_types, .. } = self.training.clone();
        Ok(Identity { tenant: tenant.clone(), decays: recipe.decays, since, event_types })
    }

    fn look(
        &self,
        tracked: &mut Tracked,
        tenant: &Tenant,
        log: &OfflineLog,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let (identity, forgotten) = (self.identity(tenant)?, self.forgotten(tenant)?);
        if tracked.refused.is_some() {
            return Ok(());
        }
        if !std::mem::replace(&mut tracked.loaded, true) {
            tracked.kept = self.load(tenant).map(Arc::new);
        }
        if tracked.kept.as_ref().is_some_and(|kept| *kept.identity() != identity) {
            tracing::info!(%tenant, "the recipe is another one: the sums begin anew");
            tracked.kept = None;
        }
        let anew = || Kept::new(identity.clone(), self.bounds).map(Arc::new);
        let shared = match &mut tracked.kept {
            Some(kept) => kept,
            none => none.insert(anew()?),
        };
        // A run uses them.
        let Some(kept) = Arc::get_mut(shared) else { return Ok(()) };
        if tracked.forgotten.as_ref() != Some(&forgotten) {
            let events = kept.forget(&forgotten);
            tracked.unsaved.0 += events as u64;
            if events > 0 {
                tracing::info!(%tenant, events, "events of forgotten customers were taken out of the sums");
            }
        }
        match self.read(kept, tracked.unsaved, log, &forgotten, stop) {
            Ok(Read::Up(unsaved)) => {
                tracked.unsaved = unsaved;
                tracked.forgotten = Some(forgotten);
                if kept.settled() {
                    tracked.current_at = Some(Instant::now());
                }
                Ok(())
            }
            Ok(Read::AnotherLog { partition }) => {
                tracing::warn!(%tenant, partition, "the log is not the one that was read: the sums begin anew");
                *shared = anew()?;
                tracked.forgotten = None;
                Ok(())
            }
            Err(Error::NotKept(reason)) => {
                tracing::warn!(%tenant, %reason, "the sums are not kept; runs add up the log themselves");
                (tracked.kept, tracked.refused) = (None, Some(reason));
                match fs::remove_file(self.path(tenant)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(Error::file(self.path(tenant))(error))
                    }
                    Ok(()) | Err(_) => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// What was kept, unless it is broken: then everything is read again.
    fn load(&self, tenant: &Tenant) -> Option<Kept> {
        let started = Instant::now();
        match file::load(&self.path(tenant), self.bounds) {
            Ok(None) => None,
            Ok(Some(kept)) => {
                let (events, took) = (kept.events(), started.elapsed());
                tracing::info!(%tenant, events, ?took, "the sums go on where they were");
                Some(kept)
            }
            Err(error) => {
                tracing::warn!(%tenant, %error, "the kept sums cannot be read: they begin anew");
                None
            }
        }
    }

    fn read(
        &self,
        kept: &mut Kept,
        (mut events, mut passed): (u64, usize),
        log: &OfflineLog,
        forgotten: &Forgotten,
        stop: &dyn Fn() -> bool,
    ) -> Result<Read, Error> {
        let manifests = match log.newer(kept.place())? {
            Newer::AnotherLog { partition } => return Ok(Read::AnotherLog { partition }),
            Newer::Manifests(manifests) => manifests,
        };
        let Identity { tenant, since, .. } = kept.identity().clone();
        let selection = Selection { from_day: since, ..Selection::of(&tenant) };
        for manifest in manifests {
            if stop() {
                break;
            }
            for event in log.events_of(std::slice::from_ref(&manifest), &selection)? {
                kept.take(&event, forgotten).map_err(Error::NotKept)?;
            }
            kept.place_mut().pass(&manifest);
            passed += 1;
        }
        let folded = kept.fold(stop)?;
        events += folded.events;
        told(&tenant, kept, folded);
        Ok(Read::Up((events, passed)))
    }
}

enum Read {
    /// Events and manifests that are not in the file.
    Up((u64, usize)),
    AnotherLog {
        partition: i32,
    },
}

fn told(tenant: &Tenant, kept: &Kept, Folded { events, reordered }: Folded) {
    let tenant = tenant.to_string();
    metrics::counter!("rapport_trainer_sums_events_total", "tenant" => tenant.clone()).increment(events);
    metrics::counter!("rapport_trainer_sums_reordered_total", "tenant" => tenant.clone()).increment(reordered);
    metrics::gauge!("rapport_trainer_sums_bytes", "tenant" => tenant).set(kept.bytes() as f64);
}
