//! Values that are too large for one command, written by several.
//!
//! What passes is a small RDB of its own with one key in it: the value's bytes behind a header, as
//! the logical level reads them. Nothing is held but the string that is passing and a batch.

use std::io::Write;

use cachevault_proto::push_argument;
use cachevault_rdb::data::{Decoder, Visitor};
use cachevault_rdb::raw::Key;
use cachevault_rdb::structure::{Item, Piece};
use cachevault_rdb::{DecodeError, HashTemplates, Header, Kind, Limits, Role, ValueType};

use crate::error::VerifyError;
use crate::restore::error::RestoreError;
use crate::restore::keys_way::chunk::{Reason, Sender};
use crate::restore::keys_way::stream::StreamWriter;
use crate::restore::keys_way::{Abilities, Rules, shown};

/// Arguments of one command, together.
const BATCH_BYTES: usize = 64 << 10;
/// A string key that is passing is sent on in parts of this length.
const PART_BYTES: usize = 1 << 20;
/// Memory that is kept for the next string.
const KEPT_BYTES: usize = 1 << 20;

/// A value on its way.
pub(super) struct Split {
    decoder: Decoder,
    has_checksum: bool,
    writer: Writer,
}

impl Split {
    pub(super) fn new(
        header: Header,
        templates: &HashTemplates,
        value_type: &ValueType,
        rules: &Rules,
        abilities: Abilities,
    ) -> Self {
        let limits = Limits { held_bytes_max: abilities.bulk_max, ..Limits::default() };
        let mut split = Self {
            decoder: Decoder::new(limits),
            has_checksum: header.has_checksum(),
            writer: Writer::new(value_type.kind(), rules.clone(), abilities),
        };
        // The header, the type, and a key without a name: nobody asks for it.
        let mut before = header.to_string().into_bytes();
        if value_type.is_by_template() {
            before.extend(templates.records());
        }
        before.extend([value_type.byte(), 0]);
        let fed = split.decoder.feed(&before, &mut Nobody);
        debug_assert!(fed.is_ok(), "{fed:?}");
        split
    }

    /// Takes the next bytes of the value.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        name: &[u8],
        sender: &mut Sender,
    ) -> Result<(), RestoreError> {
        let mut visitor = Level { writer: &mut self.writer, name, sender };
        self.decoder.feed(bytes, &mut visitor).map_err(|e| undecodable(sender.key(), &e))?;
        self.writer.failed.take().map_or(Ok(()), Err)
    }

    /// Writes what is left, after all of the value has come.
    pub(super) fn finish(
        mut self: Box<Self>,
        expires_at_ms: Option<i64>,
        name: &[u8],
        sender: &mut Sender,
    ) -> Result<(), RestoreError> {
        let end: &[u8] = if self.has_checksum { b"\xff\0\0\0\0\0\0\0\0" } else { b"\xff" };
        self.feed(end, name, sender)?;
        self.decoder.finish().map_err(|e| undecodable(sender.key(), &e))?;
        self.writer.finish(name, sender);
        if let Some(at) = expires_at_ms {
            let mut digits = itoa::Buffer::new();
            let at = digits.format(at).as_bytes();
            sender.push(Reason::Part("PEXPIREAT"), &[b"PEXPIREAT", name, at]);
        }
        sender.push(Reason::Last, &[b"EXISTS", name]);
        sender.flush(false);
        Ok(())
    }
}

fn undecodable(key: u64, error: &DecodeError) -> RestoreError {
    let detail = format!("the value of {}: {error}", shown(key));
    RestoreError::Artifact(VerifyError::Undecodable(detail))
}

/// Sees nothing.
struct Nobody;

impl Visitor for Nobody {}

/// Gathers arguments into commands.
struct Writer {
    kind: Kind,
    rules: Rules,
    abilities: Abilities,
    /// The string that is passing.
    text: Vec<u8>,
    /// The field whose value is passing.
    field: Vec<u8>,
    batch: Batch,
    /// The first part of a string was written.
    has_begun: bool,
    /// Fields of the batch that expire.
    expiries: Vec<(Vec<u8>, i64)>,
    stream: StreamWriter,
    failed: Option<RestoreError>,
}

/// Encoded arguments of a command that is not sent yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) arguments: Vec<u8>,
    pub(super) count: usize,
}

impl Batch {
    pub(super) fn push(&mut self, argument: &[u8]) {
        push_argument(&mut self.arguments, argument);
        self.count += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.arguments.len() >= BATCH_BYTES
    }

    /// Sends a command of `first` and these arguments, unless there are none.
    pub(super) fn send(&mut self, command: &'static str, first: &[&[u8]], sender: &mut Sender) {
        if self.count == 0 {
            return;
        }
        sender.push_encoded(
            Reason::Part(command),
            sender.key(),
            first,
            self.count,
            &self.arguments,
        );
        self.arguments.clear();
        self.arguments.shrink_to(KEPT_BYTES);
        self.count = 0;
        sender.flush_if_full(true);
    }
}

/// The logical level's visitor for a value.
struct Level<'l> {
    writer: &'l mut Writer,
    name: &'l [u8],
    sender: &'l mut Sender,
}

impl Visitor for Level<'_> {
    fn key(&mut self, _key: &Key<'_>) {}

    fn text(&mut self, piece: Piece<'_>) {
        let writer = &mut *self.writer;
        if writer.failed.is_some() {
            return;
        }
        if piece.is_first && piece.role != Role::Value {
            writer.text.clear();
            writer.text.shrink_to(KEPT_BYTES);
        }
        writer.text.extend_from_slice(piece.bytes);
        if piece.role == Role::Value {
            writer.send_parts(self.name, self.sender);
            return;
        }
        let limit = writer.abilities.bulk_max;
        if writer.text.len() as u64 > limit {
            let what = "one of its elements";
            writer.failed =
                Some(RestoreError::TooLarge { key: shown(self.sender.key()), what, limit });
        } else if piece.is_last {
            writer.element(piece.role, self.name, self.sender);
        }
    }

    fn score(&mut self, score: f64) {
        self.writer.score(score, self.name, self.sender);
    }

    fn item(&mut self, item: Item<'_>) {
        let writer = &mut *self.writer;
        if writer.failed.is_some() {
            return;
        }
        match item {
            Item::FieldExpiry(expiry) => writer.field(expiry, self.name, self.sender),
            Item::Entry(id) => writer.stream.entry(id, self.name, self.sender),
            Item::Stream(part) => {
                let told = writer.stream.part(part, writer.abilities, self.name, self.sender);
                writer.failed = told.err();
            }
            // Values of these kinds are not split.
            Item::ModuleValue(_)
            | Item::Module(_)
            | Item::ArrayInsert(_)
            | Item::ArrayIndex(_)
            | Item::ArrayDouble(_)
            | Item::Time(_) => {}
        }
    }
}

impl Writer {
    fn new(kind: Kind, rules: Rules, abilities: Abilities) -> Self {
        Self {
            kind,
            rules,
            abilities,
            text: Vec::new(),
            field: Vec::new(),
            batch: Batch::default(),
            has_begun: false,
            expiries: Vec::new(),
            stream: StreamWriter::default(),
            failed: None,
        }
    }

    /// Sends whole parts of the string of which so much has come.
    fn send_parts(&mut self, name: &[u8], sender: &mut Sender) {
        let bulk_max = usize::try_from(self.abilities.bulk_max).unwrap_or(usize::MAX);
        let part_bytes = bulk_max.clamp(1, PART_BYTES);
        let mut text = std::mem::take(&mut self.text);
        let whole = text.len() - text.len() % part_bytes;
        text[..whole].chunks(part_bytes).for_each(|part| self.send_part(part, name, sender));
        text.drain(..whole);
        self.text = text;
    }

    fn send_part(&mut self, part: &[u8], name: &[u8], sender: &mut Sender) {
        let command = if self.has_begun { "APPEND" } else { "SET" };
        sender.push(Reason::Part(command), &[command.as_bytes(), name, part]);
        sender.flush_if_full(true);
        self.has_begun = true;
    }

    /// A whole string has come that is no string key's.
    fn element(&mut self, role: Role, name: &[u8], sender: &mut Sender) {
        match role {
            Role::Element => self.push_text(name, sender),
            // A member's score comes behind it.
            Role::Member if self.kind == Kind::Set => self.push_text(name, sender),
            Role::Field => std::mem::swap(&mut self.field, &mut self.text),
            Role::FieldValue if self.kind == Kind::Stream => {
                self.stream.pair(&self.field, &self.text);
            }
            Role::Path => {
                let (what, limit) = ("the payload of a path hash", self.abilities.payload_max);
                self.failed =
                    Some(RestoreError::TooLarge { key: shown(sender.key()), what, limit });
            }
            _ => {}
        }
    }

    fn push_text(&mut self, name: &[u8], sender: &mut Sender) {
        self.batch.push(&self.text);
        if self.batch.is_full() {
            self.send_batch(name, sender);
        }
    }

    fn score(&mut self, score: f64, name: &[u8], sender: &mut Sender) {
        if self.failed.is_some() {
            return;
        }
        // The shortest notation that is this number and no other; the longest has 24 digits.
        let mut digits = [0; 32];
        let mut rest = &mut digits[..];
        let written = write!(rest, "{score:e}");
        debug_assert!(written.is_ok(), "{score}");
        let left = rest.len();
        self.batch.push(&digits[..digits.len() - left]);
        self.push_text(name, sender);
    }

    /// A hash's field and its value have come, and when the field expires.
    fn field(&mut self, expiry: Option<i64>, name: &[u8], sender: &mut Sender) {
        let Ok(expiry) = self.rules.expiry(expiry) else { return };
        self.batch.push(&self.field);
        if let Some(at) = expiry {
            self.expiries.push((self.field.clone(), at));
        }
        self.push_text(name, sender);
    }

    fn send_batch(&mut self, name: &[u8], sender: &mut Sender) {
        let command = match self.kind {
            Kind::List => "RPUSH",
            Kind::Set => "SADD",
            Kind::SortedSet => "ZADD",
            _ => "HSET",
        };
        self.batch.send(command, &[command.as_bytes(), name], sender);
        for (field, at) in self.expiries.drain(..) {
            let mut digits = itoa::Buffer::new();
            let at = digits.format(at).as_bytes();
            let command: [&[u8]; 6] = [b"HPEXPIREAT", name, at, b"FIELDS", b"1", &field];
            sender.push(Reason::Part("HPEXPIREAT"), &command);
            sender.flush_if_full(true);
        }
    }

    fn finish(&mut self, name: &[u8], sender: &mut Sender) {
        match self.kind {
            Kind::String if !self.text.is_empty() || !self.has_begun => {
                let rest = std::mem::take(&mut self.text);
                self.send_part(&rest, name, sender);
            }
            Kind::String | Kind::Module | Kind::Array | Kind::Gcra => {}
            Kind::Stream => self.stream.finish(name, sender),
            _ => self.send_batch(name, sender),
        }
    }
}
