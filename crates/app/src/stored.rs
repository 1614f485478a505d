//! What is stored of a backup, as its manifest tells it.

use cachevault_domain::{Backup, with_sources};
use cachevault_store::{Manifest, StoreError, StoreErrorKind};

use crate::backups::backup_key;
use crate::{App, AppError};

/// What is stored of a backup cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The files are not what they should be, or do not open with the keys that are here. Says how.
    #[error("{0}")]
    Damaged(String),
    /// The store cannot be used now; this says nothing of the files.
    #[error("the store cannot be used")]
    Unavailable(#[source] StoreError),
}

impl From<StoreError> for StoredError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::NotFound | StoreErrorKind::Damaged | StoreErrorKind::NoKey => {
                Self::Damaged(with_sources(&error))
            }
            _ => Self::Unavailable(error),
        }
    }
}

impl From<StoredError> for AppError {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Damaged(damage) => Self::BackupDamaged(damage),
            StoredError::Unavailable(error) => Self::StoreUnavailable(error),
        }
    }
}

impl App {
    /// The manifest of a backup that has succeeded. It is that of this backup, and agrees with its
    /// record; the artifacts are not looked at.
    ///
    /// # Errors
    /// [`StoredError`].
    pub async fn find_manifest(&self, backup: &Backup) -> Result<Manifest, StoredError> {
        let damaged = |what: &str| StoredError::Damaged(what.to_owned());
        let attempt = backup.stored_attempt.ok_or_else(|| damaged("it has no files"))?;
        let found = self.store.find_manifest(&backup_key(backup).attempt(attempt)).await?;
        let manifest = found.ok_or_else(|| damaged("its manifest is missing from the store"))?;
        match flaw(&manifest, backup) {
            Some(flaw) => Err(StoredError::Damaged(flaw)),
            None => Ok(manifest),
        }
    }
}

/// What in a manifest does not agree with the record of the backup.
fn flaw(manifest: &Manifest, backup: &Backup) -> Option<String> {
    if manifest.backup_id != backup.id.to_string() {
        return Some("its manifest is of another backup".to_owned());
    }
    if manifest.artifacts.is_empty() {
        return Some("its manifest names no artifacts".to_owned());
    }
    let size_bytes = manifest.rdb_bytes();
    (size_bytes != backup.size_bytes).then(|| {
        let recorded = backup.size_bytes;
        format!("its manifest is of {size_bytes} bytes of RDB, its record of {recorded}")
    })
}
