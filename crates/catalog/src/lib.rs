//! The catalog: what is known of projects, instances, backups, restores and jobs,
//! durably.
//!
//! One method is one transaction and one business fact, written as compare-and-set: who comes
//! second gets an error, never a silent overwrite. [`Catalog`] is all traits together.
//!
//! The writes of a worker carry its [`Lease`]; once another attempt has begun they are refused
//! with [`CatalogError::LostLease`]. What only the worker of one kind of job may write is refused
//! to the others with [`CatalogError::NotFound`].
//!
//! This crate holds no SQL. Its feature `conformance` exports the suite that every
//! implementation has to pass.

#![deny(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod identity;
mod watch;

use std::fmt;

use async_trait::async_trait;
use cachevault_domain::{
    Agenda, AuditFilter, AuditRecord, AuditResult, Backup, BackupFilter, BackupId, BackupState,
    Cancellation, Delivery, DeliveryResult, DuePlan, EventFilter, EventId, EventPage, Failure,
    Instance, InstanceChange, InstanceCounts, InstanceFilter, InstanceId, InvalidRestoreTransition,
    InvalidTransition, Job, JobId, JobKind, Lease, Listing, NewAuditRecord, NewBackup, NewRestore,
    NewSafetyBackup, NodeId, Observation, Page, PolicyId, Progress, ProjectId, ReadingId,
    RequestId, Requeue, Restore, RestoreFilter, RestoreId, RestoreOutcome, SealedSecret,
    StepRecord, StoredBackup, Tag, TagChange, Tried, Webhook, WebhookChange, WebhookId, Window,
};
use jiff::{SignedDuration, Timestamp};

pub use identity::{
    CredentialChanges, FoundToken, IdentityCatalog, KeyHolder, PasswordHash, ProjectCatalog,
    ProjectChanges, ProjectFilter, StoredCredential, TOKEN_CHAIN_MAX, TOKENS_OF_USER_MAX,
    UserChanges, UserKey,
};
pub use watch::{OpenJobs, WatchCatalog, WatchedInstance};

/// Why a catalog method did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such thing in this project.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A name or key is taken.
    #[error("the {0} is taken already")]
    Taken(&'static str),
    /// The instance is busy with a job that needs it for itself, or the backup is in use by one.
    #[error("the instance is busy with a `{}` job", .0.as_str())]
    Busy(JobKind),
    /// It is granted to somebody, and cannot go before that ends.
    #[error("the {0} is in use")]
    InUse(&'static str),
    /// The instance still has backups with files.
    #[error("the instance still has {0} backups with files")]
    HasBackups(u64),
    /// The instance would have more tags than it may.
    #[error("an instance has {} tags at the most", cachevault_domain::TAGS_MAX)]
    TooManyTags,
    /// The project would have more webhooks than it may.
    #[error("a project has {} webhooks at the most", cachevault_domain::WEBHOOKS_MAX)]
    TooManyWebhooks,
    /// The backup has ended already.
    #[error("the backup has ended: it is `{}`", .0.as_str())]
    Ended(BackupState),
    /// Somebody wants the backup to end: it can only fail.
    #[error("the backup is being cancelled")]
    Cancelled,
    /// Each of the tokens was got with the one before it, and there are as many as there may be.
    #[error(
        "a token is got with a token {} times in a row at the most",
        TOKEN_CHAIN_MAX - 1
    )]
    TokenChain,
    /// The state of the backup does not allow it.
    #[error(transparent)]
    State(#[from] InvalidTransition),
    /// The state of the restore does not allow it.
    #[error(transparent)]
    RestoreState(#[from] InvalidRestoreTransition),
    /// Somebody has forbidden that the backup is removed.
    #[error("the backup is held")]
    Held,
    /// The backup did not succeed, or its files are removed or about to be.
    #[error("the backup has no files to restore from")]
    NotRestorable,
    /// Another attempt has begun; this worker's writes count no more.
    #[error("the lease is lost: another attempt has begun")]
    LostLease,
    /// A row does not decode: somebody else wrote it.
    #[error("row `{row}` of table `{table}` is corrupt: {detail}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key.
        row: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The database failed.
    #[error("the catalog is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An automatic policy about which there is something to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePolicy {
    /// The project.
    pub project: ProjectId,
    /// The instance.
    pub instance: InstanceId,
    /// What it says.
    pub says: DuePlan,
    /// Where it is.
    pub agenda: Agenda,
    /// What was tried in the window of the agenda.
    pub tried: Tried,
}

/// A backup that a policy asks for, with the job that will make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewScheduledBackup {
    /// The backup.
    pub backup: NewBackup,
    /// The window that it is made for.
    pub window: Window,
    /// Until when it is promised to be kept; `None` where only count and generations decide.
    pub keep_until: Option<Timestamp>,
}

/// What to do for a policy that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Rest,
    /// Begin a backup.
    Begin(NewScheduledBackup),
    /// Record a backup that was never begun, and why.
    Miss(NewScheduledBackup, Failure),
}

/// What was done for a policy that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// What was asked for.
    Done,
    /// A backup that has failed was recorded instead of one that waits: a job needs the instance
    /// for itself.
    Busy(JobKind),
    /// Nothing: somebody else had its turn before, or the policy has changed or is gone.
    Superseded,
}

/// Instances.
#[async_trait]
pub trait InstanceCatalog: Send + Sync {
    /// Adopts an instance.
    ///
    /// [`CatalogError::Taken`] when its name is in use in the project.
    async fn add_instance(&self, instance: &Instance) -> Result<(), CatalogError>;

    /// The instance, unless it was removed.
    async fn find_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
    ) -> Result<Option<Instance>, CatalogError>;

    /// Instances of a project, newest first.
    async fn list_instances(
        &self,
        project: &ProjectId,
        filter: &InstanceFilter,
        page: Page,
    ) -> Result<Listing<Instance>, CatalogError>;

    /// Changes what is said about an instance, all of it or nothing. Its policy is, where it has
    /// one, what follows from both ([`cachevault_domain::BackupPolicy::changed_to`]), and keeps its
    /// id; `policy_id` is for the first.
    ///
    /// [`CatalogError::NotFound`] without the instance, [`CatalogError::Taken`] when the name is in
    /// use in the project.
    async fn change_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
        change: &InstanceChange,
        policy_id: PolicyId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Takes the backup policy of an instance away. What it made stays as long as it was promised.
    ///
    /// [`CatalogError::NotFound`] without the instance, or without a policy of it.
    async fn remove_backup_policy(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Changes an instance's tags, all of it or nothing.
    ///
    /// [`CatalogError::NotFound`] without the instance, [`CatalogError::TooManyTags`].
    async fn change_tags(
        &self,
        project: &ProjectId,
        id: InstanceId,
        change: &TagChange,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The tags of all instances of a project, each once, by key and value.
    async fn list_tags(&self, project: &ProjectId) -> Result<Vec<Tag>, CatalogError>;

    /// How many instances a project has.
    async fn count_instances(&self, project: &ProjectId) -> Result<InstanceCounts, CatalogError>;

    /// Lets an instance go.
    ///
    /// [`CatalogError::Busy`] while a job needs it, [`CatalogError::HasBackups`] while backups of
    /// it have files.
    async fn remove_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Lets an instance go without its backups: nothing expires of them from then on, and they are
    /// found by their ids and by that of the instance until somebody deletes them.
    ///
    /// [`CatalogError::Busy`] while a job needs the instance.
    async fn remove_instance_keeping_backups(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Instances of all projects whose last look is from before `before`, longest ago first.
    async fn instances_seen_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Instance>, CatalogError>;

    /// Notes what a look at an instance found: its figures, or why it did not answer. An instance
    /// that was removed meanwhile is no error.
    async fn record_look(
        &self,
        id: InstanceId,
        found: Result<&Observation, &str>,
        now: Timestamp,
    ) -> Result<(), CatalogError>;
}

/// Backups.
#[async_trait]
pub trait BackupCatalog: Send + Sync {
    /// Records a backup and the job that will make it, together or not at all.
    ///
    /// [`CatalogError::NotFound`] without the instance; [`CatalogError::Busy`] while a job needs
    /// the instance for itself.
    async fn request_backup(&self, backup: &NewBackup) -> Result<(), CatalogError>;

    /// The backup.
    async fn find_backup(
        &self,
        project: &ProjectId,
        id: BackupId,
    ) -> Result<Option<Backup>, CatalogError>;

    /// Whether any backup of an instance has files, of one that was let go, too.
    async fn has_backups(
        &self,
        project: &ProjectId,
        instance: InstanceId,
    ) -> Result<bool, CatalogError>;

    /// Backups of an instance, newest first. The caller knows that the instance exists.
    async fn list_backups(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        filter: &BackupFilter,
        page: Page,
    ) -> Result<Listing<Backup>, CatalogError>;

    /// RDB size of the newest backup of an instance that succeeded, bytes.
    async fn last_size(&self, instance: InstanceId) -> Result<Option<u64>, CatalogError>;

    /// Notes that somebody wants a backup to end before it is done. One that nobody has begun has
    /// failed with that, and so has its job; the worker of one that has begun breaks it off, and
    /// until then it can only fail: who comes first, the wish or the success, wins. Where it was
    /// noted already nothing changes.
    ///
    /// [`CatalogError::NotFound`] without the backup, [`CatalogError::Ended`] when it has ended,
    /// [`CatalogError::Busy`] when it is made for a restore, with which it ends.
    async fn cancel_backup(
        &self,
        project: &ProjectId,
        backup: BackupId,
        wish: &Cancellation,
    ) -> Result<(), CatalogError>;

    /// Marks a settled backup for removal and records the job that will do it, together or not
    /// at all. Asking again while that job is open gives the same job. The job is due when nobody
    /// reads the files any more ([`RetentionCatalog::note_reading`]).
    ///
    /// [`CatalogError::State`] while the backup is waiting or running,
    /// [`CatalogError::NotFound`] when its files are gone, [`CatalogError::Busy`] while a restore
    /// reads it or may still have to put it back as the safety backup of its target, and while a
    /// drill of it is open, [`CatalogError::Held`].
    async fn request_removal(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        backup: BackupId,
        job: JobId,
        now: Timestamp,
    ) -> Result<JobId, CatalogError>;

    /// Marks all of these settled backups of an instance for removal and records the jobs that will
    /// do it, or marks none; gives the jobs, of which some may have been open before.
    ///
    /// What [`BackupCatalog::request_removal`] gives for any of them; [`CatalogError::Busy`] also
    /// while a job needs the instance for itself.
    async fn request_removals(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        backups: &[(BackupId, JobId)],
        now: Timestamp,
    ) -> Result<Vec<JobId>, CatalogError>;

    /// Records the job that will drill a backup. Asking again while one is open gives that job,
    /// which is then due at once.
    ///
    /// [`CatalogError::NotFound`] without the backup, [`CatalogError::NotRestorable`] when its
    /// files are not there to stay. A drill does not need the instance for itself.
    async fn request_drill(
        &self,
        project: &ProjectId,
        backup: BackupId,
        job: JobId,
        now: Timestamp,
    ) -> Result<JobId, CatalogError>;

    /// What is due for a drill, in all projects: of each instance its newest restorable backup,
    /// unless that one was proven, or its last drill failed, at `proven_before` or later, or any
    /// drill of the instance is open. The instances that never had a drill come first, then those
    /// whose last one is longest ago; among equals the backup that was created first.
    async fn backups_to_drill(
        &self,
        proven_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(ProjectId, BackupId)>, CatalogError>;

    /// Asks for a check of a backup's files before those that are due by themselves. The wish is in
    /// the record until it is fulfilled, or the removal of the backup is asked for.
    ///
    /// [`CatalogError::NotFound`] without a backup that has files.
    async fn request_check(
        &self,
        project: &ProjectId,
        backup: BackupId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Backups whose files are to be checked, in all projects: those for which it was asked, then
    /// those whose last check, or their making, was before `before`; longest ago first.
    async fn backups_to_check(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(ProjectId, BackupId)>, CatalogError>;

    /// Notes what a check that `began` then has found in the files of an attempt: nothing wrong, or
    /// what is. A backup that has other files or none by now is no error.
    async fn record_check(
        &self,
        backup: BackupId,
        stored_attempt: u32,
        damage: Option<&str>,
        began: Timestamp,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Backups that have files and are not to be removed, in all projects, by their ids: those behind
    /// `after`.
    async fn stored_backups(
        &self,
        after: Option<BackupId>,
        limit: u32,
    ) -> Result<Vec<Backup>, CatalogError>;

    /// Adds a backup that a store holds, with its instance and its project where they are missing,
    /// together or not at all. Whether the backup was missing; one that is known stays as it is. Of an
    /// instance that is known from its backups alone the newest of them tells name and address.
    async fn adopt_stored(&self, stored: &StoredBackup) -> Result<bool, CatalogError>;
}

/// Policies that are followed.
#[async_trait]
pub trait ScheduleCatalog: Send + Sync {
    /// Automatic policies of all projects about which there is something to decide at `now`: first
    /// those whose last decision is of a moment that has not come yet. Costs what these cost,
    /// however many others there are.
    async fn due_policies(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DuePolicy>, CatalogError>;

    /// Does what was decided about a policy, and makes `then` its agenda, together or not at all;
    /// nothing unless its agenda is still the one that was read.
    async fn turn_policy(
        &self,
        due: &DuePolicy,
        turn: &Turn,
        then: &Agenda,
    ) -> Result<Turned, CatalogError>;
}

/// How long after the wish to remove a backup its files are kept for those who read them.
pub const READ_ON_MAX: SignedDuration = SignedDuration::from_hours(1);

/// What keeps backups, and what ends them.
#[async_trait]
pub trait RetentionCatalog: Send + Sync {
    /// Forbids that a backup is removed, or allows it again. Doing so twice changes nothing.
    ///
    /// [`CatalogError::NotFound`] without a backup that has files.
    async fn hold_backup(
        &self,
        project: &ProjectId,
        backup: BackupId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Keeps the files of a backup because they are read, until then at least: it does not expire, and
    /// a removal by a person waits, up to [`READ_ON_MAX`]. No reading begins once a removal is asked
    /// for. An earlier moment than before changes nothing.
    ///
    /// [`CatalogError::NotFound`] without a backup that has files to stay, or to stay for this
    /// reading.
    async fn note_reading(
        &self,
        project: &ProjectId,
        backup: BackupId,
        reading: ReadingId,
        until: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Says that a reading has ended, before its time is over. Does not wait; from the next removal
    /// on that is asked for or claimed it counts. What is lost with the process ends with its time.
    fn end_reading(&self, reading: ReadingId);

    /// Instances of all projects of which backups may have to go: something has ended since this was
    /// found out last, or the time of a backup is over, or of its being read. What waits longest comes first. Costs what
    /// these cost.
    async fn instances_to_retain(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<InstanceId>, CatalogError>;

    /// Marks what has to go for removal, as many as there are ids for jobs, and records these; fixes
    /// when that is to be found out again, together or not at all. The backups that go are those
    /// that [`cachevault_domain::expired`] names by the rules of the instance's policy, if it has
    /// one, and, of more than `backups_max` with files,
    /// [`cachevault_domain::beyond_limit`] name; once their files are removed they are expired.
    async fn retain_backups(
        &self,
        instance: InstanceId,
        backups_max: usize,
        jobs: &[JobId],
        now: Timestamp,
    ) -> Result<Vec<BackupId>, CatalogError>;
}

/// Restores.
#[async_trait]
pub trait RestoreCatalog: Send + Sync {
    /// Records a restore and the job that will do it, together or not at all.
    ///
    /// [`CatalogError::NotFound`] without the target or the backup,
    /// [`CatalogError::NotRestorable`] when the backup's files are not there to stay,
    /// [`CatalogError::Busy`] while a job needs the target for itself.
    async fn request_restore(&self, restore: &NewRestore) -> Result<(), CatalogError>;

    /// The restore.
    async fn find_restore(
        &self,
        project: &ProjectId,
        id: RestoreId,
    ) -> Result<Option<Restore>, CatalogError>;

    /// Restores into an instance, newest first. The caller knows that the instance exists.
    async fn list_restores(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        filter: &RestoreFilter,
        page: Page,
    ) -> Result<Listing<Restore>, CatalogError>;
}

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

    /// Who wants the backup of this capture to end, if anybody.
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

    /// The backup has succeeded and the job is done. `stored_attempt` is the attempt whose files
    /// are the backup, `size_bytes` the size of the RDB in them.
    ///
    /// [`CatalogError::Cancelled`] when somebody wants it to end.
    async fn finish_backup(
        &self,
        lease: &Lease,
        stored_attempt: u32,
        size_bytes: u64,
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
    /// [`RetentionCatalog::retain_backups`] has asked for it and nobody else since, else deleted.
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

    /// Records a running backup of the target and that it is the restore's safety backup,
    /// together or not at all. A restore has one at the most, over all its attempts: where there
    /// is one already, whatever became of it, nothing changes. Gives the id of the one that counts.
    async fn begin_safety_backup(
        &self,
        lease: &Lease,
        backup: &NewSafetyBackup,
        now: Timestamp,
    ) -> Result<BackupId, CatalogError>;

    /// The safety backup has succeeded, with the same figures as [`JobQueue::finish_backup`]; the
    /// job goes on. Once it has succeeded, the same again changes nothing.
    ///
    /// [`CatalogError::NotFound`] before it was begun, [`CatalogError::State`] when it has failed.
    async fn finish_safety_backup(
        &self,
        lease: &Lease,
        stored_attempt: u32,
        size_bytes: u64,
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
    async fn finish_restore(
        &self,
        lease: &Lease,
        outcome: &RestoreOutcome,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The restore has failed, and with it the job, and for the same reason a safety backup that
    /// still runs.
    async fn fail_restore(
        &self,
        lease: &Lease,
        failure: &Failure,
        outcome: &RestoreOutcome,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The drill has proven its backup and the job is done. `server` names the one that loaded it,
    /// such as `redis 7.0.15`; more than [`cachevault_domain::PROOF_SERVER_CHARS_MAX`] characters
    /// are cut. The failure of an earlier drill is forgotten.
    async fn finish_drill(
        &self,
        lease: &Lease,
        server: &str,
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

/// Who did what.
#[async_trait]
pub trait AuditCatalog: Send + Sync {
    /// Records a call before anything is done for it.
    async fn begin_audit(&self, call: &NewAuditRecord) -> Result<(), CatalogError>;

    /// Records how a call was answered. The first answer stays.
    async fn end_audit(
        &self,
        request: &RequestId,
        result: &AuditResult,
    ) -> Result<(), CatalogError>;

    /// Calls about a project, `limit` at the most, in the order that the filter says.
    ///
    /// [`CatalogError::NotFound`] without the record of the project that the list is to follow.
    async fn list_audit(
        &self,
        project: &ProjectId,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, CatalogError>;

    /// Forgets calls from before a moment; how many.
    async fn drop_audit(&self, before: Timestamp) -> Result<u64, CatalogError>;
}

/// What has happened. Every method of the other traits that makes something happen records the event
/// together with it, or not at all.
#[async_trait]
pub trait EventCatalog: Send + Sync {
    /// Events of a project, `limit` at the most, in the order that the filter says. Once an event is
    /// listed none with a lower number comes any more.
    async fn list_events(
        &self,
        project: &ProjectId,
        filter: &EventFilter,
        limit: u32,
    ) -> Result<EventPage, CatalogError>;

    /// Forgets events from before a moment, `limit` at the most; how many. Numbers are not given
    /// again.
    async fn drop_events(&self, before: Timestamp, limit: u32) -> Result<u64, CatalogError>;

    /// Returns when an event behind this one may have been recorded. Events may come without it:
    /// never the only trigger.
    /// Gives the newest that is known.
    async fn wait_for_event(&self, after: EventId) -> EventId;
}

/// Webhooks, and what they are still to be told.
#[async_trait]
pub trait WebhookCatalog: Send + Sync {
    /// Adds a webhook, which is told of what happens from then on.
    ///
    /// [`CatalogError::TooManyWebhooks`], [`CatalogError::NotFound`] without the project.
    async fn add_webhook(
        &self,
        webhook: &Webhook,
        secret: &SealedSecret,
    ) -> Result<(), CatalogError>;

    /// The webhook, with its secret.
    async fn find_webhook(
        &self,
        project: &ProjectId,
        id: WebhookId,
    ) -> Result<Option<(Webhook, SealedSecret)>, CatalogError>;

    /// All webhooks of a project, oldest first.
    async fn list_webhooks(&self, project: &ProjectId) -> Result<Vec<Webhook>, CatalogError>;

    /// Changes a webhook. With a new URL, or enabled again, it is tried at once.
    ///
    /// [`CatalogError::NotFound`].
    async fn change_webhook(
        &self,
        project: &ProjectId,
        id: WebhookId,
        change: &WebhookChange,
    ) -> Result<(), CatalogError>;

    /// Removes a webhook; it is told nothing more.
    ///
    /// [`CatalogError::NotFound`].
    async fn remove_webhook(&self, project: &ProjectId, id: WebhookId) -> Result<(), CatalogError>;

    /// Claims the oldest event that a webhook of any project is still to be told of. Of one webhook
    /// one is claimed at a time, and the next only when that was delivered or given up.
    async fn claim_delivery(
        &self,
        node: NodeId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Delivery>, CatalogError>;

    /// Records how a delivery ended.
    ///
    /// [`CatalogError::LostLease`] where somebody else has claimed it since, or the webhook is gone.
    async fn end_delivery(
        &self,
        delivery: &Delivery,
        result: &DeliveryResult,
        now: Timestamp,
    ) -> Result<(), CatalogError>;
}

/// Everything that is known, durably.
pub trait Catalog:
    ProjectCatalog
    + IdentityCatalog
    + InstanceCatalog
    + BackupCatalog
    + ScheduleCatalog
    + RetentionCatalog
    + RestoreCatalog
    + JobQueue
    + WatchCatalog
    + AuditCatalog
    + EventCatalog
    + WebhookCatalog
    + fmt::Debug
{
}

impl<T> Catalog for T where
    T: ProjectCatalog
        + IdentityCatalog
        + InstanceCatalog
        + BackupCatalog
        + ScheduleCatalog
        + RetentionCatalog
        + RestoreCatalog
        + JobQueue
        + WatchCatalog
        + AuditCatalog
        + EventCatalog
        + WebhookCatalog
        + fmt::Debug
{
}
