//! The headers of a replayed record.

use rapport_events::{EventTime, Position};
use rapport_kafka::headers;
use rapport_proto::events::DeadLetter;
use rdkafka::message::{Header, OwnedHeaders};

use super::REPLAY_OF;
use crate::account::place_text;

/// The original's headers, without the mark of an earlier replay, and with this one's. A record of
/// a plain producer says nowhere when it came: the letter's own stamp keeps that, so that an event
/// without a time of its own does not move to the day of its replay.
pub fn headers_of(at: Position, letter: &DeadLetter) -> OwnedHeaders {
    let is = |name: &str, wanted: &str| name.eq_ignore_ascii_case(wanted);
    let mut out = OwnedHeaders::new_with_capacity(letter.original_headers.len() + 2);
    for header in letter.original_headers.iter().filter(|header| !is(&header.name, REPLAY_OF)) {
        out = out.insert(Header { key: &header.name, value: header.value.as_deref() });
    }
    if !letter.original_headers.iter().any(|header| is(&header.name, headers::RECEIVED_AT))
        && let Some(failed_at) = letter.failed_at.as_ref().and_then(EventTime::from_proto)
    {
        out = headers::with(out, headers::RECEIVED_AT, failed_at.as_ms().to_string());
    }
    headers::with(out, REPLAY_OF, place_text(at))
}

#[cfg(test)]
mod tests {
    use rapport_proto::events::Header as Original;
    use rdkafka::message::Headers as _;

    use super::*;

    fn texts(headers: &OwnedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    }

    #[test]
    fn headers_are_sent_as_they_were_with_the_mark_of_this_replay_only() {
        let header = |name: &str, value: Option<&str>| Original {
            name: name.into(),
            value: value.map(|text| text.as_bytes().to_vec()),
        };
        let letter = DeadLetter {
            original_headers: vec![
                header("content-type", Some("x")),
                header("empty", None),
                header("Rapport-Replay-Of", Some("0:1")),
                header("rapport-received-at", Some("17")),
            ],
            failed_at: Some(EventTime::from_ms(5_000).to_proto()),
            ..DeadLetter::default()
        };
        let sent = texts(&headers_of(Position { partition: 2, offset: 9 }, &letter));
        let wanted = [
            ("content-type", Some("x")),
            ("empty", None),
            ("rapport-received-at", Some("17")),
            ("rapport-replay-of", Some("2:9")),
        ];
        assert_eq!(sent, wanted.map(|(name, value)| (name.to_owned(), value.map(|text| text.as_bytes().to_vec()))));
    }

    #[test]
    fn a_plain_producers_record_keeps_the_moment_that_it_came() {
        let letter = DeadLetter { failed_at: Some(EventTime::from_ms(5_000).to_proto()), ..DeadLetter::default() };
        let sent = texts(&headers_of(Position { partition: 0, offset: 0 }, &letter));
        assert!(sent.contains(&("rapport-received-at".to_owned(), Some(b"5000".to_vec()))), "{sent:?}");
    }
}
