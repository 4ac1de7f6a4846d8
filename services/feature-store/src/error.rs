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
    #[error("the operating system gives no thread: {0}")]
    Thread(std::io::Error),
}
