//! A store with deliberate faults, for the tests of all crates above.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, AttemptKey, BucketPlace, Folder, ObjectName,
    Scratch, Store, StoreError, StoreErrorKind, Stored, StoredObject, Tally,
};

/// The operation that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Creating an artifact.
    Create,
    /// Appending to an artifact.
    Write,
    /// Finishing an artifact.
    Finish,
    /// Reading anything.
    Read,
    /// Reading an artifact returns bytes that differ from the stored ones.
    ReadOtherBytes,
    /// Writing the manifest.
    Commit,
    /// Removing objects.
    Remove,
}

/// Passes all operations on to another store, except for the failing one.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    /// The operation never returns if the kind is `None`.
    fault: Mutex<Option<(Fault, Option<StoreErrorKind>)>>,
}

impl<S: Store> FaultyStore<S> {
    /// Creates a store without faults.
    pub fn new(inner: S) -> Self {
        Self { inner, fault: Mutex::new(None) }
    }

    /// Makes `fault` fail with `kind` from now on.
    pub fn fail(&self, fault: Fault, kind: StoreErrorKind) {
        self.set(Some((fault, Some(kind))));
    }

    /// Makes `fault` hang from now on; it must be one that fails before anything is written.
    pub fn hang(&self, fault: Fault) {
        self.set(Some((fault, None)));
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.set(None);
    }

    /// The wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn set(&self, fault: Option<(Fault, Option<StoreErrorKind>)>) {
        *self.fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = fault;
    }

    fn found(&self, fault: Fault) -> Option<Option<StoreErrorKind>> {
        let set = *self.fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        set.filter(|(which, _)| *which == fault).map(|(_, kind)| kind)
    }

    fn current(&self, fault: Fault) -> Option<StoreErrorKind> {
        self.found(fault).flatten()
    }

    async fn pass(
        &self,
        fault: Fault,
        action: &'static str,
        object: &(impl ToString + Sync),
    ) -> Result<(), StoreError> {
        match self.found(fault) {
            Some(Some(kind)) => Err(StoreError::new(kind, action, object.to_string())),
            Some(None) => std::future::pending().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl<S: Store> Store for FaultyStore<S> {
    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        self.inner.check(scratch).await
    }

    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError> {
        self.pass(Fault::Create, "create", key).await?;
        let inner = self.inner.create(key, expected_bytes).await?;
        Ok(Box::new(FaultySink {
            inner,
            object: key.to_string(),
            write: self.current(Fault::Write),
            finish: self.current(Fault::Finish),
            alter: self.current(Fault::ReadOtherBytes).is_some(),
        }))
    }

    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError> {
        self.pass(Fault::Read, "open", key).await?;
        let inner = self.inner.open(key).await?;
        Ok(Box::new(FaultySource {
            inner,
            alter: self.current(Fault::ReadOtherBytes).is_some(),
            seen: Tally::default(),
        }))
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        if name.is_manifest() {
            self.pass(Fault::Commit, "write", name).await?;
        }
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.pass(Fault::Read, "read", name).await?;
        self.inner.get(name).await
    }

    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        self.inner.list(folder, after).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.pass(Fault::Remove, "remove", name).await?;
        self.inner.remove(name).await
    }

    async fn unfinished(&self, begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        self.inner.unfinished(begun_before).await
    }

    async fn remove_unfinished(
        &self,
        folder: &Folder,
        begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.pass(Fault::Remove, "remove", &folder.0).await?;
        self.inner.remove_unfinished(folder, begun_before).await
    }

    fn bucket(&self) -> Option<BucketPlace> {
        self.inner.bucket()
    }

    fn locate(&self, key: &ArtifactKey) -> String {
        self.inner.locate(key)
    }
}

struct FaultySink {
    inner: Box<dyn ArtifactSink>,
    object: String,
    write: Option<StoreErrorKind>,
    finish: Option<StoreErrorKind>,
    alter: bool,
}

#[async_trait]
impl ArtifactSink for FaultySink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        match self.write {
            Some(kind) => Err(StoreError::new(kind, "write", &self.object)),
            None => self.inner.write(bytes).await,
        }
    }

    async fn finish(self: Box<Self>) -> Result<Stored, StoreError> {
        match self.finish {
            // A sink must remove its data when its end fails.
            Some(kind) => {
                self.inner.abort().await;
                Err(StoreError::new(kind, "finish", &self.object))
            }
            None if self.alter => {
                self.inner.abort().await;
                Err(StoreError::new(StoreErrorKind::Damaged, "finish", &self.object))
            }
            None => self.inner.finish().await,
        }
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}

struct FaultySource {
    inner: Box<dyn ArtifactSource>,
    alter: bool,
    seen: Tally,
}

#[async_trait]
impl ArtifactSource for FaultySource {
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(bytes) = self.inner.read().await? else { return Ok(None) };
        let mut altered = bytes.to_vec();
        if let Some(first) = altered.first_mut()
            && std::mem::take(&mut self.alter)
        {
            *first ^= 1;
        }
        self.seen.add(&altered);
        Ok(Some(altered.into()))
    }

    fn seen(&self) -> Stored {
        self.seen.stored()
    }
}
