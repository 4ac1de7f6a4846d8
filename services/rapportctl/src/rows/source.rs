//! A file's bytes: counted, inflated, without a byte-order mark.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use sha2::{Digest, Sha256};

use super::Extent;

const BUFFER: usize = 256 * 1024;

/// Counts what passes.
struct Counted<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The text of a file, inflated by its name's ending (`.gz`, `.zst`).
///
/// # Errors
/// The file cannot be read, or is UTF-16.
pub fn text(path: &Path) -> anyhow::Result<(Box<dyn Read + Send>, Extent)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let total = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
    let done = Arc::new(AtomicU64::new(0));
    let counted = BufReader::with_capacity(BUFFER, Counted { inner: file, done: Arc::clone(&done) });
    let inflated: Box<dyn Read + Send> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
        Some("zst") => Box::new(zstd::Decoder::with_buffer(counted).context("starting zstd")?),
        _ => Box::new(counted),
    };
    let reader = without_mark(inflated).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((reader, Extent { total, done }))
}

/// Without UTF-8's byte-order mark, which Excel writes.
fn without_mark(mut reader: Box<dyn Read + Send>) -> anyhow::Result<Box<dyn Read + Send>> {
    let mut first = Vec::with_capacity(3);
    reader.by_ref().take(3).read_to_end(&mut first)?;
    match first.as_slice() {
        [0xef, 0xbb, 0xbf] => Ok(reader),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => bail!("it is UTF-16; try: iconv -f utf-16 -t utf-8"),
        _ => Ok(Box::new(Cursor::new(first).chain(reader))),
    }
}

/// What tells two files apart, whatever their names.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(path: &Path, mut progress: impl FnMut(u64)) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(&buffer[..read]);
        done += read as u64;
        progress(done);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(name: &str, bytes: &[u8]) -> anyhow::Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut text = String::new();
        self::text(&path)?.0.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        assert_eq!(read("a.csv", b"\xef\xbb\xbfa,b\n").unwrap(), "a,b\n");
        assert_eq!(read("a.csv", b"a").unwrap(), "a");
        assert_eq!(read("a.csv", b"").unwrap(), "");
        assert!(format!("{:#}", read("a.csv", b"\xff\xfea\0").unwrap_err()).contains("iconv"));
    }

    #[test]
    fn gzip_of_several_members_and_zstd_are_inflated() {
        let member = |text: &str| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(text.as_bytes()).unwrap();
            out.finish().unwrap()
        };
        assert_eq!(read("a.csv.gz", &[member("a,b\n"), member("1,2\n")].concat()).unwrap(), "a,b\n1,2\n");
        assert_eq!(read("a.csv.zst", &zstd::encode_all(&b"a,b\n"[..], 1).unwrap()).unwrap(), "a,b\n");
        assert!(read("a.csv.gz", b"not gzip").is_err());
    }

    #[test]
    fn the_hash_is_of_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        let hash = sha256(&path, |_| {}).unwrap();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
