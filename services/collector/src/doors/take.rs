//! The way of a call over HTTP, from its head to its answer, the same for every wire shape: who calls,
//! room, the body, unpacking, reading, the quota, judging, Kafka, and what became of it.

use std::{collections::VecDeque, sync::OnceLock};

use axum::{
    body::Body,
    http::{Method, header},
};
use bytes::Bytes;
use rapport_events::{EventTime, FieldError, limits::ID_BYTES};
use rapport_proto::events::Event;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    EVENTS_AT_A_TIME, House,
    body::{self, BodyError},
    client::Client,
    shape::{Head, Limits, Sender, Shape, Slice, Wrong},
};
use crate::{
    admit,
    error::Refusal,
    publish::{Fate, Letter, ORIGINAL_BYTES, OVERHEAD_BYTES, Origin, Original, Pending, Room, count},
    quota::Spent,
};

/// Larger bodies are unpacked and read off the runtime's workers' turn.
/// Moving a worker's tasks to another thread costs more than the half millisecond that this takes.
const SMALL_BODY: usize = 128 << 10;
/// Refused events that an answer lists.
pub const LISTED: usize = 100;
/// Slices of one call that wait for Kafka at once: while one travels, the next is read.
const SLICES_IN_FLIGHT: usize = 2;

/// What became of the events of a call.
#[derive(Debug, Default)]
pub struct Account {
    /// On the raw topic.
    pub accepted: usize,
    /// Wrong, and kept on the dead topic.
    pub dead: usize,
    /// Wrong, and told to their sender.
    pub refused: usize,
    /// To be sent again: there was no room for them.
    pub no_room: usize,
    /// To be sent again: they may or may not be on the log.
    pub unacknowledged: usize,
    /// The first [`LISTED`] refused ones: where they stand and why.
    pub listed: Vec<(usize, FieldError)>,
}

impl Account {
    const fn retry(&self) -> usize {
        self.no_room + self.unacknowledged
    }

    fn count(&self, door: &'static str) {
        let retry = self.retry();
        for (outcome, number) in
            [("accepted", self.accepted), ("dead", self.dead), ("refused", self.refused), ("retry", retry)]
        {
            count(door, outcome, number);
        }
    }

    fn refuse(&mut self, place: usize, error: FieldError) {
        self.refused += 1;
        if self.listed.len() < LISTED {
            self.listed.push((place, error));
        }
    }
}

/// A body's hash, made when first asked for: for ids that the same body always gives.
pub struct BodyHash<'a> {
    body: &'a [u8],
    hex: OnceLock<String>,
}

impl<'a> BodyHash<'a> {
    pub const fn of(body: &'a [u8]) -> Self {
        Self { body, hex: OnceLock::new() }
    }

    /// 128 bits of SHA-256 over the body, in hex.
    pub fn hex(&self) -> &str {
        self.hex.get_or_init(|| hex::encode(Sha256::digest(self.body).get(..16).unwrap_or_default()))
    }
}

/// Takes one call: every event is on the raw topic, kept on the dead one, or accounted for otherwise.
/// The account stands also when the call as a whole is refused: some of it may have been taken.
///
/// # Errors
/// The call as a whole is refused.
pub async fn take(
    house: &House,
    shape: &dyn Shape,
    head: &Head,
    sent: Body,
    account: &mut Account,
) -> Result<(), Refusal> {
    // A wrong key in the head needs no body; one in the body is looked up when it has been read.
    let sender = shape.sender(house, head)?;
    let limits = shape.limits(house);
    let (body, room) = receive(house, shape, head, sent, &limits).await?;
    let slices = shape.slices(&body, limits.events)?;
    let call = Call { house, shape, head, limits, hash: BodyHash::of(&body) };
    let taken = call.publish(sender, slices, room, account).await;
    account.count(shape.door().name());
    taken
}

/// The body, unpacked, and the room that it takes.
async fn receive(
    house: &House,
    shape: &dyn Shape,
    head: &Head,
    sent: Body,
    limits: &Limits,
) -> Result<(Bytes, Room), Refusal> {
    let mut grant = Grant { house, room: house.publish.try_room(0).ok_or_else(|| house.overloaded())?, limits };
    if head.method == Method::GET {
        return Ok((shape.open(head, Bytes::new())?, grant.room));
    }
    let encodings = shape.encodings(head)?;
    let announced = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: usize| bytes > limits.body) {
        return Err(BodyError::TooLarge { limit: limits.body }.into());
    }
    if !grant.up_to(announced.unwrap_or(body::STEP)) {
        return Err(house.overloaded());
    }
    let refusal = |error: BodyError| if error == BodyError::NoRoom { house.overloaded() } else { error.into() };
    let packed = body::read(sent, limits.body, limits.patience, |bytes| grant.up_to(bytes)).await.map_err(refusal)?;
    let body = if encodings.is_empty() {
        packed
    } else {
        let held = packed.len();
        let unpack = || body::inflate(&packed, &encodings, limits.body, |bytes| grant.up_to(held + bytes));
        off_the_worker(held, unpack).map_err(refusal)?
    };
    let body = shape.open(head, body)?;
    grant.room.shrink_to(body.len());
    Ok((body, grant.room))
}

/// Room that grows with a body.
struct Grant<'a> {
    house: &'a House,
    room: Room,
    limits: &'a Limits,
}

impl Grant<'_> {
    /// Whether there is room for `bytes` in all.
    fn up_to(&mut self, bytes: usize) -> bool {
        let publish = &self.house.publish;
        let missing = bytes.saturating_sub(self.room.bytes());
        if missing == 0 {
            return true;
        }
        let half = self.house.limits.max_in_flight_bytes / 2;
        if self.limits.gives_way && publish.bytes_in_flight() + missing > half {
            return false;
        }
        let more = publish.try_room(missing);
        let granted = more.is_some();
        if let Some(more) = more {
            self.room.join(more);
        }
        granted
    }
}

/// A call whose body is there.
struct Call<'a> {
    house: &'a House,
    shape: &'a dyn Shape,
    head: &'a Head,
    limits: Limits,
    hash: BodyHash<'a>,
}

/// A slice on its way.
struct Flight {
    pending: Pending,
    lines: Vec<usize>,
    /// The places in the slice of what goes to the dead topic, in order.
    dead: Vec<usize>,
}

/// An event that is wrong, and whom it is about.
struct Bad {
    error: FieldError,
    who: String,
}

type Judged = Result<Event, Bad>;

impl Call<'_> {
    /// Publishes slice after slice, each only when the one before the last is on the log: so that a
    /// customer's events keep their order, and memory its bound.
    async fn publish(
        &self,
        mut sender: Option<Sender>,
        slices: Vec<Slice>,
        room: Room,
        account: &mut Account,
    ) -> Result<(), Refusal> {
        // Beyond it the connection would count as idle.
        let end = Instant::now() + self.house.limits.idle_timeout.mul_f32(0.8);
        let (several, last) = (slices.len() > 1, slices.len().saturating_sub(1));
        let mut total: usize = slices.iter().map(|slice| slice.lines.len()).sum();
        let mut room = Some(room);
        let mut client = None;
        let mut spent: Option<Spent> = None;
        let mut flights: VecDeque<Flight> = VecDeque::with_capacity(SLICES_IN_FLIGHT);
        let mut told = None;
        for (number, slice) in slices.into_iter().enumerate() {
            let parse = || self.shape.parse(self.head, &slice.bytes, self.limits.events);
            let parsed = off_the_worker(slice.bytes.len(), parse)?;
            let sender = match &mut sender {
                Some(sender) => sender,
                none => none.insert(self.shape.sender_in(self.house, self.head, &parsed)?),
            };
            client = client.or_else(|| self.client(sender));
            let judged = self.judge(client.as_ref(), &slice, parsed.events);
            if let ([Err(bad)], Wrong::Told, false) = (judged.as_slice(), self.shape.wrong(), several) {
                if client.is_none() {
                    account.refuse(0, bad.error.clone());
                    return Err(bad.error.clone().into());
                }
                told = Some(bad.error.clone());
            }
            if !several {
                total = judged.len();
            }
            let (letters, originals) = self.originals(&slice, &judged)?;
            // The whole call is paid at once: one that was let in to a part would be sent again whole.
            if let (None, Some(quota)) = (&spent, &sender.quota) {
                spent = Some(quota.take(total)?.spend());
            }
            let needs = slice.bytes.len() + judged.len() * OVERHEAD_BYTES;
            let room = match room.take_if(|_| number == last) {
                Some(mut room) => {
                    room.shrink_to(needs);
                    let more = self.house.publish.try_room(needs.saturating_sub(room.bytes()));
                    more.map(|more| {
                        room.join(more);
                        room
                    })
                }
                None => self.wait_for_room(needs, end).await,
            };
            let Some(room) = room else {
                account.no_room += judged.len();
                break;
            };
            let pending = self.submit(sender, judged, originals, room).await;
            flights.push_back(Flight { pending, lines: slice.lines, dead: letters });
            while flights.len() >= SLICES_IN_FLIGHT || number == last {
                let Some(flight) = flights.pop_front() else { break };
                self.settle(flight, end, account).await;
            }
            if account.retry() > 0 {
                break;
            }
        }
        for flight in flights {
            self.settle(flight, end, account).await;
        }
        if let Some(spent) = spent {
            // What was never submitted is to be sent again, too.
            spent.refund(total.saturating_sub(account.accepted + account.dead + account.refused));
        }
        self.verdict(total, told, account)
    }

    /// The device that called; `None` where a server did.
    fn client(&self, sender: &Sender) -> Option<Client> {
        let policy = self.house.policies.load().of(&sender.tenant).collect;
        let collect = self.shape.of_device(self.head, policy)?;
        Some(Client::of(self.head.peer, &self.head.headers, &self.house.http.trusted_proxies, collect))
    }

    fn judge(&self, client: Option<&Client>, slice: &Slice, events: Vec<Result<Event, FieldError>>) -> Vec<Judged> {
        let judged = |(n, event): (usize, Result<Event, FieldError>)| {
            let mut event = event.map_err(|error| Bad { error, who: String::new() })?;
            if event.event_id.is_empty()
                && let Some(id) = self.shape.event_id(&self.hash, slice.place(n))
            {
                event.event_id = id;
            }
            if let Some(client) = client {
                client.describe(&mut event);
            }
            match admit::event(&mut event) {
                Ok(_) => Ok(event),
                Err(error) => {
                    let who = if event.customer_id.is_empty() { event.anonymous_id } else { event.customer_id };
                    // An id that was refused for its length makes no key.
                    Err(Bad { error, who: if who.len() > ID_BYTES { String::new() } else { who } })
                }
            }
        };
        events.into_iter().enumerate().map(judged).collect()
    }

    /// The places of the events that go to the dead topic, and the events as they came.
    fn originals(&self, slice: &Slice, judged: &[Judged]) -> Result<(Vec<usize>, Vec<Original>), Refusal> {
        let bad = judged.iter().enumerate().filter(|(_, event)| event.is_err()).map(|(n, _)| n);
        let bad: Vec<usize> = if self.shape.wrong() == Wrong::Listed { Vec::new() } else { bad.collect() };
        if bad.is_empty() {
            return Ok((bad, Vec::new()));
        }
        let originals = off_the_worker(slice.bytes.len(), || self.shape.originals(self.head, &slice.bytes, &bad));
        match bad.iter().zip(&originals).find(|(_, original)| original.value.len() > ORIGINAL_BYTES) {
            // It cannot even be kept as a dead letter, so nothing of the call is taken.
            Some((n, original)) => {
                let limit = format!("{ORIGINAL_BYTES} bytes in any event, event {n} has more");
                Err(Refusal::TooLarge { field: "body", limit, has: original.value.len().to_string() })
            }
            None => Ok((bad, originals)),
        }
    }

    async fn wait_for_room(&self, bytes: usize, end: Instant) -> Option<Room> {
        tokio::time::timeout_at(end, self.house.publish.room(bytes)).await.ok().flatten()
    }

    async fn submit(&self, sender: &Sender, judged: Vec<Judged>, originals: Vec<Original>, room: Room) -> Pending {
        let trace = tracing::Span::current().context();
        let origin = Origin { tenant: &sender.tenant, received_at: EventTime::now(), trace: &trace };
        let mut submission = self.house.publish.submit(&origin, judged.len());
        let mut originals = originals.into_iter();
        for (n, judged) in judged.into_iter().enumerate() {
            if n % EVENTS_AT_A_TIME == EVENTS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            match judged {
                Ok(event) => submission.event(&event),
                Err(Bad { error, .. }) if self.shape.wrong() == Wrong::Listed => submission.refuse(error),
                Err(Bad { error, who }) => submission.dead_letter(Letter {
                    error: &error,
                    stage: self.shape.door().stage(),
                    who: &who,
                    original: originals.next().unwrap_or_default(),
                }),
            }
        }
        submission.close(room)
    }

    /// Waits for Kafka, and writes down what it said.
    async fn settle(&self, flight: Flight, end: Instant, account: &mut Account) {
        let Flight { pending, lines, dead } = flight;
        let deadline = end.min(Instant::now() + self.house.limits.ack_timeout);
        for (n, fate) in pending.by(deadline).await.into_iter().enumerate() {
            match fate {
                Fate::Accepted if dead.binary_search(&n).is_ok() => account.dead += 1,
                Fate::Accepted => account.accepted += 1,
                Fate::Refused(error) => account.refuse(lines.get(n).copied().unwrap_or(n), error),
                Fate::NoRoom => account.no_room += 1,
                Fate::Unacknowledged => account.unacknowledged += 1,
            }
        }
    }

    fn verdict(&self, total: usize, told: Option<FieldError>, account: &Account) -> Result<(), Refusal> {
        let taken = account.accepted + account.dead;
        if account.retry() > 0 {
            if taken == 0 && account.unacknowledged == 0 {
                return Err(self.house.overloaded());
            }
            // Clients send all of a call again or nothing.
            let after = self.house.limits.retry_after;
            return Err(Refusal::NotAcknowledged { acknowledged: taken, sent: total, after });
        }
        let refused = account.listed.first().filter(|_| self.shape.wrong() != Wrong::Listed);
        match told.or_else(|| refused.map(|(_, error)| error.clone())) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Does work that takes longer than a turn where it does not hold up other tasks.
fn off_the_worker<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let can_move = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > SMALL_BODY && can_move { tokio::task::block_in_place(work) } else { work() }
}
