//! What a log holds: records of one Kafka topic, each by its position.

use bytes::Bytes;
use object_store::path::Path;
use rapport_events::{LoggedEvent, Position, Tenant};

use crate::{Error, columns};

/// A Parquet file in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    pub bytes: Vec<u8>,
    /// Rows of the file; a record may have several.
    pub rows: usize,
}

/// A record of a log: where it stands on its topic, which file it belongs to, and how it becomes rows.
pub trait Record: Send + Sync + Sized {
    /// The folder of the files.
    const FILES: &'static str;
    /// The folder of the manifests.
    const MANIFESTS: &'static str;
    /// The folder of what compaction has put in the place of the oldest ones.
    const COMPACTED: &'static str;

    fn position(&self) -> Position;
    fn tenant(&self) -> &Tenant;
    /// `YYYY-MM-DD`.
    fn day(&self) -> String;

    /// Packs records, ascending by position, into one file.
    ///
    /// # Errors
    /// A bug, or no memory.
    fn pack(records: &[&Self]) -> Result<Packed, Error>;

    /// Unpacks a file, appending to `records`. Returns how many rows it had.
    ///
    /// # Errors
    /// The file is not what [`Self::pack`] writes.
    fn unpack(path: &Path, bytes: Bytes, records: &mut Vec<Self>) -> Result<usize, Error>;
}

impl Record for LoggedEvent {
    const FILES: &'static str = "events";
    const MANIFESTS: &'static str = "_log";
    const COMPACTED: &'static str = "_compacted";

    fn position(&self) -> Position {
        self.position
    }

    fn tenant(&self) -> &Tenant {
        &self.event.tenant
    }

    fn day(&self) -> String {
        self.event.time.day()
    }

    fn pack(events: &[&Self]) -> Result<Packed, Error> {
        Ok(Packed { bytes: columns::pack(events)?, rows: events.len() })
    }

    fn unpack(path: &Path, bytes: Bytes, events: &mut Vec<Self>) -> Result<usize, Error> {
        columns::unpack(path, bytes, events)
    }
}
