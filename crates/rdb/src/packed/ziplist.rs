//! Ziplists (`ziplist.c`), written by Redis up to 6.2.
//!
//! Layout: four bytes of total length, four of the last entry's position, two of the number of
//! entries (65535: unknown), the entries, 0xFF. An entry consists of the length of the preceding
//! entry, its encoding, and its bytes.

use crate::cursor::Cursor;
use crate::error::{Take, corrupt};
use crate::packed::entry::{Entry, Give, OpenEntry, Walk};

const HEADER_BYTES: u64 = 10;
const COUNT_UNKNOWN: u16 = u16::MAX;
const LONG_PREVIOUS: u8 = 254;
const END: u8 = 0xFF;

/// Decodes a ziplist.
#[derive(Debug)]
pub(crate) struct Ziplist {
    /// Length of the enclosing string.
    bytes: u64,
    phase: Phase,
    tail: u64,
    count: u16,
    entries: u64,
    /// Position of the next entry, and length of the preceding one.
    at: u64,
    previous: u64,
}

#[derive(Debug)]
enum Phase {
    Header,
    Entry,
    Open(OpenEntry),
    Done,
}

impl Ziplist {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            phase: Phase::Header,
            tail: 0,
            count: 0,
            entries: 0,
            at: HEADER_BYTES,
            previous: 0,
        }
    }

    fn header(&mut self, cursor: &mut Cursor<'_>) -> Take<()> {
        let bytes = u32::from_le_bytes(cursor.array()?);
        self.tail = u64::from(u32::from_le_bytes(cursor.array()?));
        self.count = u16::from_le_bytes(cursor.array()?);
        if u64::from(bytes) != self.bytes || self.bytes <= HEADER_BYTES {
            return corrupt("a ziplist's length differs from the length of its string");
        }
        self.phase = Phase::Entry;
        Ok(())
    }

    #[inline]
    fn entry<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()> {
        let from = cursor.at();
        let previous = match cursor.byte()? {
            END => return self.end(),
            LONG_PREVIOUS => u64::from(u32::from_le_bytes(cursor.array()?)),
            short => u64::from(short),
        };
        if previous != self.previous {
            return corrupt("an entry of a ziplist has a wrong length of its preceding entry");
        }
        let first = cursor.byte()?;
        let (integer, text_bytes) = match first {
            0x00..=0x3F => (None, u64::from(first)),
            0x40..=0x7F => (None, u64::from(first & 0x3F) << 8 | u64::from(cursor.byte()?)),
            0x80 => (None, u64::from(u32::from_be_bytes(cursor.array()?))),
            0xC0 => (Some(i64::from(i16::from_le_bytes(cursor.array()?))), 0),
            0xD0 => (Some(i64::from(i32::from_le_bytes(cursor.array()?))), 0),
            0xE0 => (Some(i64::from_le_bytes(cursor.array()?)), 0),
            0xF0 => {
                let [low, middle, high] = cursor.array()?;
                (Some(i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)), 0)
            }
            0xFE => (Some(i64::from(i8::from_le_bytes(cursor.array()?))), 0),
            0xF1..=0xFD => (Some(i64::from(first & 0x0F) - 1), 0),
            _ => return corrupt("an entry of a ziplist has no known encoding"),
        };
        let bytes = (cursor.at() - from) as u64 + text_bytes;
        match integer {
            Some(number) => give.give(Entry::Integer(number))?,
            None => {
                if let Some(open) = OpenEntry::begin(text_bytes, cursor, give)? {
                    self.phase = Phase::Open(open);
                }
            }
        }
        self.entries += 1;
        self.at += bytes;
        self.previous = bytes;
        Ok(())
    }

    fn end(&mut self) -> Take<()> {
        if self.tail != self.at - self.previous {
            return corrupt("a ziplist has a wrong position of its last entry");
        }
        if self.count != COUNT_UNKNOWN && u64::from(self.count) != self.entries {
            return corrupt("a ziplist does not contain the stated number of entries");
        }
        self.phase = Phase::Done;
        Ok(())
    }
}

impl Walk for Ziplist {
    #[inline]
    fn step<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()> {
        match &mut self.phase {
            Phase::Entry => self.entry(cursor, give),
            Phase::Header => self.header(cursor),
            Phase::Open(open) => {
                if open.go_on(cursor, give)? {
                    self.phase = Phase::Entry;
                }
                Ok(())
            }
            Phase::Done => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }
}
