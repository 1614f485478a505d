//! Turns an RDB into commands, on a thread of its own.

use std::sync::Arc;

use bytes::Bytes;
use cachevault_domain::{Address, ConflictRule, Target, TtlRule};
use cachevault_rdb::dump::{DumpPayload, TemplateForm};
use cachevault_rdb::raw::{Decoder, Key, Record, Text, Visitor};
use cachevault_rdb::{DecodeErrorKind, HashTemplates, Header, Kind, ValueType};
use tokio::sync::mpsc;

use crate::error::VerifyError;
use crate::restore::error::RestoreError;
use crate::restore::keys_way::chunk::{Reason, Sender};
use crate::restore::keys_way::split::Split;
use crate::restore::keys_way::{Abilities, Done, KeysLoaded, Rules, shown};

/// Longest string that is set together with others, bytes. A longer one gains nothing by it.
const STRING_BYTES_MAX: u64 = 16 << 10;

/// What is done with the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The target is asked whether it has them.
    Look,
    /// They are written.
    Write,
}

/// The raw level's visitor that writes commands.
pub(super) struct Producer {
    pass: Pass,
    rules: Rules,
    abilities: Abilities,
    address: Address,
    sender: Sender,
    header: Option<Header>,
    templates: HashTemplates,
    name: Vec<u8>,
    scratch: Vec<u8>,
    record: KeyRecord,
    current: Current,
    loaded: KeysLoaded,
    failed: Option<RestoreError>,
}

/// What a key's record says, beside its name.
#[derive(Debug, Clone, Copy, Default)]
struct KeyRecord {
    /// Under the rule for expiries.
    expires_at_ms: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
    value_type: Option<&'static ValueType>,
    /// Modules keep data beside it, which no command but `RESTORE` writes.
    has_metadata: bool,
}

/// What becomes of the value that is passing.
enum Current {
    /// It is not wanted, or has been written.
    Passed,
    /// It is a string that can be written as it is, unless it is long.
    Text,
    /// It is gathered.
    Payload(DumpPayload),
    /// It is written by several commands.
    Split(Box<Split>),
}

impl Producer {
    pub(super) fn new(
        pass: Pass,
        rules: Rules,
        abilities: Abilities,
        target: &Target,
        sender: Sender,
    ) -> Self {
        Self {
            pass,
            rules,
            abilities,
            address: target.address.clone(),
            sender,
            header: None,
            templates: HashTemplates::default(),
            name: Vec::new(),
            scratch: Vec::new(),
            record: KeyRecord::default(),
            current: Current::Passed,
            loaded: KeysLoaded::default(),
            failed: None,
        }
    }

    /// Takes all pieces. It blocks its thread.
    pub(super) fn run(mut self, mut pieces: mpsc::Receiver<Bytes>) -> Result<Done, RestoreError> {
        let undecodable = |error: cachevault_rdb::DecodeError| {
            RestoreError::Artifact(VerifyError::Undecodable(error.to_string()))
        };
        let mut decoder = Decoder::default();
        while let Some(piece) = pieces.blocking_recv() {
            decoder.feed(&piece, &mut self).map_err(undecodable)?;
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.sender.is_gone() {
                // The connections say themselves why.
                return Ok(Done::default());
            }
        }
        decoder.finish().map_err(undecodable)?;
        self.sender.flush(false);
        Ok(Done { loaded: self.loaded, ..Done::default() })
    }

    fn is_over(&self) -> bool {
        self.failed.is_some() || self.sender.is_gone()
    }

    /// Decides what becomes of a key.
    fn begin(&mut self, key: &Key<'_>) -> Current {
        if !self.rules.wants(key.db, key.name) {
            self.loaded.filtered += 1;
            return Current::Passed;
        }
        let Ok(expires_at_ms) = self.rules.expiry(key.expires_at_ms) else {
            self.loaded.expired += 1;
            return Current::Passed;
        };
        self.sender.select(key.db);
        if self.pass == Pass::Look {
            self.sender.push(Reason::Look, &[b"EXISTS", key.name]);
            self.sender.flush_if_full(false);
            return Current::Passed;
        }
        self.name.clear();
        self.name.extend_from_slice(key.name);
        self.record = KeyRecord {
            expires_at_ms,
            idle_seconds: key.idle_seconds,
            frequency: key.frequency,
            value_type: Some(key.value_type),
            has_metadata: !key.metadata.is_empty(),
        };
        // In a payload the expiries of fields cannot be moved, and another vendor's layout is unknown.
        let is_foreign =
            key.value_type.family().is_some_and(|family| family != self.abilities.family);
        let has_expiries = key.value_type.has_field_expiries();
        if has_expiries && (is_foreign || self.rules.ttl != TtlRule::Keep) {
            self.split(&[])
        } else if key.metadata.is_empty() && self.is_bare_string(key.value_type) {
            Current::Text
        } else {
            Current::Payload(DumpPayload::new(key.value_type, key.metadata))
        }
    }

    /// Whether there is nothing to a key but a string, which may take the place of another.
    fn is_bare_string(&self, value_type: &ValueType) -> bool {
        let KeyRecord { expires_at_ms, idle_seconds, frequency, .. } = self.record;
        let is_bare = (expires_at_ms, idle_seconds, frequency) == (None, None, None);
        let can_set = self.abilities.can_set_many && self.rules.replaces();
        value_type.kind() == Kind::String && is_bare && can_set
    }

    fn gather(&self) -> Current {
        let value_type = self.record.value_type;
        // Only of strings with nothing beside them.
        value_type.map_or(Current::Passed, |found| Current::Payload(DumpPayload::new(found, &[])))
    }

    /// The string of [`Current::Text`] has come, or a piece of it.
    fn set_text(&mut self, text: &Text<'_>) -> Result<Current, DecodeErrorKind> {
        if text.bytes() <= STRING_BYTES_MAX.min(self.abilities.payload_max)
            && let Some(value) = text.whole(&mut self.scratch)?
        {
            self.sender.push_string(&self.name, value);
            return Ok(Current::Passed);
        }
        Ok(self.gather())
    }

    /// Begins to write the value by several commands; `bytes` of it have come.
    fn split(&mut self, bytes: &[u8]) -> Current {
        let (Some(header), Some(value_type)) = (self.header, self.record.value_type) else {
            return Current::Passed;
        };
        let is_whole = matches!(value_type.kind(), Kind::Module | Kind::Array | Kind::Gcra);
        if is_whole || self.record.has_metadata {
            self.fail(RestoreError::TooLarge {
                key: shown(self.sender.key()),
                what: "the payload of a value of a module, of an array, or with data of modules beside it, \
                       which several commands cannot write,",
                limit: self.abilities.payload_max,
            });
            return Current::Passed;
        }
        if self.rules.replaces() {
            self.sender.push(Reason::Part("UNLINK"), &[b"UNLINK", &self.name]);
        } else if self.sender.ask(&self.name) != Some(false) {
            self.give_way();
            return Current::Passed;
        }
        let split = Split::new(header, &self.templates, value_type, &self.rules, self.abilities);
        let mut split = Box::new(split);
        self.feed(&mut split, bytes);
        Current::Split(split)
    }

    /// The key that is to be split is there already, or nobody is left to say so.
    fn give_way(&mut self) {
        if self.sender.is_gone() {
            return;
        }
        if self.rules.conflict == ConflictRule::Skip {
            self.loaded.skipped += 1;
            return;
        }
        let (address, key) = (self.address.clone(), shown(self.sender.key()));
        self.fail(RestoreError::KeyAppeared { address, key });
    }

    fn feed(&mut self, split: &mut Split, bytes: &[u8]) {
        if let Err(error) = split.feed(bytes, &self.name, &mut self.sender) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: RestoreError) {
        self.failed.get_or_insert(error);
    }

    fn push_restore(&mut self, payload: DumpPayload) {
        let mut ttl = itoa::Buffer::new();
        let ttl = ttl.format(self.record.expires_at_ms.unwrap_or(0));
        let mut number = itoa::Buffer::new();
        let mut options: [&[u8]; 4] = [b""; 4];
        let mut count = 0;
        let mut option = |words: &[&'static [u8]]| {
            options[count..count + words.len()].copy_from_slice(words);
            count += words.len();
        };
        // A server takes time for every argument.
        if self.record.expires_at_ms.is_some() {
            option(&[b"ABSTTL"]);
        }
        if self.rules.replaces() {
            option(&[b"REPLACE"]);
        }
        if self.record.idle_seconds.is_some() {
            option(&[b"IDLETIME"]);
        } else if self.record.frequency.is_some() {
            option(&[b"FREQ"]);
        }
        let access = self.record.idle_seconds.or(self.record.frequency.map(u64::from));
        if let Some(access) = access {
            options[count] = number.format(access).as_bytes();
            count += 1;
        }
        self.sender.push_restore(&self.name, ttl.as_bytes(), payload.finish(), &options[..count]);
    }

    fn function(&mut self, source: &[u8]) {
        // They belong to no key and to no database.
        if !self.rules.filter.is_everything() {
            return;
        }
        let name = library_name(source);
        let shown = shown_library(name);
        if self.pass == Pass::Look {
            if let Some(name) = name {
                let command: [&[u8]; 4] = [b"FUNCTION", b"LIST", b"LIBRARYNAME", name];
                self.sender.push(Reason::LookFunction(shown), &command);
            }
            return;
        }
        if self.rules.replaces() {
            let command: [&[u8]; 4] = [b"FUNCTION", b"LOAD", b"REPLACE", source];
            self.sender.push(Reason::Function(shown), &command);
        } else {
            self.sender.push(Reason::Function(shown), &[b"FUNCTION", b"LOAD", source]);
        }
        self.sender.flush_if_full(false);
    }
}

/// The name in a library's first line, such as `#!lua name=mylib`.
fn library_name(source: &[u8]) -> Option<&[u8]> {
    let first_line = source.split(|byte| *byte == b'\n').next()?;
    first_line.split(u8::is_ascii_whitespace).find_map(|word| word.strip_prefix(b"name="))
}

/// Longest part of a library's name in a message, bytes.
const SHOWN_BYTES: usize = 64;

/// A library's name, harmless to print and not too long.
fn shown_library(name: Option<&[u8]>) -> String {
    let name = name.unwrap_or_default();
    name[..name.len().min(SHOWN_BYTES)].escape_ascii().to_string()
}

impl Visitor for Producer {
    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Header(header) => self.header = Some(header),
            // One that comes twice was refused before.
            Record::HashTemplate(template) => {
                let _ = self.templates.add(Arc::clone(template), u64::MAX);
            }
            Record::Function(source) if !self.is_over() => self.function(source),
            _ => {}
        }
    }

    fn key(&mut self, key: &Key<'_>) -> Result<(), DecodeErrorKind> {
        self.sender.next_key();
        self.current = if self.is_over() { Current::Passed } else { self.begin(key) };
        Ok(())
    }

    fn text(&mut self, text: Text<'_>) -> Result<(), DecodeErrorKind> {
        if matches!(self.current, Current::Text) && !self.is_over() {
            self.current = self.set_text(&text)?;
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.is_over() {
            self.current = Current::Passed;
        }
        if bytes.is_empty() {
            return;
        }
        if matches!(self.current, Current::Text) {
            // The length of a long string has come, and nothing of the string.
            self.current = self.gather();
        }
        match std::mem::replace(&mut self.current, Current::Passed) {
            Current::Passed | Current::Text => {}
            Current::Payload(mut payload) => {
                let len = (payload.len() + bytes.len()) as u64;
                self.current = if len <= self.abilities.payload_max {
                    payload.push(bytes);
                    Current::Payload(payload)
                } else {
                    self.current = self.split(payload.value());
                    drop(payload);
                    return self.bytes(bytes);
                };
            }
            Current::Split(mut split) => {
                self.feed(&mut split, bytes);
                self.current = Current::Split(split);
            }
        }
    }

    fn key_end(&mut self) -> Result<(), DecodeErrorKind> {
        match std::mem::replace(&mut self.current, Current::Passed) {
            Current::Passed | Current::Text => {}
            _ if self.is_over() => {}
            Current::Payload(payload) if payload.is_of_nothing() => self.loaded.empty += 1,
            Current::Payload(payload) => {
                let form = match self.abilities.has_hash_templates {
                    true => TemplateForm::OwnFields,
                    false => TemplateForm::Plain,
                };
                let payload = payload.resolve(&self.templates, form)?;
                if payload.len() as u64 > self.abilities.bulk_max {
                    self.fail(RestoreError::TooLarge {
                        key: shown(self.sender.key()),
                        what: "the payload of a hash with the fields of its template",
                        limit: self.abilities.bulk_max,
                    });
                    return Ok(());
                }
                self.push_restore(payload);
            }
            Current::Split(split) => {
                let expires_at_ms = self.record.expires_at_ms;
                if let Err(error) = split.finish(expires_at_ms, &self.name, &mut self.sender) {
                    self.fail(error);
                }
            }
        }
        Ok(())
    }
}
