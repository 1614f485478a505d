//! The values of a hash by template in one listpack: a number, that of the template, and a value for
//! each of its fields.

use std::sync::Arc;

use crate::error::{DecodeErrorKind, corrupt};
use crate::opcode::Role;
use crate::packed::entry::{Entry, Give};
use crate::structure::{Sink, Visitor};
use crate::template::{HashTemplate, HashTemplates};

/// Walks the values.
#[derive(Debug)]
pub(super) struct TemplateValues {
    template: Option<Arc<HashTemplate>>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Number,
    Value(usize),
}

impl TemplateValues {
    /// `template` came with the value; without one its number is in the listpack.
    pub(super) fn new(template: Option<Arc<HashTemplate>>) -> Self {
        Self { template, phase: Phase::Number }
    }

    pub(super) fn giving_to<'g, 's, V>(
        &'g mut self,
        templates: &'g HashTemplates,
        sink: &'g mut Sink<'s, V>,
    ) -> TemplateGive<'g, 's, V> {
        TemplateGive { values: self, templates, sink }
    }

    pub(super) fn end(&self) -> Result<(), DecodeErrorKind> {
        match (self.phase, &self.template) {
            (Phase::Value(at), Some(template)) if at == template.fields.len() => Ok(()),
            _ => corrupt("a hash has less values than its template has fields"),
        }
    }
}

/// Takes the entries of the listpack.
pub(super) struct TemplateGive<'g, 's, V> {
    values: &'g mut TemplateValues,
    templates: &'g HashTemplates,
    sink: &'g mut Sink<'s, V>,
}

impl<V: Visitor> TemplateGive<'_, '_, V> {
    fn number(&mut self, entry: Entry<'_>) -> Result<(), DecodeErrorKind> {
        let Entry::Integer(number) = entry else {
            return corrupt("the values of a hash by template do not begin with a number");
        };
        if self.values.template.is_none() {
            let template = self.templates.find(number.cast_unsigned())?;
            self.values.template = Some(Arc::clone(template));
        }
        self.values.phase = Phase::Value(0);
        Ok(())
    }

    fn field(&mut self, at: usize) -> Result<(), DecodeErrorKind> {
        let template = self.values.template.as_ref();
        let Some(field) = template.and_then(|template| template.fields.get(at)) else {
            return corrupt("a hash has more values than its template has fields");
        };
        self.sink.begin(Role::Field, true);
        self.sink.piece(Role::Field, field, true, true);
        Ok(())
    }
}

impl<V: Visitor> Give for TemplateGive<'_, '_, V> {
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
