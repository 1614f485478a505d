//! `/{project_id}/instances/{instance_id}/backups`

pub(super) mod create;
pub(super) mod delete;
pub(super) mod links;
pub(super) mod list;
