//! The offline log: Parquet files by day on an object store, each event once.
