//! Backups that somebody cancels.

use std::sync::Arc;
use std::time::Duration;

use cachevault_app::AppError;
use cachevault_domain::{BackupId, BackupState, FailureCode};
use cachevault_jobs::{Injected, Shutdown, Worker};
use cachevault_store::{Fault, StoreErrorKind};
use cachevault_testkit::{Server, eventually, newest_redis};

use crate::rig::{Inject, Rig, STEPS};
use crate::tending::{age, tender};

/// A rig whose source writes an RDB for as long as the test lets it.
async fn slow() -> Arc<Rig> {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    Arc::new(Rig::with_server(server).await)
}

fn until_it_forks(rig: &Rig) {
    eventually("the source forks", || {
        (rig.server.info("rdb_bgsave_in_progress") == "1").then_some(())
    });
}

async fn cancel(rig: &Rig, id: BackupId) -> Result<(), AppError> {
    rig.app.cancel_backup(&rig.caller, id).await
}

/// The backup says that it was cancelled, nothing of it is left, and the instance is free.
async fn assert_cancelled(rig: &Rig, id: BackupId) {
    let backup = rig.backup(id).await;
    let failure = backup.failure.unwrap();
    assert_eq!((backup.state, failure.code), (BackupState::Failed, FailureCode::ToolFailed));
    assert_eq!(failure.reason, "cancelled by the service");
    assert_eq!(backup.cancellation.unwrap().by, "the service");
    assert_eq!(rig.files(), [""; 0]);
    rig.request().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_backup_leaves_nothing_at_the_source_and_in_the_store() {
    let rig = slow().await;
    let shutdown = Shutdown::default();
    let worker = Worker::new(rig.runner(None), rig.node);
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    let id = rig.request().await;
    until_it_forks(&rig);
    cancel(&rig, id).await.unwrap();
    cancel(&rig, id).await.or_else(|error| ended(error, BackupState::Failed)).unwrap();
    let settling = async {
        while !rig.backup(id).await.state.is_settled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settling).await.expect("it ends in time");
    assert_eq!(rig.server.info("rdb_bgsave_in_progress"), "0");
    assert_eq!(rig.server.info("connected_slaves"), "0");
    shutdown.soft.cancel();
    running.await.unwrap();
    assert_cancelled(&rig, id).await;
}

/// Passes for one that had ended in this state.
fn ended(error: AppError, state: BackupState) -> Result<(), AppError> {
    match error {
        AppError::BackupEnded(found) if found == state => Ok(()),
        other => Err(other),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_nobody_has_begun_is_not_begun() {
    let rig = Rig::new().await;
    let id = rig.request().await;
    cancel(&rig, id).await.unwrap();
    assert_eq!(rig.claim().await, None);
    assert_cancelled(&rig, id).await;
    assert_eq!(rig.server.info("total_forks"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_its_worker_died_the_next_breaks_it_off() {
    let (_, steps) = STEPS[0];
    for step in steps {
        for die in [Inject::after, Inject::after_log] {
            let rig = Rig::new().await;
            let id = rig.request().await;
            rig.run(Some(die(step, Injected::Die))).await;
            cancel(&rig, id).await.unwrap();
            rig.restart().await;
            let again = Inject::after("none", Injected::Nothing);
            rig.run(Some(Arc::clone(&again) as _)).await;
            assert_eq!(again.ran(), [""; 0], "{step}: nothing more is done for it");
            assert_cancelled(&rig, id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_it_breaks_off_is_followed_by_one_that_does() {
    for pause in [0, 5, 50] {
        let rig = slow().await;
        let id = rig.request().await;
        let working = Arc::clone(&rig);
        let worker = tokio::spawn(async move { working.run(None).await });
        until_it_forks(&rig);
        cancel(&rig, id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        worker.abort();
        let _ = worker.await;
        rig.restart().await;
        if !rig.backup(id).await.state.is_settled() {
            rig.run(None).await;
        }
        assert_cancelled(&rig, id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_break_off_is_left() {
    let mut rig = Rig::new().await;
    rig.settings.lease = Duration::from_secs(2);
    let id = rig.request().await;
    let (lease, inject) = (rig.claim().await.unwrap(), Inject::after("verify", Injected::Hang));
    let (runner, stop) = (rig.runner(Some(inject.clone())), Default::default());
    let cancelling = async {
        while inject.ran() != ["capture", "verify"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel(&rig, id).await.unwrap();
    };
    let running = async { tokio::join!(runner.run(&lease, &stop), cancelling) };
    // Long before the deadline of the step.
    tokio::time::timeout(Duration::from_secs(40), running).await.expect("it is left in time");
    assert_cancelled(&rig, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_though_its_files_cannot_be_removed_which_the_tender_does() {
    let rig = Rig::new().await;
    let id = rig.request().await;
    rig.run(Some(Inject::after_log("capture", Injected::Die))).await;
    cancel(&rig, id).await.unwrap();
    rig.restart().await;
    rig.store.fail(Fault::Remove, StoreErrorKind::Unavailable);
    rig.run(None).await;
    assert_eq!(rig.backup(id).await.state, BackupState::Failed);
    assert_ne!(rig.files(), [""; 0]);
    rig.store.heal();
    age(&rig.folder.path().join("backups"));
    assert_eq!(tender(&rig.app).sweep().await.unwrap().removed, 1);
    assert_cancelled(&rig, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cancelled_or_it_succeeds_and_never_both() {
    let rig = Rig::new().await;
    // Later and later, until it comes too late: before that every moment is in time.
    let mut in_time = 0;
    for turns in (0..).step_by(40) {
        let id = rig.request().await;
        let cancelling = async {
            for _ in 0..turns {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            cancel(&rig, id).await
        };
        let (lease, runner) = (rig.claim().await.unwrap(), rig.runner(None));
        let stop = Default::default();
        let ((), cancelled) = tokio::join!(runner.run(&lease, &stop), cancelling);
        let backup = rig.backup(id).await;
        match cancelled {
            Ok(()) => {
                assert_eq!(backup.failure.unwrap().reason, "cancelled by the service");
                assert_eq!(rig.files(), [""; 0]);
                in_time += 1;
            }
            Err(error) => {
                ended(error, BackupState::Succeeded).unwrap();
                assert_eq!((backup.state, backup.cancellation), (BackupState::Succeeded, None));
                break;
            }
        }
    }
    assert!(in_time > 0);
}
