//! Commands on their way to the target, bounded by their bytes.

use std::sync::Arc;

use bytes::Bytes;
use cachevault_proto::{begin_argument, begin_command, push_argument};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What is encoded and not yet answered, on all connections together; one larger chunk may be on
/// its way alone.
const BUDGET_BYTES: usize = 8 << 20;
/// Commands are handed over when they are so long together.
const CHUNK_BYTES: usize = 64 << 10;
/// A longer payload is sent from where it is, without another copy.
const COPIED_BYTES: usize = 16 << 10;
/// Most strings that one command sets: more save nothing.
const STRINGS_MAX: u32 = 64;
/// A command that is so long is not made longer.
const STRINGS_BYTES: usize = 32 << 10;

/// What is done with a command's reply.
#[derive(Debug)]
pub(super) enum Reason {
    /// A whole key was restored.
    Restore,
    /// So many strings were set at once.
    Strings(u32),
    /// The named library of functions was loaded.
    Function(String),
    /// A part of a value was written.
    Part(&'static str),
    /// All of a value was written; whether it is there tells whether anything of it lives.
    Last,
    /// Nothing may be there.
    Look,
    /// No library of functions of this name may be there.
    LookFunction(String),
    /// The producer waits for whether the key is there.
    Ask(oneshot::Sender<bool>),
}

/// What is expected of the reply to a command.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) reason: Reason,
    /// Number of the key that it is about, the first one of several.
    pub(super) key: u64,
}

/// Commands that go through one connection, one behind the other.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Number of the database that they are about.
    pub(super) database: u64,
    pub(super) head: Bytes,
    /// What follows the head: a payload and what follows it.
    pub(super) tail: Option<(Bytes, Bytes)>,
    pub(super) expected: Vec<Expected>,
    /// Whether the next chunk goes through the same connection.
    pub(super) goes_on: bool,
    /// Told when all of it was answered, and nothing refused.
    pub(super) accepted: Option<oneshot::Sender<()>>,
    /// Room in the budget, given back when all is answered.
    pub(super) room: OwnedSemaphorePermit,
}

/// The way from the producer to the connections. With `asks_first` the first command goes alone, and the
/// others only when it was accepted: a target that refuses it has not been touched.
pub(super) fn chunks(asks_first: bool) -> (Sender, mpsc::UnboundedReceiver<Chunk>) {
    // The budget bounds it.
    let (chunks, receiver) = mpsc::unbounded_channel();
    let sender = Sender {
        chunks,
        budget: Arc::new(Semaphore::new(BUDGET_BYTES)),
        runtime: Handle::current(),
        database: 0,
        key: 0,
        head: Vec::with_capacity(CHUNK_BYTES * 2),
        tail: None,
        expected: Vec::new(),
        strings: Strings::default(),
        is_first: asks_first,
        is_gone: false,
    };
    (sender, receiver)
}

/// Gathers commands into chunks. It blocks its thread while there is no room.
pub(super) struct Sender {
    chunks: mpsc::UnboundedSender<Chunk>,
    budget: Arc<Semaphore>,
    runtime: Handle,
    database: u64,
    /// Number of the key that commands are about now.
    key: u64,
    head: Vec<u8>,
    tail: Option<(Bytes, Bytes)>,
    expected: Vec<Expected>,
    strings: Strings,
    /// Whether the next command goes alone.
    is_first: bool,
    is_gone: bool,
}

/// Strings that one command is to set.
#[derive(Debug, Default)]
struct Strings {
    count: u32,
    /// Number of the first one.
    key: u64,
    first: Vec<u8>,
    /// What follows the first one's name, encoded.
    rest: Vec<u8>,
}

impl Sender {
    /// Whether nobody takes commands any more.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Says that the next commands are about the next key of the backup.
    pub(super) fn next_key(&mut self) {
        self.key += 1;
    }

    /// Number of the key that commands are about now: its place in the backup, from 1.
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// Says which database the next commands are about.
    pub(super) fn select(&mut self, database: u64) {
        if database != self.database {
            self.flush(false);
            self.database = database;
        }
    }

    /// Adds a command.
    pub(super) fn push(&mut self, reason: Reason, arguments: &[&[u8]]) {
        self.push_encoded(reason, self.key, arguments, 0, &[]);
    }

    /// Adds a command about a key that begins with `first` and goes on with `count` arguments that
    /// are encoded in `rest` already.
    pub(super) fn push_encoded(
        &mut self,
        reason: Reason,
        key: u64,
        first: &[&[u8]],
        count: usize,
        rest: &[u8],
    ) {
        begin_command(&mut self.head, first.len() + count);
        first.iter().for_each(|argument| push_argument(&mut self.head, argument));
        self.head.extend_from_slice(rest);
        self.expected.push(Expected { reason, key });
        if self.is_first {
            self.flush(false);
        }
    }

    /// Adds a string without expiry, which takes the place of whatever has its name. Servers take
    /// several by one command in half the time that a `RESTORE` for each would take.
    pub(super) fn push_string(&mut self, name: &[u8], value: &[u8]) {
        let strings = &mut self.strings;
        if strings.count == 0 {
            strings.key = self.key;
            strings.first.extend_from_slice(name);
        } else {
            push_argument(&mut strings.rest, name);
        }
        push_argument(&mut strings.rest, value);
        strings.count += 1;
        let is_full = strings.count == STRINGS_MAX || strings.rest.len() >= STRINGS_BYTES;
        if is_full || self.is_first {
            self.end_strings();
            self.flush_if_full(false);
        }
    }

    fn end_strings(&mut self) {
        let Strings { count, key, first, mut rest } = std::mem::take(&mut self.strings);
        if count > 0 {
            let behind = count as usize * 2 - 1;
            self.push_encoded(Reason::Strings(count), key, &[b"MSET", &first], behind, &rest);
        }
        rest.clear();
        self.strings.rest = rest;
    }

    /// Adds `RESTORE` of a whole key.
    pub(super) fn push_restore(
        &mut self,
        name: &[u8],
        ttl: &[u8],
        payload: Vec<u8>,
        options: &[&[u8]],
    ) {
        // Nothing can be added behind a payload that is not copied.
        if payload.len() > COPIED_BYTES {
            self.end_strings();
        }
        begin_command(&mut self.head, 4 + options.len());
        push_argument(&mut self.head, b"RESTORE");
        push_argument(&mut self.head, name);
        push_argument(&mut self.head, ttl);
        self.expected.push(Expected { reason: Reason::Restore, key: self.key });
        if payload.len() <= COPIED_BYTES {
            push_argument(&mut self.head, &payload);
            options.iter().for_each(|option| push_argument(&mut self.head, option));
            self.flush_if_full(false);
            return;
        }
        begin_argument(&mut self.head, payload.len());
        let mut end = b"\r\n".to_vec();
        options.iter().for_each(|option| push_argument(&mut end, option));
        self.tail = Some((payload.into(), end.into()));
        self.flush(false);
    }

    /// Hands over what has been gathered, if it is enough.
    pub(super) fn flush_if_full(&mut self, goes_on: bool) {
        if self.head.len() >= CHUNK_BYTES || self.is_first {
            self.flush(goes_on);
        }
    }

    /// Hands over what has been gathered; `goes_on` says that what follows belongs to it.
    pub(super) fn flush(&mut self, goes_on: bool) {
        self.end_strings();
        if self.expected.is_empty() || self.is_gone {
            self.head.clear();
            self.expected.clear();
            self.tail = None;
            return;
        }
        let head = std::mem::replace(&mut self.head, Vec::with_capacity(CHUNK_BYTES * 2));
        let tail = self.tail.take();
        let tail_len = tail.as_ref().map_or(0, |(payload, end)| payload.len() + end.len());
        let bytes = (head.len() + tail_len).min(BUDGET_BYTES);
        let Some(room) = self.room(u32::try_from(bytes).unwrap_or(u32::MAX)) else {
            self.is_gone = true;
            return;
        };
        let (accepted, was_accepted) = match std::mem::take(&mut self.is_first) {
            true => Some(oneshot::channel()).unzip(),
            false => (None, None),
        };
        let chunk = Chunk {
            database: self.database,
            head: head.into(),
            tail,
            expected: std::mem::take(&mut self.expected),
            goes_on,
            accepted,
            room,
        };
        self.is_gone = self.chunks.send(chunk).is_err()
            || was_accepted.is_some_and(|accepted| accepted.blocking_recv().is_err());
    }

    /// Waits for room in the budget; `None` when nobody takes commands any more.
    fn room(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.budget).acquire_many_owned(bytes);
        self.runtime.block_on(async {
            tokio::select! {
                room = room => room.ok(),
                () = self.chunks.closed() => None,
            }
        })
    }

    /// Asks whether a key is there, and waits for the answer; `None` when nobody is left to ask.
    pub(super) fn ask(&mut self, name: &[u8]) -> Option<bool> {
        let (answer, answered) = oneshot::channel();
        self.push(Reason::Ask(answer), &[b"EXISTS", name]);
        self.flush(false);
        answered.blocking_recv().ok()
    }
}
