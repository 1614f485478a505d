//! Servers accept the payloads of the raw level and [`DumpPayload`] with `RESTORE`, and have the
//! same data afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cachevault_rdb::dump::{DumpPayload, FOOTER_BYTES};
use cachevault_rdb::raw::{self, Key, Text};
use cachevault_rdb::{DecodeErrorKind, Form};
use cachevault_testkit::{Engine, Reply, Server, installed_engines, newest_redis, text};

use crate::live::{Command, bulk, command, integer, noise, run, save};
use crate::support::fixtures;

/// No occurring length is a multiple of it, so pieces end everywhere.
const CHUNK_BYTES: usize = 4099;
/// The year 2100: nothing expires during the lifetime of the test.
const EXPIRY_MS: i64 = 4_102_444_800_123;
const CENTURY_MS: i64 = 100 * 365 * 24 * 3600 * 1000;

/// A key of the file, ready for `RESTORE`.
struct Stored {
    db: u64,
    name: Vec<u8>,
    expires_at_ms: Option<i64>,
    payload: Vec<u8>,
}

/// Payloads of all keys, and the stored forms of their strings.
#[derive(Default)]
struct Payloads {
    keys: Vec<Stored>,
    open: Option<(Stored, DumpPayload)>,
    types: BTreeSet<u8>,
    forms: BTreeSet<&'static str>,
}

impl raw::Visitor for Payloads {
    fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
        let Key { db, expires_at_ms, .. } = *key;
        let stored = Stored { db, name: key.name.to_vec(), expires_at_ms, payload: Vec::new() };
        self.types.insert(key.value_type.byte());
        assert!(self.open.is_none(), "a key begins inside another");
        self.open = Some((stored, DumpPayload::new(key.value_type, key.metadata)));
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.open.as_mut().expect("bytes belong to a key").1.push(bytes);
    }

    fn text(&mut self, text: Text<'_>) -> Result<(), DecodeErrorKind> {
        self.forms.insert(match (text.form, text.is_first && text.is_last) {
            (Form::Plain, true) => "plain",
            (Form::Plain, false) => "plain in pieces",
            (Form::Integer(-128..=127), _) => "8 bits",
            (Form::Integer(-32_768..=32_767), _) => "16 bits",
            (Form::Integer(_), _) => "32 bits",
            (Form::Lzf { .. }, true) => "compressed",
            (Form::Lzf { .. }, false) => "compressed in pieces",
        });
        Ok(())
    }

    fn key_end(&mut self) -> Result<(), DecodeErrorKind> {
        let (mut stored, payload) = self.open.take().expect("a value that ends has a beginning");
        let len = payload.len();
        stored.payload = payload.finish();
        assert_eq!(stored.payload.len(), len);
        self.keys.push(stored);
        Ok(())
    }
}

fn payloads(file: &[u8]) -> Payloads {
    let (mut decoder, mut payloads) = (raw::Decoder::default(), Payloads::default());
    for piece in file.chunks(CHUNK_BYTES) {
        decoder.feed(piece, &mut payloads).unwrap();
    }
    decoder.finish().unwrap();
    payloads
}

/// Restores keys; those with an expiry expire `later`.
#[track_caller]
fn restore(server: &Server, keys: &[Stored], later: i64) {
    let restoring = keys.iter().flat_map(|key| {
        let expiry = key.expires_at_ms.map_or(0, |at| at + later).to_string();
        let mut restore = command!["RESTORE", key.name, expiry, key.payload];
        restore.extend(key.expires_at_ms.map(|_| b"ABSTTL".to_vec()));
        [command!["SELECT", key.db.to_string()], restore]
    });
    let commands: Vec<_> = restoring.collect();
    for (command, reply) in commands.iter().zip(run(server, &commands)) {
        assert_eq!(text(&reply), "OK", "{}", crate::live::shown(command));
    }
}

/// The server's description of a key.
#[derive(Debug, PartialEq)]
struct Facts {
    kind: String,
    encoding: String,
    digest: Reply,
    expires_at_ms: i64,
    dump: Vec<u8>,
}

fn facts<'k>(server: &Server, keys: impl Iterator<Item = (u64, &'k [u8])>) -> Vec<Facts> {
    let asking = keys.flat_map(|(db, name)| {
        [
            command!["SELECT", db.to_string()],
            command!["TYPE", name],
            command!["OBJECT", "ENCODING", name],
            command!["DEBUG", "DIGEST-VALUE", name],
            command!["PEXPIRETIME", name],
            command!["DUMP", name],
        ]
    });
    let replies = run(server, &asking.collect::<Vec<_>>());
    let facts = replies.chunks_exact(6).map(|replies| Facts {
        kind: text(&replies[1]),
        encoding: text(&replies[2]),
        digest: replies[3].clone(),
        expires_at_ms: integer(&replies[4]),
        dump: bulk(&replies[5]),
    });
    facts.collect()
}

/// A key of the data set and its encoding in the server.
struct Subject {
    name: &'static str,
    encoding: &'static str,
    commands: Vec<Command>,
}

impl Subject {
    /// Whether all servers write the same bytes for this value. A hash table has no order, and the
    /// compression of inner nodes of a list depends on the configuration.
    fn has_one_dump(&self) -> bool {
        self.encoding != "hashtable" && self.name != "list:compressed"
    }
}

fn subject(name: &'static str, encoding: &'static str, commands: Vec<Command>) -> Subject {
    Subject { name, encoding, commands }
}

/// One command that adds several elements to a key.
fn adding(verb: &str, name: &str, words: impl IntoIterator<Item = Vec<u8>>) -> Vec<Command> {
    let head = [verb, name].map(|word| word.as_bytes().to_vec());
    vec![head.into_iter().chain(words).collect()]
}

fn numbered(range: std::ops::Range<i64>) -> impl Iterator<Item = Vec<u8>> {
    range.map(|number| format!("element {number}").into_bytes())
}

fn numbers(values: impl IntoIterator<Item = i64>) -> impl Iterator<Item = Vec<u8>> {
    values.into_iter().map(|value| value.to_string().into_bytes())
}

/// Bytes that compress to about half of their size.
fn twice_each() -> Vec<u8> {
    (0..200).flat_map(|seed| noise(999, seed).repeat(2)).collect()
}

fn strings() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for (name, encoding, value) in [
        ("string:8", "int", b"-128".to_vec()),
        ("string:16", "int", b"-32768".to_vec()),
        ("string:32", "int", b"2147483647".to_vec()),
        ("string:64", "int", b"-9223372036854775808".to_vec()),
        ("string:65", "embstr", b"9223372036854775808".to_vec()),
        ("string:empty", "embstr", Vec::new()),
        ("string:embstr", "embstr", b"a\0\xff\r\n".to_vec()),
        ("string:raw", "raw", noise(300, 1)),
        ("string:compressed", "raw", b"abcabcab".repeat(500)),
        ("string:large", "raw", noise(1_000_000, 2)),
        ("string:large compressed", "raw", twice_each()),
    ] {
        subjects.push(subject(name, encoding, vec![command!["SET", name, value]]));
    }
    subjects
}

fn lists() -> Vec<Subject> {
    let threshold = |bytes: &str| command!["DEBUG", "QUICKLIST-PACKED-THRESHOLD", bytes];
    let depth = |nodes: &str| command!["CONFIG", "SET", "list-compress-depth", nodes];
    let large = [noise(200_000, 4), b"x".repeat(150_000), b"small".to_vec(), b"12".to_vec()];
    let plain = [noise(70_000, 5), b"ab".to_vec(), b"plain".repeat(60), b"-7".to_vec()];
    let integers = [0, -1, 127, 4095, -4096, 32_767, -8_388_608, i64::from(i32::MIN), i64::MAX];
    let mut plain_nodes = vec![threshold("100b")];
    plain_nodes.extend(adding("RPUSH", "list:plain", plain));
    plain_nodes.push(threshold("0"));
    let mut compressed = vec![depth("1")];
    compressed.extend(adding("RPUSH", "list:compressed", numbered(0..5000)));
    compressed.push(depth("0"));
    vec![
        subject("list:one", "quicklist", adding("RPUSH", "list:one", numbers(integers))),
        subject("list:many", "quicklist", adding("RPUSH", "list:many", numbered(0..3000))),
        subject("list:large", "quicklist", adding("RPUSH", "list:large", large)),
        subject("list:plain", "quicklist", plain_nodes),
        subject("list:compressed", "quicklist", compressed),
    ]
}

fn sets() -> Vec<Subject> {
    let wide = (0..100).map(|n| i64::MIN + n * 1_000_003);
    let large = [noise(100_000, 6), b"member".repeat(10_000), b"3".to_vec()];
    vec![
        subject("set:16", "intset", adding("SADD", "set:16", numbers(-50..50))),
        subject("set:32", "intset", adding("SADD", "set:32", numbers(70_000..70_100))),
        subject("set:64", "intset", adding("SADD", "set:64", numbers(wide))),
        subject("set:table", "hashtable", adding("SADD", "set:table", numbered(0..300))),
        subject("set:large", "hashtable", adding("SADD", "set:large", large)),
    ]
}

fn hashes() -> Vec<Subject> {
    let large = [b"field".to_vec(), noise(100_000, 7), noise(70_000, 8), b"value".repeat(30_000)];
    vec![
        subject("hash:packed", "listpack", adding("HSET", "hash:packed", numbered(0..100))),
        subject("hash:numbers", "listpack", adding("HSET", "hash:numbers", numbers(-20..20))),
        subject("hash:table", "hashtable", adding("HSET", "hash:table", numbered(0..2000))),
        subject("hash:large", "hashtable", adding("HSET", "hash:large", large)),
    ]
}

fn sorted_sets() -> Vec<Subject> {
    const SCORES: [&str; 11] = [
        "0.1",
        "inf",
        "-inf",
        "-0",
        "1e300",
        "5e-324",
        "3",
        "-12.75",
        "9007199254740993",
        "0.30000000000000004",
        "-1",
    ];
    let scored = |count: i64, width: usize| {
        (0..count).flat_map(move |n| {
            let score = SCORES[n as usize % SCORES.len()];
            [score.as_bytes().to_vec(), format!("member {n:0width$}").into_bytes()]
        })
    };
    vec![
        subject("zset:packed", "listpack", adding("ZADD", "zset:packed", scored(40, 0))),
        subject("zset:skiplist", "skiplist", adding("ZADD", "zset:skiplist", scored(500, 0))),
        subject("zset:large", "skiplist", adding("ZADD", "zset:large", scored(20, 40_000))),
    ]
}

fn streams() -> Vec<Subject> {
    vec![
        subject("stream:groups", "stream", stream_with_groups("stream:groups")),
        subject(
            "stream:emptied",
            "stream",
            vec![
                command!["XADD", "stream:emptied", "5-1", "field", "value"],
                command!["XDEL", "stream:emptied", "5-1"],
                command!["XGROUP", "CREATE", "stream:emptied", "group", "0"],
            ],
        ),
        subject(
            "stream:last",
            "stream",
            vec![
                command!["XADD", "stream:last", "1-18446744073709551615", "a", noise(70_000, 9)],
                command!["XADD", "stream:last", "18446744073709551615-1", "a", "1", "b", "-2"],
                command!["XADD", "stream:last", "18446744073709551615-7", "", ""],
                command!["XSETID", "stream:last", "18446744073709551615-18446744073709551615"],
            ],
        ),
    ]
}

fn stream_with_groups(name: &str) -> Vec<Command> {
    let mut commands: Vec<_> = (1..=250)
        .map(|n: u64| {
            let (id, value) = (format!("{n}-{}", n % 3), n.to_string());
            match n % 7 {
                // Fields that differ from the first entry of the node.
                0 => command!["XADD", name, id, "other", value, "field", "text"],
                _ => command!["XADD", name, id, "field", value],
            }
        })
        .collect();
    let group = |verb: &str, words: &[&str]| {
        let head = ["XGROUP", verb, name].into_iter().chain(words.iter().copied());
        head.map(|word| word.as_bytes().to_vec()).collect::<Command>()
    };
    let read = |consumer: &str, count: &str| {
        command!["XREADGROUP", "GROUP", "first", consumer, "COUNT", count, "STREAMS", name, ">"]
    };
    commands.extend([
        group("CREATE", &["first", "0"]),
        group("CREATE", &["second", "5-2", "ENTRIESREAD", "5"]),
        group("CREATE", &["\u{1}none", "$"]),
        group("CREATECONSUMER", &["first", "idle"]),
        read("alice", "30"),
        read("bob", "20"),
        command!["XACK", name, "first", "1-1", "3-0"],
        command!["XCLAIM", name, "first", "alice", "0", "40-1", "RETRYCOUNT", "70000", "JUSTID"],
        // A pending entry that was deleted, deleted entries in a node, and a deleted node.
        command!["XDEL", name, "2-2", "10-1", "11-2", "150-0", "249-0"],
        command!["XTRIM", name, "MINID", "105"],
    ]);
    commands
}

fn subjects() -> Vec<Subject> {
    [strings(), lists(), sets(), hashes(), sorted_sets(), streams()].into_iter().flatten().collect()
}

/// Fills a server: every type in database 0, expiring keys, and other databases.
fn fill(server: &Server, subjects: &[Subject]) {
    run(server, &[command!["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]]);
    for subject in subjects {
        run(server, &subject.commands);
    }
    let expiring = [
        command!["SET", "expiring", "value", "PXAT", EXPIRY_MS.to_string()],
        command!["PEXPIREAT", "zset:packed", (EXPIRY_MS + 1).to_string()],
        command!["PEXPIREAT", "list:many", (EXPIRY_MS * 2).to_string()],
        command!["EXPIREAT", "stream:groups", (EXPIRY_MS / 1000).to_string()],
        command!["SELECT", "3"],
        command!["SET", "expiring", "another", "PXAT", EXPIRY_MS.to_string()],
        command!["SADD", "set:16", "1"],
        command!["SELECT", "15"],
        command!["SET", b"\xff\0\r\n", "binary name"],
        command!["SET", "12345", "a name that is a number"],
        command!["SET", b"name".repeat(5000), "a name that is compressed"],
    ];
    run(server, &expiring);
}

#[test]
fn a_server_restores_every_type_and_encoding_unchanged() {
    let (source, target) =
        (Server::start(&newest_redis(), &[]), Server::start(&newest_redis(), &[]));
    let subjects = subjects();
    fill(&source, &subjects);
    let found = payloads(&save(&source));
    assert_eq!(found.types, BTreeSet::from([0, 2, 4, 5, 11, 16, 17, 18, 19]));
    assert_eq!(found.forms.len(), 7, "only {:?}", found.forms);
    assert_eq!(found.keys.len(), subjects.len() + 6);

    restore(&target, &found.keys, 0);
    assert_eq!(target.digest(), source.digest());
    // The output of the compressor is not unique.
    for server in [&source, &target] {
        server.ask(&["CONFIG", "SET", "rdbcompression", "no"]);
    }
    let names = || found.keys.iter().map(|key| (key.db, key.name.as_slice()));
    let (there, here) = (facts(&source, names()), facts(&target, names()));
    let uncompressed = payloads(&save(&source)).keys;
    let payload_of: BTreeMap<_, _> =
        uncompressed.iter().map(|key| ((key.db, key.name.as_slice()), &key.payload)).collect();
    let by_name: BTreeMap<_, _> = subjects.iter().map(|s| (s.name.as_bytes(), s)).collect();
    for (((db, name), mut there), mut here) in names().zip(there).zip(here) {
        let shown = name[..name.len().min(40)].escape_ascii().to_string();
        if let (0, Some(subject)) = (db, by_name.get(name)) {
            assert_eq!(there.encoding, subject.encoding, "{shown}");
            if subject.has_one_dump() {
                assert_same_value(payload_of[&(db, name)], &there.dump, &shown);
            } else {
                there.dump.clear();
                here.dump.clear();
            }
        }
        assert!(there == here, "{shown} differs: {}, {}", there.kind, there.encoding);
    }
}

/// Our payload and the server's differ in the version and the checksum of the footer only.
fn assert_same_value(payload: &[u8], dump: &[u8], name: &str) {
    let value = |payload: &[u8]| payload[..payload.len() - FOOTER_BYTES].to_vec();
    assert!(value(payload) == value(dump), "the payload of {name} differs from the reply of DUMP");
}

/// Restores a sample and compares the server's digest with the sample's recorded digest.
#[track_caller]
fn restore_sample(server: &Server, sample: &str) {
    let path = fixtures().join(sample);
    let digest = fs::read_to_string(path.with_extension("digest")).unwrap();
    server.ask(&["FLUSHALL"]);
    // The server's digest contains only whether a key expires; the later expiry keeps old samples
    // valid.
    restore(server, &payloads(&fs::read(&path).unwrap()).keys, CENTURY_MS);
    assert_eq!(server.digest(), digest.trim(), "{sample}");
}

#[test]
fn redis_7_restores_samples_of_older_servers_unchanged() {
    let server = Server::start(&newest_redis(), &[]);
    for folder in ["redis-5.0.14", "redis-6.2.16", "redis-7.0.15"] {
        for name in ["all", "all-nocompress", "list-compress-depth1", "lru-idle", "lfu-freq"] {
            restore_sample(&server, &format!("{folder}/{name}.rdb"));
        }
    }
    for name in ["legacy-v3", "legacy-v6", "legacy-v7-quicklist"] {
        restore_sample(&server, &format!("handmade/{name}.rdb"));
    }
}

fn engine(name: &str) -> Engine {
    installed_engines().into_iter().find(|engine| engine.name == name).expect("it is installed")
}

/// The version of a payload must not exceed the version of an old server.
#[test]
fn the_server_of_a_sample_restores_its_payloads() {
    for (name, folders) in [
        ("redis-5.0", &["redis-5.0.14", "redis-6.2.16"] as &[_]),
        ("redis-6.2", &["redis-6.2.16"]),
        ("valkey-8.0", &["valkey-8.0.1", "redis-5.0.14"]),
        ("valkey-9.1", &["valkey-9.1.2", "valkey-8.0.1"]),
    ] {
        let server = Server::start(&engine(name), &[]);
        for folder in folders {
            for sample in ["strings", "lists", "sets", "streams", "ttl", "forced-packed"] {
                restore_sample(&server, &format!("{folder}/{sample}.rdb"));
            }
        }
    }
}

#[test]
fn expiring_fields_are_restored_with_their_expiry() {
    let valkey = engine("valkey-9.1");
    let (source, target) = (Server::start(&valkey, &[]), Server::start(&valkey, &[]));
    let at = EXPIRY_MS.to_string();
    run(
        &source,
        &[
            command!["HSET", "hash", "never", "1", "once", "two", "later", noise(100, 10)],
            command!["HPEXPIREAT", "hash", at, "FIELDS", "1", "once"],
            command!["HPEXPIREAT", "hash", (EXPIRY_MS + 1).to_string(), "FIELDS", "1", "later"],
        ],
    );
    let found = payloads(&save(&source));
    assert_eq!(found.types, BTreeSet::from([22]));
    restore(&target, &found.keys, 0);
    let asked = [
        command!["HPEXPIRETIME", "hash", "FIELDS", "3", "never", "once", "later"],
        command!["HMGET", "hash", "never", "once", "later"],
    ];
    assert_eq!(run(&target, &asked), run(&source, &asked));
    assert_eq!(target.digest(), source.digest());
}
