//! A fingerprint of a data set that depends on its logical data only: not on the order of keys, not
//! on encodings, not on the server that saved it.
//!
//! # Definition, version 2
//!
//! `H(…)` is XXH3-128 with seed 0 over the concatenation of its arguments, as a number: its upper
//! 64 bits times 2^64 plus its lower 64, the canonical representation read as big-endian. `H()`
//! without arguments is 99aa06d3014798d86001c324468d497f. Hashed numbers are little-endian; `u128`,
//! `u64`, `i64` and `u8` are their widths. Sums are modulo 2^128. Strings have the form in which a
//! client reads them: uncompressed, and in decimal notation if they are stored as numbers. A
//! fingerprint is displayed as 32 hexadecimal digits, the highest first.
//!
//! Every key has a fingerprint
//!
//! ```text
//! K = H(u8 kind, u64 database, i64 expiry, u64 elements, u128 V, name)
//! ```
//!
//! with *kind* 0 string, 1 list, 2 set, 3 sorted set, 4 hash, 5 stream, 6 module value, 7 array, 8
//! rate limiter; *expiry* in milliseconds since 1970 (opcode 252; of opcode 253, whose unit is the
//! second, times 1000), or -2^63 for a key without expiry; *elements* the number of list elements,
//! members, fields (in a path hash those of all paths), values of an array, live entries, or nodes
//! of a vector set, 1 for a string, and 0 for a rate limiter and another module's value; and `V` by
//! the kind:
//!
//! | kind | V |
//! |---|---|
//! | string | `H(value)` |
//! | list | sum over elements of `H(element, u64 index)`, the first index being 0 |
//! | set | sum over members of `H(member)` |
//! | sorted set | sum over members of `H(member, u64 score)`, the score's IEEE 754 bits, minus zero as zero |
//! | hash | sum over fields of `H(field, value, u64 length of field, i64 expiry)`, -2^63 for a field without expiry |
//! | stream | see below |
//! | array | sum over values of `H(value, u64 index, u8 0)`, or `H(u64 double, u64 index, u8 1)` of the IEEE 754 bits of a value that is stored as a double; and `H(u64 index, u8 2)` of the next insert index, if there is one |
//! | rate limiter | `H(u64 time)` |
//! | vector set | see below |
//! | another module's value | `H(u64 module)`, the identifier as stored |
//!
//! A module's bytes are not canonical: a server that loads a vector set writes its nodes in another
//! order the next time. The value of a module is therefore counted, and compared by key, identifier
//! and expiry only. [`Digest::uncompared`] counts such keys, and keys with module metadata (opcode
//! 243). Vector sets (module `vectorset`, encoding version 0) are an exception: their `V` is `H(u64
//! module, u64 dimension, u64 quantization, u64 M, u64 input dimension, u128 H(matrix))`, with 16
//! for an M of 0 and zeros for a missing projection matrix, plus, for each node,
//!
//! ```text
//! H(u128 H(element), u128 H(attributes), u128 H(vector), u64 scale)
//! ```
//!
//! with empty *attributes* for a node without attributes, and with the last parameter of the node
//! as *scale*, 0 if it is missing: the norm of its vector in the lower 32 bits, and in the upper 32
//! bits the range of its numbers, which counts for quantization 1 (8 bits) and is 0 otherwise. A
//! node's number, levels and links are an index that each server draws at random; they are
//! excluded. A value that does not fit this layout is another module's value.
//!
//! A stream's `V` is the sum of
//!
//! - for each entry that is not deleted `H(pairs, u64 pairs' number, u64 ms, u64 seq, u8 0)`, with
//!   pairs of field, value, `u64` length of field, `u64` length of value;
//! - `H(u64 ms, u64 seq, u8 1)` of the last generated identifier;
//! - for each group `G = H(name, u64 ms, u64 seq, u8 2)` of the last delivered identifier, for each
//!   of its pending entries `H(u128 G, u64 ms, u64 seq, u64 deliveries, u8 3)`, and for each
//!   pending entry of a consumer `H(u128 C, u64 ms, u64 seq, u8 5)`, where `C = H(u128 G, name, u8
//!   4)` is not itself added: Redis 5 has no consumers without entries.
//!
//! Excluded are data that only newer servers keep (entries added and read, the first and the
//! largest deleted identifier, settings, entries and counters of idempotent producers), clock data
//! (delivery and activity times), and LRU and LFU counters. A hash by template equals the plain
//! hash of its fields and values. A field of a path hash of Valkey 9.2 counts as `H(u128 H(path),
//! field, value, u64 length of field, i64 -2^63, u8 255)`: the record of a plain field cannot end
//! with these bytes, because no expiry does.
//!
//! The digest of a set of keys is the sum of their `K`; the digests of the databases, of the kinds
//! and of the slots each add up to the digest of the whole. A key's slot is that of a cluster,
//! CRC-16/XMODEM of the name or of its hash tag, modulo 16,384 ([`slot_of`]), also for a server
//! without cluster mode, and independent of the database. Function libraries have their own digest,
//! the sum of `H(source)`. Module data outside of keys is excluded.
//!
//! A collection without elements counts as a key here, although a server drops it on loading.
//!
//! # Examples
//!
//! ```
//! use cachevault_rdb::data::Decoder;
//! use cachevault_rdb::digest::Digester;
//!
//! let digest = |file: &[u8]| {
//!     let mut digester = Digester::default();
//!     Decoder::default().feed(file, &mut digester)?;
//!     Ok::<_, cachevault_rdb::DecodeError>(digester.finish().keys.to_string())
//! };
//! // The string `v` under the key `k` in database 0, and in database 1 with an expiry.
//! assert_eq!(digest(b"REDIS0009\x00\x01k\x01v\xff")?, "a9fbd786b333d5f4118533941cd25708");
//! assert_eq!(digest(b"REDIS0009\xfe\x01\xfc\x01\0\0\0\0\0\0\0\x00\x01k\x01v\xff")?, "238f321010564cfce9790570c9f78b11");
//! // A list of `a` and 12, a set, a hash and a sorted set.
//! assert_eq!(digest(b"REDIS0009\x01\x01k\x02\x01a\xc0\x0c\xff")?, "baac56dcfc4eaeb05366a5e86c42609e");
//! assert_eq!(digest(b"REDIS0009\x02\x01k\x02\x01a\xc0\x0c\xff")?, "9000e93d3488a79087a4610c3c9a219a");
//! assert_eq!(digest(b"REDIS0009\x04\x01k\x01\x01a\xc0\x0c\xff")?, "50710ee284ea52c72992aef8e9ffc09f");
//! assert_eq!(digest(b"REDIS0009\x03\x01k\x01\x01a\x031.5\xff")?, "76dd10caccc77f61dc1527bce6aedea5");
//! // A hash of three fields; the first expires at 4000000000000 ms, the third 1 ms later.
//! assert_eq!(
//!     digest(b"REDIS0012\x18\x01k\0@\x94R\xa3\x03\0\0\x03\x01\x01a\x011\0\x01b\x012\x02\x01c\x013\xff")?,
//!     "0b01569720f197caab5a45ef7b15c0c8"
//! );
//! // A path hash: under `p` the fields `f` and `g`, under `p2` the field `f`.
//! assert_eq!(
//!     digest(b"VALKEY081\x17\x01k\x02\x01p\x02\x01f\x01v\x01g\xc0\x07\x02p2\x01\x01f\0\xff")?,
//!     "40d8d3f9e5a71fe1ae52789fd2edf7db"
//! );
//! // A value of the module `ReJSON-RL`, whatever its parts are.
//! let module = b"REDIS0012\x07\x01k\x81E\xe2R8\xdf\x91,\x03\x01\x81\xff\xff\xff\xff\xff\xff\xff\xff\
//!     \x02\x07\x03\0\0\xc0?\x04\0\0\0\0\0\0\x04\xc0\x05\x03str\x05\xc0\x0c\0\xff";
//! assert_eq!(digest(module)?, "58814411701e8f3cbe99d03cb539d5ac");
//! // A vector set of two nodes of one dimension in 8 bits, the second with attributes; and the same in
//! // another order, with another number, level and link.
//! let head = b"REDIS0012\x07\x01k\x81\xbd\xe7-\xa2\xbb\x1e\xb4\0\x02\x01\x02\x02\x02P\x01\x02\x02";
//! let one = b"\x05\x01a\x05\0\x05\x01\x7f\x02\x06\x02\x01\x02\x80\x01\0\0\0\x02\0\x02\x10\x02\0\x02\x05";
//! let other = b"\x05\x01b\x05\x01x\x05\x01\x07\x02\x06\x02\x02\x02\x80\x01\0\0\0\x02\0\x02\x10\x02\0\x02\x06";
//! let linked = b"\x05\x01a\x05\0\x05\x01\x7f\x02\x07\x02\x09\x02\x80\x01\0\0\0\x02\x01\x02\x10\x02\x02\x02\0\x02\x05";
//! let end = b"\0\xff";
//! assert_eq!(digest(&[&head[..], one, other, end].concat())?, "51e3a0fa17e62072cb6187102c444fa4");
//! assert_eq!(digest(&[&head[..], other, linked, end].concat())?, "51e3a0fa17e62072cb6187102c444fa4");
//! // An array: 7 at index 0, `v` at index 3, 1.5 at index 4, and a place to insert next, 5.
//! assert_eq!(
//!     digest(b"REDIS0014\x1c\x01k\x03\x01\x05\0\x01\x07\0\0\0\0\0\0\0\x03\0\x01v\x04\x02\0\0\0\0\0\0\xf8?\xff")?,
//!     "b3e92bb01f29fe4b039227cdeccb23ba"
//! );
//! // A rate limiter.
//! assert_eq!(digest(b"REDIS0015\x21\x01k\x07\xff")?, "9ce364fa1638071d6ac7905200cc02d9");
//! // A stream of three entries, one of them deleted, and a group with a pending entry.
//! let stream = b"REDIS0012\x15\x01k\x01\x10\0\0\0\0\0\0\0\n\0\0\0\0\0\0\0\x05@FF\0\0\0\x18\0\
//!     \x02\x01\x01\x01\x01\x01\x85field\x06\0\x01\x02\x01\0\x01\0\x01\x83one\x04\x04\x01\
//!     \x03\x01\0\x01\x01\x01\x84gone\x05\x04\x01\0\x01\x01\x01\x02\x01\x02\x01\x81a\x02\x07\x01\
//!     \x82bc\x03\x80\x01\x08\x01\xff\x02\x0b\x07\n\x05\n\x06\x03\x01\x01g\n\x05\x01\x01\
//!     \0\0\0\0\0\0\0\n\0\0\0\0\0\0\0\x05\xd2\x04\0\0\0\0\0\0\x04\x02\
//!     \x03who\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\n\0\0\0\0\0\0\0\x05\
//!     \x04idle\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\xff";
//! assert_eq!(digest(stream)?, "cf2c399abb145c2e7a82b9b961a3f06e");
//! # Ok::<(), cachevault_rdb::DecodeError>(())
//! ```
//!
//! The digest shows damage, loss and drift. It is no signature: an attacker who controls the data
//! can create two data sets with the same digest.

mod gather;
mod module;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use twox_hash::XxHash3_128;

use crate::data::Visitor;
use crate::opcode::Kind;
use crate::raw::{Key, Record};
use crate::slot::{SLOTS, slot_of};
use crate::structure::{Item, Piece, Shape};
use value::ValueHash;

/// The version of the definition above. Digests of different versions cannot be compared.
pub const DIGEST_VERSION: u32 = 2;

/// Maximum number of databases with their own digest; keys of other databases count for the whole
/// only.
const DATABASES_MAX: usize = 1 << 14;

/// A fingerprint of 128 bits. `Display` gives 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint(pub u128);

/// The fingerprint of a set is the sum of its members' fingerprints, modulo 2^128.
impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The digest of a data set and of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The digest of all keys.
    pub keys: Fingerprint,
    /// Number of keys.
    pub key_count: u64,
    /// Keys with module data that the digest does not cover: values of modules other than vector
    /// sets, and module metadata of keys.
    pub uncompared: u64,
    /// The digest of all function libraries.
    pub functions: Fingerprint,
    /// The digest of each database with keys, the first 16,384 of them.
    pub databases: BTreeMap<u64, Fingerprint>,
    /// The digest of each kind, in the order of [`Kind::ALL`].
    pub kinds: [Fingerprint; Kind::ALL.len()],
    /// The digest of each cluster slot.
    slots: Box<[Fingerprint]>,
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            keys: Fingerprint::default(),
            key_count: 0,
            uncompared: 0,
            functions: Fingerprint::default(),
            databases: BTreeMap::new(),
            kinds: [Fingerprint::default(); Kind::ALL.len()],
            slots: vec![Fingerprint::default(); usize::from(SLOTS)].into_boxed_slice(),
        }
    }
}

impl Digest {
    /// The digest of a cluster slot; `None` from 16,384 on.
    pub fn slot(&self, slot: u16) -> Option<Fingerprint> {
        self.slots.get(usize::from(slot)).copied()
    }

    /// The slots with keys, and their digests.
    pub fn slots(&self) -> impl Iterator<Item = (u16, Fingerprint)> {
        let numbered = (0..SLOTS).zip(self.slots.iter().copied());
        numbered.filter(|(_, fingerprint)| *fingerprint != Fingerprint::default())
    }

    fn add(&mut self, key: &KeyFingerprint<'_>) {
        self.keys += key.fingerprint;
        self.key_count += 1;
        self.uncompared += u64::from(!key.is_compared);
        self.kinds[key.kind as usize] += key.fingerprint;
        self.slots[usize::from(slot_of(key.name))] += key.fingerprint;
    }

    fn add_database(&mut self, db: u64, fingerprint: Fingerprint) {
        let has_room = self.databases.len() < DATABASES_MAX;
        if has_room || self.databases.contains_key(&db) {
            *self.databases.entry(db).or_default() += fingerprint;
        }
    }
}

/// Computes the [`Digest`] of a stream.
pub type Digester = Fingerprinter<Summing>;

impl Digester {
    /// Returns the digest of the keys so far.
    pub fn finish(mut self) -> Digest {
        self.keys.database_end();
        self.keys.digest
    }
}

/// Sums the fingerprints of keys up to a [`Digest`].
#[derive(Debug, Default)]
pub struct Summing {
    digest: Digest,
    /// The current database, and the sum of its keys so far.
    database: Option<(u64, Fingerprint)>,
}

impl Summing {
    fn database_end(&mut self) {
        if let Some((db, fingerprint)) = self.database.take() {
            self.digest.add_database(db, fingerprint);
        }
    }
}

impl KeyVisitor for Summing {
    #[inline]
    fn key(&mut self, key: &KeyFingerprint<'_>) {
        self.digest.add(key);
        match &mut self.database {
            Some((current, sum)) if *current == key.db => *sum += key.fingerprint,
            _ => {
                self.database_end();
                self.database = Some((key.db, key.fingerprint));
            }
        }
    }

    fn function(&mut self, fingerprint: Fingerprint) {
        self.digest.functions += fingerprint;
    }
}

/// A key's fingerprint, by which two data sets can be compared key by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFingerprint<'a> {
    /// Number of its database.
    pub db: u64,
    /// Its name.
    pub name: &'a [u8],
    /// The kind of its value.
    pub kind: Kind,
    /// The fingerprint of name, value and expiry.
    pub fingerprint: Fingerprint,
    /// Whether the fingerprint covers the complete value: of a module's value, other than a vector
    /// set, it covers the type only.
    pub is_compared: bool,
    /// Whether the key is a list, set, sorted set or hash without elements, or all its fields were
    /// excluded. Servers since Redis 7.0 skip such keys on loading.
    pub is_empty: bool,
}

/// Receives the fingerprints of a [`Fingerprinter`].
pub trait KeyVisitor {
    /// Whether to compute the fingerprint of this key.
    fn wants(&mut self, _key: &Key<'_>) -> bool {
        true
    }
    /// A selected key, after its value.
    fn key(&mut self, key: &KeyFingerprint<'_>);
    /// A library of functions.
    fn function(&mut self, _fingerprint: Fingerprint) {}
}

/// Computes the fingerprint of each key, by which two data sets can be compared key by key.
#[derive(Debug, Default)]
pub struct Fingerprinter<K> {
    /// Receives the fingerprints.
    pub keys: K,
    value: ValueHash,
}

impl<K> Fingerprinter<K> {
    /// Creates a fingerprinter that passes its fingerprints to `keys`.
    pub fn new(keys: K) -> Self {
        Self { keys, value: ValueHash::default() }
    }

    /// Like [`new`](Self::new), but excludes fields of hashes that expire up to a moment,
    /// milliseconds since 1970.
    pub fn lasting_beyond(keys: K, beyond_ms: Option<i64>) -> Self {
        Self { keys, value: ValueHash::lasting_beyond(beyond_ms) }
    }
}

impl<K: KeyVisitor> Visitor for Fingerprinter<K> {
    fn record(&mut self, record: Record<'_>) {
        self.value.kind = None;
        if let Record::Function(source) = record {
            self.keys.function(Fingerprint(XxHash3_128::oneshot(source)));
        }
    }

    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        if self.keys.wants(key) {
            self.value.begin(key);
        } else {
            self.value.kind = None;
        }
    }

    #[inline]
    fn text(&mut self, piece: Piece<'_>) {
        if let Some(kind) = self.value.kind {
            self.value.text(kind, piece);
        }
    }

    #[inline]
    fn score(&mut self, score: f64) {
        if self.value.kind.is_some() {
            self.value.score(score);
        }
    }

    #[inline]
    fn item(&mut self, item: Item<'_>) {
        if self.value.kind.is_some() {
            self.value.item(item);
        }
    }

    #[inline]
    fn key_end(&mut self, _shape: &Shape) {
        if let Some(kind) = self.value.kind {
            self.keys.key(&self.value.end(kind));
        }
    }
}
