//! Kafka: client settings, topics, headers, an acknowledging producer, contiguous watermarks.
