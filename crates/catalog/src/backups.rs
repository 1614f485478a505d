//! What is known of backups.

use async_trait::async_trait;
use cachevault_domain::{
    Backup, BackupFilter, BackupId, Cancellation, InstanceId, JobId, Listing, NewBackup, Page,
    ProjectId, StoredBackup,
};
use jiff::Timestamp;

use crate::CatalogError;

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
    /// reads the files any more ([`note_reading`](crate::RetentionCatalog::note_reading)).
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
