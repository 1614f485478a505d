//! A fingerprint of a data set that depends on the data alone: not on the order of keys, not on
//! encodings, not on the server that saved it.
//!
//! # Definition, version 1
//!
//! `H(…)` is XXH3-128 with seed 0 over the concatenation of what is in the brackets, as a number:
//! its upper 64 bits times 2^64 plus its lower 64, the canonical representation read as big-endian.
//! `H()` of nothing is 99aa06d3014798d86001c324468d497f. Numbers that are hashed are little-endian;
//! `u128`, `u64`, `i64` and `u8` say their width. Sums are modulo 2^128. Strings are as a client
//! reads them: uncompressed, and in decimal notation where they are stored as numbers. A fingerprint
//! is shown as 32 hexadecimal digits, the highest first.
//!
//! Every key has a fingerprint
//!
//! ```text
//! K = H(u8 kind, u64 database, i64 expiry, u64 elements, u128 V, name)
//! ```
//!
//! with *kind* 0 string, 1 list, 2 set, 3 sorted set, 4 hash, 5 stream, 6 module value; *expiry* in
//! milliseconds since 1970 (opcode 252; of opcode 253, whose unit is the second, times 1000), or -2^63
//! where the key never expires; *elements* the number of list elements, members, fields (in a path
//! hash those of all paths) or entries that live, 1 for a string and 0 for a module value; and `V` by
//! the kind:
//!
//! | kind | V |
//! |---|---|
//! | string | `H(value)` |
//! | list | sum over elements of `H(element, u64 index)`, the first index being 0 |
//! | set | sum over members of `H(member)` |
//! | sorted set | sum over members of `H(member, u64 score)`, the score's IEEE 754 bits, minus zero as zero |
//! | hash | sum over fields of `H(field, value, u64 length of field, i64 expiry)`, -2^63 where it never expires |
//! | stream | see below |
//! | module | `H(u64 module, parts)`, where *module* is the identifier as it is stored, the version in its lowest 10 bits, and a part is its bytes and a u8 tag: 1 signed `i64`, 2 unsigned `u64`, 3 float's 4 bytes, 4 double's 8 bytes, 5 a string and its `u64` length |
//!
//! A stream's `V` is the sum of
//!
//! - for each entry that is not deleted `H(pairs, u64 pairs' number, u64 ms, u64 seq, u8 0)`, where a pair is field,
//!   value, `u64` length of field, `u64` length of value;
//! - `H(u64 ms, u64 seq, u8 1)` of the last identifier given;
//! - for each group `G = H(name, u64 ms, u64 seq, u8 2)` of the identifier last delivered, and, with
//!   that, for each of its pending entries `H(u128 G, u64 ms, u64 seq, u64 deliveries, u8 3)`,
//!   and for each pending entry of a consumer `H(u128 C, u64 ms, u64 seq, u8 5)`, where
//!   `C = H(u128 G, name, u8 4)` is not itself added: Redis 5 has no consumers without entries.
//!
//! What only newer servers keep (entries added and read, the first and the largest deleted
//! identifier) and what clocks wrote (delivery and activity times) is left out, as are LRU and LFU
//! counters. A field of a path hash of Valkey 9.2 counts as
//! `H(u128 H(path), field, value, u64 length of field, i64 -2^63, u8 255)`: no plain field's record
//! ends like that, as no expiry does.
//!
//! The digest of a set of keys is the sum of their `K`; so the digests of the databases, of the
//! kinds and of the slots each add up to that of the whole. A key's slot is that of a cluster,
//! CRC-16/XMODEM of the name or of its hash tag, modulo 16,384 ([`slot_of`]), whether or not the
//! server was one, and whatever the database. Function libraries have a digest of their own, the sum
//! of `H(source)`. Data that modules keep outside of keys is left out.
//!
//! A collection without elements counts as a key here, although a server drops it when it loads.
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
//! // A value of the module `ReJSON-RL`, of a part of every type.
//! let module = b"REDIS0012\x07\x01k\x81E\xe2R8\xdf\x91,\x03\x01\x81\xff\xff\xff\xff\xff\xff\xff\xff\
//!     \x02\x07\x03\0\0\xc0?\x04\0\0\0\0\0\0\x04\xc0\x05\x03str\x05\xc0\x0c\0\xff";
//! assert_eq!(digest(module)?, "dcb7ec86c86116a5c728a961a275ef2d");
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
//! It shows damage, loss and drift. It is no signature: who can choose the data can make two data
//! sets with the same digest.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use twox_hash::XxHash3_128;

use crate::carry::release;
use crate::data::Visitor;
use crate::limits::whole_bytes;
use crate::opcode::{Kind, Role};
use crate::raw::{Key, ModulePart, Record, StreamPart};
use crate::slot::{SLOTS, slot_of};
use crate::structure::{Item, Piece, Shape};

/// The version of the definition above. Digests of different versions cannot be compared.
pub const DIGEST_VERSION: u32 = 1;

/// Databases that have a digest of their own; the keys of others count for the whole only.
const DATABASES_MAX: usize = 1 << 14;
/// A record up to this length is gathered and hashed at once.
const GATHERED_BYTES: usize = whole_bytes(64 << 10);
const NEVER: i64 = i64::MIN;
/// What the record of a path hash's field ends with, and no moment does.
const PATH_FIELD: u8 = 255;

/// A fingerprint of 128 bits. `Display` gives 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint(pub u128);

/// The fingerprint of a set is the sum of its members', modulo 2^128.
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
    /// Of all keys.
    pub keys: Fingerprint,
    /// Number of keys.
    pub key_count: u64,
    /// Of all function libraries.
    pub functions: Fingerprint,
    /// Of each database that has keys, the first 16,384 of them.
    pub databases: BTreeMap<u64, Fingerprint>,
    /// Of each kind, in the order of [`Kind::ALL`].
    pub kinds: [Fingerprint; Kind::ALL.len()],
    /// Of each cluster slot.
    slots: Box<[Fingerprint]>,
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            keys: Fingerprint::default(),
            key_count: 0,
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

    /// The slots that have keys, with their digests.
    pub fn slots(&self) -> impl Iterator<Item = (u16, Fingerprint)> {
        let numbered = (0..SLOTS).zip(self.slots.iter().copied());
        numbered.filter(|(_, fingerprint)| *fingerprint != Fingerprint::default())
    }

    fn add(&mut self, key: &KeyFingerprint<'_>) {
        self.keys += key.fingerprint;
        self.key_count += 1;
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
    /// The digest of what has passed.
    pub fn finish(mut self) -> Digest {
        self.keys.database_end();
        self.keys.digest
    }
}

/// Sums the fingerprints of keys up to a [`Digest`].
#[derive(Debug, Default)]
pub struct Summing {
    digest: Digest,
    /// The database whose keys are passing, and the sum of those that have.
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
    /// What kind of value it holds.
    pub kind: Kind,
    /// Of name, value and expiry.
    pub fingerprint: Fingerprint,
}

/// Takes the fingerprints that a [`Fingerprinter`] computes.
pub trait KeyVisitor {
    /// Whether the fingerprint of a key that begins is of interest.
    fn wants(&mut self, _key: &Key<'_>) -> bool {
        true
    }
    /// A key that was wanted, and has ended.
    fn key(&mut self, key: &KeyFingerprint<'_>);
    /// A library of functions.
    fn function(&mut self, _fingerprint: Fingerprint) {}
}

/// Computes the fingerprint of each key, by which two data sets can be compared key by key.
#[derive(Debug, Default)]
pub struct Fingerprinter<K> {
    /// Takes the fingerprints.
    pub keys: K,
    value: ValueHash,
}

impl<K> Fingerprinter<K> {
    /// Gives what it computes to `keys`.
    pub fn new(keys: K) -> Self {
        Self { keys, value: ValueHash::default() }
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

/// The fingerprint of one key, as it is being computed.
#[derive(Debug, Default)]
struct ValueHash {
    db: u64,
    name: Vec<u8>,
    expires_at_ms: Option<i64>,
    /// What kind of value is passing; nothing outside of keys that are wanted.
    kind: Option<Kind>,
    value: u128,
    elements: u64,
    record: Gather,
    /// The hash of the path that the fields belong to.
    path: Option<u128>,
    /// Lengths of the strings of the record that is being gathered.
    field_bytes: u64,
    text_bytes: u64,
    pairs: u64,
    entry: Option<(u64, u64)>,
    group: u128,
    consumer: u128,
}

impl ValueHash {
    #[inline]
    fn begin(&mut self, key: &Key<'_>) {
        self.db = key.db;
        release(&mut self.name);
        self.name.extend_from_slice(key.name);
        self.expires_at_ms = key.expires_at_ms;
        self.kind = Some(key.value_type.kind());
        (self.value, self.elements, self.path) = (0, 0, None);
        self.entry = None;
        self.record.clear();
    }

    #[inline]
    fn text(&mut self, kind: Kind, piece: Piece<'_>) {
        let is_alone = matches!(piece.role, Role::Value | Role::Member) && kind != Kind::SortedSet;
        if is_alone && piece.is_first && piece.is_last {
            // The whole record: nothing has to be gathered.
            self.value = self.value.wrapping_add(XxHash3_128::oneshot(piece.bytes));
            self.elements += 1;
            return;
        }
        if piece.is_first {
            self.text_bytes = 0;
            if let (Role::Field, Some(path)) = (piece.role, self.path) {
                self.record.push(&path.to_le_bytes());
            }
        }
        self.text_bytes += piece.bytes.len() as u64;
        self.record.push(piece.bytes);
        if piece.is_last {
            self.text_end(kind, piece.role);
        }
    }

    #[inline]
    fn score(&mut self, score: f64) {
        self.record.push(&score.to_bits().to_le_bytes());
        self.element();
    }

    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::FieldExpiry(expiry) => {
                self.record.push(&self.field_bytes.to_le_bytes());
                self.record.push(&expiry.unwrap_or(NEVER).to_le_bytes());
                if self.path.is_some() {
                    self.record.push(&[PATH_FIELD]);
                }
                self.element();
            }
            Item::Entry(id) => {
                self.entry_end();
                self.entry = Some((id.ms, id.seq));
                self.pairs = 0;
            }
            Item::Stream(part) => self.stream(part),
            Item::ModuleValue(module) => self.record.push(&module.0.to_le_bytes()),
            Item::Module(part) => match part {
                ModulePart::Signed(number) => self.tagged(1, &number.to_le_bytes()),
                ModulePart::Unsigned(number) => self.tagged(2, &number.to_le_bytes()),
                ModulePart::Float(number) => self.tagged(3, &number.to_le_bytes()),
                ModulePart::Double(number) => self.tagged(4, &number.to_le_bytes()),
            },
        }
    }

    #[inline]
    fn end(&mut self, kind: Kind) -> KeyFingerprint<'_> {
        if kind == Kind::Module {
            self.value = self.record.hash();
        }
        let mut head = [0; 41];
        head[0] = kind as u8;
        head[1..9].copy_from_slice(&self.db.to_le_bytes());
        head[9..17].copy_from_slice(&self.expires_at_ms.unwrap_or(NEVER).to_le_bytes());
        head[17..25].copy_from_slice(&self.elements.to_le_bytes());
        head[25..41].copy_from_slice(&self.value.to_le_bytes());
        self.record.push(&head);
        self.record.push(&self.name);
        let fingerprint = Fingerprint(self.record.hash());
        KeyFingerprint { db: self.db, name: &self.name, kind, fingerprint }
    }

    #[inline]
    fn text_end(&mut self, kind: Kind, role: Role) {
        match role {
            Role::Value | Role::Member if kind == Kind::SortedSet => {}
            Role::Value | Role::Member => self.element(),
            Role::Element => {
                self.record.push(&self.elements.to_le_bytes());
                self.element();
            }
            Role::Path => self.path = Some(self.record.hash()),
            Role::Field => self.field_bytes = self.text_bytes,
            Role::FieldValue if kind == Kind::Stream => {
                self.record.push(&self.field_bytes.to_le_bytes());
                self.record.push(&self.text_bytes.to_le_bytes());
                self.pairs += 1;
            }
            Role::Module => {
                self.record.push(&self.text_bytes.to_le_bytes());
                self.record.push(&[5]);
            }
            Role::FieldValue | Role::NodeId | Role::Packed(_) => {}
        }
    }

    /// Adds the record that has been gathered as an element.
    #[inline]
    fn element(&mut self) {
        self.value = self.value.wrapping_add(self.record.hash());
        self.elements += 1;
    }

    /// Adds the stream entry that has been gathered, if there is one.
    fn entry_end(&mut self) {
        if let Some((ms, seq)) = self.entry.take() {
            for number in [self.pairs, ms, seq] {
                self.record.push(&number.to_le_bytes());
            }
            self.record.push(&[0]);
            self.element();
        }
    }

    fn stream(&mut self, part: StreamPart<'_>) {
        self.entry_end();
        let id = match part {
            StreamPart::Meta(meta) => meta.last_id,
            StreamPart::Group(group) => {
                self.record.push(group.name);
                group.last_id
            }
            StreamPart::Pending(pending) => {
                self.record.push(&self.group.to_le_bytes());
                pending.id
            }
            StreamPart::ConsumerPending(id) => {
                self.record.push(&self.consumer.to_le_bytes());
                id
            }
            StreamPart::Consumer(consumer) => {
                self.record.push(&self.group.to_le_bytes());
                self.record.push(consumer.name);
                self.record.push(&[4]);
                self.consumer = self.record.hash();
                return;
            }
            StreamPart::Consumers(_) => return,
        };
        self.record.push(&id.ms.to_le_bytes());
        self.record.push(&id.seq.to_le_bytes());
        let tag = match part {
            StreamPart::Meta(_) => 1,
            StreamPart::Group(_) => 2,
            StreamPart::Pending(pending) => {
                self.record.push(&pending.deliveries.to_le_bytes());
                3
            }
            _ => 5,
        };
        self.record.push(&[tag]);
        let hash = self.record.hash();
        if tag == 2 {
            self.group = hash;
        }
        self.value = self.value.wrapping_add(hash);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.record.push(bytes);
        self.record.push(&[tag]);
    }
}

/// Gathers a record and hashes it; a long one is hashed while it is gathered.
#[derive(Default)]
struct Gather {
    bytes: Vec<u8>,
    long: Option<Box<XxHash3_128>>,
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Gather {
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if self.long.is_none() && self.bytes.len() + bytes.len() <= GATHERED_BYTES {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.push_long(bytes);
        }
    }

    #[cold]
    fn push_long(&mut self, bytes: &[u8]) {
        let hasher = self.long.get_or_insert_with(|| Box::new(XxHash3_128::new()));
        hasher.write(&self.bytes);
        self.bytes.clear();
        hasher.write(bytes);
    }

    /// The hash of what was gathered; gathers anew.
    #[inline]
    fn hash(&mut self) -> u128 {
        let hash = match self.long.take() {
            None => XxHash3_128::oneshot(&self.bytes),
            Some(mut hasher) => {
                hasher.write(&self.bytes);
                hasher.finish_128()
            }
        };
        self.bytes.clear();
        hash
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.long = None;
    }
}
