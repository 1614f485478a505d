//! Who reads the files of a backup, which keeps them from being removed.

use std::sync::{Mutex, PoisonError};

use cachevault_catalog::{CatalogError, READ_ON_MAX};
use cachevault_domain::{BackupId, ProjectId, ReadingId};
use jiff::Timestamp;
use sqlx::{SqliteConnection, SqliteExecutor};

use crate::row::RowOf;
use crate::{SqliteCatalog, unavailable};

/// Readings that have ended here and are still in the catalog.
#[derive(Debug, Default)]
pub(crate) struct Ended(Mutex<Vec<ReadingId>>);

impl Ended {
    pub(crate) fn add(&self, reading: ReadingId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
    }

    fn take(&self) -> Vec<ReadingId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SqliteCatalog {
    /// Removes the readings that have ended. What a write that fails forgets ends with its time.
    pub(crate) async fn forget_ended_readings(&self, now: Timestamp) -> Result<(), CatalogError> {
        let ended = self.ended_readings.take();
        if ended.is_empty() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        for reading in ended {
            forget(&mut tx, reading, now).await?;
        }
        tx.commit().await.map_err(unavailable)
    }
}

/// Removes a reading. A removal that waited for nobody else is due from now on.
async fn forget(
    tx: &mut SqliteConnection,
    reading: ReadingId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let delete = sqlx::query_scalar("DELETE FROM readings WHERE id = ? RETURNING backup_id");
    let backup = delete.bind(reading.to_string()).fetch_optional(&mut *tx).await;
    let backup: Option<String> = backup.map_err(unavailable)?;
    // A removal that has failed waits for its next attempt.
    sqlx::query(
        "UPDATE jobs SET due_at = max(?1, coalesce(
             (SELECT max(read_until) FROM readings WHERE backup_id = ?2), 0))
         WHERE backup_id = ?2 AND kind = 'remove' AND state = 'queued'
             AND last_error IS NULL AND due_at > ?1",
    )
    .bind(now.as_microsecond())
    .bind(backup)
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Until when, from now on, the backup is read.
pub(crate) async fn read_until(
    tx: &mut SqliteConnection,
    backup: BackupId,
    now: Timestamp,
) -> Result<Timestamp, CatalogError> {
    let key = backup.to_string();
    let query = sqlx::query_scalar("SELECT max(read_until) FROM readings WHERE backup_id = ?");
    let until = query.bind(&key).fetch_one(tx).await.map_err(unavailable)?;
    let until = RowOf { table: "readings", key: &key }.moment_if(until)?;
    Ok(until.map_or(now, |until| until.max(now)))
}

/// Notes that a backup is read. A reading that had begun before the removal was asked for holds it
/// up, and no other begins.
pub(crate) async fn note(
    tx: &mut SqliteConnection,
    (project, backup): (&ProjectId, BackupId),
    reading: ReadingId,
    until: Timestamp,
) -> Result<(), CatalogError> {
    let key = backup.to_string();
    let found: Option<Option<i64>> = sqlx::query_scalar(
        "SELECT removal_requested_at FROM backups
         WHERE id = ? AND project_id = ? AND state = 'succeeded'",
    )
    .bind(&key)
    .bind(project.as_str())
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    let unwanted = found.ok_or(CatalogError::NotFound("backup"))?;
    let Some(unwanted) = (RowOf { table: "backups", key: &key }).moment_if(unwanted)? else {
        return extend(tx, &key, reading, until).await;
    };
    let until = until.min(unwanted.checked_add(READ_ON_MAX).unwrap_or(Timestamp::MAX));
    let held_up = sqlx::query(
        "UPDATE jobs SET due_at = max(due_at, ?1)
         WHERE backup_id = ?2 AND kind = 'remove' AND state = 'queued'
             AND EXISTS (SELECT 1 FROM readings WHERE id = ?3 AND backup_id = ?2)",
    )
    .bind(until.as_microsecond())
    .bind(&key)
    .bind(reading.to_string())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    if held_up.rows_affected() == 0 {
        return Err(CatalogError::NotFound("backup"));
    }
    extend(tx, &key, reading, until).await
}

async fn extend(
    tx: &mut SqliteConnection,
    backup: &str,
    reading: ReadingId,
    until: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO readings (id, backup_id, read_until) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET read_until = max(read_until, ?3)",
    )
    .bind(reading.to_string())
    .bind(backup)
    .bind(until.as_microsecond())
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Forgets who has read a backup whose files are gone.
pub(crate) async fn forget_all(
    executor: impl SqliteExecutor<'_>,
    backup: BackupId,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM readings WHERE backup_id = ?")
        .bind(backup.to_string())
        .execute(executor)
        .await
        .map(drop)
        .map_err(unavailable)
}
