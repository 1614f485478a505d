//! Values that are written in parts, with a limit so small that nearly every value is.

use cachevault_domain::RdbDialect;
use cachevault_store::{BackupKey, FolderStore};
use cachevault_testkit::{Engine, Server, eventually, installed_engines, repository_file};

use super::*;
use crate::capture::{CaptureLimits, CaptureRequest, capture};
use crate::gate::SourceGate;

const SECONDS: Duration = Duration::from_secs(30);

const LIMITS: RestoreLimits =
    RestoreLimits { command: SECONDS, stall: SECONDS, busy_wait: SECONDS, total: SECONDS };

fn samples_for(engine: &Engine) -> Vec<Vec<u8>> {
    let folder = match engine.name.as_str() {
        "redis-5.0" => "redis-5.0.14",
        "redis-6.2" => "redis-6.2.16",
        "redis-7.0" => "redis-7.0.15",
        "valkey-8.0" => "valkey-8.0.1",
        "valkey-9.1" => "valkey-9.1.2",
        // Values of modules are not written in parts.
        _ => "redis-7.4.1",
    };
    let file = |name: &str| repository_file(&format!("fixtures/rdb/{folder}/{name}.rdb"));
    ["all", "forced-packed", "forced-unpacked"]
        .map(|name| std::fs::read(file(name)).unwrap())
        .into()
}

async fn copy(
    source: &Server,
    target: &Server,
    options: &RestoreOptions,
    payload_max: u64,
) -> Result<KeysLoaded, RestoreError> {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::open(folder.path()).unwrap();
    let backup = BackupKey {
        project: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        instance: "5560df16-cebf-4473-95c4-d1b573c16e79".parse().unwrap(),
        backup: "4631832a-14c6-45b0-a0b3-3abd8f591ad1".parse().unwrap(),
    };
    let key = backup.attempt(1).artifact(0);
    let (meter, cancel) = (Meter::default(), CancellationToken::new());
    let seconds = source.call(&["TIME"]);
    let Reply::Array(Some(time)) = seconds else { panic!("no time") };
    let now = Timestamp::from_second(cachevault_testkit::text(&time[0]).parse().unwrap()).unwrap();
    let request = CaptureRequest {
        target: &source.target(),
        prefer_replica: false,
        dialect: RdbDialect::Native,
        as_of: now,
        zstd_level: Some(1),
        earlier_bytes: None,
        gate: &SourceGate::default(),
        limits: CaptureLimits {
            command: SECONDS,
            stall: SECONDS,
            busy_wait: SECONDS,
            total: SECONDS,
            source: None,
        },
    };
    let entry = capture(request, &store, &key, &meter, &cancel).await.unwrap();
    let request = KeysRequest {
        target: &target.target(),
        store: &store,
        key: &key,
        entry: &entry,
        options,
        now,
        captured_at: now,
        limits: LIMITS,
    };
    load_keys_splitting(request, payload_max, &meter, &cancel).await
}

/// What a server tells of a stream, but for the moments when consumers were seen.
fn streams(server: &Server) -> Vec<String> {
    let Reply::Array(Some(keys)) = server.call(&["KEYS", "*"]) else { panic!("no keys") };
    let mut names: Vec<_> = keys.iter().map(cachevault_testkit::text).collect();
    names.sort();
    names.retain(|name| server.ask(&["TYPE", name]) == "stream");
    let mut told = Vec::new();
    for name in names {
        let Reply::Array(Some(groups)) = server.call(&["XINFO", "GROUPS", &name]) else {
            panic!("no groups of {name}")
        };
        told.push(format!("{name}: {groups:?}"));
        for group in groups {
            let Reply::Array(Some(facts)) = group else { panic!("{group:?}") };
            let group = cachevault_testkit::text(&facts[1]);
            told.push(format!("{:?}", server.call(&["XPENDING", &name, &group])));
            let pending = server.call(&["XPENDING", &name, &group, "-", "+", "100000"]);
            let Reply::Array(Some(pending)) = pending else { panic!("{pending:?}") };
            // Not the time since, which grows.
            told.extend(pending.iter().map(|pending| match pending {
                Reply::Array(Some(p)) => format!("{:?} {:?} {:?}", p[0], p[1], p[3]),
                other => panic!("{other:?}"),
            }));
        }
    }
    told
}

#[test]
fn each_rule_for_expiries_leaves_out_what_is_over() {
    let rules = |ttl| Rules {
        filter: KeyFilter::default(),
        conflict: ConflictRule::ReplaceAll,
        ttl,
        now_ms: 1000,
        captured_at_ms: 400,
    };
    for (ttl, stored, expected) in [
        (TtlRule::Keep, None, Ok(None)),
        (TtlRule::Keep, Some(1001), Ok(Some(1001))),
        (TtlRule::Keep, Some(1000), Err(Over)),
        (TtlRule::Keep, Some(-1), Err(Over)),
        (TtlRule::Shift, Some(401), Ok(Some(1001))),
        (TtlRule::Shift, Some(400), Err(Over)),
        (TtlRule::Shift, Some(i64::MAX), Ok(Some(i64::MAX))),
        (TtlRule::Strip, Some(401), Ok(None)),
        (TtlRule::Strip, Some(400), Err(Over)),
    ] {
        assert_eq!(rules(ttl).expiry(stored), expected, "{ttl:?} {stored:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_parts_are_the_same_values() {
    for engine in installed_engines() {
        for (sample, rdb) in samples_for(&engine).iter().enumerate() {
            for payload_max in [16, 3000] {
                let source = Server::start_with_rdb(&engine, rdb, &[]);
                let target = Server::start(&engine, &[]);
                target.ask(&["SET", "mine", "x"]);
                let loaded = copy(&source, &target, &RestoreOptions::default(), payload_max).await;
                let loaded = loaded.unwrap_or_else(|e| panic!("{} {sample}: {e}", engine.name));
                let what = format!("{} {sample} {payload_max}: {loaded:?}", engine.name);
                eventually(&what, || (source.digest() == target.digest()).then_some(()));
                assert_eq!(streams(&source), streams(&target), "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_parts_give_way_as_whole_ones_do() {
    let engine = cachevault_testkit::newest_redis();
    let (source, target) = (Server::start(&engine, &[]), Server::start(&engine, &[]));
    let long = "x".repeat(5000);
    source.ask(&["RPUSH", "both", &long, &long]);
    source.ask(&["RPUSH", "theirs", &long, "", "1"]);
    source.ask(&["PEXPIREAT", "theirs", "9999999999999"]);
    target.ask(&["RPUSH", "both", "mine"]);
    let options = |conflict| RestoreOptions { conflict, ..RestoreOptions::default() };
    let error = copy(&source, &target, &options(ConflictRule::Fail), 40).await.unwrap_err();
    assert!(matches!(error, RestoreError::KeysExist { .. }), "{error}");
    let loaded = copy(&source, &target, &options(ConflictRule::Skip), 40).await.unwrap();
    assert_eq!((loaded.restored, loaded.skipped), (1, 1));
    assert_eq!(target.ask(&["LLEN", "both"]), "1");
    assert_eq!(target.ask(&["PEXPIRETIME", "theirs"]), "9999999999999");
    let loaded = copy(&source, &target, &options(ConflictRule::Replace), 40).await.unwrap();
    assert_eq!((loaded.restored, loaded.skipped), (2, 0));
    assert_eq!(target.digest(), source.digest());
}

/// Runs itself again in a process of its own, of which the peak is that of nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_pass_in_constant_memory() {
    const ALONE: &str = "CACHEVAULT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return copy_large_values().await;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "restore::keys_way::tests::large_values_pass_in_constant_memory"]);
    let output = command.env(ALONE, "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

async fn copy_large_values() {
    let engine = cachevault_testkit::newest_redis();
    let (source, target) = (Server::start(&engine, &[]), Server::start(&engine, &[]));
    source.ask(&["SETRANGE", "string", "150000000", "end"]);
    source.ask(&["DEBUG", "POPULATE", "30000", "key", "5000"]);
    let before = peak_memory_kb();
    // Compressed, the long string is a few MiB; only as it is would holding it whole show.
    for compression in ["yes", "no"] {
        source.ask(&["CONFIG", "SET", "rdbcompression", compression]);
        target.ask(&["FLUSHALL"]);
        copy(&source, &target, &RestoreOptions::default(), 1 << 20).await.unwrap();
        assert_eq!(target.digest(), source.digest());
    }
    // The kernel's figures are estimates, and may fall a little.
    let grown = peak_memory_kb().saturating_sub(before);
    // It grows by about 30 MiB, and by more than the string where that is held.
    assert!(grown < 100 << 10, "{grown} KiB");
}

fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
