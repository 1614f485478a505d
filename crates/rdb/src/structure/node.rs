//! A stream node: a listpack of entries (`t_stream.c`).
//!
//! A node begins with the master entry: live entries, deleted entries, the names of fields, a zero.
//! Each entry follows: flags, the difference of its identifier to the node's, its fields unless
//! they are those of the master entry, its values, and the number of its listpack entries.

use std::ops::Range;

use crate::error::{DecodeErrorKind, corrupt};
use crate::opcode::Role;
use crate::packed::entry::{Entry, Give};
use crate::raw::StreamId;
use crate::structure::{Item, Piece, Sink, Visitor};

const FLAG_DELETED: i64 = 1;
const FLAG_SAME_FIELDS: i64 = 2;

/// Maximum ratio of repeated names to stored bytes of a node. An entry can be ten bytes long and
/// repeat names of any length. The nodes that servers write by default repeat less than a hundred
/// bytes per byte.
const REPEATED_PER_BYTE: u64 = 1024;

/// The encoding of a listpack entry and the length behind it have at least one byte each.
const EMPTY_ENTRY_BYTES: u64 = 2;

/// The field names of a master entry.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Maximum size, bytes.
    limit: u64,
    /// The concatenated names; empty if the visitor does not need them.
    bytes: Vec<u8>,
    /// The end position of each name.
    ends: Vec<usize>,
    /// Length of the names.
    len: usize,
}

impl Fields {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    fn push(&mut self, piece: &[u8], is_over: bool, keeps: bool) -> Result<(), DecodeErrorKind> {
        self.len += piece.len();
        let ends = (self.ends.len() + 1) * size_of::<usize>();
        let bytes = (self.len + ends) as u64;
        if bytes > self.limit {
            let what = "the names of fields that a stream's node stores once";
            return Err(DecodeErrorKind::TooLong { what, bytes, limit: self.limit });
        }
        if keeps {
            self.bytes.extend_from_slice(piece);
        }
        if is_over {
            self.ends.push(self.len);
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.len = 0;
    }

    /// The range of a name.
    fn place(&self, index: usize) -> Option<Range<usize>> {
        let from = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        Some(from..*self.ends.get(index)?)
    }
}

/// Decodes the entries of a node.
#[derive(Debug)]
pub(super) struct Node {
    id: StreamId,
    phase: Phase,
    /// Missing entries, live and deleted.
    entries_left: u64,
    /// Fields of the master entry.
    master_fields: u64,
    /// Minimum size of the node so far.
    bytes: u64,
    /// Size of the names that its entries repeat.
    repeated_bytes: u64,
    /// State of the current entry.
    entry: EntryState,
}

#[derive(Debug, Default)]
struct EntryState {
    is_deleted: bool,
    has_same_fields: bool,
    ms: u64,
    fields: u64,
    /// Fields that are complete.
    done: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Live,
    Deleted,
    MasterCount,
    MasterField(u64),
    MasterEnd,
    Flags,
    Ms,
    Seq,
    FieldCount,
    Field,
    Value,
    ListpackCount,
}

impl Node {
    pub(super) fn new(id: StreamId) -> Self {
        Self {
            id,
            phase: Phase::Live,
            entries_left: 0,
            master_fields: 0,
            bytes: 0,
            repeated_bytes: 0,
            entry: EntryState::default(),
        }
    }

    #[inline]
    pub(super) fn giving_to<'g, 's, V>(
        &'g mut self,
        fields: &'g mut Fields,
        sink: &'g mut Sink<'s, V>,
    ) -> NodeGive<'g, 's, V> {
        NodeGive { node: self, fields, sink }
    }

    pub(super) fn end(&self) -> Result<(), DecodeErrorKind> {
        if !matches!(self.phase, Phase::Flags) || self.entries_left != 0 {
            return corrupt("a node of a stream does not contain the stated number of entries");
        }
        Ok(())
    }

    fn after_entry_head(&self) -> Phase {
        match (self.entry.fields, self.entry.has_same_fields) {
            (0, _) => Phase::ListpackCount,
            (_, true) => Phase::Value,
            (_, false) => Phase::Field,
        }
    }

    /// Decodes a number; returns `false` without an effect where a string is expected.
    fn number<V: Visitor>(
        &mut self,
        number: i64,
        fields: &mut Fields,
        sink: &mut Sink<'_, V>,
    ) -> Result<bool, DecodeErrorKind> {
        self.phase = match self.phase {
            Phase::Live => {
                self.entries_left = unsigned(number)?;
                Phase::Deleted
            }
            Phase::Deleted => {
                // Both are below 2^63.
                self.entries_left += unsigned(number)?;
                Phase::MasterCount
            }
            Phase::MasterCount => {
                fields.clear();
                self.master_fields = unsigned(number)?;
                match self.master_fields {
                    0 => Phase::MasterEnd,
                    count => Phase::MasterField(count),
                }
            }
            Phase::MasterEnd if number == 0 => Phase::Flags,
            Phase::MasterEnd => return corrupt("the master entry of a stream's node has no end"),
            Phase::Flags => self.flags(number)?,
            Phase::Ms => {
                self.entry.ms = self.id.ms.wrapping_add(number.cast_unsigned());
                Phase::Seq
            }
            Phase::Seq => {
                let seq = self.id.seq.wrapping_add(number.cast_unsigned());
                if !self.entry.is_deleted {
                    sink.tally.elements += 1;
                    sink.visitor.item(Item::Entry(StreamId { ms: self.entry.ms, seq }));
                }
                if self.entry.has_same_fields { self.after_entry_head() } else { Phase::FieldCount }
            }
            Phase::FieldCount => {
                self.entry.fields = unsigned(number)?;
                self.after_entry_head()
            }
            Phase::ListpackCount => {
                let fields = self.entry.fields;
                let count = if self.entry.has_same_fields {
                    fields.checked_add(3)
                } else {
                    fields.checked_mul(2).and_then(|fields| fields.checked_add(4))
                };
                if count != Some(number.cast_unsigned()) {
                    return corrupt("an entry of a stream has a wrong length");
                }
                Phase::Flags
            }
            Phase::MasterField(_) | Phase::Field | Phase::Value => return Ok(false),
        };
        Ok(true)
    }

    fn flags(&mut self, flags: i64) -> Result<Phase, DecodeErrorKind> {
        if !(0..4).contains(&flags) {
            return corrupt("an entry of a stream has unknown flags");
        }
        let is_deleted = flags & FLAG_DELETED != 0;
        // As in servers, the number of deleted entries is not compared.
        let Some(left) = self.entries_left.checked_sub(1) else {
            return corrupt("a node of a stream does not contain the stated number of entries");
        };
        self.entries_left = left;
        let has_same_fields = flags & FLAG_SAME_FIELDS != 0;
        let fields = if has_same_fields { self.master_fields } else { 0 };
        self.entry = EntryState { is_deleted, has_same_fields, ms: 0, fields, done: 0 };
        Ok(Phase::Ms)
    }
}

fn unsigned(number: i64) -> Result<u64, DecodeErrorKind> {
    u64::try_from(number)
        .or_else(|_| corrupt("a node of a stream has a negative number of entries or fields"))
}

/// Receives the entries of a node's listpack.
pub(super) struct NodeGive<'g, 's, V> {
    node: &'g mut Node,
    fields: &'g mut Fields,
    sink: &'g mut Sink<'s, V>,
}

impl<V: Visitor> NodeGive<'_, '_, V> {
    /// Passes a field or value of an entry on, unless the entry is deleted.
    fn text(&mut self, role: Role, entry: Entry<'_>) {
        if self.node.entry.is_deleted {
            return;
        }
        match entry {
            Entry::Integer(number) => {
                self.sink.tally.text_bytes += 8;
                self.sink.visitor.integer(role, number);
            }
            Entry::Bytes { piece, is_first, is_last } => {
                self.sink.piece(role, piece, is_first, is_last);
            }
        }
    }

    /// Stores the name of a field of the master entry.
    fn keep(&mut self, left: u64, entry: Entry<'_>, is_over: bool) -> Result<(), DecodeErrorKind> {
        let mut decimal = itoa::Buffer::new();
        let piece = match entry {
            Entry::Integer(number) => decimal.format(number).as_bytes(),
            Entry::Bytes { piece, .. } => piece,
        };
        self.fields.push(piece, is_over, V::WANTS_TEXTS)?;
        if is_over {
            self.node.phase =
                if left == 1 { Phase::MasterEnd } else { Phase::MasterField(left - 1) };
        }
        Ok(())
    }

    /// Passes the name of the next value's field on, if only the master entry contains the name.
    fn name_master_field(&mut self) -> Result<(), DecodeErrorKind> {
        let node = &mut *self.node;
        if !node.entry.has_same_fields || node.entry.is_deleted {
            return Ok(());
        }
        let Some(place) = self.fields.place(node.entry.done as usize) else { return Ok(()) };
        node.repeated_bytes += place.len() as u64;
        let (bytes, limit) = (node.repeated_bytes, node.bytes * REPEATED_PER_BYTE);
        if bytes > limit {
            let what = "the names of fields that the entries of a stream's node repeat";
            return Err(DecodeErrorKind::TooLong { what, bytes, limit });
        }
        if V::WANTS_TEXTS
            && let Some(bytes) = self.fields.bytes.get(place)
        {
            let role = Role::Field;
            self.sink.visitor.text(Piece { role, bytes, is_first: true, is_last: true });
        }
        Ok(())
    }
}

impl<V: Visitor> Give for NodeGive<'_, '_, V> {
    fn give(&mut self, entry: Entry<'_>) -> Result<(), DecodeErrorKind> {
        let (is_first, is_over, bytes) = match entry {
            Entry::Integer(number) => {
                self.node.bytes += EMPTY_ENTRY_BYTES;
                if self.node.number(number, self.fields, self.sink)? {
                    return Ok(());
                }
                (true, true, 0)
            }
            Entry::Bytes { piece, is_first, is_last } => {
                self.node.bytes += if is_first { EMPTY_ENTRY_BYTES } else { 0 };
                (is_first, is_last, piece.len() as u64)
            }
        };
        match self.node.phase {
            Phase::MasterField(left) => self.keep(left, entry, is_over)?,
            Phase::Field => {
                self.text(Role::Field, entry);
                if is_over {
                    self.node.phase = Phase::Value;
                }
            }
            Phase::Value => {
                if is_first {
                    self.name_master_field()?;
                }
                self.text(Role::FieldValue, entry);
                if is_over {
                    self.node.entry.done += 1;
                    let all_done = self.node.entry.done == self.node.entry.fields;
                    self.node.phase =
                        if all_done { Phase::ListpackCount } else { self.node.after_entry_head() };
                }
            }
            _ => return corrupt("a string occurs in a stream's node where a number is expected"),
        }
        // Counted at the end of an entry: the size of the pieces must not change the earlier
        // counts.
        self.node.bytes += bytes;
        Ok(())
    }
}
