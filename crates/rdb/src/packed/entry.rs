//! Entries of packed encodings.

use crate::carry::{Carry, Progress};
use crate::cursor::Cursor;
use crate::error::{DecodeErrorKind, Stop, Take, corrupt};
use crate::limits::whole_bytes;

/// A longer entry passes in pieces unless it is complete.
const HELD_ENTRY_BYTES: u64 = whole_bytes(64 << 10) as u64;

/// An entry of a packed string, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Integer(i64),
    Bytes { piece: &'a [u8], is_first: bool, is_last: bool },
}

/// Decodes one kind of packed string.
pub(crate) trait Walk {
    /// Decodes one part and passes its entries on.
    fn step<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()>;
    /// Whether the end was decoded.
    fn is_done(&self) -> bool;
}

/// Receives entries.
pub(crate) trait Give {
    fn give(&mut self, entry: Entry<'_>) -> Result<(), DecodeErrorKind>;
}

/// Decodes the next piece of a packed string.
#[inline]
pub(crate) fn walk<W: Walk, G: Give>(
    walker: &mut W,
    carry: &mut Carry,
    piece: &[u8],
    is_last: bool,
    give: &mut G,
) -> Result<(), DecodeErrorKind> {
    carry.feed(piece, |window| {
        let mut cursor = Cursor::new(window);
        while !walker.is_done() {
            let from = cursor.at();
            match walker.step(&mut cursor, give) {
                Ok(()) => {}
                Err(Stop::Need(need)) => {
                    return Ok(Progress { used: from, need: need.saturating_sub(from) });
                }
                Err(Stop::Bad(kind)) => return Err(*kind),
            }
        }
        if cursor.left() > 0 {
            return corrupt("bytes follow the end of a packed string");
        }
        Ok(Progress { used: cursor.at(), need: 1 })
    })?;
    if is_last && !walker.is_done() {
        return corrupt("a packed string ends before its end mark");
    }
    Ok(())
}

/// An entry with missing bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenEntry {
    left: u64,
    is_first: bool,
}

impl OpenEntry {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { left: bytes, is_first: true }
    }

    /// Whether an entry of `bytes` must pass in pieces: it is long and incomplete.
    #[inline]
    pub(crate) fn is_due(bytes: u64, cursor: &Cursor<'_>) -> bool {
        bytes > HELD_ENTRY_BYTES && bytes > cursor.left() as u64
    }

    /// Begins an entry of `bytes`; `None` when the entry was complete and has passed.
    #[inline]
    pub(crate) fn begin<G: Give>(
        bytes: u64,
        cursor: &mut Cursor<'_>,
        give: &mut G,
    ) -> Take<Option<Self>> {
        if Self::is_due(bytes, cursor) {
            return Ok(Some(Self::new(bytes)));
        }
        let piece = cursor.take(bytes as usize)?;
        give.give(Entry::Bytes { piece, is_first: true, is_last: true })?;
        Ok(None)
    }

    /// Passes the available bytes on; returns whether the entry has ended.
    pub(crate) fn go_on<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<bool> {
        let piece = cursor.up_to(self.left);
        if piece.is_empty() {
            return Err(Stop::Need(cursor.at() + 1));
        }
        self.left -= piece.len() as u64;
        let is_last = self.left == 0;
        give.give(Entry::Bytes { piece, is_first: self.is_first, is_last })?;
        self.is_first = false;
        Ok(is_last)
    }
}
