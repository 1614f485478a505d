//! Which store it is: an id in an object of its own, whatever path or URL leads there.
//!
//! A folder that was not mounted is there all the same, and empty; another bucket answers as well as
//! the right one. [`KnownStore`] passes on only while the id in the store is the one that is
//! remembered.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cachevault_domain::StoreId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, AttemptKey, BucketPlace, Folder, ObjectName,
    Scratch, Store, StoreError, StoreErrorKind, Stored, StoredObject,
};

const VERSION: u32 = 1;

/// The object that the id is in.
#[derive(Debug, Serialize, Deserialize)]
struct IdDocument {
    version: u32,
    id: String,
}

/// The id of a store; `None` where nothing has been kept in it so far.
///
/// # Errors
/// [`StoreErrorKind::Damaged`] when it cannot be read.
pub async fn find_store_id<S: Store + ?Sized>(store: &S) -> Result<Option<StoreId>, StoreError> {
    let name = ObjectName::store_id();
    let Some(bytes) = store.get(&name).await? else { return Ok(None) };
    let unreadable = |error: Cause| StoreError {
        source: Some(error),
        ..StoreError::new(StoreErrorKind::Damaged, "read", &name)
    };
    let document: IdDocument = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.into()))?;
    document.id.parse().map(Some).map_err(|e: cachevault_domain::InvalidId| unreadable(e.into()))
}

/// Writes the id into a store, and reads it back.
///
/// # Errors
/// [`StoreError`] when it is not there afterwards.
pub async fn write_store_id<S: Store + ?Sized>(store: &S, id: StoreId) -> Result<(), StoreError> {
    let name = ObjectName::store_id();
    let document = IdDocument { version: VERSION, id: id.to_string() };
    let bytes =
        serde_json::to_vec(&document).map_err(|e| StoreError::io("encode", &name, e.into()))?;
    store.put(&name, bytes.into()).await?;
    match find_store_id(store).await? {
        Some(found) if found == id => Ok(()),
        _ => Err(StoreError::new(StoreErrorKind::Damaged, "read back", name)),
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Remembers which store is the right one.
#[async_trait]
pub trait StoreMemory: Send + Sync + fmt::Debug {
    /// The id of the right store. Where none is remembered, `store` is taken if that may be done.
    ///
    /// # Errors
    /// [`StoreErrorKind::Foreign`] where it may not.
    async fn id_of(&self, store: &dyn Store) -> Result<StoreId, StoreError>;
}

/// Passes everything on to another store as long as that is the right one.
#[derive(Debug, Clone)]
pub struct KnownStore {
    inner: Arc<dyn Store>,
    watch: Arc<Watch>,
}

/// Looks which store it is.
#[derive(Debug)]
struct Watch {
    memory: Arc<dyn StoreMemory>,
    id: OnceCell<StoreId>,
    holds: Duration,
    seen: Mutex<Option<Instant>>,
}

impl KnownStore {
    /// A store in front of another. That the other is the right one holds for some time after it
    /// was seen: for none where it may be unmounted at any moment.
    pub fn new(inner: Arc<dyn Store>, memory: Arc<dyn StoreMemory>, holds: Duration) -> Self {
        let watch = Watch { memory, id: OnceCell::new(), holds, seen: Mutex::default() };
        Self { inner, watch: Arc::new(watch) }
    }

    /// Looks whether it is the right store, unless that was seen a moment ago.
    async fn require(&self) -> Result<(), StoreError> {
        match self.watch.seen() {
            Some(at) if at.elapsed() < self.watch.holds => Ok(()),
            _ => self.identify().await,
        }
    }

    /// Looks whether it is the right store; the first time of all it becomes that, if it may.
    ///
    /// # Errors
    /// [`StoreErrorKind::Foreign`] when it is not.
    pub async fn identify(&self) -> Result<(), StoreError> {
        let (began, inner) = (Instant::now(), &*self.inner);
        let id = self.watch.id.get_or_try_init(|| self.watch.memory.id_of(inner)).await?;
        let found = find_store_id(inner).await?;
        let is_right = found.as_ref() == Some(id);
        self.watch.note(is_right.then_some(began));
        if is_right { Ok(()) } else { Err(foreign(*id, found)) }
    }

    /// Does something in the right store: it was that before, and is afterwards.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.require().await?;
        let done = work.await;
        match done {
            // It says more of what is wrong, but for what may be missing only here.
            Err(error) if error.kind != StoreErrorKind::NotFound => Err(error),
            done => {
                self.require().await?;
                done
            }
        }
    }
}

impl Watch {
    fn seen(&self) -> Option<Instant> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, at: Option<Instant>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// The store has not the id that it should have.
fn foreign(wanted: StoreId, found: Option<StoreId>) -> StoreError {
    let reason = match found {
        Some(found) => format!("its id is {found}, and the backups are in {wanted}"),
        None => format!("it has no id, and the backups are in {wanted}"),
    };
    StoreError {
        source: Some(reason.into()),
        ..StoreError::new(StoreErrorKind::Foreign, "use", "the store")
    }
}

#[async_trait]
impl Store for KnownStore {
    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        self.identify().await?;
        self.inner.check(scratch).await
    }

    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError> {
        let inner = self.within(self.inner.create(key, expected_bytes)).await?;
        Ok(Box::new(KnownSink { inner, store: self.clone() }))
    }

    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError> {
        self.within(self.inner.open(key)).await
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.within(self.inner.put(name, bytes)).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.within(self.inner.get(name)).await
    }

    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        self.within(self.inner.list(folder, after)).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.within(self.inner.remove(name)).await
    }

    async fn unfinished(&self, begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        self.within(self.inner.unfinished(begun_before)).await
    }

    async fn remove_unfinished(
        &self,
        folder: &Folder,
        begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.within(self.inner.remove_unfinished(folder, begun_before)).await
    }

    async fn rewrap(&self, attempt: &AttemptKey) -> Result<bool, StoreError> {
        self.within(self.inner.rewrap(attempt)).await
    }

    fn bucket(&self) -> Option<BucketPlace> {
        self.inner.bucket()
    }

    fn locate(&self, key: &ArtifactKey) -> String {
        self.inner.locate(key)
    }
}

struct KnownSink {
    inner: Box<dyn ArtifactSink>,
    store: KnownStore,
}

#[async_trait]
impl ArtifactSink for KnownSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<Stored, StoreError> {
        let Self { inner, store } = *self;
        if let Err(error) = store.identify().await {
            inner.abort().await;
            return Err(error);
        }
        let stored = inner.finish().await?;
        store.identify().await?;
        Ok(stored)
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}
