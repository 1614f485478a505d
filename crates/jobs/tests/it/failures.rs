//! Backups that fail for natural causes, and what their records say.

use std::time::Duration;

use cachevault_app::{AppError, DiskReserve, LocalFolder, RequestBackup};
use cachevault_catalog::{EventCatalog, JobQueue};
use cachevault_domain::{BackupState, EventFilter, EventKind, FailureCode, JobState};
use cachevault_jobs::{DiskWatch, Injected};
use cachevault_store::{Fault, StoreErrorKind};
use cachevault_testkit::{Server, newest_redis};

use crate::rig::{Inject, Rig};
use crate::tending::{age, tender};

/// Runs a backup to its end; what its record says.
async fn outcome(rig: &Rig) -> (BackupState, Option<FailureCode>, String) {
    let id = rig.request().await;
    while rig.backup(id).await.failure.is_none() && !rig.backup(id).await.state.is_settled() {
        rig.run(None).await;
        rig.pass(60);
    }
    rig.assert_truthful(id).await;
    let backup = rig.backup(id).await;
    let failure = backup.failure;
    let code = failure.as_ref().map(|failure| failure.code);
    (backup.state, code, failure.map(|failure| failure.reason).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_fails_the_backup_after_three_attempts() {
    let mut rig = Rig::new().await;
    let id = rig.request().await;
    rig.server.kill();
    for attempt in 1..=3 {
        assert_eq!(rig.backup(id).await.failure, None, "attempt {attempt}");
        rig.run(None).await;
        rig.pass(60);
    }
    let failure = rig.backup(id).await.failure.unwrap();
    assert_eq!(failure.code, FailureCode::ToolFailed);
    assert!(failure.reason.contains("refused the connection"), "{}", failure.reason);
    rig.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_fails_at_once_and_says_so() {
    let rig = Rig::new().await;
    rig.store.fail(Fault::Write, StoreErrorKind::NoSpace);
    let (state, code, reason) = outcome(&rig).await;
    assert_eq!((state, code), (BackupState::Failed, Some(FailureCode::SizeUnconfirmed)));
    assert!(reason.contains("no space left"), "{reason}");
    rig.store.heal();
    assert_eq!(outcome(&rig).await.0, BackupState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_denies_access_is_told_from_one_that_is_away() {
    let rig = Rig::new().await;
    rig.store.fail(Fault::Create, StoreErrorKind::Denied);
    assert_eq!(outcome(&rig).await.1, Some(FailureCode::StoreCredentials));
    rig.store.fail(Fault::Create, StoreErrorKind::Unavailable);
    assert_eq!(outcome(&rig).await.1, Some(FailureCode::StoreUnusable));
    rig.store.fail(Fault::Commit, StoreErrorKind::Unavailable);
    assert_eq!(outcome(&rig).await.1, Some(FailureCode::StoreUnusable));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_reads_back_differently_never_succeeds() {
    let rig = Rig::new().await;
    rig.store.fail(Fault::ReadOtherBytes, StoreErrorKind::Damaged);
    let (state, code, reason) = outcome(&rig).await;
    assert_eq!((state, code), (BackupState::Failed, Some(FailureCode::SizeUnconfirmed)));
    assert!(reason.contains("differs from what was written"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_a_failure_of_its_own_code() {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "5000"]);
    let mut rig = Rig::with_server(server).await;
    rig.settings.capture.total = std::time::Duration::from_millis(200);
    let (state, code, reason) = outcome(&rig).await;
    assert_eq!((state, code), (BackupState::Failed, Some(FailureCode::TimedOut)));
    assert!(reason.contains("the limit"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_removed_are_tried_for_ever_and_the_record_stays_true() {
    let rig = Rig::new().await;
    let id = rig.request().await;
    rig.run(None).await;
    let job = rig.request_removal(id).await;
    rig.store.fail(Fault::Remove, StoreErrorKind::Denied);
    for _ in 0..10 {
        rig.run(None).await;
        let backup = rig.backup(id).await;
        assert_eq!((backup.state, backup.is_restorable()), (BackupState::Succeeded, false));
        let job = rig.catalog.find_job(&rig.project, job).await.unwrap().unwrap();
        assert!(job.last_error.unwrap().contains("denies access"));
        rig.pass(60);
    }
    rig.store.heal();
    rig.run(None).await;
    assert_eq!(rig.backup(id).await.state, BackupState::Deleted);
    let job = rig.catalog.find_job(&rig.project, job).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Done);
    rig.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cleaned_up_holds_up_no_verdict_and_goes_later() {
    let mut rig = Rig::new().await;
    rig.settings.commit = Duration::from_millis(300);
    rig.settings.backoff.attempts_max = 1;
    for fault in [Some(StoreErrorKind::Unavailable), Some(StoreErrorKind::Denied), None] {
        let id = rig.request().await;
        rig.run(Some(Inject::after_log("verify", Injected::Die))).await;
        rig.restart().await;
        match fault {
            Some(kind) => rig.store.fail(Fault::Remove, kind),
            None => rig.store.hang(Fault::Remove),
        }
        rig.run(Some(Inject::after("commit", Injected::Fail))).await;
        let backup = rig.backup(id).await;
        assert_eq!(backup.state, BackupState::Failed, "{fault:?}");
        assert_eq!(backup.failure.unwrap().reason, "injected");
        assert_ne!(rig.files(), [""; 0], "{fault:?}: nothing could be removed");
        rig.store.heal();
        age(&rig.folder.path().join("backups"));
        assert_eq!(tender(&rig.app).sweep().await.unwrap().removed, 1, "{fault:?}");
        rig.assert_truthful(id).await;
    }
    assert_eq!(outcome(&rig).await.0, BackupState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_fails_the_backup_after_three_attempts() {
    let rig = Rig::new().await;
    let id = rig.request().await;
    rig.store.fail(Fault::Remove, StoreErrorKind::Unavailable);
    for attempt in 1..=3 {
        assert!(!rig.backup(id).await.state.is_settled(), "attempt {attempt}");
        rig.run(None).await;
        rig.pass(60);
    }
    let failure = rig.backup(id).await.failure.unwrap();
    assert_eq!(failure.code, FailureCode::StoreUnusable, "{}", failure.reason);
    rig.store.heal();
    assert_eq!(outcome(&rig).await.0, BackupState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_on_a_disk_that_is_nearly_full() {
    let mut rig = Rig::new().await;
    let waiting = rig.request().await;
    let path = rig.folder.path().to_owned();
    let folders = vec![LocalFolder { name: "data", path }];
    rig.app.disk = DiskReserve { folders, bytes: u64::MAX / 2 };
    for _ in 1..=3 {
        rig.run(None).await;
        rig.pass(60);
    }
    let failure = rig.backup(waiting).await.failure.unwrap();
    assert_eq!(failure.code, FailureCode::SizeUnconfirmed);
    assert!(failure.reason.contains("less than the reserve"), "{}", failure.reason);
    assert_eq!(rig.server.info("total_forks"), "0");
    let wish = RequestBackup::default();
    let refused = rig.app.request_backup(&rig.caller, rig.instance, wish).await.unwrap_err();
    assert!(matches!(refused, AppError::DiskShortage(_)), "{refused}");
    let drill = rig.app.request_drill(&rig.caller, waiting).await.unwrap_err();
    assert!(matches!(drill, AppError::DiskShortage(_)), "{drill}");
    let ready = rig.app.check_ready().await.unwrap_err();
    assert!(matches!(ready, AppError::DiskShortage(_)), "{ready}");
    let mut watch = DiskWatch::new(rig.app.clone());
    watch.round().await;
    watch.round().await;
    let events = rig.catalog.list_events(&rig.project, &EventFilter::default(), 100).await.unwrap();
    let low: Vec<_> = events.items.iter().filter(|e| e.kind == EventKind::DiskLow).collect();
    assert_eq!((low.len(), low[0].instance), (1, None));
    rig.app.disk = DiskReserve::default();
    assert_eq!(outcome(&rig).await.0, BackupState::Succeeded);
}
