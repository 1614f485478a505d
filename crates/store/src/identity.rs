//! Identity of a store: an id in a separate object, independent of the path or URL of the store.
//!
//! The folder of an unmounted file system exists and is empty; a wrong bucket responds like the
//! right one. [`KnownStore`] therefore passes operations on only while the store contains the
//! registered id.

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

/// The object that contains the id.
#[derive(Debug, Serialize, Deserialize)]
struct IdDocument {
    version: u32,
    id: String,
}

/// Reads the id of a store; `None` for a store without an id.
///
/// # Errors
/// [`StoreErrorKind::Damaged`] when the object is invalid.
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
/// [`StoreError`] when the id is missing afterwards.
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

/// Remembers the id of the registered store.
#[async_trait]
pub trait StoreMemory: Send + Sync + fmt::Debug {
    /// Returns the registered id. If there is none, `store` is registered, provided that this is
    /// permitted.
    ///
    /// # Errors
    /// [`StoreErrorKind::Foreign`] when `store` must not be registered.
    async fn id_of(&self, store: &dyn Store) -> Result<StoreId, StoreError>;
}

/// Passes all operations on to another store while its id is the registered one.
#[derive(Debug, Clone)]
pub struct KnownStore {
    inner: Arc<dyn Store>,
    watch: Arc<Watch>,
}

/// Checks the id of the store.
#[derive(Debug)]
struct Watch {
    memory: Arc<dyn StoreMemory>,
    id: OnceCell<StoreId>,
    holds: Duration,
    seen: Mutex<Option<Instant>>,
}

impl KnownStore {
    /// Creates a store in front of `inner`. A successful check is valid for `holds`, which must be
    /// zero for a store that may be unmounted at any moment.
    pub fn new(inner: Arc<dyn Store>, memory: Arc<dyn StoreMemory>, holds: Duration) -> Self {
        let watch = Watch { memory, id: OnceCell::new(), holds, seen: Mutex::default() };
        Self { inner, watch: Arc::new(watch) }
    }

    /// Checks the id, unless a recent check is still valid.
    async fn require(&self) -> Result<(), StoreError> {
        match self.watch.seen() {
            Some(at) if at.elapsed() < self.watch.holds => Ok(()),
            _ => self.identify().await,
        }
    }

    /// Checks the id; the first check of a new service registers the store, if permitted.
    ///
    /// # Errors
    /// [`StoreErrorKind::Foreign`] when the id is a different one.
    pub async fn identify(&self) -> Result<(), StoreError> {
        let (began, inner) = (Instant::now(), &*self.inner);
        let id = self.watch.id.get_or_try_init(|| self.watch.memory.id_of(inner)).await?;
        let found = find_store_id(inner).await?;
        let is_right = found.as_ref() == Some(id);
        self.watch.note(is_right.then_some(began));
        if is_right { Ok(()) } else { Err(foreign(*id, found)) }
    }

    /// Runs an operation between two checks of the id.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.require().await?;
        let done = work.await;
        match done {
            // The operation's own error is more precise, except for missing objects, which may be
            // missing only in this store.
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

/// The error for a store with a different id or none.
fn foreign(wanted: StoreId, found: Option<StoreId>) -> StoreError {
    let reason = match found {
        Some(found) => format!("its id is {found}, and the backups belong to {wanted}"),
        None => format!("it has no id, and the backups belong to {wanted}"),
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
