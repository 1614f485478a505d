//! Backup policies: when an instance is backed up by itself, and what is kept of it.

use cachevault_domain::{
    Action, Agenda, BackupPolicy, Caller, InstanceChange, InstanceId, StoredPolicy, Window,
};
use jiff::Timestamp;

use crate::{App, AppError};

/// A backup policy, and what comes of it next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedPolicy {
    /// What it says.
    pub stored: StoredPolicy,
    /// The first window whose backup is still to begin, and when that begins; `None` where nothing
    /// is done by itself.
    pub next: Option<(Window, Timestamp)>,
}

impl App {
    /// The backup policy of an instance.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::BackupPolicyNotFound`],
    /// [`AppError::CatalogFailed`].
    pub async fn get_backup_policy(
        &self,
        caller: &Caller,
        id: InstanceId,
    ) -> Result<FollowedPolicy, AppError> {
        let instance = self.get_instance(caller, id).await?;
        let stored = instance.settings.policy.ok_or(AppError::BackupPolicyNotFound)?;
        let due = stored.policy.due_plan();
        let next = due.and_then(|due| Agenda::upcoming(&due.plan, id, self.clock.now()));
        Ok(FollowedPolicy { stored, next })
    }

    /// Gives an instance a backup policy in place of the one that it has.
    ///
    /// # Errors
    /// As [`App::change_instance`].
    pub async fn set_backup_policy(
        &self,
        caller: &Caller,
        id: InstanceId,
        policy: BackupPolicy,
    ) -> Result<(), AppError> {
        let change = InstanceChange { policy: Some(policy), ..InstanceChange::default() };
        self.change_instance(caller, id, &change).await
    }

    /// Takes the backup policy of an instance away. Its backups stay as long as each was promised,
    /// those that count and generations alone kept until somebody deletes them or there are too many.
    ///
    /// # Errors
    /// [`AppError::InstanceNotFound`], [`AppError::BackupPolicyNotFound`],
    /// [`AppError::CatalogFailed`].
    pub async fn remove_backup_policy(
        &self,
        caller: &Caller,
        id: InstanceId,
    ) -> Result<(), AppError> {
        let project = caller.may(Action::ModifyInstance)?;
        Ok(self.catalog.remove_backup_policy(project, id, self.clock.now()).await?)
    }
}
