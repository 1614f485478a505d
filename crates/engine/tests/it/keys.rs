//! Restores by commands into real servers of every installed engine, and into scripted ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cachevault_domain::{
    Address, ConflictRule, KeyFilter, Login, RestoreOptions, Target, TlsSettings, TtlRule,
};
use cachevault_engine::{
    KeysLoaded, KeysRequest, Meter, OurAddress, ProofDemand, RdbReader, RestoreError,
    RestoreLimits, load_keys, prepare,
};
use cachevault_rdb::DecodeErrorKind;
use cachevault_rdb::raw::{Decoder, Key, Visitor};
use cachevault_store::ArtifactEntry;
use cachevault_testkit::{
    Act, Certificates, Reply, ScriptedServer, Server, dataset_for, eventually, free_port,
    installed_engine, installed_engines, newest_redis, text,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::capture_real::contents;
use crate::restore_real::LIMITS;
use crate::support::Rig;

/// One hour before the moment of every restore.
const AGE_MS: i64 = 3_600_000;

fn options(conflict: ConflictRule) -> RestoreOptions {
    RestoreOptions { conflict, ..RestoreOptions::default() }
}

fn filtered(pattern: Option<&str>, database: Option<u32>) -> RestoreOptions {
    let filter = KeyFilter::new(pattern.map(Into::into), database).unwrap();
    RestoreOptions { filter, ..options(ConflictRule::Replace) }
}

/// The moment on a server's clock.
fn now(server: &Server) -> Timestamp {
    let Reply::Array(Some(parts)) = server.call(&["TIME"]) else { panic!("no time") };
    Timestamp::from_second(text(&parts[0]).parse().unwrap()).unwrap()
}

impl Rig {
    async fn load_keys_at(
        &self,
        entry: &ArtifactEntry,
        target: &Target,
        options: &RestoreOptions,
        now: Timestamp,
        limits: RestoreLimits,
    ) -> Result<KeysLoaded, RestoreError> {
        let captured_at = Timestamp::from_millisecond(now.as_millisecond() - AGE_MS).unwrap();
        let request = KeysRequest {
            target,
            store: &self.store,
            key: &self.key,
            entry,
            options,
            now,
            captured_at,
            limits,
        };
        load_keys(request, &self.meter, &self.cancel).await
    }

    async fn load_keys(
        &self,
        entry: &ArtifactEntry,
        target: &Server,
        options: &RestoreOptions,
    ) -> Result<KeysLoaded, RestoreError> {
        self.load_keys_at(entry, &target.target(), options, now(target), LIMITS).await
    }
}

/// A rig that holds a backup of `source`.
async fn backup(source: &Server) -> (Rig, ArtifactEntry) {
    let rig = Rig::new();
    let entry = rig.capture(&source.target()).await.unwrap();
    (Rig { meter: Meter::default().into(), ..rig }, entry)
}

/// The places of a backup's keys, by their names.
async fn places(rig: &Rig, entry: &ArtifactEntry) -> BTreeMap<String, u64> {
    #[derive(Default)]
    struct Names(BTreeMap<String, u64>);

    impl Visitor for Names {
        fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
            let name = String::from_utf8(key.name.to_vec()).unwrap();
            self.0.insert(name, self.0.len() as u64 + 1);
            Ok(())
        }
    }

    let (mut decoder, mut names) = (Decoder::default(), Names::default());
    let mut reader = RdbReader::open(&rig.store, &rig.key, entry).await.unwrap();
    while let Some(piece) = reader.next().await.unwrap() {
        decoder.feed(&piece, &mut names).unwrap();
    }
    names.0
}

/// A server of Redis 7.0 with these commands done.
fn server_with(commands: &[&[&str]]) -> Server {
    let server = Server::start(&newest_redis(), &[]);
    commands.iter().for_each(|command| drop(server.ask(command)));
    server
}

fn get(server: &Server, key: &str) -> String {
    server.ask(&["GET", key])
}

/// How often a server was sent a command.
fn calls(server: &Server, command: &str) -> u64 {
    let stats = server.ask(&["INFO", "commandstats"]);
    let prefix = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

fn keys(server: &Server) -> u64 {
    server.ask(&["DBSIZE"]).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_takes_over_the_data_of_every_engine() {
    for engine in installed_engines() {
        let source = Server::start_with_rdb(&engine, &dataset_for(&engine), &[]);
        let target = Server::start(&engine, &[]);
        target.fill(1000, 50);
        if !engine.name.starts_with("redis-5") && !engine.name.starts_with("redis-6") {
            target.ask(&[
                "FUNCTION",
                "LOAD",
                "#!lua name=old\nredis.register_function('old', function() end)",
            ]);
        }
        let (rig, entry) = backup(&source).await;
        let loaded = rig.load_keys(&entry, &target, &options(ConflictRule::ReplaceAll)).await;
        let loaded = loaded.unwrap_or_else(|e| panic!("{}: {e}", engine.name));
        eventually("both hold the same", || (contents(&source) == contents(&target)).then_some(()));
        assert!(loaded.restored > 50, "{loaded:?}");
        assert_eq!((loaded.skipped, loaded.filtered), (0, 0), "{loaded:?}");
        assert_eq!(rig.meter.read().received_bytes, entry.rdb.size_bytes);
    }
}

/// Restores a sample of everything, functions and several databases included, and compares.
async fn restore_sample(target: &Server, reached: &Target) {
    target.fill(1000, 50);
    let engine = newest_redis();
    let source = Server::start_with_rdb(&engine, &dataset_for(&engine), &[]);
    let (rig, entry) = backup(&source).await;
    let all = RestoreOptions::default();
    rig.load_keys_at(&entry, reached, &all, now(&source), LIMITS).await.unwrap();
    eventually("both hold the same", || (contents(&source) == contents(target)).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_an_aof_and_a_replica_holds_and_passes_on_all_of_it() {
    let engine = newest_redis();
    let aof = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut target = Server::start(&engine, &aof);
    let replica = Server::start(&engine, &[]);
    replica.ask(&["REPLICAOF", "127.0.0.1", &target.port.to_string()]);
    eventually("the replica is in sync", || {
        (replica.info("master_link_status") == "up").then_some(())
    });
    restore_sample(&target, &target.target()).await;
    let restored = contents(&target);
    eventually("the replica has it", || (contents(&replica) == restored).then_some(()));
    target.kill();
    target.start_again();
    assert_eq!(contents(&target), restored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_and_a_user_who_may_do_just_what_is_needed_are_no_obstacle() {
    let rights = "ACL SETUSER restorer on >secret ~* +info +config|get +flushall +restore +mset +select \
                  +function|load +function|flush";
    for rights in [None, Some(rights)] {
        let mut target = Server::start(&newest_redis(), &[]);
        if let Some(rights) = rights {
            target.ask(&rights.split_whitespace().collect::<Vec<_>>());
        }
        target.ask(&["CONFIG", "SET", "requirepass", "secret"]);
        target.log_in(&["secret"]);
        let username = rights.map(|_| "restorer".to_owned());
        let login = Login { username, password: "secret".to_owned().into() };
        let reached = Target { login: Some(login), ..target.target() };
        restore_sample(&target, &reached).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_key_was_not_used_is_restored() {
    for (policy, set, field) in [
        ("allkeys-lru", &["RESTORE", "k", "0", "", "IDLETIME", "5000"][..], "IDLETIME"),
        ("allkeys-lfu", &["RESTORE", "k", "0", "", "FREQ", "77"][..], "FREQ"),
    ] {
        let server = |(): ()| Server::start(&newest_redis(), &["--maxmemory-policy", policy]);
        let (source, target) = (server(()), server(()));
        source.ask(&["SET", "k", "v"]);
        let payload = match source.call(&["DUMP", "k"]) {
            Reply::Bulk(Some(payload)) => payload.to_vec(),
            other => panic!("{other:?}"),
        };
        source.ask(&["DEL", "k"]);
        let mut command: Vec<_> = set.iter().map(|word| word.as_bytes().to_vec()).collect();
        command[3] = payload;
        source.pipeline(&[command]);
        let (rig, entry) = backup(&source).await;
        rig.load_keys(&entry, &target, &options(ConflictRule::ReplaceAll)).await.unwrap();
        let found: u64 = target.ask(&["OBJECT", field, "k"]).parse().unwrap();
        let expected: u64 = set[5].parse().unwrap();
        assert!(found.abs_diff(expected) < 20, "{field}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_takes_keys_by_name_and_database_and_leaves_the_rest_alone() {
    let source = server_with(&[
        &["MSET", "user:1", "a", "user:2", "b", "other", "c"],
        &["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)"],
    ]);
    source.pipeline(&[vec!["SELECT", "3"], vec!["SET", "user:3", "d"]]);
    let (rig, entry) = backup(&source).await;
    for (pattern, database, restored, filtered_out) in [
        (Some("user:*"), None, 3, 1),
        (Some("user:[^2]"), Some(0), 1, 3),
        (None, Some(3), 1, 3),
        (Some("nothing"), None, 0, 4),
    ] {
        let target = server_with(&[&["MSET", "user:2", "mine", "mine", "x"]]);
        // Part of a backup does not take the place of all that is there.
        let mut options = filtered(pattern, database);
        options.conflict = ConflictRule::ReplaceAll;
        let loaded = rig.load_keys(&entry, &target, &options).await.unwrap();
        let expected = KeysLoaded { restored, filtered: filtered_out, ..KeysLoaded::default() };
        assert_eq!(loaded, expected, "{pattern:?} {database:?}");
        assert_eq!(get(&target, "mine"), "x");
        let is_replaced = pattern == Some("user:*");
        assert_eq!(get(&target, "user:2"), if is_replaced { "b" } else { "mine" });
        assert_eq!(target.info("number_of_libraries"), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expiries_are_kept_moved_or_dropped() {
    let source = server_with(&[&["SET", "stays", "v"]]);
    let now = now(&source).as_millisecond();
    source.ask(&["SET", "lives", "v", "PXAT", &(now + 2 * AGE_MS).to_string()]);
    source.ask(&["SET", "dies", "v", "PXAT", &(now + AGE_MS / 2).to_string()]);
    let (rig, entry) = backup(&source).await;
    let later = Timestamp::from_millisecond(now + AGE_MS).unwrap();
    for (ttl, lives, dies, expired) in [
        (TtlRule::Keep, now + 2 * AGE_MS, -2, 1),
        (TtlRule::Shift, now + 3 * AGE_MS, now + AGE_MS * 3 / 2, 0),
        (TtlRule::Strip, -1, -1, 0),
    ] {
        let target = Server::start(&newest_redis(), &[]);
        let options = RestoreOptions { ttl, ..RestoreOptions::default() };
        let loaded = rig.load_keys_at(&entry, &target.target(), &options, later, LIMITS).await;
        let loaded = loaded.unwrap();
        assert_eq!((loaded.restored, loaded.expired), (3 - expired, expired), "{ttl:?}");
        let time = |key| target.ask(&["PEXPIRETIME", key]).parse::<i64>().unwrap();
        assert_eq!((time("lives"), time("dies"), time("stays")), (lives, dies, -1), "{ttl:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expiries_of_a_hash_s_fields_follow_the_same_rule() {
    let engines = installed_engines();
    let valkey = engines.iter().find(|engine| engine.name == "valkey-9.1").unwrap();
    let source = Server::start(valkey, &[]);
    let now = now(&source).as_millisecond();
    source.ask(&["HSET", "h", "stays", "v", "lives", "w"]);
    source.ask(&["HPEXPIREAT", "h", &(now + AGE_MS).to_string(), "FIELDS", "1", "lives"]);
    let (rig, entry) = backup(&source).await;
    for (ttl, expected) in
        [(TtlRule::Keep, now + AGE_MS), (TtlRule::Shift, now + 2 * AGE_MS), (TtlRule::Strip, -1)]
    {
        let target = Server::start(valkey, &[]);
        let options = RestoreOptions { ttl, ..RestoreOptions::default() };
        let now = Timestamp::from_millisecond(now).unwrap();
        rig.load_keys_at(&entry, &target.target(), &options, now, LIMITS).await.unwrap();
        let reply = target.call(&["HPEXPIRETIME", "h", "FIELDS", "2", "lives", "stays"]);
        let expected = vec![Reply::Integer(expected), Reply::Integer(-1)];
        assert_eq!(reply, Reply::Array(Some(expected)), "{ttl:?}");
        assert_eq!(target.digest(), source.digest(), "{ttl:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_replaced_or_skipped_or_stops_everything() {
    let library = "#!lua name=l\nredis.register_function('f', function() return 1 end)";
    let source =
        server_with(&[&["MSET", "both", "theirs", "theirs", "x"], &["FUNCTION", "LOAD", library]]);
    let (rig, entry) = backup(&source).await;
    let target = || {
        server_with(&[
            &["MSET", "both", "mine", "mine", "x"],
            &["FUNCTION", "LOAD", &library.replace("return 1", "return 2")],
        ])
    };
    let loaded = |restored, skipped, functions| KeysLoaded {
        restored,
        skipped,
        functions,
        ..KeysLoaded::default()
    };
    for (conflict, expected, both, count, function) in [
        (ConflictRule::ReplaceAll, loaded(2, 0, 1), "theirs", 2, "1"),
        (ConflictRule::Replace, loaded(2, 0, 1), "theirs", 3, "1"),
        (ConflictRule::Skip, loaded(1, 2, 0), "mine", 3, "2"),
    ] {
        let target = target();
        let found = rig.load_keys(&entry, &target, &options(conflict)).await.unwrap();
        assert_eq!(found, expected, "{conflict:?}");
        assert_eq!((get(&target, "both").as_str(), keys(&target)), (both, count), "{conflict:?}");
        assert_eq!(target.ask(&["FCALL", "f", "0"]), function, "{conflict:?}");
    }

    let target = target();
    let fail = options(ConflictRule::Fail);
    let error = rig.load_keys(&entry, &target, &fail).await.unwrap_err();
    assert!(
        matches!(&error, RestoreError::FunctionsExist { library, .. } if library == "l"),
        "{error}"
    );
    target.ask(&["FUNCTION", "FLUSH"]);
    let error = rig.load_keys(&entry, &target, &fail).await.unwrap_err();
    assert!(
        matches!(&error, RestoreError::KeysExist { count: 1, examples, .. }
            if *examples == [places(&rig, &entry).await["both"]]),
        "{error}"
    );
    assert_eq!((keys(&target), target.info("number_of_libraries").as_str()), (2, "0"));
    target.ask(&["FLUSHALL"]);
    let found = rig.load_keys(&entry, &target, &fail).await.unwrap();
    assert_eq!(found, loaded(2, 0, 1));
    assert_eq!(target.digest(), source.digest());
}

/// A value of each kind above the least that `proto-max-bulk-len` can be.
fn fill_with_large_values(server: &Server) {
    let word = |n: usize| format!("{}-{n}", "x".repeat(90));
    let mut commands: Vec<Vec<String>> = Vec::new();
    let mut state = 7u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 58) as u8)
    })
    .take(900_000)
    .collect();
    for part in 0..3 {
        commands.push(vec!["APPEND".into(), "string".into(), format!("{part}{noise}")]);
    }
    for n in 0..20_000 {
        let noise = &noise[n * 40..n * 40 + 100];
        commands.push(vec!["RPUSH".into(), "list".into(), format!("{noise}{n}")]);
        commands.push(vec!["SADD".into(), "set".into(), word(n)]);
        let score = format!("{}", n as f64 / 7.0);
        commands.push(vec!["ZADD".into(), "zset".into(), score, word(n)]);
        commands.push(vec!["HSET".into(), "hash".into(), word(n), n.to_string()]);
        let id = format!("{}-{n}", n / 7 + 1);
        commands.push(vec!["XADD".into(), "stream".into(), id, "field".into(), noise.into()]);
    }
    server.pipeline(&commands);
    for command in [
        &["XDEL", "stream", "3-20", "2858-19999"][..],
        &["XGROUP", "CREATE", "stream", "group", "0"],
        &["XGROUP", "CREATE", "stream", "idle", "5-30"],
        &["XREADGROUP", "GROUP", "group", "one", "COUNT", "3000", "STREAMS", "stream", ">"],
        &["XREADGROUP", "GROUP", "group", "two", "COUNT", "500", "STREAMS", "stream", ">"],
        &["XACK", "stream", "group", "1-1"],
        &["PEXPIRE", "set", "10000000"],
    ] {
        server.call(command);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_above_the_longest_argument_are_written_in_parts() {
    let source = Server::start(&newest_redis(), &[]);
    fill_with_large_values(&source);
    let (rig, entry) = backup(&source).await;
    let target = Server::start(&newest_redis(), &["--proto-max-bulk-len", "1mb"]);
    let error = rig.load_keys(&entry, &target, &RestoreOptions::default()).await.unwrap_err();
    // A string cannot be longer than an argument.
    let string = format!("key {} of the backup", places(&rig, &entry).await["string"]);
    assert!(
        matches!(&error, RestoreError::KeyRefused { key, command: "APPEND", .. } if *key == string),
        "{error}"
    );
    let options = filtered(Some("[^s]*"), None);
    let loaded = rig.load_keys(&entry, &target, &options).await.unwrap();
    assert_eq!((loaded.restored, loaded.filtered), (3, 3));

    source.ask(&["DEL", "string"]);
    let (rig, entry) = backup(&source).await;
    let loaded = rig.load_keys(&entry, &target, &RestoreOptions::default()).await.unwrap();
    assert_eq!(loaded.restored, 5);
    assert_eq!(target.digest(), source.digest());
    for question in [
        &["XINFO", "STREAM", "stream"][..],
        &["XPENDING", "stream", "group"],
        &["PEXPIRETIME", "set"],
    ] {
        // The nodes of a stream's tree depend on how it was written.
        let told = |server: &Server| match server.call(question) {
            Reply::Array(Some(mut facts)) => {
                if question[0] == "XINFO" {
                    facts.drain(2..6);
                }
                format!("{facts:?}")
            }
            other => format!("{other:?}"),
        };
        assert_eq!(told(&target), told(&source), "{question:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_target_say_which_key_and_what_to_do() {
    let source = server_with(&[&["SET", "k 1", "v"]]);
    let (rig, entry) = backup(&source).await;
    for (reply, words) in [
        ("OOM command not allowed when used memory > 'maxmemory'.", "raise its maxmemory"),
        ("NOPERM this user has no permissions", "give the user"),
        ("READONLY You can't write against a read only replica.", "into its primary"),
        ("MOVED 866 127.0.0.1:7001", "into the node"),
        ("ERR Bad data format", "a newer version"),
        ("ERR DUMP payload version or checksum are wrong", "a newer version"),
        ("BUSYKEY Target key name already exists.", "somebody wrote"),
        ("MISCONF Redis is configured to save", "refused `RESTORE`"),
        ("ERR unknown command 'RESTORE', with args beginning with: 'k 1' '0'", "unknown command"),
    ] {
        let server = ScriptedServer::start(move |command| {
            vec![match command[0].as_str() {
                "INFO" => Act::bulk("redis_version:7.0.0\r\nrole:master\r\n"),
                "CONFIG" => Act::Send(b"-NOPERM no permissions\r\n".to_vec()),
                "RESTORE" => Act::Send(format!("-{reply}\r\n").into_bytes()),
                _ => Act::Send(b"+OK\r\n".to_vec()),
            }]
        });
        let now = Timestamp::UNIX_EPOCH;
        let error = rig
            .load_keys_at(&entry, &server.target(), &RestoreOptions::default(), now, LIMITS)
            .await
            .unwrap_err();
        let said = error.to_string();
        assert!(said.contains("key 1 of the backup") && said.contains(words), "{reply}: {said}");
        assert!(!said.contains("k 1"), "{reply}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_memory_stops_the_restore() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(20_000, 1000);
    let (rig, entry) = backup(&source).await;
    let target = Server::start(&newest_redis(), &["--maxmemory", "8mb"]);
    let error = rig.load_keys(&entry, &target, &RestoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, RestoreError::OutOfMemory { .. }), "{error}");
    // Nothing that was on its way is done any more: the only client left is who asks.
    assert_eq!(target.ask(&["CLIENT", "LIST"]).lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_or_a_version_that_the_target_lacks_is_named() {
    let source = Server::start(&newest_redis(), &[]);
    source.pipeline(&[vec!["SELECT", "5"], vec!["SET", "k", "v"]]);
    let (rig, entry) = backup(&source).await;
    let target = Server::start(&newest_redis(), &["--databases", "2"]);
    let error = rig.load_keys(&entry, &target, &RestoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, RestoreError::NoDatabase { database: 5, .. }), "{error}");

    let engines = installed_engines();
    let newer = engines.iter().find(|engine| engine.name == "valkey-8.0").unwrap();
    let source = Server::start_with_rdb(newer, &dataset_for(newer), &[]);
    let (rig, entry) = backup(&source).await;
    let target = Server::start(&newest_redis(), &[]);
    let error = rig.load_keys(&entry, &target, &RestoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Unreadable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_a_tls_server_needs_the_commands_and_the_keys() {
    let source = Server::start_with_rdb(&newest_redis(), &dataset_for(&newest_redis()), &[]);
    let (rig, entry) = backup(&source).await;
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::issue(folder.path());
    let port = free_port();
    let options = certificates.server_options(port, false);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let server = Server::start(&newest_redis(), &options);
    let tls = TlsSettings { ca_pem: Some(certificates.ca_pem.clone()), identity: None };
    let login = Login { username: Some("restorer".into()), password: "secret".to_owned().into() };
    let address = Address { host: "127.0.0.1".into(), port };
    let target = Target { login: Some(login), tls: Some(tls), ..Target::trusted(address) };
    let allow = |rights: &[&str]| {
        server.ask(&[&["ACL", "SETUSER", "restorer", "reset", "on", ">secret"], rights].concat());
    };
    let all = RestoreOptions::default();
    let now = now(&source);
    const OTHERS: [&str; 5] =
        ["+info", "+flushall", "+select", "+function|load", "+function|flush"];
    for lacking in [["~*", "+ping"], ["~other:*", "+restore"]] {
        allow(&[&lacking[..], &OTHERS].concat());
        let error = rig.load_keys_at(&entry, &target, &all, now, LIMITS).await.unwrap_err();
        assert!(matches!(error, RestoreError::KeyDenied { command: "RESTORE", .. }), "{error}");
    }
    for rights in [&["~*", "+restore"][..], &["~*", "+@all"]] {
        let rights = &[rights, &OTHERS].concat()[..];
        allow(rights);
        rig.load_keys_at(&entry, &target, &all, now, LIMITS).await.unwrap();
        assert_eq!(server.digest(), source.digest());
        // Without the right to set several strings at once it goes on one by one.
        assert_eq!(calls(&server, "mset") > 0, rights.contains(&"+@all"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strings_of_all_lengths_take_the_place_of_what_was_there() {
    for engine in installed_engines() {
        let (source, target) = (Server::start(&engine, &[]), Server::start(&engine, &[]));
        let noise: Vec<u8> =
            (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let even = [b'a'; 100_000];
        let lengths = (0..40).chain([63, 64, 65, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537]);
        for length in lengths.chain((70_000..100_000).step_by(977)) {
            for (prefix, text) in [("n", &noise[..length]), ("e", &even[..length])] {
                let name = format!("{prefix}{length}");
                source.pipeline(&[vec![b"SET", name.as_bytes(), text]]);
            }
        }
        for number in ["0", "-1", "127", "-32768", "2147483648", "-9223372036854775808"] {
            source.ask(&["SET", &format!("number:{number}"), number]);
        }
        target.ask(&["SET", "n5", "theirs", "EX", "1000"]);
        target.ask(&["RPUSH", "n6", "theirs"]);
        let (rig, entry) = backup(&source).await;
        let loaded = rig.load_keys(&entry, &target, &options(ConflictRule::Replace)).await.unwrap();
        assert_eq!(loaded.restored, keys(&source), "{}", engine.name);
        assert_eq!(target.digest(), source.digest(), "{}", engine.name);
        assert_eq!(target.ask(&["TTL", "n5"]), "-1");
        assert!(calls(&target, "mset") > 0 && calls(&target, "restore") > 0, "{}", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_takes_its_keys() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(5000, 20);
    let (rig, entry) = backup(&source).await;
    let target = Server::start(&newest_redis(), &["--cluster-enabled", "yes"]);
    target.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually("the cluster is in order", || {
        target.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
    });
    let loaded = rig.load_keys(&entry, &target, &RestoreOptions::default()).await.unwrap();
    assert_eq!(loaded.restored, 5000);
    assert_eq!(target.digest(), source.digest());
}

/// A server that answers so many `RESTORE`s and then does `last`.
fn server_that_ends(restores: u64, last: Act) -> ScriptedServer {
    let left = AtomicU64::new(restores);
    ScriptedServer::start(move |command| {
        let take = |left: u64| left.checked_sub(1);
        vec![match command[0].as_str() {
            "INFO" => Act::bulk("redis_version:7.0.0\r\nrole:master\r\n"),
            "CONFIG" => Act::Send(b"*0\r\n".to_vec()),
            "RESTORE" if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() => {
                last.clone()
            }
            _ => Act::Send(b"+OK\r\n".to_vec()),
        }]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_or_falls_silent_ends_the_restore() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(20_000, 1000);
    let (rig, entry) = backup(&source).await;
    let now = now(&source);
    let all = RestoreOptions::default();

    let server = server_that_ends(1000, Act::Close);
    let error = rig.load_keys_at(&entry, &server.target(), &all, now, LIMITS).await.unwrap_err();
    assert!(matches!(error, RestoreError::BrokenOff { .. }), "{error}");

    let server = server_that_ends(1000, Act::Silence);
    let short = RestoreLimits { stall: Duration::from_millis(400), ..LIMITS };
    let error = rig.load_keys_at(&entry, &server.target(), &all, now, short).await.unwrap_err();
    assert!(matches!(error, RestoreError::TargetGone { .. }), "{error}");

    let short = RestoreLimits { total: Duration::from_millis(400), ..LIMITS };
    let error = rig.load_keys_at(&entry, &server.target(), &all, now, short).await.unwrap_err();
    assert!(matches!(error, RestoreError::TooLong { .. }), "{error}");

    let rig = Rig { cancel: CancellationToken::new(), ..rig };
    rig.cancel.cancel();
    let error = rig.load_keys_at(&entry, &server.target(), &all, now, LIMITS).await.unwrap_err();
    assert!(matches!(error, RestoreError::Cancelled), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_when_it_fails_is_never_done() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(60_000, 1000);
    for is_cancelled in [false, true] {
        let target = Server::start(&newest_redis(), &[]);
        let (rig, entry) = backup(&source).await;
        let (now, address, cancel) = (now(&source), target.target(), rig.cancel.clone());
        let short = RestoreLimits { stall: Duration::from_millis(500), ..LIMITS };
        let limits = if is_cancelled { LIMITS } else { short };
        let loading = tokio::spawn(async move {
            let all = RestoreOptions::default();
            rig.load_keys_at(&entry, &address, &all, now, limits).await
        });
        eventually("keys come", || (keys(&target) > 0).then_some(()));
        target.ask(&["CLIENT", "PAUSE", "60000", "WRITE"]);
        if is_cancelled {
            // Both connections wait with a command that the target has read.
            eventually("nothing is done", || (target.info("blocked_clients") == "2").then_some(()));
            cancel.cancel();
        }
        let error = loading.await.unwrap().unwrap_err();
        match error {
            RestoreError::Cancelled if is_cancelled => {}
            RestoreError::TargetGone { .. } if !is_cancelled => {}
            other => panic!("{other}"),
        }
        // Done in one go, before what waits.
        target.pipeline(&[vec!["CLIENT", "UNPAUSE"], vec!["FLUSHALL"]]);
        eventually("our connections are gone", || {
            (target.info("connected_clients") == "1").then_some(())
        });
        assert_eq!(keys(&target), 0, "cancelled: {is_cancelled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_artifact_is_told() {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(2000, 500);
    let (rig, entry) = backup(&source).await;
    let mut bytes = std::fs::read(rig.file()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(rig.file(), bytes).unwrap();
    let target = Server::start(&newest_redis(), &[]);
    let error = rig.load_keys(&entry, &target, &RestoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Artifact(_)), "{error}");
}

impl Rig {
    /// Compares what a target holds with the backup.
    async fn prove(
        &self,
        entry: &ArtifactEntry,
        target: &Server,
    ) -> Result<cachevault_engine::Comparison, RestoreError> {
        let request = KeysRequest {
            target: &target.target(),
            store: &self.store,
            key: &self.key,
            entry,
            options: &RestoreOptions::default(),
            now: now(target),
            captured_at: now(target),
            limits: LIMITS,
        };
        request.prove(ProofDemand::Required, &self.gate, &self.meter).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_whose_time_may_end_while_data_is_read_back_are_left_out_of_the_proof() {
    for name in ["redis-8.2", "valkey-9.1"] {
        let engine = installed_engine(name).unwrap();
        let source = Server::start(&engine, &[]);
        let soon = (now(&source).as_millisecond() + AGE_MS).to_string();
        source.ask(&["HSET", "some", "soon", "1", "later", "2", "stays", "3"]);
        source.ask(&["HPEXPIREAT", "some", &soon, "FIELDS", "1", "soon"]);
        source.ask(&["HPEXPIREAT", "some", "4000000000000", "FIELDS", "1", "later"]);
        source.ask(&["HSET", "all", "soon", "1"]);
        source.ask(&["HPEXPIREAT", "all", &soon, "FIELDS", "1", "soon"]);
        let (rig, entry) = backup(&source).await;
        let target = Server::start(&engine, &[]);
        rig.load_keys(&entry, &target, &options(ConflictRule::ReplaceAll)).await.unwrap();
        assert!(rig.prove(&entry, &target).await.unwrap().proven, "{name}");
        // As when their time has come; the last field takes its key with it.
        target.ask(&["HDEL", "some", "soon"]);
        target.ask(&["HDEL", "all", "soon"]);
        let comparison = rig.prove(&entry, &target).await;
        assert!(comparison.unwrap_or_else(|e| panic!("{name}: {e}")).proven);
        target.ask(&["HDEL", "some", "later"]);
        let error = rig.prove(&entry, &target).await.unwrap_err();
        assert!(matches!(error, RestoreError::Differs { .. }), "{name}: {error}");
    }
}

/// Puts a value without elements into a Redis 5, as faults of its own did (redis#6543).
pub(crate) fn put_nothing(server: &Server, name: &str, value: &[u8]) {
    let mut payload = [value, &[9, 0]].concat();
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Redis);
    crc.update(&payload);
    payload.extend(crc.finalize().to_le_bytes());
    let command = vec![b"RESTORE".to_vec(), name.into(), b"0".to_vec(), payload];
    let replies = server.pipeline(&[command]);
    assert!(!matches!(replies[0], Reply::Error(_)), "{replies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_without_elements_are_left_out_and_counted() {
    let old = installed_engine("redis-5.0").unwrap();
    let source = Server::start(&old, &[]);
    source.ask(&["SET", "k", "v"]);
    put_nothing(&source, "list", &[14, 0]);
    put_nothing(&source, "zset", &[5, 0]);
    let (rig, entry) = backup(&source).await;
    // One that keeps such keys, and one that refuses them.
    for engine in [old, newest_redis()] {
        let target = Server::start(&engine, &[]);
        let loaded = rig.load_keys(&entry, &target, &options(ConflictRule::ReplaceAll)).await;
        let loaded = loaded.unwrap_or_else(|e| panic!("{}: {e}", engine.name));
        assert_eq!((loaded.restored, loaded.empty), (1, 2), "{}", engine.name);
        let comparison = rig.prove(&entry, &target).await.unwrap();
        assert_eq!((comparison.proven, comparison.empty), (true, 2), "{}", engine.name);
        let prepared =
            prepare(&target.target(), false, &OurAddress::default(), [7; 40], &LIMITS).await;
        let loaded = rig.load(&entry, &target.target(), &prepared.unwrap()).await.unwrap();
        let comparison = loaded.comparison;
        assert_eq!((comparison.proven, comparison.empty), (true, 2), "{}", engine.name);
    }
}
