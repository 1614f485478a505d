//! Listpacks (`listpack.c`).
//!
//! Layout: four bytes of total length, two of the number of entries (65535: unknown), the entries,
//! 0xFF. An entry consists of its encoding, its bytes, and its own length backwards, in groups of
//! seven bits.

use crate::carry::Carry;
use crate::cursor::Cursor;
use crate::error::{DecodeErrorKind, Take, corrupt};
use crate::packed::entry::{Entry, Give, OpenEntry, Walk, walk};

const HEADER_BYTES: u64 = 6;
const COUNT_UNKNOWN: u16 = u16::MAX;
const END: u8 = 0xFF;
/// Maximum size of the length behind an entry.
const BACK_BYTES_MAX: u64 = 5;

/// Decodes a listpack.
#[derive(Debug)]
pub(crate) struct Listpack {
    /// Length of the enclosing string.
    bytes: u64,
    phase: Phase,
    count: u16,
    entries: u64,
}

#[derive(Debug)]
enum Phase {
    Header,
    Entry,
    /// The bytes of an entry, followed by this length.
    Open(OpenEntry, u64),
    Back(u64),
    Done,
}

impl Listpack {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, phase: Phase::Header, count: 0, entries: 0 }
    }

    fn header(&mut self, cursor: &mut Cursor<'_>) -> Take<()> {
        let bytes = u32::from_le_bytes(cursor.array()?);
        self.count = u16::from_le_bytes(cursor.array()?);
        if u64::from(bytes) != self.bytes || self.bytes <= HEADER_BYTES {
            return corrupt("a listpack's length differs from the length of its string");
        }
        self.phase = Phase::Entry;
        Ok(())
    }

    /// Fast path for a complete and valid entry of at most 63 bytes or a number up to 127: most
    /// entries are such entries.
    #[inline]
    fn short_entry<'a>(cursor: &mut Cursor<'a>) -> Option<Entry<'a>> {
        let (&first, rest) = cursor.rest().split_first()?;
        let (entry, bytes, rest) = match first {
            0..=0x7F => (Entry::Integer(i64::from(first)), 1, rest),
            0x80..=0xBF => {
                let (piece, rest) = rest.split_at_checked(usize::from(first & 0x3F))?;
                (Entry::Bytes { piece, is_first: true, is_last: true }, 1 + (first & 0x3F), rest)
            }
            _ => return None,
        };
        let (&back, rest) = rest.split_first()?;
        if back != bytes {
            return None;
        }
        cursor.go_to(rest);
        Some(entry)
    }

    #[inline]
    fn entry<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()> {
        let mut entry = match Self::short_entry(cursor) {
            Some(entry) => entry,
            None => match self.long_entry(cursor)? {
                Some(entry) => entry,
                None => return Ok(()),
            },
        };
        loop {
            give.give(entry)?;
            self.entries += 1;
            match Self::short_entry(cursor) {
                Some(next) => entry = next,
                None => return Ok(()),
            }
        }
    }

    fn long_entry<'a>(&mut self, cursor: &mut Cursor<'a>) -> Take<Option<Entry<'a>>> {
        let from = cursor.at();
        let first = cursor.byte()?;
        let (integer, text_bytes) = match first {
            0..=0x7F => (Some(i64::from(first)), 0),
            0x80..=0xBF => (None, u64::from(first & 0x3F)),
            0xC0..=0xDF => {
                let raw = u16::from(first & 0x1F) << 8 | u16::from(cursor.byte()?);
                // Thirteen bits, the highest of which is the sign.
                (Some(i64::from((raw << 3).cast_signed() >> 3)), 0)
            }
            0xE0..=0xEF => (None, u64::from(first & 0x0F) << 8 | u64::from(cursor.byte()?)),
            0xF0 => (None, u64::from(u32::from_le_bytes(cursor.array()?))),
            0xF1 => (Some(i64::from(i16::from_le_bytes(cursor.array()?))), 0),
            0xF2 => {
                let [low, middle, high] = cursor.array()?;
                (Some(i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)), 0)
            }
            0xF3 => (Some(i64::from(i32::from_le_bytes(cursor.array()?))), 0),
            0xF4 => (Some(i64::from_le_bytes(cursor.array()?)), 0),
            END => {
                self.end()?;
                return Ok(None);
            }
            _ => return corrupt("an entry of a listpack has no known encoding"),
        };
        let back = (cursor.at() - from) as u64 + text_bytes;
        if let Some(number) = integer {
            take_back(back, cursor)?;
            return Ok(Some(Entry::Integer(number)));
        }
        if OpenEntry::is_due(text_bytes + BACK_BYTES_MAX, cursor) {
            self.entries += 1;
            self.phase = Phase::Open(OpenEntry::new(text_bytes), back);
            return Ok(None);
        }
        let piece = cursor.take(text_bytes as usize)?;
        take_back(back, cursor)?;
        Ok(Some(Entry::Bytes { piece, is_first: true, is_last: true }))
    }

    fn end(&mut self) -> Take<()> {
        if self.count != COUNT_UNKNOWN && u64::from(self.count) != self.entries {
            return corrupt("a listpack does not contain the stated number of entries");
        }
        self.phase = Phase::Done;
        Ok(())
    }
}

impl Walk for Listpack {
    #[inline]
    fn step<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()> {
        match &mut self.phase {
            Phase::Entry => self.entry(cursor, give),
            Phase::Header => self.header(cursor),
            Phase::Open(open, back) => {
                if open.go_on(cursor, give)? {
                    self.phase = Phase::Back(*back);
                }
                Ok(())
            }
            Phase::Back(back) => {
                take_back(*back, cursor)?;
                self.phase = Phase::Entry;
                Ok(())
            }
            Phase::Done => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }
}

/// The length behind an entry (`lpEncodeBacklen`).
#[inline]
fn take_back(bytes: u64, cursor: &mut Cursor<'_>) -> Take<()> {
    if bytes < 128 {
        return if u64::from(cursor.byte()?) == bytes { Ok(()) } else { wrong_length() };
    }
    let least = match bytes {
        0..=16_383 => 2,
        16_384..=2_097_151 => 3,
        2_097_152..=268_435_455 => 4,
        _ => 5,
    };
    // For the largest length of a group size, Redis writes one more group and Valkey 9.1 does not.
    let is_longest = bytes == (1 << (7 * least)) - 1;
    let first = u64::from(cursor.byte()?);
    let others = if is_longest && first == 0 { least } else { least - 1 };
    if first != bytes >> (7 * others) {
        return wrong_length();
    }
    for group in (0..others).rev() {
        if u64::from(cursor.byte()?) != (bytes >> (7 * group) & 0x7F | 0x80) {
            return wrong_length();
        }
    }
    Ok(())
}

/// Passes the entries of a complete listpack on as strings.
pub(crate) fn texts_of_listpack(
    listpack: &[u8],
    give: impl FnMut(&[u8]) -> Result<(), DecodeErrorKind>,
) -> Result<(), DecodeErrorKind> {
    let mut walker = Listpack::new(listpack.len() as u64);
    walk(&mut walker, &mut Carry::default(), listpack, true, &mut Texts(give))
}

struct Texts<F>(F);

impl<F: FnMut(&[u8]) -> Result<(), DecodeErrorKind>> Give for Texts<F> {
    fn give(&mut self, entry: Entry<'_>) -> Result<(), DecodeErrorKind> {
        match entry {
            Entry::Integer(number) => (self.0)(itoa::Buffer::new().format(number).as_bytes()),
            Entry::Bytes { piece, is_first: true, is_last: true } => (self.0)(piece),
            Entry::Bytes { .. } => corrupt("an entry of a listpack extends beyond the listpack"),
        }
    }
}

fn wrong_length() -> Take<()> {
    corrupt("the length behind an entry of a listpack is wrong")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_behind_an_entry_is_that_of_redis_or_valkey() {
        for (bytes, back, is_right) in [
            (127, &[0x7F][..], true),
            (128, &[0x01, 0x80], true),
            (16_382, &[0x7F, 0xFE], true),
            (16_382, &[0, 0xFF, 0xFE], false),
            // Valkey 9.1, and Redis.
            (16_383, &[0x7F, 0xFF], true),
            (16_383, &[0, 0xFF, 0xFF], true),
            (16_384, &[0x01, 0x80, 0x80], true),
            (2_097_151, &[0x7F, 0xFF, 0xFF], true),
            (2_097_151, &[0, 0xFF, 0xFF, 0xFF], true),
            (2_097_151, &[0, 0, 0xFF, 0xFF, 0xFF], false),
            (1 << 28, &[1, 0x80, 0x80, 0x80, 0x80], true),
            (200, &[0x01, 0x48], false),
        ] {
            let mut cursor = Cursor::new(back);
            let is_taken = take_back(bytes, &mut cursor).is_ok() && cursor.left() == 0;
            assert_eq!(is_taken, is_right, "{bytes}: {back:x?}");
        }
    }
}
