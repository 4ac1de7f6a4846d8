//! Brings announced models to life: verify, load, warm up, swap, and only then let the old one go.
//! All of it on one thread of its own, beside the requests.
//!
//! An artifact that is not what was announced is refused: the model before it keeps serving, and
//! loading is tried again, because the files may still be on their way.

use std::{
    collections::HashMap,
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use prost::Message as _;
use rapport_events::{FieldError, Tenant};
use rapport_inference::{Asked, BatchSettings, Retrieval, Workers};
use rapport_proto::models::ModelAnnouncement;
use rapport_registry::{Artifact, Registry};
use rapport_runtime::{Component, Lifecycle, OwnedThread, spawn_thread};

use super::{Challenger, LiveModel, Models, Standing};
use crate::{cache::list::ModelStamp, error::Error, pipeline::Tag};

/// Announcements that wait for the loader; the follower waits when there are more.
const QUEUE: usize = 1024;
/// How often retired models are looked after when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// A warm-up run that takes longer than this would take longer in a request too.
const WARM_UP: Duration = Duration::from_secs(30);

/// How models are loaded.
#[derive(Debug, Clone)]
pub struct LoaderSettings {
    pub registry: PathBuf,
    /// Announcements of other names are not for this scorer.
    pub model_name: String,
    pub threads: usize,
    pub queue: usize,
    /// From so many items on, the items of a model that comes in two parts are searched.
    pub retrieve_from: usize,
}

/// Hands announcements from the topic to the loader's thread.
pub struct Announcements {
    model_name: String,
    loader: SyncSender<(Tenant, ModelAnnouncement)>,
}

impl Announcements {
    /// Takes one record of the models topic. A tombstone says what an empty champion says, but has
    /// no epoch: it is left to compaction.
    ///
    /// # Errors
    /// The record is no announcement.
    pub fn take(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), FieldError> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(()) };
        let announcement = ModelAnnouncement::decode(value)
            .map_err(|e| FieldError::decode("value", format!("is no announcement: {e}")))?;
        let tenant = Tenant::parse(&announcement.tenant)?;
        if key != format!("{tenant}/{}", announcement.name).as_bytes() {
            let key = String::from_utf8_lossy(key).into_owned();
            return Err(FieldError::schema("key", format!("is {key:?} for {tenant}/{}", announcement.name)));
        }
        if announcement.name == self.model_name && self.loader.send((tenant, announcement)).is_err() {
            tracing::debug!("the loader has ended");
        }
        Ok(())
    }
}

/// Starts the loader. `component` becomes ready when `topic_read` is and the first attempt for every
/// announced model has been made: a scorer that restarts does not answer without its model.
///
/// # Errors
/// No thread.
pub fn start(
    settings: LoaderSettings,
    models: Arc<Models>,
    lifecycle: &Lifecycle,
    component: Component,
    topic_read: impl Fn() -> bool + Send + 'static,
) -> Result<(Announcements, OwnedThread), Error> {
    let (send, announced) = sync_channel(QUEUE);
    let announcements = Announcements { model_name: settings.model_name.clone(), loader: send };
    let runtime = tokio::runtime::Handle::current();
    let mut loader = Loader { settings, models, runtime, wanted: HashMap::new(), retired: Vec::new() };
    component.waiting("reading announcements");
    let inside = lifecycle.clone();
    let thread = spawn_thread::<Infallible, _>(lifecycle, "model-loader", move || {
        loader.run(&inside, &component, &announced, topic_read);
        Ok(())
    })
    .map_err(Error::Thread)?;
    Ok((announcements, thread))
}

/// A tenant's newest announcement and how loading it goes.
struct Wanted {
    announcement: ModelAnnouncement,
    attempts: u32,
    /// When to try (again); `None` when it is done.
    due: Option<Instant>,
}

struct Loader {
    settings: LoaderSettings,
    models: Arc<Models>,
    runtime: tokio::runtime::Handle,
    wanted: HashMap<Tenant, Wanted>,
    /// Swapped out, and perhaps still in use by a call. This thread lets go of them last, since
    /// that joins their inference threads.
    retired: Vec<Arc<LiveModel>>,
}

impl Loader {
    fn run(
        &mut self,
        lifecycle: &Lifecycle,
        component: &Component,
        announced: &Receiver<(Tenant, ModelAnnouncement)>,
        topic_read: impl Fn() -> bool,
    ) {
        let mut ready = false;
        while !lifecycle.draining() {
            // Asked before the queue is emptied: then what the topic held has passed through here.
            let read = topic_read();
            match announced.recv_timeout(TICK) {
                Ok((tenant, announcement)) => {
                    self.want(tenant, announcement);
                    announced.try_iter().for_each(|(tenant, announcement)| self.want(tenant, announcement));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK),
            }
            let due: Vec<Tenant> = self
                .wanted
                .iter()
                .filter(|(_, wanted)| wanted.due.is_some_and(|due| due <= Instant::now()))
                .map(|(tenant, _)| tenant.clone())
                .collect();
            for tenant in due {
                self.attempt(&tenant);
            }
            self.retired.retain(|model| Arc::strong_count(model) > 1);
            if !ready && read && self.wanted.values().all(|w| w.attempts > 0 || w.due.is_none()) {
                component.ready();
                ready = true;
            }
        }
    }

    /// Notes an announcement, unless it is older than what is known.
    fn want(&mut self, tenant: Tenant, announcement: ModelAnnouncement) {
        if self.wanted.get(&tenant).is_some_and(|known| known.announcement.epoch >= announcement.epoch) {
            return;
        }
        self.wanted.insert(tenant, Wanted { announcement, attempts: 0, due: Some(Instant::now()) });
    }

    fn attempt(&mut self, tenant: &Tenant) {
        let Some(wanted) = self.wanted.get_mut(tenant) else { return };
        let announcement = wanted.announcement.clone();
        if announcement.champion.is_empty() {
            wanted.due = None;
            tracing::info!(%tenant, model = %announcement.name, reason = %announcement.reason, "taken out of service");
            self.swap(tenant, Standing::default());
            return;
        }
        wanted.attempts += 1;
        let attempts = wanted.attempts;
        let before = self.models.of(tenant);
        let champion = Version::champion(&announcement);
        let outcome = self.loaded(&champion, before.model.as_ref());
        match outcome {
            Ok(model) => {
                let challenger = self.challenger(tenant, &announcement, &before);
                let trying = announcement.challenger.is_some() && challenger.is_none();
                if let Some(wanted) = self.wanted.get_mut(tenant) {
                    wanted.due = trying.then(|| Instant::now() + backoff(attempts));
                }
                metrics::gauge!("rapport_scorer_model_epoch", "tenant" => tenant.to_string())
                    .set(announcement.epoch as f64);
                if before.model.as_ref().is_none_or(|serving| !Arc::ptr_eq(serving, &model)) {
                    tracing::info!(
                        %tenant, model = %model.name, version = %model.version, epoch = model.stamp.epoch,
                        items = model.item_count(), searched = model.ranker.retrieves(), reason = %announcement.reason, "model is live"
                    );
                }
                self.swap(tenant, Standing { model: Some(model), challenger, ..Standing::default() });
            }
            Err(reason) => {
                let retry = backoff(attempts);
                if let Some(wanted) = self.wanted.get_mut(tenant) {
                    wanted.due = Some(Instant::now() + retry);
                }
                let keeps = before.model.as_ref().map_or("none", |m| m.version.as_str());
                if attempts == 1 {
                    tracing::error!(
                        %tenant, version = %announcement.champion, epoch = announcement.epoch, %reason, serving = keeps,
                        "an announced model is refused; the one before it keeps serving, loading is tried again"
                    );
                } else {
                    tracing::debug!(%tenant, version = %announcement.champion, %reason, attempts, ?retry, "still refused");
                }
                if before.model.is_none() {
                    self.swap(tenant, Standing { missing: true, ..Standing::default() });
                }
            }
        }
    }

    /// The version that is to be tried; `None` where there is none, or where it cannot be loaded yet: the
    /// champion serves all the same.
    fn challenger(&self, tenant: &Tenant, announcement: &ModelAnnouncement, before: &Standing) -> Option<Challenger> {
        let trial = announcement.challenger.as_ref()?;
        let serving = before.challenger.as_ref().map(|challenger| &challenger.model);
        match self.loaded(&Version::challenger(announcement, trial), serving) {
            Ok(model) => {
                tracing::info!(%tenant, version = %model.version, share = trial.share, "a version is on trial");
                Some(Challenger { model, share: trial.share })
            }
            Err(reason) => {
                tracing::warn!(%tenant, version = %trial.version, %reason, "a version on trial is refused; trying on");
                None
            }
        }
    }

    /// A version that is ready to be asked: the one that serves where it is the same, so that a record about
    /// another one leaves it, and with it the lists that it made.
    fn loaded(&self, version: &Version<'_>, serving: Option<&Arc<LiveModel>>) -> Result<Arc<LiveModel>, String> {
        if let Some(serving) = serving
            && serving.version == version.version
            && serving.stamp == stamp(version.epoch, version.manifest_sha256)
        {
            return Ok(Arc::clone(serving));
        }
        let started = Instant::now();
        let outcome = self.load(version);
        metrics::histogram!("rapport_scorer_model_load_seconds").record(started.elapsed());
        let label = if outcome.is_ok() { "ok" } else { "refused" };
        metrics::counter!("rapport_scorer_model_loads_total", "tenant" => version.tenant.to_owned(), "outcome" => label)
            .increment(1);
        outcome.map(Arc::new)
    }

    fn swap(&mut self, tenant: &Tenant, standing: Standing) {
        let models = |standing: &Standing| {
            let challenger = standing.challenger.as_ref().map(|challenger| &challenger.model);
            standing.model.iter().chain(challenger).cloned().collect::<Vec<_>>()
        };
        let serving = models(&standing);
        let before = self.models.set(tenant, standing).unwrap_or_default();
        let gone = models(&before).into_iter().filter(|old| !serving.iter().any(|new| Arc::ptr_eq(old, new)));
        self.retired.extend(gone);
    }

    /// Everything that can be wrong with a model is found here, not in a request.
    fn load(&self, version: &Version<'_>) -> Result<LiveModel, String> {
        let registry = Registry::read_only(&self.settings.registry);
        let artifact = registry.announced(version.folder, version.manifest_sha256).map_err(|e| e.to_string())?;
        let workers = self.workers(version, &artifact).map_err(|e| e.to_string())?;
        let model = assemble(version, &artifact, workers)?;
        self.warm_up(&model)?;
        Ok(model)
    }

    /// Threads that search the items of a large catalogue, where the artifact has what that takes; those of the
    /// whole graph otherwise. Parts that are not the graph's are no reason not to serve it.
    fn workers(&self, version: &Version<'_>, artifact: &Artifact) -> Result<Workers, rapport_inference::Error> {
        let LoaderSettings { threads, queue, retrieve_from, .. } = self.settings;
        let (path, items) = (artifact.model_path(), artifact.manifest().description.items);
        if let Some((query, vectors)) = artifact.parts().filter(|_| items >= retrieve_from) {
            let searching = Retrieval::open(&query, &vectors, items).and_then(|parts| {
                Workers::start_retrieving(version.name, &path, &parts, threads, BatchSettings::default(), queue)
            });
            match searching {
                Ok(workers) => return Ok(workers),
                Err(error) => {
                    tracing::warn!(version = %version.version, %error, "items are not searched; the graph scores all");
                }
            }
        }
        Workers::start(version.name, &path, threads, BatchSettings::default(), queue)
    }

    /// Runs the model once for each of its threads: the first run allocates, and a graph that loads
    /// may still not run.
    fn warm_up(&self, model: &LiveModel) -> Result<(), String> {
        let items: Vec<i64> = (1i64..).take(model.item_count().min(model.sequence_length)).collect();
        let history = Asked { times: vec![0; items.len()], items, ..Asked::default() };
        for _ in 0..self.settings.threads.max(1) {
            let deadline = Instant::now() + WARM_UP;
            if model.ranker.retrieves() {
                // Both roads said the same when it was loaded.
                let run = model.ranker.best(history.clone(), 1, deadline);
                let best = self.runtime.block_on(run).map_err(|e| format!("the warm-up run failed: {e}"))?;
                if best.is_empty() {
                    return Err("the warm-up run found no item".into());
                }
                continue;
            }
            let run = model.ranker.scores(history.clone(), deadline);
            let scores = self.runtime.block_on(run).map_err(|e| format!("the warm-up run failed: {e}"))?;
            let finite = scores.iter().skip(1).filter(|score| score.is_finite()).count();
            if scores.len() != model.items.len() || finite == 0 {
                return Err(format!(
                    "the warm-up run gave {} scores of which {finite} are numbers; want {}",
                    scores.len(),
                    model.items.len()
                ));
            }
        }
        Ok(())
    }
}

/// One version of an announcement.
struct Version<'a> {
    tenant: &'a str,
    name: &'a str,
    version: &'a str,
    folder: &'a str,
    manifest_sha256: &'a str,
    /// Since when the champion is live: a list of another one's is not served.
    epoch: u64,
}

impl<'a> Version<'a> {
    fn champion(of: &'a ModelAnnouncement) -> Self {
        Self {
            tenant: &of.tenant,
            name: &of.name,
            version: &of.champion,
            folder: &of.artifact,
            manifest_sha256: &of.manifest_sha256,
            epoch: if of.champion_epoch == 0 { of.epoch } else { of.champion_epoch },
        }
    }

    fn challenger(of: &'a ModelAnnouncement, trial: &'a rapport_proto::models::Challenger) -> Self {
        Self {
            version: &trial.version,
            folder: &trial.artifact,
            manifest_sha256: &trial.manifest_sha256,
            ..Self::champion(of)
        }
    }
}

fn assemble(version: &Version<'_>, artifact: &Artifact, workers: Workers) -> Result<LiveModel, String> {
    let manifest = artifact.manifest();
    let table = artifact.items().map_err(|e| e.to_string())?;
    let near = artifact.neighbours().map_err(|e| e.to_string())?;
    if workers.width() != table.len() + 1 {
        return Err(format!("the model scores {} items, the item table holds {}", workers.width() - 1, table.len()));
    }
    let items: Vec<Arc<str>> = table.ids().iter().map(|id| Arc::from(id.as_str())).collect();
    let index: HashMap<Arc<str>, u32> = items.iter().cloned().zip(0u32..).skip(1).collect();
    let neighbours = items
        .iter()
        .map(|item| near.of(item).iter().filter_map(|n| Some((*index.get(n.item.as_str())?, n.cosine))).collect())
        .collect();
    Ok(LiveModel {
        name: version.name.to_owned(),
        version: version.version.to_owned(),
        stamp: stamp(version.epoch, artifact.manifest_sha256()),
        tag: if manifest.description.kind.contains("ridge") { Tag::Ridge } else { Tag::Sequence },
        items,
        index,
        neighbours,
        types: manifest.description.event_types.iter().cloned().zip(1..).collect(),
        sequence_length: manifest.description.sequence_length,
        ranker: Box::new(workers),
    })
}

/// See [`ModelStamp`].
fn stamp(epoch: u64, manifest_sha256: &str) -> ModelStamp {
    let manifest = manifest_sha256.get(..16).and_then(|head| u64::from_str_radix(head, 16).ok()).unwrap_or(0);
    ModelStamp { epoch, manifest }
}

/// Soon at first, for files that are being copied; then seldom, for those that are broken.
fn backoff(attempts: u32) -> Duration {
    let doubled = Duration::from_millis(200).saturating_mul(1 << attempts.saturating_sub(1).min(10));
    doubled.min(Duration::from_secs(15))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader() -> Loader {
        Loader {
            settings: LoaderSettings {
                registry: PathBuf::from("nowhere"),
                model_name: "next-item".into(),
                threads: 1,
                queue: 1,
                retrieve_from: 1,
            },
            models: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
            wanted: HashMap::new(),
            retired: Vec::new(),
        }
    }

    fn announcement(epoch: u64, champion: &str) -> ModelAnnouncement {
        ModelAnnouncement {
            tenant: "acme".into(),
            name: "next-item".into(),
            champion: champion.into(),
            artifact: format!("acme/next-item/{champion}"),
            epoch,
            ..ModelAnnouncement::default()
        }
    }

    #[tokio::test]
    async fn a_missing_artifact_is_refused_and_the_model_before_it_keeps_serving() {
        let mut loader = loader();
        let acme = Tenant::parse("acme").unwrap();
        loader.want(acme.clone(), announcement(1, "v1"));
        loader.attempt(&acme);
        assert!(loader.models.of(&acme).missing, "nothing to fall back to");
        assert!(loader.wanted[&acme].due.is_some_and(|due| due > Instant::now()), "tried again later");

        let serving = LiveModel::for_tests(&["a"], |_| Vec::new());
        loader.swap(&acme, Standing { model: Some(Arc::new(serving)), ..Standing::default() });
        loader.want(acme.clone(), announcement(2, "v2"));
        loader.attempt(&acme);
        let standing = loader.models.of(&acme);
        assert!(standing.model.is_some() && !standing.missing);
    }

    #[tokio::test]
    async fn an_older_announcement_changes_nothing_and_an_empty_champion_ends_the_service() {
        let mut loader = loader();
        let acme = Tenant::parse("acme").unwrap();
        let serving = LiveModel::for_tests(&["a"], |_| Vec::new());
        loader.swap(&acme, Standing { model: Some(Arc::new(serving)), ..Standing::default() });
        loader.want(acme.clone(), announcement(5, ""));
        loader.want(acme.clone(), announcement(4, "v4"));
        assert_eq!(loader.wanted[&acme].announcement.epoch, 5);
        loader.attempt(&acme);
        assert!(loader.models.of(&acme).model.is_none());
        assert_eq!(loader.retired.len(), 1, "the loader's thread lets go of it");
    }

    #[test]
    fn a_record_that_is_no_announcement_names_what_is_wrong() {
        let (send, announced) = sync_channel(4);
        let announcements = Announcements { model_name: "next-item".into(), loader: send };
        let good = announcement(1, "v1").encode_to_vec();
        assert_eq!(announcements.take(b"acme/next-item", Some(b"\xff")).unwrap_err().field, "value");
        assert_eq!(announcements.take(b"bolt/next-item", Some(&good)).unwrap_err().field, "key");
        announcements.take(b"acme/next-item", None).unwrap();
        announcements.take(b"acme/next-item", Some(&good)).unwrap();
        assert_eq!(announced.try_iter().count(), 1);
    }

    #[test]
    fn retries_slow_down_to_a_limit() {
        assert_eq!(backoff(1), Duration::from_millis(200));
        assert_eq!(backoff(2), Duration::from_millis(400));
        assert_eq!(backoff(u32::MAX), Duration::from_secs(15));
    }
}
