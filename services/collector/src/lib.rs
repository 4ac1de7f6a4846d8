//! The collector: the mesh's front door. It answers success only when Kafka has the event.
