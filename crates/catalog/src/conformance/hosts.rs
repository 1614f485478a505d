//! Captures that wait for others of their host.

use cachevault_domain::{BackupState, FailureCode, Lease, NodeId, Requeue};

use super::cancel::cancel;
use super::{Numbered, at, backup, backup_id, failure, instance, new_backup, node, prepare};
use crate::Catalog;

/// Instances 1 to 4, of which all but the last have the same host, each with a backup that waits.
async fn queue_up(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 2..=4 {
        let mut other = instance(n, &format!("name{n}"));
        if n < 4 {
            other.connection.address.host = instance(1, "one").connection.address.host;
        }
        catalog.add_instance(&other).await.unwrap();
    }
    for n in 1..=4 {
        catalog.request_backup(&new_backup(n, n, i64::from(n))).await.unwrap();
    }
}

async fn claim_capture(catalog: &impl Catalog, host_max: u32, seconds: i64) -> Option<Lease> {
    let claimed = catalog.claim_capture(node(), host_max, at(seconds), at(seconds + 30));
    claimed.await.unwrap()
}

/// The number of the next backup that is claimed.
async fn next(catalog: &impl Catalog, host_max: u32, seconds: i64) -> Option<u8> {
    let lease = claim_capture(catalog, host_max, seconds).await?;
    (1..=4).find(|n| backup_id(*n) == lease.backup)
}

pub async fn captures_of_one_host_wait_for_each_other(catalog: &impl Catalog) {
    queue_up(catalog).await;
    let first = claim_capture(catalog, 1, 10).await.unwrap();
    assert_eq!(first.backup, backup_id(1));
    assert_eq!(next(catalog, 1, 10).await, Some(4), "another host is passed on to");
    assert_eq!(next(catalog, 1, 10).await, None);
    for n in [2, 3] {
        let found = backup(catalog, n).await;
        let phase = "waiting: another backup of host 10.0.0.1 runs";
        assert_eq!((found.state, found.phase.as_deref()), (BackupState::Waiting, Some(phase)));
    }
    catalog.fail_backup(&first, &failure(FailureCode::TimedOut, "late"), at(11)).await.unwrap();
    let second = claim_capture(catalog, 1, 11).await.unwrap();
    assert_eq!(second.backup, backup_id(2), "in their order");
    assert_eq!(next(catalog, 1, 11).await, None);
    catalog.start_backup(&second, at(11)).await.unwrap();
    catalog.requeue(&second, Requeue::Failed, at(12), "later").await.unwrap();
    assert_eq!(next(catalog, 1, 11).await, Some(3), "a pause between attempts keeps nobody");
    assert_eq!(next(catalog, 1, 20).await, None);
    assert_eq!(next(catalog, 2, 20).await, None, "who waits is woken by an end");
}

pub async fn a_host_may_have_more_captures_than_one(catalog: &impl Catalog) {
    queue_up(catalog).await;
    assert_eq!(next(catalog, 2, 10).await, Some(1));
    assert_eq!(next(catalog, 2, 10).await, Some(2));
    assert_eq!(next(catalog, 2, 10).await, Some(4));
    let phase = backup(catalog, 3).await.phase;
    assert_eq!(phase.as_deref(), Some("waiting: 2 other backups of host 10.0.0.1 run"));
    // A lease that has run out is taken up; what it does counts once.
    assert_eq!(next(catalog, 2, 40).await, Some(1));
    assert_eq!(next(catalog, 2, 40).await, Some(2));
}

pub async fn a_capture_that_waits_for_its_host_survives_its_neighbours(catalog: &impl Catalog) {
    queue_up(catalog).await;
    assert_eq!(next(catalog, 1, 10).await, Some(1));
    assert_eq!(next(catalog, 1, 10).await, Some(4));
    assert_eq!(next(catalog, 1, 10).await, None);
    cancel(catalog, 2, "key A", 11).await.unwrap();
    assert_eq!(backup(catalog, 2).await.state, BackupState::Failed);
    assert_eq!(next(catalog, 1, 11).await, None);
    // The node of the one that runs dies.
    assert_eq!(catalog.release_node(NodeId::mint(&Numbered(2)), at(12)).await.unwrap(), 0);
    assert_eq!(catalog.release_node(node(), at(12)).await.unwrap(), 2);
    let mut order = Vec::new();
    while let Some(n) = next(catalog, 1, 12).await {
        order.push(n);
    }
    assert_eq!(order, [3, 4], "the one that was due first goes before those that were let go");
}
