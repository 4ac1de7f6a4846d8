//! The feature store: clean events folded into Redis for serving and kept in Parquet for training.
