//! Streams whose counters contradict each other: all servers up to Redis 8.6 and Valkey 9.1 load them,
//! and Redis 8.8 ends while it does (`rdbLoadObject`).

use serde::{Deserialize, Serialize};

use crate::raw::StreamPart;

/// Streams listed one by one.
const LISTED_MAX: usize = 16;
/// More than any server counts to (`LLONG_MAX`).
const COUNT_MAX: u64 = i64::MAX as u64;

/// Streams that some servers refuse to load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InconsistentStreams {
    /// How many there are.
    pub count: u64,
    /// The first 16 of them.
    pub listed: Vec<InconsistentStream>,
}

/// A stream that some servers refuse to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InconsistentStream {
    /// The place of its key in the data set, from 1.
    pub place: u64,
    /// What contradicts what; the first that was found.
    pub reason: StreamInconsistency,
}

/// How the counters of a stream contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamInconsistency {
    /// It has fewer entries added than it holds, or more than can be counted.
    EntriesAdded,
    /// A group has read more entries than were added.
    EntriesRead,
    /// Its length is not the number of its entries.
    Length,
}

impl StreamInconsistency {
    /// The contradiction in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EntriesAdded => {
                "its entries-added counter is below its length, or beyond what can be counted"
            }
            Self::EntriesRead => "a group's entries-read counter exceeds its entries-added counter",
            Self::Length => "its length differs from the number of its entries",
        }
    }
}

/// Gathers the facts.
#[derive(Debug, Default)]
pub(super) struct StreamFacts {
    found: InconsistentStreams,
    current: Option<Current>,
}

/// What is known of the stream that is passing.
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
                // Where a file has no counter a server takes the length.
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

    /// The key at this place has ended; a stream has so many entries that live.
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
