//! Path and query parameters for the published descriptions. [`crate::query::Query`] and the
//! extractors read the requests; they accept more spellings than the documents show.

#![expect(dead_code, reason = "only the descriptions are used")]

use utoipa::IntoParams;

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ProjectPath {
    /// The project.
    #[param(pattern = "^[0-9a-f]{32}$", example = "0b1c2d3e4f5061728394a5b6c7d8e9f0")]
    project_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct InstancePath {
    /// The project.
    #[param(pattern = "^[0-9a-f]{32}$", example = "0b1c2d3e4f5061728394a5b6c7d8e9f0")]
    project_id: String,
    /// The instance.
    #[param(format = "uuid", example = "5560df16-cebf-4473-95c4-d1b573c16e79")]
    instance_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct BackupPath {
    /// The project.
    #[param(pattern = "^[0-9a-f]{32}$", example = "0b1c2d3e4f5061728394a5b6c7d8e9f0")]
    project_id: String,
    /// The instance.
    #[param(format = "uuid", example = "5560df16-cebf-4473-95c4-d1b573c16e79")]
    instance_id: String,
    /// The backup.
    #[param(format = "uuid", example = "4631832a-14c6-45b0-a0b3-3abd8f591ad1")]
    backup_id: String,
}

/// Query of the v1.0 record lists.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordsFromStart {
    /// The first record, counted from 1.
    #[param(minimum = 1, default = 1)]
    start: Option<u64>,
    /// Records to return; a number above 1000 counts as 1000.
    #[param(minimum = 1, default = 10)]
    limit: Option<u32>,
    /// Earliest time of creation: `yyyyMMddHHmmss`, UTC.
    #[param(rename = "beginTime", example = "20190510000000")]
    #[param(
        pattern = "^20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])([01][0-9]|2[0-3])([0-5][0-9]){2}$"
    )]
    begin_time: Option<String>,
    /// Latest time of creation; not before the earliest.
    #[param(rename = "endTime", example = "20190511235959")]
    #[param(
        pattern = "^20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])([01][0-9]|2[0-3])([0-5][0-9]){2}$"
    )]
    end_time: Option<String>,
}

/// Query of the v2 record lists.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordsFromOffset {
    /// Records to skip.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// Maximum of returned records.
    #[param(minimum = 1, maximum = 1000, default = 10)]
    limit: Option<u32>,
    /// Earliest time of creation: `yyyyMMddHHmmss`, UTC.
    #[param(example = "20190510000000")]
    #[param(
        pattern = "^20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])([01][0-9]|2[0-3])([0-5][0-9]){2}$"
    )]
    begin_time: Option<String>,
    /// Latest time of creation; not before the earliest.
    #[param(example = "20190511235959")]
    #[param(
        pattern = "^20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])([01][0-9]|2[0-3])([0-5][0-9]){2}$"
    )]
    end_time: Option<String>,
}

/// Query of the v1.0 instance list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InstancesFromStart {
    /// The first instance, counted from 1.
    #[param(minimum = 1, default = 1)]
    start: Option<u64>,
    /// Instances to return; a number above 2000 counts as 2000.
    #[param(minimum = 1, default = 1000)]
    limit: Option<u32>,
    /// Return the instances that follow this one.
    marker: Option<String>,
    /// With this id.
    id: Option<String>,
    /// With this text in the name.
    name: Option<String>,
    /// Whether `name` is the whole name.
    #[param(rename = "isExactMatchName", default = false)]
    is_exact_match_name: Option<bool>,
    /// In this status.
    #[param(pattern = "^(CREATING|CREATEFAILED|RUNNING|ERROR|RESTARTING|EXTENDING|RESTORING)$")]
    status: Option<String>,
    /// At this address.
    ip: Option<String>,
    /// With all of these tags: `key=value,…`.
    #[param(
        pattern = "^[A-Za-z0-9]{1,36}=[A-Za-z0-9]{0,43}(,[A-Za-z0-9]{1,36}=[A-Za-z0-9]{0,43})*$"
    )]
    tags: Option<String>,
    /// No effect: an instance whose creation failed is never recorded.
    #[param(rename = "includeFailure", default = true)]
    include_failure: Option<bool>,
}

/// Query of the v2 instance list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InstancesFromOffset {
    /// Instances to skip.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// Maximum of returned instances.
    #[param(minimum = 1, maximum = 1000, default = 10)]
    limit: Option<u32>,
    /// With this id.
    instance_id: Option<String>,
    /// With this text in the name.
    name: Option<String>,
    /// Whether `name` is the whole name.
    #[param(default = false)]
    name_equal: Option<bool>,
    /// In this status.
    #[param(pattern = "^(CREATING|CREATEFAILED|RUNNING|ERROR|RESTARTING|EXTENDING|RESTORING)$")]
    status: Option<String>,
    /// At this address.
    ip: Option<String>,
    /// Of this capacity, GB.
    #[param(pattern = "^(0\\.(125|25|5)|[1-9][0-9]{0,4})$", example = "0.125")]
    capacity: Option<String>,
    /// With all of these tags: `key=value,…`.
    #[param(
        pattern = "^[A-Za-z0-9]{1,36}=[A-Za-z0-9]{0,43}(,[A-Za-z0-9]{1,36}=[A-Za-z0-9]{0,43})*$"
    )]
    tags: Option<String>,
    /// No effect: an instance whose creation failed is never recorded.
    #[param(default = true)]
    include_failure: Option<bool>,
    /// No effect: deleted instances are not listed.
    #[param(default = false)]
    include_delete: Option<bool>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AllFailureV1 {
    /// Delete all instances whose creation failed; there are none.
    #[param(rename = "allFailure", default = false)]
    all_failure: Option<bool>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AllFailureV2 {
    /// Delete all instances whose creation failed; there are none.
    #[param(default = false)]
    all_failure: Option<bool>,
}
