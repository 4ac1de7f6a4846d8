//! The collector's client stream: a window of unanswered requests, sent again when the stream
//! breaks or the collector asks for it. Sending again is safe: event ids stay the same.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::{anyhow, bail};
use rapport_proto::{
    collect::{
        CollectStreamRequest, CollectStreamResponse, collector_client::CollectorClient, outcome::Status as Verdict,
    },
    events::Event,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataMap, transport::Channel};
use tonic_types::StatusExt as _;

use super::{Batch, Tally, backoff};
use crate::{context::Context, error};

/// Requests without an answer: enough to hide the broker's acknowledgement.
const WINDOW: usize = 8;

/// A producer on the collector's stream.
pub struct Stream {
    client: CollectorClient<Channel>,
    metadata: MetadataMap,
    uri: String,
    patience: Duration,
}

/// How one connection ended.
enum End {
    /// Everything is answered and nothing more comes.
    Done,
    Broken(Status),
}

/// What is to be sent, and what is on the way.
#[derive(Default)]
struct Work {
    waiting: VecDeque<Batch>,
    on_the_way: VecDeque<(u64, Batch)>,
    sequence: u64,
    exhausted: bool,
}

impl Work {
    /// Puts what has no answer back at the front, in its order.
    fn take_back(&mut self, tally: &Tally) {
        while let Some((_, batch)) = self.on_the_way.pop_back() {
            tally.send_again(batch.events.len() as u64);
            self.waiting.push_front(batch);
        }
    }

    fn next_request(&mut self) -> Option<CollectStreamRequest> {
        let batch = self.waiting.pop_front()?;
        self.sequence += 1;
        let request = CollectStreamRequest { sequence: self.sequence, events: batch.events.clone() };
        self.on_the_way.push_back((self.sequence, batch));
        Some(request)
    }

    fn is_done(&self) -> bool {
        self.exhausted && self.waiting.is_empty() && self.on_the_way.is_empty()
    }
}

impl Stream {
    pub fn new(context: &Context, patience: Duration) -> anyhow::Result<Self> {
        let metadata = context.stream_request(())?.metadata().clone();
        Ok(Self { client: context.collector()?, metadata, uri: context.collector_uri.clone(), patience })
    }

    pub async fn run(mut self, mut batches: mpsc::Receiver<Batch>, tally: Arc<Tally>) -> anyhow::Result<()> {
        let mut work = Work::default();
        let mut failures = 0;
        let mut last_news = Instant::now();
        loop {
            if work.waiting.is_empty() {
                match batches.recv().await {
                    Some(batch) => work.waiting.push_back(batch),
                    None => return Ok(()),
                }
                last_news = Instant::now();
            }
            let before = tally.acknowledged();
            match self.connection(&mut work, &mut batches, &tally, &mut last_news).await? {
                End::Done => return Ok(()),
                End::Broken(status) => {
                    work.take_back(&tally);
                    if !error::retryable(&status) {
                        return Err(self.refused(&status));
                    }
                    failures = if tally.acknowledged() > before { 0 } else { failures + 1 };
                    if last_news.elapsed() > self.patience {
                        return Err(self.refused(&status).context(format!(
                            "nothing was acknowledged for {}",
                            humantime::format_duration(self.patience)
                        )));
                    }
                    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
                    tokio::time::sleep(asked.unwrap_or_else(|| backoff(failures))).await;
                }
            }
        }
    }

    fn refused(&self, status: &Status) -> anyhow::Error {
        error::refused("collector", &self.uri, "collector", status)
    }

    /// One stream from its opening to its end. The first request is in it before the call, so that
    /// a server that answers only then does not wait for ever.
    async fn connection(
        &mut self,
        work: &mut Work,
        batches: &mut mpsc::Receiver<Batch>,
        tally: &Tally,
        last_news: &mut Instant,
    ) -> anyhow::Result<End> {
        let (requests, outgoing) = mpsc::channel(WINDOW);
        if let Some(request) = work.next_request() {
            requests.try_send(request).map_err(|_| anyhow!("a new stream is full"))?;
        }
        let mut call = Request::new(ReceiverStream::new(outgoing));
        *call.metadata_mut() = self.metadata.clone();
        let mut answers = match tokio::time::timeout(self.patience, self.client.collect_stream(call)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Ok(End::Broken(status)),
            Err(_) => return Ok(End::Broken(Status::deadline_exceeded("the stream did not open"))),
        };
        // After a RETRY, wait before sending more.
        let mut hold: Option<Instant> = None;
        let mut holds = 0;
        loop {
            if work.is_done() {
                return Ok(End::Done);
            }
            let room = work.on_the_way.len() < WINDOW && hold.is_none();
            if room && let Some(request) = work.next_request() {
                if requests.try_send(request).is_err() {
                    return Ok(End::Broken(broken(&mut answers).await));
                }
                continue;
            }
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        *last_news = Instant::now();
                        let again = settle(work, answer, tally)?;
                        holds = if again { holds + 1 } else { 0 };
                        hold = again.then(|| Instant::now() + backoff(holds));
                    }
                    Ok(None) => return Ok(End::Broken(Status::unavailable("the collector closed the stream"))),
                    Err(status) => return Ok(End::Broken(status)),
                },
                batch = batches.recv(), if room && !work.exhausted => match batch {
                    Some(batch) => {
                        if work.on_the_way.is_empty() {
                            *last_news = Instant::now();
                        }
                        work.waiting.push_back(batch);
                    }
                    None => work.exhausted = true,
                },
                () = sleep_until(hold) => hold = None,
                () = tokio::time::sleep_until(*last_news + self.patience), if !work.on_the_way.is_empty() => {
                    return Ok(End::Broken(Status::deadline_exceeded("no answer on the stream")));
                }
            }
        }
    }
}

/// Why a stream no longer takes requests.
async fn broken(answers: &mut Streaming<CollectStreamResponse>) -> Status {
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::unavailable("the collector closed the stream"),
            Err(status) => return status,
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Takes an answer down. True when some of its events are to be sent again.
fn settle(work: &mut Work, answer: CollectStreamResponse, tally: &Tally) -> anyhow::Result<bool> {
    let Some((sequence, batch)) = work.on_the_way.pop_front() else {
        bail!("the collector answered request {} that was not sent", answer.sequence);
    };
    if sequence != answer.sequence || batch.events.len() != answer.outcomes.len() {
        bail!(
            "the collector answered request {} with {} outcomes, expected {sequence} with {}",
            answer.sequence,
            answer.outcomes.len(),
            batch.events.len()
        );
    }
    let mut accepted = 0;
    let mut again: Vec<Event> = Vec::new();
    for (event, outcome) in batch.events.into_iter().zip(answer.outcomes) {
        match outcome.status() {
            Verdict::Accepted => accepted += 1,
            Verdict::Retry => again.push(event),
            Verdict::Refused | Verdict::Unspecified => {
                tally.refuse(format!("event {}: {} {}", outcome.event_id, outcome.field, outcome.message));
                if let Some(receipt) = &batch.receipt {
                    receipt.refused(&event, outcome.field, outcome.message);
                }
            }
        }
    }
    if accepted > 0 {
        tally.accept(accepted, batch.since);
        if let Some(receipt) = &batch.receipt {
            receipt.accepted(accepted);
        }
    }
    let repeat = !again.is_empty();
    if repeat {
        tally.send_again(again.len() as u64);
        work.waiting.push_front(Batch { events: again, since: batch.since, receipt: batch.receipt });
    }
    Ok(repeat)
}

#[cfg(test)]
mod tests {
    use rapport_proto::collect::Outcome;

    use super::*;

    fn outcome(status: Verdict) -> Outcome {
        Outcome { status: status.into(), event_id: "e".into(), field: "type".into(), message: "is empty".into() }
    }

    fn work_with(events: usize) -> Work {
        let mut work = Work::default();
        let events = (0..events).map(|n| Event { event_id: n.to_string(), ..Event::default() }).collect();
        work.waiting.push_back(Batch { events, since: std::time::Instant::now(), receipt: None });
        assert_eq!(work.next_request().unwrap().sequence, 1);
        work
    }

    #[test]
    fn only_events_that_ask_for_it_are_sent_again() {
        let (mut work, tally) = (work_with(3), Tally::new().unwrap());
        let outcomes = vec![outcome(Verdict::Accepted), outcome(Verdict::Retry), outcome(Verdict::Refused)];
        assert!(settle(&mut work, CollectStreamResponse { sequence: 1, outcomes }, &tally).unwrap());
        assert_eq!((tally.acknowledged(), tally.again(), tally.refused().0), (1, 1, 1));
        assert_eq!(work.next_request().unwrap().events[0].event_id, "1");
    }

    #[test]
    fn what_has_no_answer_when_the_stream_breaks_goes_first_and_in_order() {
        let (mut work, tally) = (work_with(1), Tally::new().unwrap());
        work.waiting.push_back(Batch {
            events: vec![Event::default(); 2],
            since: std::time::Instant::now(),
            receipt: None,
        });
        assert_eq!(work.next_request().unwrap().sequence, 2);
        work.waiting.push_back(Batch {
            events: vec![Event::default(); 3],
            since: std::time::Instant::now(),
            receipt: None,
        });
        work.take_back(&tally);
        let sizes: Vec<usize> = work.waiting.iter().map(|batch| batch.events.len()).collect();
        assert_eq!(sizes, [1, 2, 3]);
        assert_eq!(tally.again(), 3);
    }

    #[test]
    fn an_answer_that_fits_no_request_is_an_error() {
        let (mut work, tally) = (work_with(2), Tally::new().unwrap());
        let answer = CollectStreamResponse { sequence: 1, outcomes: vec![outcome(Verdict::Accepted)] };
        assert!(settle(&mut work, answer, &tally).is_err());
    }
}
