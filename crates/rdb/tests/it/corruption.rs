//! Damage is detected at every position.

use std::fs;

use cachevault_rdb::Header;
use cachevault_rdb::digest::Fingerprint;

use crate::by_hand::{compressed, digit, key, listpack, number, redis, word};
use crate::definition::{hash_with_expiries, stream};
use crate::support::{data_findings, digest, fixtures, is_sound, shapes};

/// Samples small enough for every value of every byte. Those of versions 3, 6 and 7 have no
/// checksum.
const SMALL: [&str; 7] = [
    "valkey-9.1.2/ttl.rdb",
    "redis-7.4.1/forced-unpacked.rdb",
    "redis-5.0.14/forced-unpacked.rdb",
    "redis-5.0.14/empty.rdb",
    "handmade/legacy-v3.rdb",
    "handmade/legacy-v6.rdb",
    "handmade/legacy-v7-quicklist.rdb",
];

fn small() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    SMALL.into_iter().map(|name| (name, fs::read(fixtures().join(name)).unwrap()))
}

/// The findings that are data: keys and their values, without positions and times of use.
fn data_of(file: &[u8]) -> Vec<String> {
    let lines = data_findings(file, file.len()).unwrap().lines;
    lines.iter().filter_map(|line| data_in(line)).collect()
}

/// Records are no data. Of a key and of a stream's tail, only the parts count that all servers keep
/// and no clock wrote.
fn data_in(line: &str) -> Option<String> {
    // Only metadata with content is data.
    const RECORDS: [&str; 7] =
        ["Header", "Aux", "SelectDb", "ResizeDb", "SlotInfo", "End", "KeyMetadata(0)"];
    let is = |what: &str| line.starts_with(what);
    if RECORDS.into_iter().any(is) || is("Stream(Consumers(") {
        return None;
    }
    let data = match line {
        _ if is("Stream(Meta(") => line.split_once("last_id: ")?.1.split(", first_id").next()?,
        _ if is("Stream(Group(") => line.split(", entries_read").next()?,
        _ if is("Stream(Consumer(") && line.contains(", pending: 0") => return None,
        _ if is("Stream(Consumer(") => line.split(", seen_at_ms").next()?,
        _ if is("Stream(Pending(") => {
            let (id, rest) = line.split_once(", delivered_at_ms")?;
            return Some([id, rest.split_once(", deliveries")?.1].concat());
        }
        // Position and layout of a key are no data; module metadata is counted.
        _ => line.split(", idle_seconds").next()?,
    };
    Some(data.to_owned())
}

/// Content of current servers without a checksum, small enough for every value of every byte.
fn modern() -> Vec<(&'static str, Vec<u8>)> {
    let pairs = listpack(&[word(b"a"), digit(1), word(b"b"), number(-1)]);
    let scores = listpack(&[word(b"a"), word(b"1.5")]);
    let nodes = [&[3, 2][..], &listpack(&[word(b"x"), digit(7)]), b"\x01\x01y\x02"].concat();
    let list = [&nodes[..], &listpack(&[word(&[b'z'; 70])])].concat();
    let compressed = [&[0], &compressed(600)[..]].concat();
    let mut files = vec![
        ("a listpack of pairs", redis(&[&key(16, &[&pairs])])),
        ("a listpack of scores", redis(&[&key(17, &[&scores])])),
        ("a listpack of members", redis(&[&key(20, &[&listpack(&[word(b"m"), digit(9)])])])),
        ("a quicklist", redis(&[&key(18, &[&list])])),
        ("a compressed string", redis(&[&key(4, &[&[1, 1, b'f'], &compressed[1..]])])),
        ("a stream", stream()),
    ];
    files.extend(hash_with_expiries(1));
    files
}

fn fingerprints_of(file: &[u8]) -> (Fingerprint, Fingerprint) {
    let digest = digest(file);
    (digest.keys, digest.functions)
}

#[test]
fn every_changed_byte_is_detected_or_affects_no_data() {
    for (name, good) in small().chain(modern()) {
        assert!(is_sound(&good, good.len()), "{name}");
        let (fingerprints, data) = (fingerprints_of(&good), data_of(&good));
        let has_checksum = Header::parse(good[..9].try_into().unwrap()).unwrap().has_checksum()
            && !good.ends_with(&[0; 8]);
        for (at, flip) in (0..good.len()).flat_map(|at| (1..=u8::MAX).map(move |flip| (at, flip))) {
            let mut bad = good.clone();
            bad[at] ^= flip;
            if !is_sound(&bad, bad.len()) {
                continue;
            }
            assert!(!has_checksum, "{name}: byte {at} ^ {flip:#x} is not detected");
            // Without a checksum, an undetected change must alter the digest or affect no data.
            if fingerprints_of(&bad) == fingerprints {
                assert_eq!(data_of(&bad), data, "{name}: byte {at} ^ {flip:#x}");
            }
        }
    }
}

#[test]
fn the_structure_level_detects_every_truncation() {
    for (name, good) in small().chain(modern()) {
        for len in 0..good.len() {
            assert!(shapes(&good[..len], 4096).is_err(), "{name} cut to {len} bytes");
        }
        let longer = [good.as_slice(), b"\0"].concat();
        assert!(shapes(&longer, 4096).is_err(), "{name} with an additional byte");
    }
}

#[test]
fn an_empty_node_of_a_list_is_detected() {
    // A list (quicklist of version 2) with one plain node, and the value of this node.
    let list =
        |node: &[u8]| [b"REDIS0010\x12\x01k\x01\x01", node, b"\xff\0\0\0\0\0\0\0\0"].concat();
    assert!(shapes(&list(b"\x01v"), 4096).is_ok());
    assert!(shapes(&list(b"\0"), 4096).is_err());
}
