//! Files that are read by whoever downloads them, and are not removed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cachevault_catalog::{Catalog, CatalogError};
use cachevault_domain::{BackupId, Clock, ProjectId, ReadingId};
use jiff::{SignedDuration, Timestamp};

use crate::{RdbPieces, RdbUnreadable};

/// The shortest time for which the catalog is told that files are read.
const LEASE_MIN: SignedDuration = SignedDuration::from_mins(1);

/// Tells the catalog that a backup is read: for a while, and again before that is over. So a process
/// that dies keeps nothing; when it is dropped, however that comes, the catalog is told at once.
pub(crate) struct Reading {
    catalog: Arc<dyn Catalog>,
    clock: Arc<dyn Clock>,
    project: ProjectId,
    backup: BackupId,
    id: ReadingId,
    lease: SignedDuration,
    extend_at: Timestamp,
}

impl Reading {
    /// Begins to keep the backup; `pause_max` is the longest that passes between two pieces.
    ///
    /// [`CatalogError::NotFound`] when it has no files to stay.
    pub(crate) async fn begin(
        catalog: Arc<dyn Catalog>,
        clock: Arc<dyn Clock>,
        (project, backup, id): (ProjectId, BackupId, ReadingId),
        pause_max: Duration,
    ) -> Result<Self, CatalogError> {
        let pause_max = SignedDuration::try_from(pause_max).unwrap_or(SignedDuration::MAX);
        // A quarter passes, and a pause, and a quarter is left for whatever is slow.
        let lease = (pause_max.checked_mul(2)).unwrap_or(SignedDuration::MAX).max(LEASE_MIN);
        let mut reading =
            Self { catalog, clock, project, backup, id, lease, extend_at: Timestamp::MIN };
        reading.extend().await?;
        Ok(reading)
    }

    async fn extend(&mut self) -> Result<(), CatalogError> {
        let now = self.clock.now();
        if now < self.extend_at {
            return Ok(());
        }
        let after = |time| now.checked_add(time).unwrap_or(Timestamp::MAX);
        let until = after(self.lease);
        self.catalog.note_reading(&self.project, self.backup, self.id, until).await?;
        self.extend_at = after(self.lease / 4);
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.catalog.end_reading(self.id);
    }
}

/// An RDB whose backup is not removed while it is read.
pub(crate) struct KeptPieces {
    pub(crate) rdb: Box<dyn RdbPieces>,
    pub(crate) reading: Reading,
}

#[async_trait]
impl RdbPieces for KeptPieces {
    async fn next(&mut self) -> Result<Option<Bytes>, RdbUnreadable> {
        // A catalog that cannot take it now is told with the next piece; what goes in spite of its
        // readers, because somebody asked for it long ago, ends by itself.
        let _ = self.reading.extend().await;
        self.rdb.next().await
    }
}
