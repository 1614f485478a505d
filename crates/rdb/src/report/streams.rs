//! Streams with inconsistent counters: all servers up to Redis 8.6 and Valkey 9.1 load them, and
//! Redis 8.8 exits while it loads them (`rdbLoadObject`).

use serde::{Deserialize, Serialize};

use crate::raw::StreamPart;

/// Maximum number of listed streams.
const LISTED_MAX: usize = 16;
/// Maximum of a server's counter (`LLONG_MAX`).
const COUNT_MAX: u64 = i64::MAX as u64;

/// Streams that some servers refuse to load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InconsistentStreams {
    /// Number of such streams.
    pub count: u64,
    /// The first 16 of them.
    pub listed: Vec<InconsistentStream>,
}

/// A stream that some servers refuse to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InconsistentStream {
    /// The number of its key in the data set, from 1.
    pub place: u64,
    /// The first inconsistency of the stream.
    pub reason: StreamInconsistency,
}

/// An inconsistency between counters of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamInconsistency {
    /// The entries-added counter is below the number of entries, or out of range.
    EntriesAdded,
    /// A group has read more entries than were added.
    EntriesRead,
    /// Its length differs from the number of its entries.
    Length,
}

impl StreamInconsistency {
    /// The description of the inconsistency.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EntriesAdded => "its entries-added counter is below its length or out of range",
            Self::EntriesRead => "a group's entries-read counter exceeds its entries-added counter",
            Self::Length => "its length differs from the number of its entries",
        }
    }
}

/// Collects inconsistent streams.
#[derive(Debug, Default)]
pub(super) struct StreamFacts {
    found: InconsistentStreams,
    current: Option<Current>,
}

/// The current stream.
#[derive(Debug, Clone, Copy)]
struct Current {
    length: u64,
    entries_added: u64,
    reason: Option<StreamInconsistency>,
}

impl StreamFacts {
    pub(super) fn part(&mut self, part: StreamPart<'_>) {
        match (part, &mut self.current) {
            (StreamPart::Meta(meta), _) => {
                // If a file has no counter, a server uses the length.
                let entries_added = meta.entries_added.unwrap_or(meta.length);
                let is_right = (meta.length..=COUNT_MAX).contains(&entries_added);
                self.current = Some(Current {
                    length: meta.length,
                    entries_added,
                    reason: (!is_right).then_some(StreamInconsistency::EntriesAdded),
                });
            }
            (StreamPart::Group(group), Some(current))
                if group.entries_read.is_some_and(|read| read > current.entries_added) =>
            {
                current.reason.get_or_insert(StreamInconsistency::EntriesRead);
            }
            _ => {}
        }
    }

    /// Ends the key of this number; `entries` is the number of live entries of a stream.
    pub(super) fn key_end(&mut self, place: u64, entries: u64) {
        let Some(current) = self.current.take() else { return };
        let by_length = (current.length != entries).then_some(StreamInconsistency::Length);
        let Some(reason) = current.reason.or(by_length) else { return };
        self.found.count += 1;
        if self.found.listed.len() < LISTED_MAX {
            self.found.listed.push(InconsistentStream { place, reason });
        }
    }

    pub(super) fn finish(self) -> InconsistentStreams {
        self.found
    }
}
