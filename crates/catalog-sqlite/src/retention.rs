//! Which backups have to go, and when that is to be found out.

use async_trait::async_trait;
use cachevault_catalog::{CatalogError, RetentionCatalog};
use cachevault_domain::{
    BackupEvent, BackupId, InstanceId, JobId, JobKind, ProjectId, ReadingId, Retained, Retention,
    Trigger, beyond_limit, expired,
};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use crate::backups::next_state;
use crate::jobs::insert_job;
use crate::row::RowOf;
use crate::{SqliteCatalog, readings, settings, unavailable};

/// When the next of the readings that go on now is over, unless it goes on.
const READ_UNTIL: &str = "SELECT min(r.read_until) FROM backups b
        CROSS JOIN readings r ON r.backup_id = b.id AND r.read_until > ?2
    WHERE b.instance_id = ?1 AND b.state = 'succeeded' AND b.removal_requested_at IS NULL";

const DUE: &str = "SELECT id FROM instances WHERE retain_at <= ? ORDER BY retain_at LIMIT ?";

const WITH_FILES: &str = "SELECT b.id, b.created_at, b.keep_until, b.damage IS NULL AS is_good,
        b.content = 'opaque' AS is_opaque, b.held,
        b.started_by,
        EXISTS (SELECT 1 FROM restores r
                WHERE r.state IN ('waiting', 'running') AND (r.backup_id = b.id OR r.safety_backup_id = b.id))
            OR EXISTS (SELECT 1 FROM jobs j
                       WHERE j.backup_id = b.id AND j.state IN ('queued', 'leased') AND j.kind = 'drill')
            OR EXISTS (SELECT 1 FROM readings r WHERE r.backup_id = b.id AND r.read_until > ?2)
            AS is_in_use
    FROM backups b
    WHERE b.instance_id = ?1 AND b.state = 'succeeded' AND b.removal_requested_at IS NULL";

#[derive(sqlx::FromRow)]
struct RetainedRow {
    id: String,
    created_at: i64,
    keep_until: Option<i64>,
    is_good: bool,
    is_opaque: bool,
    held: bool,
    started_by: String,
    is_in_use: bool,
}

impl TryFrom<RetainedRow> for Retained {
    type Error = CatalogError;

    fn try_from(columns: RetainedRow) -> Result<Self, CatalogError> {
        let row = RowOf { table: "backups", key: &columns.id };
        Ok(Self {
            id: row.parse(&columns.id)?,
            created_at: row.moment(columns.created_at)?,
            trigger: row.named(&Trigger::ALL, Trigger::as_str, &columns.started_by)?,
            keep_until: row.moment_if(columns.keep_until)?,
            is_good: columns.is_good,
            is_opaque: columns.is_opaque,
            is_held: columns.held,
            is_in_use: columns.is_in_use,
        })
    }
}

/// From this moment on it is to be found out which backups of an instance have to go.
pub(crate) async fn look_at(
    tx: &mut SqliteConnection,
    instance: &str,
    at: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE instances SET retain_at = min(coalesce(retain_at, ?1), ?1)
         WHERE id = ?2 AND removed_at IS NULL",
    )
    .bind(at.as_microsecond())
    .bind(instance)
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// Something about a job's backup, or about its instance, may have made another backup superfluous.
pub(crate) async fn note_end(
    tx: &mut SqliteConnection,
    job: JobId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE instances SET retain_at = min(coalesce(retain_at, ?1), ?1)
         WHERE removed_at IS NULL AND id IN (
             SELECT instance_id FROM jobs WHERE id = ?2
             UNION SELECT b.instance_id FROM jobs j JOIN backups b ON b.id = j.backup_id WHERE j.id = ?2)",
    )
    .bind(now.as_microsecond())
    .bind(job.to_string())
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

/// What becomes of a backup whose files are removed now.
pub(crate) async fn removal_event(
    tx: &mut SqliteConnection,
    backup: BackupId,
) -> Result<BackupEvent, CatalogError> {
    let expiring: Option<bool> = sqlx::query_scalar("SELECT expiring FROM backups WHERE id = ?")
        .bind(backup.to_string())
        .fetch_optional(tx)
        .await
        .map_err(unavailable)?;
    Ok(if expiring == Some(true) { BackupEvent::Expired } else { BackupEvent::Removed })
}

/// Marks a backup for removal because its time is over.
async fn expire(
    tx: &mut SqliteConnection,
    (project, instance, backup): (&ProjectId, InstanceId, BackupId),
    job: JobId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    next_state(&mut *tx, backup, BackupEvent::Expired).await?;
    sqlx::query(
        "UPDATE backups SET removal_requested_at = ?, expiring = 1, check_requested_at = NULL
         WHERE id = ?",
    )
    .bind(now.as_microsecond())
    .bind(backup.to_string())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    insert_job(tx, job, JobKind::Remove, (project, instance, backup), now).await
}

async fn with_files(
    tx: &mut SqliteConnection,
    instance: InstanceId,
    now: Timestamp,
) -> Result<Vec<Retained>, CatalogError> {
    let rows: Vec<RetainedRow> = sqlx::query_as(WITH_FILES)
        .bind(instance.to_string())
        .bind(now.as_microsecond())
        .fetch_all(tx)
        .await
        .map_err(unavailable)?;
    rows.into_iter().map(Retained::try_from).collect()
}

/// What has to go, each once.
fn superfluous(
    backups: &[Retained],
    rules: &Retention,
    backups_max: usize,
    now: Timestamp,
) -> Vec<BackupId> {
    let mut gone = expired(backups, rules, now);
    let is_left = |backup: &&Retained| !gone.contains(&backup.id);
    let left: Vec<_> = backups.iter().filter(is_left).copied().collect();
    // The newest has its room already: nothing goes for one that may yet fail.
    gone.extend(beyond_limit(&left, backups_max.saturating_add(1)));
    gone
}

#[async_trait]
impl RetentionCatalog for SqliteCatalog {
    async fn hold_backup(
        &self,
        project: &ProjectId,
        backup: BackupId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let instance: Option<String> = sqlx::query_scalar(
            "UPDATE backups SET held = ?, held_for = NULL WHERE id = ? AND project_id = ? AND state = 'succeeded'
                 AND removal_requested_at IS NULL RETURNING instance_id",
        )
        .bind(is_held)
        .bind(backup.to_string())
        .bind(project.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(unavailable)?;
        let instance = instance.ok_or(CatalogError::NotFound("backup"))?;
        look_at(&mut tx, &instance, now).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn note_reading(
        &self,
        project: &ProjectId,
        backup: BackupId,
        reading: ReadingId,
        until: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        readings::note(&mut tx, (project, backup), reading, until).await?;
        tx.commit().await.map_err(unavailable)
    }

    fn end_reading(&self, reading: ReadingId) {
        self.ended_readings.add(reading);
        // A removal may have waited for it.
        self.job_queued(JobKind::Remove).notify_one();
    }

    async fn instances_to_retain(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<InstanceId>, CatalogError> {
        let ids: Vec<String> = sqlx::query_scalar(DUE)
            .bind(now.as_microsecond())
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
        ids.iter().map(|id| RowOf { table: "instances", key: id }.parse(id)).collect()
    }

    async fn retain_backups(
        &self,
        instance: InstanceId,
        backups_max: usize,
        jobs: &[JobId],
        now: Timestamp,
    ) -> Result<Vec<BackupId>, CatalogError> {
        self.forget_ended_readings(now).await?;
        let mut tx = self.write().await?;
        let key = instance.to_string();
        let project: Option<String> = sqlx::query_scalar(
            "SELECT project_id FROM instances WHERE id = ? AND removed_at IS NULL",
        )
        .bind(&key)
        .fetch_optional(&mut *tx)
        .await
        .map_err(unavailable)?;
        // What was kept of an instance that was let go stays until somebody deletes it.
        let Some(project) = project else { return Ok(Vec::new()) };
        let row = RowOf { table: "instances", key: &key };
        let project: ProjectId = row.parse(&project)?;
        let backups = with_files(&mut tx, instance, now).await?;
        let stored = settings::find_policy(&mut tx, instance).await?;
        let keep = stored.as_ref().and_then(|stored| stored.policy.keep());
        let rules = keep.map_or_else(Retention::by_time, |keep| keep.rules().clone());
        let mut gone = superfluous(&backups, &rules, backups_max, now);
        let is_more = gone.len() > jobs.len();
        gone.truncate(jobs.len());
        for (backup, job) in gone.iter().zip(jobs) {
            expire(&mut tx, (&project, instance, *backup), *job, now).await?;
        }
        // What stays though its time is over waits for something to end.
        let ends = backups
            .iter()
            .filter(|backup| backup.trigger == Trigger::Automatic)
            .filter_map(|b| b.keep_until);
        let reading: Option<i64> = sqlx::query_scalar(READ_UNTIL)
            .bind(&key)
            .bind(now.as_microsecond())
            .fetch_one(&mut *tx)
            .await
            .map_err(unavailable)?;
        let ends = ends.filter(|until| *until > now).chain(row.moment_if(reading)?);
        let next = if is_more { Some(now) } else { ends.min() };
        sqlx::query("UPDATE instances SET retain_at = ? WHERE id = ?")
            .bind(next.map(Timestamp::as_microsecond))
            .bind(&key)
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)?;
        if !gone.is_empty() {
            self.job_queued(JobKind::Remove).notify_one();
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedules::plan_of;

    #[tokio::test]
    async fn what_is_due_and_what_there_is_are_found_by_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        for (query, index) in [
            (DUE, "instances_to_retain"),
            (WITH_FILES, "backups_restorable"),
            (READ_UNTIL, "backups_restorable"),
        ] {
            let plan = plan_of(&catalog, query).await;
            assert!(plan.contains(index), "{plan}");
            assert!(!plan.contains("SCAN b") && !plan.contains("TEMP B-TREE"), "{plan}");
            assert!(!plan.contains("SCAN instances"), "{plan}");
        }
    }
}
