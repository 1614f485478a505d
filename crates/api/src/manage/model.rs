//! Request and response bodies of `/api/v1`.

use std::collections::BTreeMap;

use cachevault_app::{BackupDetail, FileLink, RequestRestore, StoredError};
use cachevault_domain::{
    Backup, ConflictRule, Failure, Health, Instance, InvalidConnection, KeyFilter, Restore,
    RestoreOptions, RestorePlan, RestoreWay, Target, TtlRule, unknown_server_warning,
};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::settings::PolicyBody;
use crate::connection::ConnectionBody;
use crate::dcs::failure_word;

/// A server to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddInstanceBody {
    #[schema(example = "orders", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub(crate) name: String,
    /// Host name or address.
    #[schema(example = "10.0.0.7", min_length = 1, max_length = 253)]
    host: String,
    #[schema(example = 6379, minimum = 1, maximum = 65535)]
    port: u16,
    /// ACL user; requires a password.
    #[schema(max_length = 1024)]
    username: Option<String>,
    #[schema(value_type = Option<String>, format = Password, max_length = 1024)]
    password: Option<SecretString>,
    #[serde(default)]
    tls: bool,
    /// Trusted CA certificates, instead of those of the operating system; only with `tls`.
    tls_ca_pem: Option<String>,
    /// The client certificate chain; requires the key.
    tls_certificate_pem: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    tls_key_pem: Option<SecretString>,
}

impl AddInstanceBody {
    /// The target of the connection, or the invalid field.
    pub(crate) fn target(self) -> Result<Target, InvalidConnection> {
        let connection = ConnectionBody {
            host: self.host,
            port: self.port,
            username: self.username,
            password: self.password,
            tls: self.tls,
            tls_ca_pem: self.tls_ca_pem,
            tls_certificate_pem: self.tls_certificate_pem,
            tls_key_pem: self.tls_key_pem,
        };
        connection.target()
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstanceBody {
    id: String,
    name: String,
    address: String,
    username: Option<String>,
    has_password: bool,
    tls: bool,
    engine: &'static str,
    version: String,
    role: &'static str,
    replicas_online: u32,
    used_memory_bytes: u64,
    max_memory_bytes: u64,
    system_memory_bytes: u64,
    keys: u64,
    databases_used: u32,
    observed_at: String,
    reachable: bool,
    unreachable_because: Option<String>,
    operation: Option<&'static str>,
    created_at: String,
    description: String,
    /// The maintenance window: whole hours, UTC.
    maintenance: String,
    /// The backup policy in the form of DCS; null without a policy.
    policy: Option<PolicyBody>,
    tags: BTreeMap<String, String>,
    /// The newest proven backup: its id, its time of creation and the time of its last proof.
    proven_backup_id: Option<String>,
    proven_backup_created_at: Option<String>,
    proven_at: Option<String>,
    /// Warnings about the instance, such as a server version that is newer than this service
    /// supports.
    warnings: Vec<String>,
}

impl From<&Instance> for InstanceBody {
    fn from(instance: &Instance) -> Self {
        let (seen, connection) = (&instance.observation, &instance.connection);
        let settings = &instance.settings;
        let unreachable_because = match &instance.health {
            Health::Reachable => None,
            Health::Unreachable { reason, .. } => Some(reason.clone()),
        };
        Self {
            id: instance.id.to_string(),
            name: instance.name.to_string(),
            address: connection.address.to_string(),
            username: connection.username.clone(),
            has_password: connection.password.is_some(),
            tls: connection.tls,
            engine: seen.engine.as_str(),
            version: seen.version.to_string(),
            role: seen.role.as_str(),
            replicas_online: seen.replicas_online,
            used_memory_bytes: seen.used_memory_bytes,
            max_memory_bytes: seen.max_memory_bytes,
            system_memory_bytes: seen.system_memory_bytes,
            keys: seen.keys,
            databases_used: seen.databases_used,
            observed_at: instance.observed_at.to_string(),
            reachable: unreachable_because.is_none(),
            unreachable_because,
            operation: instance.operation.map(cachevault_domain::JobKind::as_str),
            created_at: instance.created_at.to_string(),
            description: settings.description.as_str().to_owned(),
            maintenance: settings.maintenance.to_string(),
            policy: settings.policy.as_ref().map(PolicyBody::from),
            tags: settings.tags.iter().map(|t| (t.key().into(), t.value().into())).collect(),
            proven_backup_id: instance.proven.map(|proven| proven.backup.to_string()),
            proven_backup_created_at: instance.proven.map(|proven| proven.created_at.to_string()),
            proven_at: instance.proven.map(|proven| proven.proof_at.to_string()),
            warnings: unknown_server_warning(seen.engine, seen.version).into_iter().collect(),
        }
    }
}

/// Options of a new backup.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBackupBody {
    #[schema(max_length = 128)]
    pub(crate) note: Option<String>,
    /// Request RDB version 11 from Valkey 9, which Redis 7.2 and Valkey 8 can load too.
    #[serde(default)]
    pub(crate) portable: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupBody {
    id: String,
    instance_id: String,
    /// The trigger: `manual`, `automatic`, or `safety` for a restore's backup of its target.
    trigger: &'static str,
    format: &'static str,
    dialect: &'static str,
    note: Option<String>,
    state: &'static str,
    /// Whether the backup can be restored by default.
    restorable: bool,
    /// The state of the content: `unknown`, `verified` or `opaque`. Restoring an opaque backup
    /// requires `unverified`.
    content: &'static str,
    progress_percent: f64,
    received_bytes: u64,
    phase: Option<String>,
    size_bytes: u64,
    failure: Option<FailureBody>,
    /// The caller that cancelled the backup, and the time.
    cancelled_by: Option<String>,
    cancelled_at: Option<String>,
    /// The number of the running attempt, and the error of the previous one; only until the backup
    /// has ended.
    attempt: Option<u32>,
    last_error: Option<String>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    removed_at: Option<String>,
    /// The time of the last successful drill, and its server.
    proven_at: Option<String>,
    proven_by: Option<String>,
    /// Module values that this drill counted without comparing them.
    proven_uncompared: Option<u64>,
    drilling: bool,
    /// The reason why the last drill failed.
    drill_failure: Option<String>,
    /// The time of the pending request for a verification.
    check_requested_at: Option<String>,
    /// The time of the last verification, and the damage that it found.
    checked_at: Option<String>,
    damage: Option<String>,
    /// The window of an automatic backup (hours, UTC), and the time of its expiry.
    window: Option<String>,
    keep_until: Option<String>,
    /// The number of keys, where they were counted.
    keys: Option<u64>,
    /// Whether the backup is held: neither retention nor a client can remove it.
    held: bool,
    /// The later backup with far fewer keys; set when the service holds this backup because of it.
    held_for: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct FailureBody {
    code: &'static str,
    dcs_code: &'static str,
    /// The failure and the affected object.
    reason: String,
    /// The next step.
    hint: &'static str,
}

impl From<&Failure> for FailureBody {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code.as_str(),
            dcs_code: failure_word(failure.code),
            reason: failure.reason.clone(),
            hint: failure.code.hint(),
        }
    }
}

impl From<&Backup> for BackupBody {
    fn from(backup: &Backup) -> Self {
        Self {
            id: backup.id.to_string(),
            instance_id: backup.instance.to_string(),
            trigger: backup.trigger.as_str(),
            format: backup.format.as_str(),
            dialect: backup.dialect.as_str(),
            note: backup.note.as_ref().map(|note| note.as_str().to_owned()),
            state: backup.state.as_str(),
            restorable: backup.is_restorable(),
            content: backup.content.as_str(),
            progress_percent: f64::from(backup.progress.hundredths()) / 100.0,
            received_bytes: backup.received_bytes,
            phase: backup.phase.clone(),
            size_bytes: backup.size_bytes,
            failure: backup.failure.as_ref().map(FailureBody::from),
            cancelled_by: backup.cancellation.as_ref().map(|wish| wish.by.clone()),
            cancelled_at: backup.cancellation.as_ref().map(|wish| wish.at.to_string()),
            attempt: backup.attempt.as_ref().map(|attempt| attempt.number),
            last_error: backup.attempt.as_ref().and_then(|attempt| attempt.last_error.clone()),
            created_at: backup.created_at.to_string(),
            started_at: backup.started_at.map(|at| at.to_string()),
            completed_at: backup.completed_at.map(|at| at.to_string()),
            removed_at: backup.removed_at.map(|at| at.to_string()),
            proven_at: backup.proof.as_ref().map(|proof| proof.at.to_string()),
            proven_by: backup.proof.as_ref().map(|proof| proof.server.clone()),
            proven_uncompared: backup.proof.as_ref().map(|proof| proof.uncompared),
            drilling: backup.drilling,
            drill_failure: backup.drill_failure.as_ref().map(|failure| failure.reason.clone()),
            check_requested_at: backup.check_requested_at.map(|at| at.to_string()),
            checked_at: backup.checked_at.map(|at| at.to_string()),
            damage: backup.damage.clone(),
            window: backup.window.clone(),
            keep_until: backup.keep_until.map(|until| until.to_string()),
            held: backup.is_held,
            held_for: backup.held_for.map(|id| id.to_string()),
            keys: backup.keys,
        }
    }
}

/// A backup with the artifacts and locations of its manifest.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupDetailBody {
    #[serde(flatten)]
    backup: BackupBody,
    artifacts: Value,
    locations: Vec<String>,
    /// The reason why the store cannot read the manifest now.
    store_error: Option<String>,
}

impl From<BackupDetail> for BackupDetailBody {
    fn from(detail: BackupDetail) -> Self {
        let mut backup = BackupBody::from(&detail.backup);
        let (mut artifacts, mut store_error) = (Vec::new(), None);
        match detail.manifest {
            None => {}
            Some(Ok(manifest)) => artifacts = manifest.artifacts,
            // The damage is known now, before any verification has found it.
            Some(Err(StoredError::Damaged(damage))) => {
                (backup.restorable, backup.damage) = (false, Some(damage));
            }
            Some(Err(StoredError::Unavailable(error))) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot read a manifest");
                store_error = Some(error.to_string());
            }
        }
        let artifacts = serde_json::to_value(artifacts).unwrap_or_default();
        Self { backup, artifacts, locations: detail.locations, store_error }
    }
}

/// Options of a restore or a restore plan.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreWishBody {
    #[schema(format = "uuid")]
    backup_id: String,
    #[schema(max_length = 128)]
    note: Option<String>,
    /// `replica` or `keys`; the plan chooses by default.
    #[schema(pattern = "^(replica|keys)$")]
    way: Option<String>,
    safety_backup: Option<bool>,
    prove: Option<bool>,
    swap: Option<bool>,
    /// `keep`, `shift` or `strip`.
    #[schema(pattern = "^(keep|shift|strip)$")]
    ttl: Option<String>,
    /// Restore only matching keys, with the pattern syntax of `KEYS`.
    pattern: Option<String>,
    /// Restore only keys of this database.
    database: Option<u32>,
    /// `replace_all`, `replace`, `skip` or `fail`.
    #[schema(pattern = "^(replace_all|replace|skip|fail)$")]
    conflict: Option<String>,
    /// Restore a backup whose content is not verified. The restore loads the RDB natively, into a
    /// server of the same vendor and of at least the source's version.
    unverified: Option<bool>,
    /// Required memory in bytes, instead of the estimate.
    needed_bytes: Option<u64>,
}

/// The value with this name. The error lists the valid names.
pub(super) fn named<T: Copy>(
    field: &str,
    all: &[T],
    name: fn(T) -> &'static str,
    text: Option<&str>,
) -> Result<Option<T>, String> {
    let Some(text) = text else { return Ok(None) };
    let found = all.iter().copied().find(|value| name(*value) == text);
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
        format!("invalid value `{text}` for `{field}`: expected one of {}", names.join(", "))
    })
}

/// Refuses values that exceed the catalog's integer type.
fn needed_bytes(wanted: Option<u64>) -> Result<Option<u64>, String> {
    match wanted {
        Some(bytes) if i64::try_from(bytes).is_err() => {
            Err(format!("invalid value {bytes} for `needed_bytes`: expected at most 2^63-1"))
        }
        wanted => Ok(wanted),
    }
}

impl RestoreWishBody {
    /// The request, or the invalid field.
    pub(crate) fn wish(self) -> Result<RequestRestore, String> {
        let backup = self.backup_id.parse().map_err(|e| format!("`backup_id`: {e}"))?;
        let note = self.note.as_deref().map(str::parse).transpose();
        let way = named("way", &RestoreWay::ALL, RestoreWay::as_str, self.way.as_deref())?;
        let ttl = named("ttl", &TtlRule::ALL, TtlRule::as_str, self.ttl.as_deref())?;
        let conflict = self.conflict.as_deref();
        let conflict = named("conflict", &ConflictRule::ALL, ConflictRule::as_str, conflict)?;
        let filter = KeyFilter::new(self.pattern, self.database).map_err(|e| e.to_string())?;
        let defaults = RestoreOptions::default();
        let options = RestoreOptions {
            way,
            safety_backup: self.safety_backup.unwrap_or(defaults.safety_backup),
            prove: self.prove,
            swap: self.swap,
            ttl: ttl.unwrap_or(defaults.ttl),
            filter,
            conflict: conflict.unwrap_or(defaults.conflict),
            unverified: self.unverified.unwrap_or(defaults.unverified),
            needed_bytes: needed_bytes(self.needed_bytes)?,
        };
        let note = note.map_err(|e: cachevault_domain::NoteTooLong| e.to_string())?;
        Ok(RequestRestore { backup, options, note })
    }
}

/// The plan of a restore.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanBody {
    possible: bool,
    way: &'static str,
    because: String,
    loading: &'static str,
    format: String,
    target_engine: &'static str,
    target_version: String,
    keys: Option<u64>,
    replaced_keys: u64,
    needed_bytes: u64,
    prove: bool,
    /// The reason why the data cannot be compared afterwards, or only partly; null otherwise.
    unprovable: Option<String>,
    blockers: Vec<String>,
    notes: Vec<String>,
}

impl From<&RestorePlan> for PlanBody {
    fn from(plan: &RestorePlan) -> Self {
        Self {
            possible: plan.blockers.is_empty(),
            way: plan.way.as_str(),
            because: plan.because.clone(),
            loading: plan.loading.as_str(),
            format: plan.header.clone(),
            target_engine: plan.engine.as_str(),
            target_version: plan.version.to_string(),
            keys: plan.keys,
            replaced_keys: plan.replaced_keys,
            needed_bytes: plan.needed_bytes,
            prove: plan.prove,
            unprovable: plan.unprovable.clone(),
            blockers: plan.blockers.iter().map(ToString::to_string).collect(),
            notes: plan.notes.clone(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RestoreBody {
    id: String,
    instance_id: String,
    backup_id: String,
    source_instance_id: String,
    source_instance_name: String,
    note: Option<String>,
    /// Whether the restore accepts a backup whose content is not verified.
    unverified: bool,
    state: &'static str,
    progress_percent: f64,
    phase: Option<String>,
    failure: Option<FailureBody>,
    /// The caller that cancelled the restore, and the time.
    cancelled_by: Option<String>,
    cancelled_at: Option<String>,
    /// The time of the first change to the target. A restore cannot be cancelled after it.
    touched_at: Option<String>,
    /// The number of the running attempt, and the error of the previous one; only until the restore
    /// has ended.
    attempt: Option<u32>,
    last_error: Option<String>,
    safety_backup_id: Option<String>,
    way: Option<&'static str>,
    /// The data in the target: `untouched`, `new`, `old`, `uncertain`.
    target_data: Option<&'static str>,
    /// The time without writes, in milliseconds.
    unavailable_ms: Option<u64>,
    proven: Option<bool>,
    /// The reason why the data was not compared, or the part that was omitted.
    unproven: Option<String>,
    /// Module values that were counted without comparing them.
    uncompared: Option<u64>,
    keys: Option<u64>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
}

impl From<&Restore> for RestoreBody {
    fn from(restore: &Restore) -> Self {
        let outcome = restore.outcome.as_ref();
        Self {
            id: restore.id.to_string(),
            instance_id: restore.instance.to_string(),
            backup_id: restore.backup.to_string(),
            source_instance_id: restore.source_instance.to_string(),
            source_instance_name: restore.source_instance_name.to_string(),
            note: restore.note.as_ref().map(|note| note.as_str().to_owned()),
            unverified: restore.options.unverified,
            state: restore.state.as_str(),
            progress_percent: f64::from(restore.progress.hundredths()) / 100.0,
            phase: restore.phase.clone(),
            failure: restore.failure.as_ref().map(FailureBody::from),
            cancelled_by: restore.cancellation.as_ref().map(|wish| wish.by.clone()),
            cancelled_at: restore.cancellation.as_ref().map(|wish| wish.at.to_string()),
            touched_at: restore.touched_at.map(|at| at.to_string()),
            attempt: restore.attempt.as_ref().map(|attempt| attempt.number),
            last_error: restore.attempt.as_ref().and_then(|attempt| attempt.last_error.clone()),
            safety_backup_id: restore.safety_backup.map(|id| id.to_string()),
            way: outcome.and_then(|outcome| outcome.way).map(RestoreWay::as_str),
            target_data: outcome.map(|outcome| outcome.target.as_str()),
            unavailable_ms: outcome.and_then(|outcome| outcome.unavailable_ms),
            proven: outcome.map(|outcome| outcome.proven),
            unproven: outcome.and_then(|outcome| outcome.unproven.clone()),
            uncompared: outcome.map(|outcome| outcome.uncompared),
            keys: outcome.and_then(|outcome| outcome.keys),
            created_at: restore.created_at.to_string(),
            started_at: restore.started_at.map(|at| at.to_string()),
            completed_at: restore.completed_at.map(|at| at.to_string()),
        }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageBody<T> {
    pub(crate) items: Vec<T>,
    pub(crate) total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(json: &str) -> Result<Target, String> {
        let body: AddInstanceBody = serde_json::from_str(json).map_err(|e| e.to_string())?;
        body.target().map_err(|e| e.to_string())
    }

    #[test]
    fn contradictory_fields_are_refused() {
        assert!(target(r#"{"name": "a", "host": "h", "port": 6379}"#).is_ok());
        let without_password =
            target(r#"{"name": "a", "host": "h", "port": 1, "username": "u"}"#).unwrap();
        assert_eq!(without_password.login.unwrap().username.as_deref(), Some("u"));
        for (json, word) in [
            (r#"{"name": "a", "host": "", "port": 6379}"#, "host"),
            (r#"{"name": "a", "host": "h", "port": 0}"#, "port"),
            (r#"{"name": "a", "host": "h", "port": 70000}"#, "70000"),
            (r#"{"name": "a", "host": "h", "port": 1, "tls_ca_pem": "x"}"#, "tls"),
            (
                r#"{"name": "a", "host": "h", "port": 1, "tls": true, "tls_key_pem": "x"}"#,
                "certificate",
            ),
            (r#"{"name": "a", "host": "h", "port": 1, "password": "x\r\nQUIT"}"#, "control"),
            (r#"{"name": "a", "host": "h\r\n", "port": 1}"#, "host"),
            (r#"{"name": "a", "host": "h", "port": 1, "surprise": 1}"#, "surprise"),
        ] {
            let error = target(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}

/// Options of download links.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskForLinksBody {
    /// Lifetime of the links in seconds.
    #[serde(default = "an_hour")]
    #[schema(minimum = 300, maximum = 86_400)]
    pub(crate) expires_seconds: i64,
}

impl Default for AskForLinksBody {
    fn default() -> Self {
        Self { expires_seconds: an_hour() }
    }
}

fn an_hour() -> i64 {
    3600
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinksBody {
    pub(crate) links: Vec<LinkBody>,
}

/// A download link; requests with it need no signature.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkBody {
    url: String,
    file_name: String,
    size_bytes: u64,
    crc64: Option<String>,
    expires_at: Option<String>,
}

impl LinkBody {
    pub(crate) fn new(file: &FileLink, url: String) -> Self {
        let expires_at = Timestamp::from_second(file.ticket.expires_at).ok();
        Self {
            url,
            file_name: file.ticket.file_name.clone(),
            size_bytes: file.size_bytes,
            crc64: file.crc64.clone(),
            expires_at: expires_at.map(|at| at.to_string()),
        }
    }
}
