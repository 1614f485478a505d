//! Lets the use cases open stored RDBs through the engine.

use async_trait::async_trait;
use bytes::Bytes;
use cachevault_app::{RdbOpener, RdbPieces, RdbUnreadable};
use cachevault_domain::with_sources;
use cachevault_engine::{RdbReader, VerifyError};
use cachevault_store::{ArtifactEntry, ArtifactKey, Store, StoreErrorKind};

/// Opens real artifacts, which are proved while they are read.
#[derive(Debug, Clone, Copy)]
pub struct EngineOpener;

#[async_trait]
impl RdbOpener for EngineOpener {
    async fn open(
        &self,
        store: &dyn Store,
        key: &ArtifactKey,
        entry: &ArtifactEntry,
    ) -> Result<Box<dyn RdbPieces>, RdbUnreadable> {
        let opened = RdbReader::open(store, key, entry).await;
        Ok(Box::new(Pieces(opened.map_err(unreadable)?)))
    }
}

struct Pieces(RdbReader);

#[async_trait]
impl RdbPieces for Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, RdbUnreadable> {
        self.0.next().await.map_err(unreadable)
    }
}

fn unreadable(error: VerifyError) -> RdbUnreadable {
    match &error {
        VerifyError::Store(store) if store.kind == StoreErrorKind::NotFound => RdbUnreadable::Gone,
        _ => RdbUnreadable::Failed(with_sources(&error)),
    }
}
