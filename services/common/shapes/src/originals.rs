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

/// An object with one more field, unless it has that one and it says something. What is no object
/// comes back as it was.
pub(crate) fn with_default(object: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let says_something =
        |own: &[u8]| own != b"null" && !serde_json::from_slice::<String>(own).is_ok_and(|text| text.trim().is_empty());
    let own = field(object, name);
    let Some(rest) = after(object, b'{').filter(|_| !own.is_some_and(says_something)) else { return object.to_vec() };
    let pair = [b"\"", name.as_bytes(), b"\":", value].concat();
    if own.is_none() {
        let comma: &[u8] = if after(rest, b'}').is_some() { b"" } else { b"," };
        return [b"{", pair.as_slice(), comma, rest].concat();
    }
    // Of two fields of one name the last counts.
    match object.trim_ascii_end().strip_suffix(b"}") {
        Some(open) => [open, b",", &pair, b"}"].concat(),
        None => object.to_vec(),
    }
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
    fn a_field_of_the_envelope_stands_in_for_one_that_says_nothing() {
        let with = |object: &str| -> Json {
            serde_json::from_slice(&with_default(object.as_bytes(), "sentAt", b"1")).unwrap()
        };
        assert_eq!(with(r#" {"sentAt": 2}"#), serde_json::json!({"sentAt": 2}));
        for blank in [r#"{"sentAt": null}"#, r#"{"sentAt": " "} "#, "{ }"] {
            assert_eq!(with(blank), serde_json::json!({"sentAt": 1}), "{blank}");
        }
        assert_eq!(with(r#"{"a": 0}"#), serde_json::json!({"a": 0, "sentAt": 1}));
        assert_eq!(with("17"), 17);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>, text in "[\\[\\]{}\",:0-9a ]{0,40}") {
            for body in [body.as_slice(), text.as_bytes()] {
                prop_assert!(of_list(body, "a").len() <= body.len());
                prop_assert!(with_default(body, "a", b"1").len() >= body.trim_ascii().len());
            }
        }
    }
}
