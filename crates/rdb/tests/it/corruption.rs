//! Damage is noticed, wherever it is.

use std::fs;

use crate::support::{data_findings, digest, fixtures, is_sound, shapes};

const SMALL: [&str; 4] = [
    "valkey-9.1.2/ttl.rdb",
    "redis-5.0.14/empty.rdb",
    "redis-7.4.1/sets.rdb",
    "handmade/legacy-v7-quicklist.rdb",
];

/// What of the findings is data: the keys, without where they stand, and their values.
fn data_of(file: &[u8]) -> Vec<String> {
    let lines = data_findings(file, file.len()).unwrap().lines;
    let is_record = |line: &String| {
        ["Header", "Aux", "SelectDb", "ResizeDb", "SlotInfo", "End"]
            .iter()
            .any(|record| line.starts_with(record))
    };
    let without_offset = |line: String| line.split(", value_type").next().unwrap().to_owned();
    lines.into_iter().filter(|line| !is_record(line)).map(without_offset).collect()
}

#[test]
fn every_changed_byte_is_noticed_or_is_no_data() {
    for name in SMALL {
        let good = fs::read(fixtures().join(name)).unwrap();
        assert!(is_sound(&good, good.len()), "{name}");
        let (keys, data) = (digest(&good).keys, data_of(&good));
        let has_checksum = !good.ends_with(&[0; 8]);
        let step = good.len().div_ceil(1500);
        for at in (0..good.len()).step_by(step) {
            for flip in [0x01, 0x80, 0xFF] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                if !is_sound(&bad, bad.len()) {
                    continue;
                }
                assert!(!has_checksum, "{name}: byte {at} ^ {flip:#x} is not noticed");
                // Without a checksum, what passes must show in the digest or be no data.
                if digest(&bad).keys == keys {
                    assert_eq!(data_of(&bad), data, "{name}: byte {at} ^ {flip:#x}");
                }
            }
        }
    }
}

#[test]
fn every_cut_is_noticed_by_the_structure_alone() {
    for name in SMALL {
        let good = fs::read(fixtures().join(name)).unwrap();
        for len in (0..good.len()).step_by(good.len().div_ceil(3000)) {
            assert!(shapes(&good[..len], 4096).is_err(), "{name} cut to {len} bytes");
        }
        let longer = [good.as_slice(), b"\0"].concat();
        assert!(shapes(&longer, 4096).is_err(), "{name} with a byte more");
    }
}
