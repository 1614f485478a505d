//! For any data in any encoding, the findings of the data level equal the replies of the server,
//! and the digest depends on the data only.

use std::collections::{BTreeMap, BTreeSet};

use cachevault_rdb::data;
use cachevault_rdb::digest::{Digest, Digester};
use cachevault_testkit::{Engine, Reply, Server, installed_engine, newest_redis};
use proptest::collection::vec;
use proptest::num::f64 as any_f64;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::live::{Command, command, noise, run, save};
use crate::logical::{Collector, Keys, ask_for_keys};
use crate::support::digest;

type Bytes = Vec<u8>;

const DATABASES: [u64; 3] = [0, 1, 9];
/// The default of the variable below.
const CASES: u32 = 14;
const CASES_VARIABLE: &str = "CACHEVAULT_PROPERTY_CASES";
/// Type bytes of packed encodings, except for lists and streams, which are always packed.
const PACKED: [u8; 4] = [11, 16, 17, 20];

/// A command for a key of its kind.
#[derive(Debug, Clone)]
enum Verb {
    Set(Bytes),
    Append(Bytes),
    SetRange(u16, Bytes),
    PushBack(Vec<Bytes>),
    PushFront(Vec<Bytes>),
    SetElement(i8, Bytes),
    Trim(i8, i8),
    AddMembers(Vec<Bytes>),
    RemoveMembers(Vec<Bytes>),
    AddScored(Vec<(f64, Bytes)>),
    RemoveScored(Vec<Bytes>),
    SetFields(Vec<(Bytes, Bytes)>),
    RemoveFields(Vec<Bytes>),
    /// This command and the next need a newer server.
    SetExpiringFields(i64, Vec<(Bytes, Bytes)>),
    ExpireFields(i64, Vec<Bytes>),
    AddEntry(u64, Vec<(Bytes, Bytes)>),
    DeleteEntry(usize),
    CreateGroup(Bytes),
    Read(Bytes, Bytes, u8),
    Acknowledge(Bytes, usize),
}

/// A change of a key. There are few keys, so that several commands affect the same key.
#[derive(Debug, Clone)]
enum Change {
    Verb(Verb),
    ExpireAt(u8, i64),
    Persist(u8),
    Delete(u8),
}

#[derive(Debug, Clone)]
struct Step {
    db: u64,
    name: usize,
    change: Change,
}

#[derive(Debug, Clone)]
struct Case {
    names: Vec<Bytes>,
    steps: Vec<Step>,
}

/// A string: numbers of every width, text similar to numbers, and lengths around every change of
/// the encoding.
fn any_text() -> impl Strategy<Value = Bytes> {
    let number = |numbers: BoxedStrategy<i64>| numbers.prop_map(|n| n.to_string().into_bytes());
    let like_numbers = ["", "007", "-0", "+1", "1.0", "9223372036854775808", " 1"];
    let by_length = (any::<u64>(), 0..4usize).prop_flat_map(|(seed, at)| {
        let around: usize = [64, 4096, 16_384, 65_536][at];
        (around - 9..around + 3).prop_map(move |bytes| noise(bytes, seed))
    });
    prop_oneof![
        6 => number((0..20i64).boxed()),
        3 => number(any::<i64>().boxed()),
        4 => number(around_powers_of_two().boxed()),
        2 => proptest::sample::select(like_numbers.map(|text| text.into()).to_vec()),
        6 => vec(any::<u8>(), 0..24),
        2 => (vec(any::<u8>(), 1..6), 2..4000usize).prop_map(|(part, times)| part.repeat(times)),
        1 => by_length,
    ]
}

/// The limits between the widths of numbers, on both sides of zero.
fn around_powers_of_two() -> impl Strategy<Value = i64> {
    let power = (0..63u32, any::<bool>()).prop_map(|(bit, is_negative)| {
        let power = 1i64 << bit;
        if is_negative { -power } else { power }
    });
    (power, -2..=1i64).prop_map(|(power, more)| power + more)
}

fn any_score() -> impl Strategy<Value = f64> {
    let any_number = any_f64::NORMAL
        | any_f64::SUBNORMAL
        | any_f64::ZERO
        | any_f64::INFINITE
        | any_f64::POSITIVE
        | any_f64::NEGATIVE;
    prop_oneof![
        (-100..100i32).prop_map(f64::from),
        (-100_000..100_000i32).prop_map(|n| f64::from(n) / 1000.0),
        any_number
    ]
}

fn any_verb() -> impl Strategy<Value = Verb> {
    let texts = || vec(any_text(), 1..20);
    let pairs = || vec((any_text(), any_text()), 1..16);
    let group = || vec(0..3u8, 0..2);
    let strings = prop_oneof![
        any_text().prop_map(Verb::Set),
        any_text().prop_map(Verb::Append),
        (0..2000u16, any_text()).prop_map(|(at, text)| Verb::SetRange(at, text)),
    ];
    let lists = prop_oneof![
        3 => texts().prop_map(Verb::PushBack),
        3 => texts().prop_map(Verb::PushFront),
        1 => (any::<i8>(), any_text()).prop_map(|(at, text)| Verb::SetElement(at, text)),
        1 => (-2..8i8, -8..-1i8).prop_map(|(from, to)| Verb::Trim(from, to)),
    ];
    let small = || (-300..300i32).prop_map(|n| n.to_string().into_bytes());
    let sets = prop_oneof![
        texts().prop_map(Verb::AddMembers),
        vec(small(), 1..40).prop_map(Verb::AddMembers),
        texts().prop_map(Verb::RemoveMembers),
    ];
    let sorted = prop_oneof![
        2 => vec((any_score(), any_text()), 1..16).prop_map(Verb::AddScored),
        1 => texts().prop_map(Verb::RemoveScored),
    ];
    let hashes = prop_oneof![
        2 => pairs().prop_map(Verb::SetFields),
        1 => texts().prop_map(Verb::RemoveFields),
        1 => (far_moment(), pairs()).prop_map(|(at, pairs)| Verb::SetExpiringFields(at, pairs)),
        1 => (far_moment(), texts()).prop_map(|(at, texts)| Verb::ExpireFields(at, texts)),
    ];
    let streams = prop_oneof![
        4 => (any::<u64>(), pairs()).prop_map(|(seq, pairs)| Verb::AddEntry(seq, pairs)),
        1 => any::<usize>().prop_map(Verb::DeleteEntry),
        1 => group().prop_map(Verb::CreateGroup),
        2 => (group(), group(), 1..9u8).prop_map(|(group, who, n)| Verb::Read(group, who, n)),
        1 => (group(), any::<usize>()).prop_map(|(group, id)| Verb::Acknowledge(group, id)),
    ];
    prop_oneof![1 => strings, 1 => lists, 1 => sets, 1 => sorted, 1 => hashes, 2 => streams]
}

/// After the year 2065: nothing expires during the lifetime of the test.
fn far_moment() -> impl Strategy<Value = i64> {
    3_000_000_000_000..9_000_000_000_000i64
}

fn any_case() -> impl Strategy<Value = Case> {
    let kind = 0..6u8;
    let change = prop_oneof![
        12 => any_verb().prop_map(Change::Verb),
        2 => (kind.clone(), far_moment()).prop_map(|(kind, at)| Change::ExpireAt(kind, at)),
        1 => kind.clone().prop_map(Change::Persist),
        1 => kind.prop_map(Change::Delete),
    ];
    let db = proptest::sample::select(vec![0, 0, 0, DATABASES[1], DATABASES[2]]);
    let step =
        (db, any::<usize>(), change).prop_map(|(db, name, change)| Step { db, name, change });
    let names = vec(vec(any::<u8>(), 0..20), 1..4);
    (names, vec(step, 1..150)).prop_map(|(names, steps)| Case { names, steps })
}

impl Verb {
    /// The number of its kind. A key's name begins with this number, so that the key has one kind.
    fn kind(&self) -> u8 {
        match self {
            Self::Set(_) | Self::Append(_) | Self::SetRange(..) => 0,
            Self::PushBack(_) | Self::PushFront(_) | Self::SetElement(..) | Self::Trim(..) => 1,
            Self::AddMembers(_) | Self::RemoveMembers(_) => 2,
            Self::AddScored(_) | Self::RemoveScored(_) => 3,
            Self::SetFields(_)
            | Self::RemoveFields(_)
            | Self::SetExpiringFields(..)
            | Self::ExpireFields(..) => 4,
            _ => 5,
        }
    }

    /// The command; `ids` are the stream's entries so far, and `step` increases every time.
    fn command(&self, name: &Bytes, ids: &mut Vec<String>, step: usize) -> Command {
        let id = |ids: &[String], at: usize| match ids.len() {
            0 => "1-1".to_owned(),
            len => ids[at % len].clone(),
        };
        match self {
            Self::Set(text) => command!["SET", name, text],
            Self::Append(text) => command!["APPEND", name, text],
            Self::SetRange(at, text) => command!["SETRANGE", name, at.to_string(), text],
            Self::PushBack(texts) => with(command!["RPUSH", name], texts),
            Self::PushFront(texts) => with(command!["LPUSH", name], texts),
            Self::SetElement(at, text) => command!["LSET", name, at.to_string(), text],
            Self::Trim(from, to) => command!["LTRIM", name, from.to_string(), to.to_string()],
            Self::AddMembers(texts) => with(command!["SADD", name], texts),
            Self::RemoveMembers(texts) => with(command!["SREM", name], texts),
            Self::AddScored(scored) => {
                let words = scored
                    .iter()
                    .flat_map(|(score, member)| [score.to_string().into_bytes(), member.clone()]);
                with(command!["ZADD", name], &words.collect::<Vec<_>>())
            }
            Self::RemoveScored(texts) => with(command!["ZREM", name], texts),
            Self::SetFields(pairs) => with(command!["HSET", name], &flat(pairs)),
            Self::RemoveFields(texts) => with(command!["HDEL", name], texts),
            Self::SetExpiringFields(at, pairs) => {
                let (at, count) = (at.to_string(), pairs.len().to_string());
                with(command!["HSETEX", name, "PXAT", at, "FIELDS", count], &flat(pairs))
            }
            Self::ExpireFields(at, texts) => {
                let (at, count) = (at.to_string(), texts.len().to_string());
                with(command!["HPEXPIREAT", name, at, "FIELDS", count], texts)
            }
            Self::AddEntry(seq, pairs) => {
                ids.push(format!("{}-{seq}", 1 + step * 1_000_003));
                with(command!["XADD", name, ids[ids.len() - 1]], &flat(pairs))
            }
            Self::DeleteEntry(at) => command!["XDEL", name, id(ids, *at)],
            Self::CreateGroup(group) => command!["XGROUP", "CREATE", name, group, "0", "MKSTREAM"],
            Self::Read(group, who, count) => {
                let count = count.to_string();
                command!["XREADGROUP", "GROUP", group, who, "COUNT", count, "STREAMS", name, ">"]
            }
            Self::Acknowledge(group, at) => command!["XACK", name, group, id(ids, *at)],
        }
    }
}

fn with(mut command: Command, words: &[Bytes]) -> Command {
    command.extend_from_slice(words);
    command
}

fn flat(pairs: &[(Bytes, Bytes)]) -> Vec<Bytes> {
    pairs.iter().flat_map(|(field, value)| [field.clone(), value.clone()]).collect()
}

impl Case {
    /// The case without `HSETEX`, which triggers an assertion of Redis 8.6.3 (in `hashTypeSet`).
    fn without_hsetex(mut self) -> Self {
        self.steps.retain(|step| !matches!(step.change, Change::Verb(Verb::SetExpiringFields(..))));
        self
    }

    /// The commands; some of them may fail.
    fn commands(&self) -> Vec<Command> {
        let mut ids: BTreeMap<(u64, Bytes), Vec<String>> = BTreeMap::new();
        let mut commands = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let name = &self.names[step.name % self.names.len()];
            let of_kind = |kind: u8| [&[b'a' + kind], name.as_slice()].concat();
            commands.push(command!["SELECT", step.db.to_string()]);
            commands.push(match &step.change {
                Change::Verb(verb) => {
                    let name = of_kind(verb.kind());
                    let ids = ids.entry((step.db, name.clone())).or_default();
                    verb.command(&name, ids, number)
                }
                Change::ExpireAt(kind, at) => {
                    command!["PEXPIREAT", of_kind(*kind), at.to_string()]
                }
                Change::Persist(kind) => command!["PERSIST", of_kind(*kind)],
                Change::Delete(kind) => command!["DEL", of_kind(*kind)],
            });
        }
        commands
    }

    /// Whether some fields of hashes received an expiry.
    fn expires_fields(&self) -> bool {
        self.steps.iter().any(|step| {
            let Change::Verb(verb) = &step.change else { return false };
            matches!(verb, Verb::SetExpiringFields(..) | Verb::ExpireFields(..))
        })
    }
}

/// Options that change the encoding of the same data.
fn configure(server: &Server, options: &[(&str, &str)]) {
    let set = options.iter().map(|(option, value)| command!["CONFIG", "SET", option, value]);
    let replies = server.pipeline(&set.collect::<Vec<_>>());
    for ((option, _), reply) in options.iter().zip(replies) {
        let is_newer = *option == PACKED_SETS;
        assert!(is_newer || !matches!(reply, Reply::Error(_)), "{option}: {reply:?}");
    }
}

/// An option that exists since Redis 7.2.
const PACKED_SETS: &str = "set-max-listpack-entries";

const DEFAULT: &[(&str, &str)] = &[
    ("hash-max-listpack-entries", "512"),
    ("hash-max-listpack-value", "64"),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
    ("set-max-intset-entries", "512"),
    (PACKED_SETS, "128"),
    ("list-max-listpack-size", "-2"),
    ("stream-node-max-entries", "100"),
    ("stream-node-max-bytes", "4096"),
    ("rdbcompression", "yes"),
];

const UNPACKED: &[(&str, &str)] = &[
    ("hash-max-listpack-entries", "0"),
    ("zset-max-listpack-entries", "0"),
    ("set-max-intset-entries", "0"),
    (PACKED_SETS, "0"),
    ("list-max-listpack-size", "1"),
    ("stream-node-max-entries", "1"),
    ("rdbcompression", "no"),
];

/// Everything in one packed string of any length.
const EVERYTHING_PACKED: &[(&str, &str)] = &[
    ("hash-max-listpack-entries", "100000"),
    ("hash-max-listpack-value", "1000000"),
    ("zset-max-listpack-entries", "100000"),
    ("zset-max-listpack-value", "1000000"),
    ("set-max-intset-entries", "100000"),
    (PACKED_SETS, "100000"),
    ("list-max-listpack-size", "10000"),
    ("stream-node-max-entries", "0"),
    ("stream-node-max-bytes", "0"),
    ("rdbcompression", "yes"),
];

/// The findings for a file that is fed in pieces.
fn read(file: &[u8]) -> (Collector, Digest) {
    let (mut decoder, mut found) = (data::Decoder::default(), Collector::default());
    let (mut again, mut digester) = (data::Decoder::default(), Digester::default());
    for piece in file.chunks(8191) {
        decoder.feed(piece, &mut found).unwrap();
        again.feed(piece, &mut digester).unwrap();
    }
    decoder.finish().unwrap();
    again.finish().unwrap();
    (found, digester.finish())
}

/// The first different key, in printable form.
fn difference(found: &Keys, expected: &Keys) -> Option<String> {
    let names: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let name = names.into_iter().find(|name| found.get(name) != expected.get(name))?;
    let (found, expected) = (found.get(name), expected.get(name));
    Some(format!("{}, {}: found {found:?}, expected {expected:?}", name.0, name.1.escape_ascii()))
}

/// Saves, compares the findings with the server's replies, and returns types and digest.
fn check_saved(server: &Server, how: &str) -> Result<(BTreeSet<u8>, Digest), TestCaseError> {
    let (found, digest) = read(&save(server));
    let differing = difference(&found.keys, &ask_for_keys(server, &DATABASES));
    prop_assert_eq!(differing, None, "{}", how);
    prop_assert_eq!(digest.key_count as usize, found.keys.len());
    Ok((found.types, digest))
}

fn check_case(server: &Server, case: &Case) -> Result<(), TestCaseError> {
    let commands = case.commands();
    let write = |options| {
        server.ask(&["FLUSHALL"]);
        configure(server, options);
        server.pipeline(&commands);
    };
    write(DEFAULT);
    let (_, digest) = check_saved(server, "default")?;
    configure(server, UNPACKED);
    server.ask(&["DEBUG", "RELOAD"]);
    let (types, reloaded) = check_saved(server, "reloaded")?;
    prop_assert!(PACKED.iter().all(|packed| !types.contains(packed)), "packed in {:?}", types);
    prop_assert_eq!(&reloaded, &digest, "reloaded");
    write(UNPACKED);
    prop_assert_eq!(&check_saved(server, "unpacked")?.1, &digest, "unpacked");
    write(EVERYTHING_PACKED);
    let (types, packed) = check_saved(server, "packed")?;
    // A hash whose fields had an expiry earlier stays a table.
    let may_stay_table = types.contains(&4) && case.expires_fields();
    prop_assert!(!types.contains(&4) || may_stay_table, "unpacked in {:?}", types);
    prop_assert!(!types.contains(&5), "unpacked in {:?}", types);
    prop_assert_eq!(&packed, &digest, "packed");
    Ok(())
}

#[test]
fn any_data_matches_the_server_and_has_one_digest_in_all_encodings() {
    check_any_case(&newest_redis());
}

#[test]
fn any_data_with_expiring_fields_matches_the_server() {
    check_any_case(&installed_engine("valkey-9.1").unwrap());
}

#[test]
fn any_data_matches_redis_8_2() {
    check_any_case(&installed_engine("redis-8.2").unwrap());
}

#[test]
fn any_data_matches_the_newest_redis() {
    let Some(engine) = installed_engine("redis-8.6") else {
        return eprintln!("redis-8.6 cannot be installed: not tested");
    };
    check_any_case(&engine);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the caller of the tests chooses the number of cases"
)]
fn check_any_case(engine: &Engine) {
    let server = Server::start(engine, &[]);
    let cases = std::env::var(CASES_VARIABLE).map_or(CASES, |cases| cases.parse().unwrap());
    let config = Config {
        cases,
        max_shrink_iters: 200,
        max_shrink_time: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let is_redis_8 = engine.name.starts_with("redis-8");
    let tested = TestRunner::new(config).run(&any_case(), |case| {
        let case = if is_redis_8 { case.without_hsetex() } else { case };
        check_case(&server, &case)
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
}

/// A data set in which every part has another digest.
fn data_set() -> Vec<Command> {
    let mut commands = vec![
        command!["SET", "string", "value"],
        command!["SET", "string 2", "value 2"],
        command!["SET", "expiring", "value", "PXAT", "4000000000000"],
        command!["RPUSH", "list", "one", "two", "three"],
        command!["SADD", "set", "member", "other"],
        command!["SADD", "intset", "1", "2", "3"],
        command!["ZADD", "zset", "1.5", "member", "2", "other"],
        command!["HSET", "hash", "field", "value", "other", "1"],
    ];
    for id in ["1-1", "1-2", "2-1"] {
        commands.push(command!["XADD", "stream", id, "field", "value"]);
    }
    commands.extend([
        command!["XGROUP", "CREATE", "stream", "group", "0"],
        command!["XREADGROUP", "GROUP", "group", "who", "COUNT", "2", "STREAMS", "stream", ">"],
    ]);
    commands
}

/// Changes of the data set; each has another result.
fn changes() -> Vec<Vec<Command>> {
    let texts = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let each: [&[&str]; 34] = [
        &["SET", "string", "valuf"],
        &["APPEND", "string", "\0"],
        &["SET", "string 3", "value"],
        &["RENAME", "string", "String"],
        &["DEL", "string"],
        &["MOVE", "string", "1"],
        &["MOVE", "string", "2"],
        &["PEXPIREAT", "string", "4000000000000"],
        &["PERSIST", "expiring"],
        &["PEXPIREAT", "expiring", "4000000000001"],
        &["LSET", "list", "1", "TWO"],
        &["RPUSH", "list", "two"],
        &["LPUSH", "list", "two"],
        &["LPOP", "list"],
        &["RPOPLPUSH", "list", "list"],
        &["SADD", "set", "more"],
        &["SREM", "set", "member"],
        &["SADD", "intset", "4"],
        &["SMOVE", "intset", "set", "2"],
        &["ZADD", "zset", "1.5000000000000002", "member"],
        &["ZADD", "zset", "-1.5", "member"],
        &["ZADD", "zset", "2", "member", "1.5", "other"],
        &["HSET", "hash", "field", "valuf"],
        &["HSET", "hash", "fielD", "value"],
        &["HSET", "hash", "field", "1", "other", "value"],
        &["HDEL", "hash", "other"],
        &["XADD", "stream", "2-2", "field", "value"],
        &["XDEL", "stream", "1-1"],
        &["XSETID", "stream", "2-9"],
        &["XGROUP", "CREATE", "stream", "group 2", "0"],
        &["XGROUP", "SETID", "stream", "group", "2-1"],
        &["XACK", "stream", "group", "1-1"],
        &["XCLAIM", "stream", "group", "who", "0", "1-1", "RETRYCOUNT", "7"],
        &["XCLAIM", "stream", "group", "another consumer", "0", "1-1", "JUSTID"],
    ];
    let two: [[&[&str]; 2]; 3] = [
        // The same strings in other places.
        [&["SET", "string", "value 2"], &["SET", "string 2", "value"]],
        [&["DEL", "hash"], &["HSET", "hash", "fieldv", "alue", "other", "1"]],
        [&["DEL", "list"], &["RPUSH", "list", "onet", "wo", "three"]],
    ];
    let each = each.into_iter().map(|words| vec![texts(words)]);
    each.chain(two.into_iter().map(|pair| pair.map(texts).to_vec())).collect()
}

#[test]
fn every_change_of_the_data_changes_the_digest() {
    let server = Server::start(&newest_redis(), &[]);
    let (data_set, changes) = (data_set(), changes());
    let mut digests: BTreeMap<_, &[Command]> = BTreeMap::new();
    let digest_after = |change: &[Command]| {
        server.ask(&["FLUSHALL"]);
        run(&server, &data_set);
        run(&server, change);
        digest(&save(&server)).keys
    };
    let unchanged = digest_after(&[]);
    assert_eq!(digest_after(&[]), unchanged, "the same data, written again");
    digests.insert(unchanged, &[]);
    for change in &changes {
        let shown = || change.iter().map(|c| crate::live::shown(c)).collect::<Vec<_>>();
        if let Some(same) = digests.insert(digest_after(change), change) {
            panic!("{:?} has the digest of {} commands", shown(), same.len());
        }
    }
}
