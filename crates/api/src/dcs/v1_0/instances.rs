//! `/{project_id}/instances`

pub(super) mod create;
pub(super) mod delete;
pub(super) mod delete_many;
pub(super) mod list;
pub(super) mod password;
pub(super) mod show;
pub(super) mod update;
