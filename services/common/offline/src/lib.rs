//! The offline logs: Parquet files by day on an object store, each record once. One holds the clean
//! events, the other the lists that were served.
//!
//! ```text
//! <root>/events/tenant=<tenant>/day=<YYYY-MM-DD of the event>/p<partition>-<first>-<last>.parquet
//! <root>/_log/p<partition>/<first offset, 20 digits>.json
//! <root>/served/tenant=<tenant>/day=<YYYY-MM-DD it was served>/p<partition>-<first>-<last>.parquet
//! <root>/_served/p<partition>/<first offset, 20 digits>.json
//! <root>/_compacted/, _served_compacted/    what has taken the place of the oldest manifests
//! <root>/_views/, _statistics/<tenant>/     views that were applied; references that drift is measured against
//! ```
//!
//! A flush writes its files first and then one manifest, which is created only if nobody created it
//! before: it covers the offsets `first..=last` of one partition of its topic and names the
//! files. The next manifest begins at `last + 1`. What no manifest names was never committed, and
//! is not read; a consumer that takes a partition over goes on after the last manifest. So every
//! record stands in the log once, whoever crashes when.
//!
//! Compaction merges small files and puts one manifest in the place of many, in versions of which the
//! newest holds; the replaced files stay for a while, for those who are reading them.
//!
//! The store is a folder or a bucket that speaks S3: all that is asked of it is that a file can be
//! created only if it is not there (`If-None-Match: *`).
//!
//! DuckDB, Spark and Polars read the files as they are (`hive_partitioning = true`).
//!
//! Everything here blocks: call it from threads that may.

mod columns;
mod compact;
mod compacted;
mod error;
mod generations;
mod location;
mod manifest;
mod place;
mod reader;
mod record;
mod references;
mod served;
mod store;
mod writer;

pub use compact::{Compaction, CompactionSettings};
pub use error::Error;
pub use generations::Generation;
pub use location::Location;
pub use manifest::{Manifest, ManifestFile};
pub use place::{Newer, Place};
pub use reader::Selection;
pub use record::{Packed, Record};
pub use served::{ServedItem, ServedList};
pub use store::{OfflineArgs, OfflineLog};
pub use writer::{LogWriter, WriterSettings};
