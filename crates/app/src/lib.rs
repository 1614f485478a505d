//! The use cases, one function each, free of any transport.
//!
//! [`App`] holds what they work with. A function takes who asks, the [`Caller`], as its first
//! argument: it sees nothing of another project, and answers [`AppError::Denied`] where the caller
//! lacks the permission. What goes wrong is an [`AppError`], with one variant for each thing that a
//! client can act on.
//!
//! [`Caller`]: cachevault_domain::Caller
//!
//! This crate knows no HTTP, no SQL and no replication protocol: a server is looked at through
//! [`Prober`], a stored RDB is read through [`RdbOpener`].

#![deny(missing_docs)]

mod access;
mod audit;
mod authority;
mod backups;
mod checks;
mod credentials;
mod disk;
mod drills;
mod error;
mod events;
mod instances;
mod links;
mod passwords;
mod policies;
mod projects;
mod reading;
mod rebuild;
mod restores;
mod schedules;
mod sealer;
mod store_identity;
mod stored;
mod tokens;
mod users;
mod watch;
mod webhooks;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cachevault_catalog::Catalog;
use cachevault_domain::{
    Clock, Entropy, HostRules, Observation, ProbeError, RestoreOptions, RestorePlan, Target,
};
use cachevault_store::{ArtifactEntry, ArtifactKey, Scratch, Store, StoreError, StoreErrorKind};
use jiff::SignedDuration;

pub use access::AccessError;
pub use audit::Named;
pub use authority::{ForeignToken, ForeignTokens, TokenAuthority};
pub use backups::{BackupDetail, RequestBackup};
pub use cachevault_catalog::{
    CredentialChanges, OpenJobs, ProjectChanges, UserKey, WatchedInstance,
};
pub use credentials::{CreateCredential, KeyProof, NewCredential, ShownCredential};
pub use disk::{DiskReserve, DiskShortage, LocalFolder};
pub use error::AppError;
pub use instances::{AddInstance, FirstSettings};
pub use links::{BackupLinks, Download, FileLink, InvalidLinkLifetime, LinkLifetime, Ticket};
pub use passwords::{Logins, PasswordTurn};
pub use projects::ProjectKey;
pub use rebuild::Rebuilt;
pub use restores::RequestRestore;
pub use schedules::FollowedPolicy;
pub use sealer::{InvalidMasterKey, MasterKey, Sealer, Unsealable};
pub use store_identity::{AcceptedStore, StoreRecord};
pub use stored::StoredError;
pub use tokens::{Proof, TokenDetail, TokenRefusal, WantedScope};
pub use users::{CreateUser, UpdateUser, UserDetail};
pub use watch::Watched;
pub use webhooks::{
    CreateWebhook, InvalidWebhook, NotDelivered, ShownWebhook, WEBHOOK_TESTS_MAX, WebhookMessage,
    WebhookRules, WebhookSender, Webhooks,
};

/// A store that has not shown within this time that it is usable is not.
const STORE_CHECK_MAX: Duration = Duration::from_secs(10);

/// Looks at a server: what runs there, or exactly what is wrong.
#[async_trait]
pub trait Prober: Send + Sync + fmt::Debug {
    /// Connects, checks everything that a capture will need, and tells the server's figures.
    async fn probe(&self, target: &Target) -> Result<Observation, ProbeError>;

    /// Connects and tells the server's figures, and leaves no line in its log.
    async fn look(&self, target: &Target) -> Result<Observation, ProbeError>;

    /// Connects and tells what restoring an artifact into the server would do; on an error, why it
    /// cannot be told.
    async fn plan(
        &self,
        target: &Target,
        entry: &ArtifactEntry,
        options: &RestoreOptions,
    ) -> Result<RestorePlan, String>;
}

/// A stored RDB cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum RdbUnreadable {
    /// It is not there, or no longer.
    #[error("the artifact is gone")]
    Gone,
    /// It is damaged, or the store failed.
    #[error("the artifact cannot be read: {0}")]
    Failed(String),
}

/// Opens RDBs that are stored.
#[async_trait]
pub trait RdbOpener: Send + Sync + fmt::Debug {
    /// Opens the RDB inside an artifact at its beginning.
    async fn open(
        &self,
        store: &dyn Store,
        key: &ArtifactKey,
        entry: &ArtifactEntry,
    ) -> Result<Box<dyn RdbPieces>, RdbUnreadable>;
}

/// Gives the bytes of one RDB. Dropping it ends the reading.
#[async_trait]
pub trait RdbPieces: Send {
    /// The next piece, at most 1 MiB; `None` after the last. The last comes only when all of the
    /// RDB was compared with the manifest.
    async fn next(&mut self) -> Result<Option<Bytes>, RdbUnreadable>;
}

/// What the use cases work with.
#[derive(Debug, Clone)]
pub struct App {
    /// What is known.
    pub catalog: Arc<dyn Catalog>,
    /// Where the files are.
    pub store: Arc<dyn Store>,
    /// The disk space that the service keeps for itself.
    pub disk: DiskReserve,
    /// How servers are looked at.
    pub prober: Arc<dyn Prober>,
    /// How stored RDBs are opened.
    pub opener: Arc<dyn RdbOpener>,
    /// Seals secrets at rest, and signs links.
    pub sealer: Arc<Sealer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// How users sign in.
    pub logins: Logins,
    /// The other Keystone whose tokens count too, if any.
    pub foreign_tokens: Option<ForeignTokens>,
    /// How webhooks are told.
    pub webhooks: Webhooks,
    /// To which addresses instances may lead; without a word for one, to all in projects that
    /// administer the service.
    pub instance_hosts: HostRules,
    /// How long records whose files were removed stay listed.
    pub history: SignedDuration,
    /// Whether instances without a replica are backed up too, which the vendor refuses.
    pub single_node_backups: bool,
}

impl App {
    /// Whether requests can be served: the catalog and the store are usable, and the disks have
    /// their reserve.
    ///
    /// # Errors
    /// The first of them that is not.
    pub async fn check_ready(&self) -> Result<(), AppError> {
        self.catalog.check().await?;
        // A store asks a bucket again for minutes; who asks here wants to know how it is now.
        let scratch = Scratch::mint(&*self.entropy);
        let checked = tokio::time::timeout(STORE_CHECK_MAX, self.store.check(&scratch)).await;
        checked.unwrap_or_else(|late| Err(too_late(late))).map_err(AppError::StoreUnavailable)?;
        self.check_disk().await
    }
}

fn too_late(late: tokio::time::error::Elapsed) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Unavailable,
        action: "check",
        object: "the store".to_owned(),
        source: Some(late.into()),
    }
}
