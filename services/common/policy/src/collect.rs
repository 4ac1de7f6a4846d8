use serde::Deserialize;

/// What the collector may write into `properties.context` of an event that comes without it. Only
/// an address or user agent that this section lets through ever reaches Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collect {
    pub client_ip: ClientIp,
    pub user_agent: UserAgent,
}

/// What becomes of the address that a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientIp {
    Keep,
    /// The network only: /24 of an IPv4 address, /48 of an IPv6 address.
    #[default]
    Truncate,
    Drop,
}

/// What becomes of the request's User-Agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserAgent {
    #[default]
    Keep,
    Drop,
}
