//! Backups and restores of the newest servers, and of one that this build does not know.

use std::time::{Duration, Instant};

use cachevault_app::{AddInstance, AppError, RequestRestore};
use cachevault_catalog::EventCatalog;
use cachevault_domain::{
    BackupId, BackupState, ContentState, EventFilter, EventKind, InstanceId, KeyFilter, Restore,
    RestoreOptions, RestoreOutcome, RestoreState, RestoreWay, TargetData,
};
use cachevault_jobs::Injected;
use cachevault_testkit::{
    Engine, Server, dataset_for, eventually, future_engine, installed_engine, installed_engines,
};

use crate::rig::{Inject, Rig};

/// The engines of this test that are installed; the others are named.
fn newest() -> Vec<Engine> {
    ["redis-8.2", "redis-8.6"]
        .into_iter()
        .filter_map(|name| {
            let engine = installed_engine(name);
            if engine.is_none() {
                eprintln!("{name} could not be installed: not tested");
            }
            engine
        })
        .collect()
}

/// A server with everything that its version has, registered, and a backup of it.
async fn backed_up(engine: &Engine) -> (Rig, BackupId) {
    let source = Server::start_with_rdb(engine, &dataset_for(engine), &[]);
    let rig = Rig::with_server(source).await;
    let backup = rig.request().await;
    rig.run(None).await;
    assert_eq!(rig.backup(backup).await.state, BackupState::Succeeded, "{}", engine.name);
    (rig, backup)
}

pub(crate) async fn register(rig: &Rig, server: &Server, name: &str) -> InstanceId {
    let wish = AddInstance {
        name: name.parse().unwrap(),
        target: server.target(),
        settings: Default::default(),
    };
    rig.app.add_instance(&rig.caller, wish).await.unwrap().id
}

async fn request(
    rig: &Rig,
    backup: BackupId,
    target: InstanceId,
    options: RestoreOptions,
) -> Result<Restore, AppError> {
    let wish = RequestRestore { backup, options, note: None };
    let id = rig.app.request_restore(&rig.caller, target, wish).await?;
    rig.run(None).await;
    rig.app.get_restore(&rig.caller, id).await
}

/// A restore that has to succeed; how it ended.
pub(crate) async fn restore(
    rig: &Rig,
    backup: BackupId,
    target: InstanceId,
    options: RestoreOptions,
) -> RestoreOutcome {
    let restore = request(rig, backup, target, options).await.unwrap();
    assert_eq!(restore.state, RestoreState::Succeeded, "{:?}", restore.failure);
    restore.outcome.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_backed_up_restored_and_drilled_on_the_newest_servers() {
    for engine in newest() {
        let (rig, backup) = backed_up(&engine).await;
        let digest = rig.server.digest();
        let name = &engine.name;
        // In place, over other data.
        rig.server.ask(&["FLUSHALL"]);
        rig.server.fill(300, 20);
        let outcome = restore(&rig, backup, rig.instance, RestoreOptions::default()).await;
        assert_eq!((outcome.proven, outcome.uncompared, &outcome.unproven), (true, 0, &None));
        assert_eq!(rig.server.digest(), digest, "{name}");
        // Into another server, natively and by commands, empty and full.
        for way in [RestoreWay::Replica, RestoreWay::Keys] {
            for keys in [0, 300] {
                let target = Server::start(&engine, &[]);
                target.fill(keys, 20);
                let instance = register(&rig, &target, &format!("{}-{keys}", way.as_str())).await;
                let options = RestoreOptions { way: Some(way), ..RestoreOptions::default() };
                let outcome = restore(&rig, backup, instance, options).await;
                assert!(outcome.proven, "{name} {way:?} {keys}: {outcome:?}");
                assert_eq!(target.digest(), digest, "{name} {way:?} {keys}");
                assert_eq!(
                    target.info("number_of_functions"),
                    rig.server.info("number_of_functions")
                );
            }
        }
        // A part of it, which is not to be compared.
        let target = Server::start(&engine, &[]);
        let instance = register(&rig, &target, "part").await;
        let filter = KeyFilter::new(Some("vectors:*".into()), None).unwrap();
        let options = RestoreOptions { filter, ..RestoreOptions::default() };
        let outcome = restore(&rig, backup, instance, options).await;
        assert!(!outcome.proven && outcome.unproven.unwrap().contains("only a part"));
        for key in ["vectors:{0}", "vectors:plain", "vectors:reduced"] {
            let of = |server: &Server| server.ask(&["DEBUG", "DIGEST-VALUE", key]);
            assert_eq!(of(&target), of(&rig.server), "{name}: {key}");
        }
        rig.app.request_drill(&rig.caller, backup).await.unwrap();
        rig.run(None).await;
        let drilled = rig.backup(backup).await;
        let proof = drilled.proof.unwrap_or_else(|| panic!("{name}: {:?}", drilled.drill_failure));
        assert_eq!(proof.uncompared, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_every_server_restore_into_the_newest_redis_by_default() {
    let Some(newest) = installed_engine("redis-8.6") else {
        return eprintln!("redis-8.6 could not be installed: not tested");
    };
    for engine in installed_engines() {
        let (rig, backup) = backed_up(&engine).await;
        for keys in [0, 300] {
            let target = Server::start(&newest, &[]);
            target.fill(keys, 20);
            let instance = register(&rig, &target, &format!("newest-{keys}")).await;
            let outcome = restore(&rig, backup, instance, RestoreOptions::default()).await;
            assert!(outcome.proven, "{} {keys}: {outcome:?}", engine.name);
            // Valkey's own format is not for Redis to load.
            let way = match engine.name.as_str() {
                "valkey-9.1" => RestoreWay::Keys,
                _ => RestoreWay::Replica,
            };
            assert_eq!(outcome.way, Some(way), "{}", engine.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_backup_is_refused_by_an_older_server_before_it_is_touched() {
    let Some(newest) = installed_engine("redis-8.6") else {
        return eprintln!("redis-8.6 could not be installed: not tested");
    };
    let (rig, backup) = backed_up(&newest).await;
    for (engine, loads) in [
        ("redis-8.2", "redis 8.2.3 loads up to REDIS0012"),
        ("redis-7.0", "loads up to REDIS0010"),
        ("valkey-9.1", "loads up to REDIS0011 and VALKEY080"),
    ] {
        let target = Server::start(&installed_engine(engine).unwrap(), &[]);
        target.fill(10, 10);
        let before = (target.digest(), target.info("master_replid"));
        let instance = register(&rig, &target, &engine.replace('.', "-")).await;
        let refused = request(&rig, backup, instance, RestoreOptions::default()).await;
        let reasons = refused.unwrap_err().to_string();
        assert!(reasons.contains("REDIS0013") && reasons.contains(loads), "{reasons}");
        assert_eq!((target.digest(), target.info("master_replid")), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_while_it_loads_ends_the_restore_with_that_reason() {
    let rig = Rig::new().await;
    let backup = rig.request().await;
    rig.run(None).await;
    let mut target = Server::start(&installed_engine("redis-7.0").unwrap(), &[]);
    target.fill(100, 20);
    let instance = register(&rig, &target, "mortal").await;
    target.load_slowly();
    let wish = RequestRestore { backup, options: RestoreOptions::default(), note: None };
    let id = rig.app.request_restore(&rig.caller, instance, wish).await.unwrap();
    let lease = rig.claim().await.unwrap();
    let runner = rig.runner(None);
    let running = tokio::spawn(async move { runner.run(&lease, &Default::default()).await });
    eventually("the target loads", || (target.info("loading") == "1").then_some(()));
    target.kill();
    let died = Instant::now();
    running.await.unwrap();
    let restore = rig.app.get_restore(&rig.caller, id).await.unwrap();
    assert_eq!(restore.state, RestoreState::Failed);
    assert!(died.elapsed() < Duration::from_secs(10), "{:?}", died.elapsed());
    let reason = restore.failure.unwrap().reason;
    assert!(reason.contains("ended while it loaded the backup"), "{reason}");
    assert_eq!(restore.outcome.unwrap().target, TargetData::Uncertain);
    // It is done with, and another restore is possible.
    target.start_again();
    let again = restore_again(&rig, backup, instance).await;
    assert_eq!(again.target, TargetData::New);
}

async fn restore_again(rig: &Rig, backup: BackupId, instance: InstanceId) -> RestoreOutcome {
    restore(rig, backup, instance, RestoreOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_reason_stays_when_later_attempts_fail_for_another() {
    let mut rig = Rig::new().await;
    let backup = rig.request().await;
    rig.store.fail(cachevault_store::Fault::Create, cachevault_store::StoreErrorKind::Unavailable);
    rig.run(None).await;
    rig.store.heal();
    rig.server.kill();
    for _ in 0..2 {
        rig.pass(60);
        rig.run(None).await;
    }
    let failure = rig.backup(backup).await.failure.unwrap();
    let parts = failure.reason.split_once("; gave up after 3 attempts, the last: ");
    let (first, rest) = parts.unwrap_or_else(|| panic!("{}", failure.reason));
    assert!(rest.contains("refused the connection"), "{rest}");
    assert!(!first.contains("refused the connection"), "{first}");
    assert_eq!(failure.code, cachevault_domain::FailureCode::StoreUnusable);
}

async fn events(rig: &Rig) -> Vec<EventKind> {
    let filter = EventFilter::default();
    let listed = rig.catalog.list_events(&rig.project, &filter, 100).await.unwrap();
    listed.items.into_iter().map(|event| event.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_known_is_backed_up_as_opaque_and_restored_only_on_request() {
    let Some(future) = future_engine() else {
        return eprintln!("the server of the future could not be built: not tested");
    };
    let (rig, backup) = future_backed_up(&future).await;
    let digest = rig.server.digest();
    let record = rig.backup(backup).await;
    assert_eq!((record.content, record.is_restorable()), (ContentState::Opaque, false));
    assert!(events(&rig).await.contains(&EventKind::BackupOpaque));
    assert!(rig.app.request_drill(&rig.caller, backup).await.is_err());
    // Never by default, and never into an older server.
    let target = Server::start(&future, &[]);
    target.fill(200, 20);
    let instance = register(&rig, &target, "future").await;
    let refused = request(&rig, backup, instance, RestoreOptions::default()).await.unwrap_err();
    assert!(matches!(refused, AppError::BackupUnverified { .. }), "{refused}");
    let unverified = RestoreOptions { unverified: true, ..RestoreOptions::default() };
    let older = Server::start(&installed_engine("redis-7.0").unwrap(), &[]);
    let old_instance = register(&rig, &older, "older").await;
    let refused = request(&rig, backup, old_instance, unverified.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("at least that version"), "{refused}");
    // Nor by commands, nor with a proof.
    for options in [
        RestoreOptions { way: Some(RestoreWay::Keys), ..unverified.clone() },
        RestoreOptions { prove: Some(true), ..unverified.clone() },
    ] {
        assert!(request(&rig, backup, instance, options).await.is_err());
    }
    let before = target.digest();
    assert_ne!(before, digest);
    let outcome = restore(&rig, backup, instance, unverified.clone()).await;
    assert_eq!((outcome.way, outcome.proven), (Some(RestoreWay::Replica), false));
    assert!(outcome.unproven.unwrap().contains("REDIS0016"));
    assert_eq!(target.digest(), digest);
    // What it held before is opaque too, and can be put back.
    let wish = RequestRestore { backup, options: unverified, note: None };
    target.ask(&["FLUSHALL"]);
    target.fill(100, 20);
    let before = target.digest();
    let id = rig.app.request_restore(&rig.caller, instance, wish).await.unwrap();
    rig.run(Some(Inject::after("load", Injected::Fail))).await;
    let failed = rig.app.get_restore(&rig.caller, id).await.unwrap();
    assert_eq!(failed.state, RestoreState::Failed);
    assert_eq!(failed.outcome.unwrap().target, TargetData::Old);
    assert_eq!(target.digest(), before);
}

async fn future_backed_up(future: &Engine) -> (Rig, BackupId) {
    let rig = Rig::with_server(Server::start(future, &[])).await;
    let backup = rig.request().await;
    rig.run(None).await;
    (rig, backup)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_backup_is_restored_into_a_server_that_is_not_known_and_says_what_was_not_compared()
{
    let Some(future) = future_engine() else {
        return eprintln!("the server of the future could not be built: not tested");
    };
    let (rig, backup) = backed_up(&installed_engine("redis-7.0").unwrap()).await;
    let target = Server::start(&future, &[]);
    target.fill(200, 20);
    let (before, instance) = (target.digest(), register(&rig, &target, "future").await);
    // A proof cannot be had, and whoever demands one is told before anything is touched.
    let demanding = RestoreOptions { prove: Some(true), ..RestoreOptions::default() };
    let failed = request(&rig, backup, instance, demanding).await.unwrap();
    assert_eq!(failed.outcome.unwrap().target, TargetData::Untouched);
    assert!(failed.failure.unwrap().reason.contains("REDIS0016"));
    assert_eq!(target.digest(), before);
    let outcome = restore(&rig, backup, instance, RestoreOptions::default()).await;
    assert_eq!((outcome.target, outcome.proven), (TargetData::New, false));
    assert!(outcome.unproven.unwrap().contains("REDIS0016"));
    assert_eq!(target.info("db0").split(',').next(), rig.server.info("db0").split(',').next());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_a_target_would_die_of_are_a_blocker_with_their_place() {
    let Some(future) = future_engine() else {
        return eprintln!("the server of the future could not be built: not tested");
    };
    let rig = Rig::new().await;
    rig.server.ask(&["FLUSHALL"]);
    rig.server.ask(&["XADD", "stream", "1-1", "f", "v"]);
    rig.server.ask(&["XGROUP", "CREATE", "stream", "group", "0", "ENTRIESREAD", "1000"]);
    let backup = rig.request().await;
    rig.run(None).await;
    // A known server that loads it.
    let target = Server::start(&installed_engine("redis-7.0").unwrap(), &[]);
    let instance = register(&rig, &target, "known").await;
    assert!(restore(&rig, backup, instance, RestoreOptions::default()).await.proven);
    // What comes after Redis 8.8 is expected to do as it does.
    let target = Server::start(&future, &[]);
    let instance = register(&rig, &target, "future").await;
    let refused = request(&rig, backup, instance, RestoreOptions::default()).await.unwrap_err();
    let reason = refused.to_string();
    assert!(reason.contains("key 1 of the backup") && reason.contains("ENTRIESREAD"), "{reason}");
}
