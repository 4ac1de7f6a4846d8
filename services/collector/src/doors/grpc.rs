//! The gRPC door: `rapport.collect.v1.Collector`.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use opentelemetry::Context;
use rapport_events::{EventTime, FieldError, limits};
use rapport_proto::collect::{
    CollectBatchResponse, CollectStreamResponse, Outcome, PutItemsRequest, PutItemsResponse,
    outcome::Status as OutcomeStatus,
};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    EVENTS_AT_A_TIME, House, code_of,
    grpc_server::{BatchRequest, StreamRequest},
    observe,
};
use crate::{
    admit,
    error::Refusal,
    keys::{self, Caller, Door},
    publish::{Fate, OVERHEAD_BYTES, Origin, Pending, Room, Submission, Tally, count},
    quota::{Charge, Exceeded, Limit},
    wire,
};

const BATCH: &str = "grpc";
const STREAM: &str = "grpc_stream";
const CATALOG: &str = "grpc_items";

/// Answers leave this long before the caller's own deadline, so that they arrive.
const MARGIN: Duration = Duration::from_millis(5);

/// A stream that waits for its rate looks this often whether its key is still good.
const RATE_CHECK: Duration = Duration::from_secs(1);

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct GrpcDoor {
    house: House,
    /// Largest request in bytes of its events.
    max_bytes: usize,
}

/// What a stream is answered with.
pub type Answers = Pin<Box<dyn Stream<Item = Result<CollectStreamResponse, Status>> + Send>>;

/// Events of one request on their way, with their ids.
struct Submitted {
    pending: Pending,
    event_ids: Vec<String>,
}

/// When to stop waiting for Kafka, and whether it is the caller who set that.
struct Deadline {
    at: tokio::time::Instant,
    callers: bool,
}

impl GrpcDoor {
    pub fn new(house: House, max_bytes: usize) -> Self {
        Self { house, max_bytes }
    }

    fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Refusal> {
        let key = keys::credential(|name| metadata.get(name).map(|value| value.as_bytes()))?;
        Ok(self.house.keys.caller(key.as_deref(), Door::Grpc)?)
    }

    fn deadline(&self, metadata: &MetadataMap) -> Deadline {
        let ours = self.house.limits.ack_timeout;
        let theirs = rapport_rpc::deadline_of(metadata).map(|time| time.saturating_sub(MARGIN.min(time / 4)));
        let wait = theirs.map_or(ours, |theirs| theirs.min(ours));
        Deadline { at: tokio::time::Instant::now() + wait, callers: wait < ours }
    }

    /// The memory that events need, unless there are too many of them.
    fn bytes_of(&self, events: &[Bytes]) -> Result<usize, Refusal> {
        let limits = &self.house.limits;
        if events.len() > limits.max_batch_events {
            let (limit, has) = (format!("{} events", limits.max_batch_events), events.len().to_string());
            return Err(Refusal::TooLarge { field: "events", limit, has });
        }
        let bytes: usize = events.iter().map(Bytes::len).sum();
        if bytes > self.max_bytes {
            let limit = format!("{} bytes in one request", self.max_bytes);
            return Err(Refusal::TooLarge { field: "events", limit, has: bytes.to_string() });
        }
        Ok(bytes + events.len() * OVERHEAD_BYTES)
    }

    /// Judges and queues events.
    async fn submit(&self, who: &Caller, charge: Charge, trace: &Context, events: Vec<Bytes>, room: Room) -> Submitted {
        let origin = Origin { tenant: who.tenant(), received_at: EventTime::now(), trace };
        let mut submission = self.house.publish.submit(&origin, events.len());
        submission.charged(charge);
        let mut event_ids = Vec::with_capacity(events.len());
        for (n, event) in events.iter().enumerate() {
            if n % EVENTS_AT_A_TIME == EVENTS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            event_ids.push(pass(&mut submission, event));
        }
        Submitted { pending: submission.close(room), event_ids }
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Result<(Vec<Fate>, Vec<String>), Refusal> {
        let caller = self.caller(request.metadata())?;
        let deadline = self.deadline(request.metadata());
        let trace = tracing::Span::current().context();
        let events = request.into_inner().events;
        let room = match self.house.publish.try_room(self.bytes_of(&events)?) {
            Some(room) => room,
            None => {
                count(BATCH, "retry", events.len());
                return Err(self.house.overloaded());
            }
        };
        let charge = self.house.charge(&caller, events.len()).inspect_err(|_| count(BATCH, "retry", events.len()))?;
        let submitted = self.submit(&caller, charge, &trace, events, room).await;
        let fates = submitted.pending.by(deadline.at).await;
        let tally = Tally::of(&fates);
        tally.count(BATCH);
        match self.house.refusal_of_all(tally) {
            Some(Refusal::NotAcknowledged { .. }) if deadline.callers => Err(Refusal::Deadline),
            Some(refusal) => Err(refusal),
            None => Ok((fates, submitted.event_ids)),
        }
    }

    /// One request of a stream, queued: waits for room instead of refusing, so that the stream is read
    /// no faster than Kafka takes it and the key's rate allows.
    async fn accept(&self, who: &Caller, trace: &Context, events: Vec<Bytes>) -> Result<Submitted, Refusal> {
        let bytes = self.bytes_of(&events)?;
        let (who, charge) = self.charge_of_stream(who, events.len()).await?;
        let room = self.house.publish.room(bytes).await.ok_or_else(|| self.draining())?;
        Ok(self.submit(&who, charge, trace, events, room).await)
    }

    /// Waits until the rate allows it. The key is looked up for every request: one that was taken out
    /// stops here.
    async fn charge_of_stream(&self, who: &Caller, events: usize) -> Result<(Caller, Charge), Refusal> {
        loop {
            let who = self.house.keys.renewed(who, Door::Grpc)?;
            let after = match who.quota().take(events) {
                Ok(charge) => return Ok((who, charge)),
                Err(Exceeded { limit: Limit::Rate(_), after, .. }) => after.min(RATE_CHECK),
                Err(exceeded) => return Err(exceeded.into()),
            };
            tokio::select! {
                () = tokio::time::sleep(after) => {}
                () = self.house.lifecycle.drain_requested() => return Err(self.draining()),
            }
        }
    }

    fn draining(&self) -> Refusal {
        Refusal::Draining { after: self.house.limits.retry_after }
    }

    async fn answer(&self, sequence: u64, submitted: Submitted, since: Instant) -> CollectStreamResponse {
        let deadline = tokio::time::Instant::now() + self.house.limits.ack_timeout;
        let fates = submitted.pending.by(deadline).await;
        Tally::of(&fates).count(STREAM);
        observe(STREAM, code_of(&fates), since.elapsed());
        CollectStreamResponse { sequence, outcomes: self.outcomes(fates, submitted.event_ids) }
    }

    fn outcomes(&self, fates: Vec<Fate>, event_ids: Vec<String>) -> Vec<Outcome> {
        let again = |reason: &str| {
            format!("{reason}; send it again with the same event_id in {:?}", self.house.limits.retry_after)
        };
        fates
            .into_iter()
            .zip(event_ids)
            .map(|(fate, event_id)| {
                let (status, field, message) = match fate {
                    Fate::Accepted => (OutcomeStatus::Accepted, String::new(), String::new()),
                    Fate::Refused(FieldError { field, reason, .. }) => (OutcomeStatus::Refused, field, reason),
                    Fate::NoRoom => (OutcomeStatus::Retry, String::new(), again("the queue to Kafka is full")),
                    Fate::Unacknowledged => {
                        (OutcomeStatus::Retry, String::new(), again("Kafka did not acknowledge it in time"))
                    }
                };
                Outcome { status: status.into(), event_id, field, message }
            })
            .collect()
    }

    async fn items(&self, request: Request<PutItemsRequest>) -> Result<u32, Refusal> {
        let tenant = self.caller(request.metadata())?.tenant().clone();
        let deadline = self.deadline(request.metadata());
        let trace = tracing::Span::current().context();
        let PutItemsRequest { mut items, remove_item_ids } = request.into_inner();
        let (limit, has) = (self.house.limits.max_batch_events, items.len() + remove_item_ids.len());
        if has > limit {
            return Err(Refusal::TooLarge { field: "items", limit: format!("{limit} items"), has: has.to_string() });
        }
        let mut bytes = has * OVERHEAD_BYTES;
        for (n, item) in items.iter_mut().enumerate() {
            tenant.as_str().clone_into(&mut item.tenant);
            bytes += admit::item(item)
                .map_err(|error| FieldError::new(error.kind, format!("items[{n}].{}", error.field), error.reason))?;
        }
        for (n, item_id) in remove_item_ids.iter().enumerate() {
            admit::item_id(&format!("remove_item_ids[{n}]"), item_id)?;
        }
        let room = self.house.publish.try_room(bytes).ok_or_else(|| self.house.overloaded())?;
        let origin = Origin { tenant: &tenant, received_at: EventTime::now(), trace: &trace };
        let mut submission = self.house.publish.submit(&origin, has);
        for (n, item) in items.iter().enumerate() {
            if n % EVENTS_AT_A_TIME == EVENTS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            submission.item(item);
        }
        remove_item_ids.iter().for_each(|item_id| submission.remove_item(item_id));
        let fates = submission.close(room).by(deadline.at).await;
        let tally = Tally::of(&fates);
        if tally.accepted == has {
            return Ok(u32::try_from(has).unwrap_or(u32::MAX));
        }
        if let Some(error) = fates.into_iter().find_map(|fate| match fate {
            Fate::Refused(error) => Some(error),
            Fate::Accepted | Fate::NoRoom | Fate::Unacknowledged => None,
        }) {
            return Err(error.into());
        }
        // Putting an item twice changes nothing, so the whole call may be sent again.
        Err(match self.house.refusal_of_all(tally) {
            Some(Refusal::NotAcknowledged { .. }) if deadline.callers => Refusal::Deadline,
            Some(refusal) => refusal,
            None => Refusal::NotAcknowledged {
                acknowledged: tally.accepted,
                sent: has,
                after: self.house.limits.retry_after,
            },
        })
    }
}

/// Judges one event and queues it or its refusal; the id that its outcome carries.
fn pass(submission: &mut Submission<'_>, event: &[u8]) -> String {
    let view = match wire::read(event) {
        Ok(view) => view,
        Err(error) => {
            submission.refuse(error);
            return String::new();
        }
    };
    if let Err(error) = admit::view(&view).and_then(|()| admit::encoded("event", event.len())) {
        submission.refuse(error);
        return short(view.event_id);
    }
    if view.event_id.is_empty() {
        let (event_id, event) = wire::with_new_id(event);
        submission.encoded_event(view.who(), &event_id, &event);
        return event_id;
    }
    submission.encoded_event(view.who(), view.event_id, event);
    view.event_id.to_owned()
}

/// An id as an answer repeats it: one that is too long is not sent back whole.
fn short(event_id: &str) -> String {
    event_id.chars().take(limits::EVENT_ID_BYTES).collect()
}

impl GrpcDoor {
    /// # Errors
    /// As the contract says.
    pub async fn collect_batch(
        &self,
        request: Request<BatchRequest>,
    ) -> Result<Response<CollectBatchResponse>, Status> {
        let since = Instant::now();
        match self.batch(request).await {
            Ok((fates, event_ids)) => {
                observe(BATCH, code_of(&fates), since.elapsed());
                Ok(Response::new(CollectBatchResponse { outcomes: self.outcomes(fates, event_ids) }))
            }
            Err(refusal) => {
                observe(BATCH, refusal.code(), since.elapsed());
                Err(refusal.into())
            }
        }
    }

    /// Requests are judged and queued one after another, so that a customer's events keep their
    /// order; up to the window of them wait for Kafka at once; answers leave in order.
    ///
    /// # Errors
    /// UNAUTHENTICATED; everything else is told in the stream.
    pub fn collect_stream(&self, request: Request<Streaming<StreamRequest>>) -> Result<Response<Answers>, Status> {
        let caller = self.caller(request.metadata())?;
        let trace = tracing::Span::current().context();
        let reader = Reader { door: self.clone(), caller, trace, requests: request.into_inner() };
        let submitted = stream::unfold(Some(reader), |reader| async move { reader?.next().await });
        let door = self.clone();
        let answers = submitted
            .map(move |submitted| {
                let door = door.clone();
                async move {
                    match submitted {
                        Ok((sequence, submitted, since)) => Ok(door.answer(sequence, submitted, since).await),
                        Err(status) => Err(status),
                    }
                }
            })
            .buffered(self.house.limits.stream_window);
        Ok(Response::new(Box::pin(answers)))
    }

    /// # Errors
    /// As the contract says.
    pub async fn put_items(&self, request: Request<PutItemsRequest>) -> Result<Response<PutItemsResponse>, Status> {
        let since = Instant::now();
        match self.items(request).await {
            Ok(accepted) => {
                observe(CATALOG, "ok", since.elapsed());
                metrics::counter!("rapport_collector_items_total").increment(u64::from(accepted));
                Ok(Response::new(PutItemsResponse { accepted }))
            }
            Err(refusal) => {
                observe(CATALOG, refusal.code(), since.elapsed());
                Err(refusal.into())
            }
        }
    }
}

/// The incoming side of one stream.
struct Reader {
    door: GrpcDoor,
    caller: Caller,
    trace: Context,
    requests: Streaming<StreamRequest>,
}

type Read = Result<(u64, Submitted, Instant), Status>;

impl Reader {
    /// The next request, queued, and the reader for the ones after it. A refusal ends the stream,
    /// after the answers to what came before it.
    async fn next(mut self) -> Option<(Read, Option<Self>)> {
        let request = tokio::select! {
            biased;
            () = self.door.house.lifecycle.drain_requested() => {
                return Some((Err(self.door.draining().into()), None));
            }
            request = self.requests.message() => request,
        };
        let since = Instant::now();
        match request {
            Ok(Some(StreamRequest { sequence, events })) => {
                match self.door.accept(&self.caller, &self.trace, events).await {
                    Ok(submitted) => Some((Ok((sequence, submitted, since)), Some(self))),
                    Err(refusal) => {
                        observe(STREAM, refusal.code(), since.elapsed());
                        Some((Err(refusal.into()), None))
                    }
                }
            }
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }
}
