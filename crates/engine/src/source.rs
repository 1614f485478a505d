//! Chooses the server to capture from, and waits until it may be asked.

use std::time::Duration;

use cachevault_domain::{ProbeError, Role, Target};
use cachevault_proto::{HandshakeError, SessionError};
use tokio::time::Instant;

use crate::capture::CaptureLimits;
use crate::client::Client;
use crate::error::CaptureError;
use crate::gate::{Pass, SourceGate};
use crate::info::{ReplicaInfo, ServerInfo};
use crate::meter::Meter;
use crate::probe::{check_permissions, check_supported};

/// How long a replica may take to catch up before the primary is used instead.
const CATCH_UP: Duration = Duration::from_secs(3);
const CATCH_UP_POLL: Duration = Duration::from_millis(100);
/// Children often end within moments; who waits longer is asked less often.
const BUSY_POLL_FIRST: Duration = Duration::from_millis(50);
const BUSY_POLL_LAST: Duration = Duration::from_secs(1);

/// A server that can be captured now.
pub(crate) struct Source {
    pub(crate) target: Target,
    pub(crate) client: Client,
    pub(crate) info: ServerInfo,
}

/// A replica of `target` that holds everything that its primary held a moment ago, or `target`.
pub(crate) async fn choose(
    target: &Target,
    prefer_replica: bool,
    limits: &CaptureLimits,
) -> Result<Source, CaptureError> {
    let source = look(target, limits).await?;
    if source.info.role == Role::Replica {
        return if source.info.primary_link_up {
            Ok(source)
        } else {
            Err(not_now(target, "the replica has lost its primary; its data is of unknown age"))
        };
    }
    if prefer_replica {
        let mut replicas: Vec<_> = source.info.replicas.iter().filter(|r| r.online).collect();
        replicas.sort_by_key(|replica| replica.lag_seconds);
        for replica in replicas {
            if let Some(better) = try_replica(&source, replica, limits).await {
                return Ok(better);
            }
        }
    }
    Ok(source)
}

async fn look(target: &Target, limits: &CaptureLimits) -> Result<Source, ProbeError> {
    let mut client = Client::connect(target, limits.command).await?;
    let info = client.info().await?;
    check_supported(target, &info)?;
    Ok(Source { target: target.clone(), client, info })
}

/// `None` where the replica cannot be used, for whatever reason: the primary can.
async fn try_replica(
    primary: &Source,
    replica: &ReplicaInfo,
    limits: &CaptureLimits,
) -> Option<Source> {
    let lag_max = limits.source.unwrap_or_default().replica_lag_max;
    if Duration::from_secs(replica.lag_seconds) > lag_max {
        return None;
    }
    let target = Target { address: replica.address.clone(), ..primary.target.clone() };
    let mut found = match look(&target, limits).await {
        Ok(found) => found,
        Err(error) => {
            tracing::info!(replica = %replica.address, %error, "replica cannot be used as the source");
            return None;
        }
    };
    // What one node allows another may not; and a fork there is no reason to wait when the primary
    // has none.
    if found.info.busy_with.is_some()
        || check_permissions(&mut found.client, &found.info).await.is_err()
    {
        tracing::info!(replica = %replica.address, "replica is busy or denies replication");
        return None;
    }
    let unfit = limits.source.and_then(|source| {
        source.reason_to_refuse(&found.info).or_else(|| source.reason_to_wait(&found.info))
    });
    if let Some(reason) = unfit {
        tracing::info!(replica = %replica.address, reason, "replica cannot bear a fork now");
        return None;
    }
    let wanted = primary.info.replication_offset;
    let until = Instant::now() + CATCH_UP;
    loop {
        let info = &found.info;
        let follows = info.role == Role::Replica
            && info.primary_link_up
            && info.replication_id == primary.info.replication_id;
        if !follows {
            return None;
        }
        // Whatever was acknowledged before the backup was asked for is in the backup.
        if info.replication_offset >= wanted {
            return Some(found);
        }
        if Instant::now() >= until {
            tracing::info!(replica = %replica.address, "replica lags too far behind to be the source");
            return None;
        }
        tokio::time::sleep(CATCH_UP_POLL).await;
        found.info = found.client.info().await.ok()?;
    }
}

impl Source {
    /// Waits until the server runs no child and loads nothing, nobody here captures it, and it can
    /// bear a fork: it is never asked for a second one while one is running.
    pub(crate) async fn wait_until_free(
        &mut self,
        gate: &SourceGate,
        limits: &CaptureLimits,
        meter: &Meter,
    ) -> Result<Pass, CaptureError> {
        let until = Instant::now() + limits.busy_wait;
        let reason = "another capture of this server runs";
        meter.enter(&format!("waiting: {reason}"));
        let pass = tokio::time::timeout_at(until, gate.enter(&self.info.run_id)).await;
        let seconds = limits.busy_wait.as_secs();
        let pass = pass.map_err(|_| CaptureError::Busy { reason: reason.to_owned(), seconds })?;
        self.info = self.client.info().await?;
        if let Some(reason) = limits.source.and_then(|source| source.reason_to_refuse(&self.info)) {
            return Err(CaptureError::Unfit { address: self.target.address.clone(), reason });
        }
        let mut pause = BUSY_POLL_FIRST;
        while let Some(reason) = self.reason_to_wait(limits) {
            meter.enter(&format!("waiting: {reason}"));
            if Instant::now() >= until {
                return Err(CaptureError::Busy { reason, seconds });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BUSY_POLL_LAST);
            self.info = self.client.info().await?;
        }
        Ok(pass)
    }

    fn reason_to_wait(&self, limits: &CaptureLimits) -> Option<String> {
        let busy = self.info.busy_with.map(str::to_owned);
        busy.or_else(|| limits.source?.reason_to_wait(&self.info))
    }
}

fn not_now(target: &Target, why: &str) -> CaptureError {
    CaptureError::Session {
        address: target.address.clone(),
        session: SessionError::Handshake(HandshakeError::NotNow(why.to_owned())),
    }
}
