//! The values of a hash by template in one listpack: the number of the template, and a value for
//! each of its fields.

use std::sync::Arc;

use crate::error::{DecodeErrorKind, corrupt};
use crate::opcode::Role;
use crate::packed::entry::{Entry, Give};
use crate::structure::{Sink, Visitor};
use crate::template::{HashTemplate, HashTemplates};

/// Decodes the values.
#[derive(Debug, Default)]
pub(super) struct TemplateValues {
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    #[default]
    Number,
    Value(usize),
}

/// Maximum ratio of repeated fields to stored bytes of a stream: a hash can be ten bytes long,
/// while its template may reach the limit of held bytes.
const REPEATED_PER_BYTE: u64 = 1024;

/// The fields that hashes have repeated.
#[derive(Debug, Default)]
pub(super) struct RepeatedFields {
    bytes: u64,
    /// Bytes of the stream before the current key.
    pub(super) stream_bytes: u64,
}

impl RepeatedFields {
    /// Counts the fields of a hash.
    pub(super) fn add(&mut self, template: &HashTemplate) -> Result<(), DecodeErrorKind> {
        self.bytes = self.bytes.saturating_add(template.bytes());
        let (bytes, limit) = (self.bytes, self.stream_bytes.saturating_mul(REPEATED_PER_BYTE));
        if bytes <= limit {
            return Ok(());
        }
        let what = "the fields that hashes repeat of their templates";
        Err(DecodeErrorKind::TooLong { what, bytes, limit })
    }
}

/// The templates of the stream, and the template of the current hash.
pub(super) struct ByTemplate<'w> {
    pub(super) templates: &'w HashTemplates,
    /// Present if the template precedes the value; otherwise the listpack contains its number.
    pub(super) template: &'w mut Option<Arc<HashTemplate>>,
    pub(super) repeated: &'w mut RepeatedFields,
}

impl TemplateValues {
    pub(super) fn giving_to<'g, 'w, 's, V>(
        &'g mut self,
        by: &'g mut ByTemplate<'w>,
        sink: &'g mut Sink<'s, V>,
    ) -> TemplateGive<'g, 'w, 's, V> {
        TemplateGive { values: self, by, sink }
    }

    pub(super) fn end(&self, template: Option<&HashTemplate>) -> Result<(), DecodeErrorKind> {
        match (self.phase, template) {
            (Phase::Value(at), Some(template)) if at == template.fields.len() => Ok(()),
            _ => corrupt("a hash has fewer values than its template has fields"),
        }
    }
}

/// Receives the entries of the listpack.
pub(super) struct TemplateGive<'g, 'w, 's, V> {
    values: &'g mut TemplateValues,
    by: &'g mut ByTemplate<'w>,
    sink: &'g mut Sink<'s, V>,
}

impl<V: Visitor> TemplateGive<'_, '_, '_, V> {
    fn number(&mut self, entry: Entry<'_>) -> Result<(), DecodeErrorKind> {
        let Entry::Integer(number) = entry else {
            return corrupt("the values of a hash by template do not begin with a template number");
        };
        if self.by.template.is_none() {
            let template = self.by.templates.find(number.cast_unsigned())?;
            self.by.repeated.add(template)?;
            *self.by.template = Some(Arc::clone(template));
        }
        self.values.phase = Phase::Value(0);
        Ok(())
    }

    fn field(&mut self, at: usize) -> Result<(), DecodeErrorKind> {
        let Some(field) = self.by.template.as_ref().and_then(|template| template.fields.get(at))
        else {
            return corrupt("a hash has more values than its template has fields");
        };
        self.sink.begin(Role::Field, true);
        self.sink.piece(Role::Field, field, true, true);
        Ok(())
    }
}

impl<V: Visitor> Give for TemplateGive<'_, '_, '_, V> {
    fn give(&mut self, entry: Entry<'_>) -> Result<(), DecodeErrorKind> {
        let Phase::Value(at) = self.values.phase else { return self.number(entry) };
        let (is_first, is_last) = match entry {
            Entry::Integer(_) => (true, true),
            Entry::Bytes { is_first, is_last, .. } => (is_first, is_last),
        };
        if is_first {
            self.field(at)?;
        }
        match entry {
            Entry::Integer(number) => self.sink.integer(Role::FieldValue, number),
            Entry::Bytes { piece, .. } => {
                self.sink.begin(Role::FieldValue, is_first);
                self.sink.piece(Role::FieldValue, piece, is_first, is_last);
            }
        }
        if is_last {
            self.values.phase = Phase::Value(at + 1);
        }
        Ok(())
    }
}
