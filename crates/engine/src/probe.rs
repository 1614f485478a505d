//! Looks at a server: can it be adopted, and what runs there?

use std::time::Duration;

use cachevault_domain::{Observation, ProbeError, ServerVersion, Target};
use cachevault_proto::Reply;

use crate::client::Client;
use crate::info::ServerInfo;

/// Bounds of a probe.
#[derive(Debug, Clone, Copy)]
pub struct ProbeLimits {
    /// Time for connecting, and for each command.
    pub command: Duration,
}

/// Connects to a server and checks everything that a capture will need, without starting one.
///
/// # Errors
/// [`ProbeError`], which says exactly what is wrong.
pub async fn probe(target: &Target, limits: ProbeLimits) -> Result<Observation, ProbeError> {
    let mut client = Client::connect(target, limits.command).await?;
    let info = client.info().await?;
    check_supported(target, &info)?;
    check_permissions(&mut client, &info).await?;
    Ok(info.observation())
}

/// Connects to a server and reads its figures, without a trace in its log.
///
/// # Errors
/// [`ProbeError`], which says exactly what is wrong.
pub async fn look(target: &Target, limits: ProbeLimits) -> Result<Observation, ProbeError> {
    let mut client = Client::connect(target, limits.command).await?;
    let info = client.info().await?;
    check_supported(target, &info)?;
    Ok(info.observation())
}

/// Whether the server is of a kind and version that can be captured.
pub(crate) fn check_supported(target: &Target, info: &ServerInfo) -> Result<(), ProbeError> {
    let address = target.address.clone();
    if info.is_sentinel {
        return Err(ProbeError::Sentinel { address });
    }
    if info.is_cluster_node {
        return Err(ProbeError::Cluster { address });
    }
    if info.version < info.engine.oldest_supported() {
        return Err(ProbeError::UnsupportedVersion {
            address,
            engine: info.engine,
            version: info.version,
        });
    }
    Ok(())
}

/// Asks for each replication command in a form that has no effect.
///
/// `REPLCONF capa eof` only sets a flag of our connection. `PSYNC … FAILOVER` with a replication
/// id that is not the server's is refused before anything is synchronised (`syncCommand` in
/// `replication.c`, since Redis 6.2), but only after the permission was checked. The server logs
/// that it was asked, so this is for adoption, not for every look. Before 6.2 the wrong number of
/// arguments at least tells whether the command was renamed away.
pub(crate) async fn check_permissions(
    client: &mut Client,
    info: &ServerInfo,
) -> Result<(), ProbeError> {
    const NOT_AN_ID: &str = "0000000000000000000000000000000000000000";
    const KNOWS_FAILOVER: ServerVersion = ServerVersion { major: 6, minor: 2, patch: 0 };
    if let Reply::Error(error) = client.call(&["PING"]).await?
        && let denied @ ProbeError::Denied { .. } = client.refusal("ping", &error)
    {
        return Err(denied);
    }
    if let Reply::Error(error) = client.call(&["REPLCONF", "capa", "eof"]).await? {
        return Err(client.refusal("replconf", &error));
    }
    let psync: &[&str] = if info.version >= KNOWS_FAILOVER {
        &["PSYNC", NOT_AN_ID, "-1", "FAILOVER"]
    } else {
        &["PSYNC"]
    };
    match client.call(psync).await? {
        Reply::Error(error) => match client.refusal("psync", &error) {
            denied @ ProbeError::Denied { .. } => Err(denied),
            // The refusal that was provoked.
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
