//! Damage is noticed, wherever it is.

use std::fs;

use cachevault_rdb::Header;
use cachevault_rdb::digest::Fingerprint;

use crate::support::{data_findings, digest, fixtures, is_sound, shapes};

/// Small enough for every byte and every value of it. Those of versions 3, 6 and 7 have no checksum.
const SMALL: [&str; 7] = [
    "valkey-9.1.2/ttl.rdb",
    "redis-7.4.1/forced-unpacked.rdb",
    "redis-5.0.14/forced-unpacked.rdb",
    "redis-5.0.14/empty.rdb",
    "handmade/legacy-v3.rdb",
    "handmade/legacy-v6.rdb",
    "handmade/legacy-v7-quicklist.rdb",
];

/// What of the findings is data: the keys and their values, without where they stand and when they
/// were last used.
fn data_of(file: &[u8]) -> Vec<String> {
    let lines = data_findings(file, file.len()).unwrap().lines;
    let is_record = |line: &String| {
        ["Header", "Aux", "SelectDb", "ResizeDb", "SlotInfo", "End"]
            .iter()
            .any(|record| line.starts_with(record))
    };
    let without_rest = |line: String| line.split(", idle_seconds").next().unwrap().to_owned();
    lines.into_iter().filter(|line| !is_record(line)).map(without_rest).collect()
}

fn fingerprints_of(file: &[u8]) -> (Fingerprint, Fingerprint) {
    let digest = digest(file);
    (digest.keys, digest.functions)
}

#[test]
fn every_changed_byte_is_noticed_or_is_no_data() {
    for name in SMALL {
        let good = fs::read(fixtures().join(name)).unwrap();
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
            assert!(!has_checksum, "{name}: byte {at} ^ {flip:#x} is not noticed");
            // Without a checksum, what passes must show in the digest or be no data.
            if fingerprints_of(&bad) == fingerprints {
                assert_eq!(data_of(&bad), data, "{name}: byte {at} ^ {flip:#x}");
            }
        }
    }
}

#[test]
fn every_cut_is_noticed_by_the_structure_alone() {
    for name in SMALL {
        let good = fs::read(fixtures().join(name)).unwrap();
        for len in 0..good.len() {
            assert!(shapes(&good[..len], 4096).is_err(), "{name} cut to {len} bytes");
        }
        let longer = [good.as_slice(), b"\0"].concat();
        assert!(shapes(&longer, 4096).is_err(), "{name} with a byte more");
    }
}

#[test]
fn a_node_of_a_list_that_holds_nothing_is_noticed() {
    // A list (quicklist of version 2) of one plain node, and what that holds.
    let list =
        |node: &[u8]| [b"REDIS0010\x12\x01k\x01\x01", node, b"\xff\0\0\0\0\0\0\0\0"].concat();
    assert!(shapes(&list(b"\x01v"), 4096).is_ok());
    assert!(shapes(&list(b"\0"), 4096).is_err());
}
