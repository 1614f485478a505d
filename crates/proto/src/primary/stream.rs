//! What is sent behind the RDB.

use std::collections::VecDeque;

/// Signs of life for some hours.
pub(super) const STREAM_BYTES_MAX: usize = 256 << 10;

/// What was sent behind the RDB, so that a target that reconnects need not load it again.
///
/// Hand it from each session to the next. Of a long stream only the last 256 KiB are kept; a target
/// that lacks more gets the RDB again.
#[derive(Debug, Clone, Default)]
pub struct ReplicationStream {
    forgotten: u64,
    pub(super) kept: VecDeque<u8>,
}

impl ReplicationStream {
    /// Bytes sent behind the RDB so far.
    pub(super) fn sent(&self) -> u64 {
        self.forgotten + self.kept.len() as u64
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(STREAM_BYTES_MAX);
        self.kept.drain(..excess);
        self.forgotten += excess as u64;
    }

    /// What follows the first `had` bytes; `None` if it is forgotten, or was never sent.
    pub(super) fn after(&self, had: u64) -> Option<Vec<u8>> {
        let from = usize::try_from(had.checked_sub(self.forgotten)?).ok()?;
        (from <= self.kept.len()).then(|| self.kept.range(from..).copied().collect())
    }
}
