//! Planning and asking for restores, and listing them.

use cachevault_domain::{
    Action, BackupId, Caller, Cancellation, Instance, InstanceId, JobId, Listing, NewRestore, Note,
    Page, ProjectId, Restore, RestoreFilter, RestoreId, RestoreOptions, RestorePlan,
};
use cachevault_store::{ArtifactEntry, ContentEntry};

use crate::{App, AppError};

/// What a client may say about the restore that it asks for.
#[derive(Debug, Clone)]
pub struct RequestRestore {
    /// The backup to restore; of any instance of the project.
    pub backup: BackupId,
    /// How.
    pub options: RestoreOptions,
    /// Free text.
    pub note: Option<Note>,
}

impl App {
    /// Tells what restoring a backup into an instance would do. Touches nothing.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::BackupNotFound`],
    /// [`AppError::BackupNotRestorable`], [`AppError::BackupDamaged`] as far as its manifest tells,
    /// [`AppError::CannotPlan`] when the instance cannot be looked at, [`AppError::CatalogFailed`],
    /// [`AppError::StoreUnavailable`].
    pub async fn plan_restore(
        &self,
        caller: &Caller,
        instance: InstanceId,
        backup: BackupId,
        options: &RestoreOptions,
    ) -> Result<RestorePlan, AppError> {
        let project = caller.may(Action::Restore)?;
        let target = self.find_instance(project, instance).await?;
        let entry = self.restorable_artifact(project, backup).await?;
        self.plan(caller, &target, &entry, options).await
    }

    async fn plan(
        &self,
        caller: &Caller,
        target: &Instance,
        entry: &ArtifactEntry,
        options: &RestoreOptions,
    ) -> Result<RestorePlan, AppError> {
        let connection = self.open_connection(target, Some(caller)).await?;
        let planned = self.prober.plan(&connection, entry, options).await;
        planned.map_err(|reason| AppError::CannotPlan { reason })
    }

    async fn restorable_artifact(
        &self,
        project: &ProjectId,
        backup: BackupId,
    ) -> Result<ArtifactEntry, AppError> {
        let backup = self.find_backup(project, backup).await?;
        // A standalone instance has one shard.
        let mut artifacts = self.restorable_manifest(&backup).await?.artifacts;
        artifacts.pop().ok_or(AppError::BackupNotRestorable)
    }

    /// Asks for a restore. When this returns, its record is in the list. It is refused where the
    /// plan has blockers, before anything is touched.
    ///
    /// # Errors
    /// Those of [`App::plan_restore`]; [`AppError::BackupUnverified`]; [`AppError::RestoreBlocked`];
    /// [`AppError::InstanceBusy`] while another operation runs; [`AppError::DiskShortage`].
    pub async fn request_restore(
        &self,
        caller: &Caller,
        instance: InstanceId,
        wish: RequestRestore,
    ) -> Result<RestoreId, AppError> {
        let project = caller.may(Action::Restore)?;
        self.check_disk().await?;
        let target = self.find_instance(project, instance).await?;
        let entry = self.restorable_artifact(project, wish.backup).await?;
        refuse_unverified(&entry, &wish.options)?;
        if let Some(kind) = target.operation {
            return Err(AppError::InstanceBusy(kind));
        }
        let plan = self.plan(caller, &target, &entry, &wish.options).await?;
        if !plan.blockers.is_empty() {
            return Err(AppError::RestoreBlocked(plan.blockers));
        }
        let restore = NewRestore {
            id: RestoreId::mint(&*self.entropy),
            job: JobId::mint(&*self.entropy),
            project: project.clone(),
            instance,
            backup: wish.backup,
            options: wish.options,
            note: wish.note,
            created_at: self.clock.now(),
        };
        self.catalog.request_restore(&restore).await?;
        Ok(restore.id)
    }

    /// Asks that a restore ends before it touches its target, which stays as it is. One that waits
    /// has ended at once, a running one within seconds. Asking again changes nothing.
    ///
    /// # Errors
    /// [`AppError::RestoreNotFound`]; [`AppError::RestoreEnded`]; [`AppError::TargetTouched`] when
    /// it is too late; [`AppError::CatalogFailed`].
    pub async fn cancel_restore(
        &self,
        caller: &Caller,
        restore: RestoreId,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::CancelRestore)?;
        let wish = Cancellation { by: caller.subject().to_string(), at: self.clock.now() };
        Ok(self.catalog.cancel_restore(project, restore, &wish).await?)
    }

    /// Restores into an instance, newest first.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::CatalogFailed`].
    pub async fn list_restores(
        &self,
        caller: &Caller,
        instance: InstanceId,
        filter: RestoreFilter,
        page: Page,
    ) -> Result<Listing<Restore>, AppError> {
        let project = caller.may(Action::ListRestores)?;
        self.find_instance(project, instance).await?;
        Ok(self.catalog.list_restores(project, instance, &filter, page).await?)
    }

    /// The restore.
    ///
    /// # Errors
    /// [`AppError::RestoreNotFound`], [`AppError::CatalogFailed`].
    pub async fn get_restore(&self, caller: &Caller, id: RestoreId) -> Result<Restore, AppError> {
        let project = caller.may(Action::ListRestores)?;
        self.catalog.find_restore(project, id).await?.ok_or(AppError::RestoreNotFound)
    }
}

/// Opaque content is restored only where that was asked for.
fn refuse_unverified(entry: &ArtifactEntry, options: &RestoreOptions) -> Result<(), AppError> {
    match &entry.rdb.content {
        Some(ContentEntry::Opaque { reason, .. }) if !options.unverified => {
            Err(AppError::BackupUnverified { reason: reason.clone() })
        }
        _ => Ok(()),
    }
}
