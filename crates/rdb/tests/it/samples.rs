//! Every sample file, at every level, in pieces of every size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cachevault_rdb::data;
use cachevault_rdb::digest::Digester;
use cachevault_rdb::raw::{self, Key};
use cachevault_rdb::structure;
use cachevault_rdb::{DecodeErrorKind, Limits};

use crate::by_hand::{digit, key, listpack, redis, text, word};
use crate::support::{
    Findings, Row, data_findings, digest, digester, first_difference, fixtures, listing,
    raw_findings, samples, shapes, structure_findings,
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

/// Whether a value that is stored like this is, in the server that stores it so, encoded like that.
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
fn every_sample_holds_exactly_the_keys_that_its_server_listed() {
    for path in samples() {
        let file = fs::read(&path).unwrap();
        let [mut raw, mut structure, mut data] = [const { Listing(Vec::new()) }; 3];
        raw::Decoder::default().feed(&file, &mut raw).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        structure::Decoder::default().feed(&file, &mut structure).unwrap();
        data::Decoder::default().feed(&file, &mut data).unwrap();
        assert_eq!((&raw.0, &raw.0), (&structure.0, &data.0), "{path:?}");
        raw.0.sort();
        let expected = listing(&path);
        assert_eq!(raw.0.len(), expected.len(), "{path:?}");
        // A newer server than the one that would have written them listed those made by hand.
        let is_by_hand = path.parent().unwrap().ends_with("handmade");
        for (found, listed) in raw.0.iter().zip(&expected) {
            let (found, stored) = ((found.0, &found.1, &found.2, found.3), &found.4);
            assert_eq!(found, (listed.0, &listed.1, &listed.2, listed.3), "{path:?}");
            let fits = is_by_hand || is_encoded(stored, &listed.4);
            assert!(fits, "{path:?}, {found:?}: {stored} and {}", listed.4);
        }
    }
}

#[test]
fn how_a_file_is_cut_changes_nothing_at_any_level() {
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

#[test]
fn the_same_data_has_the_same_digest_whoever_saved_it_and_however() {
    let folders: Vec<_> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.is_dir() && !folder.ends_with("handmade"))
        .collect();
    assert!(folders.len() >= 6);
    for name in ["strings", "lists", "sets", "zsets", "streams", "forced-packed", "forced-unpacked"]
    {
        let digests: BTreeMap<_, _> = folders
            .iter()
            .map(|folder| {
                let file = fs::read(folder.join(name).with_extension("rdb")).unwrap();
                (folder.file_name().unwrap().to_owned(), digest(&file))
            })
            .collect();
        let first = digests.values().next().unwrap();
        for (folder, digest) in &digests {
            assert_eq!(digest.keys, first.keys, "{name} of {folder:?}");
            assert_eq!(digest.kinds, first.kinds, "{name} of {folder:?}");
            assert!(digest.slots().eq(first.slots()), "{name} of {folder:?}");
        }
    }
    // The keys of `ttl` were given their time to live by each server's clock.
    let expiring = folders.iter().map(|folder| digest(&fs::read(folder.join("ttl.rdb")).unwrap()));
    let different: BTreeSet<_> = expiring.map(|digest| digest.keys).collect();
    assert_eq!(different.len(), folders.len());
    for folder in &folders {
        let of = |name: &str| digest(&fs::read(folder.join(name).with_extension("rdb")).unwrap());
        assert_eq!(of("empty").keys.0, 0);
        assert_eq!(of("all").databases.len(), 4);
    }
}

#[test]
fn the_parts_of_a_digest_add_up_to_the_whole() {
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
fn what_would_have_to_be_held_beyond_the_limits_is_refused() {
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
fn a_long_entry_is_the_same_wherever_it_is_cut() {
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
fn a_short_string_beyond_the_limit_is_refused_where_it_begins() {
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
fn a_score_that_is_no_number_is_refused_where_it_stands() {
    let file = redis(&[&key(5, &[&[1], &text(b"m"), &f64::NAN.to_le_bytes()])]);
    for chunk in [1, file.len()] {
        let error = structure_findings(&file, chunk).err().unwrap();
        assert_eq!(error.offset, 9 + 1 + 2 + 1 + 2);
    }
}
