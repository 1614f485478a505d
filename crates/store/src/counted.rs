//! A store that counts its errors.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, AttemptKey, BucketPlace, Folder, ObjectName,
    Scratch, Store, StoreError, StoreErrorKind, Stored, StoredObject,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Counters of store errors since the start of the process; clones share the counters.
#[derive(Debug, Clone)]
pub struct StoreFigures(Family<Kind, Counter>);

impl Default for StoreFigures {
    /// Creates all series with zero: an increase is visible only in an existing series.
    fn default() -> Self {
        let errors = Family::<Kind, Counter>::default();
        for kind in StoreErrorKind::ALL {
            drop(errors.get_or_create(&Kind { kind: kind.as_str() }));
        }
        Self(errors)
    }
}

impl StoreFigures {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "store_errors",
            "Operations on the store that failed, without internal retries, by kind of error",
            self.0.clone(),
        );
    }

    fn note<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        done.inspect_err(|error| {
            self.0.get_or_create(&Kind { kind: error.kind.as_str() }).inc();
        })
    }
}

/// Passes all operations on to another store, and counts errors.
#[derive(Debug)]
pub struct CountedStore<S> {
    inner: S,
    figures: StoreFigures,
}

impl<S: Store> CountedStore<S> {
    /// Creates a store that counts errors in these metrics.
    pub fn new(inner: S, figures: StoreFigures) -> Self {
        Self { inner, figures }
    }
}

#[async_trait]
impl<S: Store> Store for CountedStore<S> {
    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        self.figures.note(self.inner.check(scratch).await)
    }

    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError> {
        let inner = self.figures.note(self.inner.create(key, expected_bytes).await)?;
        Ok(Box::new(CountedSink { inner, figures: self.figures.clone() }))
    }

    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError> {
        let inner = self.figures.note(self.inner.open(key).await)?;
        Ok(Box::new(CountedSource { inner, figures: self.figures.clone() }))
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.figures.note(self.inner.put(name, bytes).await)
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.figures.note(self.inner.get(name).await)
    }

    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        self.figures.note(self.inner.list(folder, after).await)
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.figures.note(self.inner.remove(name).await)
    }

    async fn unfinished(&self, begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        self.figures.note(self.inner.unfinished(begun_before).await)
    }

    async fn remove_unfinished(
        &self,
        folder: &Folder,
        begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.figures.note(self.inner.remove_unfinished(folder, begun_before).await)
    }

    async fn rewrap(&self, attempt: &AttemptKey) -> Result<bool, StoreError> {
        self.figures.note(self.inner.rewrap(attempt).await)
    }

    fn bucket(&self) -> Option<BucketPlace> {
        self.inner.bucket()
    }

    fn locate(&self, key: &ArtifactKey) -> String {
        self.inner.locate(key)
    }
}

struct CountedSink {
    inner: Box<dyn ArtifactSink>,
    figures: StoreFigures,
}

#[async_trait]
impl ArtifactSink for CountedSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.figures.note(self.inner.write(bytes).await)
    }

    async fn finish(self: Box<Self>) -> Result<Stored, StoreError> {
        self.figures.note(self.inner.finish().await)
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}

struct CountedSource {
    inner: Box<dyn ArtifactSource>,
    figures: StoreFigures,
}

#[async_trait]
impl ArtifactSource for CountedSource {
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.figures.note(self.inner.read().await)
    }

    fn seen(&self) -> Stored {
        self.inner.seen()
    }
}
