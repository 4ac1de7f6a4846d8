//! The log as a value, and how blocking callers reach its store.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, path::Path};

use crate::{Error, location};

/// One request to the store, or one page of a listing, may take this long; a flush too. A thread that is silent for
/// 30 s counts as dead.
pub(crate) const DEADLINE: Duration = Duration::from_secs(25);

/// Where the offline log lies.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Offline store")]
pub struct OfflineArgs {
    /// Where the offline log lies: a folder, as a path or file:// URL, made when it is not there; or
    /// s3://<bucket>/<prefix>, with keys, region and endpoint in the usual variables (AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; AWS_ALLOW_HTTP=true for one without TLS)
    #[arg(long, env = "RAPPORT_OFFLINE_URL", default_value = ".rapport/offline")]
    pub offline_url: String,

    /// Whether files of a folder are forced to disk before their offsets are committed
    #[arg(long, env = "RAPPORT_OFFLINE_FSYNC", default_value_t = true, action = clap::ArgAction::Set)]
    pub offline_fsync: bool,
}

impl OfflineArgs {
    /// For programs that have no command line.
    pub fn at(offline_url: impl Into<String>) -> Self {
        Self { offline_url: offline_url.into(), offline_fsync: true }
    }
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct OfflineLog {
    pub(crate) store: Arc<dyn ObjectStore>,
    runtime: Arc<Blocking>,
}

/// A runtime for the store's own tasks. A runtime must not be dropped where blocking is forbidden,
/// so it is let go in the background.
struct Blocking(Option<tokio::runtime::Runtime>);

impl Drop for Blocking {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl OfflineLog {
    /// # Errors
    /// The location is none that this build knows, or cannot be made.
    pub fn open(args: &OfflineArgs) -> Result<Self, Error> {
        Self::on(location::open(args)?)
    }

    /// A log on any object store.
    ///
    /// # Errors
    /// The operating system gives no threads.
    pub fn on(store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        // A thread of its own, so that connections are looked after between calls too.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("offline-store")
            .build()
            .map_err(|e| Error::Location { at: "runtime".into(), reason: e.to_string() })?;
        Ok(Self { store, runtime: Arc::new(Blocking(Some(runtime))) })
    }

    /// Tries whether the store refuses to make a file that is there, which is what keeps two writers from writing one
    /// offset twice.
    ///
    /// # Errors
    /// It does not, or it is away.
    pub fn check(&self) -> Result<(), Error> {
        let path = Path::from(format!("_tries/{}", uuid::Uuid::new_v4().simple()));
        let refused = self.make(&path, b"")? && !self.make(&path, b"")?;
        self.wait(within(self.store.delete(&path)))?;
        if refused {
            return Ok(());
        }
        let reason =
            "it makes a file anew that is there: a server of S3 must know conditional writes (If-None-Match: *)";
        Err(Error::Location { at: self.store.to_string(), reason: reason.into() })
    }

    /// Runs a future to its end on this thread; within a runtime, on a thread beside it.
    pub(crate) fn wait<T: Send>(&self, work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let run = || match &self.runtime.0 {
            Some(runtime) => runtime.block_on(work),
            // Only a dropped log has no runtime.
            None => Err(Error::Pack("the log was closed".into())),
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return run();
        }
        let joined = std::thread::scope(|scope| scope.spawn(run).join());
        joined.unwrap_or_else(|_| Err(Error::Pack("the store's thread panicked".into())))
    }
}

/// A deadline around a request to the store.
pub(crate) async fn within<T>(work: impl Future<Output = Result<T, object_store::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Timeout(DEADLINE)),
    }
}

/// What a listing finds that `take` takes: with a deadline for each page, for a log may have many.
pub(crate) async fn listed<T>(
    mut listing: BoxStream<'_, Result<ObjectMeta, object_store::Error>>,
    take: impl Fn(ObjectMeta) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    while let Some(meta) = within(async { listing.next().await.transpose() }).await? {
        found.extend(take(meta));
    }
    Ok(found)
}
