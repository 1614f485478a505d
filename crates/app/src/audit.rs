//! Recording and telling who did what.

use cachevault_domain::{
    AccessKey, Action, AuditFilter, AuditRecord, AuditResult, Caller, NewAuditRecord, RequestId,
};

use crate::{App, AppError, ProjectKey};

/// What a call names that can be of another project than the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A project.
    Project(ProjectKey),
    /// A credential.
    Credential(AccessKey),
}

impl App {
    /// Whether what a call names is of the caller's own project. Whoever does not administer the
    /// service reaches nothing else.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn is_about_own_project(
        &self,
        caller: &Caller,
        named: &Named,
    ) -> Result<bool, AppError> {
        if caller.administers_service().is_err() {
            return Ok(true);
        }
        let project = match named {
            Named::Project(key) => self.find_project(key).await?.map(|project| project.id),
            Named::Credential(key) => {
                let holder = self.catalog.find_credential(key).await?;
                holder.map(|holder| holder.stored.credential.project)
            }
        };
        Ok(project.is_some_and(|project| caller.is_in(&project)))
    }

    /// Records a call before anything is done for it. What cannot be recorded must not be done.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn begin_audit(&self, call: &NewAuditRecord) -> Result<(), AppError> {
        Ok(self.catalog.begin_audit(call).await?)
    }

    /// Records how a call was answered, and with which code where it was an error.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn end_audit(
        &self,
        request: &RequestId,
        status: u16,
        error: Option<String>,
    ) -> Result<(), AppError> {
        let result = AuditResult::new(status, error, self.clock.now());
        Ok(self.catalog.end_audit(request, &result).await?)
    }

    /// Records how a download ended, and how much of the file was sent.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn end_download(
        &self,
        request: &RequestId,
        status: u16,
        error: Option<String>,
        bytes: u64,
    ) -> Result<(), AppError> {
        let result = AuditResult::new(status, error, self.clock.now());
        Ok(self.catalog.end_audit(request, &AuditResult { bytes: Some(bytes), ..result }).await?)
    }

    /// Records a call that was refused before anybody had proven who it is; it stands for so many
    /// of its kind.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn record_refusal(
        &self,
        call: &NewAuditRecord,
        status: u16,
        error: String,
        times: u32,
    ) -> Result<(), AppError> {
        self.catalog.begin_audit(call).await?;
        let result = AuditResult { times, ..AuditResult::new(status, Some(error), call.at) };
        Ok(self.catalog.end_audit(&call.request, &result).await?)
    }

    /// Recorded calls about the project, `limit` at the most; for administrators of the service
    /// those about the whole service, too.
    ///
    /// # Errors
    /// [`AppError::AuditRecordNotFound`] where the list is to follow one that is not there;
    /// [`AppError::CatalogFailed`].
    pub async fn list_audit(
        &self,
        caller: &Caller,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, AppError> {
        let project = caller.may(Action::ReadAudit)?;
        let with_service = caller.administers_service().is_ok();
        let filter = AuditFilter { with_service, ..filter.clone() };
        Ok(self.catalog.list_audit(project, &filter, limit).await?)
    }
}
