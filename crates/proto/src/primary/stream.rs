//! The replication stream behind the RDB.

use std::collections::VecDeque;

/// Enough for the keep-alives of some hours.
pub(super) const STREAM_BYTES_MAX: usize = 256 << 10;

/// The stream that was sent behind the RDB. With it, a target that reconnects need not load the RDB
/// again.
///
/// Pass it from each session to the next. Of a long stream only the last 256 KiB are kept; a target
/// that lacks more receives the RDB again.
#[derive(Debug, Clone, Default)]
pub struct ReplicationStream {
    forgotten: u64,
    pub(super) kept: VecDeque<u8>,
}

impl ReplicationStream {
    /// Bytes of the stream so far.
    pub(super) fn sent(&self) -> u64 {
        self.forgotten + self.kept.len() as u64
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(STREAM_BYTES_MAX);
        self.kept.drain(..excess);
        self.forgotten += excess as u64;
    }

    /// The bytes behind the first `had` bytes; `None` if they were dropped, or never sent.
    pub(super) fn after(&self, had: u64) -> Option<Vec<u8>> {
        let from = usize::try_from(had.checked_sub(self.forgotten)?).ok()?;
        (from <= self.kept.len()).then(|| self.kept.range(from..).copied().collect())
    }
}
