use async_trait::async_trait;
use cachevault_catalog::{CatalogError, JobQueue};
use cachevault_domain::{
    BackupEvent, BackupId, BackupState, Cancellation, DrillFailure, EventKind, Failure, InstanceId,
    Job, JobId, JobKind, JobState, Lease, NewSafetyBackup, NodeId, Progress, ProjectId, Proof,
    Requeue, Restore, RestoreOutcome, SealedSecret, ShrinkRule, StepRecord, StoredFiles,
};
use jiff::Timestamp;
use sqlx::{Sqlite, SqliteConnection, Transaction};

use crate::backups::next_state;
use crate::hosts::Next;
use crate::row::{RowOf, signed};
use crate::{
    SqliteCatalog, backups, drills, events, hosts, restores, retention, unavailable, webhooks,
};

#[derive(sqlx::FromRow)]
struct JobRow {
    id: String,
    kind: String,
    project_id: String,
    instance_id: String,
    backup_id: String,
    state: String,
    attempt: i64,
    failures: i64,
    last_error: Option<String>,
}

impl TryFrom<JobRow> for Job {
    type Error = CatalogError;

    fn try_from(columns: JobRow) -> Result<Self, CatalogError> {
        let row = RowOf { table: "jobs", key: &columns.id };
        Ok(Self {
            id: row.parse(&columns.id)?,
            kind: row.named(&JobKind::ALL, JobKind::as_str, &columns.kind)?,
            project: row.parse(&columns.project_id)?,
            instance: row.parse(&columns.instance_id)?,
            backup: row.parse(&columns.backup_id)?,
            state: row.named(&JobState::ALL, JobState::as_str, &columns.state)?,
            attempt: row.number(columns.attempt)?,
            last_error: columns.last_error,
        })
    }
}

const COLUMNS: &str =
    "id, kind, project_id, instance_id, backup_id, state, attempt, failures, last_error";

/// Why attempts ended of which nobody has recorded it.
const PROCESS_ENDED: &str = "interrupted: the process of the service ended";
const LEASE_RAN_OUT: &str = "interrupted: its node did not extend its lease";

const NEXT_DUE: &str = "SELECT seq FROM jobs INDEXED BY jobs_claimable
    WHERE state IN ('queued', 'leased') AND waits_for_host IS NULL AND kind = ? AND due_at <= ?
    ORDER BY due_at, seq LIMIT 1";

/// Refuses unless the lease still holds. Every write of a worker begins with it.
async fn fence(tx: &mut SqliteConnection, lease: &Lease) -> Result<(), CatalogError> {
    let holds: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ? AND attempt = ? AND state = 'leased')",
    )
    .bind(lease.job.to_string())
    .bind(i64::from(lease.attempt))
    .fetch_one(tx)
    .await
    .map_err(unavailable)?;
    if holds { Ok(()) } else { Err(CatalogError::LostLease) }
}

/// Refuses while a job needs the instance for itself.
pub(crate) async fn refuse_busy(
    tx: &mut SqliteConnection,
    instance: InstanceId,
) -> Result<(), CatalogError> {
    // The same words as in the index `jobs_one_exclusive`, of which it makes use.
    let open: Option<String> = sqlx::query_scalar(
        "SELECT kind FROM jobs
         WHERE instance_id = ? AND state IN ('queued', 'leased') AND kind IN ('capture', 'restore')",
    )
    .bind(instance.to_string())
    .fetch_optional(tx)
    .await
    .map_err(unavailable)?;
    let Some(kind) = open else { return Ok(()) };
    let row = RowOf { table: "jobs", key: &kind };
    Err(CatalogError::Busy(row.named(&JobKind::ALL, JobKind::as_str, &kind)?))
}

pub(crate) async fn insert_job(
    tx: &mut SqliteConnection,
    job: JobId,
    kind: JobKind,
    (project, instance, backup): (&ProjectId, InstanceId, BackupId),
    now: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO jobs (id, kind, project_id, instance_id, backup_id, state, attempt, failures, due_at)
         VALUES (?, ?, ?, ?, ?, 'queued', 0, 0, ?)",
    )
    .bind(job.to_string())
    .bind(kind.as_str())
    .bind(project.as_str())
    .bind(instance.to_string())
    .bind(backup.to_string())
    .bind(now.as_microsecond())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// The open job of this kind that concerns the backup. Where it waits for its next attempt it is
/// due from now on.
pub(crate) async fn hasten(
    tx: &mut SqliteConnection,
    kind: JobKind,
    backup: BackupId,
    now: Timestamp,
) -> Result<Option<JobId>, CatalogError> {
    // The kind is part of the text, not bound: only so the index of its open jobs is of use.
    let open: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT id FROM jobs WHERE backup_id = ? AND state IN ('queued', 'leased') AND kind = '{}'",
        kind.as_str()
    )))
    .bind(backup.to_string())
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    let Some(open) = open else { return Ok(None) };
    let open = RowOf { table: "jobs", key: &open }.parse(&open)?;
    make_due(tx, open, now).await?;
    Ok(Some(open))
}

/// Where the job waits, it is due from now on.
pub(crate) async fn make_due(
    tx: &mut SqliteConnection,
    job: JobId,
    now: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "UPDATE jobs SET due_at = ?, last_error = NULL, waits_for_host = NULL
         WHERE id = ? AND state = 'queued'",
    )
    .bind(now.as_microsecond())
    .bind(job.to_string())
    .execute(tx)
    .await
    .map(drop)
    .map_err(unavailable)
}

pub(crate) async fn end_job(
    tx: &mut SqliteConnection,
    job: JobId,
    state: JobState,
    error: Option<&str>,
    now: Timestamp,
) -> Result<(), CatalogError> {
    retention::note_end(&mut *tx, job, now).await?;
    hosts::wake(&mut *tx, job).await?;
    sqlx::query("DELETE FROM job_steps WHERE job_id = ?")
        .bind(job.to_string())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    sqlx::query("UPDATE jobs SET state = ?, node_id = NULL, last_error = ? WHERE id = ?")
        .bind(state.as_str())
        .bind(error)
        .bind(job.to_string())
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

/// A capture that has not ended.
pub(crate) struct OpenCapture {
    pub(crate) job: JobId,
    /// Whether no worker has it.
    pub(crate) is_queued: bool,
}

/// The open capture of an instance, of which there is one at the most.
pub(crate) async fn open_capture(
    tx: &mut SqliteConnection,
    instance: InstanceId,
) -> Result<Option<OpenCapture>, CatalogError> {
    // What is said of the kind lets the index `jobs_one_exclusive` be used.
    let open: Option<(String, bool)> = sqlx::query_as(
        "SELECT id, state = 'queued' FROM jobs
         WHERE instance_id = ? AND state IN ('queued', 'leased') AND kind IN ('capture', 'restore')
             AND kind = 'capture'",
    )
    .bind(instance.to_string())
    .fetch_optional(tx)
    .await
    .map_err(unavailable)?;
    let Some((id, is_queued)) = open else { return Ok(None) };
    Ok(Some(OpenCapture { job: RowOf { table: "jobs", key: &id }.parse(&id)?, is_queued }))
}

/// The job of this kind that has been due longest, by its number.
async fn next_due(
    tx: &mut SqliteConnection,
    kind: JobKind,
    now: Timestamp,
) -> Result<Option<i64>, CatalogError> {
    sqlx::query_scalar(NEXT_DUE)
        .bind(kind.as_str())
        .bind(now.as_microsecond())
        .fetch_optional(tx)
        .await
        .map_err(unavailable)
}

/// Gives a job to a node.
pub(crate) async fn lease(
    tx: &mut SqliteConnection,
    seq: i64,
    node: NodeId,
    until: Timestamp,
) -> Result<Lease, CatalogError> {
    let columns: JobRow = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE jobs SET last_error = iif(state = 'leased', ?, last_error),
             state = 'leased', attempt = attempt + 1, node_id = ?, due_at = ?
         WHERE seq = ? RETURNING {COLUMNS}"
    )))
    .bind(LEASE_RAN_OUT)
    .bind(node.to_string())
    .bind(until.as_microsecond())
    .bind(seq)
    .fetch_one(tx)
    .await
    .map_err(unavailable)?;
    let failures = RowOf { table: "jobs", key: &columns.id }.number(columns.failures)?;
    let Job { id, kind, project, instance, backup, attempt, .. } = columns.try_into()?;
    Ok(Lease { job: id, kind, project, instance, backup, attempt, failures })
}

impl SqliteCatalog {
    async fn fenced(&self, lease: &Lease) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        let mut tx = self.write().await?;
        fence(&mut tx, lease).await?;
        Ok(tx)
    }

    /// Commits the end of an attempt: captures of the same host may be due now.
    async fn commit_capture(&self, tx: Transaction<'static, Sqlite>) -> Result<(), CatalogError> {
        self.commit_telling(tx).await?;
        self.job_queued(JobKind::Capture).notify_one();
        Ok(())
    }

    /// Like [`Self::fenced`], and refuses the worker of another kind of job: the backup in its
    /// lease is not the one that the write means.
    async fn fenced_as(
        &self,
        kind: JobKind,
        lease: &Lease,
    ) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        let tx = self.fenced(lease).await?;
        if lease.kind == kind { Ok(tx) } else { Err(CatalogError::NotFound(kind.as_str())) }
    }
}

#[async_trait]
impl JobQueue for SqliteCatalog {
    async fn claim_job(
        &self,
        kind: JobKind,
        node: NodeId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, CatalogError> {
        if kind == JobKind::Remove {
            self.forget_ended_readings(now).await?;
        }
        // In a transaction of its own: a statement that returns rows tells of a failed autocommit
        // only when nobody listens any more, and the lease would be in nobody's database.
        let mut tx = self.write().await?;
        let Some(seq) = next_due(&mut tx, kind, now).await? else { return Ok(None) };
        let lease = lease(&mut tx, seq, node, until).await?;
        tx.commit().await.map_err(unavailable)?;
        Ok(Some(lease))
    }

    async fn claim_capture(
        &self,
        node: NodeId,
        host_max: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, CatalogError> {
        loop {
            // Others write between two of these, however many captures have to be passed over.
            let mut tx = self.write().await?;
            let found = hosts::next_capture(&mut tx, host_max, now).await?;
            let claimed = match found {
                Next::Capture(seq) => Some(lease(&mut tx, seq, node, until).await?),
                Next::Nothing | Next::More => None,
            };
            tx.commit().await.map_err(unavailable)?;
            if !matches!(found, Next::More) {
                return Ok(claimed);
            }
        }
    }

    async fn extend_lease(&self, lease: &Lease, until: Timestamp) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        sqlx::query("UPDATE jobs SET due_at = ? WHERE id = ?")
            .bind(until.as_microsecond())
            .bind(lease.job.to_string())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn release_node(&self, node: NodeId, now: Timestamp) -> Result<u64, CatalogError> {
        let mut tx = self.write().await?;
        hosts::wake_of_node(&mut tx, node).await?;
        let released = sqlx::query(
            "UPDATE jobs SET state = 'queued', node_id = NULL, due_at = ?, last_error = ?
             WHERE state = 'leased' AND node_id = ?",
        )
        .bind(now.as_microsecond())
        .bind(PROCESS_ENDED)
        .bind(node.to_string())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        webhooks::release_node(&mut *tx, node).await?;
        tx.commit().await.map_err(unavailable)?;
        for kind in JobKind::ALL {
            self.job_queued(kind).notify_one();
        }
        Ok(released.rows_affected())
    }

    async fn step_log(&self, lease: &Lease) -> Result<Vec<StepRecord>, CatalogError> {
        let mut tx = self.read().await?;
        fence(&mut tx, lease).await?;
        let key = lease.job.to_string();
        let rows: Vec<(String, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT step, attempt, output FROM job_steps WHERE job_id = ? ORDER BY rowid",
        )
        .bind(&key)
        .fetch_all(&mut *tx)
        .await
        .map_err(unavailable)?;
        let row = RowOf { table: "job_steps", key: &key };
        let record = |(step, attempt, output)| {
            let output = SealedSecret(output);
            Ok(StepRecord { step, attempt: row.number(attempt)?, output })
        };
        rows.into_iter().map(record).collect()
    }

    async fn log_step(
        &self,
        lease: &Lease,
        step: &str,
        output: &SealedSecret,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        sqlx::query(
            "INSERT INTO job_steps (job_id, step, attempt, output, finished_at) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(lease.job.to_string())
        .bind(step)
        .bind(i64::from(lease.attempt))
        .bind(&output.0)
        .bind(now.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn unlog_step(&self, lease: &Lease, step: &str) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        sqlx::query("DELETE FROM job_steps WHERE job_id = ? AND step = ?")
            .bind(lease.job.to_string())
            .bind(step)
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn cancellation(&self, lease: &Lease) -> Result<Option<Cancellation>, CatalogError> {
        match lease.kind {
            JobKind::Capture => backups::cancellation_of(&self.readers, lease.backup).await,
            JobKind::Restore => restores::cancellation_of(&self.readers, lease.job).await,
            JobKind::Remove | JobKind::Drill => Ok(None),
        }
    }

    async fn start_backup(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Capture, lease).await?;
        backups::start(&mut tx, lease.backup, now).await?;
        self.commit_telling(tx).await
    }

    async fn report_progress(
        &self,
        lease: &Lease,
        progress: Progress,
        received_bytes: u64,
        phase: &str,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Capture, lease).await?;
        sqlx::query("UPDATE backups SET progress = max(progress, ?), received_bytes = ?, phase = ? WHERE id = ?")
            .bind(i64::from(progress.hundredths()))
            .bind(signed(received_bytes))
            .bind(phase)
            .bind(lease.backup.to_string())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn finish_backup(
        &self,
        lease: &Lease,
        files: &StoredFiles,
        shrink: ShrinkRule,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Capture, lease).await?;
        if backups::cancellation_of(&mut *tx, lease.backup).await?.is_some() {
            return Err(CatalogError::Cancelled);
        }
        backups::finish(&mut tx, lease.backup, files, now).await?;
        backups::hold_larger(&mut tx, lease.backup, files, shrink, now).await?;
        end_job(&mut tx, lease.job, JobState::Done, None, now).await?;
        self.commit_capture(tx).await
    }

    async fn fail_backup(
        &self,
        lease: &Lease,
        failure: &Failure,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Capture, lease).await?;
        let cancelled = backups::cancellation_of(&mut *tx, lease.backup).await?;
        let cancelled = cancelled.map(|wish| wish.failure());
        let failure = cancelled.as_ref().unwrap_or(failure);
        backups::fail(&mut tx, lease.backup, failure, now).await?;
        end_job(&mut tx, lease.job, JobState::Failed, Some(&failure.reason), now).await?;
        self.commit_capture(tx).await
    }

    async fn finish_removal(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Remove, lease).await?;
        let event = retention::removal_event(&mut tx, lease.backup).await?;
        let state = next_state(&mut tx, lease.backup, event).await?;
        backups::removed(&mut tx, lease.backup, state, now).await?;
        let kind = match event {
            BackupEvent::Expired => EventKind::BackupExpired,
            _ => EventKind::BackupDeleted,
        };
        events::note_backup(&mut tx, lease.backup, (kind, None), now).await?;
        end_job(&mut tx, lease.job, JobState::Done, None, now).await?;
        self.commit_telling(tx).await
    }

    async fn restore_of(&self, lease: &Lease) -> Result<Restore, CatalogError> {
        let mut tx = self.read().await?;
        fence(&mut tx, lease).await?;
        restores::of_job(&mut tx, lease.job).await
    }

    async fn start_restore(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        restores::start(&mut tx, lease, now).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn report_restore(
        &self,
        lease: &Lease,
        progress: Progress,
        phase: &str,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        restores::report(&mut tx, lease, progress, phase).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn touch_target(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Restore, lease).await?;
        restores::touch(&mut tx, lease, now).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn begin_safety_backup(
        &self,
        lease: &Lease,
        backup: &NewSafetyBackup,
        now: Timestamp,
    ) -> Result<BackupId, CatalogError> {
        let mut tx = self.fenced(lease).await?;
        let id = restores::begin_safety_backup(&mut tx, lease, backup, now).await?;
        self.commit_telling(tx).await?;
        Ok(id)
    }

    async fn finish_safety_backup(
        &self,
        lease: &Lease,
        files: &StoredFiles,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        let safety = restores::safety_backup(&mut tx, lease).await?;
        if safety.state != BackupState::Succeeded {
            backups::finish(&mut tx, safety.id, files, now).await?;
        }
        self.commit_telling(tx).await
    }

    async fn fail_safety_backup(
        &self,
        lease: &Lease,
        failure: &Failure,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        let safety = restores::safety_backup(&mut tx, lease).await?;
        if safety.state != BackupState::Failed {
            backups::fail(&mut tx, safety.id, failure, now).await?;
        }
        self.commit_telling(tx).await
    }

    async fn finish_restore(
        &self,
        lease: &Lease,
        outcome: &RestoreOutcome,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        restores::finish(&mut tx, lease, outcome, now).await?;
        end_job(&mut tx, lease.job, JobState::Done, None, now).await?;
        self.commit_telling(tx).await
    }

    async fn fail_restore(
        &self,
        lease: &Lease,
        failure: &Failure,
        outcome: &RestoreOutcome,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        let cancelled = restores::cancellation_of(&mut *tx, lease.job).await?;
        let cancelled = cancelled.map(|wish| wish.failure());
        let failure = cancelled.as_ref().unwrap_or(failure);
        restores::fail(&mut tx, lease.job, failure, outcome, now).await?;
        end_job(&mut tx, lease.job, JobState::Failed, Some(&failure.reason), now).await?;
        self.commit_telling(tx).await
    }

    async fn finish_drill(
        &self,
        lease: &Lease,
        server: &str,
        uncompared: u64,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Drill, lease).await?;
        drills::prove(&mut tx, lease.backup, &Proof::new(now, server, uncompared)).await?;
        end_job(&mut tx, lease.job, JobState::Done, None, now).await?;
        self.commit_telling(tx).await
    }

    async fn fail_drill(
        &self,
        lease: &Lease,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced_as(JobKind::Drill, lease).await?;
        let failure = DrillFailure { at: now, reason: reason.to_owned() };
        drills::fail(&mut tx, lease.backup, &failure).await?;
        end_job(&mut tx, lease.job, JobState::Failed, Some(reason), now).await?;
        self.commit_telling(tx).await
    }

    async fn requeue(
        &self,
        lease: &Lease,
        why: Requeue,
        due: Timestamp,
        reason: &str,
    ) -> Result<(), CatalogError> {
        let mut tx = self.fenced(lease).await?;
        sqlx::query(
            "UPDATE jobs SET state = 'queued', node_id = NULL, failures = failures + ?, due_at = ?, last_error = ?
             WHERE id = ?",
        )
        .bind(i64::from(why == Requeue::Failed))
            .bind(due.as_microsecond())
            .bind(reason)
            .bind(lease.job.to_string())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        hosts::wake(&mut tx, lease.job).await?;
        if lease.kind == JobKind::Remove && why == Requeue::Failed {
            backups::note_unremovable(&mut tx, lease.backup, reason).await?;
        }
        self.commit_capture(tx).await
    }

    async fn find_job(&self, project: &ProjectId, id: JobId) -> Result<Option<Job>, CatalogError> {
        let row: Option<JobRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM jobs WHERE id = ? AND project_id = ?"
        )))
        .bind(id.to_string())
        .bind(project.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(unavailable)?;
        row.map(Job::try_from).transpose()
    }

    async fn wait_for_job(&self, kind: JobKind) {
        self.job_queued(kind).notified().await;
    }
}
