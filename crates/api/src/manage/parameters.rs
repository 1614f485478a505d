//! Path and query parameters for the published description.

#![expect(dead_code, reason = "only the descriptions are used")]

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
    /// Maximum of returned records.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct InstancesQuery {
    /// Instances to skip.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// Maximum of returned instances.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// With this name.
    name: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BackupsOfRemoved {
    /// The fate of the instance's backups with files: `delete`, or `keep` until they are deleted.
    #[param(pattern = "^(delete|keep)$")]
    backups: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ProjectPath {
    /// The project's id or name.
    #[param(example = "eu-test")]
    project: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct UserPath {
    /// The user's id or name.
    #[param(example = "ada")]
    user: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AccessKeyPath {
    /// The access key of the credential.
    #[param(example = "AKEXAMPLE1")]
    access_key: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PolicyPath {
    /// The name of the custom role.
    #[param(example = "night-watch")]
    policy: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OfProjectQuery {
    /// The id or name of another project; only for administrators of the service.
    project: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Maximum of returned events.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Only events after this one.
    #[param(minimum = 0, maximum = 9223372036854775807_u64, default = 0)]
    after: Option<u64>,
    /// Only events before this one.
    #[param(minimum = 0, maximum = 9223372036854775807_u64)]
    before: Option<u64>,
    /// The order of events.
    #[param(pattern = "^(newest|oldest)$", default = "oldest")]
    order: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventStreamQuery {
    /// Start after this event; by default the stream contains only new events.
    #[param(minimum = 0, maximum = 9223372036854775807_u64)]
    after: Option<u64>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct LastEventHeader {
    /// The last event seen: the stream continues after it. Takes precedence over `after`.
    #[param(rename = "Last-Event-ID", minimum = 0, maximum = 9223372036854775807_u64)]
    last_event_id: Option<u64>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct WebhookPath {
    /// The webhook.
    #[param(format = "uuid", example = "2f6d9a7e-51c4-4b1a-8f0e-7a3c2d1b9e05")]
    webhook_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Maximum of returned records.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// The order of records.
    #[param(pattern = "^(newest|oldest)$", default = "newest")]
    order: Option<String>,
    /// Continue after the record of this request.
    #[param(pattern = "^[0-9a-f]{32}$")]
    marker: Option<String>,
    /// Earliest time, `yyyyMMddHHmmss`, UTC.
    #[param(pattern = "^[0-9]{14}$", example = "20261121083000")]
    begin_time: Option<String>,
    /// Latest time, `yyyyMMddHHmmss`, UTC.
    #[param(pattern = "^[0-9]{14}$", example = "20261121083000")]
    end_time: Option<String>,
}
