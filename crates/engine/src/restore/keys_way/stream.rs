//! Streams that are too large for one command.

use cachevault_rdb::raw::{Consumer, Group, PendingEntry, StreamId, StreamMeta, StreamPart};

use crate::restore::error::RestoreError;
use crate::restore::keys_way::chunk::{Reason, Sender};
use crate::restore::keys_way::split::Batch;
use crate::restore::keys_way::{Abilities, shown};

/// A group's pending entries are told before whose they are, so they have to be held.
const PENDING_MAX: usize = 2 << 20;
/// A group with this name exists for a moment while a stream without entries is made.
const PASSING_GROUP: &[u8] = b"0";

/// Gathers a stream's parts into commands.
#[derive(Debug, Default)]
pub(super) struct StreamWriter {
    entry: Option<StreamId>,
    pairs: Batch,
    /// An entry was written: the stream is there.
    has_begun: bool,
    group: Vec<u8>,
    pending: Vec<PendingEntry>,
    consumer: Vec<u8>,
    claims: Batch,
    /// When and how often what is claimed was delivered.
    claimed: (u64, u64),
}

impl StreamWriter {
    /// An entry begins.
    pub(super) fn entry(&mut self, id: StreamId, name: &[u8], sender: &mut Sender) {
        self.send_entry(name, sender);
        self.entry = Some(id);
    }

    /// A field of the entry and its value.
    pub(super) fn pair(&mut self, field: &[u8], value: &[u8]) {
        self.pairs.push(field);
        self.pairs.push(value);
    }

    fn send_entry(&mut self, name: &[u8], sender: &mut Sender) {
        if let Some(id) = self.entry.take() {
            let id = id.to_string();
            self.pairs.send("XADD", &[b"XADD", name, id.as_bytes()], sender);
            self.has_begun = true;
        }
    }

    /// A part of what follows the entries.
    pub(super) fn part(
        &mut self,
        part: StreamPart<'_>,
        abilities: Abilities,
        name: &[u8],
        sender: &mut Sender,
    ) -> Result<(), RestoreError> {
        match part {
            StreamPart::Meta(meta) => self.meta(&meta, abilities, name, sender),
            StreamPart::Group(group) => self.begin_group(&group, abilities, name, sender),
            StreamPart::Pending(_) if self.pending.len() == PENDING_MAX => {
                return Err(RestoreError::TooLarge {
                    key: shown(sender.key()),
                    what: "the list of pending entries of one of its groups",
                    limit: (PENDING_MAX * size_of::<PendingEntry>()) as u64,
                });
            }
            StreamPart::Pending(pending) => self.pending.push(pending),
            StreamPart::Consumers(_) => self.pending.sort_unstable_by_key(|pending| pending.id),
            StreamPart::Consumer(consumer) => {
                self.begin_consumer(&consumer, abilities, name, sender);
            }
            StreamPart::ConsumerPending(id) => self.claim(id, name, sender),
            StreamPart::UnownedPending(_) => {
                return Err(RestoreError::TooLarge {
                    key: shown(sender.key()),
                    what: "its payload, with pending entries of no consumer,",
                    limit: abilities.payload_max,
                });
            }
            // What producers are known for is forgotten within a day in any case.
            StreamPart::Unowned(_)
            | StreamPart::Producers(_)
            | StreamPart::Producer(_)
            | StreamPart::ProducerEntry(_)
            | StreamPart::ProducerTotals(_) => {}
        }
        Ok(())
    }

    fn meta(&mut self, meta: &StreamMeta, abilities: Abilities, name: &[u8], sender: &mut Sender) {
        self.send_entry(name, sender);
        if !self.has_begun {
            let create: [&[u8]; 6] = [b"XGROUP", b"CREATE", name, PASSING_GROUP, b"$", b"MKSTREAM"];
            sender.push(Reason::Part("XGROUP CREATE"), &create);
            let destroy: [&[u8]; 4] = [b"XGROUP", b"DESTROY", name, PASSING_GROUP];
            sender.push(Reason::Part("XGROUP DESTROY"), &destroy);
        }
        let last_id = meta.last_id.to_string();
        let mut command: Vec<&[u8]> = vec![b"XSETID", name, last_id.as_bytes()];
        let (added, deleted);
        if let (Some(entries_added), Some(max_deleted_id), true) =
            (meta.entries_added, meta.max_deleted_id, abilities.has_stream_counts)
        {
            (added, deleted) = (entries_added.to_string(), max_deleted_id.to_string());
            command.extend([b"ENTRIESADDED", added.as_bytes()]);
            command.extend([b"MAXDELETEDID", deleted.as_bytes()]);
        }
        sender.push(Reason::Part("XSETID"), &command);
        sender.flush_if_full(true);
    }

    fn begin_group(
        &mut self,
        group: &Group<'_>,
        abilities: Abilities,
        name: &[u8],
        sender: &mut Sender,
    ) {
        self.send_claims(name, sender);
        self.pending.clear();
        self.group = group.name.to_vec();
        let last_id = group.last_id.to_string();
        let mut command: Vec<&[u8]> =
            vec![b"XGROUP", b"CREATE", name, group.name, last_id.as_bytes()];
        let read;
        if let (Some(entries_read), true) = (group.entries_read, abilities.has_stream_counts) {
            read = entries_read.to_string();
            command.extend([b"ENTRIESREAD", read.as_bytes()]);
        }
        sender.push(Reason::Part("XGROUP CREATE"), &command);
        sender.flush_if_full(true);
    }

    fn begin_consumer(
        &mut self,
        consumer: &Consumer<'_>,
        abilities: Abilities,
        name: &[u8],
        sender: &mut Sender,
    ) {
        self.send_claims(name, sender);
        self.consumer = consumer.name.to_vec();
        let (group, consumer) = (&self.group[..], consumer.name);
        if abilities.can_create_consumers {
            let command: [&[u8]; 5] = [b"XGROUP", b"CREATECONSUMER", name, group, consumer];
            sender.push(Reason::Part("XGROUP CREATECONSUMER"), &command);
        } else {
            // Who asks for what is pending becomes a consumer, and nothing else changes.
            let command: [&[u8]; 9] =
                [b"XREADGROUP", b"GROUP", group, consumer, b"COUNT", b"1", b"STREAMS", name, b"0"];
            sender.push(Reason::Part("XREADGROUP"), &command);
        }
        sender.flush_if_full(true);
    }

    fn claim(&mut self, id: StreamId, name: &[u8], sender: &mut Sender) {
        let Ok(found) = self.pending.binary_search_by_key(&id, |pending| pending.id) else {
            return;
        };
        let PendingEntry { delivered_at_ms, deliveries, .. } = self.pending[found];
        let how = (delivered_at_ms, deliveries);
        if how != self.claimed || self.claims.is_full() {
            self.send_claims(name, sender);
            self.claimed = how;
        }
        self.claims.push(id.to_string().as_bytes());
    }

    fn send_claims(&mut self, name: &[u8], sender: &mut Sender) {
        if self.claims.count == 0 {
            return;
        }
        let (at, times) = (self.claimed.0.to_string(), self.claimed.1.to_string());
        let options: [&[u8]; 6] =
            [b"TIME", at.as_bytes(), b"RETRYCOUNT", times.as_bytes(), b"FORCE", b"JUSTID"];
        options.iter().for_each(|option| self.claims.push(option));
        let first: [&[u8]; 5] = [b"XCLAIM", name, &self.group, &self.consumer, b"0"];
        self.claims.send("XCLAIM", &first, sender);
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, name: &[u8], sender: &mut Sender) {
        self.send_claims(name, sender);
    }
}
