use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use rapport_runtime::parse_duration;

use crate::config::between;

/// What only the HTTP doors ask for.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP doors")]
pub struct HttpArgs {
    /// Proxies whose X-Forwarded-For is believed, as addresses or networks: "10.0.0.0/8,192.0.2.7".
    /// The address of browsers and phones is noted as far as their tenant's policy allows
    #[arg(long, env = "RAPPORT_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// A YAML file of webhooks that are served at /v1/hooks/<name> (see docs/collector.md)
    #[arg(long, env = "RAPPORT_HOOKS")]
    pub hooks: Option<PathBuf>,

    /// Largest body of POST /v1/bulk in bytes, as sent and again when unpacked; never more than half of
    /// --max-in-flight-bytes, since back-fills give way to live events
    #[arg(long, env = "RAPPORT_MAX_BULK_BYTES", default_value_t = 32 << 20, value_parser = between::<1024, { 256 << 20 }>)]
    pub max_bulk_bytes: usize,

    /// Most lines of one body of POST /v1/bulk
    #[arg(long, env = "RAPPORT_MAX_BULK_LINES", default_value_t = 50_000, value_parser = between::<1, 1_000_000>)]
    pub max_bulk_lines: usize,

    /// A body of POST /v1/bulk must have arrived within this time
    #[arg(long, env = "RAPPORT_BULK_TIMEOUT", default_value = "2m", value_parser = parse_duration)]
    pub bulk_timeout: Duration,
}

/// A network, or an address, which is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("must be an address or a network, for example 192.0.2.7 or 10.0.0.0/8, is {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        assert_eq!(network(" 10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(network("proxy.example").unwrap_err().contains("for example"));
    }
}
