//! Jobs: claims, leases, steps, and how captures and removals end.

use cachevault_domain::{
    BackupState, Failure, FailureCode, JobKind, JobState, NodeId, Progress, Requeue, SealedSecret,
    ShrinkRule,
};

use super::{
    Numbered, at, backup, backup_id, claim, claim_kind, failure, files, instance, instance_id,
    is_lost, job_id, new_backup, node, prepare, project, succeed,
};
use crate::{Catalog, CatalogError};

pub async fn a_job_is_claimed_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    assert_eq!(claim(catalog, 10).await, None);
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    assert_eq!((lease.job, lease.kind, lease.attempt), (job_id(1), JobKind::Capture, 1));
    assert_eq!(
        (lease.project.clone(), lease.instance, lease.backup),
        (project(1), instance_id(1), backup_id(1))
    );
    assert_eq!(claim(catalog, 10).await, None);
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Leased, 1));
}

pub async fn jobs_are_claimed_in_the_order_in_which_they_are_due(catalog: &impl Catalog) {
    prepare(catalog).await;
    for n in 2..=4 {
        catalog.add_instance(&instance(n, &format!("name{n}"))).await.unwrap();
    }
    for (n, seconds) in [(3, 12), (2, 11), (4, 13)] {
        catalog.request_backup(&new_backup(n, n, seconds)).await.unwrap();
    }
    let mut order = Vec::new();
    while let Some(lease) = claim(catalog, 20).await {
        order.push(lease.job);
    }
    assert_eq!(order, [job_id(2), job_id(3), job_id(4)]);
}

pub async fn a_lease_that_ran_out_is_claimed_again_with_a_higher_attempt(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    claim(catalog, 10).await.unwrap();
    assert_eq!(claim(catalog, 39).await, None);
    assert_eq!(claim(catalog, 40).await.map(|lease| lease.attempt), Some(2));
}

pub async fn an_extended_lease_is_not_claimed(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.extend_lease(&lease, at(100)).await.unwrap();
    assert_eq!(claim(catalog, 99).await, None);
    assert!(claim(catalog, 100).await.is_some());
}

pub async fn a_stale_worker_can_write_nothing(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let stale = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&stale, at(10)).await.unwrap();
    let fresh = claim(catalog, 100).await.unwrap();
    let failure = Failure { code: FailureCode::TimedOut, reason: "late".into() };
    assert!(is_lost(catalog.extend_lease(&stale, at(500)).await));
    assert!(is_lost(catalog.log_step(&stale, "capture", &left(1), at(101)).await));
    assert!(is_lost(catalog.unlog_step(&stale, "capture").await));
    assert!(is_lost(catalog.start_backup(&stale, at(101)).await));
    assert!(is_lost(catalog.report_progress(&stale, Progress::ALMOST, 1, "late").await));
    assert!(is_lost(
        catalog.finish_backup(&stale, &files(1, 1), ShrinkRule::default(), at(101)).await
    ));
    assert!(is_lost(catalog.fail_backup(&stale, &failure, at(101)).await));
    assert!(is_lost(catalog.finish_removal(&stale, at(101)).await));
    assert!(is_lost(catalog.requeue(&stale, Requeue::Failed, at(101), "late").await));
    assert_eq!(backup(catalog, 1).await.state, BackupState::Running);
    catalog.start_backup(&fresh, at(101)).await.unwrap();
    catalog.finish_backup(&fresh, &files(1, 7), ShrinkRule::default(), at(102)).await.unwrap();
    assert!(is_lost(
        catalog.finish_backup(&fresh, &files(1, 8), ShrinkRule::default(), at(103)).await
    ));
    assert_eq!(backup(catalog, 1).await.size_bytes, 7);
}

pub async fn the_leases_of_a_dead_node_are_due_at_once(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    claim(catalog, 10).await.unwrap();
    let other = NodeId::mint(&Numbered(2));
    assert_eq!(catalog.release_node(other, at(11)).await.unwrap(), 0);
    assert_eq!(claim(catalog, 11).await, None);
    assert_eq!(catalog.release_node(node(), at(11)).await.unwrap(), 1);
    let lease = catalog.claim_job(JobKind::Capture, other, at(11), at(41)).await.unwrap().unwrap();
    assert_eq!(lease.attempt, 2);
}

/// What a step leaves, sealed: a catalog does not look into it.
fn left(n: u8) -> SealedSecret {
    SealedSecret(vec![n, 0xff, 0])
}

pub async fn steps_are_logged_once_and_survive_attempts(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let first = claim(catalog, 10).await.unwrap();
    catalog.log_step(&first, "capture", &left(1), at(11)).await.unwrap();
    catalog.log_step(&first, "capture", &left(2), at(12)).await.unwrap();
    let second = claim(catalog, 100).await.unwrap();
    catalog.log_step(&second, "verify", &left(3), at(101)).await.unwrap();
    let log = catalog.step_log(&second).await.unwrap();
    let seen: Vec<_> = log.iter().map(|s| (s.step.as_str(), s.attempt, &s.output)).collect();
    assert_eq!(seen, [("capture", 1, &left(1)), ("verify", 2, &left(3))]);
    catalog.unlog_step(&second, "verify").await.unwrap();
    catalog.unlog_step(&second, "verify").await.unwrap();
    assert_eq!(catalog.step_log(&second).await.unwrap().len(), 1);
    // An empty log would say that nothing was done yet.
    assert!(is_lost(catalog.step_log(&first).await));
    catalog.start_backup(&second, at(102)).await.unwrap();
    catalog.finish_backup(&second, &files(1, 7), ShrinkRule::default(), at(103)).await.unwrap();
    assert!(is_lost(catalog.step_log(&second).await));
}

pub async fn progress_never_goes_back(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    for (hundredths, shown) in [(1_000, 1_000), (500, 1_000), (5_000, 5_000)] {
        let progress = Progress::from_hundredths(hundredths);
        catalog
            .report_progress(&lease, progress, u64::from(hundredths), "receiving")
            .await
            .unwrap();
        let found = backup(catalog, 1).await;
        assert_eq!(found.progress.hundredths(), shown);
        assert_eq!(
            (found.received_bytes, found.phase.as_deref()),
            (u64::from(hundredths), Some("receiving"))
        );
    }
    // A second attempt begins again; what was shown stays.
    let lease = claim(catalog, 100).await.unwrap();
    catalog.start_backup(&lease, at(100)).await.unwrap();
    let found = backup(catalog, 1).await;
    assert_eq!((found.progress.hundredths(), found.started_at), (5_000, Some(at(10))));
}

pub async fn a_backup_that_succeeded_frees_its_instance(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let found = backup(catalog, 1).await;
    assert_eq!(
        (found.state, found.progress, found.size_bytes),
        (BackupState::Succeeded, Progress::DONE, 1001)
    );
    assert_eq!(
        (found.started_at, found.completed_at, found.phase.clone()),
        (Some(at(10)), Some(at(11)), None)
    );
    assert_eq!(found.stored_attempt, Some(1));
    assert!(found.is_restorable());
    let instance = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
    assert_eq!(instance.operation, None);
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Done);
    succeed(catalog, 2, 20).await;
}

pub async fn a_backup_that_failed_says_why(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    for code in FailureCode::ALL {
        let unstarted = Failure { code, reason: format!("because of {code:?}") };
        if code == FailureCode::ToolFailed {
            catalog.fail_backup(&lease, &unstarted, at(11)).await.unwrap();
            let found = backup(catalog, 1).await;
            assert_eq!(
                (found.state, found.failure.as_ref()),
                (BackupState::Failed, Some(&unstarted))
            );
            assert_eq!((found.completed_at, found.size_bytes), (Some(at(11)), 0));
            assert!(!found.is_restorable());
            continue;
        }
        let n = 10 + code as u8;
        catalog.request_backup(&new_backup(n, 1, 20)).await.unwrap();
        let lease = claim(catalog, 20).await.unwrap();
        catalog.start_backup(&lease, at(20)).await.unwrap();
        catalog.fail_backup(&lease, &unstarted, at(21)).await.unwrap();
        assert_eq!(backup(catalog, n).await.failure, Some(unstarted));
    }
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.last_error.as_deref()),
        (JobState::Failed, Some("because of ToolFailed"))
    );
}

pub async fn a_requeued_job_waits_for_its_time(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    catalog.requeue(&lease, Requeue::Failed, at(20), "the source is loading").await.unwrap();
    assert!(is_lost(catalog.extend_lease(&lease, at(99)).await));
    assert_eq!(claim(catalog, 19).await, None);
    let lease = claim(catalog, 20).await.unwrap();
    assert_eq!((lease.attempt, lease.failures), (2, 1));
    catalog.requeue(&lease, Requeue::Stopped, at(20), "the service was stopped").await.unwrap();
    let lease = claim(catalog, 20).await.unwrap();
    assert_eq!((lease.attempt, lease.failures), (3, 1));
    catalog.requeue(&lease, Requeue::Failed, at(20), "the source is loading").await.unwrap();
    let job = catalog.find_job(&project(1), job_id(1)).await.unwrap().unwrap();
    assert_eq!(job.last_error.as_deref(), Some("the source is loading"));
}

pub async fn a_removal_marks_runs_and_ends(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 10).await;
    let request = async |n| {
        catalog.request_removal(&project(1), instance_id(1), backup_id(1), job_id(n), at(20)).await
    };
    assert_eq!(request(8).await.unwrap(), job_id(8));
    assert_eq!(request(9).await.unwrap(), job_id(8));
    // Asking again makes a removal due at once that waits for its next attempt.
    let lease = claim_kind(catalog, JobKind::Remove, 20).await.unwrap();
    catalog.requeue(&lease, Requeue::Failed, at(500), "denied").await.unwrap();
    assert_eq!(request(9).await.unwrap(), job_id(8));
    let job = catalog.find_job(&project(1), job_id(8)).await.unwrap().unwrap();
    assert_eq!(job.last_error, None);
    let why = failure(FailureCode::RemovalFailed, "denied");
    assert_eq!(backup(catalog, 1).await.failure, Some(why));
    let marked = backup(catalog, 1).await;
    assert_eq!((marked.state, marked.is_restorable()), (BackupState::Succeeded, false));
    // Removing files does not need the instance for itself.
    catalog.request_backup(&new_backup(2, 1, 21)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Remove, 20).await.unwrap();
    assert_eq!((lease.kind, lease.job), (JobKind::Remove, job_id(8)));
    catalog.finish_removal(&lease, at(22)).await.unwrap();
    let removed = backup(catalog, 1).await;
    assert_eq!(
        (removed.state, removed.removed_at, removed.completed_at),
        (BackupState::Deleted, Some(at(22)), Some(at(11)))
    );
    assert_eq!(removed.failure, None);
    let again = request(10).await;
    assert!(matches!(again, Err(CatalogError::NotFound(_))), "{again:?}");
    let elsewhere = catalog
        .request_removal(&project(1), instance_id(2), backup_id(2), job_id(11), at(23))
        .await;
    assert!(matches!(elsewhere, Err(CatalogError::NotFound(_))), "{elsewhere:?}");
}

pub async fn a_running_backup_is_not_removed(catalog: &impl Catalog) {
    prepare(catalog).await;
    catalog.request_backup(&new_backup(1, 1, 10)).await.unwrap();
    let request = async || {
        catalog.request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(20)).await
    };
    assert!(matches!(request().await, Err(CatalogError::State(_))));
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(10)).await.unwrap();
    assert!(matches!(request().await, Err(CatalogError::State(_))));
    let failure = Failure { code: FailureCode::ToolFailed, reason: "x".into() };
    catalog.fail_backup(&lease, &failure, at(11)).await.unwrap();
    request().await.unwrap();
}

pub async fn a_clock_that_goes_back_breaks_nothing(catalog: &impl Catalog) {
    prepare(catalog).await;
    succeed(catalog, 1, 1000).await;
    catalog.request_backup(&new_backup(2, 1, 10)).await.unwrap();
    let lease = claim(catalog, 5).await;
    assert_eq!(lease, None, "not due before it was asked for");
    let lease = claim(catalog, 10).await.unwrap();
    catalog.start_backup(&lease, at(9)).await.unwrap();
    catalog.finish_backup(&lease, &files(1, 1), ShrinkRule::default(), at(8)).await.unwrap();
    assert_eq!(backup(catalog, 2).await.state, BackupState::Succeeded);
}
