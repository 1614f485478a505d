//! The worker: claims, runs several jobs, and stops in two phases.

use std::sync::Arc;
use std::time::Duration;

use cachevault_app::AddInstance;
use cachevault_domain::{BackupId, BackupState, ConnectionChange, Health, InstanceChange};
use cachevault_jobs::{Injected, Observer, Shutdown, Worker};
use cachevault_store::{BackupKey, Store};
use cachevault_testkit::{Server, eventually, newest_redis};

use crate::rig::{Inject, Rig};

/// Longer than anything takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

async fn until_state(rig: &Rig, id: BackupId, wanted: BackupState) {
    let reaching = async {
        while rig.backup(id).await.state != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reaching).await.expect("the state in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_what_is_asked_for_and_ends_when_told() {
    let rig = Arc::new(Rig::new().await);
    let shutdown = Shutdown::default();
    let worker = Worker::new(rig.runner(None), rig.node);
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    for _ in 0..3 {
        let id = rig.request().await;
        until_state(&rig, id, BackupState::Succeeded).await;
    }
    shutdown.soft.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_stop_lets_a_running_backup_come_to_its_end() {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "300"]);
    let rig = Arc::new(Rig::with_server(server).await);
    let shutdown = Shutdown::default();
    let worker = Worker::new(rig.runner(None), rig.node);
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    let id = rig.request().await;
    until_state(&rig, id, BackupState::Running).await;
    shutdown.soft.cancel();
    running.await.unwrap();
    assert_eq!(rig.backup(id).await.state, BackupState::Succeeded);
    rig.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_one_host_are_made_one_after_the_other_and_say_so() {
    let slow = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    let rig = Arc::new(Rig::with_server(slow).await);
    let other = Server::start(&newest_redis(), &[]);
    let wish = AddInstance {
        name: "other".parse().unwrap(),
        target: other.target(),
        settings: Default::default(),
    };
    let second = rig.app.add_instance(&rig.caller, wish).await.unwrap().id;
    let shutdown = Shutdown::default();
    let worker = Worker::new(rig.runner(None), rig.node);
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    let first = rig.request().await;
    until_state(&rig, first, BackupState::Running).await;
    let waits = rig.app.request_backup(&rig.caller, second, Default::default()).await.unwrap();
    let saying = async {
        while rig.backup(waits).await.phase.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, saying).await.expect("it says why it waits");
    let backup = rig.backup(waits).await;
    assert_eq!(backup.state, BackupState::Waiting);
    assert_eq!(backup.phase.unwrap(), "waiting: another backup of host 127.0.0.1 runs");
    assert_eq!(other.info("total_forks"), "0");
    rig.app.cancel_backup(&rig.caller, first).await.unwrap();
    until_state(&rig, first, BackupState::Failed).await;
    until_state(&rig, waits, BackupState::Succeeded).await;
    shutdown.soft.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_stop_puts_the_job_back_and_leaves_nothing_running() {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    let rig = Arc::new(Rig::with_server(server).await);
    let shutdown = Shutdown::default();
    let worker = Worker::new(rig.runner(None), rig.node);
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    let id = rig.request().await;
    eventually("the source forks", || {
        (rig.server.info("rdb_bgsave_in_progress") == "1").then_some(())
    });
    shutdown.soft.cancel();
    shutdown.hard.cancel();
    running.await.unwrap();
    assert_eq!(rig.server.info("rdb_bgsave_in_progress"), "0");
    assert_eq!(rig.files(), [""; 0]);
    assert_eq!(rig.backup(id).await.state, BackupState::Running);
    // The next start takes it up, and the stop does not count as a failure.
    rig.server.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    let lease = rig.claim().await.unwrap();
    assert_eq!((lease.attempt, lease.failures), (2, 0));
    rig.runner(None).run(&lease, &Default::default()).await;
    assert_eq!(rig.backup(id).await.state, BackupState::Succeeded);
    rig.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_refreshed_and_an_instance_that_is_gone_is_told() {
    let mut rig = Rig::new().await;
    let observer = Observer { app: rig.app.clone(), every: Duration::from_secs(30) };
    rig.server.fill(5000, 10);
    observer.round().await;
    let seen = rig.app.get_instance(&rig.caller, rig.instance).await.unwrap();
    assert_eq!(seen.observation.keys, 2000, "its figures were fresh enough");
    rig.pass(31);
    observer.round().await;
    let seen = rig.app.get_instance(&rig.caller, rig.instance).await.unwrap();
    assert_eq!(seen.observation.keys, 5000);
    rig.server.kill();
    for _ in 0..3 {
        rig.pass(31);
        observer.round().await;
    }
    let seen = rig.app.get_instance(&rig.caller, rig.instance).await.unwrap();
    assert!(
        matches!(seen.health, Health::Unreachable { reason, looks: 3 } if reason.contains("refused"))
    );
    let request = rig.app.request_backup(&rig.caller, rig.instance, Default::default()).await;
    assert!(matches!(request, Err(cachevault_app::AppError::InstanceDown(_))), "{request:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_names_the_address_from_which_it_was_captured() {
    let rig = Rig::new().await;
    let id = rig.request().await;
    rig.run(Some(Inject::after_log("capture", Injected::Die))).await;
    rig.restart().await;
    let (captured, other) = (rig.server.address(), Server::start(&newest_redis(), &[]));
    let elsewhere = ConnectionChange { port: Some(other.port), ..ConnectionChange::default() };
    let changed =
        rig.app.change_connection(&rig.caller, rig.instance, elsewhere, InstanceChange::default());
    changed.await.unwrap();
    rig.run(None).await;
    rig.assert_truthful(id).await;
    let backup = rig.backup(id).await;
    let key = BackupKey { project: rig.project.clone(), instance: rig.instance, backup: id };
    let key = key.attempt(backup.stored_attempt.unwrap());
    let manifest = rig.store.find_manifest(&key).await.unwrap().unwrap();
    assert_eq!(manifest.instance_address, Some(captured.to_string()));
}
