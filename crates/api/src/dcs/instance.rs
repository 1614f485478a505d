//! An instance in the format of both versions, with types that every typed client can read.

use cachevault_domain::{EngineKind, Instance};
use serde::Serialize;
use utoipa::ToSchema;

use super::policy::StoredPolicyBody;
use super::settings::TagBody;
use super::words;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The fields that v1.0 and v2 share. Fields that exist only for cloud instances are null.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstanceBody {
    #[schema(format = "uuid")]
    instance_id: String,
    #[schema(example = "dcs-demo")]
    name: String,
    description: Option<String>,
    engine: &'static str,
    engine_version: String,
    #[schema(example = "RUNNING")]
    status: &'static str,
    /// `BACKUPING`, `RESTORING`, or null.
    task: Option<&'static str>,
    ip: String,
    port: u16,
    domain_name: Option<String>,
    readonly_domain_name: Option<String>,
    capacity: u64,
    capacity_minor: Option<String>,
    max_memory: u64,
    used_memory: u64,
    cache_mode: &'static str,
    pub(super) spec_code: &'static str,
    product_type: Option<String>,
    cpu_type: Option<String>,
    storage_type: Option<String>,
    db_number: Option<u32>,
    sharding_count: u32,
    replica_count: u32,
    no_password_access: &'static str,
    access_user: Option<String>,
    enable_ssl: bool,
    enable_publicip: bool,
    publicip_id: Option<String>,
    publicip_address: Option<String>,
    service_upgrade: bool,
    service_task_id: Option<String>,
    vpc_id: Option<String>,
    vpc_name: Option<String>,
    subnet_id: Option<String>,
    subnet_name: Option<String>,
    subnet_cidr: Option<String>,
    security_group_id: Option<String>,
    security_group_name: Option<String>,
    az_codes: Vec<String>,
    available_zones: Vec<String>,
    #[schema(example = "02:00:00")]
    maintain_begin: String,
    #[schema(example = "06:00:00")]
    maintain_end: String,
    instance_backup_policy: Option<StoredPolicyBody>,
    tags: Vec<TagBody>,
    charging_mode: u8,
    order_id: Option<String>,
    enterprise_project_id: &'static str,
    enterprise_project_name: Option<String>,
    user_id: Option<String>,
    user_name: Option<String>,
    is_free: Option<String>,
    free: Option<String>,
    error_code: Option<String>,
    created_at: String,
    /// Time of the last change of the instance's settings.
    updated_at: String,
    /// The same time, in the spelling of some examples.
    update_at: String,
}

impl From<&Instance> for InstanceBody {
    fn from(instance: &Instance) -> Self {
        let seen = &instance.observation;
        let connection = &instance.connection;
        let settings = &instance.settings;
        let memory_bytes = seen.capacity_bytes();
        let has_replicas = seen.replicas_online > 0;
        Self {
            instance_id: instance.id.to_string(),
            name: instance.name.to_string(),
            description: description(settings.description.as_str()),
            engine: match seen.engine {
                EngineKind::Redis => "Redis",
                EngineKind::Valkey => "Valkey",
            },
            engine_version: seen.version.to_string(),
            status: words::instance_status(instance.state()),
            task: words::instance_task(instance),
            ip: connection.address.host.clone(),
            port: connection.address.port,
            domain_name: None,
            readonly_domain_name: None,
            capacity: memory_bytes / GIB,
            capacity_minor: capacity_minor(memory_bytes),
            max_memory: memory_bytes / MIB,
            used_memory: seen.used_memory_bytes / MIB,
            cache_mode: if has_replicas { "ha" } else { "single" },
            spec_code: if has_replicas { "adopted.ha" } else { "adopted.single" },
            product_type: None,
            cpu_type: None,
            storage_type: None,
            db_number: None,
            sharding_count: 1,
            replica_count: seen.replicas_online + 1,
            no_password_access: if connection.password.is_some() { "false" } else { "true" },
            access_user: connection.username.clone(),
            enable_ssl: connection.tls,
            enable_publicip: false,
            publicip_id: None,
            publicip_address: None,
            service_upgrade: false,
            service_task_id: None,
            vpc_id: None,
            vpc_name: None,
            subnet_id: None,
            subnet_name: None,
            subnet_cidr: None,
            security_group_id: None,
            security_group_name: None,
            az_codes: Vec::new(),
            available_zones: Vec::new(),
            maintain_begin: words::hour(settings.maintenance.begin()),
            maintain_end: words::hour(settings.maintenance.end()),
            instance_backup_policy: settings
                .policy
                .as_ref()
                .map(|stored| StoredPolicyBody::new(stored, &instance.project)),
            tags: settings.tags.iter().map(TagBody::from).collect(),
            charging_mode: 0,
            order_id: None,
            enterprise_project_id: "0",
            enterprise_project_name: None,
            user_id: None,
            user_name: None,
            is_free: None,
            free: None,
            error_code: None,
            created_at: words::time(instance.created_at),
            updated_at: words::time(instance.changed_at),
            update_at: words::time(instance.changed_at),
        }
    }
}

/// An empty description is shown as null.
fn description(text: &str) -> Option<String> {
    Some(text).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Capacities below one GiB, in eighths, written as `.125`.
fn capacity_minor(bytes: u64) -> Option<String> {
    if bytes >= GIB {
        return None;
    }
    let eighths = (bytes * 8 / GIB).max(1);
    Some(format!(".{:03}", eighths * 125))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_capacities_are_written_as_documented() {
        assert_eq!(capacity_minor(128 * MIB).as_deref(), Some(".125"));
        assert_eq!(capacity_minor(512 * MIB).as_deref(), Some(".500"));
        assert_eq!(capacity_minor(1).as_deref(), Some(".125"));
        assert_eq!(capacity_minor(GIB), None);
    }
}
