use rdkafka::error::KafkaError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("configuration: {0}")]
    Config(String),
    #[error(transparent)]
    Kafka(#[from] rapport_kafka::Error),
    #[error("kafka: {0}")]
    Client(#[from] KafkaError),
    /// Redis does not answer: wait, the records stay where they are.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The event ids are read back into it, and the open transaction is done again.
    #[error("redis: it has lost the memory of event ids")]
    MemoryLost,
    #[error(transparent)]
    Policies(#[from] rapport_policy::WatchError),
    #[error(transparent)]
    Serve(#[from] rapport_rpc::ServeError),
    #[error("the operating system gives no thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Error {
    /// Whether the transaction can be given up and done again, rather than the process.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Redis(_) | Self::MemoryLost => true,
            Self::Client(KafkaError::Transaction(error)) => !error.is_fatal(),
            // Another cleaner has taken this one's name: it would get no partition ever again.
            Self::Client(KafkaError::MessageConsumptionFatal(_)) => false,
            Self::Client(error) => {
                error.rdkafka_error_code().is_none_or(|code| code != rdkafka::error::RDKafkaErrorCode::Fatal)
            }
            Self::Kafka(error) => error.retryable(),
            Self::Config(_) | Self::Policies(_) | Self::Serve(_) | Self::Thread(_) => false,
        }
    }
}
