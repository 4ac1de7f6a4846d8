//! Files that are there whole or not at all.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::error::Usage;

/// Tells before hours of work that nothing could be written there.
///
/// # Errors
/// [`Usage`]: the folder is missing, or a folder stands where the file should.
pub fn check(path: &Path) -> Result<(), Usage> {
    if path.is_dir() {
        return Err(Usage(format!("{} is a folder; name a file", path.display())));
    }
    let folder = folder(path);
    if path.file_name().is_none() || !folder.is_dir() {
        return Err(Usage(format!("{}: there is no folder {}; make it first", path.display(), folder.display())));
    }
    Ok(())
}

/// Writes beside the file and renames: a crash or a full disk leaves the old file, or none.
///
/// # Errors
/// The folder cannot be written to.
pub fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The process's number keeps two runs apart that write to one place.
    let beside = folder(path).join(format!(".{name}.{}.new", std::process::id()));
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() && beside.exists() {
        fs::remove_file(&beside).with_context(|| format!("cannot remove {}", beside.display()))?;
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.json");
        check(&path).unwrap();
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path()).unwrap_err().to_string().contains("is a folder"));
        let nowhere = folder.path().join("none").join("model.json");
        assert!(check(&nowhere).unwrap_err().to_string().contains("make it first"));
        // A folder with something in it cannot be replaced by a file.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write(&taken, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
