//! A store whose user is killed at its n-th change, or whose n-th change lets somebody else go first.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What happens at the n-th change.
#[derive(Clone)]
pub enum Fate {
    /// Killed before it is made.
    Before,
    /// Killed before its answer arrives.
    After,
    /// Its answer alone is lost, and the store says that it is there when it is made again.
    AnswerLost,
    /// All is well, but what is there is written over whatever was asked for.
    Overwrites,
    /// Somebody else goes first.
    Meanwhile(Arc<dyn Fn() + Send + Sync>),
}

#[derive(Clone)]
pub struct Fragile {
    inner: Arc<dyn ObjectStore>,
    at: usize,
    fate: Fate,
    changes: Arc<AtomicUsize>,
}

impl Fragile {
    pub fn new(inner: Arc<dyn ObjectStore>, at: usize, fate: Fate) -> Self {
        Self { inner, at, fate, changes: Arc::default() }
    }

    /// Whether so many changes were asked for.
    pub fn came_to_it(&self) -> bool {
        self.changes.load(Ordering::SeqCst) > self.at
    }

    fn killed() -> object_store::Error {
        object_store::Error::Generic { store: "fragile", source: "killed".into() }
    }

    /// Whether everything from here on fails, and whether this change is the one.
    fn next(&self) -> (bool, bool) {
        let number = self.changes.fetch_add(1, Ordering::SeqCst);
        if number == self.at
            && let Fate::Meanwhile(other) = &self.fate
        {
            other();
        }
        let dies = matches!(self.fate, Fate::Before | Fate::After);
        (dies && number > self.at, number == self.at)
    }

    fn alive(&self) -> Result<()> {
        let dead = matches!(self.fate, Fate::Before | Fate::After) && self.came_to_it();
        if dead { Err(Self::killed()) } else { Ok(()) }
    }
}

impl fmt::Debug for Fragile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fragile({:?})", self.inner)
    }
}

impl fmt::Display for Fragile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fragile({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Fragile {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (dead, now) = self.next();
        if dead || (now && matches!(self.fate, Fate::Before)) {
            return Err(Self::killed());
        }
        if matches!(self.fate, Fate::Overwrites) {
            return self.inner.put_opts(location, payload, PutOptions::default()).await;
        }
        let done = self.inner.put_opts(location, payload.clone(), options.clone()).await;
        match &self.fate {
            Fate::After if now => Err(Self::killed()),
            Fate::AnswerLost if now => self.inner.put_opts(location, payload, options).await,
            Fate::Before | Fate::After | Fate::AnswerLost | Fate::Overwrites | Fate::Meanwhile(_) => done,
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Self::killed())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let gone = locations.then(move |path| {
            let this = this.clone();
            async move {
                let (dead, now) = this.next();
                if dead || (now && matches!(this.fate, Fate::Before)) {
                    return Err(Self::killed());
                }
                let path = path?;
                let done = object_store::ObjectStoreExt::delete(this.inner.as_ref(), &path).await;
                if now && matches!(this.fate, Fate::After) { Err(Self::killed()) } else { done.map(|()| path) }
            }
        });
        gone.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.alive() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.alive()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Self::killed())
    }
}
