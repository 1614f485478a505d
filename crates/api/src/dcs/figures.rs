//! Quotas and statistics of a project and its instances.

use cachevault_domain::{Instance, InstanceCounts, Listing, Project};
use serde::Serialize;
use utoipa::ToSchema;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Stands for "unlimited": the largest number that every client can represent.
const NO_LIMIT: u32 = i32::MAX as u32;

/// The quotas of a project and their usage.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quotas {
    /// Always two: `instance` and `ram`.
    #[schema(min_items = 2, max_items = 2)]
    resources: [Resource; 2],
    /// v1.0 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    resource_user: Option<ResourceUser>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Resource {
    #[serde(rename = "type")]
    #[schema(example = "instance")]
    kind: &'static str,
    /// Empty for instances, `GB` for memory.
    unit: &'static str,
    min: u32,
    max: u32,
    /// Always the largest number: nothing is limited.
    quota: u32,
    used: u32,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResourceUser {
    /// The project's id.
    tenant_id: String,
    /// The project's name.
    tenant_name: String,
}

impl Quotas {
    fn new(counts: &InstanceCounts, resource_user: Option<ResourceUser>) -> Self {
        let resource = |kind, unit, used: u64| Resource {
            kind,
            unit,
            min: 1,
            max: NO_LIMIT,
            quota: NO_LIMIT,
            used: u32::try_from(used).unwrap_or(NO_LIMIT).min(NO_LIMIT),
        };
        let resources = [
            resource("instance", "", counts.total()),
            resource("ram", "GB", counts.capacity_bytes.div_ceil(GIB)),
        ];
        Self { resources, resource_user }
    }
}

/// The quotas in the format of v2.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotasBody {
    quotas: Quotas,
}

impl From<&InstanceCounts> for QuotasBody {
    fn from(counts: &InstanceCounts) -> Self {
        Self { quotas: Quotas::new(counts, None) }
    }
}

/// The quotas in the format of v1.0. The documents place `resource_user` beside the quotas; one
/// client reads it inside them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotasOfUser {
    quotas: Quotas,
    resource_user: ResourceUser,
}

impl QuotasOfUser {
    pub(crate) fn new(project: &Project, counts: &InstanceCounts) -> Self {
        let user = ResourceUser {
            tenant_id: project.id.to_string(),
            tenant_name: project.name.to_string(),
        };
        Self { quotas: Quotas::new(counts, Some(user.clone())), resource_user: user }
    }
}

/// Statistics of each instance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Statistics {
    statistics: Vec<InstanceStatistic>,
}

#[derive(Debug, Serialize, ToSchema)]
struct InstanceStatistic {
    #[schema(format = "uuid")]
    instance_id: String,
    /// Keys in all databases at the last probe.
    keys: u64,
    /// MB, at the last probe.
    used_memory: u64,
    /// MB.
    max_memory: u64,
    /// Not measured: always 0.
    cmd_get_count: u64,
    /// Not measured: always 0.
    cmd_set_count: u64,
    /// Not measured: always `0.0`.
    #[schema(example = "0.0")]
    used_cpu: &'static str,
    /// Not measured: always `0.0`.
    input_kbps: &'static str,
    /// Not measured: always `0.0`.
    output_kbps: &'static str,
}

impl From<Listing<Instance>> for Statistics {
    fn from(listing: Listing<Instance>) -> Self {
        const NOT_MEASURED: &str = "0.0";
        let statistic = |instance: &Instance| InstanceStatistic {
            instance_id: instance.id.to_string(),
            keys: instance.observation.keys,
            used_memory: instance.observation.used_memory_bytes / MIB,
            max_memory: instance.observation.capacity_bytes() / MIB,
            cmd_get_count: 0,
            cmd_set_count: 0,
            used_cpu: NOT_MEASURED,
            input_kbps: NOT_MEASURED,
            output_kbps: NOT_MEASURED,
        };
        Self { statistics: listing.items.iter().map(statistic).collect() }
    }
}

/// The number of instances in each status.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct StatusCounts {
    paying_count: u64,
    freezing_count: u64,
    migrating_count: u64,
    flushing_count: u64,
    upgrading_count: u64,
    restoring_count: u64,
    extending_count: u64,
    creating_count: u64,
    running_count: u64,
    error_count: u64,
    frozen_count: u64,
    createfailed_count: u64,
    restarting_count: u64,
}

impl From<&InstanceCounts> for StatusCounts {
    fn from(counts: &InstanceCounts) -> Self {
        Self {
            running_count: counts.running,
            restoring_count: counts.restoring,
            error_count: counts.down,
            ..Self::default()
        }
    }
}

/// The number of instances in each status, in total and per engine; all instances count as Redis.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusCountsBody {
    #[serde(flatten)]
    all: StatusCounts,
    redis: StatusCounts,
    memcached: StatusCounts,
}

impl From<&InstanceCounts> for StatusCountsBody {
    fn from(counts: &InstanceCounts) -> Self {
        let all = StatusCounts::from(counts);
        Self { redis: all.clone(), all, memcached: StatusCounts::default() }
    }
}

/// The configuration parameters of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Configs {
    #[schema(format = "uuid")]
    instance_id: String,
    #[schema(example = "SUCCESS")]
    config_status: &'static str,
    config_time: String,
    #[schema(example = "RUNNING")]
    status: &'static str,
    /// Always empty: configuration parameters are neither shown nor changed.
    redis_config: Vec<String>,
}

impl From<&Instance> for Configs {
    fn from(instance: &Instance) -> Self {
        Self {
            instance_id: instance.id.to_string(),
            config_status: "SUCCESS",
            config_time: String::new(),
            status: super::words::instance_status(instance.state()),
            redis_config: Vec::new(),
        }
    }
}

/// The IP whitelist of an instance; never enabled.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Whitelist {
    #[schema(format = "uuid")]
    instance_id: String,
    /// Always false.
    enable_whitelist: bool,
    /// Always empty.
    whitelist: Vec<String>,
}

impl From<&Instance> for Whitelist {
    fn from(instance: &Instance) -> Self {
        let instance_id = instance.id.to_string();
        Self { instance_id, enable_whitelist: false, whitelist: Vec::new() }
    }
}

/// The automatic scan of an instance for large or hot keys; never enabled.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AutoScan {
    #[schema(format = "uuid")]
    instance_id: String,
    /// Always false.
    enable_auto_scan: bool,
    /// Always empty.
    schedule_at: Vec<String>,
    /// Always null.
    updated_at: Option<String>,
}

impl From<&Instance> for AutoScan {
    fn from(instance: &Instance) -> Self {
        Self {
            instance_id: instance.id.to_string(),
            enable_auto_scan: false,
            schedule_at: Vec::new(),
            updated_at: None,
        }
    }
}
