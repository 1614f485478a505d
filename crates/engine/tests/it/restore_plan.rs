//! What stands in the way of a restore is said beforehand, by real servers, and nothing is touched.

use std::time::Duration;

use cachevault_domain::{
    Blocker, KeyFilter, Loading, Login, RestoreOptions, RestorePlan, RestoreWay, Target,
};
use cachevault_engine::{PartRequest, PlanRequest, RestoreError, check_part, plan};
use cachevault_store::{ArtifactEntry, ContentEntry};
use cachevault_testkit::{
    Certificates, Engine, Server, dataset_for, eventually, free_port, installed_engines,
    newest_redis,
};

use crate::support::Rig;

pub(crate) async fn plan_with(
    target: &Target,
    entry: &ArtifactEntry,
    options: &RestoreOptions,
) -> Result<RestorePlan, RestoreError> {
    let command = Duration::from_secs(5);
    plan(PlanRequest {
        target,
        entry,
        options,
        has_certificate: false,
        target_writes: None,
        command,
    })
    .await
}

/// The only blocker of a restore into `target`, which stays as it is.
async fn blocker(server: &Server, target: &Target, entry: &ArtifactEntry) -> Blocker {
    let (before, log) = (server.digest(), server.info("master_replid"));
    // Left to the plan, another way might do.
    let options = RestoreOptions { way: Some(RestoreWay::Replica), ..RestoreOptions::default() };
    let plan = plan_with(target, entry, &options).await.unwrap();
    assert_eq!((server.digest(), server.info("master_replid")), (before, log));
    let [blocker] = &plan.blockers[..] else { panic!("{:?}", plan.blockers) };
    blocker.clone()
}

pub(crate) fn engine(name: &str) -> Engine {
    installed_engines().into_iter().find(|engine| engine.name == name).unwrap()
}

pub(crate) async fn entry_of(engine: &Engine) -> ArtifactEntry {
    let source = Server::start_with_rdb(engine, &dataset_for(engine), &[]);
    Rig::new().capture(&source.target()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_without_blockers_says_what_will_happen() {
    let entry = entry_of(&newest_redis()).await;
    let target = Server::start(&newest_redis(), &["--appendonly", "yes"]);
    let planned = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
    assert_eq!((planned.blockers.len(), planned.way), (0, RestoreWay::Replica));
    assert_eq!((planned.loading, planned.replaced_keys, planned.prove), (Loading::Direct, 0, true));
    assert!(planned.keys.unwrap() > 10 && planned.needed_bytes > 0);
    assert!(planned.notes.iter().any(|note| note.contains("AOF")), "{:?}", planned.notes);
    target.fill(100, 50);
    let planned = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
    assert_eq!((planned.loading, planned.replaced_keys), (Loading::Swap, 100));
    let options = RestoreOptions { swap: Some(false), ..RestoreOptions::default() };
    let planned = plan_with(&target.target(), &entry, &options).await.unwrap();
    assert_eq!(planned.loading, Loading::Disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_the_target_does_not_load_blocks() {
    // Each as the matrix of real loads has it.
    for (from, to, loads) in [
        ("valkey-9.1", "redis-7.0", false),
        ("valkey-9.1", "valkey-8.0", false),
        ("valkey-8.0", "redis-7.0", false),
        ("redis-7.0", "redis-6.2", false),
        ("redis-7.0", "valkey-9.1", true),
        ("redis-5.0", "redis-6.2", true),
    ] {
        let entry = entry_of(&engine(from)).await;
        let target = Server::start(&engine(to), &[]);
        let plan = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
        let is_blocked =
            plan.blockers.iter().any(|blocker| matches!(blocker, Blocker::Format { .. }));
        assert_eq!(is_blocked, !loads, "{from} into {to}: {:?}", plan.blockers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_encodings_under_an_older_header_block() {
    let mut entry = entry_of(&engine("redis-5.0")).await;
    let target = Server::start(&engine("redis-6.2"), &[]);
    let plan = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
    assert_eq!(plan.blockers, []);
    let Some(ContentEntry::Verified { report, .. }) = &mut entry.rdb.content else { panic!() };
    // As if it held a stream in the encoding of Redis 7.2.
    report["least_redis_version"] = 11.into();
    let found = blocker(&target, &target.target(), &entry).await;
    assert!(matches!(&found, Blocker::Format { header, .. } if header == "REDIS0011"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_databases_block() {
    let entry = entry_of(&newest_redis()).await;
    let target = Server::start(&newest_redis(), &["--databases", "1"]);
    let found = blocker(&target, &target.target(), &entry).await;
    assert!(matches!(found, Blocker::Databases { has: 1, .. }), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_memory_blocks_all_of_the_data() {
    let entry = entry_of(&newest_redis()).await;
    let target = Server::start(&newest_redis(), &["--maxmemory", "1mb"]);
    let found = blocker(&target, &target.target(), &entry).await;
    assert!(matches!(found, Blocker::Memory { limit_bytes: 1_048_576, .. }), "{found}");
    let filter = KeyFilter::new(Some("k*".into()), None).unwrap();
    let part = RestoreOptions { filter, ..RestoreOptions::default() };
    let plan = plan_with(&target.target(), &entry, &part).await.unwrap();
    let is_about_memory = |blocker: &Blocker| matches!(blocker, Blocker::Memory { .. });
    assert!(!plan.blockers.iter().any(is_about_memory), "{:?}", plan.blockers);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_used_beside_its_data_is_not_needed() {
    // This version takes all of its backlog as soon as somebody synchronises.
    let source = Server::start(&engine("redis-6.2"), &["--repl-backlog-size", "200mb"]);
    source.fill(1000, 100);
    let entry = Rig::new().capture(&source.target()).await.unwrap();
    let Some(ContentEntry::Verified { report, .. }) = &entry.rdb.content else { panic!() };
    let told: u64 = report["aux"]["used-mem"].as_str().unwrap().parse().unwrap();
    assert!(told > 200 << 20, "{told}");
    let target = Server::start(&newest_redis(), &["--maxmemory", "32mb"]);
    let plan = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
    assert_eq!(plan.blockers, []);
    // Who knows better is believed.
    let larger = RestoreOptions { needed_bytes: Some(40 << 20), ..RestoreOptions::default() };
    let blocked = plan_with(&target.target(), &entry, &larger).await.unwrap();
    assert!(matches!(&blocked.blockers[..], [Blocker::Memory { needed_bytes: 41_943_040, .. }]));
    // And yet it is no less than what the data takes there.
    let empty: u64 = target.info("used_memory").parse().unwrap();
    target.fill(1000, 100);
    let full: u64 = target.info("used_memory").parse().unwrap();
    let (needed, taken) = (plan.needed_bytes, full - empty);
    assert!(needed >= taken * 9 / 10 && needed < taken * 3, "{needed} for {taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_known_blocks() {
    let mut entry = entry_of(&newest_redis()).await;
    entry.rdb.content = Some(ContentEntry::Opaque {
        warning: "opaque: not verified".into(),
        offset: 9,
        reason: "opcode 28 is unknown".into(),
    });
    let target = Server::start(&newest_redis(), &[]);
    let found = blocker(&target, &target.target(), &entry).await;
    assert!(found.to_string().contains("opcode 28 is unknown"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn opaque_content_goes_on_request_into_a_server_like_its_own_whatever_is_known_of_it() {
    let mut entry = entry_of(&newest_redis()).await;
    let reason = "the type of value 34 is unknown".to_owned();
    entry.rdb.content =
        Some(ContentEntry::Opaque { warning: "opaque: not verified".into(), offset: 9, reason });
    // A fork may write what its version does not say.
    entry.rdb.header = "REDIS0016".into();
    let unverified = RestoreOptions { unverified: true, ..RestoreOptions::default() };
    let target = Server::start(&newest_redis(), &[]);
    let plan = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
    assert_eq!(plan.blockers.len(), 2, "{:?}", plan.blockers);
    let plan = plan_with(&target.target(), &entry, &unverified).await.unwrap();
    assert_eq!((&plan.blockers[..], plan.prove), (&[][..], false));
    // Unless the target was seen to write an older format itself.
    let asked = PlanRequest {
        target: &target.target(),
        entry: &entry,
        options: &unverified,
        has_certificate: false,
        target_writes: Some("REDIS0010"),
        command: Duration::from_secs(5),
    };
    let blockers = cachevault_engine::plan(asked).await.unwrap().blockers;
    assert!(matches!(&blockers[..], [Blocker::Format { .. }]), "{blockers:?}");
    let older = Server::start(&engine("redis-6.2"), &[]);
    let plan = plan_with(&older.target(), &entry, &unverified).await.unwrap();
    assert!(plan.blockers.iter().any(|b| matches!(b, Blocker::Opaque { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_the_other_vendor_need_their_commands() {
    let entry = entry_of(&engine("valkey-9.1")).await;
    let server = Server::start(&engine("redis-8.2"), &[]);
    let login = Login { username: Some("restorer".into()), password: "secret".to_owned().into() };
    let target = Target { login: Some(login), ..server.target() };
    for (denied, command) in [("-hset", "HSET"), ("-hpexpireat", "HPEXPIREAT"), ("-del", "")] {
        server
            .ask(&["ACL", "SETUSER", "restorer", "reset", "on", ">secret", "~*", "+@all", denied]);
        let plan = plan_with(&target, &entry, &RestoreOptions::default()).await.unwrap();
        assert_eq!(plan.way, RestoreWay::Keys);
        let found: Vec<_> = plan.blockers.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), usize::from(!command.is_empty()), "{found:?}");
        assert!(found.iter().all(|blocker| blocker.contains(command)), "{found:?}");
    }
    assert_eq!(server.ask(&["DBSIZE"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_modules_that_are_not_loaded_block() {
    let mut entry = entry_of(&newest_redis()).await;
    let Some(ContentEntry::Verified { report, .. }) = &mut entry.rdb.content else { panic!() };
    report["modules"] = serde_json::json!({"ReJSON-RL": 3});
    let target = Server::start(&newest_redis(), &[]);
    let found = blocker(&target, &target.target(), &entry).await;
    assert!(found.to_string().contains("ReJSON-RL"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_no_target() {
    let engine = newest_redis();
    let entry = entry_of(&engine).await;
    let primary = Server::start(&engine, &[]);
    let target = Server::start(&engine, &[]);
    target.ask(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    eventually("it is in sync", || (target.info("master_link_status") == "up").then_some(()));
    let found = blocker(&target, &target.target(), &entry).await;
    assert_eq!(found, Blocker::Replica { primary: primary.address() });
    assert_eq!(target.info("master_link_status"), "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_watches_blocks() {
    let engine = newest_redis();
    let entry = entry_of(&engine).await;
    let target = Server::start(&engine, &[]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sentinel.conf");
    let port = free_port();
    let watch = format!("port {port}\nsentinel monitor it 127.0.0.1 {} 1\n", target.port);
    std::fs::write(&config, watch).unwrap();
    let mut sentinel = std::process::Command::new(&engine.binary)
        .arg(&config)
        .args(["--sentinel", "--bind", "127.0.0.1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the sentinel listens to its target", || {
        target.ask(&["CLIENT", "LIST"]).contains("name=sentinel-").then_some(())
    });
    let found = blocker(&target, &target.target(), &entry).await;
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    assert_eq!(found, Blocker::Sentinel);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_ask_is_told() {
    let entry = entry_of(&newest_redis()).await;
    let server = Server::start(&newest_redis(), &[]);
    let login = Login { username: Some("restorer".into()), password: "secret".to_owned().into() };
    let target = Target { login: Some(login), ..server.target() };
    for (denied, is_told) in [("+ping", false), ("-client|list", true)] {
        server.ask(&["ACL", "SETUSER", "restorer", "reset", "on", ">secret", "+@all", denied]);
        let plan = plan_with(&target, &entry, &RestoreOptions::default()).await.unwrap();
        assert!(plan.blockers.is_empty(), "{:?}", plan.blockers);
        let notes = plan.notes.join("; ");
        assert_eq!(notes.contains("+client|list"), is_told, "{notes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_by_tls_blocks_without_a_certificate() {
    let entry = entry_of(&newest_redis()).await;
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::issue(folder.path());
    let mut options = certificates.server_options(free_port(), false);
    options.extend(["--tls-replication".to_owned(), "yes".to_owned()]);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let target = Server::start(&newest_redis(), &options);
    let found = blocker(&target, &target.target(), &entry).await;
    assert_eq!(found, Blocker::NoCertificate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_takes_no_writes_blocks_the_way_that_writes() {
    let by_keys = RestoreOptions { way: Some(RestoreWay::Keys), ..RestoreOptions::default() };
    for engine in installed_engines() {
        let entry = entry_of(&engine).await;
        let target = Server::start(&engine, &["--min-replicas-to-write", "1"]);
        let plan = plan_with(&target.target(), &entry, &by_keys).await.unwrap();
        let [blocker] = &plan.blockers[..] else { panic!("{}: {plan:?}", engine.name) };
        assert!(blocker.to_string().contains("NOREPLICAS"), "{blocker}");
        assert!(matches!(blocker, Blocker::RefusesWrites { .. }), "{blocker:?}");
        let plan = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
        assert_eq!((plan.way, plan.blockers), (RestoreWay::Replica, vec![]), "{}", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_full_blocks_unless_it_is_emptied_first() {
    let entry = entry_of(&newest_redis()).await;
    let target = Server::start(&newest_redis(), &[]);
    target.fill(60_000, 1000);
    target.ask(&["CONFIG", "SET", "maxmemory", "50mb"]);
    let filter = KeyFilter::new(Some("k*".into()), None).unwrap();
    let part = RestoreOptions { filter, ..RestoreOptions::default() };
    let plan = plan_with(&target.target(), &entry, &part).await.unwrap();
    let [blocker] = &plan.blockers[..] else { panic!("{plan:?}") };
    assert!(blocker.to_string().contains("OOM"), "{blocker}");
    let all = RestoreOptions { way: Some(RestoreWay::Keys), ..RestoreOptions::default() };
    let plan = plan_with(&target.target(), &entry, &all).await.unwrap();
    assert_eq!(plan.blockers, []);
}

fn part(pattern: Option<&str>, database: Option<u32>) -> RestoreOptions {
    let filter = KeyFilter::new(pattern.map(Into::into), database).unwrap();
    RestoreOptions { filter, ..RestoreOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_a_part_looks_at_what_is_wanted_alone() {
    let mut entry = entry_of(&newest_redis()).await;
    let target = Server::start(&newest_redis(), &["--databases", "1"]);
    let plan = plan_with(&target.target(), &entry, &RestoreOptions::default()).await.unwrap();
    let [Blocker::Databases { highest, has: 1 }] = plan.blockers[..] else { panic!("{plan:?}") };
    let plan = plan_with(&target.target(), &entry, &part(None, Some(0))).await.unwrap();
    assert_eq!(plan.blockers, []);
    let highest = u32::try_from(highest).unwrap();
    let plan = plan_with(&target.target(), &entry, &part(None, Some(highest))).await.unwrap();
    assert!(matches!(plan.blockers[..], [Blocker::Databases { has: 1, .. }]), "{plan:?}");
    // Whether one of these keys is of a module, its report does not tell.
    let Some(ContentEntry::Verified { report, .. }) = &mut entry.rdb.content else { panic!() };
    report["modules"] = serde_json::json!({"ReJSON-RL": 3});
    let plan = plan_with(&target.target(), &entry, &part(Some("k*"), Some(0))).await.unwrap();
    assert_eq!(plan.blockers, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pattern_selects_is_looked_at_and_nothing_else() {
    let source = Server::start(&engine("redis-8.2"), &[]);
    source.ask(&["SET", "plain", "1"]);
    source.ask(&["HSET", "fields", "f", "1"]);
    source.ask(&["HPEXPIREAT", "fields", "4000000000000", "FIELDS", "1", "f"]);
    source.ask(&["VADD", "vectors", "VALUES", "1", "0.5", "a"]);
    source.pipeline(&[vec!["SELECT", "15"], vec!["SET", "far", "1"]]);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let target = Server::start(&engine("redis-7.0"), &["--databases", "1"]);
    let now = "2026-11-21T08:31:16Z".parse().unwrap();
    for (pattern, words) in [
        ("plain", None),
        ("nothing", None),
        ("fields", Some("REDIS0012")),
        ("vectors", Some("vectorset")),
        ("far", Some("database 15")),
    ] {
        let options = part(Some(pattern), None);
        let planned = plan_with(&target.target(), &entry, &options).await.unwrap();
        assert_eq!(planned.blockers, [], "{pattern}");
        let plan = PlanRequest {
            target: &target.target(),
            entry: &entry,
            options: &options,
            has_certificate: false,
            target_writes: None,
            command: Duration::from_secs(5),
        };
        let request = PartRequest { plan, store: &rig.store, key: &rig.key, now, captured_at: now };
        let found = check_part(request).await.unwrap();
        let text: String = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), usize::from(words.is_some()), "{pattern}: {text}");
        assert!(words.is_none_or(|words| text.contains(words)), "{pattern}: {text}");
    }
    assert_eq!(target.ask(&["DBSIZE"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_file_of_older_values_is_taken_by_commands() {
    let source = Server::start(&engine("redis-8.2"), &[]);
    source.ask(&["SET", "plain", "1"]);
    let entry = Rig::new().capture(&source.target()).await.unwrap();
    let target = Server::start(&engine("redis-7.0"), &[]);
    let by_keys = RestoreOptions { way: Some(RestoreWay::Keys), ..RestoreOptions::default() };
    let plan = plan_with(&target.target(), &entry, &by_keys).await.unwrap();
    assert_eq!(plan.blockers, []);
    let found = blocker(&target, &target.target(), &entry).await;
    assert!(matches!(found, Blocker::Format { .. }), "{found}");
}
