use std::{io, net::SocketAddr};

/// Why the scorer cannot start or go on. What goes wrong with one call is never here: that is
/// degraded, or a status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] rapport_kafka::Error),
    #[error(transparent)]
    Inference(#[from] rapport_inference::Error),
    #[error(transparent)]
    Serve(#[from] rapport_rpc::ServeError),
    #[error(transparent)]
    Online(#[from] rapport_online::Error),
    #[error("{addr} cannot be opened for HTTP: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("http server: {0}")]
    Http(#[source] io::Error),
    #[error("the operating system gives no thread: {0}")]
    Thread(#[source] io::Error),
    #[error("{0}")]
    Config(String),
}
