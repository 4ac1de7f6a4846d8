use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// The address of a service cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{uri:?} is not an address like http://host:port: {source}")]
pub struct ConnectError {
    pub uri: String,
    source: tonic::transport::Error,
}

/// A channel that connects when it is first used and again when the connection breaks. Every call
/// ends within `timeout`.
///
/// # Errors
/// The URI cannot be parsed.
pub fn connect(uri: &str, timeout: Duration) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(uri.to_owned())
        .map_err(|source| ConnectError { uri: uri.to_owned(), source })?
        .connect_timeout(Duration::from_secs(3))
        .timeout(timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}
