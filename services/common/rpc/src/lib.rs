//! gRPC: servers with health, reflection and limits, clients with deadlines, one mapping of errors to statuses.
