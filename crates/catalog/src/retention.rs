//! What keeps the files of backups, and what ends them.

use async_trait::async_trait;
use cachevault_domain::{BackupId, InstanceId, JobId, ProjectId, ReadingId};
use jiff::{SignedDuration, Timestamp};

use crate::CatalogError;

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
