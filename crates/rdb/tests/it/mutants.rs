//! Randomly changed files with a valid checksum: a file that a server refuses must not pass, except
//! for the kinds in ADR 0006.
//!
//! `fuzz/mutants` runs many mutants; the test here runs a few, always the same.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use cachevault_rdb::inspect::{Content, Inspector};
use cachevault_rdb::raw::Key;
use cachevault_rdb::structure::{Piece, Shape};
use cachevault_rdb::{Kind, Role, data};
use cachevault_testkit::{Engine, installed_engine};
use crc_fast::{CrcAlgorithm, checksum};

use crate::support::samples;

/// The environment variables for the number of mutants and the first seed.
const COUNT_VARIABLE: &str = "CACHEVAULT_MUTANTS";
const SEED_VARIABLE: &str = "CACHEVAULT_MUTANTS_SEED";
const COUNT: u64 = 400;
/// Larger samples cost time and add no coverage.
const SAMPLE_BYTES_MAX: usize = 24 << 10;
const CHECKSUM_BYTES: usize = 8;

/// The kinds of files that a server refuses and this crate accepts, as listed in ADR 0006.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Listed {
    /// A key, field or member occurs twice.
    Twice,
    /// A list, set, sorted set or hash is empty: servers skip it on loading, and only their checker
    /// refuses it.
    Empty,
    /// An encoding that the server of the checker does not support: the report contains the
    /// required version.
    Newer,
}

/// Finds duplicates and empty values.
#[derive(Default)]
struct Names {
    has_empty: bool,
    least_version: u16,
    keys: HashSet<(u64, Vec<u8>)>,
    names: HashSet<Vec<u8>>,
    text: Vec<u8>,
    is_hash: bool,
    has_twice: bool,
}

impl data::Visitor for Names {
    fn key(&mut self, key: &Key<'_>) {
        self.has_twice |= !self.keys.insert((key.db, key.name.to_vec()));
        self.names.clear();
        self.is_hash = key.value_type.kind() == Kind::Hash;
        let least = key.value_type.least_redis_version().unwrap_or(u16::MAX);
        self.least_version = self.least_version.max(least);
    }

    fn text(&mut self, piece: Piece<'_>) {
        if piece.is_first {
            self.text.clear();
        }
        self.text.extend_from_slice(piece.bytes);
        let is_name = piece.role == Role::Member || piece.role == Role::Field && self.is_hash;
        if is_name && piece.is_last {
            self.has_twice |= !self.names.insert(self.text.clone());
        }
    }

    fn key_end(&mut self, shape: &Shape) {
        let kind = shape.value_type.kind();
        let is_collection = matches!(kind, Kind::List | Kind::Set | Kind::SortedSet | Kind::Hash);
        self.has_empty |= is_collection && shape.elements == 0;
    }
}

fn listed(file: &[u8], newest: u16) -> Option<Listed> {
    let mut names = Names::default();
    data::Decoder::default().feed(file, &mut names).unwrap();
    match names {
        Names { has_twice: true, .. } => Some(Listed::Twice),
        Names { has_empty: true, .. } => Some(Listed::Empty),
        Names { least_version, .. } if least_version > newest => Some(Listed::Newer),
        _ => None,
    }
}

/// Random numbers; the same seed yields the same numbers.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Changes a file at one to three positions and corrects its checksum.
fn mutant(sample: &[u8], dice: &mut Dice) -> Vec<u8> {
    const INTERESTING: [u8; 12] = [0, 1, 2, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xfe, 0xff];
    let mut file = sample[..sample.len() - CHECKSUM_BYTES].to_vec();
    for _ in 0..=dice.below(3) {
        let at = 9 + dice.below(file.len() - 10);
        match dice.below(8) {
            0 => file[at] ^= 1 << dice.below(8),
            1 => file[at] = dice.next() as u8,
            2 => file[at] = INTERESTING[dice.below(INTERESTING.len())],
            3 => file[at] = file[at].wrapping_add(1),
            4 => file[at] = file[at].wrapping_sub(1),
            5 => drop(file.remove(at)),
            6 => {
                let len = (1 + dice.below(24)).min(file.len() - 1 - at);
                let part = file[at..at + len].to_vec();
                file.splice(at..at, part);
            }
            _ => {
                let len = (1 + dice.below(16)).min(file.len() - 1 - at);
                let from = 9 + dice.below(file.len() - 9 - len);
                file.copy_within(from..from + len, at);
            }
        }
    }
    let has_checksum = !sample.ends_with(&[0; CHECKSUM_BYTES]);
    let crc = if has_checksum { checksum(CrcAlgorithm::Crc64Redis, &file) } else { 0 };
    file.extend_from_slice(&crc.to_le_bytes());
    file
}

fn is_verified(file: &[u8]) -> bool {
    let mut inspector = Inspector::new(0, 1);
    let fed = inspector.feed(file).is_ok();
    fed && inspector.finish().is_ok_and(|found| matches!(found.content, Content::Verified { .. }))
}

/// The error of this server's `redis-check-rdb`, if it refuses the file.
fn refusal(engine: &Engine, file: &Path) -> Option<String> {
    let checked = Command::new(&engine.binary).arg0("redis-check-rdb").arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    if checked.status.success() && said.contains("RDB looks OK") {
        return None;
    }
    let reason = said.lines().find(|line| line.contains("ERROR") || line.contains("error"));
    let detail = said.lines().skip_while(|line| !line.contains("ERROR")).nth(1);
    Some(format!("{} {}", reason.unwrap_or("the checker crashed"), detail.unwrap_or_default()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the caller of the tests chooses the number of \
                                               mutants"
)]
fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn a_mutant_that_a_server_refuses_does_not_pass() {
    let engine = installed_engine("redis-8.6").or_else(|| installed_engine("redis-8.2")).unwrap();
    let newest = if engine.name == "redis-8.6" { 13 } else { 12 };
    let headers = b"REDIS0005".to_vec()..=format!("REDIS{newest:04}").into_bytes();
    let files: Vec<_> = samples().iter().map(|path| fs::read(path).unwrap()).collect();
    let files: Vec<_> = files
        .into_iter()
        .filter(|file| file.len() <= SAMPLE_BYTES_MAX && file.len() > 100)
        .filter(|file| headers.contains(&file[..9].to_vec()))
        .collect();
    assert!(files.len() > 40, "{} files", files.len());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.rdb");
    let first = number(SEED_VARIABLE, 1);
    let (mut sound, mut unlisted, mut known) = (0, Vec::new(), BTreeMap::<_, u64>::new());
    for seed in first..first + number(COUNT_VARIABLE, COUNT) {
        let mut dice = Dice(seed);
        dice.next();
        let file = mutant(&files[dice.below(files.len())], &mut dice);
        if !is_verified(&file) {
            continue;
        }
        sound += 1;
        fs::write(&path, &file).unwrap();
        let Some(reason) = refusal(&engine, &path) else { continue };
        match listed(&file, newest) {
            Some(kind) => *known.entry(kind).or_default() += 1,
            None => unlisted.push(format!("seed {seed}: {reason}")),
        }
    }
    println!("{sound} mutants pass; the server refuses {known:?} of them");
    assert!(sound > 20, "only {sound} mutants pass");
    assert!(unlisted.is_empty(), "{}", unlisted.join("\n"));
}
