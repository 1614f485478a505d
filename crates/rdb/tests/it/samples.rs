//! Decodes every sample file at every level, in pieces of every size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cachevault_rdb::data;
use cachevault_rdb::digest::{
    Digest, Digester, Fingerprint, Fingerprinter, KeyFingerprint, KeyVisitor,
};
use cachevault_rdb::raw::{self, Key};
use cachevault_rdb::report::{Reporter, StreamInconsistency};
use cachevault_rdb::structure;
use cachevault_rdb::{DecodeErrorKind, Limits};

use crate::by_hand::{digit, key, listpack, redis, text, word};
use crate::support::{
    Findings, Row, data_findings, digest, digester, first_difference, fixtures, listing,
    raw_findings, samples, server_digests, shapes, structure_findings,
};

#[derive(Default)]
struct Listing(Vec<Row>);

impl Listing {
    fn push(&mut self, key: &Key<'_>) {
        let (kind, encoding) = (key.value_type.kind().as_str(), key.value_type.encoding());
        let expires = key.expires_at_ms.is_some();
        self.0.push((key.db, key.name.to_vec(), kind.to_owned(), expires, encoding.to_owned()));
    }
}

impl raw::Visitor for Listing {
    fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
        self.push(key);
        Ok(())
    }
}

impl structure::Visitor for Listing {
    fn key(&mut self, key: &Key<'_>) {
        self.push(key);
    }
}

impl data::Visitor for Listing {
    fn key(&mut self, key: &Key<'_>) {
        self.push(key);
    }
}

/// Whether a stored encoding corresponds to an encoding in the memory of the server.
fn is_encoded(stored: &str, encoded: &str) -> bool {
    match encoded {
        "int" | "embstr" | "raw" => stored == "string",
        "hashtable" => stored.starts_with("hash table"),
        "listpackex" => stored == "listpack with expiry",
        // A list of one node is saved as a list of nodes.
        "listpack" => stored == "listpack" || stored == "quicklist",
        "unknown" => stored.starts_with("stream"),
        other => stored.starts_with(other),
    }
}

#[test]
fn every_sample_contains_exactly_the_listed_keys() {
    for path in samples() {
        let file = fs::read(&path).unwrap();
        let [mut raw, mut structure, mut data] = [const { Listing(Vec::new()) }; 3];
        raw::Decoder::default().feed(&file, &mut raw).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        structure::Decoder::default().feed(&file, &mut structure).unwrap();
        data::Decoder::default().feed(&file, &mut data).unwrap();
        assert_eq!((&raw.0, &raw.0), (&structure.0, &data.0), "{path:?}");
        raw.0.sort();
        let mut expected = listing(&path);
        assert_eq!(raw.0.len(), expected.len(), "{path:?}");
        // The listings of samples made by hand come from newer servers.
        let is_by_hand = path.parent().unwrap().ends_with("handmade");
        for (found, listed) in raw.0.iter().zip(&mut expected) {
            // A value of a module contains the name of its type.
            if listed.2 == "vectorset" {
                "module".clone_into(&mut listed.2);
                "module".clone_into(&mut listed.4);
            }
            let (found, stored) = ((found.0, &found.1, &found.2, found.3), &found.4);
            assert_eq!(found, (listed.0, &listed.1, &listed.2, listed.3), "{path:?}");
            let fits = is_by_hand || is_encoded(stored, &listed.4);
            assert!(fits, "{path:?}, {found:?}: {stored} and {}", listed.4);
        }
    }
}

#[test]
fn the_size_of_pieces_changes_nothing_at_any_level() {
    for path in samples() {
        let file = fs::read(&path).unwrap();
        let whole = file.len();
        let raw = raw_findings(&file, whole).unwrap().lines;
        let structure = structure_findings(&file, whole).unwrap().lines;
        let data = data_findings(&file, whole).unwrap().lines;
        let shaped = shapes(&file, whole).unwrap().0;
        let digest = digester(&file, whole).unwrap().finish();
        let sizes: &[usize] = if file.len() < 20_000 {
            &[1, 2, 3, 5, 7, 11, 64, 509, 4096]
        } else {
            &[1, 997, 65_537]
        };
        for &chunk in sizes {
            for (level, found, expected) in [
                ("raw", raw_findings(&file, chunk).unwrap().lines, &raw),
                ("structure", structure_findings(&file, chunk).unwrap().lines, &structure),
                ("data", data_findings(&file, chunk).unwrap().lines, &data),
                ("shapes", shapes(&file, chunk).unwrap().0, &shaped),
            ] {
                assert!(
                    found == *expected,
                    "{path:?}, {level}, chunks of {chunk}: {}",
                    first_difference(&found, expected)
                );
            }
            assert_eq!(digester(&file, chunk).unwrap().finish(), digest, "{path:?}");
        }
    }
}

/// Folders of servers with the same data.
const OLD_SERVERS: [&str; 6] =
    ["redis-5.0.14", "redis-6.2.16", "redis-7.0.15", "redis-7.4.1", "valkey-8.0.1", "valkey-9.1.2"];
const NEW_SERVERS: [&str; 3] = ["redis-8.2.3", "redis-8.6.3", "redis-unstable-2026-06-25"];

fn digest_of(folder: &str, name: &str) -> Digest {
    let path = fixtures().join(folder).join(name).with_extension("rdb");
    digest(&fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
}

#[test]
fn the_same_data_has_the_same_digest_for_all_servers_and_encodings() {
    let old = ["strings", "lists", "sets", "zsets", "streams", "forced-packed", "forced-unpacked"];
    let new = ["strings", "lists", "sets", "zsets", "hashes", "ttl", "vector-sets"];
    for (folders, names) in [(&OLD_SERVERS[..], &old[..]), (&NEW_SERVERS, &new)] {
        for name in names {
            let first = digest_of(folders[0], name);
            for folder in folders {
                let digest = digest_of(folder, name);
                assert_eq!(digest.keys, first.keys, "{name} of {folder}");
                assert_eq!(digest.kinds, first.kinds, "{name} of {folder}");
                assert!(digest.slots().eq(first.slots()), "{name} of {folder}");
                assert_eq!(digest.uncompared, 0, "{name} of {folder}");
            }
        }
    }
    // Each server computed the expiries of `ttl` with its own clock.
    let different: BTreeSet<_> =
        OLD_SERVERS.iter().map(|folder| digest_of(folder, "ttl").keys).collect();
    assert_eq!(different.len(), OLD_SERVERS.len());
    for folder in OLD_SERVERS {
        assert_eq!(digest_of(folder, "empty").keys.0, 0);
        assert_eq!(digest_of(folder, "all").databases.len(), 4);
    }
}

/// Fingerprints by database and name.
#[derive(Default)]
struct Fingerprints(BTreeMap<(u64, Vec<u8>), Fingerprint>);

impl KeyVisitor for Fingerprints {
    fn key(&mut self, key: &KeyFingerprint<'_>) {
        self.0.insert((key.db, key.name.to_vec()), key.fingerprint);
    }
}

/// The fingerprint of each key of a sample, with the server's own `DEBUG DIGEST-VALUE`.
fn fingerprints(folder: &str, name: &str) -> BTreeMap<(u64, Vec<u8>), (Fingerprint, String)> {
    let path = fixtures().join(folder).join(name).with_extension("rdb");
    let mut fingerprinter = Fingerprinter::new(Fingerprints::default());
    data::Decoder::default().feed(&fs::read(&path).unwrap(), &mut fingerprinter).unwrap();
    let servers = server_digests(&path);
    let found = fingerprinter.keys.0.into_iter();
    found.map(|(key, fingerprint)| (key.clone(), (fingerprint, servers[&key].clone()))).collect()
}

#[test]
fn values_with_equal_server_digests_have_equal_fingerprints() {
    for (name, shared) in [("streams", 24), ("hashes", 30), ("vector-sets", 24)] {
        let [first, others @ ..] = NEW_SERVERS.map(|folder| fingerprints(folder, name));
        let mut compared = 0;
        for other in others {
            for (key, (fingerprint, server)) in &first {
                let Some((found, also)) = other.get(key).filter(|(_, also)| also == server) else {
                    continue;
                };
                assert_eq!(found, fingerprint, "{name}, {key:?}: {server} and {also}");
                compared += 1;
            }
        }
        assert_eq!(compared, shared, "{name}");
    }
    // Only the newer two samples contain idempotent producers and pending entries without a
    // consumer, with identifiers of their clocks.
    let [_, middle, newest] = NEW_SERVERS.map(|folder| fingerprints(folder, "streams"));
    assert_eq!((middle.len(), newest.len()), (15, 18));
}

#[test]
fn reloading_a_vector_set_keeps_its_fingerprint() {
    let names = ["vectorset-2", "vectorset-2-reloaded", "vectorset-2-reloaded-twice"];
    let files =
        names.map(|name| fs::read(fixtures().join(format!("module-order/{name}.rdb"))).unwrap());
    assert!(files[0] != files[1]);
    let digests = files.map(|file| digest(&file));
    assert_eq!(digests[0].uncompared, 0);
    assert!(digests.iter().all(|digest| digest.keys == digests[0].keys));
}

#[test]
fn states_that_every_server_refuses_are_damage_and_others_are_reported() {
    let read = |name: &str| fs::read(fixtures().join("refused-by-servers").join(name)).unwrap();
    let error = shapes(&read("stream-consumer-pel-unknown-id.rdb"), 64).err().unwrap();
    assert_eq!(
        error.kind,
        DecodeErrorKind::Corrupt("a consumer has a pending entry that its group lacks")
    );
    let mut reporter = Reporter::new(0, 1);
    let file = read("stream-entries-read-1000.rdb");
    data::Decoder::default().feed(&file, &mut reporter).unwrap();
    let found = reporter.finish().inconsistent_streams;
    assert_eq!(found.count, 1);
    assert_eq!(found.listed[0].reason, StreamInconsistency::EntriesRead);
}

#[test]
fn streams_of_real_servers_are_consistent() {
    for path in samples() {
        let mut reporter = Reporter::new(0, 1);
        data::Decoder::default().feed(&fs::read(&path).unwrap(), &mut reporter).unwrap();
        assert_eq!(reporter.finish().inconsistent_streams.count, 0, "{path:?}");
    }
}

#[test]
fn module_metadata_of_keys_is_passed_on_and_counted() {
    #[derive(Default)]
    struct Metadata(Vec<Vec<u8>>);
    impl raw::Visitor for Metadata {
        fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
            self.0.push(key.metadata.to_vec());
            Ok(())
        }
    }
    let file = fs::read(fixtures().join("redis-8.6.3-keymeta/keymeta.rdb")).unwrap();
    for chunk in [1, 7, file.len()] {
        let (mut decoder, mut found) = (raw::Decoder::default(), Metadata::default());
        for piece in file.chunks(chunk) {
            decoder.feed(piece, &mut found).unwrap();
        }
        let with: Vec<_> = found.0.iter().filter(|bytes| !bytes.is_empty()).collect();
        assert_eq!(with.len(), 2);
        // The opcode and one class.
        assert!(with.iter().all(|bytes| bytes[..2] == [243, 1]), "{with:?}");
    }
    assert_eq!(digest(&file).uncompared, 2);
    let mut reporter = Reporter::new(0, 1);
    data::Decoder::default().feed(&file, &mut reporter).unwrap();
    let report = reporter.finish();
    assert_eq!((report.keys_with_metadata, report.least_redis_version), (2, Some(13)));
    assert_eq!(report.least_redis_version_by_commands, Some(13));
    assert_eq!(report.least_valkey_version_by_commands, None);
}

#[test]
fn the_parts_of_a_digest_add_up_to_the_whole_digest() {
    for path in samples() {
        let digest = digest(&fs::read(&path).unwrap());
        let sum = |parts: &mut dyn Iterator<Item = u128>| parts.fold(0u128, u128::wrapping_add);
        let whole = digest.keys.0;
        assert_eq!(sum(&mut digest.databases.values().map(|d| d.0)), whole, "{path:?}");
        assert_eq!(sum(&mut digest.kinds.iter().map(|d| d.0)), whole, "{path:?}");
        assert_eq!(sum(&mut digest.slots().map(|(_, d)| d.0)), whole, "{path:?}");
        assert_eq!(digest.key_count as usize, listing(&path).len(), "{path:?}");
    }
}

#[test]
fn held_parts_beyond_the_limits_are_refused() {
    let file = fs::read(fixtures().join("redis-7.0.15/streams.rdb")).unwrap();
    for (limits, what) in [
        (Limits { names_bytes_max: 8, ..Limits::default() }, "the names of fields"),
        (Limits { held_bytes_max: 10, ..Limits::default() }, "a key of 12 bytes"),
        (Limits { text_bytes_max: 100, ..Limits::default() }, "a string of"),
    ] {
        let error = data::Decoder::new(limits).feed(&file, &mut Digester::default()).unwrap_err();
        assert!(matches!(error.kind, DecodeErrorKind::TooLong { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_long_entry_is_the_same_in_pieces_of_any_size() {
    for len in [63, 64, 65_530, 65_531, 65_532, 65_536, 65_537, 70_000] {
        let entries = [word(&vec![b'x'; len]), digit(1), word(b"y")];
        let file = redis(&[&key(20, &[&listpack(&entries)])]);
        let whole = structure_findings(&file, file.len()).unwrap().lines;
        for at in file.len() - 40..file.len() {
            let cut = structure_findings(&file, at).unwrap().lines;
            assert!(cut == whole, "{len} at {at}");
        }
    }
}

#[test]
fn a_short_string_beyond_the_limit_is_refused_at_its_beginning() {
    let file = redis(&[&key(4, &[&[1], &text(b"f"), &text(&[b'v'; 63])])]);
    for chunk in [1, file.len()] {
        let limits = Limits { text_bytes_max: 62, ..Limits::default() };
        let (mut decoder, mut findings) = (raw::Decoder::new(limits), Findings::default());
        let mut fed = file.chunks(chunk).map(|piece| decoder.feed(piece, &mut findings));
        let error = fed.find_map(Result::err).unwrap();
        // Header, type, name, count, field.
        assert_eq!(error.offset, 9 + 1 + 2 + 1 + 2);
        let kind = error.kind;
        assert!(matches!(kind, DecodeErrorKind::TooLong { bytes: 63, limit: 62, .. }), "{kind}");
    }
}

#[test]
fn an_invalid_score_is_refused_at_its_position() {
    let file = redis(&[&key(5, &[&[1], &text(b"m"), &f64::NAN.to_le_bytes()])]);
    for chunk in [1, file.len()] {
        let error = structure_findings(&file, chunk).err().unwrap();
        assert_eq!(error.offset, 9 + 1 + 2 + 1 + 2);
    }
}
