//! How many captures of one host run at a time: those beyond it wait beside the queue.

use cachevault_catalog::CatalogError;
use cachevault_domain::{JobId, NodeId, waiting_for_host};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use crate::unavailable;

/// Captures that one transaction passes over.
const PASSED_OVER_MAX: u32 = 64;
/// Captures that are due again when one of their host has ended. More than one, so that a limit that
/// was raised is reached soon; a claim passes over again what is too much.
const WOKEN_MAX: i64 = 4;

const NEXT: &str = "SELECT j.seq, j.state = 'leased' OR b.cancelled_at IS NOT NULL, j.backup_id, i.host
    FROM jobs j INDEXED BY jobs_claimable JOIN instances i ON i.id = j.instance_id JOIN backups b ON b.id = j.backup_id
    WHERE j.state IN ('queued', 'leased') AND j.waits_for_host IS NULL AND j.kind = 'capture' AND j.due_at <= ?
    ORDER BY j.due_at, j.seq LIMIT 1";

// Few are leased at any time, so the hosts of all of them are looked up.
const RUNNING: &str = "SELECT count(*) FROM jobs j CROSS JOIN instances i
    WHERE j.state = 'leased' AND j.kind = 'capture' AND i.id = j.instance_id AND i.host = ?";

const WAKE: &str = "UPDATE jobs SET waits_for_host = NULL WHERE seq IN (
    SELECT seq FROM jobs WHERE state = 'queued' AND waits_for_host = ? ORDER BY due_at, seq LIMIT ?)";

/// What a look at the queue of captures found.
pub(crate) enum Next {
    /// A capture that may begin, by the number of its job.
    Capture(i64),
    /// None.
    Nothing,
    /// So many that have to wait that it is to be looked again.
    More,
}

/// The capture that has been due longest and whose host has fewer than `host_max` running. Those
/// before it wait from now on for their hosts.
pub(crate) async fn next_capture(
    tx: &mut SqliteConnection,
    host_max: u32,
    now: Timestamp,
) -> Result<Next, CatalogError> {
    for _ in 0..PASSED_OVER_MAX {
        let due: Option<(i64, bool, String, String)> = sqlx::query_as(NEXT)
            .bind(now.as_microsecond())
            .fetch_optional(&mut *tx)
            .await
            .map_err(unavailable)?;
        let Some((seq, is_free, backup, host)) = due else { return Ok(Next::Nothing) };
        // One whose lease has run out counts already, and one that is cancelled asks for no fork.
        if is_free {
            return Ok(Next::Capture(seq));
        }
        let running: i64 = sqlx::query_scalar(RUNNING)
            .bind(&host)
            .fetch_one(&mut *tx)
            .await
            .map_err(unavailable)?;
        let running = running.unsigned_abs();
        if running < u64::from(host_max) {
            return Ok(Next::Capture(seq));
        }
        pass_over(&mut *tx, seq, &backup, &host, running).await?;
    }
    Ok(Next::More)
}

async fn pass_over(
    tx: &mut SqliteConnection,
    seq: i64,
    backup: &str,
    host: &str,
    running: u64,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE jobs SET waits_for_host = ? WHERE seq = ?")
        .bind(host)
        .bind(seq)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    sqlx::query("UPDATE backups SET phase = ? WHERE id = ?")
        .bind(waiting_for_host(host, running))
        .bind(backup)
        .execute(tx)
        .await
        .map(drop)
        .map_err(unavailable)
}

/// A job ends, or its attempt does. Where it is a capture, the oldest captures that wait for its host are due again.
pub(crate) async fn wake(tx: &mut SqliteConnection, job: JobId) -> Result<(), CatalogError> {
    let host: Option<String> = sqlx::query_scalar(
        "SELECT i.host FROM jobs j JOIN instances i ON i.id = j.instance_id
         WHERE j.id = ? AND j.kind = 'capture'",
    )
    .bind(job.to_string())
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    match host {
        Some(host) => wake_host(tx, &host).await,
        None => Ok(()),
    }
}

/// Like [`wake`] for everything that a node has leased.
pub(crate) async fn wake_of_node(
    tx: &mut SqliteConnection,
    node: NodeId,
) -> Result<(), CatalogError> {
    let hosts: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT i.host FROM jobs j CROSS JOIN instances i
         WHERE j.state = 'leased' AND j.kind = 'capture' AND j.node_id = ? AND i.id = j.instance_id",
    )
    .bind(node.to_string())
    .fetch_all(&mut *tx)
    .await
    .map_err(unavailable)?;
    for host in hosts {
        wake_host(&mut *tx, &host).await?;
    }
    Ok(())
}

async fn wake_host(tx: &mut SqliteConnection, host: &str) -> Result<(), CatalogError> {
    sqlx::query(WAKE).bind(host).bind(WOKEN_MAX).execute(tx).await.map(drop).map_err(unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteCatalog;
    use crate::schedules::plan_of;

    #[tokio::test]
    async fn a_claim_never_goes_through_the_queue() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        for (query, index) in [
            (NEXT, "INDEX jobs_claimable (kind=? AND due_at<?)"),
            (RUNNING, "INDEX jobs_capturing"),
            (WAKE, "INDEX jobs_waiting_for_host (waits_for_host=?)"),
        ] {
            let plan = plan_of(&catalog, query).await;
            assert!(plan.contains(index), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
