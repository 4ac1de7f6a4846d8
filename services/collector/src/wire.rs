//! Events as the bytes that they came in. A gRPC event is judged without being decoded, and goes to
//! Kafka as it is: decoding it into structs and encoding them again would cost more than all the
//! rest of its way through the collector.
//!
//! The reader is as strict as prost's decoder, and stricter in three things that no encoder does:
//! groups are refused, so is a known field of the wrong wire type anywhere, and where a field stands
//! several times each of its values must keep the rules.

use prost_types::Timestamp;
use rapport_events::{FieldError, limits, new_event_id};

use crate::admit::View;

/// The tag of `event_id` as a length-delimited field.
const EVENT_ID_KEY: u8 = (1 << 3) | 2;

/// What a field of a message holds.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The bytes are not a message of the kind they should be.
#[derive(Debug)]
struct Broken(&'static str);

/// The fields of a message, one after another.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    const fn of(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn next(&mut self) -> Result<Option<(u32, Piece<'a>)>, Broken> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| Broken("a tag is out of range"))?;
        let tag = key >> 3;
        if tag == 0 {
            return Err(Broken("a tag is zero"));
        }
        let piece = match key & 7 {
            0 => Piece::Varint(self.varint()?),
            1 => Piece::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken("a length is out of range"))?;
                Piece::Bytes(self.take(length)?)
            }
            5 => self.fixed::<4>().map(|_| Piece::Fixed32)?,
            _ => return Err(Broken("a wire type is unknown or a group")),
        };
        Ok(Some((tag, piece)))
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for (n, byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds the last bit of 64.
            if n == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(n + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Broken("a varint is cut off or too long"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Broken("a number is cut off"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Broken("a field is cut off"))?;
        self.rest = rest;
        Ok(bytes)
    }
}

impl<'a> Piece<'a> {
    fn bytes(self) -> Result<&'a [u8], Broken> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32 => Err(Broken("is a number on the wire")),
        }
    }

    fn text(self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken("is not UTF-8"))
    }

    const fn varint(self) -> Result<u64, Broken> {
        match self {
            Self::Varint(number) => Ok(number),
            Self::Fixed64(_) | Self::Bytes(_) | Self::Fixed32 => Err(Broken("is not a varint on the wire")),
        }
    }

    const fn double(self) -> Result<f64, Broken> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Self::Varint(_) | Self::Bytes(_) | Self::Fixed32 => Err(Broken("is not a double on the wire")),
        }
    }
}

/// Reads what the rules look at. Nothing is copied.
///
/// # Errors
/// The bytes are not an event; names the field where they break.
pub fn read(event: &[u8]) -> Result<View<'_>, FieldError> {
    let mut view = View::default();
    let mut fields = Fields::of(event);
    loop {
        let (tag, piece) = match fields.next() {
            Ok(Some(field)) => field,
            Ok(None) => return Ok(view),
            Err(broken) => return Err(not_protobuf("event", &broken)),
        };
        let (name, read) = match tag {
            1 => ("event_id", piece.text().map(|text| view.event_id = text)),
            2 => ("type", piece.text().map(|text| view.kind = text)),
            3 => ("customer_id", piece.text().map(|text| view.customer_id = text)),
            4 => ("anonymous_id", piece.text().map(|text| view.anonymous_id = text)),
            5 => ("item_id", piece.text().map(|text| view.item_id = text)),
            6 => ("category", piece.text().map(|text| view.category = text)),
            7 => ("event_time", piece.bytes().and_then(|bytes| timestamp(&mut view.event_time, bytes))),
            8 => ("sent_at", piece.bytes().and_then(|bytes| timestamp(&mut view.sent_at, bytes))),
            9 => ("value", piece.double().map(|value| view.value = Some(value))),
            10 => ("currency", piece.text().map(|text| view.currency = text)),
            11 => ("properties", piece.bytes().and_then(|b| object(b, 1)).map(|deep| view.deep_properties |= deep)),
            12 => ("traits", piece.bytes().and_then(|b| object(b, 1)).map(|deep| view.deep_traits |= deep)),
            _ => continue,
        };
        read.map_err(|broken| not_protobuf(name, &broken))?;
    }
}

fn not_protobuf(field: &str, broken: &Broken) -> FieldError {
    FieldError::decode(field, format!("is not valid protobuf: {}", broken.0))
}

/// A Timestamp, merged into one that stood before it.
fn timestamp(time: &mut Option<Timestamp>, bytes: &[u8]) -> Result<(), Broken> {
    let time = time.get_or_insert_default();
    let mut fields = Fields::of(bytes);
    while let Some((tag, piece)) = fields.next()? {
        match tag {
            // Protobuf's int64 and int32: two's complement, cut to their width.
            1 => time.seconds = piece.varint()?.cast_signed(),
            2 => time.nanos = (piece.varint()? as u32).cast_signed(),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a Struct whose values stand `depth` deep; whether something stands deeper than the limit.
/// What is below the limit is not read: the event is refused anyway, and the recursion stays bounded.
fn object(bytes: &[u8], depth: usize) -> Result<bool, Broken> {
    let mut deep = false;
    let mut fields = Fields::of(bytes);
    while let Some((tag, piece)) = fields.next()? {
        if tag != 1 {
            continue;
        }
        let mut entry = Fields::of(piece.bytes()?);
        while let Some((tag, piece)) = entry.next()? {
            match tag {
                1 => piece.text().map(drop)?,
                2 => deep |= value(piece.bytes()?, depth)?,
                _ => {}
            }
        }
        // A key without a value holds null, which stands somewhere too.
        deep |= depth > limits::DEPTH;
    }
    Ok(deep)
}

fn value(bytes: &[u8], depth: usize) -> Result<bool, Broken> {
    if depth > limits::DEPTH {
        return Ok(true);
    }
    let mut deep = false;
    let mut fields = Fields::of(bytes);
    while let Some((tag, piece)) = fields.next()? {
        match tag {
            1 | 4 => piece.varint().map(drop)?,
            2 => piece.double().map(drop)?,
            3 => piece.text().map(drop)?,
            5 => deep |= object(piece.bytes()?, depth + 1)?,
            6 => {
                let mut values = Fields::of(piece.bytes()?);
                while let Some((tag, piece)) = values.next()? {
                    if tag == 1 {
                        deep |= value(piece.bytes()?, depth + 1)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(deep)
}

/// A new id, and the event with it: of a field that stands twice, the last one counts.
pub fn with_new_id(event: &[u8]) -> (String, Vec<u8>) {
    let event_id = new_event_id();
    let mut bytes = Vec::with_capacity(event.len() + event_id.len() + 2);
    bytes.extend_from_slice(event);
    bytes.push(EVENT_ID_KEY);
    // A UUID has 36 characters: its length is one byte.
    bytes.push(u8::try_from(event_id.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(event_id.as_bytes());
    (event_id, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_types::{ListValue, Struct, Value, value::Kind};
    use rapport_proto::events::Event;

    use super::*;
    use crate::admit;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Kind::NullValue(0)),
            any::<bool>().prop_map(Kind::BoolValue),
            any::<f64>().prop_map(Kind::NumberValue),
            "\\PC{0,8}".prop_map(Kind::StringValue),
        ]
        .prop_map(|kind| Value { kind: Some(kind) });
        leaf.prop_recursive(20, 60, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3)
                    .prop_map(|values| Value { kind: Some(Kind::ListValue(ListValue { values })) }),
                objects(inner).prop_map(|object| Value { kind: Some(Kind::StructValue(object)) }),
            ]
        })
    }

    fn objects(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Struct> {
        prop::collection::btree_map("\\PC{0,6}", value, 0..3).prop_map(|fields| Struct { fields })
    }

    prop_compose! {
        fn events()(
            texts in prop::collection::vec("\\PC{0,20}", 7),
            event_time in prop::option::of((any::<i64>(), any::<i32>())),
            sent_at in prop::option::of((any::<i64>(), any::<i32>())),
            value: Option<f64>,
            properties in prop::option::of(objects(values())),
            traits in prop::option::of(objects(values())),
        ) -> Event {
            let mut texts = texts.into_iter();
            let mut text = || texts.next().unwrap();
            let time = |(seconds, nanos)| Timestamp { seconds, nanos };
            Event {
                event_id: text(), r#type: text(), customer_id: text(), anonymous_id: text(), item_id: text(),
                category: text(), currency: text(), event_time: event_time.map(time), sent_at: sent_at.map(time),
                value: value.filter(|value| !value.is_nan()), properties, traits,
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_reads_the_same_from_its_bytes_as_decoded(event in events()) {
            let bytes = event.encode_to_vec();
            prop_assert_eq!(read(&bytes).unwrap(), View::from(&event));
            prop_assert_eq!(admit::view(&read(&bytes).unwrap()), admit::view(&View::from(&event)));
        }

        #[test]
        fn what_is_read_from_damaged_bytes_can_be_decoded_and_says_the_same(
            event in events(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(), more: Vec<u8>,
        ) {
            let mut bytes = event.encode_to_vec();
            for (at, byte) in damage {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes.extend(more);
            bytes.truncate(cut.index(bytes.len() * 4 + 1));
            match read(&bytes) {
                Err(error) => prop_assert!(!error.field.is_empty()),
                Ok(view) if admit::view(&view).is_ok() => {
                    let decoded = Event::decode(bytes.as_slice()).expect("what passed the door can be decoded");
                    prop_assert!(admit::view(&View::from(&decoded)).is_ok());
                    prop_assert_eq!(view, View::from(&decoded));
                }
                Ok(_) => {}
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if read(&bytes).is_ok_and(|view| !view.deep_properties && !view.deep_traits) {
                prop_assert!(Event::decode(bytes.as_slice()).is_ok());
            }
        }

        #[test]
        fn a_new_id_takes_the_place_of_an_empty_one(event in events()) {
            let event = Event { event_id: String::new(), ..event };
            let (event_id, bytes) = with_new_id(&event.encode_to_vec());
            let decoded = Event::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(decoded, Event { event_id, ..event });
        }
    }

    #[test]
    fn endless_nesting_is_seen_without_being_followed() {
        let mut bytes = vec![];
        for _ in 0..50_000 {
            // Value { struct_value { fields { value { .. } } } }
            for key in [0x12, 0x0a, 0x2a] {
                let mut outer = vec![key];
                prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
                if bytes.len() < 20_000 {
                    outer.extend_from_slice(&bytes);
                    bytes = outer;
                }
            }
        }
        let mut event = vec![(12 << 3) | 2];
        let mut traits = vec![0x0a];
        let mut entry = vec![0x12];
        prost::encoding::encode_varint(bytes.len() as u64, &mut entry);
        entry.extend_from_slice(&bytes);
        prost::encoding::encode_varint(entry.len() as u64, &mut traits);
        traits.extend_from_slice(&entry);
        prost::encoding::encode_varint(traits.len() as u64, &mut event);
        event.extend_from_slice(&traits);
        assert!(read(&event).unwrap().deep_traits);
    }

    #[test]
    fn broken_bytes_are_refused_with_the_field_where_they_break() {
        let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(refused(&[0x0a, 5, b'x']), "event: is not valid protobuf: a field is cut off");
        assert_eq!(refused(&[0x0a, 1, 0xff]), "event_id: is not valid protobuf: is not UTF-8");
        assert_eq!(refused(&[0x08, 1]), "event_id: is not valid protobuf: is a number on the wire");
        assert_eq!(refused(&[0xff; 12]), "event: is not valid protobuf: a varint is cut off or too long");
        assert_eq!(refused(&[0x5a, 2, 0x0a, 9]), "properties: is not valid protobuf: a field is cut off");
        assert!(read(&[0xf8, 0x07, 1]).is_ok(), "a field of a later version passes");
    }
}
