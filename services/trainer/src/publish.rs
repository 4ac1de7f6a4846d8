//! What is live: followed from the models topic, changed by one announcement at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prost::Message as _;
use rapport_events::{EventTime, Tenant};
use rapport_kafka::{KafkaArgs, Publisher, PublisherSettings, compacted, headers};
use rapport_proto::models::ModelAnnouncement;
use rapport_registry::{ArtifactRef, Challenger, Live, Registry};
use rapport_runtime::{Lifecycle, OwnedThread};
use rdkafka::message::OwnedHeaders;

use crate::Error;

/// The models that are live, by `<tenant>/<name>`.
#[derive(Default)]
struct Known(Mutex<HashMap<String, Live>>);

impl Known {
    fn get(&self, key: &str) -> Option<Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Takes what is newer; returns whether it was.
    fn take(&self, live: Live) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = known.get(&live.key()).is_none_or(|before| before.epoch < live.epoch);
        if newer {
            metrics::gauge!("rapport_trainer_live_epoch", "tenant" => live.tenant.clone(), "model" => live.name.clone())
                .set(live.epoch as f64);
            known.insert(live.key(), live);
        }
        newer
    }
}

/// Promotes and rolls back.
pub struct Models {
    registry: Registry,
    known: Arc<Known>,
    publisher: Publisher,
    topic: String,
    /// One change at a time: each announcement's epoch follows the one before it.
    changing: tokio::sync::Mutex<()>,
    /// Whether the winner of a run is first tried in the shadow of what is live.
    trials: bool,
}

impl Models {
    /// Follows the models topic (the thread is the caller's to join) and keeps `live.json` of each
    /// model at what was announced last.
    ///
    /// # Errors
    /// A Kafka setting that librdkafka does not take, or no thread.
    pub fn start(kafka: &KafkaArgs, registry: Registry, lifecycle: &Lifecycle) -> Result<(Self, OwnedThread), Error> {
        let known = Arc::new(Known::default());
        let topic = kafka.topics().models;
        let (followed, records) = (Arc::clone(&known), registry.clone());
        let component = lifecycle.component("models");
        let thread = compacted::follow(kafka, &topic, lifecycle, component, move |record| {
            let Some(value) = record.value else { return };
            let live = ModelAnnouncement::decode(value)
                .map_err(|e| e.to_string())
                .and_then(|announcement| Live::try_from(announcement).map_err(|e| e.to_string()));
            match live {
                Ok(live) => {
                    if followed.take(live.clone())
                        && let Err(error) = records.set_live(&live)
                    {
                        tracing::warn!(%error, "live.json cannot be written");
                    }
                }
                Err(error) => {
                    let key = String::from_utf8_lossy(record.key);
                    tracing::warn!(%key, %error, "an announcement cannot be read; it is left out");
                }
            }
        })?;
        let publisher = Publisher::new(kafka, &PublisherSettings::new("rapport-trainer"))?;
        Ok((Self { registry, known, publisher, topic, changing: tokio::sync::Mutex::new(()), trials: false }, thread))
    }

    /// Winners of runs are tried in the shadow of what is live, before they take its place.
    #[must_use]
    pub fn with_trials(mut self, trials: bool) -> Self {
        self.trials = trials;
        self
    }

    /// Every model that is on trial where nobody sees it.
    pub fn in_shadow(&self) -> Vec<(Live, Challenger)> {
        let known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden = |live: &Live| {
            let challenger = live.challenger.clone().filter(|challenger| challenger.share == 0.0);
            challenger.map(|challenger| (live.clone(), challenger))
        };
        known.values().filter_map(hidden).collect()
    }

    /// Makes the winner of a run live, or puts it on trial first where something is live already. Returns
    /// whether it is live.
    ///
    /// # Errors
    /// As [`Self::promote`].
    pub async fn winner(&self, tenant: &Tenant, name: &str, version: &str) -> Result<(Live, bool), Error> {
        let has_champion = self.live(tenant, name)?.is_some_and(|live| !live.champion.is_empty());
        if self.trials && has_champion {
            return Ok((self.challenge(tenant, name, version, 0.0, false).await?, false));
        }
        Ok((self.promote(tenant, name, version, false).await?, true))
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is live now: what the topic says, else the registry's own record.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn live(&self, tenant: &Tenant, name: &str) -> Result<Option<Live>, Error> {
        match self.known.get(&format!("{tenant}/{name}")) {
            Some(live) => Ok(Some(live)),
            None => Ok(self.registry.live(tenant, name)?),
        }
    }

    /// Makes a version live once its artifact is verified.
    ///
    /// # Errors
    /// No such version, a corrupt one, one that did not pass its gate (unless `force`), or Kafka did
    /// not take the announcement.
    pub async fn promote(&self, tenant: &Tenant, name: &str, version: &str, force: bool) -> Result<Live, Error> {
        let (registry, of, named, asked) = (self.registry.clone(), tenant.clone(), name.to_owned(), version.to_owned());
        let (artifact, reference) = on_a_thread(move || registry.artifact(&of, &named, &asked)).await??;
        let gate = &artifact.manifest().description.verdict.gate;
        if !gate.passed && !force {
            return Err(Error::Gate { version: version.into(), reason: gate.reason.clone() });
        }
        let reason = match (gate.passed, force) {
            (true, _) => format!("promoted: {}", gate.reason),
            (false, _) => format!("forced by an operator, although {}", gate.reason),
        };
        self.announce(tenant, name, |current| Ok(Live::succeeding(current, &reference, reason, EventTime::now()))).await
    }

    /// Tries a version beside the live one, for a share of the customers, once its artifact is verified.
    ///
    /// # Errors
    /// Nothing is live; the version is; no such version, a corrupt one, one that customers would see although
    /// it did not pass its gate (unless `force`); or Kafka did not take the announcement.
    pub async fn challenge(
        &self,
        tenant: &Tenant,
        name: &str,
        version: &str,
        share: f64,
        force: bool,
    ) -> Result<Live, Error> {
        let (registry, of, named, asked) = (self.registry.clone(), tenant.clone(), name.to_owned(), version.to_owned());
        let (artifact, reference) = on_a_thread(move || registry.artifact(&of, &named, &asked)).await??;
        let gate = &artifact.manifest().description.verdict.gate;
        if share > 0.0 && !gate.passed && !force {
            return Err(Error::Gate { version: version.into(), reason: gate.reason.clone() });
        }
        let shown = if share > 0.0 { format!("for {share} of the customers") } else { "unseen".into() };
        let reason = format!("{version} is on trial, {shown}");
        self.announce(tenant, name, |current| match current.filter(|live| !live.champion.is_empty()) {
            Some(live) if live.champion == version => {
                Err(Error::Trial { reason: format!("{version} is live already") })
            }
            Some(live) => Ok(live.challenged_by(Some(Challenger::of(&reference, share)), reason, EventTime::now())),
            None => Err(Error::Trial { reason: format!("no version of {name} is live to be tried against") }),
        })
        .await
    }

    /// Ends a trial; the live version stays.
    ///
    /// # Errors
    /// There is none, or Kafka did not take the announcement.
    pub async fn end_trial(&self, tenant: &Tenant, name: &str, reason: &str) -> Result<Live, Error> {
        self.announce(tenant, name, |current| match current.filter(|live| live.challenger.is_some()) {
            Some(live) => Ok(live.challenged_by(None, reason.to_owned(), EventTime::now())),
            None => Err(Error::Trial { reason: format!("no version of {name} is on trial") }),
        })
        .await
    }

    /// Makes the version before the live one live again, once its artifact is verified.
    ///
    /// # Errors
    /// There is none before it, its artifact is corrupt, or Kafka did not take the announcement.
    pub async fn rollback(&self, tenant: &Tenant, name: &str) -> Result<Live, Error> {
        let nothing = || Error::NothingBefore { name: name.into() };
        let previous =
            self.live(tenant, name)?.map(|live| live.previous).filter(|p| !p.is_empty()).ok_or_else(nothing)?;
        let (registry, of, named, asked) = (self.registry.clone(), tenant.clone(), name.to_owned(), previous.clone());
        let (_, reference): (_, ArtifactRef) = on_a_thread(move || registry.artifact(&of, &named, &asked)).await??;
        self.announce(tenant, name, |current| match current {
            Some(live) if live.previous == previous => {
                let reason = format!("rolled back from {} by an operator", live.champion);
                Ok(Live::succeeding(current, &reference, reason, EventTime::now()))
            }
            Some(_) | None => Err(nothing()),
        })
        .await
    }

    async fn announce(
        &self,
        tenant: &Tenant,
        name: &str,
        next: impl FnOnce(Option<&Live>) -> Result<Live, Error>,
    ) -> Result<Live, Error> {
        let _one_at_a_time = self.changing.lock().await;
        let live = next(self.live(tenant, name)?.as_ref())?;
        let value = live.announcement().encode_to_vec();
        let mut to = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
        to = rapport_kafka::trace::inject(headers::with(to, headers::TENANT, tenant.as_str()));
        let mut batch = self.publisher.batch(1);
        batch
            .send(&self.topic, Some(live.key().as_bytes()), Some(&value), to)
            .map_err(|e| Error::Announcement(e.to_string()))?;
        for result in batch.acknowledged().await {
            result.map_err(|e| Error::Announcement(e.to_string()))?;
        }
        self.known.take(live.clone());
        self.registry.set_live(&live)?;
        tracing::info!(model = %live.key(), version = %live.champion, epoch = live.epoch, reason = %live.reason, "live");
        Ok(live)
    }
}

/// Verifying an artifact reads every byte of it: not on a runtime's worker.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("verify".into())
        .spawn(move || send.send(work()).is_ok())
        .map_err(Error::Thread)?;
    let result = receive.await.map_err(|_| Error::Panicked("the artifact's reader".into()))?;
    // It has sent its result: joining takes no time.
    thread.join().map_err(|_| Error::Panicked("the artifact's reader".into()))?;
    Ok(result)
}
