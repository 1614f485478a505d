//! The tail of a stream: metadata behind its entries (`rdbSaveObject`, `OBJ_STREAM`).

use std::fmt;
use std::ops::RangeInclusive;

use crate::carry::release;
use crate::cursor::Cursor;
use crate::error::{Take, corrupt};
use crate::limits::Limits;
use crate::opcode::StreamVersion;
use crate::raw::Visitor;
use crate::raw::value::Part;

/// Minus one: unknown, or never.
const UNKNOWN: u64 = u64::MAX;

/// An entry's identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    /// Milliseconds since 1970 by default.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// Decodes the 16 bytes of a key in the stream's tree.
    pub fn from_be_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(bytes);
        Self { ms: (number >> 64) as u64, seq: number as u64 }
    }

    /// Encodes the 16 bytes of a key in the stream's tree.
    pub fn to_be_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    fn take(cursor: &mut Cursor<'_>) -> Take<Self> {
        Ok(Self { ms: cursor.length()?, seq: cursor.length()? })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The beginning of a stream's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamMeta {
    /// Number of entries.
    pub length: u64,
    /// The last generated identifier.
    pub last_id: StreamId,
    /// The first entry's identifier (Redis 7.0 and later).
    pub first_id: Option<StreamId>,
    /// The largest deleted identifier (Redis 7.0 and later).
    pub max_deleted_id: Option<StreamId>,
    /// Entries added in total (Redis 7.0 and later).
    pub entries_added: Option<u64>,
    /// Number of groups, which follow.
    pub groups: u64,
}

/// A consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The last delivered identifier.
    pub last_id: StreamId,
    /// Entries read (Redis 7.0 and later), if the server knows the number.
    pub entries_read: Option<u64>,
    /// Number of pending entries, which follow; the consumers come behind them.
    pub pending: u64,
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingEntry {
    /// Its identifier.
    pub id: StreamId,
    /// Time of the last delivery, milliseconds since 1970.
    pub delivered_at_ms: u64,
    /// Number of deliveries.
    pub deliveries: u64,
}

/// A consumer of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumer<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Time of its last request, milliseconds since 1970.
    pub seen_at_ms: u64,
    /// Time of its last successful read or claim (Redis 7.2 and later), milliseconds since 1970;
    /// `None` also if there was none.
    pub active_at_ms: Option<u64>,
    /// Number of its pending entries, whose identifiers follow.
    pub pending: u64,
}

/// A part of a stream's tail, in the order of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPart<'a> {
    /// The beginning of the tail.
    Meta(StreamMeta),
    /// A group; its pending entries and its consumers follow.
    Group(Group<'a>),
    /// A pending entry of the group.
    Pending(PendingEntry),
    /// The number of consumers of the group.
    Consumers(u64),
    /// A consumer of the group.
    Consumer(Consumer<'a>),
    /// A pending entry of the consumer.
    ConsumerPending(StreamId),
    /// Ends the consumers of the group; the number of pending entries without a consumer, which
    /// follow (Redis 8.8 and later).
    Unowned(u64),
    /// A pending entry of the group without a consumer.
    UnownedPending(StreamId),
    /// The settings of idempotent producers (Redis 8.6 and later); the groups have ended.
    Producers(Producers),
    /// The name of a producer; its entries follow.
    Producer(&'a [u8]),
    /// An entry of the producer.
    ProducerEntry(ProducerEntry<'a>),
    /// The counters of all producers.
    ProducerTotals(ProducerTotals),
}

/// The settings of a stream for idempotent producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producers {
    /// Time in seconds for which the entries of a producer are remembered: 1 to 86,400.
    pub duration_seconds: u64,
    /// Number of remembered entries of a producer: 1 to 10,000.
    pub entries_max: u64,
    /// Number of producers, which follow.
    pub count: u64,
}

/// An entry of a producer, with the producer's own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerEntry<'a> {
    /// The producer's id for it.
    pub name: &'a [u8],
    /// The identifier in the stream.
    pub id: StreamId,
}

/// Counters over the lifetime of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerTotals {
    /// Entries added with a producer's id.
    pub added: u64,
    /// Duplicate entries, which were skipped.
    pub duplicates: u64,
}

/// The position in the tail.
#[derive(Debug)]
pub(crate) struct Tail {
    version: StreamVersion,
    phase: Phase,
    groups_left: u64,
    pending_left: u64,
    consumers_left: u64,
    consumer_pending_left: u64,
    /// Pending entries of the group that no consumer has claimed so far.
    unclaimed: u64,
    unowned_left: u64,
    producers_left: u64,
    producer_entries_left: u64,
    scratch: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Meta,
    Groups,
    Pending,
    ConsumerCount,
    Consumers,
    UnownedCount,
    Unowned,
    Producers,
    EachProducer,
    ProducerTotals,
    Done,
}

/// `CONFIG_STREAM_IDMP_*` of `server.h`.
const PRODUCER_SECONDS: RangeInclusive<u64> = 1..=86_400;
const PRODUCER_ENTRIES: RangeInclusive<u64> = 1..=10_000;

impl Tail {
    pub(crate) fn new(version: StreamVersion) -> Self {
        Self {
            version,
            phase: Phase::Meta,
            groups_left: 0,
            pending_left: 0,
            consumers_left: 0,
            consumer_pending_left: 0,
            unclaimed: 0,
            unowned_left: 0,
            producers_left: 0,
            producer_entries_left: 0,
            scratch: Vec::new(),
        }
    }

    /// Decodes one part; returns whether the tail has ended.
    pub(crate) fn step<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<bool> {
        match self.phase {
            Phase::Meta => {
                let meta = self.meta(cursor)?;
                self.groups_left = meta.groups;
                self.phase = Phase::Groups;
                visitor.part(Part::Stream(StreamPart::Meta(meta)))?;
                Ok(false)
            }
            Phase::Groups if self.groups_left == 0 => {
                let has_producers = self.version >= StreamVersion::V4;
                self.phase = if has_producers { Phase::Producers } else { Phase::Done };
                Ok(!has_producers)
            }
            Phase::Groups => {
                self.group(cursor, limits, visitor)?;
                Ok(false)
            }
            Phase::Pending
            | Phase::ConsumerCount
            | Phase::Consumers
            | Phase::UnownedCount
            | Phase::Unowned => {
                self.group_part(cursor, limits, visitor)?;
                Ok(false)
            }
            _ => self.producers(cursor, limits, visitor),
        }
    }

    /// Decodes one part of a group, behind its beginning.
    fn group_part<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
        match self.phase {
            Phase::Pending if self.pending_left == 0 => {
                self.phase = Phase::ConsumerCount;
                Ok(())
            }
            Phase::Pending => {
                let pending = PendingEntry {
                    id: StreamId::from_be_bytes(cursor.array()?),
                    delivered_at_ms: cursor.u64_le()?,
                    deliveries: cursor.length()?,
                };
                self.pending_left -= 1;
                visitor.part(Part::Stream(StreamPart::Pending(pending)))?;
                Ok(())
            }
            Phase::ConsumerCount => {
                self.consumers_left = cursor.length()?;
                self.phase = Phase::Consumers;
                visitor.part(Part::Stream(StreamPart::Consumers(self.consumers_left)))?;
                Ok(())
            }
            Phase::Consumers if self.consumer_pending_left > 0 => {
                let id = StreamId::from_be_bytes(cursor.array()?);
                self.consumer_pending_left -= 1;
                visitor.part(Part::Stream(StreamPart::ConsumerPending(id)))?;
                Ok(())
            }
            Phase::Consumers if self.consumers_left == 0 => {
                if self.version >= StreamVersion::V5 {
                    self.phase = Phase::UnownedCount;
                } else {
                    self.group_end();
                }
                Ok(())
            }
            Phase::Consumers => {
                self.consumer(cursor, limits, visitor)?;
                Ok(())
            }
            Phase::UnownedCount => {
                let unowned = cursor.length()?;
                if unowned > self.unclaimed {
                    return corrupt(
                        "a stream's group has fewer pending entries than entries without a \
                         consumer",
                    );
                }
                (self.unowned_left, self.phase) = (unowned, Phase::Unowned);
                visitor.part(Part::Stream(StreamPart::Unowned(unowned)))?;
                Ok(())
            }
            Phase::Unowned if self.unowned_left == 0 => {
                self.group_end();
                Ok(())
            }
            Phase::Unowned => {
                let id = StreamId::from_be_bytes(cursor.array()?);
                self.unowned_left -= 1;
                visitor.part(Part::Stream(StreamPart::UnownedPending(id)))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn group_end(&mut self) {
        self.groups_left -= 1;
        self.phase = Phase::Groups;
    }

    /// Decodes one part of the idempotent producers; returns whether the tail has ended.
    fn producers<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<bool> {
        let limit = limits.held_bytes_max;
        let part = match self.phase {
            Phase::Producers => {
                let producers = producers(cursor)?;
                (self.producers_left, self.phase) = (producers.count, Phase::EachProducer);
                StreamPart::Producers(producers)
            }
            Phase::EachProducer if self.producer_entries_left > 0 => {
                let name = cursor.held_text("a producer's id of an entry", limit)?;
                let id = StreamId::take(cursor)?;
                self.producer_entries_left -= 1;
                StreamPart::ProducerEntry(ProducerEntry {
                    name: name.decode(&mut self.scratch)?,
                    id,
                })
            }
            Phase::EachProducer if self.producers_left == 0 => {
                self.phase = Phase::ProducerTotals;
                return Ok(false);
            }
            Phase::EachProducer => {
                let name = cursor.held_text("the id of a stream's producer", limit)?;
                self.producer_entries_left = cursor.length()?;
                self.producers_left -= 1;
                StreamPart::Producer(name.decode(&mut self.scratch)?)
            }
            _ => {
                let (added, duplicates) = (cursor.length()?, cursor.length()?);
                self.phase = Phase::Done;
                StreamPart::ProducerTotals(ProducerTotals { added, duplicates })
            }
        };
        visitor.part(Part::Stream(part))?;
        release(&mut self.scratch);
        Ok(matches!(self.phase, Phase::Done))
    }

    fn meta(&self, cursor: &mut Cursor<'_>) -> Take<StreamMeta> {
        let is_v2 = self.version >= StreamVersion::V2;
        let length = cursor.length()?;
        let last_id = StreamId::take(cursor)?;
        let first_id = is_v2.then(|| StreamId::take(cursor)).transpose()?;
        let max_deleted_id = is_v2.then(|| StreamId::take(cursor)).transpose()?;
        let entries_added = is_v2.then(|| cursor.length()).transpose()?;
        let groups = cursor.length()?;
        Ok(StreamMeta { length, last_id, first_id, max_deleted_id, entries_added, groups })
    }

    fn group<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
        let name = cursor.held_text("the name of a stream's group", limits.held_bytes_max)?;
        let last_id = StreamId::take(cursor)?;
        let is_v2 = self.version >= StreamVersion::V2;
        let entries_read = is_v2.then(|| cursor.length()).transpose()?;
        let entries_read = entries_read.filter(|read| *read != UNKNOWN);
        let pending = cursor.length()?;
        let name = name.decode(&mut self.scratch)?;
        let group = Group { name, last_id, entries_read, pending };
        visitor.part(Part::Stream(StreamPart::Group(group)))?;
        release(&mut self.scratch);
        (self.pending_left, self.unclaimed) = (pending, pending);
        self.phase = Phase::Pending;
        Ok(())
    }

    fn consumer<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
        let name = cursor.held_text("the name of a stream's consumer", limits.held_bytes_max)?;
        let seen_at_ms = cursor.u64_le()?;
        let is_v3 = self.version >= StreamVersion::V3;
        let active_at_ms = is_v3.then(|| cursor.u64_le()).transpose()?;
        let active_at_ms = active_at_ms.filter(|at| *at != UNKNOWN);
        let pending = cursor.length()?;
        let Some(unclaimed) = self.unclaimed.checked_sub(pending) else {
            return corrupt(
                "the consumers of a stream's group have more pending entries than the \
                            group",
            );
        };
        let name = name.decode(&mut self.scratch)?;
        let consumer = Consumer { name, seen_at_ms, active_at_ms, pending };
        visitor.part(Part::Stream(StreamPart::Consumer(consumer)))?;
        release(&mut self.scratch);
        self.consumers_left -= 1;
        self.unclaimed = unclaimed;
        self.consumer_pending_left = pending;
        Ok(())
    }
}

fn producers(cursor: &mut Cursor<'_>) -> Take<Producers> {
    let (duration_seconds, entries_max) = (cursor.length()?, cursor.length()?);
    let count = cursor.length()?;
    if !PRODUCER_SECONDS.contains(&duration_seconds) || !PRODUCER_ENTRIES.contains(&entries_max) {
        return corrupt("the settings of a stream for idempotent producers are out of range");
    }
    Ok(Producers { duration_seconds, entries_max, count })
}
