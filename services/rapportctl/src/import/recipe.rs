//! How rows become events.

use prost::Message as _;
use rapport_events::{FieldError, limits};
use rapport_proto::events::Event;
use rapport_shapes::{bulk, mapping::Mapping};
use serde_json::Value;

use super::{Page, Rejection};
use crate::rows::{Body, Row};

/// Hex digits of the file's hash in an event id: 64 bits tell any two files apart.
const HASH_DIGITS: usize = 16;
/// Content of a rejected row that is kept to be shown.
const SHOWN_BYTES: usize = 8 * 1024;

/// What a row is read as.
pub enum Shape {
    /// A mapping from columns to events.
    Mapped(Box<Mapping>),
    /// A line of NDJSON that is an event already.
    Bulk,
}

/// A shape, and the file that gives events their ids.
pub struct Recipe {
    shape: Shape,
    id_prefix: String,
}

impl Recipe {
    /// `sha256`: of the file's content.
    pub fn new(shape: Shape, sha256: &str) -> Self {
        Self { shape, id_prefix: sha256.chars().take(HASH_DIGITS).collect() }
    }

    /// Adds a row to a page; its events go to `out`.
    pub fn cook(&self, row: Row, page: &mut Page, out: &mut Vec<Event>) {
        page.rows += 1;
        page.last_row = row.number;
        let body = match row.body {
            Ok(body) => body,
            Err(bad) => {
                let rejection =
                    Rejection { row: row.number, field: String::new(), reason: bad.reason, content: bad.content };
                page.rejected.push(rejection);
                return;
            }
        };
        let events = self.events(&body);
        page.passed_over += u64::from(events.is_empty());
        let several = events.len() > 1;
        for (place, event) in events.into_iter().enumerate() {
            match event.and_then(|event| self.finished(event, row.number, several.then_some(place))) {
                Ok(event) => {
                    page.events += 1;
                    page.rows_of.insert(event.event_id.clone(), row.number);
                    out.push(event);
                }
                Err(error) => page.rejected.push(Rejection::of_row(row.number, error, shown(&body))),
            }
        }
    }

    fn events(&self, body: &Body) -> Vec<Result<Event, FieldError>> {
        match (&self.shape, body) {
            (Shape::Mapped(mapping), Body::Object(object)) => mapping.apply(object),
            (Shape::Mapped(mapping), Body::Line(line)) => match serde_json::from_slice::<Value>(line) {
                Ok(object) => mapping.apply(&object),
                Err(error) => vec![Err(FieldError::decode("row", format!("is not JSON: {error}")))],
            },
            (Shape::Bulk, Body::Line(line)) => vec![bulk::one(line)],
            (Shape::Bulk, Body::Object(object)) => vec![bulk::one(object.to_string().as_bytes())],
        }
    }

    /// An id where the mapping gives none: the same every time, so that a second import is full of
    /// duplicates and not of second events.
    fn finished(&self, mut event: Event, row: u64, place: Option<usize>) -> Result<Event, FieldError> {
        if event.event_id.is_empty() {
            event.event_id = match place {
                None => format!("{}-{row}", self.id_prefix),
                Some(place) => format!("{}-{row}-{place}", self.id_prefix),
            };
        }
        let bytes = event.encoded_len();
        if bytes > limits::EVENT_BYTES {
            return Err(FieldError::size("event", format!("may have {} bytes, has {bytes}", limits::EVENT_BYTES)));
        }
        Ok(event)
    }
}

/// A row for the file of rejected rows.
fn shown(body: &Body) -> Value {
    match body {
        Body::Object(object) => {
            let text = object.to_string();
            if text.len() <= SHOWN_BYTES { object.clone() } else { cut(&text) }
        }
        Body::Line(line) => {
            let text = String::from_utf8_lossy(line);
            if line.len() > SHOWN_BYTES {
                return cut(&text);
            }
            serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
        }
    }
}

fn cut(text: &str) -> Value {
    let end = text.floor_char_boundary(SHOWN_BYTES);
    Value::String(format!("{}..", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::BadRow;

    const HASH: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn an_event_without_an_id_gets_the_same_one_every_time() {
        let recipe = Recipe::new(Shape::Bulk, HASH);
        let finished = |event: Event, place| recipe.finished(event, 17, place).unwrap().event_id;
        assert_eq!(finished(Event::default(), None), "0123456789abcdef-17");
        assert_eq!(finished(Event::default(), Some(2)), "0123456789abcdef-17-2");
        assert_eq!(finished(Event { event_id: "mine".into(), ..Event::default() }, None), "mine");
    }

    #[test]
    fn a_row_that_cannot_be_read_is_rejected_with_its_number() {
        let recipe = Recipe::new(Shape::Bulk, HASH);
        let (mut page, mut events) = (Page::default(), Vec::new());
        let bad = BadRow { reason: "has 2 cells".into(), content: Value::Null };
        recipe.cook(Row { number: 9, body: Err(bad) }, &mut page, &mut events);
        recipe.cook(Row { number: 10, body: Ok(Body::Line(b"not json".to_vec())) }, &mut page, &mut events);
        assert_eq!((page.rows, page.last_row, page.events, events.len()), (2, 10, 0, 0));
        assert_eq!(page.rejected.iter().map(|r| r.row).collect::<Vec<_>>(), [9, 10]);
        assert_eq!(page.rejected[1].content, "not json");
    }

    #[test]
    fn an_event_that_is_too_large_is_rejected_here() {
        let recipe = Recipe::new(Shape::Bulk, HASH);
        let large = Event { item_id: "x".repeat(limits::EVENT_BYTES), ..Event::default() };
        assert!(recipe.finished(large, 1, None).unwrap_err().to_string().contains("32768"));
    }

    #[test]
    fn a_long_row_is_shown_cut() {
        let text = "\u{e4}".repeat(SHOWN_BYTES);
        let content = shown(&Body::Line(text.into_bytes()));
        assert!(content.as_str().unwrap().len() <= SHOWN_BYTES + 2);
    }
}
