//! What a client can act on.

use cachevault_catalog::CatalogError;
use cachevault_domain::{
    BackupState, Blocker, Denied, InvalidConnection, InvalidInstanceName, InvalidTransition,
    JobKind, ProbeError, RestoreState, TAGS_MAX, WEBHOOKS_MAX,
};
use cachevault_store::{StoreError, StoreErrorKind};

use crate::access::AccessError;
use crate::disk::DiskShortage;
use crate::sealer::Unsealable;
use crate::webhooks::InvalidWebhook;

/// A use case did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The caller is not allowed to do this; ask whoever manages the project for the permission.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It is about projects, users, credentials or policies.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No such instance in this project.
    #[error("this instance does not exist")]
    InstanceNotFound,
    /// No such backup of this instance.
    #[error("this backup does not exist")]
    BackupNotFound,
    /// The record is there; its files were removed.
    #[error("this backup has no files any more: its record says `{}`", .0.as_str())]
    BackupFilesGone(BackupState),
    /// No such restore in this project.
    #[error("this restore does not exist")]
    RestoreNotFound,
    /// The instance has no backup policy.
    #[error("this instance has no backup policy")]
    BackupPolicyNotFound,
    /// No such record of a call in this project.
    #[error("there is no such record to follow")]
    AuditRecordNotFound,
    /// No such webhook in this project.
    #[error("this webhook does not exist")]
    WebhookNotFound,
    /// The webhook cannot be what is asked for; the reason says what to change.
    #[error(transparent)]
    InvalidWebhook(#[from] InvalidWebhook),
    /// Remove another webhook first.
    #[error("a project has {WEBHOOKS_MAX} webhooks at the most")]
    TooManyWebhooks,
    /// The backup did not succeed, or its files are gone.
    #[error("the backup has no files to restore from")]
    BackupNotRestorable,
    /// The content of the backup is opaque, and the request does not allow that.
    #[error(
        "the backup cannot be restored: its content is not verified ({reason}); use --unverified to load it \
         natively into a server of the same vendor and of at least the source's version"
    )]
    BackupUnverified {
        /// Why it is not verified.
        reason: String,
    },
    /// What is stored of the backup is damaged; take another, or mend it and have it checked.
    #[error("the backup is damaged: {0}")]
    BackupDamaged(String),
    /// The instance cannot be looked at, so nothing can be said of a restore into it.
    #[error("no restore can be planned: {reason}")]
    CannotPlan {
        /// Why not.
        reason: String,
    },
    /// Something stands in the way of the restore; each blocker says what to change.
    #[error("the restore cannot be done: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    RestoreBlocked(Vec<Blocker>),
    /// Another operation runs on the instance; try again when it has ended.
    #[error("the instance is busy with another operation")]
    InstanceBusy(JobKind),
    /// The instance does not answer.
    #[error("the instance is not running: {0}")]
    InstanceDown(ProbeError),
    /// It has no replica, and the configuration wants one.
    #[error(
        "the instance has no replica, and this service is configured to back up only such as have one"
    )]
    SingleNode,
    /// The backup is waiting or running; try again when it has ended.
    #[error("the backup has not ended yet")]
    BackupUnsettled(#[source] InvalidTransition),
    /// The backup has ended; there is nothing to cancel.
    #[error("the backup has ended already: it is `{}`", .0.as_str())]
    BackupEnded(BackupState),
    /// The restore has ended; there is nothing to cancel.
    #[error("the restore has ended already: it is `{}`", .0.as_str())]
    RestoreEnded(RestoreState),
    /// It is too late to cancel the restore; wait for its end.
    #[error("the restore is writing to its target already: wait for its end")]
    TargetTouched,
    /// Somebody has forbidden that the backup is removed; release it first.
    #[error("the backup is held; release it first")]
    BackupHeld,
    /// The instance still has backups with files; say what becomes of them.
    #[error("the instance still has {0} backups with files; say whether to delete or to keep them")]
    InstanceHasBackups(u64),
    /// The instance would have more tags than it may; take some away first.
    #[error("an instance has {TAGS_MAX} tags at the most")]
    TooManyTags,
    /// Choose another name.
    #[error("an instance of this name exists already")]
    NameTaken,
    /// Choose a name as the error says.
    #[error(transparent)]
    InvalidName(#[from] InvalidInstanceName),
    /// What was said of the connection does not go together; the reason says what to change.
    #[error(transparent)]
    InvalidConnection(#[from] InvalidConnection),
    /// Look at the instance, and ask again.
    #[error("somebody else has changed how the instance is reached; look at it and try again")]
    ConnectionChanged,
    /// Give the one that was stored last, or change the connection.
    #[error("this is not the stored password of the instance")]
    WrongPassword,
    /// The server cannot be adopted; the reason says what to do.
    #[error(transparent)]
    CannotAdopt(ProbeError),
    /// The files could not be removed yet; the service goes on trying.
    #[error("the files of the backup could not be removed yet: {reason}")]
    RemovalFailed {
        /// Why not.
        reason: String,
    },
    /// The catalog failed; try again later.
    #[error("the catalog failed")]
    CatalogFailed(#[source] CatalogError),
    /// The service's disk is nearly full; free some space.
    #[error(transparent)]
    DiskShortage(#[from] DiskShortage),
    /// The store cannot be used; try again later.
    #[error("the store cannot be used")]
    StoreUnavailable(#[source] StoreError),
    /// A password could not be hashed; try again later.
    #[error("a password could not be hashed")]
    HashingFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other Keystone did not answer; try again later.
    #[error("the configured Keystone cannot be asked: {0}")]
    KeystoneFailed(String),
    /// A stored secret does not open with this master key.
    #[error("a stored secret cannot be opened")]
    SecretUnreadable(#[from] Unsealable),
}

impl AppError {
    /// Whether it is because another store is where the catalog's should be.
    pub fn is_foreign_store(&self) -> bool {
        matches!(self, Self::StoreUnavailable(error) if error.kind == StoreErrorKind::Foreign)
    }
}

impl From<CatalogError> for AppError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound("backup") => Self::BackupNotFound,
            CatalogError::NotFound("instance") => Self::InstanceNotFound,
            CatalogError::NotFound("restore") => Self::RestoreNotFound,
            CatalogError::NotFound("backup policy") => Self::BackupPolicyNotFound,
            CatalogError::NotFound("audit record") => Self::AuditRecordNotFound,
            CatalogError::NotFound("webhook") => Self::WebhookNotFound,
            CatalogError::TooManyWebhooks => Self::TooManyWebhooks,
            CatalogError::NotRestorable => Self::BackupNotRestorable,
            CatalogError::Unverified => Self::BackupUnverified {
                reason: "its format is not known to this service".to_owned(),
            },
            CatalogError::Busy(kind) => Self::InstanceBusy(kind),
            CatalogError::Ended(state) => Self::BackupEnded(state),
            CatalogError::RestoreEnded(state) => Self::RestoreEnded(state),
            CatalogError::TargetTouched => Self::TargetTouched,
            CatalogError::Held => Self::BackupHeld,
            CatalogError::TooManyTags => Self::TooManyTags,
            CatalogError::HasBackups(count) => Self::InstanceHasBackups(count),
            CatalogError::Taken("instance name") => Self::NameTaken,
            CatalogError::Changed("connection") => Self::ConnectionChanged,
            CatalogError::State(transition) => Self::BackupUnsettled(transition),
            other => match AccessError::from_catalog(&other) {
                Some(error) => Self::Access(error),
                None => Self::CatalogFailed(other),
            },
        }
    }
}
