//! Small files that demand many resources: their cost is limited, measured in bytes, not in
//! seconds.

use cachevault_rdb::data;
use cachevault_rdb::digest::Digester;
use cachevault_rdb::inspect::{Content, InspectError, Inspector};
use cachevault_rdb::structure::{self, Piece, Shape};
use cachevault_rdb::{DecodeErrorKind, Header};

use crate::by_hand::{compressed, digit, framed, key, length, listpack, number, redis, text, word};
use crate::support::digester;

const MIB: usize = 1 << 20;

/// Counts the bytes of all strings.
#[derive(Default)]
struct Shown(u64);

impl data::Visitor for Shown {
    fn text(&mut self, piece: Piece<'_>) {
        self.0 += piece.bytes.len() as u64;
    }
}

/// A visitor without interest in strings.
struct Blind;

impl structure::Visitor for Blind {
    const WANTS_TEXTS: bool = false;
    fn key_end(&mut self, _: &Shape) {}
}

/// A stream of one node: its field name once, and entries that repeat the name in ten bytes each.
fn stream_of_one_name(name_bytes: usize, entries: usize) -> Vec<u8> {
    let mut node = vec![number(entries as i64), digit(0), digit(1)];
    node.extend([word(&vec![b'n'; name_bytes]), digit(0)]);
    let entry = [digit(2), digit(0), digit(0), word(b""), digit(4)];
    node.extend((0..entries).flat_map(|_| entry.clone()));
    let node = [text(&[0; 16]), listpack(&node)].concat();
    // Length, last identifier, no groups.
    let tail = [length(entries as u64), vec![0, 0, 0]].concat();
    redis(&[&key(15, &[&[1], &node, &tail])])
}

#[test]
fn repeated_names_of_a_node_are_limited() {
    let file = stream_of_one_name(60_000, 100_000);
    let mut shown = Shown::default();
    let error = data::Decoder::default().feed(&file, &mut shown).unwrap_err();
    assert!(matches!(error.kind, DecodeErrorKind::TooLong { .. }), "{error}");
    assert!(shown.0 <= 1024 * file.len() as u64, "{} bytes of {}", shown.0, file.len());
    // The result is the same for pieces, and for a visitor without interest in strings.
    let mut decoder = data::Decoder::default();
    let in_pieces = file.chunks(1).try_for_each(|piece| decoder.feed(piece, &mut Shown::default()));
    assert_eq!(in_pieces.unwrap_err().kind, error.kind);
    let blind = structure::Decoder::default().feed(&file, &mut Blind).unwrap_err();
    assert_eq!(blind.kind, error.kind);
}

#[test]
fn repeated_names_of_real_nodes_all_pass() {
    for (name_bytes, entries) in [(4000, 100), (200, 20_000)] {
        let file = stream_of_one_name(name_bytes, entries);
        let mut shown = Shown::default();
        data::Decoder::default().feed(&file, &mut shown).unwrap();
        assert_eq!(shown.0, (name_bytes * entries) as u64);
    }
}

#[test]
fn a_node_with_too_many_names_is_refused_for_every_visitor() {
    let file = stream_of_one_name(5 * MIB, 1);
    let read = data::Decoder::default().feed(&file, &mut Digester::default()).unwrap_err();
    let checked = structure::Decoder::default().feed(&file, &mut Blind).unwrap_err();
    assert!(read.to_string().contains("the names of fields"), "{read}");
    assert_eq!(read.kind, checked.kind);
}

fn inspect(file: &[u8], piece_bytes: usize) -> Result<Content, InspectError> {
    let mut inspector = Inspector::new(0, 10);
    for piece in file.chunks(piece_bytes) {
        inspector.feed(piece)?;
    }
    Ok(inspector.finish()?.content)
}

#[test]
fn a_held_part_above_the_limit_is_refused() {
    let huge = compressed(17 * MIB);
    let held = [
        ("a key", [&[0], &huge[..], b"\x01v"].concat()),
        ("an aux field", [b"\xfa\x01a", &huge[..]].concat()),
        ("an aux field's name", [b"\xfa", &huge[..], b"\x01a"].concat()),
        ("a function library", [b"\xf5", &huge[..]].concat()),
    ];
    for (what, record) in held {
        let mut file = redis(&[&record]);
        assert!(file.len() < MIB);
        let content = file.len() - 8;
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, &file[..content]);
        file[content..].copy_from_slice(&crc.to_le_bytes());
        match inspect(&file, 4096).unwrap() {
            Content::Opaque { reason } => assert!(reason.to_string().contains(what), "{reason}"),
            Content::Verified { .. } => panic!("{what} of 17 MiB was held"),
        }
    }
}

#[test]
fn a_stated_length_is_not_counted_before_its_bytes() {
    // Values of two fields whose total length exceeds 64 bits.
    let file = b"REDIS0009\x04\x01k\x01\x01a\xc3\x81\x7f\xff\xff\xff\xff\xff\xff\xff\
        \x81\xff\xff\xff\xff\xff\xff\xff\xffx";
    let mut decoder = structure::Decoder::default();
    assert!(decoder.feed(file, &mut Blind).is_ok());
    assert_eq!(decoder.finish().unwrap_err().kind, DecodeErrorKind::Truncated);
}

#[test]
fn version_zero_is_refused() {
    assert!(Header::parse(*b"REDIS0000").is_err());
    assert!(inspect(b"REDIS0000\x00\x01k\x01v\xff", 4096).is_err());
}

#[test]
fn repeated_fields_of_a_template_are_limited() {
    let field = text(&[b'f'; 1 << 20]);
    let template = [&[242, 1, 1][..], &field].concat();
    let mut records = vec![&template[..]];
    let (tabled, packed) =
        (key(32, &[&[1], b"\x01v"]), key(30, &[&listpack(&[digit(1), word(b"v")])]));
    for hash in [&tabled, &packed] {
        records.truncate(1);
        records.extend(std::iter::repeat_n(&hash[..], 3000));
        let error = digester(&framed(b"REDIS0015", &records), 1 << 20).err().unwrap();
        assert!(error.kind.is_beyond_us() && error.to_string().contains("repeat"), "{error}");
    }
}
