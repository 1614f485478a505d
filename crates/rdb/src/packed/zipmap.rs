//! Zipmaps (`zipmap.c`), written by Redis up to 2.4.
//!
//! Layout: one byte of the number of pairs (254: unknown), the pairs, 0xFF. A field consists of its
//! length and its bytes; a value consists of its length, the number of unused bytes, its bytes, and
//! the unused bytes.

use crate::cursor::Cursor;
use crate::error::{Take, corrupt};
use crate::packed::entry::{Give, OpenEntry, Walk};

const COUNT_UNKNOWN: u8 = 254;
const LONG: u8 = 254;
const LONG_MIN: u64 = 254;
const END: u8 = 0xFF;

/// Decodes a zipmap.
#[derive(Debug)]
pub(crate) struct Zipmap {
    phase: Phase,
    count: u8,
    entries: u64,
}

#[derive(Debug)]
enum Phase {
    Header,
    Entry,
    /// Bytes of an entry, and the number of unused bytes behind it.
    Open(OpenEntry, u8),
    Unused(u8),
    Done,
}

impl Zipmap {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Header, count: 0, entries: 0 }
    }

    fn entry<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()> {
        let is_value = self.entries % 2 == 1;
        let bytes = match cursor.byte()? {
            END => return self.end(),
            LONG => match u64::from(u32::from_le_bytes(cursor.array()?)) {
                // Servers refuse this form (`zipmapValidateIntegrity`).
                0..LONG_MIN => return corrupt("a short entry of a zipmap has a long length"),
                long => long,
            },
            short => u64::from(short),
        };
        let unused = if is_value { cursor.byte()? } else { 0 };
        self.phase = match OpenEntry::begin(bytes, cursor, give)? {
            Some(open) => Phase::Open(open, unused),
            None => Phase::Unused(unused),
        };
        self.entries += 1;
        Ok(())
    }

    fn end(&mut self) -> Take<()> {
        let pairs = self.entries / 2;
        let is_right = self.count == COUNT_UNKNOWN || u64::from(self.count) == pairs;
        if self.entries % 2 == 1 || !is_right || pairs == 0 {
            return corrupt("a zipmap does not contain the stated number of pairs");
        }
        self.phase = Phase::Done;
        Ok(())
    }
}

impl Walk for Zipmap {
    fn step<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()> {
        match &mut self.phase {
            Phase::Header => {
                self.count = cursor.byte()?;
                self.phase = Phase::Entry;
                Ok(())
            }
            Phase::Entry => self.entry(cursor, give),
            Phase::Open(open, unused) => {
                if open.go_on(cursor, give)? {
                    self.phase = Phase::Unused(*unused);
                }
                Ok(())
            }
            Phase::Unused(unused) => {
                cursor.take(usize::from(*unused))?;
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
