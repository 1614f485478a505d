//! The queue of jobs.

use async_trait::async_trait;
use cachevault_domain::{
    BackupId, Cancellation, Failure, Job, JobId, JobKind, Lease, NewSafetyBackup, NodeId, Progress,
    ProjectId, Requeue, Restore, RestoreOutcome, SealedSecret, ShrinkRule, StepRecord, StoredFiles,
};
use jiff::Timestamp;

use crate::CatalogError;

/// Jobs, and the facts that their workers write.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Claims the job of this kind that has been due longest: a queued one, or one whose lease has
    /// run out. What [`JobQueue::claim_capture`] has passed over waits.
    async fn claim_job(
        &self,
        kind: JobKind,
        node: NodeId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, CatalogError>;

    /// Claims a capture as [`JobQueue::claim_job`] does, but none of an instance whose host, as its
    /// address names it, has `host_max` that are leased. The records of those that are passed over
    /// say so ([`cachevault_domain::waiting_for_host`]); they are due again when one of their host
    /// has ended. Costs what the jobs cost that are passed over for the first time.
    async fn claim_capture(
        &self,
        node: NodeId,
        host_max: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, CatalogError>;

    /// Extends a lease.
    async fn extend_lease(&self, lease: &Lease, until: Timestamp) -> Result<(), CatalogError>;

    /// Lets go of every lease of a node, whose process is known to have ended, those of deliveries
    /// too: the jobs are due at once. Returns how many jobs there were.
    async fn release_node(&self, node: NodeId, now: Timestamp) -> Result<u64, CatalogError>;

    /// The finished steps of a job, oldest first. Nothing of them is kept when the job has ended, so
    /// who lost the lease is not told that there are none.
    async fn step_log(&self, lease: &Lease) -> Result<Vec<StepRecord>, CatalogError>;

    /// Adds a finished step to the job's log. The same step again changes nothing.
    async fn log_step(
        &self,
        lease: &Lease,
        step: &str,
        output: &SealedSecret,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Removes a step from the log: its work was undone.
    async fn unlog_step(&self, lease: &Lease, step: &str) -> Result<(), CatalogError>;

    /// Who wants the backup of this capture, or this restore, to end, if anybody.
    async fn cancellation(&self, lease: &Lease) -> Result<Option<Cancellation>, CatalogError>;

    /// The backup of this job is running from now on.
    async fn start_backup(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError>;

    /// How far the backup is; its progress never goes back.
    async fn report_progress(
        &self,
        lease: &Lease,
        progress: Progress,
        received_bytes: u64,
        phase: &str,
    ) -> Result<(), CatalogError>;

    /// The backup has succeeded and the job is done. Where it has shrunk, compared with the newest
    /// good one whose keys were counted, safety backups apart, that one is held until it is released;
    /// of those that are held for the same reason only those stay held that it does not take over from
    /// ([`ShrinkRule::takes_over`]).
    ///
    /// [`CatalogError::Cancelled`] when somebody wants it to end.
    async fn finish_backup(
        &self,
        lease: &Lease,
        files: &StoredFiles,
        shrink: ShrinkRule,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The backup has failed, and with it the job; because it was cancelled, if somebody wanted that.
    async fn fail_backup(
        &self,
        lease: &Lease,
        failure: &Failure,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The files of the backup are removed and the job is done. The backup is expired where
    /// [`retain_backups`](crate::RetentionCatalog::retain_backups) has asked for it and nobody else since, else deleted.
    async fn finish_removal(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError>;

    /// The restore that this job does.
    async fn restore_of(&self, lease: &Lease) -> Result<Restore, CatalogError>;

    /// The restore of this job is running from now on.
    async fn start_restore(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError>;

    /// How far the restore is; its progress never goes back.
    async fn report_restore(
        &self,
        lease: &Lease,
        progress: Progress,
        phase: &str,
    ) -> Result<(), CatalogError>;

    /// The target is about to be touched: from now on the restore is no longer cancelled. The same
    /// again changes nothing.
    ///
    /// [`CatalogError::Cancelled`] when somebody wants it to end.
    async fn touch_target(&self, lease: &Lease, now: Timestamp) -> Result<(), CatalogError>;

    /// Records a running backup of the target and that it is the restore's safety backup,
    /// together or not at all. A restore has one at the most, over all its attempts: where there
    /// is one already, whatever became of it, nothing changes. Gives the id of the one that counts.
    async fn begin_safety_backup(
        &self,
        lease: &Lease,
        backup: &NewSafetyBackup,
        now: Timestamp,
    ) -> Result<BackupId, CatalogError>;

    /// The safety backup has succeeded, with files as in [`JobQueue::finish_backup`]; the job goes
    /// on. Once it has succeeded, the same again changes nothing.
    ///
    /// [`CatalogError::NotFound`] before it was begun, [`CatalogError::State`] when it has failed.
    async fn finish_safety_backup(
        &self,
        lease: &Lease,
        files: &StoredFiles,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The safety backup has failed for good; the job goes on. Once it has failed, the same again
    /// changes nothing.
    ///
    /// [`CatalogError::NotFound`] before it was begun, [`CatalogError::State`] when it has
    /// succeeded.
    async fn fail_safety_backup(
        &self,
        lease: &Lease,
        failure: &Failure,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The restore has succeeded and the job is done. A safety backup that still runs has failed.
    ///
    /// [`CatalogError::Cancelled`] when somebody wants it to end.
    async fn finish_restore(
        &self,
        lease: &Lease,
        outcome: &RestoreOutcome,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The restore has failed, and with it the job, and for the same reason a safety backup that
    /// still runs; because it was cancelled, if somebody wanted that.
    async fn fail_restore(
        &self,
        lease: &Lease,
        failure: &Failure,
        outcome: &RestoreOutcome,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The drill has proven its backup and the job is done. `server` names the one that loaded it,
    /// such as `redis 7.0.15`; more than [`cachevault_domain::PROOF_SERVER_CHARS_MAX`] characters
    /// are cut. `uncompared` counts the values of modules that were counted, and not compared. The
    /// failure of an earlier drill is forgotten.
    async fn finish_drill(
        &self,
        lease: &Lease,
        server: &str,
        uncompared: u64,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The drill has failed, and with it the job. The backup and what was proven of it stay.
    async fn fail_drill(
        &self,
        lease: &Lease,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Puts the job back into the queue, due at `due`, with the reason for an operator. Until the files
    /// are gone, the backup of a removal that failed says so too: [`FailureCode::RemovalFailed`].
    ///
    /// [`FailureCode::RemovalFailed`]: cachevault_domain::FailureCode::RemovalFailed
    async fn requeue(
        &self,
        lease: &Lease,
        why: Requeue,
        due: Timestamp,
        reason: &str,
    ) -> Result<(), CatalogError>;

    /// The job.
    async fn find_job(&self, project: &ProjectId, id: JobId) -> Result<Option<Job>, CatalogError>;

    /// Returns when a job of this kind may have been queued. It may return without reason, and
    /// jobs may come without it: never the only trigger.
    async fn wait_for_job(&self, kind: JobKind);
}
