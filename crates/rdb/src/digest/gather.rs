//! Hashes of records.

use std::fmt;

use twox_hash::XxHash3_128;

use crate::limits::whole_bytes;

/// A record up to this length is buffered and hashed at once.
const GATHERED_BYTES: usize = whole_bytes(64 << 10);

/// Collects a record and hashes it; a long record is hashed while it arrives.
#[derive(Default)]
pub(super) struct Gather {
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
    pub(super) fn push(&mut self, bytes: &[u8]) {
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

    /// Returns the hash of the record and begins a new one.
    #[inline]
    pub(super) fn hash(&mut self) -> u128 {
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

    #[inline]
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.long = None;
    }
}
