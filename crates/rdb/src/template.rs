//! Templates of hashes (Redis 8.10, from public documents only): field names that many hashes
//! share.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dump::{push_length, push_text};
use crate::error::{DecodeErrorKind, corrupt};

/// `RDB_OPCODE_HASH_TEMPLATE`.
const TEMPLATE_OPCODE: u8 = 242;
/// Overhead of a field's name in bytes.
const FIELD_OVERHEAD_BYTES: u64 = 48;

/// The fields of a hash, in the order of its values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashTemplate {
    /// Its number in the stream; 0 for a template that precedes a single value.
    pub id: u64,
    /// The fields.
    pub fields: Vec<Box<[u8]>>,
}

impl HashTemplate {
    /// Size of its fields, including the overhead of each.
    pub(crate) fn bytes(&self) -> u64 {
        self.fields.iter().map(|field| field.len() as u64 + FIELD_OVERHEAD_BYTES).sum()
    }
}

/// A template whose fields are still arriving.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NewTemplate {
    template: HashTemplate,
    bytes: u64,
}

impl NewTemplate {
    pub(crate) fn new(id: u64) -> Self {
        Self { template: HashTemplate { id, fields: Vec::new() }, bytes: 0 }
    }

    pub(crate) fn push(&mut self, field: &[u8], limit: u64) -> Result<(), DecodeErrorKind> {
        self.bytes = within(self.bytes + field.len() as u64 + FIELD_OVERHEAD_BYTES, limit)?;
        self.template.fields.push(field.into());
        Ok(())
    }

    pub(crate) fn finish(self) -> Arc<HashTemplate> {
        Arc::new(self.template)
    }
}

/// The templates of a stream.
#[derive(Debug, Clone, Default)]
pub struct HashTemplates {
    by_id: BTreeMap<u64, Arc<HashTemplate>>,
    bytes: u64,
}

impl HashTemplates {
    /// Returns the template of this number.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Corrupt`] if there is none.
    pub fn find(&self, id: u64) -> Result<&Arc<HashTemplate>, DecodeErrorKind> {
        match self.by_id.get(&id) {
            Some(template) => Ok(template),
            None => corrupt("a hash refers to a template that the stream does not contain"),
        }
    }

    /// The records of all templates, as they precede the keys of a stream.
    pub fn records(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for template in self.by_id.values() {
            bytes.push(TEMPLATE_OPCODE);
            push_length(&mut bytes, template.id);
            push_length(&mut bytes, template.fields.len() as u64);
            template.fields.iter().for_each(|field| push_text(&mut bytes, field));
        }
        bytes
    }

    /// Adds a template; `limit` is the maximum size of all templates in bytes.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Corrupt`] for a duplicate number, [`DecodeErrorKind::TooLong`].
    pub fn add(&mut self, template: Arc<HashTemplate>, limit: u64) -> Result<(), DecodeErrorKind> {
        let bytes = self.bytes.saturating_add(template.bytes() + FIELD_OVERHEAD_BYTES);
        self.bytes = within(bytes, limit)?;
        match self.by_id.insert(template.id, template) {
            None => Ok(()),
            Some(_) => corrupt("two templates of hashes have the same number"),
        }
    }
}

fn within(bytes: u64, limit: u64) -> Result<u64, DecodeErrorKind> {
    if bytes <= limit {
        return Ok(bytes);
    }
    Err(DecodeErrorKind::TooLong { what: "the fields of templates of hashes", bytes, limit })
}
