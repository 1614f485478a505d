//! Backups of real servers, proven by throw-away ones.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cachevault_engine::{DrillError, DrillRequest, Meter, Proven, drill, sweep_drills};
use cachevault_store::ArtifactEntry;
use cachevault_testkit::{
    Server, dataset_for, free_port, future_engine, installed_engine, installed_engines,
};
use tokio_util::sync::CancellationToken;

use crate::keys::put_nothing;
use crate::restore_real::LIMITS;
use crate::support::Rig;

async fn drill_with(
    rig: &Rig,
    entry: &ArtifactEntry,
    servers: &[PathBuf],
) -> Result<Proven, DrillError> {
    let folder = rig.folder.path().join("drills");
    let request = DrillRequest {
        store: &rig.store,
        key: &rig.key,
        entry,
        servers,
        folder: &folder,
        random: [5; 80],
        gate: &rig.gate,
        limits: LIMITS,
    };
    let outcome = drill(request, &Meter::default(), &CancellationToken::new()).await;
    let left: Vec<_> =
        std::fs::read_dir(&folder).map(|entries| entries.collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_every_engine_is_proven_by_the_first_server_that_loads_it() {
    let engines = installed_engines();
    let servers: Vec<_> = engines.iter().map(|engine| engine.binary.clone()).collect();
    for engine in &engines {
        let source = Server::start_with_rdb(engine, &dataset_for(engine), &[]);
        let rig = Rig::new();
        let entry = rig.capture(&source.target()).await.unwrap();
        let proven = drill_with(&rig, &entry, &servers).await.unwrap();
        assert!(proven.keys > 10, "{}: {proven:?}", engine.name);
        let family = if engine.name == "valkey-9.1" { "valkey 9.1" } else { "" };
        assert!(proven.server.starts_with(family), "{}: {}", engine.name, proven.server);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loads_a_backup_and_cannot_be_compared_gives_way_to_the_next() {
    let Some(future) = future_engine() else {
        return eprintln!("the server of the future could not be built: not tested");
    };
    let known = installed_engine("redis-7.0").unwrap();
    let source = Server::start_with_rdb(&known, &dataset_for(&known), &[]);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let servers = [future.binary.clone(), known.binary];
    let proven = drill_with(&rig, &entry, &servers).await.unwrap();
    assert!(proven.server.starts_with("redis 7.0"), "{proven:?}");
    let servers = [future.binary, "/nowhere/redis-server".into()];
    let error = drill_with(&rig, &entry, &servers).await.unwrap_err().to_string();
    for reason in ["redis 9.9.0: the data cannot be compared", "REDIS0016", "/nowhere/"] {
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_that_loads_it_nothing_is_proven() {
    let engines = installed_engines();
    let find = |name: &str| engines.iter().find(|engine| engine.name == name).unwrap();
    let newest = find("valkey-9.1");
    let source = Server::start_with_rdb(newest, &dataset_for(newest), &[]);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let servers = [find("redis-5.0").binary.clone(), "/nowhere/redis-server".into()];
    let error = drill_with(&rig, &entry, &servers).await.unwrap_err().to_string();
    assert!(error.contains("redis 5.0") && error.contains("/nowhere/redis-server"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_artifact_is_not_proven() {
    let engine = &installed_engines()[0];
    let source = Server::start_with_rdb(engine, &dataset_for(engine), &[]);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let mut bytes = std::fs::read(rig.file()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(rig.file(), bytes).unwrap();
    let error = drill_with(&rig, &entry, std::slice::from_ref(&engine.binary)).await.unwrap_err();
    assert!(matches!(error, DrillError::Restore(_)), "{error}");
}

/// A server whose configuration came later would listen everywhere when we are killed between.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_all_its_settings_when_it_starts() {
    let engine = &installed_engines()[0];
    let source = Server::start_with_rdb(engine, &dataset_for(engine), &[]);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("server");
    let checks = format!(
        "#!/bin/sh\nset -e\ntest \"$(stat -c %a \"$1\")\" = 600\n\
         grep -q '^bind 127.0.0.1$' \"$1\"\ngrep -q '^requirepass ....' \"$1\"\nexec {} \"$@\"\n",
        engine.binary.display()
    );
    std::fs::write(&script, checks).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    drill_with(&rig, &entry, &[script]).await.unwrap();
}

#[test]
fn a_server_that_a_crash_has_left_is_ended_at_the_next_start() {
    let engine = &installed_engines()[0];
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("0123");
    std::fs::create_dir(&home).unwrap();
    let mut left = std::process::Command::new(&engine.binary)
        .args(["--bind", "127.0.0.1", "--port", &free_port().to_string()])
        .current_dir(&home)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    sweep_drills(folder.path()).unwrap();
    assert!(!left.wait().unwrap().success());
    assert!(!home.exists());
    sweep_drills(&folder.path().join("none")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_keys_without_elements_is_proven_by_a_server_that_leaves_them_out() {
    let source = Server::start(&installed_engine("redis-5.0").unwrap(), &[]);
    source.ask(&["SET", "k", "v"]);
    put_nothing(&source, "list", &[14, 0]);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let newer = installed_engine("redis-7.0").unwrap();
    let proven = drill_with(&rig, &entry, &[newer.binary]).await.unwrap();
    assert_eq!((proven.keys, proven.empty), (1, 1));
}
