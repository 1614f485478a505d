//! `/{project_id}/instances/{instance_id}/restores`

pub(super) mod create;
pub(super) mod list;
