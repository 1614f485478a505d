//! Restores, with the safety backups that they make.

use cachevault_domain::{
    Attempt, Backup, BackupState, ConflictRule, ContentState, FailureCode, Instance, JobKind,
    JobState, KeyFilter, NewRestore, Page, Progress, RdbDialect, Requeue, Restore, RestoreFilter,
    RestoreOptions, RestoreOutcome, RestoreState, RestoreWay, ShrinkRule, TargetData, Trigger,
    TtlRule,
};

use super::identity::open_project;
use super::{
    ALL, at, backup, backup_id, begin_restore, claim, claim_kind, failure, files, instance,
    instance_id, is_lost, job_id, new_backup, new_restore, opaque_files, operation, outcome,
    prepare_restore, project, restore, restore_id, restored, safety, succeed_opaque,
};
use crate::{Catalog, CatalogError};

pub async fn a_requested_restore_waits_and_its_target_shows_it(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    let expected = Restore {
        id: restore_id(5),
        project: project(1),
        instance: instance_id(2),
        backup: backup_id(1),
        backup_created_at: at(10),
        backup_note: Some("nächtlich 🌙".parse().unwrap()),
        source_instance: instance_id(1),
        source_instance_name: "one".parse().unwrap(),
        options: RestoreOptions::default(),
        note: Some("zurück 🌅".parse().unwrap()),
        state: RestoreState::Waiting,
        progress: Progress::NONE,
        phase: None,
        failure: None,
        cancellation: None,
        attempt: Some(Attempt { number: 0, last_error: None }),
        touched_at: None,
        safety_backup: None,
        outcome: None,
        created_at: at(20),
        started_at: None,
        completed_at: None,
    };
    assert_eq!(restore(catalog, 5).await, expected);
    assert_eq!(operation(catalog, 2).await, Some(JobKind::Restore));
    assert_eq!(operation(catalog, 1).await, None, "its backup is read, not the instance");
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!((job.kind, job.state, job.attempt), (JobKind::Restore, JobState::Queued, 0));
    assert_eq!((job.instance, job.backup), (instance_id(2), backup_id(1)));
    assert_eq!(claim(catalog, 20).await, None, "it is no capture");
    let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
    assert_eq!((lease.kind, lease.job, lease.attempt), (JobKind::Restore, job_id(5), 1));
    let attempt = Some(Attempt { number: 1, last_error: None });
    let expected = Restore { attempt, ..expected };
    assert_eq!(catalog.restore_of(&lease).await.unwrap(), expected);
    catalog.start_restore(&lease, at(21)).await.unwrap();
    let running =
        Restore { state: RestoreState::Running, started_at: Some(at(21)), ..expected.clone() };
    assert_eq!(catalog.restore_of(&lease).await.unwrap(), running);
}

pub async fn every_option_of_a_restore_reads_back_as_it_was_asked_for(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let everything = RestoreOptions {
        way: Some(RestoreWay::Keys),
        safety_backup: false,
        prove: Some(true),
        swap: Some(false),
        ttl: TtlRule::Shift,
        filter: KeyFilter { pattern: Some("user:*é".into()), database: Some(u32::MAX) },
        conflict: ConflictRule::Fail,
        unverified: true,
        needed_bytes: Some(3 << 40),
    };
    let mut wishes = vec![everything, RestoreOptions::default()];
    for way in RestoreWay::ALL {
        wishes.push(RestoreOptions { way: Some(way), ..RestoreOptions::default() });
    }
    for ttl in TtlRule::ALL {
        wishes.push(RestoreOptions { ttl, ..RestoreOptions::default() });
    }
    for conflict in ConflictRule::ALL {
        wishes.push(RestoreOptions { conflict, ..RestoreOptions::default() });
    }
    for answer in [true, false] {
        let (prove, swap) = (Some(answer), Some(!answer));
        wishes.push(RestoreOptions { prove, swap, ..RestoreOptions::default() });
    }
    let filter = KeyFilter { pattern: Some(String::new()), database: Some(0) };
    wishes.push(RestoreOptions { filter, ..RestoreOptions::default() });
    for (n, options) in (20..).zip(wishes) {
        let asked = NewRestore { options: options.clone(), ..new_restore(n, 2, 1, 20) };
        catalog.request_restore(&NewRestore { note: None, ..asked }).await.unwrap();
        let found = restore(catalog, n).await;
        assert_eq!((found.options, found.note), (options, None));
        let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
        let late = failure(FailureCode::TimedOut, "late");
        let untouched = outcome(TargetData::Untouched);
        catalog.fail_restore(&lease, &late, &untouched, at(21)).await.unwrap();
    }
}

pub async fn a_restore_needs_its_target_and_its_backup(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    open_project(catalog, 2).await;
    let foreign = Instance { project: project(2), ..instance(7, "foreign") };
    catalog.add_instance(&foreign).await.unwrap();
    catalog.add_instance(&instance(3, "three")).await.unwrap();
    catalog.remove_instance(&project(1), instance_id(3), at(11)).await.unwrap();
    for (what, wish) in [
        ("instance", new_restore(5, 9, 1, 20)),
        ("instance", new_restore(5, 7, 1, 20)),
        ("instance", new_restore(5, 3, 1, 20)),
        ("backup", new_restore(5, 2, 9, 20)),
        ("backup", NewRestore { project: project(2), ..new_restore(5, 7, 1, 20) }),
    ] {
        let refused = catalog.request_restore(&wish).await;
        assert!(matches!(refused, Err(CatalogError::NotFound(n)) if n == what), "{refused:?}");
    }
    assert_eq!(claim_kind(catalog, JobKind::Restore, 30).await, None);
    assert_eq!(catalog.find_restore(&project(1), restore_id(5)).await.unwrap(), None);
}

pub async fn a_backup_without_files_is_not_restored(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let refused = async |backup, why: &str| {
        let outcome = catalog.request_restore(&new_restore(5, 2, backup, 30)).await;
        assert!(matches!(outcome, Err(CatalogError::NotRestorable)), "{why}: {outcome:?}");
    };
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
    assert_eq!(claim_kind(catalog, JobKind::Restore, 99).await, None);
}

pub async fn an_opaque_backup_is_restored_only_where_that_is_asked_for(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    assert_eq!(backup(catalog, 1).await.content, ContentState::Verified);
    succeed_opaque(catalog, 2, 20).await;
    let opaque = backup(catalog, 2).await;
    assert_eq!((opaque.state, opaque.content), (BackupState::Succeeded, ContentState::Opaque));
    assert!(!opaque.is_restorable() && opaque.is_restorable_unverified());
    let refused = catalog.request_restore(&new_restore(5, 2, 2, 30)).await;
    assert!(matches!(refused, Err(CatalogError::Unverified)), "{refused:?}");
    assert_eq!(catalog.find_restore(&project(1), restore_id(5)).await.unwrap(), None);
    assert_eq!(claim_kind(catalog, JobKind::Restore, 30).await, None);
    let options = RestoreOptions { unverified: true, ..RestoreOptions::default() };
    let asked = |n| NewRestore { options: options.clone(), ..new_restore(n, 2, 2, 31) };
    catalog.request_restore(&asked(6)).await.unwrap();
    assert!(restore(catalog, 6).await.options.unverified);
    let lease = claim_kind(catalog, JobKind::Restore, 31).await.unwrap();
    catalog.start_restore(&lease, at(31)).await.unwrap();
    // A safety backup may be opaque, too.
    catalog.begin_safety_backup(&lease, &safety(3, 32), at(32)).await.unwrap();
    catalog.finish_safety_backup(&lease, &opaque_files(1), at(33)).await.unwrap();
    assert_eq!(backup(catalog, 3).await.content, ContentState::Opaque);
    let why = failure(FailureCode::RestoreSyncFailed, "the target refused it");
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Old), at(34)).await.unwrap();
    // Damage is refused all the same.
    catalog.record_check(backup_id(2), 1, Some("gone"), at(40), at(41)).await.unwrap();
    let refused = catalog.request_restore(&asked(7)).await;
    assert!(matches!(refused, Err(CatalogError::NotRestorable)), "{refused:?}");
}

pub async fn a_restore_and_a_capture_keep_each_other_out(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.add_instance(&instance(3, "three")).await.unwrap();
    // A capture keeps a restore out, queued and leased.
    catalog.request_backup(&new_backup(2, 2, 20)).await.unwrap();
    for _ in 0..2 {
        let restore = catalog.request_restore(&new_restore(5, 2, 1, 20)).await;
        assert!(matches!(restore, Err(CatalogError::Busy(JobKind::Capture))), "{restore:?}");
        claim(catalog, 20).await;
    }
    // A restore keeps out captures and restores; also between two attempts.
    let lease = begin_restore(catalog, 6, 1, 20).await;
    for _ in 0..2 {
        let capture = catalog.request_backup(&new_backup(3, 1, 21)).await;
        assert!(matches!(capture, Err(CatalogError::Busy(JobKind::Restore))), "{capture:?}");
        let second = catalog.request_restore(&new_restore(7, 1, 1, 21)).await;
        assert!(matches!(second, Err(CatalogError::Busy(JobKind::Restore))), "{second:?}");
        let _ = catalog.requeue(&lease, Requeue::Failed, at(500), "the target is loading").await;
    }
    assert_eq!(operation(catalog, 1).await, Some(JobKind::Restore));
    assert_eq!(operation(catalog, 2).await, Some(JobKind::Capture));
    // One backup may be read by several restores, and a restore of it does not keep its
    // instance.
    catalog.request_restore(&new_restore(8, 3, 1, 20)).await.unwrap();
}

pub async fn a_backup_that_a_restore_needs_is_not_removed(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let request = async |instance, backup| {
        catalog
            .request_removal(
                &project(1),
                instance_id(instance),
                backup_id(backup),
                job_id(9),
                at(30),
            )
            .await
    };
    let is_busy = |outcome| matches!(outcome, Err(CatalogError::Busy(JobKind::Restore)));
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    assert!(is_busy(request(1, 1).await), "the restore waits");
    let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
    catalog.start_restore(&lease, at(20)).await.unwrap();
    assert!(is_busy(request(1, 1).await), "the restore runs");
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    assert!(is_busy(request(2, 2).await), "the safety backup runs");
    catalog.finish_safety_backup(&lease, &files(1, 77), at(22)).await.unwrap();
    assert!(is_busy(request(2, 2).await), "the safety backup may have to be put back");
    assert!(backup(catalog, 1).await.is_restorable() && backup(catalog, 2).await.is_restorable());
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(23)).await.unwrap();
    assert_eq!(request(2, 2).await.unwrap(), job_id(9));
    let other =
        catalog.request_removal(&project(1), instance_id(1), backup_id(1), job_id(8), at(30)).await;
    assert_eq!(other.unwrap(), job_id(8));
}

pub async fn an_instance_that_is_being_restored_stays(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    let busy = catalog.remove_instance(&project(1), instance_id(2), at(21)).await;
    assert!(matches!(busy, Err(CatalogError::Busy(JobKind::Restore))), "{busy:?}");
    let source = catalog.remove_instance(&project(1), instance_id(1), at(21)).await;
    assert!(matches!(source, Err(CatalogError::HasBackups(1))), "{source:?}");
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(22)).await.unwrap();
    catalog.remove_instance(&project(1), instance_id(2), at(23)).await.unwrap();
    assert_eq!(restore(catalog, 5).await.instance, instance_id(2), "its history stays");
}

pub async fn no_project_sees_the_restores_of_another(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    assert_eq!(catalog.find_restore(&project(2), restore_id(5)).await.unwrap(), None);
    assert_eq!(catalog.find_restore(&project(1), restore_id(6)).await.unwrap(), None);
    let filter = RestoreFilter::default();
    let listing = catalog.list_restores(&project(2), instance_id(2), &filter, ALL).await.unwrap();
    assert_eq!((listing.items.len(), listing.total), (0, 0));
}

pub async fn restores_are_listed_newest_first_and_filtered(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let succeed_at = async |n, target, seconds| {
        let lease = begin_restore(catalog, n, target, seconds).await;
        catalog.finish_restore(&lease, &outcome(TargetData::New), at(seconds + 1)).await.unwrap();
    };
    // Two of them in the same moment: the order must still be total.
    for (n, seconds) in [(5, 20), (6, 30), (7, 30), (8, 40)] {
        succeed_at(n, 2, seconds).await;
    }
    // Into the instance that the backup copies: not in the list of the other.
    succeed_at(9, 1, 35).await;
    let all = RestoreFilter::default();
    let (ids, total) = restored(catalog, all, ALL).await;
    assert_eq!((ids.len(), total), (4, 4));
    assert_eq!((ids[0], ids[3]), (restore_id(8), restore_id(5)));
    let mut paged = Vec::new();
    for offset in 0..5 {
        let (page, total) = restored(catalog, all, Page { offset, limit: 1 }).await;
        assert_eq!(total, 4);
        paged.extend(page);
    }
    assert_eq!(paged, ids);
    assert_eq!(restored(catalog, all, Page { offset: u64::MAX, limit: 1000 }).await, (vec![], 4));
    let listing = catalog.list_restores(&project(1), instance_id(2), &all, ALL).await.unwrap();
    assert_eq!(listing.items[0], restore(catalog, 8).await);
    for (from, to, expected) in [
        (Some(40), Some(40), vec![8]),
        (Some(31), None, vec![8]),
        (None, Some(20), vec![5]),
        (None, Some(19), vec![]),
        (Some(41), None, vec![]),
    ] {
        let filter = RestoreFilter { created_from: from.map(at), created_to: to.map(at) };
        let expected: Vec<_> = expected.into_iter().map(restore_id).collect();
        let count = expected.len() as u64;
        assert_eq!(restored(catalog, filter, ALL).await, (expected, count), "{from:?} {to:?}");
    }
}

pub async fn a_stale_restorer_can_write_nothing(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let stale = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&stale, &safety(2, 20), at(20)).await.unwrap();
    let fresh = claim_kind(catalog, JobKind::Restore, 100).await.unwrap();
    let before = (restore(catalog, 5).await, backup(catalog, 2).await);
    let late = failure(FailureCode::TimedOut, "late");
    let end = outcome(TargetData::Uncertain);
    assert!(is_lost(catalog.restore_of(&stale).await));
    assert!(is_lost(catalog.start_restore(&stale, at(101)).await));
    assert!(is_lost(catalog.report_restore(&stale, Progress::ALMOST, "late").await));
    assert!(is_lost(catalog.begin_safety_backup(&stale, &safety(3, 101), at(101)).await));
    assert!(is_lost(catalog.finish_safety_backup(&stale, &files(1, 1), at(101)).await));
    assert!(is_lost(catalog.fail_safety_backup(&stale, &late, at(101)).await));
    assert!(is_lost(catalog.finish_restore(&stale, &end, at(101)).await));
    assert!(is_lost(catalog.fail_restore(&stale, &late, &end, at(101)).await));
    assert_eq!((restore(catalog, 5).await, backup(catalog, 2).await), before);
    assert_eq!(catalog.find_backup(&project(1), backup_id(3)).await.unwrap(), None);
    catalog.start_restore(&fresh, at(102)).await.unwrap();
    catalog.finish_restore(&fresh, &outcome(TargetData::New), at(103)).await.unwrap();
    // The end of the job is the end of its lease.
    assert!(is_lost(catalog.finish_restore(&fresh, &end, at(104)).await));
    assert!(is_lost(catalog.fail_restore(&fresh, &late, &end, at(104)).await));
    assert_eq!(restore(catalog, 5).await.outcome, Some(outcome(TargetData::New)));
}

pub async fn a_worker_writes_only_what_its_job_is_about(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let restoring = begin_restore(catalog, 5, 2, 20).await;
    let why = failure(FailureCode::ToolFailed, "x");
    let end = outcome(TargetData::New);
    let refused = |outcome: Result<(), CatalogError>| {
        assert!(matches!(outcome, Err(CatalogError::NotFound(_))), "{outcome:?}");
    };
    // The backup in the lease of a restore is the one that it reads.
    let before = backup(catalog, 1).await;
    refused(catalog.start_backup(&restoring, at(21)).await);
    refused(catalog.report_progress(&restoring, Progress::NONE, 1, "x").await);
    refused(catalog.finish_backup(&restoring, &files(9, 9), ShrinkRule::default(), at(21)).await);
    refused(catalog.fail_backup(&restoring, &why, at(21)).await);
    refused(catalog.finish_removal(&restoring, at(21)).await);
    assert_eq!(backup(catalog, 1).await, before);
    catalog.request_backup(&new_backup(3, 1, 22)).await.unwrap();
    let capturing = claim(catalog, 22).await.unwrap();
    refused(catalog.restore_of(&capturing).await.map(drop));
    refused(catalog.start_restore(&capturing, at(23)).await);
    refused(catalog.report_restore(&capturing, Progress::NONE, "x").await);
    refused(catalog.begin_safety_backup(&capturing, &safety(4, 23), at(23)).await.map(drop));
    refused(catalog.finish_safety_backup(&capturing, &files(1, 1), at(23)).await);
    refused(catalog.fail_safety_backup(&capturing, &why, at(23)).await);
    refused(catalog.finish_restore(&capturing, &end, at(23)).await);
    refused(catalog.fail_restore(&capturing, &why, &end, at(23)).await);
    for (n, kind) in [(5, JobKind::Restore), (3, JobKind::Capture)] {
        let job = catalog.find_job(&project(1), job_id(n)).await.unwrap().unwrap();
        assert_eq!((job.kind, job.state), (kind, JobState::Leased));
    }
}

pub async fn the_progress_of_a_restore_never_goes_back(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    for (hundredths, shown) in [(1_000, 1_000), (500, 1_000), (5_000, 5_000)] {
        let progress = Progress::from_hundredths(hundredths);
        catalog.report_restore(&lease, progress, &format!("at {hundredths}")).await.unwrap();
        let found = restore(catalog, 5).await;
        assert_eq!(found.progress.hundredths(), shown);
        assert_eq!(found.phase, Some(format!("at {hundredths}")));
    }
    // A second attempt begins again; what was shown stays.
    let lease = claim_kind(catalog, JobKind::Restore, 100).await.unwrap();
    catalog.start_restore(&lease, at(100)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!((found.progress.hundredths(), found.started_at), (5_000, Some(at(20))));
}

pub async fn a_safety_backup_is_begun_once_and_ends_once(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    let none = catalog.finish_safety_backup(&lease, &files(1, 77), at(21)).await;
    assert!(matches!(none, Err(CatalogError::NotFound("safety backup"))), "{none:?}");
    let begun = catalog.begin_safety_backup(&lease, &safety(2, 21), at(22)).await.unwrap();
    assert_eq!(begun, backup_id(2));
    let running = backup(catalog, 2).await;
    assert_eq!(
        (running.instance, running.state, running.trigger, running.dialect),
        (instance_id(2), BackupState::Running, Trigger::Safety, RdbDialect::Native)
    );
    assert_eq!((running.created_at, running.started_at), (at(21), Some(at(22))));
    assert_eq!(running.note, safety(2, 21).note);
    assert_eq!(restore(catalog, 5).await.safety_backup, Some(backup_id(2)));
    // Another attempt goes on with the one that is there, whatever it proposes.
    let lease = claim_kind(catalog, JobKind::Restore, 100).await.unwrap();
    for n in [2, 3] {
        let again = catalog.begin_safety_backup(&lease, &safety(n, 101), at(101)).await.unwrap();
        assert_eq!(again, backup_id(2));
    }
    let there = backup(catalog, 2).await;
    assert_eq!(there.attempt.as_ref().map(|attempt| attempt.number), Some(2));
    assert_eq!(Backup { attempt: running.attempt.clone(), ..there }, running);
    assert_eq!(catalog.find_backup(&project(1), backup_id(3)).await.unwrap(), None);
    catalog.finish_safety_backup(&lease, &files(2, 77), at(102)).await.unwrap();
    let succeeded = backup(catalog, 2).await;
    assert_eq!(
        (succeeded.state, succeeded.size_bytes, succeeded.stored_attempt, succeeded.completed_at),
        (BackupState::Succeeded, 77, Some(2), Some(at(102)))
    );
    catalog.finish_safety_backup(&lease, &files(3, 78), at(103)).await.unwrap();
    let late = failure(FailureCode::TimedOut, "late");
    let refused = catalog.fail_safety_backup(&lease, &late, at(103)).await;
    assert!(matches!(refused, Err(CatalogError::State(_))), "{refused:?}");
    assert_eq!(backup(catalog, 2).await, succeeded);
    // The job went on all the time.
    assert_eq!(restore(catalog, 5).await.state, RestoreState::Running);
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(104)).await.unwrap();
    assert_eq!(backup(catalog, 2).await, succeeded);
}

pub async fn a_safety_backup_that_failed_stays_so(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    let why = failure(FailureCode::StoreUnusable, "the disk is full");
    catalog.fail_safety_backup(&lease, &why, at(22)).await.unwrap();
    let failed = backup(catalog, 2).await;
    assert_eq!((failed.state, failed.failure.as_ref()), (BackupState::Failed, Some(&why)));
    let later = failure(FailureCode::TimedOut, "later");
    catalog.fail_safety_backup(&lease, &later, at(23)).await.unwrap();
    let refused = catalog.finish_safety_backup(&lease, &files(1, 77), at(23)).await;
    assert!(matches!(refused, Err(CatalogError::State(_))), "{refused:?}");
    let again = catalog.begin_safety_backup(&lease, &safety(3, 23), at(23)).await.unwrap();
    assert_eq!(again, backup_id(2));
    let untouched = outcome(TargetData::Untouched);
    catalog.fail_restore(&lease, &later, &untouched, at(24)).await.unwrap();
    assert_eq!(backup(catalog, 2).await, failed);
}

pub async fn only_a_safety_backup_that_succeeded_tells_a_size(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let sizes = async || {
        let [source, target] = [1, 2].map(instance_id);
        (catalog.last_size(source).await.unwrap(), catalog.last_size(target).await.unwrap())
    };
    let why = failure(FailureCode::ToolFailed, "x");
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), None));
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Untouched), at(22)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), None));
    let lease = begin_restore(catalog, 6, 2, 30).await;
    catalog.begin_safety_backup(&lease, &safety(3, 31), at(31)).await.unwrap();
    catalog.finish_safety_backup(&lease, &files(1, 77), at(32)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), Some(77)));
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(33)).await.unwrap();
    assert_eq!(sizes().await, (Some(1001), Some(77)));
}

pub async fn a_restore_that_succeeded_frees_its_target(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.report_restore(&lease, Progress::from_hundredths(300), "loading").await.unwrap();
    // One that was given up half-way does not run for ever.
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    catalog.finish_restore(&lease, &outcome(TargetData::New), at(22)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!(
        (found.state, found.progress, found.phase, found.failure),
        (RestoreState::Succeeded, Progress::DONE, None, None)
    );
    assert_eq!(found.outcome, Some(outcome(TargetData::New)));
    assert_eq!(
        (found.started_at, found.completed_at, found.safety_backup),
        (Some(at(20)), Some(at(22)), Some(backup_id(2)))
    );
    let given_up = backup(catalog, 2).await;
    assert_eq!((given_up.state, given_up.completed_at), (BackupState::Failed, Some(at(22))));
    assert!(given_up.failure.is_some());
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!((job.state, job.last_error), (JobState::Done, None));
    assert_eq!(operation(catalog, 2).await, None);
    begin_restore(catalog, 6, 2, 30).await;
}

pub async fn a_restore_that_failed_ends_everything(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let lease = begin_restore(catalog, 5, 2, 20).await;
    catalog.report_restore(&lease, Progress::from_hundredths(300), "backing up").await.unwrap();
    catalog.begin_safety_backup(&lease, &safety(2, 21), at(21)).await.unwrap();
    let why = failure(FailureCode::RestoreSyncFailed, "the target went away");
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Uncertain), at(22)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!(
        (found.state, found.progress.hundredths(), found.phase, found.failure.as_ref()),
        (RestoreState::Failed, 300, None, Some(&why))
    );
    assert_eq!(found.outcome, Some(outcome(TargetData::Uncertain)));
    assert_eq!(found.completed_at, Some(at(22)));
    let safety = backup(catalog, 2).await;
    assert_eq!(
        (safety.state, safety.failure.as_ref(), safety.completed_at),
        (BackupState::Failed, Some(&why), Some(at(22)))
    );
    let job = catalog.find_job(&project(1), job_id(5)).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.last_error.as_deref()),
        (JobState::Failed, Some("the target went away"))
    );
    assert_eq!(operation(catalog, 2).await, None);
    // What it read is as it was, and free.
    assert!(backup(catalog, 1).await.is_restorable());
    catalog.request_backup(&new_backup(3, 2, 30)).await.unwrap();
    catalog
        .request_removal(&project(1), instance_id(1), backup_id(1), job_id(9), at(30))
        .await
        .unwrap();
}

pub async fn a_restore_that_nobody_began_fails_but_does_not_succeed(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    catalog.request_restore(&new_restore(5, 2, 1, 20)).await.unwrap();
    let lease = claim_kind(catalog, JobKind::Restore, 20).await.unwrap();
    let refused = catalog.finish_restore(&lease, &outcome(TargetData::New), at(21)).await;
    assert!(matches!(refused, Err(CatalogError::RestoreState(_))), "{refused:?}");
    assert_eq!(restore(catalog, 5).await.state, RestoreState::Waiting);
    let why = failure(FailureCode::TimedOut, "nobody came");
    catalog.fail_restore(&lease, &why, &outcome(TargetData::Untouched), at(21)).await.unwrap();
    let found = restore(catalog, 5).await;
    assert_eq!((found.state, found.started_at), (RestoreState::Failed, None));
}

pub async fn every_outcome_reads_back_as_it_was_written(catalog: &impl Catalog) {
    prepare_restore(catalog).await;
    let unknown = |target| RestoreOutcome {
        way: None,
        target,
        unavailable_ms: None,
        proven: false,
        unproven: None,
        uncompared: 0,
        keys: None,
    };
    let outcomes = TargetData::ALL.into_iter().flat_map(|target| {
        let keys = RestoreOutcome { way: Some(RestoreWay::Keys), ..outcome(target) };
        let unproven = RestoreOutcome {
            proven: false,
            unproven: Some("the target has no `SYNC`".into()),
            uncompared: 12_345_678_901,
            ..outcome(target)
        };
        [outcome(target), keys, unknown(target), unproven]
    });
    for (n, written) in (20..).zip(outcomes) {
        let lease = begin_restore(catalog, n, 2, 20).await;
        catalog.finish_restore(&lease, &written, at(21)).await.unwrap();
        assert_eq!(restore(catalog, n).await.outcome, Some(written));
    }
}
