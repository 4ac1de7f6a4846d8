//! Events of a body exactly as they came, byte for byte: what a dead letter keeps. Only bad bodies
//! need it, so it reads the body again instead of keeping a copy of every event.

use serde::de::IgnoredAny;

/// The elements of the list in an object's field `name` (the last of that name, as JSON readers
/// take it); empty when the body is not of that form.
pub(crate) fn of_list<'a>(body: &'a [u8], name: &str) -> Vec<&'a [u8]> {
    field(body, name).map(elements).unwrap_or_default()
}

/// The elements of a list; those up to the first that cannot be read.
pub(crate) fn elements(list: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let Some(mut rest) = after(list, b'[') else { return found };
    while let Some((element, next)) = value(rest) {
        found.push(element);
        match after(next, b',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    found
}

/// The bytes of a field's value in an object.
pub(crate) fn field<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    let mut rest = after(object, b'{')?;
    while let Some((key, next)) = value(rest) {
        let (content, next) = value(after(next, b':')?)?;
        if serde_json::from_slice::<String>(key).is_ok_and(|key| key == name) {
            found = Some(content);
        }
        match after(next, b',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    found
}

/// An object with one more field at its front, so that a field of that name in the object itself
/// still counts (the last one does). What is no object comes back as it was.
pub(crate) fn with_field(object: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let Some(rest) = after(object, b'{') else { return object.to_vec() };
    let comma: &[u8] = if after(rest, b'}').is_some() { b"" } else { b"," };
    [b"{\"", name.as_bytes(), b"\":", value, comma, rest].concat()
}

/// What stands at the given places, copied; empty where nothing stands.
pub(crate) fn at(places: &[usize], all: &[&[u8]]) -> Vec<Vec<u8>> {
    places.iter().map(|place| all.get(*place).map(|original| original.to_vec()).unwrap_or_default()).collect()
}

/// The first value and what follows it.
fn value(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let json = json.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    json.split_at_checked(values.byte_offset())
}

/// What follows a byte, when that comes next.
fn after(json: &[u8], byte: u8) -> Option<&[u8]> {
    json.trim_ascii_start().strip_prefix(&[byte])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;

    #[test]
    fn an_original_keeps_its_white_space_and_every_digit() {
        let body = br#" { "x" : [1], "batch" : [ {"n": 1.10,  "b":1e2} , 17, "a,]" ], "sentAt": "t" } "#;
        let all = of_list(body, "batch");
        assert_eq!(all, [&br#"{"n": 1.10,  "b":1e2}"#[..], b"17", br#""a,]""#]);
        assert_eq!(at(&[2, 9], &all), [br#""a,]""#.to_vec(), Vec::new()]);
        assert_eq!(field(body, "sentAt"), Some(&br#""t""#[..]));
        assert_eq!(of_list(b"[1, 2]", "batch"), Vec::<&[u8]>::new());
    }

    #[test]
    fn a_field_of_the_envelope_never_wins_over_the_events_own() {
        let with = with_field(br#" {"sentAt": 2}"#, "sentAt", b"1");
        assert_eq!(serde_json::from_slice::<Json>(&with).unwrap(), serde_json::json!({"sentAt": 2}));
        assert_eq!(with_field(b"{ }", "a", b"1"), br#"{"a":1 }"#.to_vec());
        assert_eq!(with_field(b"17", "a", b"1"), b"17".to_vec());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>, text in "[\\[\\]{}\",:0-9a ]{0,40}") {
            for body in [body.as_slice(), text.as_bytes()] {
                prop_assert!(of_list(body, "a").len() <= body.len());
                prop_assert!(with_field(body, "a", b"1").len() >= body.len().min(body.trim_ascii_start().len()));
            }
        }
    }
}
