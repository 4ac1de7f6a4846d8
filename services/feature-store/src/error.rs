/// Why the feature store could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Online(#[from] rapport_online::Error),
    #[error(transparent)]
    Offline(#[from] rapport_offline::Error),
    #[error(transparent)]
    Kafka(#[from] rapport_kafka::Error),
    #[error("kafka: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    #[error(transparent)]
    Serve(#[from] rapport_rpc::ServeError),
    #[error("http server: {0}")]
    Http(std::io::Error),
    #[error("{0}")]
    Config(String),
    /// A view file that is wrong.
    #[error(transparent)]
    Declared(rapport_features::Error),
    #[error("generation {generation} of the views: {reason}")]
    Generation { generation: u32, reason: String },
    #[error("generation {generation} of the views is being filled; one at a time")]
    Filling { generation: u32 },
    /// Views that cannot take the place of others in a running stream.
    #[error("{reason}")]
    NotFilled { reason: String },
    #[error("the operating system gives no thread: {0}")]
    Thread(std::io::Error),
}
