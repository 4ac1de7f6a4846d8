//! A client over all scorers, as gRPC's round robin is: calls go in turn to the instances that are there,
//! one whose connection breaks gets none until it says that it serves, and a call that failed is tried
//! once more on another one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rapport_proto::recommend::{
    Provenance, RecommendRequest, RecommendResponse, recommender_client::RecommenderClient,
};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::samples::NO_VERSION;
use crate::harness::{
    Service,
    clients::{Called, Caller, channel},
};

/// A caller's patience.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
pub const LIST: usize = 10;
/// How often an instance that is away is asked whether it is back.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(500);

pub struct Balancer {
    doors: Vec<Arc<Door>>,
    versions: [String; 2],
    next: AtomicUsize,
}

struct Door {
    name: String,
    uri: String,
    client: RecommenderClient<Called>,
    up: AtomicBool,
    /// Counts how often it went away: a late error of an older connection says nothing about this one.
    times_away: AtomicU32,
}

/// What one try brought.
pub struct Answer {
    pub scorer: u8,
    pub outcome: Result<List, String>,
}

/// What an answer says of itself.
#[derive(Debug, Clone, Copy)]
pub struct List {
    /// Of the two, or [`NO_VERSION`].
    pub version: u8,
    pub cache: u8,
    /// Whether something was missing.
    pub degraded: bool,
    /// Whether that was the model.
    pub without_model: bool,
}

impl Balancer {
    /// Name and address of each.
    pub fn over(scorers: &[(String, String)], versions: &[String; 2]) -> Self {
        let door = |(name, uri): &(String, String)| {
            Arc::new(Door {
                name: name.clone(),
                uri: uri.clone(),
                client: RecommenderClient::with_interceptor(channel(uri), Caller),
                up: AtomicBool::new(true),
                times_away: AtomicU32::new(0),
            })
        };
        Self { doors: scorers.iter().map(door).collect(), versions: versions.clone(), next: AtomicUsize::new(0) }
    }

    pub fn names(&self) -> Vec<String> {
        self.doors.iter().map(|door| door.name.clone()).collect()
    }

    /// In turn, one of those that are there; any when none is. Not `other_than` when there is a choice.
    pub fn pick(&self, other_than: Option<u8>) -> u8 {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.doors.len()).map(|n| (turn + n) % self.doors.len());
        let allowed = in_turn.filter(|n| other_than.is_none_or(|other| usize::from(other) != *n));
        let mut best = None;
        for n in allowed {
            if self.doors[n].up.load(Ordering::Acquire) {
                return n as u8;
            }
            best = best.or(Some(n));
        }
        best.map_or(0, |n| n as u8)
    }

    pub async fn ask(&self, scorer: u8, customer: &str) -> Answer {
        let door = &self.doors[usize::from(scorer)];
        let before = door.times_away.load(Ordering::Acquire);
        let request = RecommendRequest { customer_id: customer.to_owned(), limit: LIST as u32, ..Default::default() };
        let mut client = door.client.clone();
        let outcome = match timeout(ANSWER_WITHIN, client.recommend(request)).await {
            Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
            Ok(Ok(answer)) => self.read(&answer.into_inner()),
            Ok(Err(status)) => {
                if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal) {
                    Door::away(door, before);
                }
                Err(format!("{:?}: {}", status.code(), status.message()))
            }
        };
        Answer { scorer, outcome }
    }

    fn read(&self, answer: &RecommendResponse) -> Result<List, String> {
        if answer.items.len() != LIST {
            return Err(format!("a list of {}: {:?}", answer.items.len(), answer.provenance));
        }
        let nothing = Provenance::default();
        let provenance = answer.provenance.as_ref().unwrap_or(&nothing);
        let version = self.versions.iter().position(|version| *version == provenance.model_version);
        Ok(List {
            version: version.map_or(NO_VERSION, |place| place as u8),
            cache: provenance.cache() as i32 as u8,
            degraded: !provenance.degraded.is_empty(),
            without_model: provenance.degraded.iter().any(|part| part == "model"),
        })
    }
}

impl Door {
    /// No calls until it serves; unless that was noticed already.
    fn away(door: &Arc<Self>, before: u32) {
        let now = before.wrapping_add(1);
        if door.times_away.compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        door.up.store(false, Ordering::Release);
        let door = Arc::clone(door);
        tokio::spawn(async move {
            while door.serves().await != Some(true) {
                sleep(LOOK_EVERY).await;
            }
            door.up.store(true, Ordering::Release);
        });
    }

    async fn serves(&self) -> Option<bool> {
        let service = Service::Scorer.grpc_service().unwrap_or_default().to_owned();
        let mut health = HealthClient::new(channel(&self.uri));
        let asked = timeout(LOOK, health.check(HealthCheckRequest { service })).await;
        Some(asked.ok()?.ok()?.get_ref().status() == ServingStatus::Serving)
    }
}
