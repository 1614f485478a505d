//! The catalog: what is known of projects, instances, backups, restores and jobs,
//! durably.
//!
//! One method is one transaction and one business fact, written as compare-and-set: who comes
//! second gets an error, never a silent overwrite. [`Catalog`] is all traits together.
//!
//! The writes of a worker carry its [`Lease`](cachevault_domain::Lease); once another attempt has
//! begun they are refused with [`CatalogError::LostLease`]. What only the worker of one kind of job
//! may write is refused to the others with [`CatalogError::NotFound`].
//!
//! This crate holds no SQL. Its feature `conformance` exports the suite that every
//! implementation has to pass.

#![deny(missing_docs)]

mod backups;
#[cfg(feature = "conformance")]
pub mod conformance;
mod events;
mod identity;
mod instances;
mod jobs;
mod restores;
mod retention;
mod schedules;
mod stores;
mod watch;

use std::fmt;

use cachevault_domain::{
    BackupState, InvalidRestoreTransition, InvalidTransition, JobKind, RestoreState,
};

pub use backups::BackupCatalog;
pub use events::{AuditCatalog, EventCatalog, WebhookCatalog};
pub use identity::{
    CredentialChanges, FoundToken, IdentityCatalog, KeyHolder, PasswordHash, ProjectCatalog,
    ProjectChanges, ProjectFilter, StoredCredential, TOKEN_CHAIN_MAX, TOKENS_OF_USER_MAX,
    UserChanges, UserKey,
};
pub use instances::InstanceCatalog;
pub use jobs::JobQueue;
pub use restores::RestoreCatalog;
pub use retention::{READ_ON_MAX, RetentionCatalog};
pub use schedules::{DuePolicy, NewScheduledBackup, ScheduleCatalog, Turn, Turned};
pub use stores::StoreCatalog;
pub use watch::{OpenJobs, WatchCatalog, WatchedInstance};

/// Why a catalog method did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such thing in this project.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A name or key is taken.
    #[error("the {0} is taken already")]
    Taken(&'static str),
    /// The instance is busy with a job that needs it for itself, or the backup is in use by one.
    #[error("the instance is busy with a `{}` job", .0.as_str())]
    Busy(JobKind),
    /// Somebody else has changed it since it was read.
    #[error("the {0} was changed meanwhile")]
    Changed(&'static str),
    /// It is granted to somebody, and cannot go before that ends.
    #[error("the {0} is in use")]
    InUse(&'static str),
    /// The instance still has backups with files.
    #[error("the instance still has {0} backups with files")]
    HasBackups(u64),
    /// The instance would have more tags than it may.
    #[error("an instance has {} tags at the most", cachevault_domain::TAGS_MAX)]
    TooManyTags,
    /// The project would have more webhooks than it may.
    #[error("a project has {} webhooks at the most", cachevault_domain::WEBHOOKS_MAX)]
    TooManyWebhooks,
    /// The backup has ended already.
    #[error("the backup has ended: it is `{}`", .0.as_str())]
    Ended(BackupState),
    /// The restore has ended already.
    #[error("the restore has ended: it is `{}`", .0.as_str())]
    RestoreEnded(RestoreState),
    /// The restore has begun to touch its target: half of it would be worse than either end.
    #[error("the target of the restore is being written")]
    TargetTouched,
    /// Somebody wants the backup or the restore to end: it can only fail.
    #[error("it is being cancelled")]
    Cancelled,
    /// Each of the tokens was got with the one before it, and there are as many as there may be.
    #[error(
        "a token is got with a token {} times in a row at the most",
        TOKEN_CHAIN_MAX - 1
    )]
    TokenChain,
    /// The state of the backup does not allow it.
    #[error(transparent)]
    State(#[from] InvalidTransition),
    /// The state of the restore does not allow it.
    #[error(transparent)]
    RestoreState(#[from] InvalidRestoreTransition),
    /// Somebody has forbidden that the backup is removed.
    #[error("the backup is held")]
    Held,
    /// The backup did not succeed, or its files are removed or about to be.
    #[error("the backup has no files to restore from")]
    NotRestorable,
    /// The content of the backup is opaque, and nobody said that it may be restored all the same.
    #[error("the content of the backup is not verified")]
    Unverified,
    /// Another attempt has begun; this worker's writes count no more.
    #[error("the lease is lost: another attempt has begun")]
    LostLease,
    /// A row does not decode: somebody else wrote it.
    #[error("row `{row}` of table `{table}` is corrupt: {detail}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key.
        row: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The database failed.
    #[error("the catalog is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Everything that is known, durably.
pub trait Catalog:
    ProjectCatalog
    + IdentityCatalog
    + InstanceCatalog
    + BackupCatalog
    + ScheduleCatalog
    + RetentionCatalog
    + RestoreCatalog
    + JobQueue
    + WatchCatalog
    + AuditCatalog
    + EventCatalog
    + WebhookCatalog
    + StoreCatalog
    + fmt::Debug
{
}

impl<T> Catalog for T where
    T: ProjectCatalog
        + IdentityCatalog
        + InstanceCatalog
        + BackupCatalog
        + ScheduleCatalog
        + RetentionCatalog
        + RestoreCatalog
        + JobQueue
        + WatchCatalog
        + AuditCatalog
        + EventCatalog
        + WebhookCatalog
        + StoreCatalog
        + fmt::Debug
{
}
