use cachevault_catalog::CatalogError;
use cachevault_domain::{BackupId, DrillFailure, EventKind, ProjectId, Proof};
use jiff::Timestamp;
use sqlx::{SqliteConnection, SqliteExecutor};

use crate::row::{owned_backup, signed};
use crate::{events, unavailable};

/// Whether a drill of the backup is open.
pub(crate) async fn is_open(
    tx: &mut SqliteConnection,
    backup: BackupId,
) -> Result<bool, CatalogError> {
    // The same words as in the index `jobs_one_drill`, of which it makes use.
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM jobs
                        WHERE backup_id = ? AND state IN ('queued', 'leased') AND kind = 'drill')",
    )
    .bind(backup.to_string())
    .fetch_one(tx)
    .await
    .map_err(unavailable)
}

/// The last drill has proven the backup.
pub(crate) async fn prove(
    tx: &mut SqliteConnection,
    backup: BackupId,
    proof: &Proof,
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE backups SET proven_at = ?, proven_by = ?, proof_uncompared = ?, drill_failed_at = NULL,
             drill_failure = NULL
         WHERE id = ?",
    )
    .bind(proof.at.as_microsecond())
    .bind(&proof.server)
    .bind(signed(proof.uncompared))
    .bind(backup.to_string())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    let what = (EventKind::DrillProven, Some(proof.server.as_str()));
    events::note_backup(tx, backup, what, proof.at).await
}

/// The last drill of the backup has failed; what an earlier one proved stays.
pub(crate) async fn fail(
    tx: &mut SqliteConnection,
    backup: BackupId,
    failure: &DrillFailure,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE backups SET drill_failed_at = ?, drill_failure = ? WHERE id = ?")
        .bind(failure.at.as_microsecond())
        .bind(&failure.reason)
        .bind(backup.to_string())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    let what = (EventKind::DrillFailed, Some(failure.reason.as_str()));
    events::note_backup(tx, backup, what, failure.at).await
}

/// The newest restorable backup of each instance where it is due for a drill.
pub(crate) async fn due(
    executor: impl SqliteExecutor<'_>,
    proven_before: Timestamp,
    limit: u32,
) -> Result<Vec<(ProjectId, BackupId)>, CatalogError> {
    // NULL, no drill at all, comes first. The order is of instances, not of backups: one that makes
    // a backup every hour would otherwise never be the one that waits longest.
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT b.project_id, b.id FROM instances i JOIN backups b ON b.seq = (
             SELECT n.seq FROM backups n
             WHERE n.instance_id = i.id AND n.state = 'succeeded' AND n.removal_requested_at IS NULL
                 AND n.damage IS NULL AND n.content <> 'opaque'
             ORDER BY n.created_at DESC, n.seq DESC LIMIT 1)
         WHERE i.removed_at IS NULL
             AND (b.proven_at IS NULL OR b.proven_at < ?1)
             AND (b.drill_failed_at IS NULL OR b.drill_failed_at < ?1)
             AND NOT EXISTS (SELECT 1 FROM jobs j
                             WHERE j.instance_id = i.id AND j.state IN ('queued', 'leased') AND j.kind = 'drill')
         ORDER BY (SELECT coalesce(d.drill_failed_at, d.proven_at) FROM backups d
                   WHERE d.instance_id = i.id AND coalesce(d.drill_failed_at, d.proven_at) IS NOT NULL
                   ORDER BY coalesce(d.drill_failed_at, d.proven_at) DESC LIMIT 1),
             b.created_at, b.seq
         LIMIT ?2",
    )
    .bind(proven_before.as_microsecond())
    .bind(i64::from(limit))
    .fetch_all(executor)
    .await
    .map_err(unavailable)?;
    rows.iter().map(owned_backup).collect()
}
