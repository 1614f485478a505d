//! Drills, and what they prove.

use cachevault_domain::{
    Backup, BackupFilter, DrillFailure, FailureCode, Instance, InstanceFilter, JobKind, JobState,
    NewBackup, Progress, Proof, ProvenBackup, Requeue, ShrinkRule, TargetData,
};

use super::identity::open_project;
use super::{
    ALL, at, backup, backup_id, begin_drill, begin_restore, claim, claim_kind, failure, files,
    instance, instance_id, is_lost, job_id, new_backup, new_restore, operation, outcome, prepare,
    prepare_restore, project, prove, request_drill, safety, succeed, succeed_opaque, to_drill,
};
use crate::{Catalog, CatalogError};

pub async fn a_requested_drill_waits_and_its_backup_shows_it(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = backup(catalog, 1).await;
    assert_eq!((&before.proof, &before.drill_failure, before.drilling), (&None, &None, false));
    assert_eq!(request_drill(catalog, 1, 5, 20).await.unwrap(), job_id(5));
    assert_eq!(backup(catalog, 1).await, Backup { drilling: true, ..before.clone() });
    let all = BackupFilter::default();
    let listing = catalog.list_backups(&project(1), instance_id(1), &all, ALL).await.unwrap();
    assert!(listing.items[0].drilling);
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!((job.kind, job.state, job.attempt), (JobKind::Drill, JobState::Queued, 0));
    assert_eq!((job.instance, job.backup), (instance_id(1), backup_id(1)));
    assert_eq!(claim(catalog, 20).await, None, "it is no capture");
    assert_eq!(claim_kind(catalog, JobKind::Drill, 19).await, None);
    let lease = claim_kind(catalog, JobKind::Drill, 20).await.unwrap();
    assert_eq!((lease.kind, lease.job, lease.attempt), (JobKind::Drill, job_id(5), 1));
    assert_eq!((lease.instance, lease.backup), (instance_id(1), backup_id(1)));
    assert!(backup(catalog, 1).await.drilling);
}

pub async fn a_drill_that_is_open_is_asked_for_once(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed(catalog, 2, 12).await;
    assert_eq!(request_drill(catalog, 1, 5, 20).await.unwrap(), job_id(5));
    assert_eq!(request_drill(catalog, 1, 6, 20).await.unwrap(), job_id(5));
    let lease = claim_kind(catalog, JobKind::Drill, 20).await.unwrap();
    assert_eq!(request_drill(catalog, 1, 6, 21).await.unwrap(), job_id(5));
    assert_eq!(claim_kind(catalog, JobKind::Drill, 21).await, None, "the lease still holds");
    // Asking again makes a drill due at once that waits for its next attempt.
    catalog.requeue(&lease, Requeue::Failed, at(500), "no server to be had").await.unwrap();
    assert_eq!(request_drill(catalog, 1, 6, 22).await.unwrap(), job_id(5));
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!(job.last_error, None);
    let lease = claim_kind(catalog, JobKind::Drill, 22).await.unwrap();
    assert_eq!((lease.job, lease.attempt, lease.failures), (job_id(5), 2, 1));
    // Another backup has a drill of its own, and so has this one once the first has ended.
    assert_eq!(request_drill(catalog, 2, 7, 23).await.unwrap(), job_id(7));
    catalog.finish_drill(&lease, "redis 7.0.15", 0, at(24)).await.unwrap();
    assert_eq!(request_drill(catalog, 1, 8, 25).await.unwrap(), job_id(8));
    assert_eq!(catalog.find_job(&project(1), job_id(6)).await.unwrap(), None);
}

pub async fn a_backup_without_files_is_not_drilled(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let refused = async |backup, why: &str| {
        let outcome = request_drill(catalog, backup, 5, 30).await;
        assert!(matches!(outcome, Err(CatalogError::NotRestorable)), "{why}: {outcome:?}");
    };
    let unknown = request_drill(catalog, 9, 5, 30).await;
    assert!(matches!(unknown, Err(CatalogError::NotFound("backup"))), "{unknown:?}");
    let foreign = catalog.request_drill(&project(2), backup_id(1), job_id(5), at(30)).await;
    assert!(matches!(foreign, Err(CatalogError::NotFound("backup"))), "{foreign:?}");
    catalog.request_backup(&new_backup(2, 1, 20)).await.unwrap();
    refused(2, "waiting").await;
    let lease = claim(catalog, 20).await.unwrap();
    catalog.start_backup(&lease, at(20)).await.unwrap();
    refused(2, "running").await;
    let why = failure(FailureCode::ToolFailed, "x");
    catalog.fail_backup(&lease, &why, at(21)).await.unwrap();
    refused(2, "failed").await;
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(22))
        .await
        .unwrap();
    refused(1, "about to be removed").await;
    let lease = claim_kind(catalog, JobKind::Remove, 22).await.unwrap();
    catalog.finish_removal(&lease, at(23)).await.unwrap();
    refused(1, "removed").await;
    catalog.remove_instance(&project(1), instance_id(1), at(24)).await.unwrap();
    refused(1, "removed, and so is its instance").await;
    assert_eq!(claim_kind(catalog, JobKind::Drill, 99).await, None);
}

pub async fn an_opaque_backup_is_not_drilled(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed_opaque(catalog, 2, 20).await;
    let refused = request_drill(catalog, 2, 5, 30).await;
    assert!(matches!(refused, Err(CatalogError::NotRestorable)), "{refused:?}");
    assert_eq!(to_drill(catalog, 100, 10).await, [1], "the newest one that can be proven");
    assert_eq!(request_drill(catalog, 1, 6, 30).await.unwrap(), job_id(6));
}

pub async fn a_drill_keeps_nobody_from_the_instance(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_drill(catalog, 1, 5, 20).await;
    assert_eq!(operation(catalog, 1).await, None, "it does not need the instance");
    catalog.request_backup(&new_backup(2, 1, 21)).await.unwrap();
    catalog.request_restore(&new_restore(6, 2, 1, 21)).await.unwrap();
    assert_eq!(operation(catalog, 1).await, Some(JobKind::Capture));
    // Nor do they keep it out.
    catalog.finish_drill(&lease, "redis 7.0.15", 0, at(22)).await.unwrap();
    begin_drill(catalog, 1, 7, 23).await;
}

pub async fn a_backup_that_is_being_drilled_is_not_removed(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed(catalog, 2, 12).await;
    let request = async |backup, job| {
        catalog
            .request_removal(&project(1), instance_id(1), backup_id(backup), job_id(job), at(30))
            .await
    };
    let is_busy = |outcome| matches!(outcome, Err(CatalogError::Busy(JobKind::Drill)));
    request_drill(catalog, 1, 5, 20).await.unwrap();
    assert!(is_busy(request(1, 9).await), "the drill waits");
    let lease = claim_kind(catalog, JobKind::Drill, 20).await.unwrap();
    assert!(is_busy(request(1, 9).await), "the drill runs");
    catalog.requeue(&lease, Requeue::Failed, at(25), "no server to be had").await.unwrap();
    assert!(is_busy(request(1, 9).await), "the drill waits for its next attempt");
    assert!(backup(catalog, 1).await.is_restorable());
    let busy = catalog.remove_instance(&project(1), instance_id(1), at(21)).await;
    assert!(matches!(busy, Err(CatalogError::Busy(JobKind::Drill))), "{busy:?}");
    assert_eq!(request(2, 8).await.unwrap(), job_id(8), "that one is not being drilled");
    let lease = claim_kind(catalog, JobKind::Drill, 25).await.unwrap();
    catalog.fail_drill(&lease, "no server to be had", at(26)).await.unwrap();
    assert_eq!(request(1, 9).await.unwrap(), job_id(9));
}

pub async fn a_drill_that_succeeded_proves_its_backup(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = backup(catalog, 1).await;
    let lease = begin_drill(catalog, 1, 5, 20).await;
    catalog.fail_drill(&lease, "a key is missing", at(21)).await.unwrap();
    let lease = begin_drill(catalog, 1, 6, 30).await;
    assert!(backup(catalog, 1).await.drill_failure.is_some(), "until it is proven");
    catalog.finish_drill(&lease, "redis 7.0.15", 12_345_678_901, at(31)).await.unwrap();
    let server = "redis 7.0.15".to_owned();
    let proof = Some(Proof { at: at(31), server, uncompared: 12_345_678_901 });
    assert_eq!(backup(catalog, 1).await, Backup { proof, ..before.clone() });
    let job = catalog.find_job(&project(1), job_id(6)).await.unwrap().unwrap();
    assert_eq!((job.state, job.last_error), (JobState::Done, None));
    // The newest proof counts; a long name is cut, by characters.
    let lease = begin_drill(catalog, 1, 7, 40).await;
    catalog.finish_drill(&lease, &"é".repeat(65), 0, at(41)).await.unwrap();
    let proof = Some(Proof { at: at(41), server: "é".repeat(64), uncompared: 0 });
    let proven = Backup { proof, ..before };
    assert_eq!(backup(catalog, 1).await, proven);
    let all = BackupFilter::default();
    let listing = catalog.list_backups(&project(1), instance_id(1), &all, ALL).await.unwrap();
    assert_eq!(listing.items, [proven]);
}

pub async fn a_drill_that_failed_says_why(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let before = backup(catalog, 1).await;
    let failed =
        |seconds, reason: &str| Some(DrillFailure { at: at(seconds), reason: reason.into() });
    let lease = begin_drill(catalog, 1, 5, 20).await;
    catalog.fail_drill(&lease, "a key is missing", at(21)).await.unwrap();
    let drill_failure = failed(21, "a key is missing");
    assert_eq!(backup(catalog, 1).await, Backup { drill_failure, ..before.clone() });
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.last_error.as_deref()),
        (JobState::Failed, Some("a key is missing"))
    );
    // A later failure takes the place of the first, and leaves what was proven between them.
    let lease = begin_drill(catalog, 1, 6, 30).await;
    catalog.finish_drill(&lease, "redis 7.0.15", 0, at(31)).await.unwrap();
    let proof = backup(catalog, 1).await.proof;
    assert!(proof.is_some());
    let lease = begin_drill(catalog, 1, 7, 40).await;
    catalog.fail_drill(&lease, "the server went away", at(41)).await.unwrap();
    let drill_failure = failed(41, "the server went away");
    assert_eq!(backup(catalog, 1).await, Backup { proof, drill_failure, ..before });
}

pub async fn a_stale_driller_can_write_nothing(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let stale = begin_drill(catalog, 1, 5, 20).await;
    let fresh = claim_kind(catalog, JobKind::Drill, 100).await.unwrap();
    let before = backup(catalog, 1).await;
    assert!(is_lost(catalog.finish_drill(&stale, "late", 0, at(101)).await));
    assert!(is_lost(catalog.fail_drill(&stale, "late", at(101)).await));
    assert_eq!(backup(catalog, 1).await, before);
    catalog.finish_drill(&fresh, "redis 7.0.15", 0, at(102)).await.unwrap();
    // The end of the job is the end of its lease.
    let proven = backup(catalog, 1).await;
    assert!(is_lost(catalog.finish_drill(&fresh, "again", 0, at(103)).await));
    assert!(is_lost(catalog.fail_drill(&fresh, "again", at(103)).await));
    assert_eq!(backup(catalog, 1).await, proven);
}

pub async fn only_a_drill_writes_what_was_proven(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    succeed(catalog, 2, 12).await;
    let refused = |outcome: Result<(), CatalogError>| {
        assert!(matches!(outcome, Err(CatalogError::NotFound(_))), "{outcome:?}");
    };
    let restoring = begin_restore(catalog, 5, 2, 20).await;
    catalog.request_backup(&new_backup(3, 1, 20)).await.unwrap();
    let capturing = claim(catalog, 20).await.unwrap();
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(2), job_id(9), at(20))
        .await
        .unwrap();
    let removing = claim_kind(catalog, JobKind::Remove, 20).await.unwrap();
    for lease in [&restoring, &capturing, &removing] {
        refused(catalog.finish_drill(lease, "redis 7.0.15", 0, at(21)).await);
        refused(catalog.fail_drill(lease, "x", at(21)).await);
    }
    for n in 1..=3 {
        let found = backup(catalog, n).await;
        assert_eq!((found.proof, found.drill_failure), (None, None));
    }
    let drilling = begin_drill(catalog, 1, 6, 20).await;
    let before = backup(catalog, 1).await;
    let (why, end) = (failure(FailureCode::ToolFailed, "x"), outcome(TargetData::New));
    refused(catalog.start_backup(&drilling, at(21)).await);
    refused(catalog.report_progress(&drilling, Progress::NONE, 1, "x").await);
    refused(catalog.finish_backup(&drilling, &files(9, 9), ShrinkRule::default(), at(21)).await);
    refused(catalog.fail_backup(&drilling, &why, at(21)).await);
    refused(catalog.finish_removal(&drilling, at(21)).await);
    refused(catalog.restore_of(&drilling).await.map(drop));
    refused(catalog.start_restore(&drilling, at(21)).await);
    refused(catalog.begin_safety_backup(&drilling, &safety(4, 21), at(21)).await.map(drop));
    refused(catalog.finish_restore(&drilling, &end, at(21)).await);
    refused(catalog.fail_restore(&drilling, &why, &end, at(21)).await);
    assert_eq!(backup(catalog, 1).await, before);
    for (n, kind) in
        [(5, JobKind::Restore), (3, JobKind::Capture), (9, JobKind::Remove), (6, JobKind::Drill)]
    {
        let job = catalog.find_job(&project(1), job_id(n)).await.unwrap().unwrap();
        assert_eq!((job.kind, job.state), (kind, JobState::Leased));
    }
}

pub async fn an_instance_shows_the_proven_backup_created_last(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    // Two of them in the same moment: the one recorded last counts.
    for (n, seconds) in [(2, 20), (3, 20), (4, 30)] {
        succeed(catalog, n, seconds).await;
    }
    let shown = async || {
        let found = catalog.find_instance(&project(1), instance_id(1)).await.unwrap().unwrap();
        let all = InstanceFilter::default();
        let listing = catalog.list_instances(&project(1), &all, ALL).await.unwrap();
        let seen = catalog.instances_seen_before(at(1000), 10).await.unwrap();
        assert_eq!((listing.items.len(), listing.total, seen.len()), (2, 2, 2));
        for instance in listing.items.iter().chain(&seen) {
            let expected = if instance.id == found.id { found.proven } else { None };
            assert_eq!(instance.proven, expected, "{}", instance.name);
        }
        found.proven
    };
    let proven = |n, created, proven| {
        let backup = backup_id(n);
        Some(ProvenBackup { backup, created_at: at(created), proof_at: at(proven) })
    };
    assert_eq!(shown().await, None);
    prove(catalog, 3, 40).await;
    assert_eq!(shown().await, proven(3, 20, 40));
    // What is older stays behind, whenever it was proven.
    prove(catalog, 2, 50).await;
    prove(catalog, 1, 60).await;
    assert_eq!(shown().await, proven(3, 20, 40));
    prove(catalog, 3, 70).await;
    assert_eq!(shown().await, proven(3, 20, 70));
    // A drill that failed proves nothing, and takes nothing away.
    for n in [3, 4] {
        let lease = begin_drill(catalog, n, 100 + n, 80).await;
        catalog.fail_drill(&lease, "no server to be had", at(81)).await.unwrap();
    }
    assert_eq!(shown().await, proven(3, 20, 70));
    // From the wish to remove it on, nobody can go back to it.
    let remove = async |n| {
        catalog
            .request_removal(&project(1), instance_id(1), backup_id(n), job_id(200), at(90))
            .await
            .unwrap()
    };
    remove(3).await;
    assert_eq!(shown().await, proven(2, 20, 50));
    let lease = claim_kind(catalog, JobKind::Remove, 90).await.unwrap();
    catalog.finish_removal(&lease, at(91)).await.unwrap();
    assert_eq!(shown().await, proven(2, 20, 50));
    assert!(backup(catalog, 3).await.proof.is_some(), "its history stays");
}

pub async fn the_newest_backup_is_due_for_a_drill(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let due = async |before| to_drill(catalog, before, 10).await;
    assert_eq!(due(0).await, [1], "never proven, whenever that was");
    succeed(catalog, 2, 20).await;
    succeed(catalog, 3, 20).await;
    assert_eq!(due(100).await, [3], "one of each instance");
    // What has no files, or not for long, does not count.
    catalog.request_backup(&new_backup(4, 1, 30)).await.unwrap();
    assert_eq!(due(100).await, [3], "waiting");
    let lease = claim(catalog, 30).await.unwrap();
    catalog.start_backup(&lease, at(30)).await.unwrap();
    assert_eq!(due(100).await, [3], "running");
    catalog.fail_backup(&lease, &failure(FailureCode::ToolFailed, "x"), at(31)).await.unwrap();
    assert_eq!(due(100).await, [3], "failed");
    let remove = async |n| {
        catalog
            .request_removal(&project(1), instance_id(1), backup_id(n), job_id(200 + n), at(40))
            .await
            .unwrap()
    };
    remove(3).await;
    assert_eq!(due(100).await, [2], "about to be removed");
    let lease = claim_kind(catalog, JobKind::Remove, 40).await.unwrap();
    catalog.finish_removal(&lease, at(41)).await.unwrap();
    assert_eq!(due(100).await, [2], "removed");
    // While a drill of the instance is open there is no second one, of whichever backup.
    request_drill(catalog, 1, 5, 50).await.unwrap();
    assert_eq!(due(100).await, [], "queued");
    let lease = claim_kind(catalog, JobKind::Drill, 50).await.unwrap();
    assert_eq!(due(100).await, [], "leased");
    catalog.finish_drill(&lease, "redis 7.0.15", 0, at(51)).await.unwrap();
    assert_eq!(due(0).await, [2], "it is the other one that was proven");
    prove(catalog, 2, 60).await;
    assert_eq!(due(60).await, []);
    assert_eq!(due(61).await, [2]);
    let lease = begin_drill(catalog, 2, 6, 70).await;
    catalog.fail_drill(&lease, "a key is missing", at(71)).await.unwrap();
    assert_eq!(due(71).await, [], "what failed is not tried again at once");
    assert_eq!(due(72).await, [2]);
    // A new backup is due whatever was proven of the last.
    succeed(catalog, 7, 80).await;
    assert_eq!(due(0).await, [7]);
    // No backups, no drills; and none of what was removed.
    remove(1).await;
    remove(2).await;
    remove(7).await;
    while let Some(lease) = claim_kind(catalog, JobKind::Remove, 90).await {
        catalog.finish_removal(&lease, at(91)).await.unwrap();
    }
    assert_eq!(due(1000).await, []);
    catalog.remove_instance(&project(1), instance_id(1), at(92)).await.unwrap();
    assert_eq!(due(1000).await, []);
}

pub async fn the_instance_drilled_longest_ago_comes_first(catalog: &impl Catalog) {
    prepare(catalog).await;
    open_project(catalog, 2).await;
    for n in 2..=3 {
        catalog.add_instance(&instance(n, &format!("name{n}"))).await.unwrap();
    }
    let foreign = Instance { project: project(2), ..instance(4, "foreign") };
    catalog.add_instance(&foreign).await.unwrap();
    let succeed_of = async |backup: NewBackup, seconds| {
        catalog.request_backup(&backup).await.unwrap();
        let lease = claim(catalog, seconds).await.unwrap();
        catalog.start_backup(&lease, at(seconds)).await.unwrap();
        catalog
            .finish_backup(&lease, &files(1, 1), ShrinkRule::default(), at(seconds + 1))
            .await
            .unwrap();
    };
    succeed_of(new_backup(1, 1, 40), 40).await;
    succeed_of(new_backup(2, 2, 30), 30).await;
    succeed_of(new_backup(3, 3, 20), 20).await;
    succeed_of(NewBackup { project: project(2), ..new_backup(4, 4, 10) }, 10).await;
    // Without any drill the oldest backup comes first; all projects take part.
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 3, 2, 1]);
    assert_eq!(to_drill(catalog, 100, 2).await, [4, 3]);
    let found = catalog.backups_to_drill(at(100), 2).await.unwrap();
    assert_eq!(found, [(project(2), backup_id(4)), (project(1), backup_id(3))]);
    prove(catalog, 3, 50).await;
    prove(catalog, 1, 60).await;
    let lease = begin_drill(catalog, 2, 102, 55).await;
    catalog.fail_drill(&lease, "a key is missing", at(55)).await.unwrap();
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 3, 2, 1]);
    assert_eq!(to_drill(catalog, 56, 10).await, [4, 3, 2]);
    // The last drill of the instance counts, of whichever backup: who makes many waits in turn.
    succeed_of(new_backup(5, 3, 70), 70).await;
    succeed_of(new_backup(6, 1, 65), 65).await;
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 5, 2, 6]);
    prove(catalog, 5, 80).await;
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 2, 6, 5]);
    // A drill that failed is a drill too.
    let lease = begin_drill(catalog, 2, 103, 90).await;
    catalog.fail_drill(&lease, "a key is missing", at(90)).await.unwrap();
    assert_eq!(to_drill(catalog, 100, 10).await, [4, 6, 5, 2]);
}
