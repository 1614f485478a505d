//! Intsets (`intset.c`): four bytes of width, four of length, then sorted numbers of that width.

use crate::cursor::Cursor;
use crate::error::{Take, corrupt};
use crate::packed::entry::{Entry, Give, Walk};

const HEADER_BYTES: u64 = 8;

/// Decodes an intset.
#[derive(Debug)]
pub(crate) struct Intset {
    /// Length of the enclosing string.
    bytes: u64,
    width: u32,
    /// Numbers that are still missing; unknown before the header.
    left: Option<u32>,
    last: Option<i64>,
}

impl Intset {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, width: 0, left: None, last: None }
    }
}

impl Walk for Intset {
    #[inline]
    fn step<G: Give>(&mut self, cursor: &mut Cursor<'_>, give: &mut G) -> Take<()> {
        let Some(left) = self.left else {
            self.width = u32::from_le_bytes(cursor.array()?);
            let length = u32::from_le_bytes(cursor.array()?);
            let bytes = HEADER_BYTES + u64::from(self.width) * u64::from(length);
            if !matches!(self.width, 2 | 4 | 8) || bytes != self.bytes || length == 0 {
                return corrupt("an intset's width and length do not fit its string");
            }
            self.left = Some(length);
            return Ok(());
        };
        let number = match self.width {
            2 => i64::from(i16::from_le_bytes(cursor.array()?)),
            4 => i64::from(i32::from_le_bytes(cursor.array()?)),
            _ => i64::from_le_bytes(cursor.array()?),
        };
        if self.last.is_some_and(|last| last >= number) {
            return corrupt("an intset is not sorted");
        }
        self.last = Some(number);
        self.left = left.checked_sub(1);
        Ok(give.give(Entry::Integer(number))?)
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carry::Carry;
    use crate::packed::entry::walk;

    struct Numbers(Vec<i64>);

    impl Give for Numbers {
        fn give(&mut self, entry: Entry<'_>) -> Result<(), crate::DecodeErrorKind> {
            if let Entry::Integer(number) = entry {
                self.0.push(number);
            }
            Ok(())
        }
    }

    fn numbers(intset: &[u8]) -> Option<Vec<i64>> {
        let mut numbers = Numbers(Vec::new());
        let mut walker = Intset::new(intset.len() as u64);
        walk(&mut walker, &mut Carry::default(), intset, true, &mut numbers).ok()?;
        Some(numbers.0)
    }

    #[test]
    fn numbers_are_sorted_and_unique() {
        assert_eq!(numbers(b"\x02\0\0\0\x02\0\0\0\xff\xff\x01\0"), Some(vec![-1, 1]));
        assert_eq!(numbers(b"\x02\0\0\0\x02\0\0\0\x01\0\x01\0"), None);
        assert_eq!(numbers(b"\x02\0\0\0\x02\0\0\0\x02\0\x01\0"), None);
    }
}
