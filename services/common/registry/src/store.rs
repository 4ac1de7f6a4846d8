//! The folder of all artifacts: writing, listing, and the record of what is live.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rapport_events::Tenant;

use crate::{
    Artifact, ArtifactError, Description, FORMAT_VERSION, Live, Manifest,
    artifact::{read_manifest, record},
    files,
};

const TEMPORARY: &str = ".tmp-";
const LIVE: &str = "live.json";
const LIVE_LIMIT_BYTES: u64 = 64 * 1024;

/// A version that was written: what an announcement needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRef {
    pub tenant: Tenant,
    pub name: String,
    pub version: String,
    /// Where its folder is on this machine.
    pub path: PathBuf,
    pub manifest_sha256: String,
}

impl ArtifactRef {
    /// Its folder relative to the registry: the same on every machine that shares it.
    pub fn relative_path(&self) -> String {
        format!("{}/{}/{}", self.tenant, self.name, self.version)
    }
}

/// A version in a list, with its manifest or why that cannot be read.
#[derive(Debug)]
pub struct Listed {
    pub version: String,
    pub path: PathBuf,
    /// Only the manifest was read: the files are verified when the artifact is opened.
    pub manifest: Result<(Manifest, String), ArtifactError>,
}

/// A folder of artifacts, shared by those who write and those who read it.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// Opens the registry for writing, makes its folder when it is not there, and removes temporary
    /// folders of writers that have died.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ArtifactError> {
        let registry = Self { root: root.into() };
        fs::create_dir_all(&registry.root).map_err(ArtifactError::io(&registry.root))?;
        for tenant in folders(&registry.root)? {
            for name in folders(&tenant)? {
                for folder in folders(&name)? {
                    if file_name(&folder).starts_with(TEMPORARY) && abandoned(&folder) {
                        tracing::info!(folder = %folder.display(), "removing what a writer left unfinished");
                        fs::remove_dir_all(&folder).map_err(ArtifactError::io(&folder))?;
                    }
                }
            }
        }
        Ok(registry)
    }

    /// For those who only read: nothing is made or removed, and the folder may come later.
    pub fn read_only(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a version: `fill` puts the files into the folder that it is given; the registry adds
    /// the manifest, flushes everything to disk, and renames the folder into place. After a crash
    /// the version is there whole or not at all.
    ///
    /// # Errors
    /// What `fill` returns, a version that is there already, a name that cannot stand in a path, or
    /// the disk.
    pub fn write<E: From<ArtifactError>>(
        &self,
        tenant: &Tenant,
        name: &str,
        version: &str,
        description: Description,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<ArtifactRef, E> {
        let target = self.version_path(tenant, name, version)?;
        if target.exists() {
            return Err(ArtifactError::Exists { path: target }.into());
        }
        let temporary = Temporary::create(&self.model_path(tenant, name)?, version)?;
        fill(&temporary.path)?;
        let manifest_sha256 = seal(&temporary.path, tenant, name, version, description)?;
        temporary.rename(&target)?;
        Ok(ArtifactRef {
            tenant: tenant.clone(),
            name: name.into(),
            version: version.into(),
            path: target,
            manifest_sha256,
        })
    }

    /// All versions, newest first (their names start with the time).
    ///
    /// # Errors
    /// The folder cannot be read; a version that is broken stands in the list with its error.
    pub fn versions(&self, tenant: &Tenant, name: &str) -> Result<Vec<Listed>, ArtifactError> {
        let folder = self.model_path(tenant, name)?;
        let mut versions: Vec<_> = folders(&folder)?
            .into_iter()
            .filter(|path| !file_name(path).starts_with('.'))
            .map(|path| Listed { version: file_name(&path), manifest: read_manifest(&path), path })
            .collect();
        versions.sort_by(|a, b| b.version.cmp(&a.version));
        Ok(versions)
    }

    /// Opens and verifies a version.
    ///
    /// # Errors
    /// As [`Artifact::open`]; also an artifact that says it is another version or another model.
    pub fn artifact(
        &self,
        tenant: &Tenant,
        name: &str,
        version: &str,
    ) -> Result<(Artifact, ArtifactRef), ArtifactError> {
        let path = self.version_path(tenant, name, version)?;
        let artifact = Artifact::open(&path, None)?;
        let manifest = artifact.manifest();
        if (manifest.name.as_str(), manifest.version.as_str()) != (name, version) {
            let reason = format!("it says that it is {}/{}", manifest.name, manifest.version);
            return Err(ArtifactError::Malformed { path, file: files::MANIFEST.into(), reason });
        }
        let reference = ArtifactRef {
            tenant: tenant.clone(),
            name: name.into(),
            version: version.into(),
            path,
            manifest_sha256: artifact.manifest_sha256().into(),
        };
        Ok((artifact, reference))
    }

    /// Opens and verifies the artifact that an announcement names: its folder relative to the registry,
    /// and its manifest's hash.
    ///
    /// # Errors
    /// As [`Artifact::open`]; also a path that leads out of the registry.
    pub fn announced(&self, folder: &str, manifest_sha256: &str) -> Result<Artifact, ArtifactError> {
        let wrong = || ArtifactError::Name {
            field: "artifact",
            value: folder.into(),
            reason: "is not <tenant>/<name>/<version>",
        };
        let parts: Vec<_> = folder.split('/').collect();
        let [tenant, name, version] = parts[..] else { return Err(wrong()) };
        let path = self.version_path(&Tenant::parse(tenant).map_err(|_| wrong())?, name, version)?;
        Artifact::open(path, Some(manifest_sha256).filter(|sha| !sha.is_empty()))
    }

    /// The trainer's own record of what is live; `None` when nothing ever was.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn live(&self, tenant: &Tenant, name: &str) -> Result<Option<Live>, ArtifactError> {
        let path = self.model_path(tenant, name)?.join(LIVE);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ArtifactError::io(path)(e)),
            Ok(metadata) if metadata.len() > LIVE_LIMIT_BYTES => {
                return Err(ArtifactError::TooLarge {
                    path,
                    file: LIVE.into(),
                    found: metadata.len(),
                    limit: LIVE_LIMIT_BYTES,
                });
            }
            Ok(_) => {}
        }
        let bytes = fs::read(&path).map_err(ArtifactError::io(&path))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|e| ArtifactError::Malformed {
            path,
            file: LIVE.into(),
            reason: e.to_string(),
        })
    }

    /// Replaces the record of what is live, atomically.
    ///
    /// # Errors
    /// A name that cannot stand in a path, or the disk.
    pub fn set_live(&self, live: &Live) -> Result<(), ArtifactError> {
        let tenant = Tenant::parse(&live.tenant).map_err(|_| ArtifactError::Name {
            field: "tenant",
            value: live.tenant.clone(),
            reason: "is not a tenant",
        })?;
        let folder = self.model_path(&tenant, &live.name)?;
        fs::create_dir_all(&folder).map_err(ArtifactError::io(&folder))?;
        let json = serde_json::to_vec_pretty(live).map_err(|e| ArtifactError::io(&folder)(e.into()))?;
        let temporary = folder.join(format!(".{LIVE}-{}-{}", std::process::id(), unique()));
        let replace = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&temporary, folder.join(LIVE))?;
            File::open(&folder)?.sync_all()
        };
        replace().map_err(ArtifactError::io(&temporary))
    }

    fn model_path(&self, tenant: &Tenant, name: &str) -> Result<PathBuf, ArtifactError> {
        check_name("name", name)?;
        Ok(self.root.join(tenant.as_str()).join(name))
    }

    fn version_path(&self, tenant: &Tenant, name: &str, version: &str) -> Result<PathBuf, ArtifactError> {
        check_name("version", version)?;
        Ok(self.model_path(tenant, name)?.join(version))
    }
}

/// A name that can stand in a path and a key.
pub(crate) fn check_name(field: &'static str, value: &str) -> Result<(), ArtifactError> {
    let refused = |reason| Err(ArtifactError::Name { field, value: value.chars().take(80).collect(), reason });
    if value.is_empty() || value.len() > 128 {
        return refused("must have 1 to 128 bytes");
    }
    if value.starts_with('.') || value == LIVE {
        return refused("must not start with a dot or be live.json");
    }
    if !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return refused("may hold letters, digits, '-', '_' and '.'");
    }
    Ok(())
}

/// Adds the manifest and flushes the folder's content to disk. Returns the manifest's SHA-256.
fn seal(
    folder: &Path,
    tenant: &Tenant,
    name: &str,
    version: &str,
    description: Description,
) -> Result<String, ArtifactError> {
    let mut records = std::collections::BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(ArtifactError::io(folder))? {
        let path = entry.map_err(ArtifactError::io(folder))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(ArtifactError::io(&path))?;
        records.insert(file_name(&path), record(&path).map_err(ArtifactError::io(&path))?);
    }
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        tenant: tenant.to_string(),
        name: name.into(),
        version: version.into(),
        description,
        files: records,
    };
    let json = serde_json::to_vec_pretty(&manifest).map_err(|e| ArtifactError::io(folder)(e.into()))?;
    // What cannot be read back must not be written.
    Manifest::parse(folder, &json)?;
    let path = folder.join(files::MANIFEST);
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(&json)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        record(&path)
    };
    Ok(write().map_err(ArtifactError::io(&path))?.sha256)
}

/// A folder that is being filled. It is locked, so that nobody takes it for abandoned, and removed
/// when it is dropped without having been renamed.
struct Temporary {
    path: PathBuf,
    _lock: File,
}

impl Temporary {
    fn create(parent: &Path, version: &str) -> Result<Self, ArtifactError> {
        let path = parent.join(format!("{TEMPORARY}{version}-{}-{}", std::process::id(), unique()));
        fs::create_dir_all(&path).map_err(ArtifactError::io(&path))?;
        let lock = File::open(&path).map_err(ArtifactError::io(&path))?;
        lock.lock().map_err(ArtifactError::io(&path))?;
        Ok(Self { path, _lock: lock })
    }

    fn rename(self, target: &Path) -> Result<(), ArtifactError> {
        // Fails when another writer was first: a folder with content is not replaced.
        fs::rename(&self.path, target).map_err(ArtifactError::io(target))?;
        let parent = target.parent().unwrap_or(target);
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(ArtifactError::io(parent))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(folder = %self.path.display(), %error, "an unfinished artifact cannot be removed");
        }
    }
}

/// Its writer's lock has gone with the writer.
fn abandoned(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|file| !matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn unique() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders in a folder; none when it is not there.
fn folders(path: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(ArtifactError::io(path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(ArtifactError::io(path))?;
        if entry.file_type().map_err(ArtifactError::io(path))?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
