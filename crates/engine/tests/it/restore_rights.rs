//! A restore needs rights: a plan tells each that is missing, and with just those that it asks for a restore
//! succeeds, on every installed engine.

use cachevault_domain::{
    Blocker, ConflictRule, KeyFilter, Login, RestoreOptions, RestorePlan, RestoreWay, ServerWords,
    Target, TtlRule,
};
use cachevault_engine::{KeysRequest, OurAddress, PlanRequest};
use cachevault_engine::{ProofDemand, make_durable, prepare, prepare_keys, save};
use cachevault_store::{ArtifactEntry, ContentEntry};
use cachevault_testkit::{
    Engine, Server, dataset_for, eventually, installed_engines, newest_redis,
};
use serde_json::json;

use crate::capture_real::contents;
use crate::restore_plan::{engine, entry_of, plan_with};
use crate::restore_real::LIMITS;
use crate::support::Rig;

/// What reading the data needs, before and after.
const READING: [&str; 4] = ["info", "ping", "replconf", "psync"];
/// What the way `replica` needs beside it.
const BY_REPLICA: [&str; 4] = ["config|get", "config|set", "replicaof", "bgsave"];
/// What the way `keys` needs beside it, and where functions exist.
const BY_KEYS: [&str; 3] = ["restore", "flushall", "select"];
const FUNCTIONS: [&str; 2] = ["function|load", "function|flush"];
/// What values need that are written by several commands.
const BY_PARTS: [&str; 14] = [
    "exists",
    "unlink",
    "pexpireat",
    "set",
    "append",
    "rpush",
    "sadd",
    "zadd",
    "hset",
    "xadd",
    "xsetid",
    "xgroup",
    "xclaim",
    "xreadgroup",
];

fn has_acl(engine: &Engine) -> bool {
    engine.name != "redis-5.0"
}

fn has_functions(engine: &Engine) -> bool {
    has_acl(engine) && engine.name != "redis-6.2"
}

fn by(way: RestoreWay) -> RestoreOptions {
    RestoreOptions { way: Some(way), ..RestoreOptions::default() }
}

/// A server with data, and functions where it knows them.
fn target_of(engine: &Engine, options: &[&str]) -> Server {
    let server = Server::start(engine, options);
    server.fill(10, 10);
    if has_functions(engine) {
        let library = "#!lua name=own\nredis.register_function('own', function() return 1 end)";
        server.ask(&["FUNCTION", "LOAD", library]);
    }
    server
}

/// The server for a user who may do this and nothing else, with every key.
fn with_rights(server: &Server, rights: &[&str]) -> Target {
    let mut rule = vec!["ACL", "SETUSER", "restorer", "reset", "on", ">secret", "~*"];
    let rights: Vec<_> = rights.iter().map(|right| format!("+{right}")).collect();
    rule.extend(rights.iter().map(String::as_str));
    server.ask(&rule);
    let login = Login { username: Some("restorer".into()), password: "secret".to_owned().into() };
    Target { login: Some(login), ..server.target() }
}

/// `function|load` as a plan names it.
fn shown(right: &str) -> String {
    right.to_uppercase().replace('|', " ")
}

/// Takes away each of these rights, one at a time, and asks what blocks.
async fn take_away_each(
    server: &Server,
    rights: &[&str],
    entry: &ArtifactEntry,
    options: &RestoreOptions,
    what: &str,
) {
    for missing in rights {
        let rest: Vec<_> = rights.iter().copied().filter(|right| right != missing).collect();
        let planned = plan_with(&with_rights(server, &rest), entry, options).await;
        if *missing == "info" {
            let error = planned.unwrap_err().to_string();
            assert!(error.contains("info"), "{what}: {error}");
            continue;
        }
        assert_denied(&planned.unwrap(), missing, &format!("{what} without {missing}"));
    }
    let target = with_rights(server, rights);
    let plan = plan_with(&target, entry, options).await.unwrap();
    assert_eq!(plan.blockers, [], "{what}");
}

fn assert_denied(plan: &RestorePlan, missing: &str, what: &str) {
    assert!(!plan.blockers.is_empty(), "{what}: nothing blocks");
    for blocker in &plan.blockers {
        let Blocker::Denied { command, grant, .. } = blocker else { panic!("{what}: {blocker}") };
        assert!(command.starts_with(&shown(missing)), "{what}: {blocker}");
        assert!(grant.contains(missing), "{what}: {blocker}");
    }
}

fn all<'r>(parts: &[&[&'r str]]) -> Vec<&'r str> {
    parts.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_a_native_restore_lacks_blocks_by_its_name() {
    for engine in installed_engines().iter().filter(|engine| has_acl(engine)) {
        let (server, entry) = (target_of(engine, &[]), entry_of(engine).await);
        let options = RestoreOptions { prove: Some(false), ..by(RestoreWay::Replica) };
        let rights = all(&[&READING, &BY_REPLICA]);
        take_away_each(&server, &rights, &entry, &options, &engine.name).await;
    }
}

/// Projects that do not administer the service are not told what a server said; their plans know it.
#[tokio::test(flavor = "multi_thread")]
async fn rights_are_missed_by_their_names_where_the_words_of_the_server_are_hidden() {
    let (engine, hidden) = (newest_redis(), ServerWords::Hidden);
    let (server, entry) = (target_of(&engine, &[]), entry_of(&engine).await);
    let options = RestoreOptions { prove: Some(false), ..by(RestoreWay::Replica) };
    let rights = all(&[&READING, &BY_REPLICA]);
    for missing in BY_REPLICA {
        let rest: Vec<_> = rights.iter().copied().filter(|right| *right != missing).collect();
        let target = Target { words: hidden, ..with_rights(&server, &rest) };
        let plan = plan_with(&target, &entry, &options).await.unwrap();
        assert_denied(&plan, missing, missing);
        assert!(!plan.blockers[0].to_string().contains("permissions"), "{}", plan.blockers[0]);
    }
    let server = target_of(&engine, &["--rename-command", "FLUSHALL", ""]);
    let target = Target { words: hidden, ..server.target() };
    let plan = plan_with(&target, &entry, &by(RestoreWay::Keys)).await.unwrap();
    let [blocker] = &plan.blockers[..] else { panic!("{plan:?}") };
    assert!(blocker.to_string().contains("rename-command"), "{blocker}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_a_restore_by_keys_lacks_blocks_by_its_name() {
    for engine in installed_engines().iter().filter(|engine| has_acl(engine)) {
        let (server, entry) = (target_of(engine, &[]), entry_of(engine).await);
        let functions = if has_functions(engine) { &FUNCTIONS[..] } else { &[] };
        let options = by(RestoreWay::Keys);
        let rights = all(&[&READING, &BY_KEYS, functions]);
        take_away_each(&server, &rights, &entry, &options, &engine.name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_values_in_parts_and_a_look_before_lack_blocks_by_its_name() {
    for engine in installed_engines().iter().filter(|engine| has_acl(engine)) {
        let (server, mut entry) = (target_of(engine, &[]), entry_of(engine).await);
        let Some(ContentEntry::Verified { report, .. }) = &mut entry.rdb.content else { panic!() };
        let kinds = ["string", "list", "set", "zset", "hash", "stream"];
        let large = kinds.map(|kind| {
            json!({"db": 0, "name": "large", "kind": kind, "encoding": "any", "elements": 1,
                   "stored_bytes": 70 << 20, "memory_bytes": 80 << 20})
        });
        report["largest"] = json!(large);
        let options = RestoreOptions { ttl: TtlRule::Shift, ..by(RestoreWay::Keys) };
        let knows_field_expiry = !["redis-6.2", "redis-7.0", "valkey-8.0"].contains(&&*engine.name);
        let fields = if knows_field_expiry { &["hpexpireat"][..] } else { &[] };
        let functions = if has_functions(engine) { &FUNCTIONS[..] } else { &[] };
        let parts: Vec<_> = all(&[&BY_PARTS, fields]);
        // What transactions need is not denied but unknown, which a note says.
        let known = all(&[&READING, &BY_KEYS, functions, &parts]);
        let rights = all(&[&known, &["multi", "discard"]]);
        for missing in &parts {
            let rest: Vec<_> = rights.iter().copied().filter(|right| right != missing).collect();
            let plan = plan_with(&with_rights(&server, &rest), &entry, &options).await.unwrap();
            assert_denied(&plan, missing, &format!("{} without {missing}", engine.name));
        }
        let plan = plan_with(&with_rights(&server, &rights), &entry, &options).await.unwrap();
        assert_eq!(plan.blockers, [], "{}", engine.name);
        let plan = plan_with(&with_rights(&server, &known), &entry, &options).await.unwrap();
        assert!(plan.notes.iter().any(|note| note.contains("+multi +discard")), "{:?}", plan.notes);

        let look = RestoreOptions { conflict: ConflictRule::Fail, ..by(RestoreWay::Keys) };
        let looking =
            if has_functions(engine) { &["exists", "function|list"][..] } else { &["exists"] };
        for missing in looking {
            let rest: Vec<_> = all(&[&rights, looking]);
            let rest: Vec<_> = rest.into_iter().filter(|right| right != missing).collect();
            let plan = plan_with(&with_rights(&server, &rest), &entry, &look).await.unwrap();
            assert_denied(&plan, missing, &format!("{} looks without {missing}", engine.name));
        }
        // Nothing was written, queued or not.
        assert_eq!(server.ask(&["DBSIZE"]), "10", "{}", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_rights_that_a_plan_asks_for_a_restore_succeeds() {
    for engine in installed_engines().iter().filter(|engine| has_acl(engine)) {
        let source = Server::start_with_rdb(engine, &dataset_for(engine), &[]);
        let rig = Rig::new();
        let entry = rig.capture(&source.target()).await.unwrap();

        let server = target_of(engine, &[]);
        let target = with_rights(&server, &all(&[&READING, &BY_REPLICA]));
        let plan = plan_with(&target, &entry, &by(RestoreWay::Replica)).await.unwrap();
        assert_eq!((&plan.blockers[..], plan.prove), (&[][..], true), "{}", engine.name);
        let ours = OurAddress::default();
        let prepared = prepare(&target, false, &ours, [7; 40], &LIMITS).await.unwrap();
        let loaded = rig.load(&entry, &target, &prepared).await.unwrap();
        assert!(loaded.comparison.proven, "{}", engine.name);
        make_durable(&target, &prepared, &LIMITS).await.unwrap();
        eventually("both hold the same", || (contents(&source) == contents(&server)).then_some(()));

        let server = target_of(engine, &[]);
        let functions = if has_functions(engine) { &FUNCTIONS[..] } else { &[] };
        let target = with_rights(&server, &all(&[&READING, &BY_KEYS, functions]));
        let options = by(RestoreWay::Keys);
        let plan = plan_with(&target, &entry, &options).await.unwrap();
        assert_eq!((&plan.blockers[..], plan.prove), (&[][..], true), "{}", engine.name);
        let prepared = prepare_keys(&target, &LIMITS).await.unwrap();
        prepared.apply(&target, &LIMITS).await.unwrap();
        let now = jiff::Timestamp::now();
        let request = KeysRequest {
            target: &target,
            store: &rig.store,
            key: &rig.key,
            entry: &entry,
            options: &options,
            now,
            captured_at: now,
            limits: LIMITS,
        };
        cachevault_engine::load_keys(request, &rig.meter, &rig.cancel).await.unwrap();
        let compared = request.prove(ProofDemand::Required, &rig.gate, &rig.meter).await.unwrap();
        assert!(compared.proven, "{}", engine.name);
        prepared.put_back(&target, &LIMITS).await.unwrap();
        save(&target, Some(&prepared), &LIMITS).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_renamed_away_blocks_by_its_name() {
    for engine in installed_engines() {
        let entry = entry_of(&engine).await;
        let mut commands = vec![
            ("CONFIG", RestoreWay::Replica),
            ("REPLICAOF", RestoreWay::Replica),
            ("BGSAVE", RestoreWay::Replica),
            ("PSYNC", RestoreWay::Replica),
            ("REPLCONF", RestoreWay::Keys),
            ("RESTORE", RestoreWay::Keys),
            ("FLUSHALL", RestoreWay::Keys),
            ("SELECT", RestoreWay::Keys),
        ];
        commands.extend(has_functions(&engine).then_some(("FUNCTION", RestoreWay::Keys)));
        for (command, way) in commands {
            let server = Server::start(&engine, &["--rename-command", command, ""]);
            server.fill(10, 10);
            let plan = plan_with(&server.target(), &entry, &by(way)).await.unwrap();
            let what = format!("{} without {command}", engine.name);
            assert!(!plan.blockers.is_empty(), "{what}: nothing blocks");
            for blocker in &plan.blockers {
                let Blocker::Denied { command: named, .. } = blocker else {
                    panic!("{what}: {blocker}")
                };
                assert!(named.starts_with(command), "{what}: {blocker}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_flushall_is_renamed_away_every_restore_that_flushes_nothing_works() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(50, 10);
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    let server = Server::start(&newest_redis(), &["--rename-command", "FLUSHALL", ""]);
    let target = server.target();
    let into_empty = by(RestoreWay::Keys);
    let replacing = RestoreOptions { conflict: ConflictRule::Replace, ..into_empty.clone() };
    // The first finds it empty, the second does not.
    for options in [&into_empty, &replacing] {
        assert_eq!(plan_with(&target, &entry, options).await.unwrap().blockers, []);
        let now = jiff::Timestamp::now();
        let request = KeysRequest {
            target: &target,
            store: &rig.store,
            key: &rig.key,
            entry: &entry,
            options,
            now,
            captured_at: now,
            limits: LIMITS,
        };
        cachevault_engine::load_keys(request, &rig.meter, &rig.cancel).await.unwrap();
        assert_eq!(server.digest(), source.digest());
    }
    let plan = plan_with(&target, &entry, &into_empty).await.unwrap();
    let [blocker] = &plan.blockers[..] else { panic!("{:?}", plan.blockers) };
    let words = blocker.to_string();
    for word in ["FLUSHALL", "rename-command", "--merge"] {
        assert!(words.contains(word), "{words}");
    }
    assert!(!words.contains("ACL SETUSER"), "{words}");
    let plan = plan_with(&target, &entry, &RestoreOptions::default()).await.unwrap();
    assert_eq!((&plan.blockers[..], plan.way), (&[][..], RestoreWay::Replica));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_right_for_native_loading_the_plan_chooses_keys_and_asks_for_what_those_need() {
    let (server, entry) = (Server::start(&newest_redis(), &[]), entry_of(&newest_redis()).await);
    server.fill(10, 10);
    for missing in BY_REPLICA {
        let rest = all(&[&READING, &BY_REPLICA]);
        let rest: Vec<_> = rest.into_iter().filter(|right| *right != missing).collect();
        let target = with_rights(&server, &rest);
        let denied = async |options: RestoreOptions| {
            let plan = plan_with(&target, &entry, &options).await.unwrap();
            assert_eq!(plan.way, RestoreWay::Keys, "{missing}");
            plan.blockers.iter().map(ToString::to_string).collect::<String>()
        };
        let found = denied(RestoreOptions::default()).await;
        for command in ["RESTORE", "FLUSHALL", "SELECT", "FUNCTION LOAD"] {
            assert!(found.contains(command), "{found}");
        }
        // The target has no functions that would have to be dropped.
        assert!(!found.contains("FUNCTION FLUSH"), "{found}");
        let filter = KeyFilter::new(Some("k*".into()), Some(0)).unwrap();
        let found = denied(RestoreOptions { filter, ..RestoreOptions::default() }).await;
        for command in ["SELECT", "FUNCTION", "FLUSHALL"] {
            assert!(!found.contains(command), "{found}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_for_some_keys_or_databases_do_for_what_is_wanted_of_them() {
    let entry = entry_of(&newest_redis()).await;
    let server = Server::start(&newest_redis(), &[]);
    let target = with_rights(&server, &["@all"]);
    server.ask(&["ACL", "SETUSER", "restorer", "resetkeys", "~app:*"]);
    let plan = plan_with(&target, &entry, &by(RestoreWay::Keys)).await.unwrap();
    let [Blocker::Denied { command, grant, .. }] = &plan.blockers[..] else { panic!("{plan:?}") };
    assert_eq!((command.as_str(), grant.as_str()), ("RESTORE", "~*"));
    let filter = KeyFilter::new(Some("app:*".into()), None).unwrap();
    let options = RestoreOptions { filter, ..by(RestoreWay::Keys) };
    assert_eq!(plan_with(&target, &entry, &options).await.unwrap().blockers, []);

    let valkey = engine("valkey-9.1");
    let (server, entry) = (Server::start(&valkey, &[]), entry_of(&valkey).await);
    let target = with_rights(&server, &["@all"]);
    server.ask(&["ACL", "SETUSER", "restorer", "resetdbs", "db=0"]);
    let plan = plan_with(&target, &entry, &by(RestoreWay::Keys)).await.unwrap();
    assert!(!plan.blockers.is_empty());
    for blocker in &plan.blockers {
        let Blocker::Denied { grant, .. } = blocker else { panic!("{blocker}") };
        assert_eq!(grant, "alldbs", "{blocker}");
    }
    let filter = KeyFilter::new(None, Some(0)).unwrap();
    let options = RestoreOptions { filter, ..by(RestoreWay::Keys) };
    assert_eq!(plan_with(&target, &entry, &options).await.unwrap().blockers, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_the_data_restores_without_proof_into_an_empty_target() {
    let (server, entry) = (Server::start(&newest_redis(), &[]), entry_of(&newest_redis()).await);
    let target = with_rights(&server, &all(&[&["info"], &BY_REPLICA]));
    let plan = plan_with(&target, &entry, &RestoreOptions::default()).await.unwrap();
    assert_eq!((&plan.blockers[..], plan.prove), (&[][..], false));
    assert!(plan.unprovable.as_ref().is_some_and(|why| why.contains("+psync")), "{plan:?}");
    let options = RestoreOptions { prove: Some(true), ..RestoreOptions::default() };
    let plan = plan_with(&target, &entry, &options).await.unwrap();
    assert!(matches!(&plan.blockers[..], [Blocker::Unprovable { .. }]), "{:?}", plan.blockers);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aof_that_the_server_rewrote_by_itself_is_enough() {
    for engine in installed_engines() {
        for swap in [false, true] {
            if swap && engine.name == "redis-5.0" {
                continue;
            }
            let source = Server::start(&engine, &[]);
            source.fill(1000, 100);
            let rig = Rig::new();
            let entry = rig.capture(&source.target()).await.unwrap();
            let options = ["--appendonly", "yes", "--rename-command", "BGREWRITEAOF", ""];
            let mut server = Server::start(&engine, &options);
            server.fill(300, 50);
            let target = server.target();
            let request = PlanRequest {
                target: &target,
                entry: &entry,
                options: &by(RestoreWay::Replica),
                has_certificate: false,
                target_writes: None,
                command: LIMITS.command,
            };
            let plan = cachevault_engine::plan(request).await.unwrap();
            assert_eq!(plan.blockers, [], "{}", engine.name);
            let ours = OurAddress::default();
            let prepared = prepare(&target, swap, &ours, [7; 40], &LIMITS).await.unwrap();
            rig.load(&entry, &target, &prepared).await.unwrap();
            eventually("its rewrite is over", || {
                let runs = ["aof_rewrite_in_progress", "aof_rewrite_scheduled"];
                runs.iter().all(|field| server.info(field) == "0").then_some(())
            });
            make_durable(&target, &prepared, &LIMITS).await.unwrap();
            server.kill();
            server.start_again();
            assert_eq!(server.digest(), source.digest(), "{} {swap}", engine.name);
        }
    }
}
