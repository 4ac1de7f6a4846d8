//! Gorse's REST API: its clients work unchanged. Reads are answered where gRPC's are ([`read`]); writes
//! become the records that the collector's doors write, and are answered once Kafka has them ([`write`]).
//! docs/scorer.md lists every path.

mod ask;
mod fault;
mod publish;
mod read;
mod wire;
mod write;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts},
    http::request::Parts,
    routing::{MethodRouter, get, post, put},
};
use rapport_admission::{
    key_list::KeyList,
    keys::{Caller, Door as KeyDoor, Keys, KeysError},
};
use rapport_runtime::{Lifecycle, parse_duration};
use tokio::sync::OwnedSemaphorePermit;

use self::{fault::Fault, publish::Publish};
use super::http::observed;
use crate::{error::Error, serve::Service};

/// The door's name in metrics.
pub const NAME: &str = "gorse";
/// Largest body in bytes.
const BODY_BYTES: usize = 2 << 20;
/// What a call may take beside its wait for Kafka.
const READING: Duration = Duration::from_secs(20);

/// Gorse's REST API, and who may call it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Gorse's REST API")]
pub struct GorseArgs {
    /// Where Gorse's REST API is served, 127.0.0.1:7502 for example; it is not served unless this is given
    #[arg(long, env = "RAPPORT_GORSE_ADDR")]
    pub gorse_addr: Option<SocketAddr>,

    /// API keys and their tenants for it, as "<key>=<tenant>,...": the collector's setting of the same name
    #[arg(long, env = "RAPPORT_API_KEYS", hide_env_values = true)]
    pub api_keys: Option<KeyList>,

    /// A YAML file of API keys with their limits, read again when it changes: the collector's (see
    /// docs/collector.md). A key that lists doors needs `gorse` among them
    #[arg(long, env = "RAPPORT_API_KEYS_FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// How long Kafka may take to acknowledge a write before its sender is told to send it again
    #[arg(long, env = "RAPPORT_GORSE_ACK_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub gorse_ack_timeout: Duration,
}

impl GorseArgs {
    /// Reads the API keys.
    ///
    /// # Errors
    /// There are none, or one is wrong.
    pub fn keys(&self) -> Result<Keys, KeysError> {
        Keys::load("scorer", self.api_keys.as_ref(), self.api_keys_file.as_deref(), None)
    }
}

/// The door and what it asks.
pub struct Gorse {
    service: Arc<Service>,
    pub keys: Keys,
    publish: Publish,
    lifecycle: Lifecycle,
}

impl Gorse {
    /// # Errors
    /// The keys cannot be used, or a setting that librdkafka does not take.
    pub fn new(
        args: &GorseArgs,
        kafka: &rapport_kafka::KafkaArgs,
        service: Arc<Service>,
        lifecycle: Lifecycle,
    ) -> Result<Self, Error> {
        let keys = args.keys().map_err(|error| Error::Config(error.to_string()))?;
        Ok(Self { service, keys, publish: Publish::new(kafka, args.gorse_ack_timeout)?, lifecycle })
    }

    /// Waits for what is on its way to Kafka.
    pub async fn flush(&self) {
        self.publish.flush().await;
    }
}

/// Every path.
pub fn router(gorse: Arc<Gorse>, args: &GorseArgs) -> Router {
    let within = READING + args.gorse_ack_timeout;
    let routes: Vec<(&'static str, MethodRouter<Arc<Gorse>>)> = vec![
        ("/api/health/live", get(read::live)),
        ("/api/health/ready", get(read::ready)),
        ("/api/recommend/{user}", get(read::recommend)),
        ("/api/recommend/{user}/", get(read::recommend)),
        ("/api/recommend/{user}/{category}", get(read::recommend_of)),
        ("/api/item/{item}/neighbors", get(read::neighbors)),
        ("/api/item/{item}/neighbors/", get(read::neighbors)),
        ("/api/item/{item}/neighbors/{category}", get(read::neighbors_of)),
        ("/api/session/recommend", post(read::session)),
        ("/api/session/recommend/{category}", post(read::session_of)),
        ("/api/popular", get(read::popular)),
        ("/api/popular/{category}", get(read::popular_of)),
        ("/api/latest", get(read::latest)),
        ("/api/latest/{category}", get(read::latest_of)),
        ("/api/user/{user}/feedback", get(read::feedback)),
        ("/api/user/{user}/feedback/{type}", get(read::feedback_of)),
        ("/api/feedback", get(kept).post(write::feedback).put(write::feedback_anew)),
        ("/api/feedback/{type}", get(kept)),
        ("/api/feedback/{user}/{item}", get(kept).delete(undone)),
        ("/api/feedback/{type}/{user}/{item}", get(kept).delete(undone)),
        ("/api/item/{item}/feedback", get(kept)),
        ("/api/item/{item}/feedback/", get(kept)),
        ("/api/item/{item}/feedback/{type}", get(kept)),
        ("/api/item", post(write::item)),
        ("/api/items", get(read::items).post(write::items)),
        ("/api/item/{item}", get(read::item).patch(write::patch_item).delete(write::remove_item)),
        ("/api/item/{item}/category/{category}", put(write::add_category).delete(write::remove_category)),
        ("/api/user", post(write::user)),
        ("/api/users", get(no_users).post(write::users)),
        ("/api/user/{user}", get(read::user).patch(write::patch_user).delete(no_erasure)),
        ("/api/user/{user}/neighbors", get(no_user_neighbors)),
        ("/api/user/{user}/neighbors/", get(no_user_neighbors)),
    ];
    let mut router = Router::new();
    for (path, methods) in routes {
        router = router.route(path, observed(NAME, path, within, methods));
    }
    let nothing = async || Fault::NotFound("nothing is served at this path; docs/scorer.md lists them all".into());
    router.fallback(nothing).layer(DefaultBodyLimit::max(BODY_BYTES)).with_state(gorse)
}

// What Gorse has and Rapport has not.

async fn kept(_: Who) -> Fault {
    Fault::NotOffered("Rapport keeps feedback as events; read them from the topic of clean events or the offline log")
}

async fn undone(_: Who) -> Fault {
    Fault::NotOffered("what happened stays on the log; hide or delete an item to take it out of every list")
}

async fn no_users(_: Who) -> Fault {
    Fault::NotOffered("Rapport keeps no list of users; read customers from the offline log")
}

async fn no_erasure(_: Who) -> Fault {
    Fault::NotOffered("Rapport keeps no users beside their events; who withdraws consent: `rapportctl consent`")
}

async fn no_user_neighbors(_: Who) -> Fault {
    Fault::NotOffered("there are neighbours of items only")
}

/// Who calls.
struct Who(Caller);

impl FromRequestParts<Arc<Gorse>> for Who {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, gorse: &Arc<Gorse>) -> Result<Self, Fault> {
        let key = parts.headers.get("x-api-key").and_then(|key| key.to_str().ok());
        let key = key.map(str::trim).filter(|key| !key.is_empty());
        Ok(Self(gorse.keys.caller(key, KeyDoor::Gorse)?))
    }
}

/// Who sends a body, and the place that it takes: asked for before it is read.
struct Sender {
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

impl FromRequestParts<Arc<Gorse>> for Sender {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, gorse: &Arc<Gorse>) -> Result<Self, Fault> {
        let Who(caller) = Who::from_request_parts(parts, gorse).await?;
        Ok(Self { caller, _place: gorse.publish.place()? })
    }
}
