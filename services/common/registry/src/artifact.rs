//! Opening an artifact: every byte is checked before any is used.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    ArtifactError, ItemTable, Manifest, Neighbours, files,
    manifest::{FileRecord, MANIFEST_LIMIT_BYTES},
    tables::TABLE_LIMIT_BYTES,
};

/// An artifact whose files were, when it was opened, exactly those of its manifest.
#[derive(Debug, Clone)]
pub struct Artifact {
    path: PathBuf,
    manifest: Manifest,
    manifest_sha256: String,
}

impl Artifact {
    /// Opens the folder and verifies it: the manifest against `expected_manifest_sha` (hex) when it
    /// is given, its format, and each file's size and SHA-256; nothing may be missing and nothing
    /// more may be there. Reads every byte: about a second for a gigabyte.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the file.
    pub fn open(path: impl AsRef<Path>, expected_manifest_sha: Option<&str>) -> Result<Self, ArtifactError> {
        let path = path.as_ref();
        let (manifest, manifest_sha256) = read_manifest(path)?;
        if let Some(expected) = expected_manifest_sha.filter(|sha| !sha.eq_ignore_ascii_case(&manifest_sha256)) {
            return Err(ArtifactError::Manifest {
                path: path.into(),
                expected: expected.into(),
                found: manifest_sha256,
            });
        }
        for entry in fs::read_dir(path).map_err(ArtifactError::io(path))? {
            let file = entry.map_err(ArtifactError::io(path))?.file_name().to_string_lossy().into_owned();
            if file != files::MANIFEST && !manifest.files.contains_key(&file) {
                return Err(ArtifactError::Unexpected { path: path.into(), file });
            }
        }
        for (file, expected) in &manifest.files {
            verify(path, file, expected)?;
        }
        Ok(Self { path: path.into(), manifest, manifest_sha256 })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of `manifest.json`, which stands for the whole artifact.
    pub fn manifest_sha256(&self) -> &str {
        &self.manifest_sha256
    }

    /// The ONNX graph.
    pub fn model_path(&self) -> PathBuf {
        self.path.join(files::MODEL)
    }

    /// The model in two parts: the graph that makes a query, and the items' vectors. `None` where the artifact has
    /// one part alone.
    pub fn parts(&self) -> Option<(PathBuf, PathBuf)> {
        let there = |file: &str| self.manifest.files.contains_key(file).then(|| self.path.join(file));
        there(files::QUERY).zip(there(files::VECTORS))
    }

    /// Item ids by index.
    ///
    /// # Errors
    /// The table is not what the manifest says of it.
    pub fn items(&self) -> Result<ItemTable, ArtifactError> {
        let table =
            ItemTable::parse(&self.bytes(files::ITEMS)?).map_err(|reason| self.malformed(files::ITEMS, reason))?;
        if table.len() != self.manifest.description.items {
            let reason = format!("holds {} items, the manifest says {}", table.len(), self.manifest.description.items);
            return Err(self.malformed(files::ITEMS, reason));
        }
        Ok(table)
    }

    /// The nearest items of each item; empty where the artifact has none.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn neighbours(&self) -> Result<Neighbours, ArtifactError> {
        if !self.manifest.files.contains_key(files::NEIGHBOURS) {
            return Ok(Neighbours::default());
        }
        Neighbours::parse(&self.bytes(files::NEIGHBOURS)?).map_err(|reason| self.malformed(files::NEIGHBOURS, reason))
    }

    /// How the events that it learned from were spread, as JSON; `None` where the artifact has none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn snapshot(&self) -> Result<Option<Vec<u8>>, ArtifactError> {
        let there = self.manifest.files.contains_key(files::SNAPSHOT);
        there.then(|| self.bytes(files::SNAPSHOT)).transpose()
    }

    fn bytes(&self, file: &str) -> Result<Vec<u8>, ArtifactError> {
        read_bounded(&self.path, file, TABLE_LIMIT_BYTES)
    }

    fn malformed(&self, file: &str, reason: String) -> ArtifactError {
        ArtifactError::Malformed { path: self.path.clone(), file: file.into(), reason }
    }
}

/// The manifest and its SHA-256, without a look at the other files.
pub(crate) fn read_manifest(folder: &Path) -> Result<(Manifest, String), ArtifactError> {
    if !folder.is_dir() {
        return Err(ArtifactError::NoSuchVersion { path: folder.into() });
    }
    let bytes = read_bounded(folder, files::MANIFEST, MANIFEST_LIMIT_BYTES)?;
    let manifest = Manifest::parse(folder, &bytes)?;
    Ok((manifest, hex::encode(Sha256::digest(&bytes))))
}

fn read_bounded(folder: &Path, file: &str, limit: u64) -> Result<Vec<u8>, ArtifactError> {
    let bytes = regular_file_bytes(folder, file)?;
    if bytes > limit {
        return Err(ArtifactError::TooLarge { path: folder.into(), file: file.into(), found: bytes, limit });
    }
    let mut content = Vec::with_capacity(bytes as usize);
    // A file that grows while it is read still ends at the limit, and then fails its checksum.
    File::open(folder.join(file))
        .and_then(|opened| opened.take(limit).read_to_end(&mut content))
        .map_err(ArtifactError::io(folder.join(file)))?;
    Ok(content)
}

/// The size of a file that is one: neither a link nor a folder nor a pipe.
fn regular_file_bytes(folder: &Path, file: &str) -> Result<u64, ArtifactError> {
    match fs::symlink_metadata(folder.join(file)) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        Ok(_) => Err(ArtifactError::Malformed {
            path: folder.into(),
            file: file.into(),
            reason: "is not a regular file".into(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(ArtifactError::Missing { path: folder.into(), file: file.into() })
        }
        Err(e) => Err(ArtifactError::io(folder.join(file))(e)),
    }
}

fn verify(folder: &Path, file: &str, expected: &FileRecord) -> Result<(), ArtifactError> {
    let bytes = regular_file_bytes(folder, file)?;
    let size = |found| ArtifactError::Size { path: folder.into(), file: file.into(), expected: expected.bytes, found };
    if bytes != expected.bytes {
        return Err(size(bytes));
    }
    let found = record(&folder.join(file)).map_err(ArtifactError::io(folder.join(file)))?;
    if found.bytes != expected.bytes {
        return Err(size(found.bytes));
    }
    if found.sha256 != expected.sha256 {
        return Err(ArtifactError::Checksum {
            path: folder.into(),
            file: file.into(),
            expected: expected.sha256.clone(),
            found: found.sha256,
        });
    }
    Ok(())
}

/// Size and SHA-256 of a file as it stands.
pub(crate) fn record(path: &Path) -> io::Result<FileRecord> {
    /// Feeds the hash from `io::copy`.
    struct Hashing(Sha256);
    impl Write for Hashing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hash = io::BufWriter::with_capacity(1 << 18, Hashing(Sha256::new()));
    let bytes = io::copy(&mut File::open(path)?, &mut hash)?;
    let Hashing(hash) = hash.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(FileRecord { bytes, sha256: hex::encode(hash.finalize()) })
}
