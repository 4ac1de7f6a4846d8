//! The online store: how customers, items and trends are packed in Redis, read and written.
