//! What is known of restores.

use async_trait::async_trait;
use cachevault_domain::{
    Cancellation, InstanceId, Listing, NewRestore, Page, ProjectId, Restore, RestoreFilter,
    RestoreId,
};

use crate::CatalogError;

/// Restores.
#[async_trait]
pub trait RestoreCatalog: Send + Sync {
    /// Records a restore and the job that will do it, together or not at all.
    ///
    /// [`CatalogError::NotFound`] without the target or the backup,
    /// [`CatalogError::NotRestorable`] when the backup's files are not there to stay,
    /// [`CatalogError::Unverified`] when its content is opaque and the options do not allow that,
    /// [`CatalogError::Busy`] while a job needs the target for itself.
    async fn request_restore(&self, restore: &NewRestore) -> Result<(), CatalogError>;

    /// The restore.
    async fn find_restore(
        &self,
        project: &ProjectId,
        id: RestoreId,
    ) -> Result<Option<Restore>, CatalogError>;

    /// Notes that somebody wants a restore to end before its target is touched. One that nobody has
    /// begun has failed with that, and so has its job; the worker of one that has begun breaks it
    /// off, and until then it can only fail: who comes first, the wish or
    /// [`touch_target`](crate::JobQueue::touch_target), wins. Where it was noted already nothing
    /// changes.
    ///
    /// [`CatalogError::NotFound`] without the restore, [`CatalogError::RestoreEnded`] when it has
    /// ended, [`CatalogError::TargetTouched`].
    async fn cancel_restore(
        &self,
        project: &ProjectId,
        restore: RestoreId,
        wish: &Cancellation,
    ) -> Result<(), CatalogError>;

    /// Restores into an instance, newest first. The caller knows that the instance exists.
    async fn list_restores(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        filter: &RestoreFilter,
        page: Page,
    ) -> Result<Listing<Restore>, CatalogError>;
}
