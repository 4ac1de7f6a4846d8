//! What Redis holds, as it came off the wire: decoded only as far as somebody asks.

use std::sync::Arc;

use rapport_events::{EventTime, Position};
use rapport_features::{CustomerState, History, State, Vector, Views, item_hash};
use redis::Value;

use crate::{Error, Marker};

/// A fence as text: `partition:offset`.
pub(crate) fn fence_text(position: Position) -> String {
    format!("{}:{}", position.partition, position.offset)
}

/// Reads a fence. `None` when it is not one.
pub fn parse_fence(text: &[u8]) -> Option<Position> {
    let (partition, offset) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}

/// A customer as stored. The version, the newest time and the seen set answer without decoding
/// features or history.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCustomer {
    key: String,
    /// The last event that this state holds.
    pub fence: Position,
    /// How many events have been applied.
    pub version: u64,
    /// The time of the newest event.
    pub newest: Option<EventTime>,
    seen: Vec<u8>,
    features: Option<Vec<u8>>,
    history: Option<Vec<u8>>,
    segment: Option<Vec<u8>>,
    /// Which views it is whole by, for who writes it.
    pub marker: Option<Marker>,
}

/// The field of a customer's marker.
pub(crate) const MARKER: &str = "w";

fn marker_of(key: &str, field: Option<Vec<u8>>) -> Result<Option<Marker>, Error> {
    let parse = |text: Vec<u8>| Marker::parse(&text).ok_or_else(|| corrupt(key, "its marker is none"));
    field.map(parse).transpose()
}

fn corrupt(key: &str, reason: impl ToString) -> Error {
    Error::Corrupt { key: key.to_owned(), reason: reason.to_string() }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// The answer to an HMGET or a HGETALL.
pub(crate) fn values(key: &str, answer: Value) -> Result<Vec<Value>, Error> {
    match answer {
        Value::Array(values) => Ok(values),
        Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
        Value::Nil => Ok(Vec::new()),
        Value::ServerError(error) => Err(Error::Redis(error.into())),
        other => Err(corrupt(key, format!("unexpected answer {other:?}"))),
    }
}

impl StoredCustomer {
    /// What a reader needs.
    pub(crate) const FIELDS: [&'static str; 7] = ["o", "v", "t", "x", "f", "h", "g"];
    /// What a reader of features needs: a field that no customer has stands for the seen items, which are as many
    /// bytes again, and the history is not asked for.
    pub(crate) const FEATURE_FIELDS: [&'static str; 5] = ["o", "v", "t", "-", "f"];
    /// What a writer needs.
    pub(crate) const ALL_FIELDS: [&'static str; 8] = ["o", "v", "t", "x", "f", "h", "g", MARKER];

    /// From the answer to `HMGET key` with [`Self::FIELDS`] or [`Self::ALL_FIELDS`].
    pub(crate) fn from_answer(key: String, answer: Value) -> Result<Option<Self>, Error> {
        let mut fields = values(&key, answer)?.into_iter().map(bytes);
        let mut next = || fields.next().flatten();
        let Some(fence) = next() else { return Ok(None) };
        let fence = parse_fence(&fence).ok_or_else(|| corrupt(&key, "field o is not partition:offset"))?;
        let number = |field: &str, text: Option<Vec<u8>>| {
            let text = text.and_then(|t| String::from_utf8(t).ok());
            text.and_then(|t| t.parse::<i64>().ok()).ok_or_else(|| corrupt(&key, format!("field {field} is no number")))
        };
        let version = number("v", next())?;
        let newest = number("t", next())?;
        let seen = next().unwrap_or_default();
        if seen.len() % 8 != 0 {
            return Err(corrupt(&key, "field x ends in the middle of a hash"));
        }
        let (features, history, segment, marker) = (next(), next(), next(), next());
        Ok(Some(Self {
            marker: marker_of(&key, marker)?,
            fence,
            version: u64::try_from(version).map_err(|_| corrupt(&key, "field v is negative"))?,
            newest: (newest != i64::MIN).then(|| EventTime::from_ms(newest)),
            seen,
            features,
            history,
            segment,
            key,
        }))
    }

    /// What a state is stored as.
    pub(crate) fn fields_of(state: &CustomerState) -> Vec<(&'static str, Vec<u8>)> {
        let mut fields = vec![
            ("v", state.version().to_string().into_bytes()),
            ("t", state.newest().map_or(i64::MIN, EventTime::as_ms).to_string().into_bytes()),
            ("x", state.seen_to_bytes()),
            ("f", state.features_to_bytes()),
            ("h", state.history().to_bytes()),
        ];
        fields.extend(state.segment_to_bytes().map(|segment| ("g", segment)));
        fields
    }

    /// The customer's segment, of a record that was read with everything.
    pub fn segment(&self) -> Option<&str> {
        let name = std::str::from_utf8(self.segment.as_deref()?).ok()?;
        Some(name).filter(|name| !name.is_empty())
    }

    /// Whether the customer has the item: a binary search in the stored bytes.
    pub fn has_seen(&self, item_id: &str) -> bool {
        self.has_seen_hash(item_hash(item_id))
    }

    /// As [`Self::has_seen`], for a caller that keeps the items' hashes ([`item_hash`]).
    pub fn has_seen_hash(&self, hash: u64) -> bool {
        let (hashes, _) = self.seen.as_chunks::<8>();
        hashes.binary_search_by_key(&hash, |bytes| u64::from_le_bytes(*bytes)).is_ok()
    }

    /// How many items the customer has.
    pub fn seen_len(&self) -> usize {
        self.seen.len() / 8
    }

    fn part<'a>(&self, name: &str, part: &'a Option<Vec<u8>>) -> Result<&'a [u8], Error> {
        part.as_deref().ok_or_else(|| corrupt(&self.key, format!("field {name} was not read or is missing")))
    }

    /// The newest interactions, oldest first.
    ///
    /// # Errors
    /// Corrupt bytes, or a record that was read without its history.
    pub fn history(&self) -> Result<History, Error> {
        History::from_bytes(self.part("h", &self.history)?).map_err(|e| corrupt(&self.key, e))
    }

    /// The features alone: a state without history and seen items, to read from and not to fold into.
    ///
    /// # Errors
    /// Corrupt bytes, or a record that was read without its features.
    pub fn features(&self, views: &Arc<Views>) -> Result<CustomerState, Error> {
        let nothing = History::default().to_bytes();
        CustomerState::from_parts(views, self.part("f", &self.features)?, &nothing, &[])
            .map_err(|e| corrupt(&self.key, e))
    }

    /// The customer's own features at a moment, as [`Self::features`] has them, without making a state.
    ///
    /// # Errors
    /// Corrupt bytes, or a record that was read without its features.
    pub fn vector(&self, views: &Views, at: EventTime) -> Result<Vector, Error> {
        Vector::of_customer(views, self.part("f", &self.features)?, at).map_err(|e| corrupt(&self.key, e))
    }

    /// Everything, to read features from or to go on folding.
    ///
    /// # Errors
    /// Corrupt bytes, or a record that was read without its features.
    pub fn state(&self, views: &Arc<Views>) -> Result<CustomerState, Error> {
        let (features, history) = (self.part("f", &self.features)?, self.part("h", &self.history)?);
        let state =
            CustomerState::from_parts(views, features, history, &self.seen).map_err(|e| corrupt(&self.key, e))?;
        Ok(state.in_segment(self.segment.as_deref()))
    }
}

/// What one source partition has of an item, of a segment or of a trend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPartial {
    pub fence: Position,
    pub bytes: Vec<u8>,
    pub marker: Option<Marker>,
}

/// How far a stored state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub fence: Position,
    pub marker: Option<Marker>,
}

impl Standing {
    /// From the answer to `HMGET key <fence> <marker>`.
    pub(crate) fn from_answer(key: &str, answer: Value) -> Result<Option<Self>, Error> {
        let mut fields = values(key, answer)?.into_iter().map(bytes);
        let Some(fence) = fields.next().flatten() else { return Ok(None) };
        let fence = parse_fence(&fence).ok_or_else(|| corrupt(key, "its fence is not partition:offset"))?;
        Ok(Some(Self { fence, marker: marker_of(key, fields.next().flatten())? }))
    }
}

impl StoredPartial {
    /// From the answer to `HMGET key o<partition> s<partition> w<partition>`.
    pub(crate) fn from_answer(key: &str, answer: Value) -> Result<Option<Self>, Error> {
        let mut fields = values(key, answer)?.into_iter().map(bytes);
        match (fields.next().flatten(), fields.next().flatten(), fields.next().flatten()) {
            (Some(fence), Some(bytes), marker) => {
                let fence = parse_fence(&fence).ok_or_else(|| corrupt(key, "its fence is not partition:offset"))?;
                Ok(Some(Self { fence, bytes, marker: marker_of(key, marker)? }))
            }
            _ => Ok(None),
        }
    }

    /// The fences and states of all partitions, ascending by partition, from the answer to `HGETALL key`.
    pub(crate) fn all_from_answer(key: &str, answer: Value) -> Result<Vec<(Position, Vec<u8>)>, Error> {
        let fields: Vec<Option<Vec<u8>>> = values(key, answer)?.into_iter().map(bytes).collect();
        let mut partials = Vec::with_capacity(fields.len() / 4);
        let mut fences = Vec::with_capacity(fields.len() / 4);
        for pair in fields.chunks_exact(2) {
            let [Some(name), Some(bytes)] = pair else { continue };
            if let Some(partition) = name.strip_prefix(b"s") {
                let partition = std::str::from_utf8(partition).ok().and_then(|p| p.parse::<i32>().ok());
                partials.push((partition.ok_or_else(|| corrupt(key, "a field names no partition"))?, bytes.clone()));
            } else if name.starts_with(b"o") {
                fences.push(parse_fence(bytes).ok_or_else(|| corrupt(key, "a fence is not partition:offset"))?);
            }
        }
        partials.sort_unstable_by_key(|(partition, _)| *partition);
        let with_fence = |(partition, bytes)| {
            let fence = fences.iter().find(|fence| fence.partition == partition).copied();
            Ok((fence.ok_or_else(|| corrupt(key, format!("partition {partition} has no fence")))?, bytes))
        };
        partials.into_iter().map(with_fence).collect()
    }
}

/// An item as it is read: the sum of what its source partitions have of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredShared {
    pub state: State,
    /// The last event that each partition's part of it holds, ascending by partition.
    pub fences: Vec<Position>,
}

/// A partition's fields of an item or a trend: fence, state and marker.
pub(crate) fn partial_fields(partition: i32) -> [String; 3] {
    ["o", "s", MARKER].map(|field| format!("{field}{partition}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::{CleanEvent, Tenant};
    use rapport_features::Entity;

    use super::*;

    fn stored(state: &CustomerState) -> Value {
        let fields = StoredCustomer::fields_of(state);
        let mut values = vec![Value::BulkString(b"3:41".to_vec())];
        values.extend(fields.into_iter().map(|(_, bytes)| Value::BulkString(bytes)));
        Value::Array(values)
    }

    #[test]
    fn a_customer_reads_back_and_answers_before_it_is_decoded() {
        let views = Arc::new(Views::built_in().unwrap());
        let mut state = CustomerState::new(&views);
        for n in 0..300i64 {
            state.apply(&CleanEvent {
                tenant: Tenant::parse("demo").unwrap(),
                event_id: n.to_string(),
                kind: "rating".into(),
                customer_id: "ann".into(),
                item_id: Some(format!("m{n}")),
                category: Some("Comedy".into()),
                session_id: None,
                segment: (n > 100).then(|| "pro".to_owned()),
                time: EventTime::from_ms(n * 1000),
                received_at: EventTime::from_ms(0),
                value: Some(4.0),
            });
        }
        let read = StoredCustomer::from_answer("k".into(), stored(&state)).unwrap().unwrap();
        assert_eq!((read.version, read.newest), (300, Some(EventTime::from_ms(299_000))));
        assert_eq!(read.fence, Position { partition: 3, offset: 41 });
        assert!(read.has_seen("m0") && read.has_seen("m299") && !read.has_seen("m300"));
        assert_eq!(read.state(&views).unwrap(), state);
        assert_eq!(read.history().unwrap().len(), 200);
        assert_eq!((read.segment(), read.state(&views).unwrap().segment()), (Some("pro"), Some("pro")));

        // Read for its features alone, it says the same of them and nothing of the rest.
        let Value::Array(mut fields) = stored(&state) else { panic!("a list of fields") };
        fields.truncate(StoredCustomer::FEATURE_FIELDS.len());
        fields[3] = Value::Nil;
        let features = StoredCustomer::from_answer("k".into(), Value::Array(fields)).unwrap().unwrap();
        let (now, read) = (EventTime::from_ms(400_000), features.features(&views).unwrap());
        let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(read.read(now)), bits(state.read(now)));
        assert_eq!(bits(features.vector(&views, now).unwrap().values), bits(state.read(now)));
        let comedy = |state: &CustomerState| bits(state.read_part(Entity::CustomerCategory, "Comedy", now));
        assert_eq!(comedy(&read), comedy(&state));
        assert_eq!((read.version(), read.newest()), (state.version(), state.newest()));
        assert!(features.history().is_err() && features.state(&views).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_of_redis_makes_the_reader_panic(
            fields in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..24)), 0..8),
        ) {
            let views = Arc::new(Views::built_in().unwrap());
            let values = fields.into_iter().map(|f| f.map_or(Value::Nil, Value::BulkString)).collect();
            if let Ok(Some(customer)) = StoredCustomer::from_answer("k".into(), Value::Array(values)) {
                customer.state(&views).ok();
                customer.has_seen("a");
            }
        }
    }
}
