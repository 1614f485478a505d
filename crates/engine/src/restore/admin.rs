//! What we ask and tell a target beside its replication.

use std::time::Duration;

use cachevault_domain::{Address, ProbeError, Target};
use cachevault_proto::Reply;

use crate::client::Client;
use crate::info::ServerInfo;
use crate::probe::check_permissions;
use crate::restore::error::RestoreError;

/// A logged-in connection to a target.
pub(crate) struct Admin {
    client: Client,
    address: Address,
}

impl Admin {
    pub(crate) async fn connect(target: &Target, command: Duration) -> Result<Self, ProbeError> {
        let client = Client::connect(target, command).await?;
        Ok(Self { client, address: target.address.clone() })
    }

    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }

    /// The address by which the target sees us.
    pub(crate) fn local_host(&self) -> Option<String> {
        self.client.local_host()
    }

    pub(crate) async fn info(&mut self) -> Result<ServerInfo, ProbeError> {
        self.client.info().await
    }

    /// A command that has to succeed.
    pub(crate) async fn command(&mut self, command: &[&str]) -> Result<Reply, RestoreError> {
        match self.client.call(command).await? {
            Reply::Error(error) => Err(RestoreError::Refused {
                address: self.address.clone(),
                command: command.iter().take(2).copied().collect::<Vec<_>>().join(" "),
                detail: self.client.listener().heard(&error),
            }),
            reply => Ok(reply),
        }
    }

    /// Whether a command is refused, for whatever reason.
    pub(crate) async fn is_refused(&mut self, command: &[&str]) -> Result<bool, RestoreError> {
        match self.command(command).await {
            Err(RestoreError::Refused { .. }) => Ok(true),
            told => told.map(|_| false),
        }
    }

    /// Whether the user may read all data, as a replica does.
    pub(crate) async fn may_replicate(&mut self, info: &ServerInfo) -> Result<(), ProbeError> {
        check_permissions(&mut self.client, info).await
    }

    /// Whether the user may change settings.
    pub(crate) async fn may_set(&mut self) -> Result<bool, RestoreError> {
        // Refused for a setting that is none, after the permission was checked.
        match self.command(&["CONFIG", "SET", "cachevault", "none"]).await {
            Err(error @ RestoreError::Refused { .. }) => Ok(!error.is_denial()),
            told => told.map(|_| true),
        }
    }

    /// A setting; `None` where this version does not know it.
    pub(crate) async fn setting(&mut self, name: &str) -> Result<Option<String>, RestoreError> {
        let reply = self.command(&["CONFIG", "GET", name]).await?;
        let Reply::Array(Some(pairs)) = reply else { return Ok(None) };
        let value = pairs.get(1).and_then(|value| match value {
            Reply::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
        Ok(value)
    }

    /// Why the target takes no writes for now; `None` where it takes them, or does not allow the
    /// question. Asked by a `RESTORE` of nothing, of which a server looks at the value last.
    pub(crate) async fn write_refusal(&mut self) -> Result<Option<WriteRefusal>, RestoreError> {
        let reply = self.client.call(&["RESTORE", "cachevault", "none", ""]).await?;
        let Reply::Error(error) = reply else { return Ok(None) };
        let code = WRITE_REFUSALS.into_iter().find(|code| error.starts_with(code.as_bytes()));
        Ok(code.map(|code| WriteRefusal { code, detail: self.client.listener().heard(&error) }))
    }

    pub(crate) async fn set(&mut self, name: &str, value: &str) -> Result<(), RestoreError> {
        self.command(&["CONFIG", "SET", name, value]).await.map(drop)
    }
}

/// How a server begins to refuse whatever is to be written, and not one command.
const WRITE_REFUSALS: [&str; 4] = ["NOREPLICAS", "MISCONF", "READONLY", "OOM"];

/// Why a server takes no writes for now.
#[derive(Debug, Clone)]
pub(crate) struct WriteRefusal {
    /// The first word of what it says.
    pub(crate) code: &'static str,
    /// What it says, as far as it is told.
    pub(crate) detail: String,
}
