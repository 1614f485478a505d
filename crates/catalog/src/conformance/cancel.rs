//! Backups that are cancelled.

use cachevault_domain::{
    Attempt, BackupState, Cancellation, EventKind, Failure, FailureCode, JobKind, JobState,
    Requeue, RestoreOutcome, RestoreState, ShrinkRule, TargetData,
};

use super::events::{kinds, newest};
use super::{
    at, backup, backup_id, begin_restore, claim, claim_kind, failure, files, is_lost, job_id,
    new_backup, new_restore, node, operation, outcome, prepare, prepare_restore, project, restore,
    restore_id, safety, succeed,
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
    let late = catalog.finish_backup(&lease, &files(1, 7), ShrinkRule::default(), at(13)).await;
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

async fn cancel_restore(
    catalog: &impl Catalog,
    by: &str,
    seconds: i64,
) -> Result<(), CatalogError> {
    catalog.cancel_restore(&project(1), restore_id(5), &wish(by, seconds)).await
}

/// Restore 5 into instance 2 has ended because of this wish, and both instances are free.
async fn assert_restore_cancelled(catalog: &impl Catalog, by: &str, seconds: i64) {
    let found = restore(catalog, 5).await;
    let reason = format!("cancelled by {by}");
    assert_eq!(
        (found.state, found.failure, found.phase, found.attempt),
        (RestoreState::Failed, Some(failure(FailureCode::ToolFailed, &reason)), None, None)
    );
    assert_eq!(found.cancellation, Some(wish(by, seconds)));
    assert_eq!(found.outcome.unwrap().target, TargetData::Untouched);
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!((job.state, job.last_error), (JobState::Failed, Some(reason)));
    assert_eq!((operation(catalog, 1).await, operation(catalog, 2).await), (None, None));
}

pub async fn a_restore_that_waits_is_cancelled_at_once(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    let before = newest(catalog).await;
    cancel_restore(catalog, "user ada", 21).await.unwrap();
    assert_restore_cancelled(catalog, "user ada", 21).await;
    assert_eq!(restore(catalog, 5).await.completed_at, Some(at(21)));
    assert_eq!(kinds(catalog, before).await, [EventKind::RestoreCancelled]);
    assert_eq!(claim_kind(catalog, JobKind::Restore, 30).await, None);
    begin_restore(catalog, 6, 2, 31).await;
}

pub async fn a_running_restore_that_is_cancelled_can_only_fail(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(9, 21), at(21)).await.unwrap();
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), None);
    cancel_restore(catalog, "key A", 22).await.unwrap();
    cancel_restore(catalog, "key B", 23).await.unwrap();
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), Some(wish("key A", 22)));
    assert_eq!(restore(catalog, 5).await.state, RestoreState::Running);
    let touched = catalog.touch_target(&lease, at(24)).await;
    assert!(matches!(touched, Err(CatalogError::Cancelled)), "{touched:?}");
    assert_eq!(restore(catalog, 5).await.touched_at, None);
    let late = catalog.finish_restore(&lease, &outcome(TargetData::New), at(25)).await;
    assert!(matches!(late, Err(CatalogError::Cancelled)), "{late:?}");
    // Whatever the worker says was wrong: it was broken off, and its safety backup with it.
    let before = newest(catalog).await;
    let other = Failure { code: FailureCode::TimedOut, reason: "late".into() };
    let untouched = RestoreOutcome::untouched();
    catalog.fail_restore(&lease, &other, &untouched, at(26)).await.unwrap();
    assert_restore_cancelled(catalog, "key A", 22).await;
    assert_eq!(backup(catalog, 9).await.failure.unwrap().reason, "cancelled by key A");
    let expected = [EventKind::BackupCancelled, EventKind::RestoreCancelled];
    assert_eq!(kinds(catalog, before).await, expected);
}

pub async fn a_cancelled_restore_between_two_attempts_is_due_at_once(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.requeue(&lease, Requeue::Failed, at(500), "later").await.unwrap();
    cancel_restore(catalog, "key A", 30).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Restore, 30).await.unwrap();
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), Some(wish("key A", 30)));
    let (any, untouched) = (failure(FailureCode::ToolFailed, "any"), RestoreOutcome::untouched());
    catalog.fail_restore(&lease, &any, &untouched, at(31)).await.unwrap();
    assert_restore_cancelled(catalog, "key A", 30).await;
}

pub async fn a_restore_whose_target_is_touched_is_no_longer_cancelled(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    for seconds in [21, 22] {
        catalog.touch_target(&lease, at(seconds)).await.unwrap();
    }
    assert_eq!(restore(catalog, 5).await.touched_at, Some(at(21)));
    let late = cancel_restore(catalog, "key A", 23).await;
    assert!(matches!(late, Err(CatalogError::TargetTouched)), "{late:?}");
    // Nor does its next attempt heed what was refused.
    catalog.release_node(node(), at(24)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Restore, 24).await.unwrap();
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), None);
    catalog.touch_target(&lease, at(25)).await.unwrap();
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(26)).await.unwrap();
    let late = cancel_restore(catalog, "key A", 27).await;
    assert!(matches!(late, Err(CatalogError::RestoreEnded(RestoreState::Succeeded))), "{late:?}");
    assert_eq!(restore(catalog, 5).await.cancellation, None);
}

pub async fn only_its_holder_touches_the_target_of_a_restore(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let stale = begin_restore(catalog, 5, 2, 20).await;
    catalog.release_node(node(), at(21)).await.unwrap();
    claim_kind(catalog, JobKind::Restore, 22).await.unwrap();
    assert!(is_lost(catalog.touch_target(&stale, at(23)).await));
    catalog.request_backup(&new_backup(2, 1, 24)).await.unwrap();
    let capture = claim(catalog, 24).await.unwrap();
    let refused = catalog.touch_target(&capture, at(25)).await;
    assert!(matches!(refused, Err(CatalogError::NotFound("restore"))), "{refused:?}");
}

pub async fn no_project_cancels_the_restores_of_another(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    begin_restore(catalog, 5, 2, 20).await;
    for (owner, n) in [(2, 5), (1, 9)] {
        let (owner, restore) = (project(owner), restore_id(n));
        let refused = catalog.cancel_restore(&owner, restore, &wish("key A", 21)).await;
        assert!(matches!(refused, Err(CatalogError::NotFound("restore"))), "{refused:?}");
    }
    assert_eq!(restore(catalog, 5).await.cancellation, None);
}

pub async fn what_is_open_tells_its_attempt_and_why_the_one_before_ended(catalog: &impl Catalog) {
    let attempt =
        |number, why: Option<&str>| Some(Attempt { number, last_error: why.map(str::to_owned) });
    prepare_restore(catalog).await;
    catalog.request_backup(&new_backup(2, 1, 20)).await.unwrap();
    assert_eq!(backup(catalog, 2).await.attempt, attempt(0, None));
    let lease = claim(catalog, 20).await.unwrap();
    catalog.start_backup(&lease, at(20)).await.unwrap();
    assert_eq!(backup(catalog, 2).await.attempt, attempt(1, None));
    catalog.requeue(&lease, Requeue::Failed, at(25), "it refused").await.unwrap();
    assert_eq!(backup(catalog, 2).await.attempt, attempt(1, Some("it refused")));
    claim(catalog, 25).await.unwrap();
    assert_eq!(backup(catalog, 2).await.attempt, attempt(2, Some("it refused")));
    // Nobody recorded how these two ended.
    catalog.release_node(node(), at(30)).await.unwrap();
    claim(catalog, 30).await.unwrap();
    let died = "interrupted: the process of the service ended";
    assert_eq!(backup(catalog, 2).await.attempt, attempt(3, Some(died)));
    let lease = claim(catalog, 100).await.unwrap();
    let lost = "interrupted: its node did not extend its lease";
    assert_eq!(backup(catalog, 2).await.attempt, attempt(4, Some(lost)));
    assert_eq!(backup(catalog, 1).await.attempt, None, "it has ended");
    catalog.finish_backup(&lease, &files(4, 7), ShrinkRule::default(), at(101)).await.unwrap();
    assert_eq!(backup(catalog, 2).await.attempt, None);

    let lease = begin_restore(catalog, 5, 2, 110).await;
    catalog.begin_safety_backup(&lease, &safety(9, 111), at(111)).await.unwrap();
    catalog.requeue(&lease, Requeue::Failed, at(112), "no answer").await.unwrap();
    claim_kind(catalog, JobKind::Restore, 112).await.unwrap();
    let second = attempt(2, Some("no answer"));
    assert_eq!(restore(catalog, 5).await.attempt, second);
    assert_eq!(backup(catalog, 9).await.attempt, second, "the restore makes it");
}

pub async fn a_backup_that_a_restore_makes_is_not_cancelled_alone(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(9, 21), at(21)).await.unwrap();
    let refused = cancel(catalog, 9, "key A", 22).await;
    assert!(matches!(refused, Err(CatalogError::Busy(JobKind::Restore))), "{refused:?}");
    assert_eq!(catalog.cancellation(&lease).await.unwrap(), None);
}
