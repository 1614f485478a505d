//! Checks of stored files, and backups that are known from a store alone.

use cachevault_catalog::CatalogError;
use cachevault_domain::{Backup, BackupId, EventKind, ProjectId, StoredBackup};
use jiff::Timestamp;
use sqlx::{SqliteConnection, SqliteExecutor};

use crate::row::{owned_backup, signed};
use crate::{events, retention, unavailable};

/// What is to be checked: what somebody asked for, then what was checked longest ago.
pub(crate) async fn due(
    executor: impl SqliteExecutor<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<(ProjectId, BackupId)>, CatalogError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT project_id, id FROM (
             SELECT project_id, id, 0 AS turn, check_requested_at AS at FROM backups
             WHERE check_requested_at IS NOT NULL AND state = 'succeeded' AND removal_requested_at IS NULL
             UNION ALL
             SELECT project_id, id, 1, coalesce(checked_at, completed_at) FROM backups
             WHERE coalesce(checked_at, completed_at) < ?1 AND check_requested_at IS NULL
                 AND state = 'succeeded' AND removal_requested_at IS NULL)
         ORDER BY turn, at LIMIT ?2",
    )
    .bind(before.as_microsecond())
    .bind(i64::from(limit))
    .fetch_all(executor)
    .await
    .map_err(unavailable)?;
    rows.iter().map(owned_backup).collect()
}

/// Asks for a check. Whether the backup has files.
pub(crate) async fn request(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    backup: BackupId,
    now: Timestamp,
) -> Result<bool, CatalogError> {
    let updated = sqlx::query(
        "UPDATE backups SET check_requested_at = coalesce(check_requested_at, ?)
         WHERE id = ? AND project_id = ? AND state = 'succeeded' AND removal_requested_at IS NULL",
    )
    .bind(now.as_microsecond())
    .bind(backup.to_string())
    .bind(project.as_str())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(updated.rows_affected() > 0)
}

/// Notes what a check of these files found.
pub(crate) async fn record(
    tx: &mut SqliteConnection,
    backup: BackupId,
    stored_attempt: u32,
    damage: Option<&str>,
    began: Timestamp,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let was_sound: Option<bool> = sqlx::query_scalar(
        "SELECT damage IS NULL FROM backups
         WHERE id = ? AND stored_attempt = ? AND state = 'succeeded' AND removal_requested_at IS NULL",
    )
    .bind(backup.to_string())
    .bind(i64::from(stored_attempt))
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    if let (Some(true), Some(damage)) = (was_sound, damage) {
        let what = (EventKind::BackupDamaged, Some(damage));
        events::note_backup(&mut *tx, backup, what, now).await?;
    }
    // A wish that came while the files were read is still to be fulfilled.
    sqlx::query(
        "UPDATE backups SET checked_at = ?1, damage = ?2,
             check_requested_at = CASE WHEN check_requested_at > ?3 THEN check_requested_at END
         WHERE id = ?4 AND stored_attempt = ?5 AND state = 'succeeded' AND removal_requested_at IS NULL",
    )
    .bind(now.as_microsecond())
    .bind(damage)
    .bind(began.as_microsecond())
    .bind(backup.to_string())
    .bind(i64::from(stored_attempt))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// Why an instance is not reached of which nothing but its backups is known.
const FROM_BACKUPS: &str =
    "it is known from its backups alone; its password and TLS settings are to be set again";

/// Adds a backup that a store holds, with its instance and project where they are missing. Whether
/// it was missing.
pub(crate) async fn adopt(
    tx: &mut SqliteConnection,
    stored: &StoredBackup,
) -> Result<bool, CatalogError> {
    let StoredBackup { instance_name, engine, server_version, address, backup } = stored;
    let (instance, project) = (backup.instance.to_string(), backup.project.as_str());
    // What the project was called the store does not tell: until it is named its id is its name.
    sqlx::query(
        "INSERT INTO projects (id, name, created_at) VALUES (?1, ?1, ?2) ON CONFLICT DO NOTHING",
    )
    .bind(project)
    .bind(backup.created_at.as_microsecond())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    // Another instance may have the name by now; then the id tells them apart.
    for name in [instance_name.to_string(), format!("restored-{}", &instance[..8])] {
        sqlx::query(
            "INSERT INTO instances (id, project_id, name, host, port, tls, engine, server_version, role,
                 replicas_online, used_memory_bytes, max_memory_bytes, system_memory_bytes, keys,
                 databases_used, observed_at, unreachable_because, failed_looks, created_at)
             SELECT ?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, 'primary', 0, 0, 0, 0, 0, 0, ?8, ?9, 3, ?8
             WHERE NOT EXISTS (SELECT 1 FROM instances WHERE id = ?1)
             ON CONFLICT DO NOTHING",
        )
        .bind(&instance)
        .bind(project)
        .bind(name)
        .bind(&address.host)
        .bind(i64::from(address.port))
        .bind(engine.as_str())
        .bind(server_version.to_string())
        .bind(backup.created_at.as_microsecond())
        .bind(FROM_BACKUPS)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    }
    learn_from_newer(&mut *tx, stored).await?;
    let is_new = insert(&mut *tx, backup).await?;
    if let Some(until) = backup.keep_until.filter(|_| is_new) {
        retention::look_at(tx, &instance, until).await?;
    }
    Ok(is_new)
}

/// An instance that is known from its backups alone is what the newest of them says.
async fn learn_from_newer(
    tx: &mut SqliteConnection,
    stored: &StoredBackup,
) -> Result<(), CatalogError> {
    let StoredBackup { instance_name, engine, server_version, address, backup } = stored;
    // A name that another instance has by now is not taken from it.
    sqlx::query(
        "UPDATE OR IGNORE instances SET name = ?1
         WHERE id = ?2 AND unreachable_because = ?3 AND observed_at < ?4",
    )
    .bind(instance_name.to_string())
    .bind(backup.instance.to_string())
    .bind(FROM_BACKUPS)
    .bind(backup.created_at.as_microsecond())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    sqlx::query(
        "UPDATE instances SET host = ?4, port = ?5, engine = ?6, server_version = ?7, observed_at = ?3
         WHERE id = ?1 AND unreachable_because = ?2 AND observed_at < ?3",
    )
    .bind(backup.instance.to_string())
    .bind(FROM_BACKUPS)
    .bind(backup.created_at.as_microsecond())
    .bind(&address.host)
    .bind(i64::from(address.port))
    .bind(engine.as_str())
    .bind(server_version.to_string())
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

async fn insert(tx: &mut SqliteConnection, backup: &Backup) -> Result<bool, CatalogError> {
    let moment = |at: Option<Timestamp>| at.map(Timestamp::as_microsecond);
    let inserted = sqlx::query(
        "INSERT INTO backups (id, project_id, instance_id, started_by, format, dialect, note, period,
             state, progress, received_bytes, size_bytes, stored_attempt, content, created_at,
             started_at, completed_at, keep_until, keys)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(backup.id.to_string())
    .bind(backup.project.as_str())
    .bind(backup.instance.to_string())
    .bind(backup.trigger.as_str())
    .bind(backup.format.as_str())
    .bind(backup.dialect.as_str())
    .bind(backup.note.as_ref().map(|note| note.as_str().to_owned()))
    .bind(&backup.window)
    .bind(backup.state.as_str())
    .bind(i64::from(backup.progress.hundredths()))
    .bind(signed(backup.received_bytes))
    .bind(signed(backup.size_bytes))
    .bind(backup.stored_attempt.map(i64::from))
    .bind(backup.content.as_str())
    .bind(backup.created_at.as_microsecond())
    .bind(moment(backup.started_at))
    .bind(moment(backup.completed_at))
    .bind(moment(backup.keep_until))
    .bind(backup.keys.map(signed))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(inserted.rows_affected() > 0)
}
