//! The file of rejected rows: one JSON object a line.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::Rejection;

/// Made when the first row is rejected.
pub struct RejectedFile {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    bytes: u64,
}

impl RejectedFile {
    /// Keeps the first `bytes` of what an earlier run wrote; what comes after them belongs to rows
    /// that this run reads again.
    ///
    /// # Errors
    /// The file is there and cannot be written to.
    pub fn open(path: &Path, bytes: u64) -> anyhow::Result<Self> {
        let mut rejected = Self { path: path.to_path_buf(), file: None, bytes: 0 };
        if fs::exists(path).with_context(|| format!("cannot look at {}", path.display()))? {
            let file = File::options()
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write to {}", path.display()))?;
            let length = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
            rejected.bytes = bytes.min(length);
            file.set_len(rejected.bytes).with_context(|| format!("cannot cut {}", path.display()))?;
            rejected.file = Some(BufWriter::new(file));
        }
        Ok(rejected)
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, rejection: &Rejection) -> anyhow::Result<()> {
        let line = rejection.line();
        let cannot = || format!("cannot write {}; try: --rejected FILE", self.path.display());
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(
                File::options().create(true).append(true).open(&self.path).with_context(cannot)?,
            )),
        };
        file.write_all(line.as_bytes()).with_context(cannot)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Everything is on the disk; how much that is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync(&mut self) -> anyhow::Result<u64> {
        if let Some(file) = &mut self.file {
            let done = file.flush().and_then(|()| file.get_ref().sync_data());
            done.with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rejection(row: u64) -> Rejection {
        Rejection { row, field: String::new(), reason: "wrong".into(), content: json!({}) }
    }

    #[test]
    fn what_an_interrupted_run_wrote_too_much_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.ndjson");
        let mut first = RejectedFile::open(&path, 0).unwrap();
        assert!(!path.exists(), "no file without a rejection");
        first.write(&rejection(1)).unwrap();
        let kept = first.sync().unwrap();
        first.write(&rejection(2)).unwrap();
        first.sync().unwrap();
        drop(first);

        let mut second = RejectedFile::open(&path, kept).unwrap();
        second.write(&rejection(2)).unwrap();
        second.write(&rejection(3)).unwrap();
        second.sync().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let rows: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["row"].as_u64().unwrap())
            .collect();
        assert_eq!(rows, [1, 2, 3]);
    }
}
