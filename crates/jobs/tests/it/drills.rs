//! Drills: what is proven, and what is said when it is not.

use std::time::Duration;

use cachevault_domain::{Backup, BackupId};
use cachevault_jobs::{Driller, Injected};

use crate::rig::{Inject, Rig};

async fn backed_up() -> (Rig, BackupId) {
    let rig = Rig::new().await;
    let backup = rig.request().await;
    rig.run(None).await;
    (rig, backup)
}

async fn drill(rig: &Rig, backup: BackupId) -> Backup {
    rig.app.request_drill(&rig.caller, backup).await.unwrap();
    assert!(rig.backup(backup).await.drilling);
    rig.run(None).await;
    rig.backup(backup).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_loads_is_proven_with_time_and_server() {
    let (rig, id) = backed_up().await;
    assert_eq!(rig.backup(id).await.proof, None);
    let backup = drill(&rig, id).await;
    let proof = backup.proof.unwrap();
    assert_eq!(proof.at.to_string(), "2026-11-21T08:31:16.166Z");
    assert!(proof.server.starts_with("redis 7.0."), "{}", proof.server);
    let instance = rig.app.get_instance(&rig.caller, rig.instance).await.unwrap();
    assert_eq!(instance.proven.unwrap().backup, id);
    rig.assert_truthful(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_never_returns_ends_by_its_deadline() {
    let (mut rig, id) = backed_up().await;
    rig.settings.restore.total = Duration::from_secs(10);
    rig.app.request_drill(&rig.caller, id).await.unwrap();
    rig.run(Some(Inject::after("drill", Injected::Hang))).await;
    let backup = rig.backup(id).await;
    assert!(!backup.drilling);
    let reason = backup.drill_failure.unwrap().reason;
    assert_eq!(reason, "the step `drill` was not done after 20 s, the limit");
    let throw_away = std::fs::read_dir(rig.folder.path().join("drills")).unwrap();
    assert_eq!(throw_away.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_not_proven_and_says_why() {
    let (rig, id) = backed_up().await;
    let locations = rig.app.get_backup(&rig.caller, id).await.unwrap().locations;
    let mut bytes = std::fs::read(&locations[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&locations[0], bytes).unwrap();
    let backup = drill(&rig, id).await;
    assert_eq!((backup.proof, backup.drilling), (None, false));
    let reason = backup.drill_failure.unwrap().reason;
    assert!(reason.contains("artifact"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_backup_is_drilled_when_its_proof_is_old() {
    let (rig, first) = backed_up().await;
    rig.pass(60);
    let second = rig.request().await;
    rig.run(None).await;
    let driller = Driller { app: rig.app.clone(), every: Duration::from_secs(3600) };
    driller.round().await;
    rig.run(None).await;
    assert!(rig.backup(second).await.proof.is_some());
    assert_eq!(rig.backup(first).await.proof, None);
    driller.round().await;
    assert_eq!(rig.claim().await, None, "it is proven already");
    rig.pass(3601);
    driller.round().await;
    assert!(rig.claim().await.is_some(), "its proof is old");
}
