use rdkafka::{
    Message,
    message::{Header, Headers, OwnedHeaders},
};

/// A record that stands on its own, away from Kafka's queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedRecord {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl OwnedRecord {
    pub fn new(topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, headers: &OwnedHeaders) -> Self {
        let owned = |bytes: &[u8]| bytes.to_vec();
        Self { topic: topic.to_owned(), key: key.map(owned), value: value.map(owned), headers: list(headers) }
    }

    /// A copy of a message.
    pub fn of(message: &impl Message) -> Self {
        let headers = message.headers();
        Self {
            topic: message.topic().to_owned(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(list).unwrap_or_default(),
        }
    }

    /// The headers as rdkafka takes them.
    pub fn rdkafka_headers(&self) -> OwnedHeaders {
        let all = OwnedHeaders::new_with_capacity(self.headers.len());
        self.headers.iter().fold(all, |all, (key, value)| all.insert(Header { key, value: value.as_deref() }))
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let size = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + size(value) + 64).sum();
        self.topic.len() + size(&self.key) + size(&self.value) + headers + 128
    }
}

/// Headers, one by one.
fn list(headers: &impl Headers) -> Vec<(String, Option<Vec<u8>>)> {
    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
}
