use async_trait::async_trait;
use cachevault_catalog::{CatalogError, RestoreCatalog};
use cachevault_domain::{
    Backup, BackupFormat, BackupId, Cancellation, ConflictRule, EventKind, Failure, FailureCode,
    InstanceId, JobId, JobKind, JobState, KeyFilter, Lease, Listing, NewBackup, NewRestore,
    NewSafetyBackup, Page, Progress, ProjectId, RdbDialect, Restore, RestoreEvent, RestoreFilter,
    RestoreId, RestoreOptions, RestoreOutcome, RestoreState, RestoreWay, TargetData, Trigger,
    TtlRule,
};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqliteExecutor};

use crate::backups::cancellation;
use crate::instances::require_instance;
use crate::jobs::{end_job, insert_job, make_due, refuse_busy};
use crate::listing::RecordsOf;
use crate::row::{RowOf, signed};
use crate::{SqliteCatalog, backups, events, unavailable};

const SELECT: &str = "SELECT restores.*, backups.created_at AS backup_created_at,
        backups.note AS backup_note, backups.instance_id AS source_instance_id,
        instances.name AS source_instance_name, jobs.attempt, jobs.last_error
    FROM restores JOIN jobs ON jobs.id = restores.job_id JOIN backups ON backups.id = restores.backup_id
        JOIN instances ON instances.id = backups.instance_id";

#[derive(sqlx::FromRow)]
struct RestoreRow {
    id: String,
    project_id: String,
    instance_id: String,
    backup_id: String,
    backup_created_at: i64,
    backup_note: Option<String>,
    source_instance_id: String,
    source_instance_name: String,
    way: Option<String>,
    wants_safety_backup: bool,
    prove: Option<bool>,
    swap: Option<bool>,
    ttl: String,
    key_pattern: Option<String>,
    key_database: Option<i64>,
    conflict: String,
    unverified: bool,
    needed_bytes: Option<i64>,
    note: Option<String>,
    state: String,
    progress: i64,
    phase: Option<String>,
    failure_code: Option<String>,
    failure_reason: Option<String>,
    safety_backup_id: Option<String>,
    outcome_way: Option<String>,
    outcome_target: Option<String>,
    outcome_unavailable_ms: Option<i64>,
    outcome_proven: Option<bool>,
    outcome_unproven: Option<String>,
    outcome_uncompared: i64,
    outcome_keys: Option<i64>,
    created_at: i64,
    started_at: Option<i64>,
    completed_at: Option<i64>,
    cancelled_at: Option<i64>,
    cancelled_by: Option<String>,
    touched_at: Option<i64>,
    attempt: i64,
    last_error: Option<String>,
}

impl RestoreRow {
    fn options(&self, row: &RowOf<'_>) -> Result<RestoreOptions, CatalogError> {
        Ok(RestoreOptions {
            way: way(row, self.way.as_deref())?,
            safety_backup: self.wants_safety_backup,
            prove: self.prove,
            swap: self.swap,
            ttl: row.named(&TtlRule::ALL, TtlRule::as_str, &self.ttl)?,
            filter: KeyFilter {
                pattern: self.key_pattern.clone(),
                database: row.number_if(self.key_database)?,
            },
            conflict: row.named(&ConflictRule::ALL, ConflictRule::as_str, &self.conflict)?,
            unverified: self.unverified,
            needed_bytes: row.number_if(self.needed_bytes)?,
        })
    }

    fn outcome(&self, row: &RowOf<'_>) -> Result<Option<RestoreOutcome>, CatalogError> {
        let Some(target) = &self.outcome_target else { return Ok(None) };
        Ok(Some(RestoreOutcome {
            way: way(row, self.outcome_way.as_deref())?,
            target: row.named(&TargetData::ALL, TargetData::as_str, target)?,
            unavailable_ms: row.number_if(self.outcome_unavailable_ms)?,
            proven: self.outcome_proven == Some(true),
            unproven: self.outcome_unproven.clone(),
            uncompared: row.number(self.outcome_uncompared)?,
            keys: row.number_if(self.outcome_keys)?,
        }))
    }
}

fn way(row: &RowOf<'_>, text: Option<&str>) -> Result<Option<RestoreWay>, CatalogError> {
    text.map(|text| row.named(&RestoreWay::ALL, RestoreWay::as_str, text)).transpose()
}

impl TryFrom<RestoreRow> for Restore {
    type Error = CatalogError;

    fn try_from(columns: RestoreRow) -> Result<Self, CatalogError> {
        let row = RowOf { table: "restores", key: &columns.id };
        let attempt = columns.completed_at.is_none().then_some(columns.attempt);
        Ok(Self {
            id: row.parse(&columns.id)?,
            project: row.parse(&columns.project_id)?,
            instance: row.parse(&columns.instance_id)?,
            backup: row.parse(&columns.backup_id)?,
            backup_created_at: row.moment(columns.backup_created_at)?,
            backup_note: row.parse_if(columns.backup_note.as_deref())?,
            source_instance: row.parse(&columns.source_instance_id)?,
            source_instance_name: row.parse(&columns.source_instance_name)?,
            options: columns.options(&row)?,
            note: row.parse_if(columns.note.as_deref())?,
            state: row.named(&RestoreState::ALL, RestoreState::as_str, &columns.state)?,
            progress: Progress::from_hundredths(row.number(columns.progress)?),
            safety_backup: row.parse_if(columns.safety_backup_id.as_deref())?,
            outcome: columns.outcome(&row)?,
            failure: row.failure(columns.failure_code.as_deref(), columns.failure_reason)?,
            cancellation: cancellation(&row, columns.cancelled_at, columns.cancelled_by)?,
            attempt: backups::attempt(&row, attempt, columns.last_error)?,
            touched_at: row.moment_if(columns.touched_at)?,
            created_at: row.moment(columns.created_at)?,
            started_at: row.moment_if(columns.started_at)?,
            completed_at: row.moment_if(columns.completed_at)?,
            phase: columns.phase,
        })
    }
}

/// Whether an unsettled restore reads the backup, or may have to put it back into its target.
pub(crate) async fn needed_by_restore(
    tx: &mut SqliteConnection,
    backup: BackupId,
) -> Result<bool, CatalogError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM restores
                        WHERE state IN ('waiting', 'running') AND (backup_id = ?1 OR safety_backup_id = ?1))",
    )
    .bind(backup.to_string())
    .fetch_one(tx)
    .await
    .map_err(unavailable)
}

/// Who wants the restore of a job to end, if anybody.
pub(crate) async fn cancellation_of(
    executor: impl SqliteExecutor<'_>,
    job: JobId,
) -> Result<Option<Cancellation>, CatalogError> {
    let key = job.to_string();
    let found: Option<(Option<i64>, Option<String>)> =
        sqlx::query_as("SELECT cancelled_at, cancelled_by FROM restores WHERE job_id = ?")
            .bind(&key)
            .fetch_optional(executor)
            .await
            .map_err(unavailable)?;
    let (at, by) = found.unwrap_or_default();
    cancellation(&RowOf { table: "restores", key: &key }, at, by)
}

/// The target is about to be touched.
pub(crate) async fn touch(
    tx: &mut SqliteConnection,
    lease: &Lease,
    now: Timestamp,
) -> Result<(), CatalogError> {
    if cancellation_of(&mut *tx, lease.job).await?.is_some() {
        return Err(CatalogError::Cancelled);
    }
    sqlx::query("UPDATE restores SET touched_at = coalesce(touched_at, ?) WHERE job_id = ?")
        .bind(now.as_microsecond())
        .bind(lease.job.to_string())
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

/// Notes that a restore is to end, and ends it where nobody has begun with it.
async fn cancel(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    restore: RestoreId,
    wish: &Cancellation,
) -> Result<(), CatalogError> {
    let found = find(&mut *tx, project, restore).await?.ok_or(CatalogError::NotFound("restore"))?;
    if found.state.is_settled() {
        return Err(CatalogError::RestoreEnded(found.state));
    }
    if found.touched_at.is_some() {
        return Err(CatalogError::TargetTouched);
    }
    let (key, is_queued): (String, bool) = sqlx::query_as(
        "SELECT jobs.id, jobs.state = 'queued' FROM restores JOIN jobs ON jobs.id = restores.job_id
         WHERE restores.id = ?",
    )
    .bind(restore.to_string())
    .fetch_one(&mut *tx)
    .await
    .map_err(unavailable)?;
    let job = RowOf { table: "jobs", key: &key }.parse(&key)?;
    if found.cancellation.is_none() {
        sqlx::query("UPDATE restores SET cancelled_at = ?, cancelled_by = ? WHERE id = ?")
            .bind(wish.at.as_microsecond())
            .bind(&wish.by)
            .bind(restore.to_string())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
    }
    match (is_queued, found.state) {
        // Nothing was done for it yet.
        (true, RestoreState::Waiting) => {
            let failure = found.cancellation.as_ref().unwrap_or(wish).failure();
            fail(&mut *tx, job, &failure, &RestoreOutcome::untouched(), wish.at).await?;
            end_job(tx, job, JobState::Failed, Some(&failure.reason), wish.at).await
        }
        (true, _) => make_due(tx, job, wish.at).await,
        (false, _) => Ok(()),
    }
}

/// The restore, wherever it is looked up.
async fn find(
    executor: impl SqliteExecutor<'_>,
    project: &ProjectId,
    id: RestoreId,
) -> Result<Option<Restore>, CatalogError> {
    let row: Option<RestoreRow> = QueryBuilder::<Sqlite>::new(SELECT)
        .push(" WHERE restores.id = ")
        .push_bind(id.to_string())
        .push(" AND restores.project_id = ")
        .push_bind(project.as_str())
        .build_query_as()
        .fetch_optional(executor)
        .await
        .map_err(unavailable)?;
    row.map(Restore::try_from).transpose()
}

/// The restore that the job does.
pub(crate) async fn of_job(tx: &mut SqliteConnection, job: JobId) -> Result<Restore, CatalogError> {
    let row: Option<RestoreRow> = QueryBuilder::<Sqlite>::new(SELECT)
        .push(" WHERE restores.job_id = ")
        .push_bind(job.to_string())
        .build_query_as()
        .fetch_optional(tx)
        .await
        .map_err(unavailable)?;
    row.map(Restore::try_from).transpose()?.ok_or(CatalogError::NotFound("restore"))
}

/// The restore is running from now on.
pub(crate) async fn start(
    tx: &mut SqliteConnection,
    lease: &Lease,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let state = of_job(tx, lease.job).await?.state.apply(RestoreEvent::Started)?;
    sqlx::query(
        "UPDATE restores SET state = ?, started_at = coalesce(started_at, ?) WHERE job_id = ?",
    )
    .bind(state.as_str())
    .bind(now.as_microsecond())
    .bind(lease.job.to_string())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// How far the restore is.
pub(crate) async fn report(
    tx: &mut SqliteConnection,
    lease: &Lease,
    progress: Progress,
    phase: &str,
) -> Result<(), CatalogError> {
    let updated =
        sqlx::query("UPDATE restores SET progress = max(progress, ?), phase = ? WHERE job_id = ?")
            .bind(i64::from(progress.hundredths()))
            .bind(phase)
            .bind(lease.job.to_string())
            .execute(tx)
            .await
            .map_err(unavailable)?;
    if updated.rows_affected() == 0 {
        return Err(CatalogError::NotFound("restore"));
    }
    Ok(())
}

/// Gives the restore a running safety backup, unless it has one.
pub(crate) async fn begin_safety_backup(
    tx: &mut SqliteConnection,
    lease: &Lease,
    backup: &NewSafetyBackup,
    now: Timestamp,
) -> Result<BackupId, CatalogError> {
    let restore = of_job(tx, lease.job).await?;
    if let Some(there) = restore.safety_backup {
        return Ok(there);
    }
    let recorded = NewBackup {
        id: backup.id,
        job: lease.job,
        project: restore.project,
        instance: restore.instance,
        trigger: Trigger::Safety,
        format: BackupFormat::Rdb,
        // It is for the server that it comes from, and has to hold everything.
        dialect: RdbDialect::Native,
        note: backup.note.clone(),
        created_at: backup.created_at,
    };
    backups::insert(tx, &recorded).await?;
    events::note_backup(tx, backup.id, (EventKind::BackupRequested, None), now).await?;
    backups::start(tx, backup.id, now).await?;
    sqlx::query("UPDATE restores SET safety_backup_id = ? WHERE job_id = ?")
        .bind(backup.id.to_string())
        .bind(lease.job.to_string())
        .execute(tx)
        .await
        .map_err(unavailable)?;
    Ok(backup.id)
}

async fn safety_backup_of(
    tx: &mut SqliteConnection,
    restore: &Restore,
) -> Result<Option<Backup>, CatalogError> {
    match restore.safety_backup {
        Some(id) => backups::find(tx, &restore.project, id).await,
        None => Ok(None),
    }
}

/// The safety backup of the job's restore.
pub(crate) async fn safety_backup(
    tx: &mut SqliteConnection,
    lease: &Lease,
) -> Result<Backup, CatalogError> {
    let restore = of_job(tx, lease.job).await?;
    safety_backup_of(tx, &restore).await?.ok_or(CatalogError::NotFound("safety backup"))
}

/// The restore has succeeded.
pub(crate) async fn finish(
    tx: &mut SqliteConnection,
    lease: &Lease,
    outcome: &RestoreOutcome,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let unfinished = Failure {
        code: FailureCode::ToolFailed,
        reason: "the restore ended before its safety backup was complete".into(),
    };
    if cancellation_of(&mut *tx, lease.job).await?.is_some() {
        return Err(CatalogError::Cancelled);
    }
    let unfinished = (EventKind::BackupFailed, &unfinished);
    settle(tx, lease.job, RestoreEvent::Finished, unfinished, outcome, now).await?;
    sqlx::query("UPDATE restores SET progress = ? WHERE job_id = ?")
        .bind(i64::from(Progress::DONE.hundredths()))
        .bind(lease.job.to_string())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    events::note_restore(tx, lease.job, (EventKind::RestoreSucceeded, None), now).await
}

/// The restore has failed.
pub(crate) async fn fail(
    tx: &mut SqliteConnection,
    job: JobId,
    failure: &Failure,
    outcome: &RestoreOutcome,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let (kind, safety_kind) = match cancellation_of(&mut *tx, job).await? {
        Some(_) => (EventKind::RestoreCancelled, EventKind::BackupCancelled),
        None => (EventKind::RestoreFailed, EventKind::BackupFailed),
    };
    settle(tx, job, RestoreEvent::Failed, (safety_kind, failure), outcome, now).await?;
    sqlx::query("UPDATE restores SET failure_code = ?, failure_reason = ? WHERE job_id = ?")
        .bind(failure.code.as_str())
        .bind(&failure.reason)
        .bind(job.to_string())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    events::note_restore(tx, job, (kind, Some(failure.reason.as_str())), now).await
}

/// Ends the restore, and with `unfinished` a safety backup that still runs: nobody else would.
async fn settle(
    tx: &mut SqliteConnection,
    job: JobId,
    event: RestoreEvent,
    (unfinished_kind, unfinished): (EventKind, &Failure),
    outcome: &RestoreOutcome,
    now: Timestamp,
) -> Result<(), CatalogError> {
    let restore = of_job(tx, job).await?;
    let state = restore.state.apply(event)?;
    if let Some(safety) = safety_backup_of(tx, &restore).await?
        && !safety.state.is_settled()
    {
        backups::fail_as(tx, unfinished_kind, safety.id, unfinished, now).await?;
    }
    sqlx::query(
        "UPDATE restores SET state = ?, phase = NULL, outcome_way = ?, outcome_target = ?,
             outcome_unavailable_ms = ?, outcome_proven = ?, outcome_unproven = ?,
             outcome_uncompared = ?, outcome_keys = ?, completed_at = ?
         WHERE job_id = ?",
    )
    .bind(state.as_str())
    .bind(outcome.way.map(RestoreWay::as_str))
    .bind(outcome.target.as_str())
    .bind(outcome.unavailable_ms.map(signed))
    .bind(outcome.proven)
    .bind(&outcome.unproven)
    .bind(signed(outcome.uncompared))
    .bind(outcome.keys.map(signed))
    .bind(now.as_microsecond())
    .bind(job.to_string())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

async fn insert(tx: &mut SqliteConnection, restore: &NewRestore) -> Result<(), CatalogError> {
    let options = &restore.options;
    sqlx::query(
        "INSERT INTO restores (id, job_id, project_id, instance_id, backup_id, way, wants_safety_backup,
             prove, swap, ttl, key_pattern, key_database, conflict, unverified, needed_bytes, note, state,
             progress, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
    )
    .bind(restore.id.to_string())
    .bind(restore.job.to_string())
    .bind(restore.project.as_str())
    .bind(restore.instance.to_string())
    .bind(restore.backup.to_string())
    .bind(options.way.map(RestoreWay::as_str))
    .bind(options.safety_backup)
    .bind(options.prove)
    .bind(options.swap)
    .bind(options.ttl.as_str())
    .bind(&options.filter.pattern)
    .bind(options.filter.database.map(i64::from))
    .bind(options.conflict.as_str())
    .bind(options.unverified)
    .bind(options.needed_bytes.map(signed))
    .bind(restore.note.as_ref().map(|note| note.as_str()))
    .bind(RestoreState::Waiting.as_str())
    .bind(restore.created_at.as_microsecond())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

#[async_trait]
impl RestoreCatalog for SqliteCatalog {
    async fn request_restore(&self, restore: &NewRestore) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        require_instance(&mut tx, &restore.project, restore.instance).await?;
        let backup = backups::find(&mut *tx, &restore.project, restore.backup)
            .await?
            .ok_or(CatalogError::NotFound("backup"))?;
        if !backup.is_restorable_unverified() {
            return Err(CatalogError::NotRestorable);
        }
        if !backup.is_restorable() && !restore.options.unverified {
            return Err(CatalogError::Unverified);
        }
        refuse_busy(&mut tx, restore.instance).await?;
        let of = (&restore.project, restore.instance, restore.backup);
        insert_job(&mut tx, restore.job, JobKind::Restore, of, restore.created_at).await?;
        insert(&mut tx, restore).await?;
        let what = (EventKind::RestoreRequested, None);
        events::note_restore(&mut tx, restore.job, what, restore.created_at).await?;
        self.commit_telling(tx).await?;
        self.job_queued(JobKind::Restore).notify_one();
        Ok(())
    }

    async fn find_restore(
        &self,
        project: &ProjectId,
        id: RestoreId,
    ) -> Result<Option<Restore>, CatalogError> {
        find(&self.readers, project, id).await
    }

    async fn cancel_restore(
        &self,
        project: &ProjectId,
        restore: RestoreId,
        wish: &Cancellation,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        cancel(&mut tx, project, restore, wish).await?;
        self.commit_telling(tx).await?;
        self.job_queued(JobKind::Restore).notify_one();
        Ok(())
    }

    async fn list_restores(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        filter: &RestoreFilter,
        page: Page,
    ) -> Result<Listing<Restore>, CatalogError> {
        let wanted = RecordsOf {
            table: "restores",
            select: SELECT,
            project,
            instance,
            created_from: filter.created_from,
            created_to: filter.created_to,
        };
        self.newest_first::<RestoreRow, _>(&wanted, |_| {}, page).await
    }
}
