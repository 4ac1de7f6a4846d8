//! Which rows are done. Acknowledgements come in any order; a run that is interrupted goes on after
//! the last row before which everything is done.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rapport_events::FieldError;
use rapport_proto::events::Event;
use serde_json::{Value, json};

use super::Counts;
use crate::original::event_json;

/// Why a row, or an event of it, is not in the mesh. `row` is 0 where only the event is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    pub row: u64,
    pub field: String,
    pub reason: String,
    /// The row or the event, as far as it can be shown.
    pub content: Value,
}

impl Rejection {
    pub fn of_row(row: u64, error: FieldError, content: Value) -> Self {
        Self { row, field: error.field, reason: error.reason, content }
    }

    /// A line of the file of rejected rows.
    pub fn line(&self) -> String {
        let mut line = json!({ "row": self.row, "reason": self.reason, "content": self.content });
        if !self.field.is_empty() {
            line["field"] = json!(self.field);
        }
        format!("{line}\n")
    }
}

/// Rows that go together: all of them are done or none.
#[derive(Debug, Default)]
pub struct Page {
    /// The last row of it.
    pub last_row: u64,
    pub rows: u64,
    /// Those of them that stand for no event.
    pub passed_over: u64,
    /// Each event's row, by its id: the collector refuses events, people mend rows.
    pub rows_of: BTreeMap<String, u64>,
    /// Events of it.
    pub events: u64,
    pub acknowledged: u64,
    pub rejected: Vec<Rejection>,
    /// Events without an outcome.
    open: u64,
}

impl Page {
    /// What this page adds to the account.
    pub fn counts(&self) -> Counts {
        Counts {
            rows: self.rows,
            passed_over: self.passed_over,
            events: self.events,
            acknowledged: self.acknowledged,
            rejected: self.rejected.len() as u64,
        }
    }
}

/// The pages that are on their way, in the file's order. As many as the lanes hold.
#[derive(Debug, Default, Clone)]
pub struct Book(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    open: BTreeMap<u64, Page>,
}

/// Says what came of the events of one page.
#[derive(Debug, Clone)]
pub struct Receipt {
    book: Book,
    page: u64,
}

impl Book {
    /// Takes the next page down, before its events are sent.
    pub fn open(&self, mut page: Page) -> Receipt {
        page.open = page.events;
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = pages.next;
        pages.next += 1;
        pages.open.insert(number, page);
        Receipt { book: self.clone(), page: number }
    }

    /// The pages that are done and before which all are done, in order; each is given once.
    pub fn take_done(&self) -> Vec<Page> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = Vec::new();
        while let Some(first) = pages.open.first_entry()
            && first.get().open == 0
        {
            let mut page = first.remove();
            page.rejected.sort_by_key(|rejection| rejection.row);
            done.push(page);
        }
        done
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Page)) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.open.get_mut(&number) {
            change(page);
        }
    }
}

impl Receipt {
    /// Kafka has `count` more of the page's events.
    pub fn accepted(&self, count: u64) {
        self.book.change(self.page, |page| {
            page.acknowledged += count;
            page.open = page.open.saturating_sub(count);
        });
    }

    /// One of the page's events never will be accepted.
    pub fn refused(&self, event: &Event, field: String, reason: String) {
        self.book.change(self.page, |page| {
            let row = page.rows_of.get(&event.event_id).copied().unwrap_or(0);
            page.rejected.push(Rejection { row, field, reason, content: event_json(event) });
            page.open = page.open.saturating_sub(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(last_row: u64, events: u64) -> Page {
        Page { last_row, rows: 1, events, ..Page::default() }
    }

    fn rows(done: &[Page]) -> Vec<u64> {
        done.iter().map(|page| page.last_row).collect()
    }

    #[test]
    fn a_page_that_is_not_done_holds_those_behind_it_back() {
        let book = Book::default();
        let (first, second) = (book.open(page(10, 2)), book.open(page(20, 1)));
        second.accepted(1);
        first.accepted(1);
        assert_eq!(rows(&book.take_done()), [0; 0]);
        first.accepted(1);
        assert_eq!(rows(&book.take_done()), [10, 20]);
        assert_eq!(rows(&book.take_done()), [0; 0], "each is given once");
    }

    #[test]
    fn a_page_without_events_is_done_at_once() {
        let book = Book::default();
        book.open(page(5, 0));
        assert_eq!(rows(&book.take_done()), [5]);
    }

    #[test]
    fn a_refused_event_names_its_row() {
        let book = Book::default();
        let rows_of = BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 4)]);
        let receipt = book.open(Page { rows_of, ..page(4, 2) });
        let event = Event { event_id: "b".into(), ..Event::default() };
        receipt.refused(&event, "value".into(), "is not finite".into());
        receipt.accepted(1);
        let done = book.take_done();
        assert_eq!((done[0].acknowledged, done[0].rejected[0].row), (1, 4));
        let line = done[0].rejected[0].line();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.contains("\"row\":4") && line.contains("is not finite"), "{line}");
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_answers_nothing_is_done_before_its_predecessors(
            order in Just((0usize..30).collect::<Vec<_>>()).prop_shuffle(), refused: u32,
        ) {
            let book = Book::default();
            let receipts: Vec<Receipt> = (0..30).map(|n| book.open(page(n + 1, 1))).collect();
            let (mut settled, mut given) = ([false; 30], 0u64);
            for n in order {
                if refused & (1 << n) == 0 { receipts[n].accepted(1); } else {
                    receipts[n].refused(&Event::default(), String::new(), String::new());
                }
                settled[n] = true;
                for page in book.take_done() {
                    given += 1;
                    prop_assert_eq!(page.last_row, given);
                    prop_assert_eq!(page.counts().acknowledged + page.counts().rejected, 1);
                }
                let front = settled.iter().take_while(|done| **done).count() as u64;
                prop_assert_eq!(given, front);
            }
            prop_assert_eq!(given, 30);
        }
    }
}
