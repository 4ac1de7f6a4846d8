//! Segment's tracking API, and RudderStack's, which is the same. Servers use the long paths; the
//! libraries of browsers and phones the short ones, with `text/plain` bodies so that a browser need
//! not ask first.

use axum::response::Response;
use bytes::Bytes;
use rapport_policy::Collect;
use rapport_shapes::{
    Malformed, Parsed,
    segment::{self, Call, Shape as Kind},
};

use super::{
    House, client,
    shape::{self, Endpoint, Head, Sender, Shape, Wrong},
    take::Account,
};
use crate::{error::Refusal, keys::Door, publish::Original};

/// What Segment's clients take for success: exactly this, with status 200.
const SUCCESS: &str = r#"{"success":true}"#;
const ORIGINAL: &str = "application/json; shape=segment";

/// The long paths, and the short ones.
const PATHS: [(&[&str], &[&str], Kind); 7] = [
    (&["/v1/batch", "/v1/import"], &["/v1/b"], Kind::Batch),
    (&["/v1/track"], &["/v1/t"], Kind::Single(Call::Track)),
    (&["/v1/identify"], &["/v1/i"], Kind::Single(Call::Identify)),
    (&["/v1/page"], &["/v1/p"], Kind::Single(Call::Page)),
    (&["/v1/screen"], &["/v1/s"], Kind::Single(Call::Screen)),
    (&["/v1/group"], &["/v1/g"], Kind::Single(Call::Group)),
    (&["/v1/alias"], &["/v1/a"], Kind::Single(Call::Alias)),
];

pub fn endpoints(_: &House) -> Vec<Endpoint> {
    let of = |paths: &[&'static str], kind, short| Endpoint::new(paths, Segment { kind, short });
    PATHS.iter().flat_map(|(long, short, kind)| [of(long, *kind, false), of(short, *kind, true)]).collect()
}

struct Segment {
    kind: Kind,
    /// Called by its short path.
    short: bool,
}

impl Shape for Segment {
    fn door(&self) -> Door {
        Door::Segment
    }

    fn wrong(&self) -> Wrong {
        if self.kind == Kind::Batch { Wrong::Kept } else { Wrong::Told }
    }

    fn of_device(&self, head: &Head, policy: Collect) -> Option<Collect> {
        (self.short || client::is_browser(&head.headers)).then_some(policy)
    }

    fn sender(&self, house: &House, head: &Head) -> Result<Option<Sender>, Refusal> {
        shape::sender_by_key(house, head, Door::Segment)
    }

    fn parse(&self, _: &Head, body: &Bytes, events: usize) -> Result<Parsed, Malformed> {
        segment::parse(self.kind, body, events)
    }

    fn originals(&self, _: &Head, body: &Bytes, places: &[usize]) -> Vec<Original> {
        shape::originals_of(ORIGINAL, segment::originals_of(self.kind, body, places))
    }

    fn accepted(&self, _: &Head, _: &Account) -> Response {
        shape::ok("application/json", SUCCESS)
    }
}
