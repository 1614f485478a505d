//! What policies ask for, and what became of it.

use async_trait::async_trait;
use cachevault_domain::{
    Agenda, DuePlan, Failure, InstanceId, JobKind, NewBackup, ProjectId, Tried, Window,
};
use jiff::Timestamp;

use crate::CatalogError;

/// An automatic policy about which there is something to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePolicy {
    /// The project.
    pub project: ProjectId,
    /// The instance.
    pub instance: InstanceId,
    /// What it says.
    pub says: DuePlan,
    /// Where it is.
    pub agenda: Agenda,
    /// What was tried in the window of the agenda.
    pub tried: Tried,
}

/// A backup that a policy asks for, with the job that will make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewScheduledBackup {
    /// The backup.
    pub backup: NewBackup,
    /// The window that it is made for.
    pub window: Window,
    /// Until when it is promised to be kept; `None` where only count and generations decide.
    pub keep_until: Option<Timestamp>,
}

/// What to do for a policy that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Rest,
    /// Begin a backup.
    Begin(NewScheduledBackup),
    /// Record a backup that was never begun, and why.
    Miss(NewScheduledBackup, Failure),
}

/// What was done for a policy that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// What was asked for.
    Done,
    /// A backup that has failed was recorded instead of one that waits: a job needs the instance
    /// for itself.
    Busy(JobKind),
    /// Nothing: somebody else had its turn before, or the policy has changed or is gone.
    Superseded,
}

/// Policies that are followed.
#[async_trait]
pub trait ScheduleCatalog: Send + Sync {
    /// Automatic policies of all projects about which there is something to decide at `now`: first
    /// those whose last decision is of a moment that has not come yet. Costs what these cost,
    /// however many others there are.
    async fn due_policies(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DuePolicy>, CatalogError>;

    /// Does what was decided about a policy, and makes `then` its agenda, together or not at all;
    /// nothing unless its agenda is still the one that was read.
    async fn turn_policy(
        &self,
        due: &DuePolicy,
        turn: &Turn,
        then: &Agenda,
    ) -> Result<Turned, CatalogError>;
}
