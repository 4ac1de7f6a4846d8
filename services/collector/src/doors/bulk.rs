//! Lines of JSON (NDJSON) for back-fills: large bodies, published in slices, with an account of every
//! line. Lines that are wrong are told, not kept: their sender has the file.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use rapport_shapes::{Malformed, Parsed, bulk};
use serde::Serialize;

use super::{
    House,
    shape::{Endpoint, Head, Limits, Shape, Slice, Wrong},
    take::{Account, BodyHash},
};
use crate::{error::Refusal, keys::Door, publish::Original};

const PATHS: [&str; 1] = ["/v1/bulk"];
/// Lines, and about as many bytes, that are read and sent to Kafka at once.
const SLICE_LINES: usize = 1_000;
const SLICE_BYTES: usize = 1 << 20;

pub fn endpoints(_: &House) -> Vec<Endpoint> {
    vec![Endpoint::new(&PATHS, Bulk)]
}

struct Bulk;

/// The answer: of every line of the body, what became of it.
#[derive(Serialize)]
struct Answer<'a> {
    accepted: usize,
    refused: usize,
    /// The first of them.
    errors: Vec<Line<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

#[derive(Serialize)]
struct Line<'a> {
    line: usize,
    field: &'a str,
    reason: &'a str,
}

impl<'a> Answer<'a> {
    fn of(account: &'a Account, refusal: Option<&Refusal>) -> Self {
        let errors = account.listed.iter();
        Self {
            accepted: account.accepted,
            refused: account.refused,
            errors: errors
                .map(|(line, error)| Line { line: *line, field: &error.field, reason: &error.reason })
                .collect(),
            code: refusal.map(Refusal::code),
            message: refusal.map(ToString::to_string),
            detail: refusal.map(Refusal::detail),
        }
    }
}

/// Takes lines apart. Blank ones count for nothing.
fn slices(body: &Bytes, most: usize) -> Result<Vec<Slice>, Malformed> {
    let begin_of = |line: &[u8]| line.as_ptr().addr() - body.as_ptr().addr();
    let (mut slices, mut lines, mut has) = (Vec::new(), Vec::new(), 0);
    let mut span = 0..0;
    for (number, line) in bulk::lines(body) {
        has += 1;
        if has > most {
            continue;
        }
        if lines.is_empty() {
            span.start = begin_of(line);
        }
        span.end = begin_of(line) + line.len();
        lines.push(number);
        if lines.len() == SLICE_LINES || span.len() >= SLICE_BYTES {
            slices.push(Slice { bytes: body.slice(span.clone()), lines: std::mem::take(&mut lines) });
        }
    }
    if has > most {
        return Err(Malformed::TooMany { field: "lines", limit: most, has });
    }
    if !lines.is_empty() {
        slices.push(Slice { bytes: body.slice(span), lines });
    }
    Ok(slices)
}

impl Shape for Bulk {
    fn door(&self) -> Door {
        Door::Bulk
    }

    fn limits(&self, house: &House) -> Limits {
        let http = &house.http;
        // More could never get room: see [`Limits::gives_way`].
        let body = http.max_bulk_bytes.min(house.limits.max_in_flight_bytes / 2);
        Limits { body, events: http.max_bulk_lines, patience: http.bulk_timeout, gives_way: true }
    }

    fn wrong(&self) -> Wrong {
        Wrong::Listed
    }

    fn slices(&self, body: &Bytes, events: usize) -> Result<Vec<Slice>, Malformed> {
        slices(body, events)
    }

    fn parse(&self, _: &Head, slice: &Bytes, events: usize) -> Result<Parsed, Malformed> {
        bulk::parse(slice, events)
    }

    /// By the body and the line: sending the same body again adds nothing, while the same line twice in
    /// it stays two events.
    fn event_id(&self, body: &BodyHash<'_>, line: usize) -> Option<String> {
        Some(format!("bulk-{}-{line}", body.hex()))
    }

    fn originals(&self, _: &Head, _: &Bytes, _: &[usize]) -> Vec<Original> {
        Vec::new()
    }

    fn accepted(&self, _: &Head, account: &Account) -> Response {
        Json(Answer::of(account, None)).into_response()
    }

    fn refused(&self, refusal: &Refusal, account: &Account) -> Response {
        let status: StatusCode = self.status(refusal);
        refusal.with_headers((status, Json(Answer::of(account, Some(refusal)))).into_response())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slices_are_the_body_and_know_their_lines(
            lines in prop::collection::vec("(x{0,40}| {0,3})\r?", 0..4000)
        ) {
            let body = Bytes::from(lines.join("\n"));
            let slices = slices(&body, 5000).unwrap();
            let full: Vec<usize> = (1..).zip(&lines).filter(|(_, line)| !line.trim().is_empty()).map(|(n, _)| n).collect();
            prop_assert_eq!(slices.iter().flat_map(|slice| slice.lines.clone()).collect::<Vec<_>>(), full);
            for slice in &slices {
                prop_assert!(slice.lines.len() <= SLICE_LINES);
                let filled = slice.bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
                prop_assert_eq!(filled.count(), slice.lines.len());
            }
        }
    }

    #[test]
    fn more_lines_than_allowed_are_counted_and_refused() {
        let body = Bytes::from("{}\n".repeat(5));
        assert_eq!(slices(&body, 5).unwrap().len(), 1);
        assert_eq!(slices(&body, 4).err(), Some(Malformed::TooMany { field: "lines", limit: 4, has: 5 }));
        assert!(slices(&Bytes::from("\n \r\n"), 4).unwrap().is_empty());
    }
}
