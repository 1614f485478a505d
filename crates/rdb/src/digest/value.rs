//! The fingerprint of one key, as defined in [`crate::digest`].

use twox_hash::XxHash3_128;

use crate::carry::release;
use crate::digest::gather::Gather;
use crate::digest::module::ModuleHash;
use crate::digest::{Fingerprint, KeyFingerprint};
use crate::opcode::{Kind, Role};
use crate::raw::{Key, StreamPart};
use crate::structure::{Item, Piece};

const NEVER: i64 = i64::MIN;
/// The last byte of the record of a path hash's field; no expiry ends with this byte.
const PATH_FIELD: u8 = 255;
/// The last bytes of the records of an array.
const ARRAY_TEXT: u8 = 0;
const ARRAY_DOUBLE: u8 = 1;
const ARRAY_INSERT: u8 = 2;

/// The fingerprint of an incomplete key.
#[derive(Debug, Default)]
pub(super) struct ValueHash {
    db: u64,
    name: Vec<u8>,
    expires_at_ms: Option<i64>,
    /// The kind of the current value; `None` outside of selected keys.
    pub(super) kind: Option<Kind>,
    value: u128,
    elements: u64,
    record: Gather,
    /// The hash of the path of the following fields.
    path: Option<u128>,
    /// Lengths of the strings of the current record.
    field_bytes: u64,
    text_bytes: u64,
    pairs: u64,
    entry: Option<(u64, u64)>,
    group: u128,
    consumer: u128,
    index: u64,
    module: ModuleHash,
    has_metadata: bool,
    /// Fields that expire up to this moment are excluded.
    lasting_beyond_ms: Option<i64>,
}

impl ValueHash {
    pub(super) fn lasting_beyond(lasting_beyond_ms: Option<i64>) -> Self {
        Self { lasting_beyond_ms, ..Self::default() }
    }

    #[inline]
    pub(super) fn begin(&mut self, key: &Key<'_>) {
        self.db = key.db;
        release(&mut self.name);
        self.name.extend_from_slice(key.name);
        self.expires_at_ms = key.expires_at_ms;
        self.kind = Some(key.value_type.kind());
        (self.value, self.elements, self.path) = (0, 0, None);
        self.entry = None;
        self.has_metadata = !key.metadata.is_empty();
        self.record.clear();
    }

    #[inline]
    pub(super) fn text(&mut self, kind: Kind, piece: Piece<'_>) {
        if kind == Kind::Module {
            // Passes the fields of the piece: a copy of the whole piece would wait for the
            // preceding write, at every string.
            self.module.text(piece.bytes, piece.is_last);
            return;
        }
        let is_alone = matches!(piece.role, Role::Value | Role::Member) && kind != Kind::SortedSet;
        if is_alone && piece.is_first && piece.is_last {
            // The piece is the complete record and needs no buffer.
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
    pub(super) fn score(&mut self, score: f64) {
        self.record.push(&score.to_bits().to_le_bytes());
        self.element();
    }

    #[inline]
    pub(super) fn item(&mut self, item: Item<'_>) {
        match item {
            Item::FieldExpiry(Some(at)) if self.lasting_beyond_ms.is_some_and(|ms| at <= ms) => {
                self.record.clear();
            }
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
            Item::ModuleValue(module) => self.module = ModuleHash::new(module),
            Item::Module(part) => self.module.part(part),
            Item::ArrayIndex(index) => self.index = index,
            Item::ArrayDouble(double) => {
                self.record.push(&double.to_bits().to_le_bytes());
                self.array_value(ARRAY_DOUBLE);
            }
            Item::ArrayInsert(index) => {
                self.record.push(&index.to_le_bytes());
                self.record.push(&[ARRAY_INSERT]);
                self.value = self.value.wrapping_add(self.record.hash());
            }
            Item::Time(time) => {
                self.record.push(&time.to_le_bytes());
                self.value = self.record.hash();
            }
        }
    }

    #[inline]
    pub(super) fn end(&mut self, kind: Kind) -> KeyFingerprint<'_> {
        let mut is_compared = !self.has_metadata;
        if kind == Kind::Module {
            let module = self.module.finish();
            (self.value, self.elements) = (module.value, module.elements);
            is_compared &= module.is_compared;
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
        let is_empty = kind.drops_empty() && self.elements == 0;
        KeyFingerprint { db: self.db, name: &self.name, kind, fingerprint, is_compared, is_empty }
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
            Role::ArrayValue => self.array_value(ARRAY_TEXT),
            Role::FieldValue | Role::Module | Role::NodeId | Role::Packed(_) => {}
        }
    }

    fn array_value(&mut self, form: u8) {
        self.record.push(&self.index.to_le_bytes());
        self.record.push(&[form]);
        self.element();
    }

    /// Adds the current record as an element.
    #[inline]
    fn element(&mut self) {
        self.value = self.value.wrapping_add(self.record.hash());
        self.elements += 1;
    }

    /// Adds the current stream entry, if there is one.
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
            // A pending entry without a consumer counts as an entry of the group.
            StreamPart::Consumers(_)
            | StreamPart::Unowned(_)
            | StreamPart::UnownedPending(_)
            | StreamPart::Producers(_)
            | StreamPart::Producer(_)
            | StreamPart::ProducerEntry(_)
            | StreamPart::ProducerTotals(_) => return,
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
}
