//! The cleaner: raw events in, clean events or dead letters out, each exactly once.
