//! The digest follows its definition, and the data level decodes files made by hand, for content
//! that is rare in the samples. Every expected number is computed here from the definition, without
//! the crate.

use std::fs;

use cachevault_rdb::report::Reporter;
use cachevault_rdb::{DecodeErrorKind, data, slot_of};
use twox_hash::XxHash3_128;

use crate::by_hand::{digit, framed, key, length, listpack, number, redis, text, valkey, word};
use crate::support::{data_findings, digest, fixtures};

const NEVER: i64 = i64::MIN;
const NOON_MS: i64 = 4_000_000_000_000;
/// The module `ReJSON-RL`, version 3, as encoded by `moduleTypeEncodeId` of Redis' `module.c`.
const JSON_MODULE: u64 = 0x45e2_5238_df91_2c03;

fn h(parts: &[&[u8]]) -> u128 {
    XxHash3_128::oneshot(&parts.concat())
}

fn u(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn i(number: i64) -> [u8; 8] {
    number.to_le_bytes()
}

fn sum(hashes: impl IntoIterator<Item = u128>) -> u128 {
    hashes.into_iter().fold(0, u128::wrapping_add)
}

/// The fingerprint of the key `k` of database 0.
fn k(kind: u8, expiry: i64, elements: u64, value: u128) -> u128 {
    h(&[&[kind], &u(0), &i(expiry), &u(elements), &value.to_le_bytes(), b"k"])
}

/// The findings of the data level for the only key's value.
fn value_of(file: &[u8]) -> Vec<String> {
    let lines = data_findings(file, 1).unwrap().lines;
    let from = lines.iter().position(|line| line.starts_with("Key {")).unwrap();
    lines[from + 1..lines.len() - 1].to_vec()
}

#[test]
fn the_upper_half_of_a_hash_comes_first() {
    assert_eq!(h(&[]), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    let file = redis(&[b"\0\x01k\x01v"]);
    let expected = k(0, NEVER, 1, h(&[b"v"]));
    assert_eq!(digest(&file).keys.0, expected);
    assert_eq!(digest(&file).keys.to_string(), format!("{expected:032x}"));
}

#[test]
fn an_expiry_in_seconds_equals_milliseconds_and_the_hash_tag_selects_the_slot() {
    let seconds = redis(&[b"\xfd\x05\0\0\0\0\x01k\x01v"]);
    let digest_of_seconds = digest(&seconds);
    assert_eq!(digest_of_seconds.keys.0, k(0, 5000, 1, h(&[b"v"])));
    let found: Vec<_> = digest_of_seconds.slots().collect();
    assert_eq!(found, [(slot_of(b"k"), digest_of_seconds.keys)]);
    let tagged = digest(&redis(&[b"\xfe\x03\0\x04x{k}\x01v"]));
    assert_eq!(tagged.slot(slot_of(b"k")), Some(tagged.keys));
}

/// The same hash in every layout that has expiries of fields: the field `b` has no expiry, the
/// others expire at noon and `later_ms` later.
pub(crate) fn hash_with_expiries(later_ms: i64) -> Vec<(&'static str, Vec<u8>)> {
    let until = NOON_MS + later_ms;
    let (noon, count) = (i(NOON_MS), [3].as_slice());
    let (a, b, c) = (&b"\x01a\x011"[..], &b"\x01b\x012"[..], &b"\x01c\x013"[..]);
    let packed = |expiries: [i64; 3]| {
        let rows = [b"a1", b"b2", b"c3"].into_iter().zip(expiries);
        let row = |(row, at): (&[u8; 2], i64)| [word(&row[..1]), word(&row[1..]), number(at)];
        listpack(&rows.flat_map(row).collect::<Vec<_>>())
    };
    let (from_noon, from_zero) = (length(later_ms as u64 + 1), length(until as u64));
    vec![
        ("24", redis(&[&key(24, &[&noon, count, &[1], a, &[0], b, &from_noon, c])])),
        ("25", redis(&[&key(25, &[&noon, &packed([NOON_MS, 0, until])])])),
        ("22", redis(&[&key(22, &[count, &length(NOON_MS as u64), a, &[0], b, &from_zero, c])])),
        ("23", redis(&[&key(23, &[&packed([NOON_MS, 0, until])])])),
        ("Valkey's 22", valkey(&[&key(22, &[count, a, &noon, b, &i(-1), c, &i(until)])])),
    ]
}

#[test]
fn every_layout_yields_the_same_expiries_of_fields() {
    for later_ms in [0, 1, 1000] {
        let until = NOON_MS + later_ms;
        let field = |field, value, expiry| h(&[field, value, &u(1), &i(expiry)]);
        let fields =
            [field(b"a", b"1", NOON_MS), field(b"b", b"2", NEVER), field(b"c", b"3", until)];
        let expected = k(4, NEVER, 3, sum(fields));
        for (layout, file) in hash_with_expiries(later_ms) {
            let found = value_of(&file);
            let noon = format!("FieldExpiry(Some({NOON_MS}))");
            let later = format!("FieldExpiry(Some({until}))");
            let lines = ["Field a", "FieldValue 1", &noon, "Field b", "FieldValue 2"];
            let rest = ["FieldExpiry(None)", "Field c", "FieldValue 3", &later, "3 elements"];
            assert_eq!(found, [lines, rest].concat(), "type {layout}, {later_ms} ms");
            assert_eq!(digest(&file).keys.0, expected, "type {layout}, {later_ms} ms");
        }
    }
}

#[test]
fn expiries_of_fields_in_a_sample_match_its_bytes() {
    let file = fs::read(fixtures().join("redis-7.4.1/hashes.rdb")).unwrap();
    let lines = data_findings(&file, 4096).unwrap().lines;
    let expiry_of = |key: &str, field: &str| {
        let name = format!("name: {:?}", key.as_bytes());
        let mut lines = lines.iter().skip_while(|line| !line.contains(&name));
        let field = format!("Field {field}");
        lines.find(|line| **line == field).unwrap();
        lines.find(|line| line.starts_with("FieldExpiry")).unwrap().clone()
    };
    // The earliest expiry in the bytes is 1805282772130, and the stored difference of this field is
    // 1.
    assert_eq!(expiry_of("hash:hfe_large", "f241"), "FieldExpiry(Some(1805282772130))");
    assert_eq!(expiry_of("hash:hfe_small", "b"), "FieldExpiry(Some(1805282772123))");
}

/// Two paths, with two fields and with one.
fn path_hash() -> Vec<u8> {
    let first = &b"\x01p\x02\x01f\x01v\x01g\xc0\x07"[..];
    valkey(&[&key(23, &[&[2], first, b"\x02p2\x01\x01f\0"])])
}

#[test]
fn fields_of_a_path_hash_belong_to_their_path() {
    let file = path_hash();
    let lines = ["Path p", "Field f", "FieldValue v", "FieldExpiry(None)", "Field g"];
    let more = ["FieldValue 7", "FieldExpiry(None)", "Path p2", "Field f", "FieldValue "];
    let rest = ["FieldExpiry(None)", "3 elements"];
    assert_eq!(value_of(&file), [&lines[..], &more, &rest].concat());
    let field = |path: &[u8], field: &[u8], value: &[u8]| {
        let path = h(&[path]).to_le_bytes();
        h(&[&path, field, value, &u(field.len() as u64), &i(NEVER), &[255]])
    };
    let fields = [field(b"p", b"f", b"v"), field(b"p", b"g", b"7"), field(b"p2", b"f", b"")];
    assert_eq!(digest(&file).keys.0, k(4, NEVER, 3, sum(fields)));
}

#[test]
fn a_plain_field_never_equals_a_field_of_a_path_hash() {
    let (field, value) = (b"field", b"value");
    let path = valkey(&[&key(23, &[b"\x01\x01p\x01", &text(field), &text(value)])]);
    // The same bytes in the same order, with a field of the same length.
    let bytes = [&h(&[b"p"]).to_le_bytes()[..], field, value].concat();
    let (field, value) = bytes.split_at(field.len());
    let plain = valkey(&[&key(4, &[&[1], &text(field), &text(value)])]);
    assert_ne!(digest(&path).keys, digest(&plain).keys);
}

/// A part of every type that a module can write; the numbers are close to the tags.
fn module_parts() -> Vec<u8> {
    let float = [&[3], &1.5f32.to_le_bytes()[..]].concat();
    let double = [&[4], &(-2.5f64).to_le_bytes()[..]].concat();
    [&[1][..], &length(u64::MAX), b"\x02\x07", &float, &double, b"\x05\x03str\x05\xc0\x0c\0"]
        .concat()
}

#[test]
fn a_module_value_is_counted_and_not_compared() {
    let module = length(JSON_MODULE);
    let file = redis(&[&key(7, &[&module, &module_parts()])]);
    let id = format!("ModuleValue(ModuleId({JSON_MODULE}))");
    let numbers = ["Module(Signed(-1))", "Module(Unsigned(7))", "Module(Float(1.5))"];
    let rest = ["Module(Double(-2.5))", "Module str", "Module 12", "0 elements"];
    assert_eq!(value_of(&file), [&[id.as_str()], &numbers[..], &rest].concat());
    let found = digest(&file);
    assert_eq!(found.keys.0, k(6, NEVER, 0, h(&[&u(JSON_MODULE)])));
    assert_eq!((found.key_count, found.uncompared), (1, 1));
    assert_eq!(modules(&file), [("ReJSON-RL".to_owned(), 1)]);
}

/// The module `vectorset`, encoding version 0.
const VECTOR_SET: u64 = 0xbde7_2da2_bb1e_b400;

fn unsigned(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| [&[2][..], &length(*number)].concat()).collect()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&[5][..], &text(bytes)].concat()
}

/// A node with its parameters: number, level, layers, scale.
fn node(element: &[u8], attributes: Option<&[u8]>, vector: &[u8], parameters: &[u64]) -> Vec<u8> {
    let attributes = attributes.map(string).unwrap_or_default();
    let count = unsigned(&[parameters.len() as u64]);
    [string(element), attributes, string(vector), count, unsigned(parameters)].concat()
}

fn vector_set(head: &[u64], matrix: &[u8], nodes: &[Vec<u8>]) -> Vec<u8> {
    let module = length(VECTOR_SET);
    redis(&[&key(7, &[&module, &unsigned(head), matrix, &nodes.concat(), &[0]])])
}

const VERSION_1: u64 = 1 << 24;

#[test]
fn a_vector_set_is_compared_by_settings_and_nodes() {
    let of_node = |element: &[u8], attributes: &[u8], vector: &[u8], scale: u64| {
        let hashes = [element, attributes, vector].map(|text| h(&[text]).to_le_bytes());
        h(&[&hashes.concat(), &u(scale)])
    };
    let matrix = [unsigned(&[3]), string(b"matrix")].concat();
    let scale = 7 << 32 | 5;
    let one = |parameters: &[u64]| node(b"a", Some(b""), b"\x7f", parameters);
    let other = node(b"b", Some(b"{}"), b"\x01", &[2, VERSION_1, 0, 32, 9, scale]);
    // Dimension, nodes, 8 bits and M 16; a matrix and attributes.
    let head = [1, 2, 16 << 8 | 1, 3];
    let file =
        vector_set(&head, &matrix, &[one(&[1, VERSION_1, 1, 32, 2, 8, scale]), other.clone()]);
    let settings =
        h(&[&u(VECTOR_SET), &u(1), &u(1), &u(16), &u(3), &h(&[b"matrix"]).to_le_bytes()]);
    let nodes = [of_node(b"a", b"", b"\x7f", scale), of_node(b"b", b"{}", b"\x01", scale)];
    let expected = k(6, NEVER, 2, sum(nodes).wrapping_add(settings));
    assert_eq!((digest(&file).keys.0, digest(&file).uncompared), (expected, 0));
    // Another order, another place in the graph, no M, and no version: the digest is the same.
    let placed = one(&[9, VERSION_1 | 1, 2, 32, 2, 3, 4, 1, 16, 2, 8, scale]);
    let old = one(&[1, 0, 1, 32, 2, scale]);
    for (nodes, config) in [([other.clone(), placed], head[2]), ([old, other.clone()], 1)] {
        let file = vector_set(&[1, 2, config, 3], &matrix, &nodes);
        assert_eq!((digest(&file).keys.0, digest(&file).uncompared), (expected, 0));
    }
    // Another vector, attribute, element, scale or setting changes the digest.
    let plain = [1, VERSION_1, 0, 32, 9, scale];
    for (head, changed) in [
        (head, node(b"a", Some(b""), b"\x7e", &plain)),
        (head, node(b"a", Some(b"x"), b"\x7f", &plain)),
        (head, node(b"c", Some(b""), b"\x7f", &plain)),
        (head, one(&[1, VERSION_1, 0, 32, 9, scale + 1])),
        (head, one(&[1, VERSION_1, 0, 32, 9, scale + (1 << 32)])),
        ([2, 2, 16 << 8 | 1, 3], one(&plain)),
        ([1, 2, 16 << 8 | 2, 3], one(&plain)),
        ([1, 2, 17 << 8 | 1, 3], one(&plain)),
    ] {
        let found = digest(&vector_set(&head, &matrix, &[changed, other.clone()]));
        assert_eq!(found.uncompared, 0);
        assert_ne!(found.keys.0, expected);
    }
}

#[test]
fn the_range_of_a_node_counts_only_if_it_is_set() {
    let set = |quantization: u64, scale: u64| {
        let head = [1, 1, 16 << 8 | quantization, 0];
        digest(&vector_set(&head, &[], &[node(b"a", None, b"v", &[1, VERSION_1, 0, 32, 0, scale])]))
    };
    for (quantization, is_equal) in [(0, true), (1, false), (2, true)] {
        let (one, other) = (set(quantization, 5), set(quantization, 9 << 32 | 5));
        assert_eq!(one.keys == other.keys, is_equal, "{quantization}");
        assert_ne!(one.keys, set(quantization, 6).keys);
    }
}

#[test]
fn a_vector_set_with_an_unknown_layout_is_not_compared() {
    let whole = node(b"a", None, b"v", &[1, VERSION_1, 0, 32, 0, 5]);
    let head = [1, 1, 16 << 8, 0];
    assert_eq!(digest(&vector_set(&head, &[], std::slice::from_ref(&whole))).uncompared, 0);
    let expected = k(6, NEVER, 0, h(&[&u(VECTOR_SET)]));
    for nodes in [
        vec![],
        vec![whole.clone(), whole.clone()],
        vec![node(b"a", None, b"v", &[])],
        vec![node(b"a", None, b"v", &[1, VERSION_1, 5, 32, 0])],
        vec![node(b"a", None, b"v", &[1, VERSION_1, 0, 32, 0, 5, 6])],
        vec![node(b"a", None, b"v", &[1, VERSION_1, u64::MAX, 32, 0, 5])],
        vec![module_parts()[..module_parts().len() - 1].to_vec()],
    ] {
        let found = digest(&vector_set(&head, &[], &nodes));
        assert_eq!((found.keys.0, found.uncompared), (expected, 1), "{nodes:?}");
    }
}

#[test]
fn an_array_is_compared_by_indexed_values_and_insert_index() {
    let double = 1.5f64;
    let values = [
        &[0, 1][..],
        &i(-7),
        &[3, 0, 1, b'v', 4, 2],
        &double.to_le_bytes(),
        &[0x40, 200, 3, 2, b'w', b'x'],
    ];
    let array = |insert: &[u8]| redis(&[&key(28, &[&[4], insert, &values.concat()])]);
    let text = |text: &[u8], index: u64| h(&[text, &u(index), &[0]]);
    let values = sum([
        text(b"-7", 0),
        text(b"v", 3),
        h(&[&double.to_bits().to_le_bytes(), &u(4), &[1]]),
        text(b"wx", 200),
    ]);
    assert_eq!(digest(&array(&[0])).keys.0, k(7, NEVER, 4, values));
    let insert = values.wrapping_add(h(&[&u(5), &[2]]));
    assert_eq!(digest(&array(&[1, 5])).keys.0, k(7, NEVER, 4, insert));
    let lines = value_of(&array(&[1, 5]));
    assert_eq!(
        lines,
        [
            "ArrayInsert(5)",
            "ArrayIndex(0)",
            "ArrayValue -7",
            "ArrayIndex(3)",
            "ArrayValue v",
            "ArrayIndex(4)",
            "ArrayDouble(1.5)",
            "ArrayIndex(200)",
            "ArrayValue wx",
            "4 elements",
        ]
    );
    for wrong in [&[0, 0][..], &[1, 2], &[1, 0, 1, 9]] {
        let file = redis(&[&key(28, &[wrong])]);
        assert!(data_findings(&file, 1).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_rate_limiter_is_compared_by_its_time() {
    let expected = k(8, NEVER, 0, h(&[&u(300)]));
    for (header, byte) in [(b"REDIS0014", 29), (b"REDIS0015", 33)] {
        let file = framed(header, &[&key(byte, &[&length(300)])]);
        assert_eq!(digest(&file).keys.0, expected);
    }
}

#[test]
fn a_hash_by_template_equals_the_plain_hash() {
    let plain = [[text(b"f"), text(b"1")], [text(b"long"), text(b"two")]].concat().concat();
    let expected = digest(&redis(&[&key(4, &[&[2], &plain])]));
    // Opcode, number, fields.
    let template = [&[242, 7, 2][..], &text(b"f"), &text(b"long")].concat();
    let fields = [text(b"f"), text(b"long")].concat();
    let packed_fields = listpack(&[word(b"f"), word(b"long")]);
    let values = |number: u8| listpack(&[digit(number), digit(1), word(b"two")]);
    let counted = [text(b"1"), text(b"two")].concat();
    for records in [
        [&template[..], &key(30, &[&values(7)])].concat(),
        [&template[..], &key(32, &[&[7], &counted])].concat(),
        key(29, &[&[1, 2], &fields, &values(99)]),
        key(29, &[&[0], &packed_fields, &values(99)]),
        key(31, &[&[1, 2], &fields, &counted]),
        key(31, &[&[0], &packed_fields, &counted]),
    ] {
        let file = framed(b"REDIS0015", &[&records]);
        assert_eq!(digest(&file), expected, "{}", records.escape_ascii());
        let hash = digest(&framed(b"REDIS0015", &[&key(4, &[&[2], &plain])]));
        assert_eq!(hash, expected);
        for chunk in 1..4 {
            assert_eq!(data_findings(&file, chunk).unwrap().lines.len(), {
                data_findings(&file, file.len()).unwrap().lines.len()
            });
        }
    }
    for wrong in [
        [&template[..], &key(30, &[&values(8)])].concat(),
        [&template[..], &key(30, &[&listpack(&[digit(7), digit(1)])])].concat(),
        [&template[..], &template, &key(32, &[&[7], &counted])].concat(),
        [&[242, 7, 0][..], &key(32, &[&[7], &counted])].concat(),
        key(32, &[&[7], &counted]),
        key(31, &[&[2, 2], &fields, &counted]),
    ] {
        let error = data_findings(&framed(b"REDIS0015", &[&wrong]), 1).err().unwrap();
        assert!(matches!(error.kind, DecodeErrorKind::Unfit(_)), "{error}");
    }
}

fn modules(file: &[u8]) -> Vec<(String, u64)> {
    let (mut decoder, mut reporter) = (data::Decoder::default(), Reporter::new(0, 1));
    decoder.feed(file, &mut reporter).unwrap();
    reporter.finish().modules.into_iter().collect()
}

#[test]
fn a_module_value_of_the_first_version_cannot_be_decoded() {
    let file = redis(&[&key(6, &[&length(JSON_MODULE), b"\x05"])]);
    let error = data_findings(&file, 1).err().unwrap();
    assert!(matches!(error.kind, DecodeErrorKind::NotSelfDescribing(_)), "{error}");
}

#[test]
fn records_between_keys_do_not_change_the_digest() {
    let (record, module) = (&b"\0\x01k\x01v"[..], length(JSON_MODULE));
    let alone = digest(&redis(&[record])).keys;
    let aux = [&[247][..], &module, b"\x02\x01", &module_parts()].concat();
    let with_aux = redis(&[&aux, record]);
    assert_eq!(modules(&with_aux), [("ReJSON-RL".to_owned(), 0)]);
    let lines = data_findings(&with_aux, 1).unwrap().lines;
    assert_eq!(lines[1], format!("ModuleAux(ModuleId({JSON_MODULE}))"));
    assert_eq!((lines[2].as_str(), lines[7].as_str()), ("Module(Signed(-1))", "Module 12"));
    assert_eq!(lines[8], "ModuleAuxEnd");
    // A name and two ranges of slots; a slot, its keys and those that expire.
    let import = valkey(&[b"\xf3\x04name\x02\x01\x02\x43\xff\x43\xff", record]);
    let empty_import = valkey(&[b"\xf3\x04name\0", record]);
    let info = redis(&[b"\xf4\x01\x01\0", record]);
    for file in [&with_aux, &import, &empty_import, &info] {
        assert_eq!(digest(file).keys, alone);
        assert_eq!(data_findings(file, 1).unwrap().lines.pop().unwrap(), "End");
    }
    let sources = [&b"#!lua name=a\n"[..], b"#!lua name=b\n"];
    let [one, other] = sources.map(|source| [&[245], &text(source)[..]].concat());
    let with_functions = digest(&redis(&[&other, &one, record]));
    assert_eq!(with_functions.functions.0, sum(sources.map(|source| h(&[source]))));
    assert_eq!(with_functions.keys, alone);
}

fn id(ms: u64, seq: u64) -> [u8; 16] {
    (u128::from(ms) << 64 | u128::from(seq)).to_be_bytes()
}

/// Three entries, the second one deleted, and a group whose consumers have an entry and none.
pub(crate) fn stream() -> Vec<u8> {
    let mut node = [2, 1, 1].map(digit).to_vec();
    node.extend([word(b"field"), digit(0)]);
    // With the field of the master entry; deleted, with the same field; with its own field names.
    node.extend([digit(2), digit(0), digit(0), word(b"one"), digit(4)]);
    node.extend([digit(3), digit(0), digit(1), word(b"gone"), digit(4)]);
    node.extend([digit(0), digit(1), digit(2), digit(2)]);
    node.extend([word(b"a"), digit(7), word(b"bc"), word(b""), digit(8)]);
    let node = [&[1], &text(&id(10, 5))[..], &listpack(&node)].concat();
    // Length, last, first and largest deleted identifier, entries added; one group, its identifier
    // and its entries read; one pending entry, its delivery time, four deliveries.
    let tail = [&[2, 11, 7, 10, 5, 10, 6, 3][..], b"\x01\x01g", &[10, 5, 1, 1]].concat();
    let pending = [&id(10, 5)[..], &u(1234), &[4]].concat();
    let consumer = [b"\x03who", &u(1)[..], &u(2), &[1], &id(10, 5)].concat();
    let idle = [b"\x04idle", &u(1)[..], &u(2), &[0]].concat();
    redis(&[&key(21, &[&node, &tail, &pending, &[2], &consumer, &idle])])
}

/// The same stream in version 5 of the layout, with idempotent producers.
fn newest_stream() -> Vec<u8> {
    let file = stream();
    let (old, end) = (&file[12..file.len() - 9], &file[file.len() - 9..]);
    let producers =
        [&[0x80, 0, 0, 14, 16, 0x41, 0xF4, 1, 1, b'p', 1][..], b"\x01i\x0a\x05\x03\x01"];
    let newest = [old, &[0][..], &producers.concat()].concat();
    [b"REDIS0014\x1b\x01k", &newest[..], end].concat()
}

#[test]
fn idempotent_producers_do_not_change_the_digest() {
    let (old, newest) = (stream(), newest_stream());
    assert_eq!(digest(&newest).keys, digest(&old).keys);
    let lines = data_findings(&newest, 1).unwrap().lines;
    let found = |what: &str| lines.iter().any(|line| line.starts_with(what));
    for what in ["Unowned(0)", "Producers(", "Producer([112])", "ProducerEntry(", "ProducerTotals("]
    {
        assert!(found(&format!("Stream({what}")), "{what} in {lines:?}");
    }
    // A duration of 0 seconds, and of more than a day.
    let at = newest.len() - 9 - 17;
    assert_eq!(newest[at], 0x80);
    for wrong in [0, 86_401u32] {
        let mut file = newest.clone();
        file[at + 1..at + 5].copy_from_slice(&wrong.to_be_bytes());
        assert!(data_findings(&file, 1).is_err(), "{wrong}");
    }
}

#[test]
fn an_inconsistent_stream_that_every_server_refuses_is_damaged() {
    let empty_node = |id_bytes: [u8; 16]| {
        let node = [1, 0, 0].map(digit).to_vec();
        let entry = [2, 0, 0, 3].map(digit).to_vec();
        [text(&id_bytes), listpack(&[node, vec![digit(0)], entry].concat())].concat()
    };
    let (one, two) = (empty_node(id(1, 0)), empty_node(id(2, 0)));
    // Length, last, first and largest deleted identifier, entries added.
    let meta = |length: u8| [length, 2, 0, 1, 0, 0, 0, length];
    let group = |name: u8, pending: &[[u8; 16]]| {
        let entries = pending.iter().flat_map(|id| [&id[..], &u(5), &[1]].concat());
        [&[1, name, 2, 0, 1, pending.len() as u8][..], &entries.collect::<Vec<_>>()].concat()
    };
    let consumer = |name: u8, pending: &[[u8; 16]]| {
        [&[1, name][..], &u(1), &u(1), &[pending.len() as u8], &pending.concat()].concat()
    };
    let stream = |parts: &[&[u8]]| redis(&[&key(21, parts)]);
    let (a, b) = (id(1, 0), id(2, 0));
    let sound = stream(&[
        &[2],
        &one,
        &two,
        &meta(2),
        &[1],
        &group(b'g', &[a, b]),
        &[2],
        &consumer(b'x', &[a]),
        &consumer(b'y', &[b]),
    ]);
    assert!(data_findings(&sound, 1).is_ok(), "{:?}", data_findings(&sound, 1).err());
    let head: [&[u8]; 4] = [&[2], &one, &two, &meta(2)];
    let with = |rest: &[&[u8]]| stream(&[&head[..], rest].concat());
    for (file, what) in [
        (stream(&[&[2], &one, &one, &meta(2), &[0]]), "node twice"),
        (stream(&[&[3], &two, &one, &two, &meta(2), &[0]]), "node twice"),
        (stream(&[&[0], &meta(2), &[0]]), "without nodes"),
        (with(&[&[2], &group(b'g', &[]), &[0], &group(b'g', &[]), &[0]]), "a group twice"),
        (with(&[&[1], &group(b'g', &[a, a]), &[0]]), "pending entry twice"),
        (with(&[&[1], &group(b'g', &[b, a, b]), &[0]]), "pending entry twice"),
        (with(&[&[1], &group(b'g', &[a]), &[1], &consumer(b'x', &[b])]), "its group lacks"),
        (
            with(&[&[1], &group(b'g', &[a, b]), &[1], &consumer(b'x', &[a, a])]),
            "a consumer has a pending entry twice",
        ),
        (
            with(&[&[1], &group(b'g', &[]), &[2], &consumer(b'x', &[]), &consumer(b'x', &[])]),
            "a consumer twice",
        ),
    ] {
        for chunk in [1, file.len()] {
            let error = data_findings(&file, chunk).err().unwrap_or_else(|| panic!("{what}"));
            assert!(error.to_string().contains(what), "{error}: {what}");
        }
    }
    // The order of nodes and of pending entries has no effect.
    let unordered = stream(&[
        &[2],
        &two,
        &one,
        &meta(2),
        &[1],
        &group(b'g', &[b, a]),
        &[1],
        &consumer(b'x', &[a, b]),
    ]);
    assert!(data_findings(&unordered, 1).is_ok());
}

#[test]
fn a_zipmap_with_a_long_length_of_a_short_entry_is_refused() {
    let zipmap =
        |field: &[u8]| redis(&[&key(9, &[&text(&[b"\x01", field, b"\x01\0v\xff"].concat())])]);
    assert!(data_findings(&zipmap(b"\x01f"), 1).is_ok());
    assert!(data_findings(&zipmap(b"\xfe\x01\0\0\0f"), 1).is_err());
    let long = [b"\xfe\xfe\0\0\0", &[b'f'; 254][..]].concat();
    assert!(data_findings(&zipmap(&long), 1).is_ok());
}

#[test]
fn a_stream_is_compared_by_live_and_pending_entries() {
    let file = stream();
    let pair = |field: &[u8], value: &[u8]| {
        [field, value, &u(field.len() as u64), &u(value.len() as u64)].concat()
    };
    let first = h(&[&pair(b"field", b"one"), &u(1), &u(10), &u(5), &[0]]);
    let third = [pair(b"a", b"7"), pair(b"bc", b"")].concat();
    let third = h(&[&third, &u(2), &u(11), &u(7), &[0]]);
    let last = h(&[&u(11), &u(7), &[1]]);
    let group = h(&[b"g", &u(10), &u(5), &[2]]);
    let pending = h(&[&group.to_le_bytes(), &u(10), &u(5), &u(4), &[3]]);
    let consumer = h(&[&group.to_le_bytes(), b"who", &[4]]);
    let claimed = h(&[&consumer.to_le_bytes(), &u(10), &u(5), &[5]]);
    let value = sum([first, third, last, group, pending, claimed]);
    assert_eq!(digest(&file).keys.0, k(5, NEVER, 2, value));
    let texts: Vec<_> =
        value_of(&file).into_iter().filter(|line| line.starts_with("Field")).collect();
    let expected =
        ["Field field", "FieldValue one", "Field a", "FieldValue 7", "Field bc", "FieldValue "];
    assert_eq!(texts, expected);
}
