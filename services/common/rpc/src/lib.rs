//! gRPC as every service speaks it: servers with health, reflection, limits and traces; clients
//! with deadlines; one mapping of errors to statuses. And the listener of those that speak HTTP too.

mod bounded;
mod client;
pub mod incoming;
mod leftover;
mod server;
pub mod status;
pub mod tls;
pub mod trace;

use std::time::Duration;

use rapport_events::Tenant;
use tonic::{Status, metadata::MetadataMap};

pub use bounded::{BoundedListener, Connection};
pub use client::{ConnectError, connect};
pub use incoming::Incoming;
pub use leftover::read_to_the_end;
pub use server::{ServeError, serve};
pub use tls::{Tls, TlsArgs, TlsError};

/// The metadata that names the tenant of a read.
pub const TENANT_METADATA: &str = "x-rapport-tenant";

/// Limits of a gRPC server, the same for every service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "gRPC limits")]
pub struct ServerArgs {
    /// Largest request in bytes
    #[arg(long, env = "RAPPORT_MAX_REQUEST_BYTES", default_value_t = 4 << 20)]
    pub max_request_bytes: usize,

    /// Requests that are worked on at once on one connection; further ones wait
    #[arg(long, env = "RAPPORT_MAX_CONCURRENT_REQUESTS", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_concurrent_requests: u32,

    /// A unary request may take this long, whatever deadline its caller set; streams may take longer
    #[arg(long, env = "RAPPORT_REQUEST_TIMEOUT", default_value = "30s", value_parser = rapport_runtime::parse_duration)]
    pub request_timeout: Duration,

    /// Connections older than this are asked to reconnect, so that new instances get their share
    #[arg(long, env = "RAPPORT_MAX_CONNECTION_AGE", default_value = "30m", value_parser = rapport_runtime::parse_duration)]
    pub max_connection_age: Duration,

    #[command(flatten)]
    pub tls: TlsArgs,
}

/// The tenant of a read: the metadata `x-rapport-tenant`, or the service's default.
///
/// # Errors
/// INVALID_ARGUMENT when the metadata is not a tenant's name.
pub fn tenant_of(metadata: &MetadataMap, default: &Tenant) -> Result<Tenant, Status> {
    match metadata.get(TENANT_METADATA) {
        None => Ok(default.clone()),
        Some(value) => {
            let name = value.to_str().map_err(|_| status::invalid(TENANT_METADATA, "is not text"))?;
            Tenant::parse(name).map_err(|e| status::invalid(TENANT_METADATA, e.reason))
        }
    }
}

/// The caller's own deadline (`grpc-timeout`), if it set one that can be read.
pub fn deadline_of(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount.checked_mul(3600)?),
        "M" => Duration::from_secs(amount.checked_mul(60)?),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_deadline_is_read_in_every_unit() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline_of(&metadata)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        for bad in ["", "S", "12", "-1S", "999999999S", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tenant_comes_from_metadata_or_is_the_default() {
        let demo = Tenant::parse("demo").unwrap();
        let mut metadata = MetadataMap::new();
        assert_eq!(tenant_of(&metadata, &demo).unwrap(), demo);
        metadata.insert(TENANT_METADATA, "acme".parse().unwrap());
        assert_eq!(tenant_of(&metadata, &demo).unwrap().as_str(), "acme");
        metadata.insert(TENANT_METADATA, "No/pe".parse().unwrap());
        assert_eq!(tenant_of(&metadata, &demo).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
