//! The policies of a folder, followed while a service runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rapport_events::Tenant;
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};
use sha2::{Digest as _, Sha256};

use crate::{Policies, Policy, PolicyError, PolicyErrors, policies::tenant_of, read};

/// How long a change may take to be seen: short enough for a person who waits for it.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon a drain is seen.
const STEP: Duration = Duration::from_millis(100);
/// A folder of more policies is no folder of policies.
const FILES: usize = 10_000;

/// Policies that change under who reads them, and the thread that changes them.
#[derive(Debug)]
pub struct Watched {
    pub policies: Arc<ArcSwap<Policies>>,
    /// Ends with the lifecycle; whoever watches joins it.
    pub thread: OwnedThread,
}

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A service does not start with rules that cannot be read.
    #[error(transparent)]
    Policies(#[from] PolicyErrors),
    #[error("the operating system gives no thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Reads the policies of `dir` and looks every two seconds whether a file's content has changed.
///
/// A file that became wrong leaves the tenant's previous rules in force and is logged once; so does
/// a file that is gone: nothing that a policy forbids is allowed by a slip of a finger. Restart the
/// service to go back to the built-in rules. Changes are counted in
/// `rapport_policy_reloads_total{outcome}`: `applied`, `refused`, `gone`, or `unreadable` for the
/// folder.
///
/// # Errors
/// A policy is wrong at the start, or there is no thread.
pub fn watch(dir: &Path, lifecycle: &Lifecycle) -> Result<Watched, WatchError> {
    for outcome in ["applied", "refused", "gone", "unreadable"] {
        metrics::counter!("rapport_policy_reloads_total", "outcome" => outcome).increment(0);
    }
    let mut folder = Folder::open(dir)?;
    let policies = Arc::new(ArcSwap::from_pointee(folder.policies()));
    for (tenant, policy) in folder.policies().tenants() {
        tracing::info!(%tenant, version = %policy.version, "policy in force");
    }
    let (seen, draining) = (Arc::clone(&policies), lifecycle.clone());
    let thread = spawn_thread::<std::convert::Infallible, _>(lifecycle, "policies", move || {
        let mut looked = Instant::now();
        while !draining.draining() {
            std::thread::sleep(STEP);
            if looked.elapsed() < LOOK_EVERY {
                continue;
            }
            looked = Instant::now();
            let changes = folder.look();
            if changes.iter().any(|change| matches!(change, Change::Applied { .. })) {
                seen.store(Arc::new(folder.policies()));
            }
            changes.iter().for_each(Change::tell);
        }
        Ok(())
    })?;
    Ok(Watched { policies, thread })
}

/// What a look at the folder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Applied {
        tenant: Tenant,
        version: String,
        /// The rules are others, but their version is the one before.
        same_version: bool,
    },
    Refused(Vec<PolicyError>),
    Gone(Tenant),
    Unreadable(String),
}

impl Change {
    fn tell(&self) {
        let outcome = match self {
            Self::Applied { tenant, version, same_version } => {
                tracing::info!(%tenant, version, "policy in force");
                if *same_version {
                    tracing::warn!(%tenant, version, "the policy has changed but not its version: clean events before and after cannot be told apart; raise it");
                }
                "applied"
            }
            Self::Refused(errors) => {
                for error in errors {
                    tracing::error!(%error, "the policy is wrong; the rules before it stay in force");
                }
                "refused"
            }
            Self::Gone(tenant) => {
                tracing::warn!(%tenant, "the policy's file is gone; its rules stay in force until a restart");
                "gone"
            }
            Self::Unreadable(reason) => {
                tracing::error!(reason, "the folder of policies cannot be read; all rules stay in force");
                "unreadable"
            }
        };
        metrics::counter!("rapport_policy_reloads_total", "outcome" => outcome).increment(1);
    }
}

/// The folder as it was seen last.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    known: BTreeMap<PathBuf, Known>,
    /// So that an outage is told once.
    unreadable: bool,
}

/// One file as it was seen last.
#[derive(Debug)]
struct Known {
    /// Of what was read last, right or wrong: the same mistake is told once.
    fingerprint: [u8; 32],
    schema_files: Vec<PathBuf>,
    gone: bool,
    /// The newest right version.
    policy: Option<(Tenant, Arc<Policy>)>,
}

impl Folder {
    /// # Errors
    /// Every mistake of every file, or that the folder cannot be read.
    pub(crate) fn open(dir: &Path) -> Result<Self, PolicyErrors> {
        let mut folder = Self { dir: dir.to_owned(), known: BTreeMap::new(), unreadable: false };
        let wrong: Vec<PolicyError> = folder
            .look()
            .into_iter()
            .flat_map(|change| match change {
                Change::Refused(errors) => errors,
                Change::Unreadable(reason) => {
                    vec![PolicyError { file: dir.display().to_string(), path: String::new(), reason }]
                }
                Change::Applied { .. } | Change::Gone(_) => Vec::new(),
            })
            .collect();
        if wrong.is_empty() { Ok(folder) } else { Err(PolicyErrors(wrong)) }
    }

    pub(crate) fn policies(&self) -> Policies {
        self.known.values().filter_map(|known| known.policy.clone()).collect()
    }

    /// Reads what has changed since the last look.
    pub(crate) fn look(&mut self) -> Vec<Change> {
        let files = match files(&self.dir) {
            Ok(files) => files,
            Err(reason) if self.unreadable => {
                tracing::debug!(reason, "the folder of policies still cannot be read");
                return Vec::new();
            }
            Err(reason) => {
                self.unreadable = true;
                return vec![Change::Unreadable(reason)];
            }
        };
        self.unreadable = false;
        let mut changes: Vec<Change> = files.iter().filter_map(|file| self.look_at(file)).collect();
        for (_, known) in self.known.iter_mut().filter(|(file, known)| !known.gone && !files.contains(*file)) {
            known.gone = true;
            known.fingerprint = [0; 32];
            if let Some((tenant, _)) = &known.policy {
                changes.push(Change::Gone(tenant.clone()));
            }
        }
        changes
    }

    fn look_at(&mut self, file: &Path) -> Option<Change> {
        let before = self.known.get(file);
        let text = read::policy_text(file);
        let schema_files = before.map(|known| known.schema_files.as_slice()).unwrap_or_default();
        if before.is_some_and(|known| known.fingerprint == fingerprint(&text, schema_files)) {
            return None;
        }
        let (result, schema_files) = read_policy(file, &text);
        let previous = before.and_then(|known| known.policy.clone());
        let (change, policy) = match result {
            Ok((tenant, policy)) => {
                let same_version = previous.is_some_and(|(_, before)| before.version == policy.version);
                let change = Change::Applied { tenant: tenant.clone(), version: policy.version.clone(), same_version };
                (change, Some((tenant, policy)))
            }
            Err(errors) => (Change::Refused(errors), previous),
        };
        let known = Known { fingerprint: fingerprint(&text, &schema_files), schema_files, gone: false, policy };
        self.known.insert(file.to_owned(), known);
        Some(change)
    }
}

type Read = (Result<(Tenant, Arc<Policy>), Vec<PolicyError>>, Vec<PathBuf>);

fn read_policy(file: &Path, text: &Result<String, String>) -> Read {
    let name = file.display().to_string();
    let wrong = |reason: &str| {
        (Err(vec![PolicyError { file: name.clone(), path: String::new(), reason: reason.to_owned() }]), Vec::new())
    };
    let tenant = match tenant_of(file) {
        Ok(tenant) => tenant,
        Err(reason) => return wrong(&reason),
    };
    match text {
        Ok(text) => {
            let read = read::policy(&name, tenant.as_str(), text, file.parent());
            (read.result.map(|policy| (tenant, Arc::new(policy))), read.schema_files)
        }
        Err(reason) => wrong(reason),
    }
}

/// Of a policy and the schemas that it names. What cannot be read counts by its reason.
fn fingerprint(text: &Result<String, String>, schema_files: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |text: &Result<String, String>| {
        let (kind, text) = match text {
            Ok(text) => (b'+', text),
            Err(reason) => (b'-', reason),
        };
        hash.update([kind]);
        hash.update(text.len().to_le_bytes());
        hash.update(text.as_bytes());
    };
    add(text);
    for file in schema_files {
        add(&read::policy_text(file));
    }
    hash.finalize().into()
}

/// The policies of a folder. Hidden files are none: Kubernetes keeps a ConfigMap's versions in
/// some.
fn files(dir: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let entries = std::fs::read_dir(dir).map_err(|error| format!("cannot be read: {error}"))?;
    let mut files = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("cannot be read: {error}"))?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.insert(path);
        }
        if files.len() > FILES {
            return Err(format!("may hold {FILES} policies"));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).unwrap();
    }

    fn version(folder: &Folder, tenant: &str) -> String {
        folder.policies().of(&Tenant::parse(tenant).unwrap()).version.clone()
    }

    #[test]
    fn a_change_is_applied_and_a_broken_file_keeps_the_rules_before_it_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "acme.yaml", "version: 1\n");
        write(dir.path(), "notes.txt", "not a policy");
        let mut folder = Folder::open(dir.path()).unwrap();
        assert_eq!((version(&folder, "acme"), version(&folder, "bolt")), ("acme@1".into(), crate::BUILTIN.into()));
        assert_eq!(folder.look(), []);

        write(dir.path(), "acme.yaml", "version: 2\n");
        write(dir.path(), "bolt.yaml", "version: 7\n");
        assert_eq!(folder.look().len(), 2);
        assert_eq!((version(&folder, "acme"), version(&folder, "bolt")), ("acme@2".into(), "bolt@7".into()));

        write(dir.path(), "acme.yaml", "version: 3\ntime: {future: soon}\n");
        assert!(matches!(folder.look().as_slice(), [Change::Refused(errors)] if errors[0].path == "time.future"));
        assert_eq!(version(&folder, "acme"), "acme@2");
        assert_eq!(folder.look(), [], "the same mistake is told once");

        write(dir.path(), "acme.yaml", "version: 3\ntime: {future: 2h}\n");
        assert!(matches!(folder.look().as_slice(), [Change::Applied { same_version: false, .. }]));
        write(dir.path(), "acme.yaml", "version: 3\ntime: {future: 3h}\n");
        assert!(matches!(folder.look().as_slice(), [Change::Applied { same_version: true, .. }]));
    }

    #[test]
    fn rules_outlive_their_file_and_their_folder() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "acme.yaml", "version: 1\n");
        let mut folder = Folder::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("acme.yaml")).unwrap();
        assert_eq!(folder.look(), [Change::Gone(Tenant::parse("acme").unwrap())]);
        assert_eq!((folder.look().len(), version(&folder, "acme")), (0, "acme@1".into()));
        write(dir.path(), "acme.yaml", "version: 1\n");
        assert_eq!(folder.look().len(), 1, "and it is read again when it is back");
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(matches!(folder.look().as_slice(), [Change::Unreadable(_)]));
        assert_eq!((folder.look().len(), version(&folder, "acme")), (0, "acme@1".into()));
    }

    #[test]
    fn a_schema_in_a_file_of_its_own_is_part_of_the_policy() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "view.json", r#"{"required": ["item_id"]}"#);
        let policy = "version: 1\nvalidate: {events: {view: {version: 1, schema_file: view.json}}}\n";
        write(dir.path(), "acme.yaml", policy);
        let mut folder = Folder::open(dir.path()).unwrap();
        let acme = Tenant::parse("acme").unwrap();
        let breaches = |folder: &Folder| {
            folder.policies().of(&acme).validate.events["view"].breaches(&serde_json::json!({"type": "view"})).len()
        };
        assert_eq!(breaches(&folder), 1);
        write(dir.path(), "view.json", "{}");
        assert_eq!((folder.look().len(), breaches(&folder)), (1, 0));
        std::fs::remove_file(dir.path().join("view.json")).unwrap();
        assert!(
            matches!(folder.look().as_slice(), [Change::Refused(e)] if e[0].path == "validate.events.view.schema_file")
        );
        assert_eq!((folder.look().len(), breaches(&folder)), (0, 0));

        write(dir.path(), "acme.yaml", &policy.replace("view.json", "../view.json"));
        assert!(
            matches!(folder.look().as_slice(), [Change::Refused(e)] if e[0].reason.contains("below the policy's folder"))
        );
    }

    #[test]
    fn a_service_does_not_start_with_rules_that_are_wrong_and_hears_of_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "acme.yaml", "version: none\n");
        write(dir.path(), "No Tenant.yaml", "version: 1\n");
        let text = Policies::load(dir.path()).unwrap_err().to_string();
        assert!(text.contains("acme.yaml: version: must be") && text.contains("named after no tenant"), "{text}");
        assert!(Policies::load(&dir.path().join("absent")).unwrap_err().to_string().contains("cannot be read"));
        assert!(Policies::check_file(&dir.path().join("acme.yaml")).is_err());
    }
}
