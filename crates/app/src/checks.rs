//! Asking for checks: reading a backup's stored files again.

use cachevault_domain::{Action, BackupId, Caller};

use crate::{App, AppError};

impl App {
    /// Asks for a check of a backup's files. Asking again while one is due changes nothing.
    ///
    /// # Errors
    /// [`AppError::BackupNotFound`] also without files; [`AppError::CatalogFailed`].
    pub async fn request_check(&self, caller: &Caller, backup: BackupId) -> Result<(), AppError> {
        let project = caller.may(Action::CheckBackup)?;
        Ok(self.catalog.request_check(project, backup, self.clock.now()).await?)
    }
}
