//! Which store the catalog's backups are in.

use std::sync::Arc;

use async_trait::async_trait;
use cachevault_catalog::{Catalog, CatalogError};
use cachevault_domain::{Backup, Entropy, StoreId};
use cachevault_store::{
    Store, StoreError, StoreErrorKind, StoreMemory, find_store_id, write_store_id,
};

use crate::AppError;
use crate::backups::backup_key;

/// Backups that are looked for in a store that is to become theirs.
const LOOKED_FOR_MAX: u32 = 100;
/// Records that are read in one transaction.
const PAGE: u32 = 100;

/// The catalog's record of its store.
#[derive(Debug, Clone)]
pub struct StoreRecord {
    /// Where it is kept.
    pub catalog: Arc<dyn Catalog>,
    /// For the id of a new store.
    pub entropy: Arc<dyn Entropy>,
}

/// A store that somebody has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedStore {
    /// Its id.
    pub id: StoreId,
    /// Backups of the catalog that have files.
    pub backups: u64,
    /// How many of them it holds.
    pub held: u64,
}

#[async_trait]
impl StoreMemory for StoreRecord {
    /// A store is taken the first time that one is used. A catalog that has backups and knows no
    /// store is from before stores had ids: then at least one of them has to be there.
    async fn id_of(&self, store: &dyn Store) -> Result<StoreId, StoreError> {
        if let Some(id) = self.catalog.store_id().await.map_err(unknown)? {
            return Ok(id);
        }
        let backups = self.catalog.stored_backups(None, LOOKED_FOR_MAX).await.map_err(unknown)?;
        if !backups.is_empty() && held(store, &backups).await? == 0 {
            let reason = "it holds none of the backups that the catalog knows";
            return Err(StoreError {
                kind: StoreErrorKind::Foreign,
                action: "use",
                object: "the store".to_owned(),
                source: Some(reason.into()),
            });
        }
        let id = match find_store_id(store).await? {
            Some(id) => id,
            None => self.mark(store).await?,
        };
        self.catalog.set_store_id(None, id).await.map_err(unknown)?;
        Ok(id)
    }
}

impl StoreRecord {
    /// Whether no store was used so far.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn is_empty(&self) -> Result<bool, AppError> {
        let is_known = self.catalog.store_id().await?.is_some();
        Ok(!is_known && self.catalog.stored_backups(None, 1).await?.is_empty())
    }

    /// Takes this store from now on, whatever it holds.
    ///
    /// # Errors
    /// [`AppError::StoreUnavailable`], [`AppError::CatalogFailed`].
    pub async fn accept(&self, store: &dyn Store) -> Result<AcceptedStore, AppError> {
        let id = match find_store_id(store).await.map_err(AppError::StoreUnavailable)? {
            Some(id) => id,
            // Not the id that is known: the store that has it may come back.
            None => self.mark(store).await.map_err(AppError::StoreUnavailable)?,
        };
        self.follow_id(id).await?;
        let mut accepted = AcceptedStore { id, backups: 0, held: 0 };
        let mut after = None;
        loop {
            let backups = self.catalog.stored_backups(after, PAGE).await?;
            let Some(last) = backups.last() else { return Ok(accepted) };
            after = Some(last.id);
            accepted.backups += backups.len() as u64;
            accepted.held += held(store, &backups).await.map_err(AppError::StoreUnavailable)?;
        }
    }

    /// Takes the id that the store has, if it has one.
    ///
    /// # Errors
    /// [`AppError::StoreUnavailable`], [`AppError::CatalogFailed`].
    pub async fn follow(&self, store: &dyn Store) -> Result<(), AppError> {
        match find_store_id(store).await.map_err(AppError::StoreUnavailable)? {
            Some(id) => self.follow_id(id).await,
            None => Ok(()),
        }
    }

    async fn follow_id(&self, id: StoreId) -> Result<(), AppError> {
        match self.catalog.store_id().await? {
            Some(known) if known == id => Ok(()),
            known => Ok(self.catalog.set_store_id(known, id).await?),
        }
    }

    /// Gives a store an id. It is written there first: what has one is never given another.
    async fn mark(&self, store: &dyn Store) -> Result<StoreId, StoreError> {
        let id = StoreId::mint(&*self.entropy);
        write_store_id(store, id).await?;
        Ok(id)
    }
}

/// How many of these backups have their manifest in the store.
async fn held(store: &dyn Store, backups: &[Backup]) -> Result<u64, StoreError> {
    let mut held = 0;
    for backup in backups {
        let Some(attempt) = backup.stored_attempt else { continue };
        let name = backup_key(backup).attempt(attempt).manifest();
        held += u64::from(store.get(&name).await?.is_some());
    }
    Ok(held)
}

/// Without its catalog nothing is known of a store.
fn unknown(error: CatalogError) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Unavailable,
        action: "identify",
        object: "the store".to_owned(),
        source: Some(error.into()),
    }
}
