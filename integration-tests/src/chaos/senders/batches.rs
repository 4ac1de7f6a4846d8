//! Unary batches over gRPC, a few at once.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use futures::future::join_all;
use rapport_proto::{
    collect::{CollectBatchRequest, collector_client::CollectorClient, outcome::Status},
    events::Event,
};
use tokio::time::{Instant, sleep, timeout};

use super::{ANSWER_WITHIN, AT_ONCE, BACK_OFF, Course, Feed, Next, event};
use crate::{
    chaos::ledger::Ledger,
    harness::clients::{Called, Caller, channel},
};

pub async fn send(feed: Feed, course: Course, ledger: Arc<Ledger>) {
    let clients: Vec<CollectorClient<Called>> =
        course.doors.iter().map(|door| CollectorClient::with_interceptor(channel(&door.grpc), Caller)).collect();
    let feed = Mutex::new(feed);
    join_all((0..AT_ONCE).map(|n| one_at_a_time(n, &feed, &course, &ledger, &clients))).await;
}

async fn one_at_a_time(
    n: usize,
    feed: &Mutex<Feed>,
    course: &Course,
    ledger: &Ledger,
    clients: &[CollectorClient<Called>],
) {
    let mut door = n;
    loop {
        let next = feed.lock().unwrap_or_else(PoisonError::into_inner).next();
        let mut open = match next {
            Next::Batch(batch) => batch,
            Next::Wait(time) => {
                sleep(time).await;
                continue;
            }
            Next::Over => return,
        };
        loop {
            let events = events(feed, course, &open);
            let mut client = clients[door % clients.len()].clone();
            let answer = timeout(ANSWER_WITHIN, client.collect_batch(CollectBatchRequest { events })).await;
            if let Ok(Ok(answer)) = answer {
                open = outcomes(&open, answer.get_ref().outcomes.iter().map(|o| o.status()), ledger);
            }
            if open.is_empty() {
                break;
            }
            if Instant::now().into_std() > course.give_up {
                return;
            }
            ledger.resent.fetch_add(open.len() as u64, Ordering::Relaxed);
            door += 1;
            sleep(BACK_OFF).await;
        }
    }
}

pub(super) fn events(feed: &Mutex<Feed>, course: &Course, sequences: &[u32]) -> Vec<Event> {
    let feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
    sequences.iter().map(|n| feed.id(*n)).map(|id| event(id, course.natures.of(id))).collect()
}

/// Writes down what was acknowledged; returns what must be sent again.
pub(super) fn outcomes(sent: &[u32], statuses: impl Iterator<Item = Status>, ledger: &Ledger) -> Vec<u32> {
    let mut statuses = statuses;
    let (mut accepted, mut again) = (Vec::new(), Vec::new());
    for sequence in sent {
        match statuses.next() {
            Some(Status::Accepted) => accepted.push(*sequence),
            Some(Status::Refused) => {
                ledger.refused.fetch_add(1, Ordering::Relaxed);
            }
            Some(Status::Retry | Status::Unspecified) | None => again.push(*sequence),
        }
    }
    ledger.acknowledge(accepted);
    again
}
