//! The first level: keys, and their values as the bytes that `RESTORE` takes.
//!
//! A value's end is not marked in an RDB, so even this level follows its grammar; it does not look
//! into packed or compressed strings. What it meets on the way it offers as [`Part`]s, which is
//! what the level above is made of.

mod module;
mod stream;
mod value;

use crate::carry::{Carry, Progress, release};
use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind, Stop, Take};
use crate::header::{HEADER_BYTES, Header};
use crate::limits::Limits;
use crate::opcode::{Opcode, ValueType};
use module::ModuleParts;
use value::Value;

pub use module::{ModuleId, ModulePart};
pub use stream::{Consumer, Group, PendingEntry, StreamId, StreamMeta, StreamPart};
pub use value::{Part, Text};
pub(crate) use value::{is_simple_score, parse_score};

/// A key, as its record says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Number of its database.
    pub db: u64,
    /// Its name.
    pub name: &'a [u8],
    /// When it expires, milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// How long it had not been used when it was saved, seconds (LRU policies).
    pub idle_seconds: Option<u64>,
    /// Its access frequency counter (LFU policies).
    pub frequency: Option<u8>,
    /// How its value is stored.
    pub value_type: &'static ValueType,
    /// Where its record begins, bytes from the beginning of the stream.
    pub offset: u64,
}

/// A record that is no key.
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
    /// The keys that follow belong to this database.
    SelectDb(u64),
    /// What the database holds; a hint.
    ResizeDb {
        /// Its keys.
        keys: u64,
        /// Its keys that expire.
        expiring: u64,
    },
    /// What a cluster slot holds; a hint.
    SlotInfo {
        /// Number of the slot.
        slot: u64,
        /// Its keys.
        keys: u64,
        /// Its keys that expire.
        expiring: u64,
    },
    /// A library of functions: its source.
    Function(&'a [u8]),
    /// Data that a module keeps outside of keys begins; its parts follow.
    ModuleAux(ModuleId),
    /// The module's data has ended.
    ModuleAuxEnd,
    /// The end opcode.
    End,
}

/// Takes what a [`Decoder`] finds, in the order of the stream. What is borrowed is gone after
/// the call. Every method does nothing unless it is written.
pub trait Visitor {
    /// A record that is no key.
    fn record(&mut self, _record: Record<'_>) {}
    /// A key; its value follows.
    ///
    /// # Errors
    /// Whatever the visitor finds wrong; decoding ends.
    fn key(&mut self, _key: &Key<'_>) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// The next bytes of the value as they are stored, without the type byte.
    fn bytes(&mut self, _bytes: &[u8]) {}
    /// A string of the value, or a piece of one.
    ///
    /// # Errors
    /// Whatever the visitor finds wrong; decoding ends.
    fn text(&mut self, _text: Text<'_>) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// The score of the member before it.
    ///
    /// # Errors
    /// Whatever the visitor finds wrong; decoding ends.
    fn score(&mut self, _score: f64) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// Another part of the value.
    ///
    /// # Errors
    /// Whatever the visitor finds wrong; decoding ends.
    fn part(&mut self, _part: Part<'_>) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
    /// The value has ended.
    ///
    /// # Errors
    /// Whatever the visitor finds wrong; decoding ends.
    fn key_end(&mut self) -> Result<(), DecodeErrorKind> {
        Ok(())
    }
}

/// Finds keys and the bytes of their values in a stream that is fed in pieces of any size.
///
/// What it holds is bounded by [`Limits`] and never more than the part that is not all there.
/// The checksum is left to [`Envelope`](crate::Envelope).
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    header: Option<Header>,
    /// What the records before a key say of it.
    pending: Pending,
    value: Value,
    scratch: [Vec<u8>; 2],
    carry: Carry,
    /// Position of the first byte that has not been decoded.
    offset: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Header,
    Record,
    Value,
    ModuleAux(ModuleParts),
    SlotRanges(u64),
    Checksum,
    Ended,
    Failed(DecodeError),
}

#[derive(Debug, Default)]
struct Pending {
    db: u64,
    expires_at_ms: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
    /// Where the first of these records begins.
    offset: Option<u64>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Header,
            header: None,
            pending: Pending::default(),
            value: Value::default(),
            scratch: [Vec::new(), Vec::new()],
            carry: Carry::default(),
            offset: 0,
        }
    }

    /// The header, once its nine bytes have come.
    pub fn header(&self) -> Option<Header> {
        self.header
    }

    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`DecodeError`] with the position of what is wrong; every later call gives it again.
    pub fn feed<V: Visitor>(&mut self, input: &[u8], visitor: &mut V) -> Result<(), DecodeError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let mut carry = std::mem::take(&mut self.carry);
        let fed = carry.feed(input, |window| self.decode(window, visitor));
        self.carry = carry;
        fed
    }

    /// Judges the stream, of which all has come.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when the stream has not come to its end.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match &self.state {
            State::Ended => Ok(()),
            State::Failed(error) => Err(error.clone()),
            _ => Err(DecodeError {
                offset: self.offset + self.carry.held_bytes() as u64,
                kind: DecodeErrorKind::Truncated,
            }),
        }
    }

    /// Decodes whole parts from the beginning of `window`.
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
                    let error = DecodeError { offset: self.offset + used as u64, kind: *kind };
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// Decodes one part; on a stop the cursor stands where the part that was not taken begins.
    #[inline]
    fn step<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        window: &[u8],
        visitor: &mut V,
    ) -> Take<()> {
        let from = cursor.at();
        if matches!(self.state, State::Value) {
            let run = self.value.run(cursor, &self.limits, visitor);
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
            State::Ended if cursor.left() > 0 => Err(DecodeErrorKind::TrailingBytes.into()),
            State::Value | State::Ended | State::Failed(_) => Ok(()),
        }
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
        let key = Key {
            db: pending.db,
            name: name.decode(&mut self.scratch[0])?,
            expires_at_ms: pending.expires_at_ms.take(),
            idle_seconds: pending.idle_seconds.take(),
            frequency: pending.frequency.take(),
            value_type,
            offset: pending.offset.take().unwrap_or(offset),
        };
        visitor.key(&key)?;
        release(&mut self.scratch[0]);
        self.value.begin(value_type)?;
        self.state = State::Value;
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
            Opcode::ExpiryMilliseconds => {
                pending.expires_at_ms = Some(i64::from_le_bytes(cursor.array()?));
                pending.offset.get_or_insert(offset);
            }
            Opcode::ExpirySeconds => {
                let seconds = i64::from(i32::from_le_bytes(cursor.array()?));
                pending.expires_at_ms = Some(seconds * 1000);
                pending.offset.get_or_insert(offset);
            }
            Opcode::Idle => {
                pending.idle_seconds = Some(cursor.length()?);
                pending.offset.get_or_insert(offset);
            }
            Opcode::Frequency => {
                pending.frequency = Some(cursor.byte()?);
                pending.offset.get_or_insert(offset);
            }
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
