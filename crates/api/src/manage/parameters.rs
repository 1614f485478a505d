//! The parameters of paths and queries, for the published description.

#![expect(dead_code, reason = "only their descriptions are used")]

use utoipa::IntoParams;

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct InstancePath {
    /// The instance.
    #[param(format = "uuid", example = "5560df16-cebf-4473-95c4-d1b573c16e79")]
    instance_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct BackupPath {
    /// The backup.
    #[param(format = "uuid", example = "4631832a-14c6-45b0-a0b3-3abd8f591ad1")]
    backup_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RestorePath {
    /// The restore.
    #[param(format = "uuid", example = "a6155972-800c-4170-a479-3231e907d2f6")]
    restore_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Records to skip.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// Records to return at the most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct InstancesQuery {
    /// Instances to skip.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// Instances to return at the most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// With this name.
    name: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WithBackups {
    /// Delete the files of all of its backups, too.
    #[param(default = false)]
    with_backups: Option<bool>,
}
