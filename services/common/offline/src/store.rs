//! Where the log lies, and how blocking callers reach it.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use object_store::{ObjectStore, local::LocalFileSystem};

use crate::Error;

/// One request to the store, or one flush, may take this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Where the offline log lies.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Offline store")]
pub struct OfflineArgs {
    /// Folder of the offline log, as a path or file:// URL; made when it is not there
    #[arg(long, env = "RAPPORT_OFFLINE_URL", default_value = ".rapport/offline")]
    pub offline_url: String,

    /// Whether files are forced to disk before their offsets are committed
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
        let wrong = |reason: String| Error::Location { at: args.offline_url.clone(), reason };
        let folder = match args.offline_url.split_once("://") {
            None => PathBuf::from(&args.offline_url),
            Some(("file", path)) => PathBuf::from(path),
            Some((scheme, _)) => {
                return Err(wrong(format!(
                    "{scheme}:// is not built in; give a folder (a mounted volume for example)"
                )));
            }
        };
        std::fs::create_dir_all(&folder).map_err(|e| wrong(e.to_string()))?;
        let local = LocalFileSystem::new_with_prefix(&folder).map_err(|e| wrong(e.to_string()))?;
        Self::on(Arc::new(local.with_fsync(args.offline_fsync)))
    }

    /// A log on any object store.
    ///
    /// # Errors
    /// The operating system gives no threads.
    pub fn on(store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("offline-store")
            .build()
            .map_err(|e| Error::Location { at: "runtime".into(), reason: e.to_string() })?;
        Ok(Self { store, runtime: Arc::new(Blocking(Some(runtime))) })
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
