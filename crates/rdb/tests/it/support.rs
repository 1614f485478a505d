//! Sample files, and decoders with comparable findings.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use cachevault_rdb::data;
use cachevault_rdb::digest::{Digest, Digester};
use cachevault_rdb::raw::{self, Key, Part, Record, Text};
use cachevault_rdb::structure::{self, Item, Piece, Shape};
use cachevault_rdb::{DecodeError, DecodeErrorKind, Envelope, Role};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/rdb")
}

/// The sample files with a listing of their keys.
pub(crate) fn samples() -> Vec<PathBuf> {
    let folders = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|folder| folder.is_dir()).flat_map(|folder| {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    });
    let is_listed = |file: &PathBuf| file.with_extension("keys").exists();
    let mut samples: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|e| e == "rdb") && is_listed(file))
        .collect();
    samples.sort();
    assert!(samples.len() > 120, "only {} sample files", samples.len());
    samples
}

/// The findings of a level, one per line; pieces of a string are joined.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) lines: Vec<String>,
    open: Option<(String, Vec<u8>)>,
    stored: Vec<u8>,
}

impl Findings {
    fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    fn key_line(&mut self, key: &Key<'_>) {
        self.line(format!("{key:?}"));
    }

    fn piece(&mut self, what: String, piece: &[u8], is_first: bool, is_last: bool) {
        if is_first {
            assert!(self.open.is_none(), "a string begins inside another");
            self.open = Some((what, Vec::new()));
        }
        let (_, bytes) = self.open.as_mut().expect("a piece of a string has no beginning");
        bytes.extend_from_slice(piece);
        if is_last {
            let (what, bytes) = self.open.take().unwrap();
            self.line(format!("{what} {}", bytes.escape_ascii()));
        }
    }
}

impl raw::Visitor for Findings {
    fn record(&mut self, record: Record<'_>) {
        self.line(format!("{record:?}"));
    }
    fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
        self.key_line(key);
        Ok(())
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.stored.extend_from_slice(bytes);
    }
    fn text(&mut self, text: Text<'_>) -> Result<(), DecodeErrorKind> {
        let Text { role, form, stored, is_first, is_last, .. } = text;
        self.piece(format!("{role:?} {form:?}"), stored, is_first, is_last);
        Ok(())
    }
    fn score(&mut self, score: f64) -> Result<(), DecodeErrorKind> {
        self.line(format!("score {score}"));
        Ok(())
    }
    fn part(&mut self, part: Part<'_>) -> Result<(), DecodeErrorKind> {
        self.line(format!("{part:?}"));
        Ok(())
    }
    fn key_end(&mut self) -> Result<(), DecodeErrorKind> {
        let stored = std::mem::take(&mut self.stored);
        self.line(format!("stored {}", stored.escape_ascii()));
        Ok(())
    }
}

impl structure::Visitor for Findings {
    fn record(&mut self, record: Record<'_>) {
        self.line(format!("{record:?}"));
    }
    fn key(&mut self, key: &Key<'_>) {
        self.key_line(key);
    }
    fn text(&mut self, piece: Piece<'_>) {
        self.piece(format!("{:?}", piece.role), piece.bytes, piece.is_first, piece.is_last);
    }
    fn integer(&mut self, role: Role, number: i64) {
        self.line(format!("{role:?} {number}"));
    }
    fn score(&mut self, score: f64) {
        self.line(format!("score {score}"));
    }
    fn item(&mut self, item: Item<'_>) {
        self.line(format!("{item:?}"));
    }
    fn key_end(&mut self, shape: &Shape) {
        self.line(format!("{shape:?}"));
    }
}

impl data::Visitor for Findings {
    fn record(&mut self, record: Record<'_>) {
        self.line(format!("{record:?}"));
    }
    fn key(&mut self, key: &Key<'_>) {
        self.key_line(key);
    }
    fn text(&mut self, piece: Piece<'_>) {
        self.piece(format!("{:?}", piece.role), piece.bytes, piece.is_first, piece.is_last);
    }
    fn score(&mut self, score: f64) {
        self.line(format!("score {score}"));
    }
    fn item(&mut self, item: Item<'_>) {
        self.line(format!("{item:?}"));
    }
    fn key_end(&mut self, shape: &Shape) {
        self.line(format!("{} elements", shape.elements));
    }
}

/// The structure level as used by the checker, without items.
#[derive(Default)]
pub(crate) struct Shapes(pub(crate) Vec<String>);

impl structure::Visitor for Shapes {
    const WANTS_TEXTS: bool = false;
    fn key_end(&mut self, shape: &Shape) {
        self.0.push(format!("{shape:?}"));
    }
}

macro_rules! level {
    ($name:ident, $decoder:ty, $visitor:ty) => {
        pub(crate) fn $name(file: &[u8], chunk: usize) -> Result<$visitor, DecodeError> {
            let (mut decoder, mut visitor) = (<$decoder>::default(), <$visitor>::default());
            for piece in file.chunks(chunk.max(1)) {
                decoder.feed(piece, &mut visitor)?;
            }
            decoder.finish()?;
            Ok(visitor)
        }
    };
}

level!(raw_findings, raw::Decoder, Findings);
level!(structure_findings, structure::Decoder, Findings);
level!(shapes, structure::Decoder, Shapes);
level!(data_findings, data::Decoder, Findings);
level!(digester, data::Decoder, Digester);

pub(crate) fn digest(file: &[u8]) -> Digest {
    digester(file, file.len()).unwrap().finish()
}

/// Whether frame, checksum, and structure are valid.
pub(crate) fn is_sound(file: &[u8], chunk: usize) -> bool {
    let mut envelope = Envelope::new();
    let framed = file.chunks(chunk.max(1)).all(|piece| envelope.feed(piece).is_ok());
    framed && envelope.finish().is_ok() && shapes(file, chunk).is_ok()
}

/// A key in a listing: database, name, kind, expiry, and encoding.
pub(crate) type Row = (u64, Vec<u8>, String, bool, String);

/// The listing of a sample.
pub(crate) fn listing(sample: &Path) -> Vec<Row> {
    let text = fs::read_to_string(sample.with_extension("keys")).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    let mut listing: Vec<_> = rows.map(row).collect();
    listing.sort();
    listing
}

/// The server's `DEBUG DIGEST-VALUE` of each key, by database and name.
pub(crate) fn server_digests(sample: &Path) -> BTreeMap<(u64, Vec<u8>), String> {
    let text = fs::read_to_string(sample.with_extension("keys")).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let (db, name, ..) = row(line);
        ((db, name), line.rsplit('\t').next().unwrap().to_owned())
    })
    .collect()
}

fn row(line: &str) -> Row {
    // Old listings are Python tuples.
    let is_tuple = line.starts_with('(');
    let line = line.trim_matches(['(', ')']);
    let cells: Vec<_> =
        line.split(if is_tuple { ", " } else { "\t" }).map(|cell| cell.trim()).collect();
    let plain = |cell: &str| cell.trim_matches('\'').to_owned();
    let (db, name) = (cells[0].parse().unwrap(), python_bytes(cells[1]));
    (db, name, plain(cells[2]), plain(cells[4]) != "-", plain(cells[3]))
}

/// Parses the `repr` of bytes in Python.
fn python_bytes(repr: &str) -> Vec<u8> {
    let inner = repr.strip_prefix('b').unwrap();
    let inner = &inner.as_bytes()[1..inner.len() - 1];
    let (mut bytes, mut at) = (Vec::new(), 0);
    while at < inner.len() {
        if inner[at] != b'\\' {
            bytes.push(inner[at]);
            at += 1;
            continue;
        }
        at += 2;
        bytes.push(match inner[at - 1] {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                at += 2;
                u8::from_str_radix(std::str::from_utf8(&inner[at - 2..at]).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    bytes
}

/// The first difference of two lists of findings, in printable form.
pub(crate) fn first_difference(left: &[String], right: &[String]) -> String {
    let mut text = String::new();
    let at = left.iter().zip(right).position(|(l, r)| l != r);
    let at = at.unwrap_or(left.len().min(right.len()));
    let short =
        |lines: &[String]| lines.get(at).map(|line| line.chars().take(300).collect::<String>());
    write!(text, "finding {at}: {:?} and {:?}", short(left), short(right)).unwrap();
    text
}
