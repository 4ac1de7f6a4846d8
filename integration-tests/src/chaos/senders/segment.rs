//! HTTP in Segment's shape, as its libraries for servers send it: 200 or the same again.

use std::{
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use super::{AT_ONCE, BACK_OFF, Course, Feed, Next, event};
use crate::{
    chaos::{ids::Nature, ledger::Ledger},
    harness::stack::{API_KEY, agent, post_with},
};

pub fn send(feed: Feed, course: &Course, ledger: &Ledger) {
    let feed = Mutex::new(feed);
    std::thread::scope(|scope| {
        for n in 0..AT_ONCE {
            let feed = &feed;
            scope.spawn(move || one_at_a_time(n, feed, course, ledger));
        }
    });
}

fn one_at_a_time(n: usize, feed: &Mutex<Feed>, course: &Course, ledger: &Ledger) {
    let agent = agent();
    let mut door = n;
    loop {
        let next = feed.lock().unwrap_or_else(PoisonError::into_inner).next();
        let batch = match next {
            Next::Batch(batch) => batch,
            Next::Wait(time) => {
                std::thread::sleep(time);
                continue;
            }
            Next::Over => return,
        };
        let body = body(feed, course, &batch);
        loop {
            let url = &course.doors[door % course.doors.len()].segment;
            if let Ok((200, _)) = post_with(&agent, url, &[("content-type", "application/json")], &body) {
                ledger.acknowledge(batch.iter().copied());
                break;
            }
            if Instant::now() > course.give_up {
                return;
            }
            ledger.resent.fetch_add(batch.len() as u64, Ordering::Relaxed);
            door += 1;
            std::thread::sleep(BACK_OFF);
        }
    }
}

fn body(feed: &Mutex<Feed>, course: &Course, sequences: &[u32]) -> Vec<u8> {
    let feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
    let batch: Vec<_> = sequences
        .iter()
        .map(|sequence| {
            let id = feed.id(*sequence);
            let nature = course.natures.of(id);
            let event = event(id, nature);
            let mut call = serde_json::json!({
                "type": "track", "event": "Product Viewed", "messageId": event.event_id,
                "timestamp": event.event_time.as_ref().map(ToString::to_string),
                "properties": { "product_id": event.item_id, "category": event.category, "price": event.value,
                                "currency": event.currency },
            });
            // Nobody's event: the door itself keeps it as a dead letter.
            if nature != Nature::BrokenAtTheDoor {
                call["userId"] = event.customer_id.into();
            }
            call
        })
        .collect();
    serde_json::json!({ "writeKey": API_KEY, "batch": batch }).to_string().into_bytes()
}
