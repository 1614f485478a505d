//! Checks the parts of a stream against each other: states that every server refuses to load are
//! damage.
//!
//! The check holds names and identifiers up to a limit per stream. Names and identifiers beyond the
//! limit are not compared; ADR 0006 lists the accepted faults.

use std::collections::HashSet;

use crate::error::{DecodeErrorKind, corrupt};
use crate::limits::whole_bytes;
use crate::raw::{StreamId, StreamMeta, StreamPart};

/// Maximum size in bytes of each compared list of a stream: 200,000 pending entries of a group, or
/// 250,000 nodes.
const HELD_BYTES_MAX: usize = whole_bytes(4 << 20);
/// Overhead of a name in bytes.
const NAME_OVERHEAD_BYTES: usize = 48;

/// Compares the parts of streams.
#[derive(Debug, Default)]
pub(super) struct StreamCheck {
    /// Whether a part of a stream has occurred.
    is_used: bool,
    nodes: Nodes,
    groups: Names,
    consumers: Names,
    producers: Names,
    pending: Pending,
}

impl StreamCheck {
    /// Begins a value, which may be a stream.
    #[inline]
    pub(super) fn begin(&mut self) {
        if self.is_used {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        *self = Self::default();
    }

    /// Begins a node with this identifier.
    pub(super) fn node(&mut self, id: StreamId) -> Result<(), DecodeErrorKind> {
        self.is_used = true;
        self.nodes.add(id)
    }

    /// A part of the tail.
    pub(super) fn part(&mut self, part: &StreamPart<'_>) -> Result<(), DecodeErrorKind> {
        self.is_used = true;
        match part {
            StreamPart::Meta(meta) => self.meta(meta),
            StreamPart::Group(group) => {
                self.pending = Pending::default();
                self.consumers = Names::default();
                self.groups.add(group.name, "a stream contains a group twice")
            }
            StreamPart::Pending(pending) => self.pending.add(pending.id),
            StreamPart::Consumers(_) => self.pending.seal(),
            StreamPart::Consumer(consumer) => {
                self.pending.next_owner();
                self.consumers.add(consumer.name, "a stream's group contains a consumer twice")
            }
            StreamPart::Unowned(_) => {
                self.pending.next_owner();
                Ok(())
            }
            StreamPart::ConsumerPending(id) | StreamPart::UnownedPending(id) => {
                self.pending.claim(*id)
            }
            StreamPart::Producer(name) => self.producers.add(
                name,
                "a stream contains a producer \
                twice",
            ),
            StreamPart::Producers(_)
            | StreamPart::ProducerEntry(_)
            | StreamPart::ProducerTotals(_) => Ok(()),
        }
    }

    fn meta(&mut self, meta: &StreamMeta) -> Result<(), DecodeErrorKind> {
        self.nodes.finish()?;
        if meta.length > 0 && self.nodes.count == 0 {
            return corrupt("a stream without nodes has a positive number of entries");
        }
        Ok(())
    }
}

/// The identifiers of a stream's nodes.
#[derive(Debug, Default)]
struct Nodes {
    count: u64,
    last: Option<StreamId>,
    /// All identifiers, as long as the limit permits.
    ids: Vec<[u8; 16]>,
    is_unsorted: bool,
}

impl Nodes {
    fn add(&mut self, id: StreamId) -> Result<(), DecodeErrorKind> {
        match self.last {
            Some(last) if last == id => return twice(),
            Some(last) if last > id => self.is_unsorted = true,
            _ => {}
        }
        self.count += 1;
        self.last = Some(id);
        if self.ids.len() < HELD_BYTES_MAX / size_of::<StreamId>() {
            self.ids.push(id.to_be_bytes());
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DecodeErrorKind> {
        if std::mem::take(&mut self.is_unsorted) {
            self.ids.sort_unstable();
            if self.ids.array_windows().any(|[one, next]| one == next) {
                return twice();
            }
        }
        self.ids = Vec::new();
        Ok(())
    }
}

fn twice<T>() -> Result<T, DecodeErrorKind> {
    corrupt("a stream contains a node twice")
}

/// Names that must be unique.
#[derive(Debug, Default)]
struct Names {
    names: HashSet<Box<[u8]>>,
    bytes: usize,
}

impl Names {
    fn add(&mut self, name: &[u8], twice: &'static str) -> Result<(), DecodeErrorKind> {
        if self.names.contains(name) {
            return corrupt(twice);
        }
        let bytes = self.bytes + name.len() + NAME_OVERHEAD_BYTES;
        if bytes <= HELD_BYTES_MAX {
            self.bytes = bytes;
            self.names.insert(name.into());
        }
        Ok(())
    }
}

/// The pending entries of a group, and the consumers that claimed them.
#[derive(Debug, Default)]
struct Pending {
    entries: Vec<PendingId>,
    is_unsorted: bool,
    /// The limit is exceeded: the entries are not compared.
    is_beyond: bool,
    owner: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PendingId {
    /// The encoding of the stream's tree, whose order is that of the identifiers.
    id: [u8; 16],
    /// The last consumer that claimed the entry, from 1; 0 for none.
    owner: u32,
}

impl Pending {
    fn add(&mut self, id: StreamId) -> Result<(), DecodeErrorKind> {
        if self.is_beyond || self.entries.len() >= HELD_BYTES_MAX / size_of::<PendingId>() {
            (self.is_beyond, self.entries) = (true, Vec::new());
            return Ok(());
        }
        let id = id.to_be_bytes();
        match self.entries.last() {
            Some(last) if last.id == id => return pending_twice(),
            Some(last) if last.id > id => self.is_unsorted = true,
            _ => {}
        }
        self.entries.push(PendingId { id, owner: 0 });
        Ok(())
    }

    /// Whether all entries have occurred.
    fn seal(&mut self) -> Result<(), DecodeErrorKind> {
        if std::mem::take(&mut self.is_unsorted) {
            self.entries.sort_unstable();
            if self.entries.array_windows().any(|[one, next]| one.id == next.id) {
                return pending_twice();
            }
        }
        Ok(())
    }

    fn next_owner(&mut self) {
        self.owner = self.owner.wrapping_add(1);
    }

    fn claim(&mut self, id: StreamId) -> Result<(), DecodeErrorKind> {
        if self.is_beyond {
            return Ok(());
        }
        let id = id.to_be_bytes();
        let Ok(at) = self.entries.binary_search_by_key(&id, |entry| entry.id) else {
            return corrupt("a consumer has a pending entry that its group lacks");
        };
        let entry = &mut self.entries[at];
        if entry.owner == self.owner {
            return corrupt("a consumer has a pending entry twice");
        }
        entry.owner = self.owner;
        Ok(())
    }
}

fn pending_twice<T>() -> Result<T, DecodeErrorKind> {
    corrupt("a stream's group has a pending entry twice")
}
