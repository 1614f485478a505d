//! The memory of the decoders does not grow with their input.
//!
//! The test has its own binary, because it measures the peak of the process. The streams are
//! generated while they are read and never exist as a whole.

#![expect(clippy::unwrap_used, reason = "a failed setup ends its test")]

use std::fs;

use cachevault_rdb::inspect::{Content, Inspection, Inspector};
use cachevault_rdb::structure::{self, Shape};

const MIB: usize = 1 << 20;
const PIECE_BYTES: usize = 64 << 10;
/// Limits above the memory of the process before the first stream: for all streams; and for a
/// stream with pending entries, which needs their growing list.
const GROWTH_BYTES_MAX: usize = 4 * MIB;
const STREAM_GROWTH_BYTES_MAX: usize = GROWTH_BYTES_MAX + 8 * MIB;
/// Close to the default maximum of a held part.
const HELD_BYTES: usize = 16 * MIB;
/// Two such parts at a time, and the rest. A capture may use 64 MiB more than an idle service.
const HELD_GROWTH_BYTES_MAX: usize = 48 * MIB;

/// The findings of the structure level: keys, elements, and bytes of text.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    keys: u64,
    elements: u64,
    text_bytes: u64,
}

impl structure::Visitor for Sums {
    const WANTS_TEXTS: bool = false;

    fn key_end(&mut self, shape: &Shape) {
        self.keys += 1;
        self.elements += shape.elements;
        self.text_bytes += shape.text_bytes;
    }
}

/// A stream that is decoded while it is generated, by the structure level and by an inspector with
/// digest and report.
struct Stream {
    piece: Vec<u8>,
    structure: structure::Decoder,
    sums: Sums,
    inspector: Inspector,
}

impl Stream {
    fn new() -> Self {
        let mut stream = Self {
            piece: Vec::with_capacity(PIECE_BYTES),
            structure: structure::Decoder::default(),
            sums: Sums::default(),
            inspector: Inspector::new(0, 10),
        };
        stream.push(b"REDIS0010");
        stream
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
            self.piece.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.piece.len() == PIECE_BYTES {
                self.pass_on();
            }
        }
    }

    fn pass_on(&mut self) {
        self.structure.feed(&self.piece, &mut self.sums).unwrap();
        self.inspector.feed(&self.piece).unwrap();
        self.piece.clear();
    }

    /// Repeats `bytes` until that many bytes are written.
    fn push_pattern(&mut self, pattern: &[u8], mut bytes: usize) {
        while bytes > 0 {
            let step = bytes.min(pattern.len());
            self.push(&pattern[..step]);
            bytes -= step;
        }
    }

    fn push_length(&mut self, length: usize) {
        self.push(&[0x81]);
        self.push(&(length as u64).to_be_bytes());
    }

    fn push_key(&mut self, value_type: u8) {
        self.push(&[value_type, 1, b'k']);
    }

    /// Ends the stream without a checksum.
    fn finish(mut self) -> (Sums, Inspection) {
        self.push(b"\xff\0\0\0\0\0\0\0\0");
        self.pass_on();
        self.structure.finish().unwrap();
        (self.sums, self.inspector.finish().unwrap())
    }
}

/// Many small keys.
fn small_keys(stream: &mut Stream) -> Sums {
    let (key, value) = ("key:00000000", "value of the key");
    let keys = 256 * MIB / (key.len() + value.len() + 3);
    for number in 0..keys {
        let mut record = [b"\0\x0c", key.as_bytes(), b"\x10", value.as_bytes()].concat();
        let mut rest = number;
        for digit in record[6..14].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        stream.push(&record);
    }
    let keys = keys as u64;
    Sums { keys, elements: keys, text_bytes: keys * value.len() as u64 }
}

fn one(elements: u64, text_bytes: usize) -> Sums {
    Sums { keys: 1, elements, text_bytes: text_bytes as u64 }
}

fn plain_string(stream: &mut Stream) -> Sums {
    let bytes = 256 * MIB;
    stream.push_key(0);
    stream.push_length(bytes);
    stream.push_pattern(b"neither short nor compressed", bytes);
    one(1, bytes)
}

/// A unit of a compressed string: 32 literal bytes, and a copy of 264 bytes with a distance of 32.
const UNIT: [u8; 36] = {
    let mut unit = [b'u'; 36];
    (unit[0], unit[33], unit[34], unit[35]) = (31, 0xE0, 255, 31);
    unit
};
const UNIT_WRITES: usize = 32 + 264;

/// The header of a compressed string of literal bytes, units, and literal bytes.
fn push_compressed(stream: &mut Stream, head: &[u8], units: usize, tail: &[u8]) {
    stream.push(&[0xC3]);
    stream.push_length(1 + head.len() + units * UNIT.len() + 1 + tail.len());
    stream.push_length(head.len() + units * UNIT_WRITES + tail.len());
    stream.push(&[head.len() as u8 - 1]);
    stream.push(head);
    stream.push_pattern(&UNIT, units * UNIT.len());
    stream.push(&[tail.len() as u8 - 1]);
    stream.push(tail);
}

fn compressed_string(stream: &mut Stream) -> Sums {
    let units = 256 * MIB / UNIT_WRITES;
    stream.push_key(0);
    push_compressed(stream, b"head", units, b"tail");
    one(1, 8 + units * UNIT_WRITES)
}

/// An element of a listpack: its encoding, `element`, and its length backwards.
const ELEMENT: &[u8] = b"\x87element\x08";

fn push_listpack_head(stream: &mut Stream, bytes: usize, count: u16) {
    stream.push(&(bytes as u32).to_le_bytes());
    stream.push(&count.to_le_bytes());
}

/// Six million elements in nodes of about 8 KiB, similar to the nodes of servers.
fn list_of_nodes(stream: &mut Stream) -> Sums {
    let (nodes, per_node) = (6700, 900);
    let bytes = 7 + per_node * ELEMENT.len();
    stream.push_key(18);
    stream.push_length(nodes);
    for _ in 0..nodes {
        stream.push(&[2]);
        stream.push_length(bytes);
        push_listpack_head(stream, bytes, per_node as u16);
        stream.push_pattern(ELEMENT, per_node * ELEMENT.len());
        stream.push(&[0xFF]);
    }
    one((nodes * per_node) as u64, nodes * per_node * 7)
}

/// Five million elements in one node, more than its header can count.
fn list_of_one_node(stream: &mut Stream) -> Sums {
    let count = 5_000_000;
    let bytes = 7 + count * ELEMENT.len();
    stream.push_key(18);
    stream.push(&[1, 2]);
    stream.push_length(bytes);
    push_listpack_head(stream, bytes, u16::MAX);
    stream.push_pattern(ELEMENT, count * ELEMENT.len());
    stream.push(&[0xFF]);
    one(count as u64, count * 7)
}

/// A large element in a ziplist, as written by Redis 6.2 and older.
fn ziplist_of_one_element(stream: &mut Stream) -> Sums {
    let element = 200 * MIB;
    let bytes = 10 + 6 + element + 1;
    stream.push_key(14);
    stream.push(&[1]);
    stream.push_length(bytes);
    stream.push(&(bytes as u32).to_le_bytes());
    stream.push(&10u32.to_le_bytes());
    stream.push(&[1, 0, 0, 0x80]);
    stream.push(&(element as u32).to_be_bytes());
    stream.push_pattern(b"a large element", element);
    stream.push(&[0xFF]);
    one(1, element)
}

/// The same in compressed form.
fn compressed_ziplist_of_one_element(stream: &mut Stream) -> Sums {
    let units = 200 * MIB / UNIT_WRITES;
    let element = units * UNIT_WRITES;
    let bytes = 10 + 6 + element + 1;
    let mut head = Vec::from((bytes as u32).to_le_bytes());
    head.extend(10u32.to_le_bytes());
    head.extend([1, 0, 0, 0x80]);
    head.extend((element as u32).to_be_bytes());
    stream.push_key(14);
    stream.push(&[1]);
    push_compressed(stream, &head, units, &[0xFF]);
    one(1, element)
}

/// A stream without entries and with a group of many pending entries.
fn pending_entries(stream: &mut Stream) -> Sums {
    let pending = 2_000_000;
    stream.push_key(15);
    // No nodes; length, last identifier; one group, its name and identifier.
    stream.push(b"\0\0\x01\0\x01\x05group\x01\0");
    stream.push_length(pending);
    for id in 0..pending as u128 {
        stream.push(&id.to_be_bytes());
        stream.push(b"\0\0\0\0\0\0\0\0\x01");
    }
    // One consumer and the time of its last request.
    stream.push(b"\x01\x08consumer\0\0\0\0\0\0\0\0");
    stream.push_length(pending);
    for id in 0..pending as u128 {
        stream.push(&id.to_be_bytes());
    }
    one(0, 0)
}

/// The longest held parts, each compressed to an 88th of its length: a key, an aux field and its
/// name, a library of functions. A small key follows.
fn held_parts(stream: &mut Stream) -> Sums {
    let units = HELD_BYTES / UNIT_WRITES - 1;
    let push_part = |stream: &mut Stream, before: &[u8]| {
        stream.push(before);
        push_compressed(stream, b"head", units, b"tail");
    };
    push_part(stream, &[250]);
    push_part(stream, &[]);
    push_part(stream, &[245]);
    push_part(stream, &[0]);
    stream.push(b"\x01v");
    stream.push_key(0);
    stream.push(b"\x01v");
    Sums { keys: 2, elements: 2, text_bytes: 2 }
}

/// The peak memory of this process.
fn peak_bytes() -> usize {
    status_bytes("VmHWM:")
}

/// The current memory of this process.
fn held_bytes() -> usize {
    status_bytes("VmRSS:")
}

fn status_bytes(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn peak_memory_does_not_depend_on_the_size_of_the_input() {
    let before = peak_bytes();
    for (name, write) in [
        ("many small keys", small_keys as fn(&mut Stream) -> Sums),
        ("a long string", plain_string),
        ("a long compressed string", compressed_string),
        ("a list of many nodes", list_of_nodes),
        ("a list of one node", list_of_one_node),
        ("a long element in a ziplist", ziplist_of_one_element),
        ("a long element in a compressed ziplist", compressed_ziplist_of_one_element),
        ("many pending entries", pending_entries),
    ] {
        let mut stream = Stream::new();
        let expected = write(&mut stream);
        let (sums, inspection) = stream.finish();
        assert_eq!(sums, expected, "{name}");
        let Content::Verified { digest, .. } = inspection.content else { panic!("{name}") };
        assert_eq!(digest.key_count, sums.keys, "{name}");
        let growth = peak_bytes().saturating_sub(before);
        println!("after {name}: {} KiB above the initial memory", growth >> 10);
        let limit = match name {
            "many pending entries" => STREAM_GROWTH_BYTES_MAX,
            _ => GROWTH_BYTES_MAX,
        };
        assert!(growth < limit, "{name}: the peak grew by {growth} bytes");
    }
    check_held_memory_is_freed(before);
}

/// Runs last, because these parts need more memory than all others.
fn check_held_memory_is_freed(before: usize) {
    let mut stream = Stream::new();
    let expected = held_parts(&mut stream);
    stream.pass_on();
    let kept = held_bytes().saturating_sub(before);
    let (sums, _) = stream.finish();
    assert_eq!(sums, expected);
    let growth = peak_bytes().saturating_sub(before);
    println!("after held parts: {} KiB, of which {} KiB remain", growth >> 10, kept >> 10);
    assert!(growth < HELD_GROWTH_BYTES_MAX, "the peak grew by {growth} bytes");
    assert!(kept < STREAM_GROWTH_BYTES_MAX, "{kept} bytes remain");
}
