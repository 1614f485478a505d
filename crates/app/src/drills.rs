//! Asking for drills: loading a backup into a throw-away server to prove it.

use cachevault_domain::{Action, BackupId, Caller, JobId, ProjectId};
use jiff::Timestamp;

use crate::{App, AppError};

impl App {
    /// Asks for a drill of a backup. Asking again while one is open changes nothing.
    ///
    /// # Errors
    /// [`AppError::BackupNotFound`], [`AppError::BackupNotRestorable`], [`AppError::DiskShortage`],
    /// [`AppError::CatalogFailed`].
    pub async fn request_drill(&self, caller: &Caller, backup: BackupId) -> Result<(), AppError> {
        let project = caller.may(Action::DrillBackup)?;
        self.check_disk().await?;
        self.drill(project, backup).await
    }

    async fn drill(&self, project: &ProjectId, backup: BackupId) -> Result<(), AppError> {
        let job = JobId::mint(&*self.entropy);
        self.catalog.request_drill(project, backup, job, self.clock.now()).await?;
        Ok(())
    }

    /// Asks for drills of the newest backups that were not proven since `proven_before`, of `limit`
    /// instances at the most; returns how many.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn request_due_drills(
        &self,
        proven_before: Timestamp,
        limit: u32,
    ) -> Result<usize, AppError> {
        let due = self.catalog.backups_to_drill(proven_before, limit).await?;
        for (project, backup) in &due {
            match self.drill(project, *backup).await {
                // Removed meanwhile.
                Ok(()) | Err(AppError::BackupNotFound | AppError::BackupNotRestorable) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(due.len())
    }
}
