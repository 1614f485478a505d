//! Backups that are cancelled.

use cachevault_domain::{
    BackupState, Cancellation, Failure, FailureCode, JobKind, JobState, Requeue,
};

use super::{
    at, backup, backup_id, begin_restore, claim, failure, files, job_id, new_backup, node,
    operation, prepare, prepare_restore, project, safety, succeed,
};
use crate::{Catalog, CatalogError};

fn wish(by: &str, seconds: i64) -> Cancellation {
    Cancellation { by: by.into(), at: at(seconds) }
}

pub(super) async fn cancel(
    catalog: &impl Catalog,
    n: u8,
    by: &str,
    seconds: i64,
) -> Result<(), CatalogError> {
    catalog.cancel_backup(&project(1), backup_id(n), &wish(by, seconds)).await
}

/// The backup has ended because of this wish, and its instance is free.
async fn assert_cancelled(catalog: &impl Catalog, n: u8, by: &str, seconds: i64) {
    let found = backup(catalog, n).await;
    let reason = format!("cancelled by {by}");
    assert_eq!(
        (found.state, found.failure, found.phase),
        (BackupState::Failed, Some(failure(FailureCode::ToolFailed, &reason)), None)
    );
    assert_eq!(found.cancellation, Some(wish(by, seconds)));
    let job = catalog.find_job(&project(1), job_id(n)).await.unwrap().unwrap();
    assert_eq!((job.state, job.last_error), (JobState::Failed, Some(reason)));
    assert_eq!(operation(catalog, 1).await, None);
}

pub async fn a_backup_that_waits_is_cancelled_at_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    cancel(catalog, 1, "user ada", 11).await.unwrap();
    assert_cancelled(catalog, 1, "user ada", 11).await;
    assert_eq!(backup(catalog, 1).await.completed_at, Some(at(11)));
    assert_eq!(claim(catalog, 20).await, None);
    succeed(catalog, 2, 20).await;
}

pub async fn a_running_backup_that_is_cancelled_can_only_fail(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), None);
    cancel(catalog, 1, "key A", 11).await.unwrap();
    cancel(catalog, 1, "key B", 12).await.unwrap();
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), Some(wish("key A", 11)));
    assert_eq!(backup(catalog, 1).await.state, BackupState::Running);
    let late = catalog.finish_backup(&lease, &files(1, 7), at(13)).await;
    assert!(matches!(late, Err(CatalogError::Cancelled)), "{late:?}");
    // Whatever the worker says was wrong: it was broken off.
    let other = Failure { code: FailureCode::TimedOut, reason: "late".into() };
    catalog.fail_backup(&lease, &other, at(14)).await.unwrap();
    assert_cancelled(catalog, 1, "key A", 11).await;
}

pub async fn a_cancelled_backup_between_two_attempts_is_due_at_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    catalog.requeue(&lease, Requeue::Failed, at(500), "later").await.unwrap();
    cancel(catalog, 1, "key A", 20).await.unwrap();
    // What an attempt left in the store only a worker can remove.
    let lease = claim(catalog, 20).await.unwrap();
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), Some(wish("key A", 20)));
    catalog.fail_backup(&lease, &failure(FailureCode::ToolFailed, "any"), at(21)).await.unwrap();
    assert_cancelled(catalog, 1, "key A", 20).await;
}

pub async fn the_first_wish_to_cancel_counts_whenever_it_is_heeded(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    claim(catalog, 10).await.unwrap();
    cancel(catalog, 1, "key A", 11).await.unwrap();
    // Its worker dies before it has begun.
    catalog.release_node(node(), at(12)).await.unwrap();
    cancel(catalog, 1, "key B", 13).await.unwrap();
    assert_cancelled(catalog, 1, "key A", 11).await;
}

pub async fn a_backup_that_has_ended_is_not_cancelled(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let late = cancel(catalog, 1, "key A", 20).await;
    assert!(matches!(late, Err(CatalogError::Ended(BackupState::Succeeded))), "{late:?}");
    assert_eq!(backup(catalog, 1).await.cancellation, None);
    let unknown = cancel(catalog, 9, "key A", 20).await;
    assert!(matches!(unknown, Err(CatalogError::NotFound("backup"))), "{unknown:?}");
    let foreign =
        catalog.cancel_backup(&project(2), backup_id(1), &wish("key A", 20)).await.unwrap_err();
    assert!(matches!(foreign, CatalogError::NotFound("backup")), "{foreign:?}");
}

pub async fn a_backup_that_a_restore_makes_is_not_cancelled_alone(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(9, 21), at(21)).await.unwrap();
    let refused = cancel(catalog, 9, "key A", 22).await;
    assert!(matches!(refused, Err(CatalogError::Busy(JobKind::Restore))), "{refused:?}");
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), None);
}
