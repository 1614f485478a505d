//! Captures of real servers of every installed engine.

use crate::support::{Rig, decoded};
use cachevault_domain::{Progress, RdbDialect};
use cachevault_engine::verify_artifact;
use cachevault_store::{ArtifactEntry, ContentEntry, DigestEntry};
use cachevault_testkit::{Reply, Server, dataset_for, eventually, installed_engines, newest_redis};

/// The newest sample of every type that this engine can load.
/// Everything that a server holds, as it tells itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    digest: String,
    databases: usize,
    expiring: u64,
    /// Functions are not keys: the digest does not know them. Empty before Redis 7.
    functions: Vec<String>,
}

pub(crate) fn contents(server: &Server) -> Contents {
    let info = server.ask(&["INFO", "keyspace"]);
    let databases: Vec<_> = info.lines().filter(|line| line.starts_with("db")).collect();
    let expires = |line: &&str| {
        let count = line.split("expires=").nth(1)?.split(',').next()?;
        count.parse::<u64>().ok()
    };
    Contents {
        digest: server.digest(),
        expiring: databases.iter().filter_map(expires).sum(),
        databases: databases.len(),
        functions: match server.call(&["FUNCTION", "LIST", "WITHCODE"]) {
            Reply::Array(Some(libraries)) => {
                let mut libraries: Vec<_> = libraries.iter().map(|l| format!("{l:?}")).collect();
                // A server lists them in the order of a hash table.
                libraries.sort();
                libraries
            }
            _ => Vec::new(),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_disk_fails_is_captured_all_the_same() {
    for engine in installed_engines() {
        let source = Server::start(&engine, &["--save", "3600 1"]);
        source.fill(100, 50);
        std::fs::create_dir(source.folder().join("dump.rdb")).unwrap();
        source.ask(&["BGSAVE"]);
        eventually("it fails", || (source.info("rdb_last_bgsave_status") == "err").then_some(()));
        if source.ask(&["CONFIG", "GET", "repl-diskless-sync"]).contains("no") {
            // That engine's own default would write a file.
            source.ask(&["CONFIG", "SET", "repl-diskless-sync", "yes"]);
        }
        let entry = Rig::new().capture(&source.target()).await.unwrap();
        assert_eq!(digest(&entry).key_count, 100, "{}", engine.name);
    }
}

fn digest(entry: &ArtifactEntry) -> DigestEntry {
    match &entry.rdb.content {
        Some(ContentEntry::Verified { digest, .. }) => digest.clone(),
        other => panic!("not verified: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_loads_with_the_same_digest() {
    for engine in installed_engines() {
        let source = Server::start_with_rdb(&engine, &dataset_for(&engine), &[]);
        let before = contents(&source);
        assert!(before.databases >= 2 && before.expiring > 0, "{before:?}");
        let rig = Rig::new();
        let entry =
            rig.capture(&source.target()).await.unwrap_or_else(|e| panic!("{}: {e}", engine.name));
        verify_artifact(&rig.store, &rig.key, &entry).await.unwrap();

        let rdb = decoded(&rig.file());
        assert_eq!(rdb.len() as u64, entry.rdb.size_bytes);
        let loaded = Server::start_with_rdb(&engine, &rdb, &[]);
        assert_eq!(contents(&loaded), before, "{}", engine.name);
        assert_eq!(contents(&source), before, "{}: the source changed", engine.name);
        // Our own digest sees the same data behind whatever the new server made of it.
        let again = Rig::new();
        let reloaded = again.capture(&loaded.target()).await.unwrap();
        assert_eq!(digest(&reloaded), digest(&entry), "{}", engine.name);
        eventually("the source has no child and no replica", || {
            (source.info("rdb_bgsave_in_progress") == "0" && source.info("connected_slaves") == "0")
                .then_some(())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_sends_a_file_is_captured_too() {
    for engine in installed_engines() {
        let source = Server::start(&engine, &["--repl-diskless-sync", "no"]);
        source.fill(1000, 100);
        let rig = Rig::new();
        rig.capture(&source.target()).await.unwrap_or_else(|e| panic!("{}: {e}", engine.name));
        let loaded = Server::start_with_rdb(&engine, &decoded(&rig.file()), &[]);
        assert_eq!(loaded.digest(), source.digest(), "{}", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_9_gives_its_own_format_or_on_request_a_portable_one() {
    let engines = installed_engines();
    let valkey = engines.iter().find(|engine| engine.name == "valkey-9.1").unwrap();
    let source = Server::start(valkey, &[]);
    source.fill(10, 10);
    for (dialect, header) in
        [(RdbDialect::Native, "VALKEY080"), (RdbDialect::Portable, "REDIS0011")]
    {
        let rig = Rig { dialect, ..Rig::new() };
        let entry = rig.capture(&source.target()).await.unwrap();
        assert_eq!(entry.rdb.header, header);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_in_sync_is_captured_instead_of_its_primary() {
    let engine = newest_redis();
    let primary = Server::start(&engine, &[]);
    let replica = Server::start(&engine, &["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    primary.fill(1000, 100);
    eventually("the replica is online", || {
        primary.info("slave0").contains("state=online").then_some(())
    });
    let rig = Rig::new();
    let entry = rig.capture(&primary.target()).await.unwrap();
    assert_eq!(
        (entry.source.role.as_str(), entry.source.address),
        ("replica", replica.address().to_string())
    );
    let loaded = Server::start_with_rdb(&engine, &decoded(&rig.file()), &[]);
    assert_eq!(loaded.digest(), primary.digest());
    assert_eq!(
        primary.info("total_forks"),
        "1",
        "only its replica's own synchronisation forked the primary"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_answer_is_passed_over() {
    let engine = newest_redis();
    let primary = Server::start(&engine, &[]);
    let _replica = Server::start(
        &engine,
        &["--replicaof", "127.0.0.1", &primary.port.to_string(), "--replica-announce-port", "1"],
    );
    eventually("the replica is online", || {
        primary.info("slave0").contains("state=online").then_some(())
    });
    let entry = Rig::new().capture(&primary.target()).await.unwrap();
    assert_eq!(entry.source.role, "primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_waits_for_another_fork_to_end() {
    let source = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    source.fill(600, 10);
    source.ask(&["BGSAVE"]);
    let rig = Rig::new();
    let meter = std::sync::Arc::clone(&rig.meter);
    let target = source.target();
    let capture = tokio::spawn(async move { rig.capture(&target).await });
    tokio::task::spawn_blocking(move || {
        eventually("the capture waits", || meter.read().phase.contains("saving").then_some(()));
    })
    .await
    .unwrap();
    source.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    capture.await.unwrap().unwrap();
    assert_eq!(source.info("total_forks"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_real_and_never_goes_back() {
    let source = Server::start(&newest_redis(), &["--rdb-key-save-delay", "300"]);
    source.fill(16_000, 10);
    let rig = Rig::new();
    let meter = std::sync::Arc::clone(&rig.meter);
    let target = source.target();
    let capture = tokio::spawn(async move { rig.capture(&target).await });
    let mut seen = vec![Progress::NONE];
    while !capture.is_finished() {
        let now = meter.read().progress;
        assert!(now >= *seen.last().unwrap(), "{seen:?} then {now}");
        if now > *seen.last().unwrap() {
            seen.push(now);
        }
        tokio::task::yield_now().await;
    }
    capture.await.unwrap().unwrap();
    assert!(seen.len() > 2, "progress moved only through {seen:?}");
}
