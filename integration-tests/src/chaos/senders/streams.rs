//! One long stream over gRPC, with a window of requests that have no answer yet. When it breaks, they go
//! into the next one, at the other collector.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use rapport_proto::collect::{CollectStreamRequest, CollectStreamResponse, collector_client::CollectorClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    ANSWER_WITHIN, AT_ONCE, BACK_OFF, Course, Feed, Next,
    batches::{events, outcomes},
};
use crate::{
    chaos::ledger::Ledger,
    harness::clients::{Called, Caller, channel},
};

pub async fn send(feed: Feed, course: Course, ledger: Arc<Ledger>) {
    let clients: Vec<CollectorClient<Called>> =
        course.doors.iter().map(|door| CollectorClient::with_interceptor(channel(&door.grpc), Caller)).collect();
    let mut work = Work {
        feed: Mutex::new(feed),
        course,
        ledger,
        waiting: VecDeque::new(),
        on_the_way: VecDeque::new(),
        over: false,
    };
    let mut door = 0;
    while !work.done() && Instant::now().into_std() < work.course.give_up {
        let client: &CollectorClient<Called> = &clients[door % clients.len()];
        work.one_stream(client.clone()).await;
        work.take_back();
        door += 1;
        if !work.done() {
            sleep(BACK_OFF).await;
        }
    }
}

struct Work {
    feed: Mutex<Feed>,
    course: Course,
    ledger: Arc<Ledger>,
    /// To be sent, again or for the first time.
    waiting: VecDeque<Vec<u32>>,
    on_the_way: VecDeque<(u64, Vec<u32>)>,
    over: bool,
}

impl Work {
    fn done(&self) -> bool {
        self.over && self.waiting.is_empty() && self.on_the_way.is_empty()
    }

    /// What has no answer is sent again.
    fn take_back(&mut self) {
        while let Some((_, batch)) = self.on_the_way.pop_back() {
            self.ledger.resent.fetch_add(batch.len() as u64, Ordering::Relaxed);
            self.waiting.push_front(batch);
        }
    }

    /// Until it breaks or nothing is left.
    async fn one_stream(&mut self, mut client: CollectorClient<Called>) {
        let (requests, outgoing) = mpsc::channel(AT_ONCE);
        // The server may answer the call only when a first request has come.
        let mut sequence = 0;
        let opening = async { timeout(ANSWER_WITHIN, client.collect_stream(ReceiverStream::new(outgoing))).await };
        if let Some(wait) = self.fill(&requests, &mut sequence) {
            sleep(wait).await;
            self.fill(&requests, &mut sequence);
        }
        let Ok(Ok(answers)) = opening.await else { return };
        let mut answers: Streaming<CollectStreamResponse> = answers.into_inner();
        while !self.done() {
            let wait = self.fill(&requests, &mut sequence).unwrap_or(ANSWER_WITHIN);
            if self.on_the_way.is_empty() {
                sleep(wait.min(Duration::from_millis(100))).await;
                continue;
            }
            // When there is room and the next batch is not due yet, answers are waited for only until then.
            match timeout(wait, answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    if !self.answered(&answer) {
                        return;
                    }
                }
                Ok(Ok(None) | Err(_)) => return,
                Err(_) if wait < ANSWER_WITHIN => {}
                Err(_) => return,
            }
        }
    }

    /// Fills the window. Returns how long until there is more to send, when there is room for it.
    fn fill(&mut self, requests: &mpsc::Sender<CollectStreamRequest>, sequence: &mut u64) -> Option<Duration> {
        while self.on_the_way.len() < AT_ONCE {
            let batch = match self.waiting.pop_front() {
                Some(batch) => batch,
                None => match self.feed.lock().unwrap_or_else(PoisonError::into_inner).next() {
                    Next::Batch(batch) => batch,
                    Next::Wait(time) => return Some(time.max(Duration::from_millis(1))),
                    Next::Over => {
                        self.over = true;
                        return None;
                    }
                },
            };
            *sequence += 1;
            let request =
                CollectStreamRequest { sequence: *sequence, events: events(&self.feed, &self.course, &batch) };
            self.on_the_way.push_back((*sequence, batch));
            // As many places as the window has; a stream that is gone shows when its answers are read.
            requests.try_send(request).ok();
        }
        None
    }

    /// Writes down an answer; `false` when it does not belong to the oldest request.
    fn answered(&mut self, answer: &CollectStreamResponse) -> bool {
        let Some((sequence, batch)) = self.on_the_way.pop_front() else { return false };
        if sequence != answer.sequence {
            self.on_the_way.push_front((sequence, batch));
            return false;
        }
        let again = outcomes(&batch, answer.outcomes.iter().map(|o| o.status()), &self.ledger);
        if !again.is_empty() {
            self.ledger.resent.fetch_add(again.len() as u64, Ordering::Relaxed);
            self.waiting.push_front(again);
        }
        true
    }
}
