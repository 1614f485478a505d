//! Asking for backups, listing and removing them.

use std::time::Duration;

use cachevault_catalog::CatalogError;
use cachevault_domain::{
    Action, Backup, BackupFilter, BackupFormat, BackupId, Caller, Cancellation, InstanceId, Job,
    JobId, JobState, Listing, NewBackup, Note, Page, ProjectId, RdbDialect, Trigger,
};
use cachevault_store::{BackupKey, Manifest, StoreError, StoreErrorKind};

use crate::{App, AppError, StoredError};

/// How long a request to delete waits for the files to be gone.
const REMOVAL_WAIT: Duration = Duration::from_secs(20);
const REMOVAL_POLL: Duration = Duration::from_millis(20);
/// How long a request that needs the manifest waits for it: whoever asked is answered within 20 s.
const STORE_WAIT: Duration = Duration::from_secs(15);
/// How long whoever looks at a backup waits for its manifest.
const MANIFEST_WAIT: Duration = Duration::from_secs(5);

/// What a client may say about the backup that it asks for.
#[derive(Debug, Clone, Default)]
pub struct RequestBackup {
    /// Free text.
    pub note: Option<Note>,
    /// The RDB version to ask the source for.
    pub dialect: RdbDialect,
}

/// A backup with what is stored of it.
#[derive(Debug)]
pub struct BackupDetail {
    /// The record.
    pub backup: Backup,
    /// What was stored, or why that cannot be told; `None` where no sound files are.
    pub manifest: Option<Result<Manifest, StoredError>>,
    /// Where the artifacts lie, for a person to look.
    pub locations: Vec<String>,
}

impl App {
    /// Asks for a backup. When this returns, its record is in the list.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`]; [`AppError::InstanceBusy`] while another operation runs;
    /// [`AppError::InstanceDown`] when it counts as down and does not answer now;
    /// [`AppError::SingleNode`] where the configuration asks for it;
    /// [`AppError::DiskShortage`]; [`AppError::CatalogFailed`].
    pub async fn request_backup(
        &self,
        caller: &Caller,
        instance: InstanceId,
        wish: RequestBackup,
    ) -> Result<BackupId, AppError> {
        let project = caller.may(Action::CreateBackup)?;
        self.check_disk().await?;
        let found = self.find_instance(project, instance).await?;
        if !self.single_node_backups && found.observation.replicas_online == 0 {
            return Err(AppError::SingleNode);
        }
        if found.health.is_down() {
            // What was seen may be half a minute old: look again before refusing.
            self.look_at_instance(&found, Some(caller)).await??;
        }
        let backup = NewBackup {
            id: BackupId::mint(&*self.entropy),
            job: JobId::mint(&*self.entropy),
            project: project.clone(),
            instance,
            trigger: Trigger::Manual,
            format: BackupFormat::Rdb,
            dialect: wish.dialect,
            note: wish.note,
            created_at: self.clock.now(),
        };
        self.catalog.request_backup(&backup).await?;
        Ok(backup.id)
    }

    /// Backups of an instance, newest first, as long as they are to be listed: also of one that was
    /// let go while they were kept.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::CatalogFailed`].
    pub async fn list_backups(
        &self,
        caller: &Caller,
        instance: InstanceId,
        filter: BackupFilter,
        page: Page,
    ) -> Result<Listing<Backup>, AppError> {
        let project = caller.may(Action::ListBackups)?;
        self.require_instance(project, instance).await?;
        let removed_since = self.clock.now().checked_sub(self.history).ok();
        let filter = BackupFilter { removed_since, ..filter };
        Ok(self.catalog.list_backups(project, instance, &filter, page).await?)
    }

    /// The backup with what is stored of it. A store that gives no manifest, or not soon, fails
    /// nothing: the record is known without it.
    ///
    /// # Errors
    /// [`AppError::BackupNotFound`], [`AppError::CatalogFailed`].
    pub async fn get_backup(
        &self,
        caller: &Caller,
        id: BackupId,
    ) -> Result<BackupDetail, AppError> {
        let backup = self.find_backup(caller.may(Action::ListBackups)?, id).await?;
        let stored = backup.stored_attempt.filter(|_| backup.is_restorable_unverified());
        let Some(attempt) = stored else {
            return Ok(BackupDetail { backup, manifest: None, locations: Vec::new() });
        };
        let key = backup_key(&backup).attempt(attempt);
        let found = tokio::time::timeout(MANIFEST_WAIT, self.find_manifest(&backup)).await;
        let manifest = found.unwrap_or_else(|_| Err(too_slow(&backup, MANIFEST_WAIT)));
        let artifacts = manifest.iter().flat_map(|manifest| &manifest.artifacts);
        let shards =
            (0..).zip(artifacts).map(|(shard, entry)| key.artifact(shard).encoded(entry.encoding));
        let locations = shards.map(|artifact| self.store.locate(&artifact)).collect();
        Ok(BackupDetail { backup, manifest: Some(manifest), locations })
    }

    /// The record of a backup, for a caller that is allowed to do this with it.
    ///
    /// # Errors
    /// [`AppError::Denied`], [`AppError::BackupNotFound`], [`AppError::CatalogFailed`].
    pub async fn find_backup_for(
        &self,
        caller: &Caller,
        action: Action,
        id: BackupId,
    ) -> Result<Backup, AppError> {
        self.find_backup(caller.may(action)?, id).await
    }

    pub(crate) async fn find_backup(
        &self,
        project: &ProjectId,
        id: BackupId,
    ) -> Result<Backup, AppError> {
        self.catalog.find_backup(project, id).await?.ok_or(AppError::BackupNotFound)
    }

    /// The manifest of a backup that a restore, a link or a download can be made of.
    pub(crate) async fn restorable_manifest(&self, backup: &Backup) -> Result<Manifest, AppError> {
        match &backup.damage {
            _ if !backup.has_files() => Err(AppError::BackupNotRestorable),
            Some(damage) => Err(AppError::BackupDamaged(damage.clone())),
            None => {
                let found = tokio::time::timeout(STORE_WAIT, self.find_manifest(backup)).await;
                Ok(found.unwrap_or_else(|_| Err(too_slow(backup, STORE_WAIT)))?)
            }
        }
    }

    /// Breaks off a backup that waits or runs; its record says by whom. One that nobody has begun
    /// has failed when this returns. A running one fails when its worker has broken it off, which
    /// takes seconds; one that succeeds first has been cancelled too late. Asking again changes
    /// nothing.
    ///
    /// # Errors
    /// [`AppError::BackupNotFound`]; [`AppError::BackupEnded`]; [`AppError::InstanceBusy`] for one
    /// that a restore makes; [`AppError::CatalogFailed`].
    pub async fn cancel_backup(&self, caller: &Caller, backup: BackupId) -> Result<(), AppError> {
        let project = caller.may(Action::CancelBackup)?;
        let wish = Cancellation { by: caller.subject().to_string(), at: self.clock.now() };
        Ok(self.catalog.cancel_backup(project, backup, &wish).await?)
    }

    /// Removes a backup's files, and waits for it. From now on its links open nothing; its files
    /// stay until those who download them are done. The record stays as deleted.
    ///
    /// # Errors
    /// [`AppError::BackupNotFound`]; [`AppError::BackupFilesGone`] when they are removed already;
    /// [`AppError::BackupUnsettled`] while it waits or runs; [`AppError::BackupHeld`];
    /// [`AppError::RemovalFailed`] when the
    /// files are not gone in time, though the service goes on; [`AppError::CatalogFailed`].
    pub async fn remove_backup(
        &self,
        caller: &Caller,
        instance: InstanceId,
        backup: BackupId,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::DeleteBackup)?;
        self.require_instance(project, instance).await?;
        let job = JobId::mint(&*self.entropy);
        let now = self.clock.now();
        let marked = self.catalog.request_removal(project, instance, backup, job, now).await;
        let job = match marked {
            Err(CatalogError::NotFound("backup")) => {
                return Err(self.missing_backup(project, instance, backup).await?);
            }
            marked => marked?,
        };
        self.wait_for_removals(project, &[job]).await
    }

    /// Why a backup of the instance cannot be removed: no record, or a record without files.
    async fn missing_backup(
        &self,
        project: &ProjectId,
        instance: InstanceId,
        backup: BackupId,
    ) -> Result<AppError, AppError> {
        let found = self.catalog.find_backup(project, backup).await?;
        let found = found.filter(|backup| backup.instance == instance);
        Ok(found.map_or(AppError::BackupNotFound, |backup| AppError::BackupFilesGone(backup.state)))
    }

    /// Forbids that a backup is removed, by anybody or because its time is over, or allows it again.
    ///
    /// # Errors
    /// [`AppError::BackupNotFound`] also when it has no files, or not for long;
    /// [`AppError::CatalogFailed`].
    pub async fn hold_backup(
        &self,
        caller: &Caller,
        backup: BackupId,
        is_held: bool,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::DeleteBackup)?;
        Ok(self.catalog.hold_backup(project, backup, is_held, self.clock.now()).await?)
    }

    /// Waits until all of these jobs are done.
    pub(crate) async fn wait_for_removals(
        &self,
        project: &ProjectId,
        jobs: &[JobId],
    ) -> Result<(), AppError> {
        let waiting = async {
            for job in jobs {
                self.wait_for_removal(project, *job).await?;
            }
            Ok(())
        };
        tokio::time::timeout(REMOVAL_WAIT, waiting).await.unwrap_or_else(|_| {
            let reason = "it takes longer than expected, or they are still being downloaded";
            Err(AppError::RemovalFailed { reason: reason.into() })
        })
    }

    async fn wait_for_removal(&self, project: &ProjectId, job: JobId) -> Result<(), AppError> {
        loop {
            match self.catalog.find_job(project, job).await? {
                Some(Job { state: JobState::Queued, last_error: Some(reason), .. }) => {
                    return Err(AppError::RemovalFailed { reason });
                }
                Some(Job { state: JobState::Queued | JobState::Leased, .. }) => {}
                _ => return Ok(()),
            }
            tokio::time::sleep(REMOVAL_POLL).await;
        }
    }
}

/// Where the files of a backup are in the store.
pub(crate) fn backup_key(backup: &Backup) -> BackupKey {
    BackupKey { project: backup.project.clone(), instance: backup.instance, backup: backup.id }
}

fn too_slow(backup: &Backup, waited: Duration) -> StoredError {
    StoredError::Unavailable(StoreError {
        kind: StoreErrorKind::Unavailable,
        action: "read the manifest of",
        object: backup_key(backup).to_string(),
        source: Some(format!("no answer within {} s", waited.as_secs()).into()),
    })
}
