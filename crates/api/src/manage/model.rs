//! What `/api/v1` reads and writes.

use cachevault_app::BackupDetail;
use cachevault_domain::{
    Address, Backup, ClientIdentity, Health, Instance, Login, Target, TlsSettings,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dcs::failure_word;

/// The longest host name, bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
const PEM_BYTES_MAX: usize = 256 << 10;
const LOGIN_BYTES_MAX: usize = 1024;

/// A server to adopt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddInstanceBody {
    pub(crate) name: String,
    host: String,
    port: u16,
    username: Option<String>,
    password: Option<SecretString>,
    #[serde(default)]
    tls: bool,
    tls_ca_pem: Option<String>,
    tls_certificate_pem: Option<String>,
    tls_key_pem: Option<SecretString>,
}

impl AddInstanceBody {
    /// How to reach the server, or what is wrong with the body.
    pub(crate) fn target(self) -> Result<Target, String> {
        use secrecy::ExposeSecret;
        let secret_bytes =
            |secret: &Option<SecretString>| secret.as_ref().map_or(0, |s| s.expose_secret().len());
        let text_bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if self.host.is_empty() || self.host.len() > HOST_BYTES_MAX || self.port == 0 {
            return Err("`host` must be a host name or address, `port` 1 to 65535".into());
        }
        if text_bytes(&self.username).max(secret_bytes(&self.password)) > LOGIN_BYTES_MAX {
            return Err("`username` and `password` must not exceed 1024 bytes".into());
        }
        let pem_bytes = text_bytes(&self.tls_ca_pem)
            .max(text_bytes(&self.tls_certificate_pem))
            .max(secret_bytes(&self.tls_key_pem));
        if pem_bytes > PEM_BYTES_MAX {
            return Err("a PEM text must not exceed 256 KiB".into());
        }
        let identity = match (self.tls_certificate_pem, self.tls_key_pem) {
            (Some(certificate_pem), Some(key_pem)) => {
                Some(ClientIdentity { certificate_pem, key_pem })
            }
            (None, None) => None,
            _ => return Err("a client certificate needs its key, and a key its certificate".into()),
        };
        if !self.tls && (self.tls_ca_pem.is_some() || identity.is_some()) {
            return Err("certificates are given, but `tls` is not set".into());
        }
        let login = match (self.username, self.password) {
            (username, Some(password)) => Some(Login { username, password }),
            (None, None) => None,
            (Some(_), None) => return Err("a `username` needs a `password`".into()),
        };
        Ok(Target {
            address: Address { host: self.host, port: self.port },
            login,
            tls: self.tls.then_some(TlsSettings { ca_pem: self.tls_ca_pem, identity }),
        })
    }
}

#[derive(Debug, Serialize)]
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
}

impl From<&Instance> for InstanceBody {
    fn from(instance: &Instance) -> Self {
        let (seen, connection) = (&instance.observation, &instance.connection);
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
        }
    }
}

/// What a client may say about a backup that it asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CreateBackupBody {
    pub(crate) note: Option<String>,
    pub(crate) portable: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct BackupBody {
    id: String,
    instance_id: String,
    trigger: &'static str,
    format: &'static str,
    dialect: &'static str,
    note: Option<String>,
    state: &'static str,
    restorable: bool,
    progress_percent: f64,
    received_bytes: u64,
    phase: Option<String>,
    size_bytes: u64,
    failure: Option<FailureBody>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    removed_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct FailureBody {
    code: &'static str,
    dcs_code: &'static str,
    reason: String,
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
            progress_percent: f64::from(backup.progress.hundredths()) / 100.0,
            received_bytes: backup.received_bytes,
            phase: backup.phase.clone(),
            size_bytes: backup.size_bytes,
            failure: backup.failure.as_ref().map(|failure| FailureBody {
                code: failure.code.as_str(),
                dcs_code: failure_word(failure.code),
                reason: failure.reason.clone(),
            }),
            created_at: backup.created_at.to_string(),
            started_at: backup.started_at.map(|at| at.to_string()),
            completed_at: backup.completed_at.map(|at| at.to_string()),
            removed_at: backup.removed_at.map(|at| at.to_string()),
        }
    }
}

/// A backup with what is stored of it: the manifest's artifacts, and where they lie.
#[derive(Debug, Serialize)]
pub(crate) struct BackupDetailBody {
    #[serde(flatten)]
    backup: BackupBody,
    artifacts: Value,
    locations: Vec<String>,
}

impl From<BackupDetail> for BackupDetailBody {
    fn from(detail: BackupDetail) -> Self {
        let artifacts = detail.manifest.map(|manifest| manifest.artifacts).unwrap_or_default();
        Self {
            backup: BackupBody::from(&detail.backup),
            artifacts: serde_json::to_value(artifacts).unwrap_or_default(),
            locations: detail.locations,
        }
    }
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct PageBody<T> {
    pub(crate) items: Vec<T>,
    pub(crate) total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(json: &str) -> Result<Target, String> {
        serde_json::from_str::<AddInstanceBody>(json).map_err(|e| e.to_string())?.target()
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(target(r#"{"name": "a", "host": "h", "port": 6379}"#).is_ok());
        for (json, word) in [
            (r#"{"name": "a", "host": "", "port": 6379}"#, "host"),
            (r#"{"name": "a", "host": "h", "port": 0}"#, "port"),
            (r#"{"name": "a", "host": "h", "port": 70000}"#, "70000"),
            (r#"{"name": "a", "host": "h", "port": 1, "username": "u"}"#, "password"),
            (r#"{"name": "a", "host": "h", "port": 1, "tls_ca_pem": "x"}"#, "tls"),
            (
                r#"{"name": "a", "host": "h", "port": 1, "tls": true, "tls_key_pem": "x"}"#,
                "certificate",
            ),
            (r#"{"name": "a", "host": "h", "port": 1, "surprise": 1}"#, "surprise"),
        ] {
            let error = target(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
