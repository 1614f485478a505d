//! What is known of instances.

use async_trait::async_trait;
use cachevault_domain::{
    Instance, InstanceChange, InstanceCounts, InstanceFilter, InstanceId, Listing, Observation,
    Page, PolicyId, ProjectId, Tag, TagChange,
};
use jiff::Timestamp;

use crate::CatalogError;

/// Instances.
#[async_trait]
pub trait InstanceCatalog: Send + Sync {
    /// Adopts an instance.
    ///
    /// [`CatalogError::Taken`] when its name is in use in the project.
    async fn add_instance(&self, instance: &Instance) -> Result<(), CatalogError>;

    /// The instance, unless it was removed.
    async fn find_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
    ) -> Result<Option<Instance>, CatalogError>;

    /// Instances of a project, newest first.
    async fn list_instances(
        &self,
        project: &ProjectId,
        filter: &InstanceFilter,
        page: Page,
    ) -> Result<Listing<Instance>, CatalogError>;

    /// Changes what is said about an instance, all of it or nothing. Its policy is, where it has
    /// one, what follows from both ([`cachevault_domain::BackupPolicy::changed_to`]), and keeps its
    /// id; `policy_id` is for the first. With a new connection it counts as seen now.
    ///
    /// [`CatalogError::NotFound`] without the instance, [`CatalogError::Taken`] when the name is in
    /// use in the project; [`CatalogError::Changed`] when the connection is not the expected one any
    /// more; [`CatalogError::Busy`] for another address, or with or without TLS, while a restore is
    /// open: what it has begun on one server it ends there, and takes back there.
    async fn change_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
        change: &InstanceChange,
        policy_id: PolicyId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Takes the backup policy of an instance away. What it made stays as long as it was promised.
    ///
    /// [`CatalogError::NotFound`] without the instance, or without a policy of it.
    async fn remove_backup_policy(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Changes an instance's tags, all of it or nothing.
    ///
    /// [`CatalogError::NotFound`] without the instance, [`CatalogError::TooManyTags`].
    async fn change_tags(
        &self,
        project: &ProjectId,
        id: InstanceId,
        change: &TagChange,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// The tags of all instances of a project, each once, by key and value.
    async fn list_tags(&self, project: &ProjectId) -> Result<Vec<Tag>, CatalogError>;

    /// How many instances a project has.
    async fn count_instances(&self, project: &ProjectId) -> Result<InstanceCounts, CatalogError>;

    /// Lets an instance go.
    ///
    /// [`CatalogError::Busy`] while a job needs it, [`CatalogError::HasBackups`] while backups of
    /// it have files.
    async fn remove_instance(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Lets an instance go without its backups: nothing expires of them from then on, and they are
    /// found by their ids and by that of the instance until somebody deletes them.
    ///
    /// [`CatalogError::Busy`] while a job needs the instance.
    async fn remove_instance_keeping_backups(
        &self,
        project: &ProjectId,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<(), CatalogError>;

    /// Instances of all projects whose last look is from before `before`, longest ago first.
    async fn instances_seen_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Instance>, CatalogError>;

    /// Notes what a look at an instance found: its figures, or why it did not answer. An instance
    /// that was removed meanwhile is no error.
    async fn record_look(
        &self,
        id: InstanceId,
        found: Result<&Observation, &str>,
        now: Timestamp,
    ) -> Result<(), CatalogError>;
}
