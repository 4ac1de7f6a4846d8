//! Files as rows, one at a time: CSV, NDJSON and Parquet, however large they are.
//!
//! path -> [`source`] (inflated, counted, without a byte-order mark) -> [`delimited`], [`lines`] or
//! [`parquet`] -> [`Row`]s with their numbers.

pub mod cell;
mod delimited;
mod lines;
mod parquet;
mod source;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use serde_json::Value;

use crate::error::Usage;

pub use delimited::Delimited;
pub use source::sha256;

/// The longest row that is read: a longer one is no row (an open quote, a file without line ends).
const ROW_BYTES: usize = 1 << 20;

/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Cells between delimiters
    Csv,
    /// One JSON object a line
    Ndjson,
    Parquet,
}

impl Format {
    /// By the file's name; a compression's ending does not count.
    ///
    /// # Errors
    /// [`Usage`], when the name does not tell.
    pub fn of(path: &Path) -> Result<Self, Usage> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("csv" | "tsv" | "tab") => Ok(Self::Csv),
            Some("ndjson" | "jsonl" | "json") => Ok(Self::Ndjson),
            Some("parquet" | "pq") => Ok(Self::Parquet),
            _ => Err(Usage(format!("{}: its name does not tell what it is; try: --format csv", path.display()))),
        }
    }
}

/// A row, or what was there instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// From 1; of NDJSON the line, of CSV without the header.
    pub number: u64,
    pub body: Result<Body, BadRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Columns and their values.
    Object(Value),
    /// A line of NDJSON as it stands.
    Line(Vec<u8>),
}

/// A row that cannot be read, and the rest of the file can.
#[derive(Debug, Clone, PartialEq)]
pub struct BadRow {
    pub reason: String,
    /// What stands there, as far as it can be shown.
    pub content: Value,
}

/// Rows in the file's order. An error ends them: what follows cannot be read.
pub type Rows = Box<dyn Iterator<Item = anyhow::Result<Row>> + Send>;

/// How far a file has been read, in bytes of the file, or in rows where it knows their number.
#[derive(Debug, Clone)]
pub struct Extent {
    pub total: u64,
    pub done: Arc<AtomicU64>,
}

/// Opens a file after its first `skip` rows.
///
/// # Errors
/// The file cannot be read, or is not what its format says.
pub fn open(path: &Path, format: Format, delimited: &Delimited, skip: u64) -> anyhow::Result<(Rows, Extent)> {
    match format {
        Format::Parquet => parquet::open(path, skip),
        Format::Csv => {
            let (reader, extent) = source::text(path)?;
            Ok((delimited.rows(reader, skip)?, extent))
        }
        Format::Ndjson => {
            let (reader, extent) = source::text(path)?;
            Ok((lines::rows(reader, skip)?, extent))
        }
    }
}

/// Bytes that are to be shown: as text where they are, cut where they are many.
fn shown(bytes: &[u8]) -> Value {
    const SHOWN: usize = 4_096;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
    Value::String(if bytes.len() > SHOWN { text + ".." } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_format_compressed_or_not() {
        for (name, format) in [
            ("a.csv", Format::Csv),
            ("a.CSV.gz", Format::Csv),
            ("a.b.tsv", Format::Csv),
            ("a.jsonl.zst", Format::Ndjson),
            ("x/a.parquet", Format::Parquet),
        ] {
            assert_eq!(Format::of(Path::new(name)).unwrap(), format, "{name}");
        }
        assert!(Format::of(Path::new("events")).unwrap_err().to_string().contains("--format"));
        assert!(Format::of(Path::new("events.gz")).is_err());
    }
}
