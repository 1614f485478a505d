//! The first level: keys, and values as the bytes that `RESTORE` accepts.
//!
//! Values have no end mark in an RDB, so this level follows their grammar. It does not decode
//! packed or compressed strings. It passes the parts of values on as [`Part`]s, the input of the
//! next level.

mod module;
mod stream;
mod value;

use std::sync::Arc;

use crate::carry::{Carry, Progress, release};
use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind, Stop, Take, corrupt};
use crate::header::{HEADER_BYTES, Header};
use crate::limits::Limits;
use crate::opcode::{Opcode, ValueType};
use crate::template::{HashTemplate, HashTemplates, NewTemplate};
use module::ModuleParts;
use value::{Context, Value};

pub use module::{ModuleId, ModulePart};
pub use stream::{
    Consumer, Group, PendingEntry, ProducerEntry, ProducerTotals, Producers, StreamId, StreamMeta,
    StreamPart,
};
pub(crate) use value::{EXPIRY_END, is_simple_score, parse_score};
pub use value::{Part, Text};

/// A key, as stored in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Number of its database.
    pub db: u64,
    /// Its name.
    pub name: &'a [u8],
    /// Its expiry, milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Seconds since its last use when it was saved (LRU policies).
    pub idle_seconds: Option<u64>,
    /// Its access frequency counter (LFU policies).
    pub frequency: Option<u8>,
    /// The type and encoding of its value.
    pub value_type: &'static ValueType,
    /// Module metadata of the key, with its opcode, as stored; empty if there is none (Redis 8.6
    /// and later).
    pub metadata: &'a [u8],
    /// Position of its record in bytes from the beginning of the stream.
    pub offset: u64,
}

/// A record other than a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// The header.
    Header(Header),
    /// An auxiliary field, such as `redis-ver`.
    Aux {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// The database of the following keys.
    SelectDb(u64),
    /// Number of keys in the database; a hint.
    ResizeDb {
        /// Keys.
        keys: u64,
        /// Keys with expiry.
        expiring: u64,
    },
    /// Number of keys in a cluster slot; a hint.
    SlotInfo {
        /// Number of the slot.
        slot: u64,
        /// Keys.
        keys: u64,
        /// Keys with expiry.
        expiring: u64,
    },
    /// The source of a library of functions.
    Function(&'a [u8]),
    /// Begins data of a module outside of keys; the parts follow.
    ModuleAux(ModuleId),
    /// Ends the data of the module.
    ModuleAuxEnd,
    /// Begins module metadata of the following key: the number of modules. The parts follow.
    KeyMetadata(u64),
    /// The fields of the following hashes.
    HashTemplate(&'a Arc<HashTemplate>),
    /// The end opcode.
    End,
    /// The mark that ends a stream of unknown length, behind the checksum; servers ignore it.
    EndMark,
}

/// Receives the findings of a [`Decoder`] in the order of the stream. Borrowed data is valid during
/// the call only. The default of every method does nothing.
pub trait Visitor {
    /// A record other than a key.
    fn record(&mut self, _record: Record<'_>) {}
    /// A key; its value follows.
    ///
    /// # Errors
    /// An error of the visitor, which ends decoding.
    fn key(&mut self, _key: &Key<'_>) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// The next stored bytes of the value, without the type byte.
    fn bytes(&mut self, _bytes: &[u8]) {}
    /// A string of the value, or a piece of one.
    ///
    /// # Errors
    /// An error of the visitor, which ends decoding.
    fn text(&mut self, _text: Text<'_>) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// The score of the preceding member.
    ///
    /// # Errors
    /// An error of the visitor, which ends decoding.
    fn score(&mut self, _score: f64) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// Another part of the value.
    ///
    /// # Errors
    /// An error of the visitor, which ends decoding.
    fn part(&mut self, _part: Part<'_>) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// The value has ended.
    ///
    /// # Errors
    /// An error of the visitor, which ends decoding.
    fn key_end(&mut self) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
}

/// Finds the keys and the bytes of their values in a stream that is fed in pieces of any size.
///
/// The decoder holds at most one incomplete part, limited by [`Limits`].
/// [`Envelope`](crate::Envelope) checks the checksum.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    header: Option<Header>,
    /// The attributes of the next key from the records before it.
    pending: Pending,
    value: Value,
    templates: HashTemplates,
    /// A separate field, because the state is cheaper to change without it.
    new_template: NewTemplate,
    /// Whether a part occurred whose layout is known from public documents only.
    is_doubtful: bool,
    scratch: [Vec<u8>; 2],
    carry: Carry,
    /// Position of the first byte that was not decoded.
    offset: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Header,
    Record,
    Value,
    ModuleAux(ModuleParts),
    /// Missing classes of a key's metadata, and the parts of the current one.
    KeyMetadata {
        classes_left: u64,
        parts: Option<ModuleParts>,
    },
    /// Missing fields of a template.
    HashTemplate {
        fields_left: u64,
    },
    SlotRanges(u64),
    Checksum,
    Ended,
    MarkEnded,
    Failed(DecodeError),
}

/// Length of the mark that ends a stream of unknown length (`RDB_EOF_MARK_SIZE`).
pub(crate) const END_MARK_BYTES: usize = 40;

/// Whether the bytes are such a mark: hexadecimal digits (`getRandomHexChars`).
pub(crate) fn is_end_mark(bytes: &[u8]) -> bool {
    bytes.len() == END_MARK_BYTES && bytes.iter().all(u8::is_ascii_hexdigit)
}

#[derive(Debug, Default)]
struct Pending {
    db: u64,
    expires_at_ms: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
    metadata: Vec<u8>,
    /// Position of the first of these records.
    offset: Option<u64>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Decoder {
    /// Creates a decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Header,
            header: None,
            pending: Pending::default(),
            value: Value::default(),
            templates: HashTemplates::default(),
            new_template: NewTemplate::default(),
            is_doubtful: false,
            scratch: [Vec::new(), Vec::new()],
            carry: Carry::default(),
            offset: 0,
        }
    }

    /// The header; `None` until its nine bytes have arrived.
    pub fn header(&self) -> Option<Header> {
        self.header
    }

    /// Decodes the next piece of the stream.
    ///
    /// # Errors
    /// [`DecodeError`] with the position of the fault; every later call returns it again.
    pub fn feed<V: Visitor>(&mut self, input: &[u8], visitor: &mut V) -> Result<(), DecodeError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let mut carry = std::mem::take(&mut self.carry);
        let fed = carry.feed(input, |window| self.decode(window, visitor));
        self.carry = carry;
        fed
    }

    /// Checks that the stream is complete. Call it after the last piece.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when the stream ends before its end opcode.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match &self.state {
            State::Ended if self.carry.held_bytes() > 0 => Err(DecodeError {
                offset: self.offset,
                kind: self.judged(DecodeErrorKind::TrailingBytes),
            }),
            State::Ended | State::MarkEnded => Ok(()),
            State::Failed(error) => Err(error.clone()),
            _ => Err(DecodeError {
                offset: self.offset + self.carry.held_bytes() as u64,
                kind: self.judged(DecodeErrorKind::Truncated),
            }),
        }
    }

    /// The error kind, depending on the preceding parts.
    fn judged(&self, kind: DecodeErrorKind) -> DecodeErrorKind {
        if self.is_doubtful { kind.doubted() } else { kind }
    }

    /// Decodes complete parts from the beginning of `window`.
    fn decode<V: Visitor>(
        &mut self,
        window: &[u8],
        visitor: &mut V,
    ) -> Result<Progress, DecodeError> {
        let mut cursor = Cursor::new(window);
        loop {
            let from = cursor.at();
            let stop = match self.step(&mut cursor, window, visitor) {
                Ok(()) if cursor.at() > from => continue,
                Ok(()) => Stop::Need(from + 1),
                Err(stop) => stop,
            };
            let used = cursor.at();
            match stop {
                Stop::Need(need) => {
                    self.offset += used as u64;
                    return Ok(Progress { used, need: need.saturating_sub(used) });
                }
                Stop::Bad(kind) => {
                    let kind = self.judged(*kind);
                    let error = DecodeError { offset: self.offset + used as u64, kind };
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// Decodes one part; on an error the cursor is at the beginning of the failed part.
    #[inline]
    fn step<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        window: &[u8],
        visitor: &mut V,
    ) -> Take<()> {
        let from = cursor.at();
        if matches!(self.state, State::Value) {
            let context = Context { limits: &self.limits, templates: &self.templates };
            let run = self.value.run(cursor, context, visitor);
            visitor.bytes(&window[from..cursor.at()]);
            run?;
            visitor.key_end()?;
            self.state = State::Record;
            return Ok(());
        }
        let taken = self.step_outside_values(cursor, visitor);
        if taken.is_err() {
            cursor.rewind(from);
        }
        taken
    }

    fn step_outside_values<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        visitor: &mut V,
    ) -> Take<()> {
        match &mut self.state {
            State::Header => {
                let header = Header::parse(cursor.array::<HEADER_BYTES>()?)
                    .map_err(DecodeErrorKind::Header)?;
                self.header = Some(header);
                self.state = State::Record;
                visitor.record(Record::Header(header));
                Ok(())
            }
            State::Record => self.record(cursor, visitor),
            State::ModuleAux(parts) => {
                if parts.step(cursor, &self.limits, visitor)? {
                    visitor.record(Record::ModuleAuxEnd);
                    self.state = State::Record;
                }
                Ok(())
            }
            State::SlotRanges(left) => {
                let (_first, _last) = (cursor.length()?, cursor.length()?);
                *left -= 1;
                if *left == 0 {
                    self.state = State::Record;
                }
                Ok(())
            }
            State::Checksum => {
                cursor.u64_le()?;
                self.state = State::Ended;
                Ok(())
            }
            State::KeyMetadata { .. } => self.key_metadata(cursor, visitor),
            State::HashTemplate { .. } => self.template_field(cursor, visitor),
            State::Ended if cursor.left() > 0 => {
                let mark = &cursor.rest()[..cursor.left().min(END_MARK_BYTES)];
                if !mark.iter().all(u8::is_ascii_hexdigit) {
                    return Err(DecodeErrorKind::TrailingBytes.into());
                }
                cursor.take(END_MARK_BYTES)?;
                self.state = State::MarkEnded;
                visitor.record(Record::EndMark);
                Ok(())
            }
            State::MarkEnded if cursor.left() > 0 => Err(DecodeErrorKind::TrailingBytes.into()),
            State::Value | State::Ended | State::MarkEnded | State::Failed(_) => Ok(()),
        }
    }

    /// Decodes one part of the module metadata of the following key.
    fn key_metadata<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Take<()> {
        let State::KeyMetadata { classes_left, parts } = &mut self.state else { return Ok(()) };
        let from = cursor.at();
        match parts {
            Some(class) => {
                if class.step(cursor, &self.limits, visitor)? {
                    (*classes_left, *parts) = (*classes_left - 1, None);
                }
            }
            None => {
                // Four bytes: name, version and flags of the class (`keymeta.c`).
                cursor.array::<4>()?;
                *parts = Some(ModuleParts::default());
            }
        }
        if *classes_left == 0 {
            self.state = State::Record;
        }
        self.keep_metadata(cursor.taken_since(from))
    }

    fn template_field<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Take<()> {
        let State::HashTemplate { fields_left } = &mut self.state else { return Ok(()) };
        let limit = self.limits.names_bytes_max;
        let field = cursor.held_text("a field of a template", limit)?;
        self.new_template.push(field.decode(&mut self.scratch[0])?, limit)?;
        *fields_left -= 1;
        if *fields_left == 0 {
            let template = std::mem::take(&mut self.new_template).finish();
            self.templates.add(Arc::clone(&template), limit)?;
            self.state = State::Record;
            visitor.record(Record::HashTemplate(&template));
        }
        Ok(())
    }

    fn keep_metadata(&mut self, bytes: &[u8]) -> Take<()> {
        let (metadata, limit) = (&mut self.pending.metadata, self.limits.held_bytes_max);
        let bytes_held = (metadata.len() + bytes.len()) as u64;
        if bytes_held > limit {
            let what = "module metadata of a key";
            return Err(DecodeErrorKind::TooLong { what, bytes: bytes_held, limit }.into());
        }
        metadata.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn record<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Take<()> {
        let Some(header) = self.header else {
            return Err(DecodeErrorKind::Truncated.into());
        };
        let offset = self.offset + cursor.at() as u64;
        let byte = cursor.byte()?;
        if let Some(value_type) = ValueType::find(byte, header) {
            return self.key(value_type, offset, cursor, visitor);
        }
        match Opcode::find(byte, header) {
            Some(opcode) => self.opcode(opcode, offset, cursor, visitor),
            None => Err(DecodeErrorKind::UnknownOpcode { opcode: byte, header }.into()),
        }
    }

    #[inline]
    fn key<V: Visitor>(
        &mut self,
        value_type: &'static ValueType,
        offset: u64,
        cursor: &mut Cursor<'_>,
        visitor: &mut V,
    ) -> Take<()> {
        let name = cursor.held_text("a key", self.limits.held_bytes_max)?;
        let pending = &mut self.pending;
        self.is_doubtful |= value_type.is_documented_only();
        let key = Key {
            db: pending.db,
            name: name.decode(&mut self.scratch[0])?,
            expires_at_ms: pending.expires_at_ms.take(),
            idle_seconds: pending.idle_seconds.take(),
            frequency: pending.frequency.take(),
            value_type,
            offset: pending.offset.take().unwrap_or(offset),
            metadata: &pending.metadata,
        };
        visitor.key(&key)?;
        release(&mut self.scratch[0]);
        if !pending.metadata.is_empty() {
            release(&mut pending.metadata);
        }
        self.value.begin(value_type)?;
        self.state = State::Value;
        Ok(())
    }

    /// Decodes an opcode that belongs to the following key.
    fn key_opcode<V: Visitor>(
        &mut self,
        opcode: Opcode,
        offset: u64,
        cursor: &mut Cursor<'_>,
        visitor: &mut V,
    ) -> Take<()> {
        let pending = &mut self.pending;
        match opcode {
            Opcode::ExpiryMilliseconds => {
                pending.expires_at_ms = Some(i64::from_le_bytes(cursor.array()?));
            }
            Opcode::ExpirySeconds => {
                let seconds = i64::from(i32::from_le_bytes(cursor.array()?));
                pending.expires_at_ms = Some(seconds * 1000);
            }
            Opcode::Idle => {
                pending.idle_seconds = Some(cursor.length()?);
            }
            Opcode::Frequency => {
                pending.frequency = Some(cursor.byte()?);
            }
            Opcode::KeyMetadata => {
                let from = cursor.at() - 1;
                let classes = cursor.length()?;
                pending.metadata.clear();
                visitor.record(Record::KeyMetadata(classes));
                if classes > 0 {
                    self.state = State::KeyMetadata { classes_left: classes, parts: None };
                }
                self.keep_metadata(cursor.taken_since(from))?;
            }
            _ => {}
        }
        self.pending.offset.get_or_insert(offset);
        Ok(())
    }

    fn opcode<V: Visitor>(
        &mut self,
        opcode: Opcode,
        offset: u64,
        cursor: &mut Cursor<'_>,
        visitor: &mut V,
    ) -> Take<()> {
        let limit = self.limits.held_bytes_max;
        let [first, second] = &mut self.scratch;
        let pending = &mut self.pending;
        match opcode {
            Opcode::ExpiryMilliseconds
            | Opcode::ExpirySeconds
            | Opcode::Idle
            | Opcode::Frequency
            | Opcode::KeyMetadata => return self.key_opcode(opcode, offset, cursor, visitor),
            Opcode::SelectDb => {
                pending.db = cursor.length()?;
                visitor.record(Record::SelectDb(pending.db));
            }
            Opcode::ResizeDb => {
                let (keys, expiring) = (cursor.length()?, cursor.length()?);
                visitor.record(Record::ResizeDb { keys, expiring });
            }
            Opcode::Aux => {
                let name = cursor.held_text("an aux field's name", limit)?;
                let value = cursor.held_text("an aux field", limit)?;
                let (name, value) = (name.decode(first)?, value.decode(second)?);
                visitor.record(Record::Aux { name, value });
                release(first);
                release(second);
            }
            Opcode::SlotInfo => {
                let (slot, keys, expiring) = (cursor.length()?, cursor.length()?, cursor.length()?);
                visitor.record(Record::SlotInfo { slot, keys, expiring });
            }
            Opcode::HashTemplate => {
                self.is_doubtful = true;
                let (id, fields) = (cursor.length()?, cursor.length()?);
                if fields == 0 {
                    return corrupt("a template of hashes has no fields");
                }
                self.new_template = NewTemplate::new(id);
                self.state = State::HashTemplate { fields_left: fields };
            }
            Opcode::InlineCommands => {
                let what = "commands inside the stream (opcode 242 of Valkey 9.2)";
                return Err(DecodeErrorKind::NotSelfDescribing(what).into());
            }
            Opcode::SlotImport => {
                cursor.held_text("the name of a slot import", limit)?;
                match cursor.length()? {
                    0 => {}
                    ranges => self.state = State::SlotRanges(ranges),
                }
            }
            Opcode::Function2 => {
                let source = cursor.held_text("a function library", limit)?;
                visitor.record(Record::Function(source.decode(first)?));
                release(first);
            }
            Opcode::FunctionPreview => {
                let what = "a function of a preview of Redis 7.0";
                return Err(DecodeErrorKind::NotSelfDescribing(what).into());
            }
            Opcode::ModuleAux => {
                let (module, parts) = ModuleParts::aux(cursor)?;
                visitor.record(Record::ModuleAux(module));
                self.state = State::ModuleAux(parts);
            }
            Opcode::End => {
                let has_checksum = self.header.is_some_and(Header::has_checksum);
                self.state = if has_checksum { State::Checksum } else { State::Ended };
                visitor.record(Record::End);
            }
        }
        Ok(())
    }
}
