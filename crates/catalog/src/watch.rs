//! What whoever watches the whole service has to know, over all projects.

use async_trait::async_trait;
use cachevault_domain::{InstanceId, InstanceName, JobKind, ProjectId, Window};
use jiff::Timestamp;

use crate::CatalogError;

/// An instance, as far as it is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedInstance {
    /// Its project.
    pub project: ProjectId,
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: InstanceName,
    /// Whether it counts as down.
    pub is_down: bool,
    /// When its newest backup was asked for that can be restored.
    pub backup_at: Option<Timestamp>,
    /// When the newest of its proven backups was asked for.
    pub proven_backup_at: Option<Timestamp>,
    /// When that one was proven.
    pub proof_at: Option<Timestamp>,
    /// How many of its backups with files have content that is opaque.
    pub opaque_backups: u64,
    /// How many of its backups are held because a later one held far fewer keys.
    pub held_for_shrunk: u64,
    /// The window of its automatic policy that is open or comes next.
    pub window: Option<Window>,
}

/// The jobs of one kind that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenJobs {
    /// The kind.
    pub kind: JobKind,
    /// How many wait for a worker, or for the time of their next attempt.
    pub waiting: u64,
    /// How many a worker has.
    pub running: u64,
    /// Since when the one has been due that waits longest; in the future where none is due yet.
    pub waiting_since: Option<Timestamp>,
}

/// Figures over all projects, each by one query.
#[async_trait]
pub trait WatchCatalog: Send + Sync {
    /// The instances that were adopted first, `limit` at the most.
    async fn watched_instances(&self, limit: u32) -> Result<Vec<WatchedInstance>, CatalogError>;

    /// How many jobs are open, of every kind, those of which there are none too.
    async fn open_jobs(&self) -> Result<Vec<OpenJobs>, CatalogError>;
}
