//! `/{project_id}/instances`

pub(super) mod list;
pub(super) mod show;
