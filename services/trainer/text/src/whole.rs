//! Folders that are there whole or not at all.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::Error;

/// Lets `fill` write into a temporary folder beside `target`, brings everything to the disk and
/// renames the folder. When anything fails, nothing stays behind.
///
/// # Errors
/// `target` is there already, what `fill` returns, or the disk.
pub fn write_whole(target: &Path, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    if target.exists() {
        return Err(Error::Exists { path: target.into() });
    }
    let temporary = temporary(target);
    let written = fs::create_dir_all(&temporary)
        .map_err(Error::file(&temporary))
        .and_then(|()| fill(&temporary))
        .and_then(|()| sync(&temporary))
        // Fails when another writer was first: a folder with content is not replaced.
        .and_then(|()| fs::rename(&temporary, target).map_err(Error::file(target)));
    if written.is_err() && temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(Error::file(&temporary))?;
    }
    written?;
    sync_one(target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

fn temporary(target: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}-{}-{unique}", std::process::id()))
}

/// Brings a folder with all that is in it to the disk.
fn sync(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        if path.is_dir() {
            sync(&path)?;
        } else {
            sync_one(&path)?;
        }
    }
    sync_one(folder)
}

fn sync_one(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_folder_appears_when_it_is_complete() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("model");
        write_whole(&target, |folder| {
            assert!(!target.exists());
            fs::write(folder.join("file"), "x").map_err(Error::file(folder))
        })
        .unwrap();
        assert_eq!(names(parent.path()), ["model"]);
        assert_eq!(names(&target), ["file"]);
    }

    #[test]
    fn a_writer_that_fails_leaves_nothing_behind() {
        let parent = tempfile::tempdir().unwrap();
        let failed = write_whole(&parent.path().join("model"), |folder| {
            fs::write(folder.join("file"), "x").map_err(Error::file(folder))?;
            Err(Error::Cancelled)
        });
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn what_is_there_is_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        assert!(matches!(write_whole(parent.path(), |_| Ok(())), Err(Error::Exists { .. })));
    }
}
