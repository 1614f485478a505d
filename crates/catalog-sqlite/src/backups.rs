use async_trait::async_trait;
use cachevault_catalog::{BackupCatalog, CatalogError};
use cachevault_domain::{
    Attempt, Backup, BackupEvent, BackupFilter, BackupFormat, BackupId, BackupState, Cancellation,
    ContentState, DrillFailure, EventKind, Failure, FailureCode, InstanceId, JobId, JobKind,
    JobState, Listing, NewBackup, Page, Progress, ProjectId, Proof, RdbDialect, ShrinkRule,
    StoredBackup, StoredFiles, Trigger,
};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqliteExecutor};

use crate::instances::require_instance;
use crate::jobs::{end_job, hasten, insert_job, make_due, open_capture, refuse_busy};
use crate::listing::RecordsOf;
use crate::restores::needed_by_restore;
use crate::row::{RowOf, signed};
use crate::{SqliteCatalog, checks, drills, events, readings, unavailable};

const SELECT: &str = "SELECT backups.*, EXISTS (
        SELECT 1 FROM jobs
        WHERE jobs.backup_id = backups.id AND jobs.state IN ('queued', 'leased') AND jobs.kind = 'drill'
    ) AS drilling, CASE WHEN backups.state IN ('waiting', 'running') THEN (
        SELECT jobs.attempt FROM jobs
        WHERE jobs.instance_id = backups.instance_id AND jobs.state IN ('queued', 'leased')
            AND jobs.kind IN ('capture', 'restore')
    ) END AS attempt, CASE WHEN backups.state IN ('waiting', 'running') THEN (
        SELECT jobs.last_error FROM jobs
        WHERE jobs.instance_id = backups.instance_id AND jobs.state IN ('queued', 'leased')
            AND jobs.kind IN ('capture', 'restore')
    ) END AS last_error FROM backups";

#[derive(sqlx::FromRow)]
struct BackupRow {
    id: String,
    project_id: String,
    instance_id: String,
    started_by: String,
    format: String,
    dialect: String,
    note: Option<String>,
    period: Option<String>,
    state: String,
    progress: i64,
    received_bytes: i64,
    phase: Option<String>,
    size_bytes: i64,
    stored_attempt: Option<i64>,
    content: String,
    failure_code: Option<String>,
    failure_reason: Option<String>,
    cancelled_at: Option<i64>,
    cancelled_by: Option<String>,
    created_at: i64,
    started_at: Option<i64>,
    completed_at: Option<i64>,
    removal_requested_at: Option<i64>,
    removed_at: Option<i64>,
    proven_at: Option<i64>,
    proven_by: Option<String>,
    proof_uncompared: i64,
    drill_failed_at: Option<i64>,
    drill_failure: Option<String>,
    drilling: bool,
    check_requested_at: Option<i64>,
    checked_at: Option<i64>,
    damage: Option<String>,
    keep_until: Option<i64>,
    held: bool,
    keys: Option<i64>,
    held_for: Option<String>,
    attempt: Option<i64>,
    last_error: Option<String>,
}

impl TryFrom<BackupRow> for Backup {
    type Error = CatalogError;

    fn try_from(columns: BackupRow) -> Result<Self, CatalogError> {
        let row = RowOf { table: "backups", key: &columns.id };
        Ok(Self {
            id: row.parse(&columns.id)?,
            project: row.parse(&columns.project_id)?,
            instance: row.parse(&columns.instance_id)?,
            trigger: row.named(&Trigger::ALL, Trigger::as_str, &columns.started_by)?,
            format: row.named(&BackupFormat::ALL, BackupFormat::as_str, &columns.format)?,
            dialect: row.named(&RdbDialect::ALL, RdbDialect::as_str, &columns.dialect)?,
            note: row.parse_if(columns.note.as_deref())?,
            state: state(&row, &columns.state)?,
            progress: Progress::from_hundredths(row.number(columns.progress)?),
            received_bytes: row.number(columns.received_bytes)?,
            size_bytes: row.number(columns.size_bytes)?,
            stored_attempt: row.number_if(columns.stored_attempt)?,
            content: row.named(&ContentState::ALL, ContentState::as_str, &columns.content)?,
            failure: row.failure(columns.failure_code.as_deref(), columns.failure_reason)?,
            cancellation: cancellation(&row, columns.cancelled_at, columns.cancelled_by)?,
            proof: proof(&row, columns.proven_at, columns.proven_by, columns.proof_uncompared)?,
            drill_failure: drill_failure(&row, columns.drill_failed_at, columns.drill_failure)?,
            drilling: columns.drilling,
            attempt: attempt(&row, columns.attempt, columns.last_error)?,
            created_at: row.moment(columns.created_at)?,
            started_at: row.moment_if(columns.started_at)?,
            completed_at: row.moment_if(columns.completed_at)?,
            removal_requested_at: row.moment_if(columns.removal_requested_at)?,
            removed_at: row.moment_if(columns.removed_at)?,
            check_requested_at: row.moment_if(columns.check_requested_at)?,
            checked_at: row.moment_if(columns.checked_at)?,
            damage: columns.damage,
            keep_until: row.moment_if(columns.keep_until)?,
            is_held: columns.held,
            keys: row.number_if(columns.keys)?,
            held_for: row.parse_if(columns.held_for.as_deref())?,
            window: columns.period,
            phase: columns.phase,
        })
    }
}

fn proof(
    row: &RowOf<'_>,
    at: Option<i64>,
    server: Option<String>,
    uncompared: i64,
) -> Result<Option<Proof>, CatalogError> {
    let Some(at) = row.moment_if(at)? else { return Ok(None) };
    let uncompared = row.number(uncompared)?;
    Ok(Some(Proof { at, server: server.unwrap_or_default(), uncompared }))
}

fn drill_failure(
    row: &RowOf<'_>,
    at: Option<i64>,
    reason: Option<String>,
) -> Result<Option<DrillFailure>, CatalogError> {
    let Some(at) = row.moment_if(at)? else { return Ok(None) };
    Ok(Some(DrillFailure { at, reason: reason.unwrap_or_default() }))
}

/// Which attempt it is, of what has an open job.
pub(crate) fn attempt(
    row: &RowOf<'_>,
    number: Option<i64>,
    last_error: Option<String>,
) -> Result<Option<Attempt>, CatalogError> {
    let number = row.number_if(number)?;
    Ok(number.map(|number| Attempt { number, last_error }))
}

pub(crate) fn cancellation(
    row: &RowOf<'_>,
    at: Option<i64>,
    by: Option<String>,
) -> Result<Option<Cancellation>, CatalogError> {
    let Some(at) = row.moment_if(at)? else { return Ok(None) };
    Ok(Some(Cancellation { by: by.unwrap_or_default(), at }))
}

/// Who wants a backup to end, if anybody.
pub(crate) async fn cancellation_of(
    executor: impl SqliteExecutor<'_>,
    backup: BackupId,
) -> Result<Option<Cancellation>, CatalogError> {
    let key = backup.to_string();
    let found: Option<(Option<i64>, Option<String>)> =
        sqlx::query_as("SELECT cancelled_at, cancelled_by FROM backups WHERE id = ?")
            .bind(&key)
            .fetch_optional(executor)
            .await
            .map_err(unavailable)?;
    let (at, by) = found.unwrap_or_default();
    cancellation(&RowOf { table: "backups", key: &key }, at, by)
}

fn state(row: &RowOf<'_>, text: &str) -> Result<BackupState, CatalogError> {
    row.named(&BackupState::ALL, BackupState::as_str, text)
}

/// The state of a backup after `event`; refused where the chart has no such arrow.
pub(crate) async fn next_state(
    tx: &mut SqliteConnection,
    backup: BackupId,
    event: BackupEvent,
) -> Result<BackupState, CatalogError> {
    let key = backup.to_string();
    let text: Option<String> = sqlx::query_scalar("SELECT state FROM backups WHERE id = ?")
        .bind(&key)
        .fetch_optional(tx)
        .await
        .map_err(unavailable)?;
    let text = text.ok_or(CatalogError::NotFound("backup"))?;
    Ok(state(&RowOf { table: "backups", key: &key }, &text)?.apply(event)?)
}

/// The backup, wherever it is looked up.
pub(crate) async fn find(
    executor: impl SqliteExecutor<'_>,
    project: &ProjectId,
    id: BackupId,
) -> Result<Option<Backup>, CatalogError> {
    let row: Option<BackupRow> = QueryBuilder::<Sqlite>::new(SELECT)
        .push(" WHERE id = ")
        .push_bind(id.to_string())
        .push(" AND project_id = ")
        .push_bind(project.as_str())
        .build_query_as()
        .fetch_optional(executor)
        .await
        .map_err(unavailable)?;
    row.map(Backup::try_from).transpose()
}

/// Records a backup that waits.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    backup: &NewBackup,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO backups (id, project_id, instance_id, started_by, format, dialect, note, state,
             progress, received_bytes, size_bytes, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?)",
    )
    .bind(backup.id.to_string())
    .bind(backup.project.as_str())
    .bind(backup.instance.to_string())
    .bind(backup.trigger.as_str())
    .bind(backup.format.as_str())
    .bind(backup.dialect.as_str())
    .bind(backup.note.as_ref().map(|note| note.as_str()))
    .bind(BackupState::Waiting.as_str())
    .bind(backup.created_at.as_microsecond())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// The backup is running from now on.
pub(crate) async fn start(
    tx: &mut SqliteConnection,
    backup: BackupId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let state = next_state(tx, backup, BackupEvent::Started).await?;
    let query = sqlx::query_scalar("SELECT started_at IS NULL FROM backups WHERE id = ?");
    let is_first = query.bind(backup.to_string()).fetch_one(&mut *tx).await;
    if is_first.map_err(unavailable)? {
        events::note_backup(tx, backup, (EventKind::BackupStarted, None), now).await?;
    }
    sqlx::query("UPDATE backups SET state = ?, started_at = coalesce(started_at, ?), received_bytes = 0 WHERE id = ?")
        .bind(state.as_str())
        .bind(now.as_microsecond())
        .bind(backup.to_string())
        .execute(tx)
        .await
        .map_err(unavailable)?;
    Ok(())
}

/// The backup has succeeded.
pub(crate) async fn finish(
    tx: &mut SqliteConnection,
    backup: BackupId,
    files: &StoredFiles,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let state = next_state(tx, backup, BackupEvent::Finished).await?;
    sqlx::query(
        "UPDATE backups SET state = ?, progress = ?, received_bytes = ?, size_bytes = ?, stored_attempt = ?,
             content = ?, keys = ?, phase = NULL, completed_at = ?
         WHERE id = ?",
    )
    .bind(state.as_str())
    .bind(i64::from(Progress::DONE.hundredths()))
    .bind(signed(files.size_bytes))
    .bind(signed(files.size_bytes))
    .bind(i64::from(files.attempt))
    .bind(files.content.as_str())
    .bind(files.keys.map(signed))
    .bind(now.as_microsecond())
    .bind(backup.to_string())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    events::note_backup(&mut *tx, backup, (EventKind::BackupSucceeded, None), now).await?;
    if files.content == ContentState::Opaque {
        let what = (EventKind::BackupOpaque, files.opaque_because.as_deref());
        events::note_backup(tx, backup, what, now).await?;
    }
    Ok(())
}

/// The newest good backup of the same instance whose keys were counted, safety backups apart.
const LAST_COUNTED: &str = "SELECT b.id, b.keys FROM backups b
    WHERE b.instance_id = (SELECT instance_id FROM backups WHERE id = ?1)
        AND b.state = 'succeeded' AND b.removal_requested_at IS NULL AND b.damage IS NULL
        AND b.keys IS NOT NULL AND b.started_by <> 'safety' AND b.id <> ?1
    ORDER BY b.created_at DESC, b.seq DESC LIMIT 1";

/// Where a backup that has just succeeded has shrunk, the last larger one is held.
pub(crate) async fn hold_larger(
    tx: &mut SqliteConnection,
    backup: BackupId,
    files: &StoredFiles,
    shrink: ShrinkRule,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let Some(keys) = files.keys else { return Ok(()) };
    let key = backup.to_string();
    let last: Option<(String, i64)> = sqlx::query_as(LAST_COUNTED)
        .bind(&key)
        .fetch_optional(&mut *tx)
        .await
        .map_err(unavailable)?;
    let Some((last, last_keys)) = last else { return Ok(()) };
    let last_keys = last_keys.unsigned_abs();
    if !shrink.is_shrunk(last_keys, keys) {
        return Ok(());
    }
    release_all_but_larger(&mut *tx, &key, last_keys).await?;
    // What a person holds stays theirs.
    sqlx::query("UPDATE backups SET held = 1, held_for = ? WHERE id = ? AND held = 0")
        .bind(&key)
        .bind(&last)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    let detail = format!(
        "{keys} keys, after {last_keys} in backup {last}, which is held until it is released"
    );
    events::note_backup(tx, backup, (EventKind::BackupShrunk, Some(&detail)), now).await
}

/// Ends the holds for shrunk backups of the same instance which one with so many keys takes over: so
/// there are few, however often an instance shrinks and grows again.
async fn release_all_but_larger(
    tx: &mut SqliteConnection,
    backup: &str,
    last_keys: u64,
) -> Result<(), CatalogError> {
    let held: Vec<(String, i64)> = sqlx::query_as(
        "SELECT id, keys FROM backups
         WHERE instance_id = (SELECT instance_id FROM backups WHERE id = ?) AND held_for IS NOT NULL
             AND keys IS NOT NULL",
    )
    .bind(backup)
    .fetch_all(&mut *tx)
    .await
    .map_err(unavailable)?;
    for (id, keys) in held {
        if ShrinkRule::takes_over(keys.unsigned_abs(), last_keys) {
            sqlx::query("UPDATE backups SET held = 0, held_for = NULL WHERE id = ?")
                .bind(id)
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
        }
    }
    Ok(())
}

/// The backup has failed.
pub(crate) async fn fail(
    tx: &mut SqliteConnection,
    backup: BackupId,
    failure: &Failure,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let kind = match cancellation_of(&mut *tx, backup).await? {
        Some(_) => EventKind::BackupCancelled,
        None => EventKind::BackupFailed,
    };
    fail_as(tx, kind, backup, failure, now).await
}

/// The backup has failed, of which this kind of event tells.
pub(crate) async fn fail_as(
    tx: &mut SqliteConnection,
    kind: EventKind,
    backup: BackupId,
    failure: &Failure,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let state = next_state(tx, backup, BackupEvent::Failed).await?;
    sqlx::query(
        "UPDATE backups SET state = ?, phase = NULL, failure_code = ?, failure_reason = ?, completed_at = ?
         WHERE id = ?",
    )
    .bind(state.as_str())
    .bind(failure.code.as_str())
    .bind(&failure.reason)
    .bind(now.as_microsecond())
    .bind(backup.to_string())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    events::note_backup(tx, backup, (kind, Some(&failure.reason)), now).await
}

/// The files of the backup could not be removed yet.
pub(crate) async fn note_unremovable(
    tx: &mut SqliteConnection,
    backup: BackupId,
    reason: &str,
) -> Result<(), CatalogError> {
    // Why a backup failed is worth more than why its leftovers stay.
    sqlx::query(
        "UPDATE backups SET failure_code = ?1, failure_reason = ?2
         WHERE id = ?3 AND coalesce(failure_code, ?1) = ?1",
    )
    .bind(FailureCode::RemovalFailed.as_str())
    .bind(reason)
    .bind(backup.to_string())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// The files of the backup are gone, and with them why they could not be removed.
pub(crate) async fn removed(
    tx: &mut SqliteConnection,
    backup: BackupId,
    state: BackupState,
    now: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE backups SET state = ?1, removed_at = ?2,
             failure_reason = iif(failure_code = ?3, NULL, failure_reason),
             failure_code = nullif(failure_code, ?3)
         WHERE id = ?4",
    )
    .bind(state.as_str())
    .bind(now.as_microsecond())
    .bind(FailureCode::RemovalFailed.as_str())
    .bind(backup.to_string())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    readings::forget_all(tx, backup).await
}

#[async_trait]
impl BackupCatalog for SqliteCatalog {
    async fn request_backup(&self, backup: &NewBackup) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        require_instance(&mut tx, &backup.project, backup.instance).await?;
        refuse_busy(&mut tx, backup.instance).await?;
        insert(&mut tx, backup).await?;
        let of = (&backup.project, backup.instance, backup.id);
        insert_job(&mut tx, backup.job, JobKind::Capture, of, backup.created_at).await?;
        let what = (EventKind::BackupRequested, None);
        events::note_backup(&mut tx, backup.id, what, backup.created_at).await?;
        self.commit_telling(tx).await?;
        self.job_queued(JobKind::Capture).notify_one();
        Ok(())
    }

    async fn find_backup(
        &self,
        project: &ProjectId,
        id: BackupId,
    ) -> Result<Option<Backup>, CatalogError> {
        find(&self.readers, project, id).await
    }

    async fn has_backups(
        &self,
        project: &ProjectId,
        instance: InstanceId,
    ) -> Result<bool, CatalogError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM backups
                            WHERE instance_id = ? AND project_id = ? AND state = 'succeeded')",
        )
        .bind(instance.to_string())
        .bind(project.as_str())
        .fetch_one(&self.readers)
        .await
        .map_err(unavailable)
    }

    async fn list_backups(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        filter: &BackupFilter,
        page: Page,
    ) -> Result<Listing<Backup>, CatalogError> {
        let wanted = RecordsOf {
            table: "backups",
            select: SELECT,
            project,
            instance,
            created_from: filter.created_from,
            created_to: filter.created_to,
        };
        let unless_long_removed = |query: &mut QueryBuilder<Sqlite>| {
            if let Some(since) = filter.removed_since {
                query
                    .push(" AND (removed_at IS NULL OR removed_at >= ")
                    .push_bind(since.as_microsecond())
                    .push(")");
            }
        };
        self.newest_first::<BackupRow, _>(&wanted, unless_long_removed, page).await
    }

    async fn last_size(&self, instance: InstanceId) -> Result<Option<u64>, CatalogError> {
        let size: Option<i64> = sqlx::query_scalar(
            "SELECT size_bytes FROM backups WHERE instance_id = ? AND size_bytes > 0
             ORDER BY created_at DESC, seq DESC LIMIT 1",
        )
        .bind(instance.to_string())
        .fetch_optional(&self.readers)
        .await
        .map_err(unavailable)?;
        Ok(size.map(i64::unsigned_abs))
    }

    async fn cancel_backup(
        &self,
        project: &ProjectId,
        backup: BackupId,
        wish: &Cancellation,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        cancel(&mut tx, project, backup, wish).await?;
        self.commit_telling(tx).await?;
        self.job_queued(JobKind::Capture).notify_one();
        Ok(())
    }

    async fn request_removal(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        backup: BackupId,
        job: JobId,
        now: Timestamp,
    ) -> Result<JobId, CatalogError> {
        self.forget_ended_readings(now).await?;
        let mut tx = self.write().await?;
        let job = mark_for_removal(&mut tx, (project, instance, backup), job, now).await?;
        tx.commit().await.map_err(unavailable)?;
        self.job_queued(JobKind::Remove).notify_one();
        Ok(job)
    }

    async fn request_removals(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        backups: &[(BackupId, JobId)],
        now: Timestamp,
    ) -> Result<Vec<JobId>, CatalogError> {
        self.forget_ended_readings(now).await?;
        let mut tx = self.write().await?;
        require_instance(&mut tx, project, instance).await?;
        refuse_busy(&mut tx, instance).await?;
        let mut jobs = Vec::with_capacity(backups.len());
        for (backup, job) in backups {
            let marked = mark_for_removal(&mut tx, (project, instance, *backup), *job, now);
            jobs.push(marked.await?);
        }
        tx.commit().await.map_err(unavailable)?;
        self.job_queued(JobKind::Remove).notify_one();
        Ok(jobs)
    }

    async fn request_check(
        &self,
        project: &ProjectId,
        backup: BackupId,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        if !checks::request(&mut tx, project, backup, now).await? {
            return Err(CatalogError::NotFound("backup"));
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn backups_to_check(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(ProjectId, BackupId)>, CatalogError> {
        checks::due(&self.readers, before, limit).await
    }

    async fn record_check(
        &self,
        backup: BackupId,
        stored_attempt: u32,
        damage: Option<&str>,
        began: Timestamp,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        checks::record(&mut tx, backup, stored_attempt, damage, began, now).await?;
        self.commit_telling(tx).await
    }

    async fn stored_backups(
        &self,
        after: Option<BackupId>,
        limit: u32,
    ) -> Result<Vec<Backup>, CatalogError> {
        let rows: Vec<BackupRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{SELECT} WHERE backups.id > ? AND state = 'succeeded' AND removal_requested_at IS NULL
             ORDER BY backups.id LIMIT ?"
        )))
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)?;
        rows.into_iter().map(Backup::try_from).collect()
    }

    async fn adopt_stored(&self, stored: &StoredBackup) -> Result<bool, CatalogError> {
        let mut tx = self.write().await?;
        let is_new = checks::adopt(&mut tx, stored).await?;
        tx.commit().await.map_err(unavailable)?;
        Ok(is_new)
    }

    async fn request_drill(
        &self,
        project: &ProjectId,
        backup: BackupId,
        job: JobId,
        now: Timestamp,
    ) -> Result<JobId, CatalogError> {
        let mut tx = self.write().await?;
        // An instance that was removed has no restorable backups.
        let found =
            find(&mut *tx, project, backup).await?.ok_or(CatalogError::NotFound("backup"))?;
        if !found.is_restorable() {
            return Err(CatalogError::NotRestorable);
        }
        let open = hasten(&mut tx, JobKind::Drill, backup, now).await?;
        if open.is_none() {
            insert_job(&mut tx, job, JobKind::Drill, (project, found.instance, backup), now)
                .await?;
        }
        tx.commit().await.map_err(unavailable)?;
        self.job_queued(JobKind::Drill).notify_one();
        Ok(open.unwrap_or(job))
    }

    async fn backups_to_drill(
        &self,
        proven_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(ProjectId, BackupId)>, CatalogError> {
        drills::due(&self.readers, proven_before, limit).await
    }
}

/// Notes that a backup is to end, and ends it where nobody has begun with it.
async fn cancel(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    backup: BackupId,
    wish: &Cancellation,
) -> Result<(), CatalogError> {
    let found = find(&mut *tx, project, backup).await?.ok_or(CatalogError::NotFound("backup"))?;
    if found.state.is_settled() {
        return Err(CatalogError::Ended(found.state));
    }
    // A backup that has not ended and has no capture of its own is made for a restore.
    let capture = open_capture(&mut *tx, found.instance).await?;
    let capture = capture.ok_or(CatalogError::Busy(JobKind::Restore))?;
    if found.cancellation.is_none() {
        sqlx::query("UPDATE backups SET cancelled_at = ?, cancelled_by = ? WHERE id = ?")
            .bind(wish.at.as_microsecond())
            .bind(&wish.by)
            .bind(backup.to_string())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
    }
    match (capture.is_queued, found.state) {
        // Nothing of it was stored yet.
        (true, BackupState::Waiting) => {
            let failure = found.cancellation.as_ref().unwrap_or(wish).failure();
            fail(&mut *tx, backup, &failure, wish.at).await?;
            end_job(tx, capture.job, JobState::Failed, Some(&failure.reason), wish.at).await
        }
        (true, _) => make_due(tx, capture.job, wish.at).await,
        (false, _) => Ok(()),
    }
}

/// Marks a backup for removal and gives the job that will do it: this one, or one that is open.
async fn mark_for_removal(
    tx: &mut SqliteConnection,
    (project, instance, backup): (&ProjectId, InstanceId, BackupId),
    job: JobId,
    now: Timestamp,
) -> Result<JobId, CatalogError> {
    let found: Option<(bool, bool)> = sqlx::query_as(
        "SELECT state NOT IN ('expired', 'deleted'), held FROM backups
         WHERE id = ? AND project_id = ? AND instance_id = ?",
    )
    .bind(backup.to_string())
    .bind(project.as_str())
    .bind(instance.to_string())
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    match found {
        Some((true, false)) => {}
        Some((true, true)) => return Err(CatalogError::Held),
        Some((false, _)) | None => return Err(CatalogError::NotFound("backup")),
    }
    if needed_by_restore(&mut *tx, backup).await? {
        return Err(CatalogError::Busy(JobKind::Restore));
    }
    if drills::is_open(&mut *tx, backup).await? {
        return Err(CatalogError::Busy(JobKind::Drill));
    }
    next_state(&mut *tx, backup, BackupEvent::Removed).await?;
    // Who reads it now goes on, and nobody else begins.
    let due = readings::read_until(&mut *tx, backup, now).await?;
    if let Some(open) = hasten(&mut *tx, JobKind::Remove, backup, due).await? {
        // A person's wish counts more than that its time is over.
        let update = sqlx::query("UPDATE backups SET expiring = 0 WHERE id = ?");
        update.bind(backup.to_string()).execute(tx).await.map_err(unavailable)?;
        return Ok(open);
    }
    sqlx::query(
        "UPDATE backups SET removal_requested_at = ?, check_requested_at = NULL WHERE id = ?",
    )
    .bind(now.as_microsecond())
    .bind(backup.to_string())
    .execute(&mut *tx)
    .await
    .map_err(unavailable)?;
    insert_job(&mut *tx, job, JobKind::Remove, (project, instance, backup), due).await?;
    Ok(job)
}
