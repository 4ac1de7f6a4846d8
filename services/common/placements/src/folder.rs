//! The files of a folder, followed while a service runs.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rapport_events::Tenant;
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};

use crate::{Mistakes, TenantPlacements};

/// How long a change may take to be seen: short enough for a person who waits for it.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon a drain is seen.
const STEP: Duration = Duration::from_millis(100);
/// A file that somebody wrote is a hundredth of this.
const FILE_BYTES: u64 = 1024 * 1024;

/// The placements of every tenant.
#[derive(Debug, Clone, Default)]
pub struct Placements {
    tenants: HashMap<Tenant, Arc<TenantPlacements>>,
}

impl Placements {
    pub fn of(&self, tenant: &Tenant) -> Option<&Arc<TenantPlacements>> {
        self.tenants.get(tenant)
    }

    pub fn tenants(&self) -> impl Iterator<Item = (&Tenant, &Arc<TenantPlacements>)> {
        self.tenants.iter()
    }
}

impl FromIterator<(Tenant, TenantPlacements)> for Placements {
    fn from_iter<I: IntoIterator<Item = (Tenant, TenantPlacements)>>(tenants: I) -> Self {
        Self { tenants: tenants.into_iter().map(|(tenant, of)| (tenant, Arc::new(of))).collect() }
    }
}

/// Placements that change under who reads them, and the thread that changes them.
pub struct Watched {
    pub placements: Arc<ArcSwap<Placements>>,
    /// Ends with the lifecycle; whoever watches joins it.
    pub thread: OwnedThread,
}

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A service does not start with rules that cannot be read.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    #[error("the operating system gives no thread: {0}")]
    Thread(#[from] io::Error),
}

/// Reads the folder and looks every two seconds whether a file has changed. A file that became wrong or
/// is gone leaves the tenant's rules in force, which is logged once and counted in
/// `rapport_placement_reloads_total{outcome}` (`applied`, `refused`, `gone`).
///
/// # Errors
/// A file is wrong at the start, or there is no thread.
pub fn watch(dir: &Path, lifecycle: &Lifecycle) -> Result<Watched, WatchError> {
    let mut folder = Folder::open(dir)?;
    let placements = Arc::new(ArcSwap::from_pointee(folder.placements()));
    let (seen, draining) = (Arc::clone(&placements), lifecycle.clone());
    let thread = spawn_thread::<std::convert::Infallible, _>(lifecycle, "placements", move || {
        let mut looked = Instant::now();
        while !draining.draining() {
            std::thread::sleep(STEP);
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if folder.look() {
                    seen.store(Arc::new(folder.placements()));
                }
            }
        }
        Ok(())
    })?;
    Ok(Watched { placements, thread })
}

/// The folder as it was seen last.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// What was read last, right or wrong, so that a mistake is told once; `None` once a file is gone.
    texts: HashMap<PathBuf, Option<String>>,
    placements: Placements,
}

impl Folder {
    /// Reads `<tenant>.yaml` for every tenant.
    ///
    /// # Errors
    /// Every mistake of every file.
    pub fn open(dir: &Path) -> Result<Self, Mistakes> {
        let mut folder = Self { dir: dir.to_owned(), texts: HashMap::new(), placements: Placements::default() };
        let mut wrong = Vec::new();
        for path in files(dir).map_err(|error| Mistakes::one(&dir.display().to_string(), error.to_string()))? {
            if let Err(Mistakes(found)) = folder.read(&path) {
                wrong.extend(found);
            }
        }
        if wrong.is_empty() { Ok(folder) } else { Err(Mistakes(wrong)) }
    }

    pub fn placements(&self) -> Placements {
        self.placements.clone()
    }

    /// Reads what has changed; whether anything that is in force did.
    pub fn look(&mut self) -> bool {
        let present = match files(&self.dir) {
            Ok(present) => present,
            Err(error) => {
                tracing::error!(%error, "the folder of placements cannot be read; all rules stay in force");
                return false;
            }
        };
        let mut changed = false;
        for path in &present {
            match self.read(path) {
                Ok(Some(tenant)) => {
                    tracing::info!(%tenant, "placements in force");
                    count("applied");
                    changed = true;
                }
                Ok(None) => {}
                Err(mistakes) => {
                    tracing::error!(%mistakes, "placements are wrong; the rules before them stay in force");
                    count("refused");
                }
            }
        }
        for (path, text) in &mut self.texts {
            if !present.contains(path) && text.take().is_some() {
                tracing::warn!(file = %path.display(), "placements are gone; their rules stay in force until a restart");
                count("gone");
            }
        }
        changed
    }

    /// The tenant whose placements are others now.
    fn read(&mut self, path: &Path) -> Result<Option<Tenant>, Mistakes> {
        let file = path.display().to_string();
        let text = match text_of(path) {
            Ok(text) => text,
            Err(reason) => {
                // Told once as well.
                let told = self.texts.insert(path.to_owned(), Some(reason.clone()));
                return if told == Some(Some(reason.clone())) { Ok(None) } else { Err(Mistakes::one(&file, reason)) };
            }
        };
        if self.texts.get(path).is_some_and(|known| known.as_ref() == Some(&text)) {
            return Ok(None);
        }
        self.texts.insert(path.to_owned(), Some(text.clone()));
        let tenant = tenant_of(path).map_err(|reason| Mistakes::one(&file, reason))?;
        let placements = TenantPlacements::from_yaml(&file, &text)?;
        self.placements.tenants.insert(tenant.clone(), Arc::new(placements));
        Ok(Some(tenant))
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("rapport_placement_reloads_total", "outcome" => outcome).increment(1);
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // What Kubernetes and editors put beside the files begins with a dot.
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn text_of(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES {
        return Err(format!("may have {FILE_BYTES} bytes, has {size}"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

fn tenant_of(path: &Path) -> Result<Tenant, String> {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    Tenant::parse(name).map_err(|error| format!("is named after no tenant: {}; name it <tenant>.yaml", error.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_applied_and_a_wrong_or_missing_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let acme = Tenant::parse("acme").unwrap();
        let write = |text: &str| fs::write(dir.path().join("acme.yaml"), text).unwrap();
        let has = |folder: &Folder, name: &str| {
            folder.placements().of(&acme).unwrap().resolve(name, "ann", |_, _| false).is_some()
        };
        write("placements: {home: {}}");
        let mut folder = Folder::open(dir.path()).unwrap();
        assert!(has(&folder, "home") && !folder.look(), "nothing has changed");

        write("placements: {home: {}, cart: {}}");
        assert!(folder.look() && has(&folder, "cart"));
        write("placements: {home: {candidates: 0}}");
        assert!(!folder.look() && has(&folder, "cart"), "the rules before stay");
        fs::remove_file(dir.path().join("acme.yaml")).unwrap();
        assert!(!folder.look() && has(&folder, "cart"));
        write("placements: {home: {}}");
        assert!(folder.look() && !has(&folder, "cart"), "it is back");
    }

    #[test]
    fn a_service_does_not_start_with_a_wrong_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Acme!.yaml"), "placements: {}").unwrap();
        fs::write(dir.path().join("bolt.yaml"), "placements: {a b: {}}").unwrap();
        let Err(Mistakes(found)) = Folder::open(dir.path()) else { panic!("opened") };
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
