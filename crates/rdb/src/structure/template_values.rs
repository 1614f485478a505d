//! The values of a hash by template in one listpack: a number, that of the template, and a value for
//! each of its fields.

use std::sync::Arc;

use crate::error::{DecodeErrorKind, corrupt};
use crate::opcode::Role;
use crate::packed::entry::{Entry, Give};
use crate::structure::{Sink, Visitor};
use crate::template::{HashTemplate, HashTemplates};

/// Walks the values.
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

impl TemplateValues {
    /// `template` is there where it came with the value; else its number is in the listpack.
    pub(super) fn giving_to<'g, 's, V>(
        &'g mut self,
        templates: &'g HashTemplates,
        template: &'g mut Option<Arc<HashTemplate>>,
        sink: &'g mut Sink<'s, V>,
    ) -> TemplateGive<'g, 's, V> {
        TemplateGive { values: self, templates, template, sink }
    }

    pub(super) fn end(&self, template: Option<&HashTemplate>) -> Result<(), DecodeErrorKind> {
        match (self.phase, template) {
            (Phase::Value(at), Some(template)) if at == template.fields.len() => Ok(()),
            _ => corrupt("a hash has less values than its template has fields"),
        }
    }
}

/// Takes the entries of the listpack.
pub(super) struct TemplateGive<'g, 's, V> {
    values: &'g mut TemplateValues,
    templates: &'g HashTemplates,
    template: &'g mut Option<Arc<HashTemplate>>,
    sink: &'g mut Sink<'s, V>,
}

impl<V: Visitor> TemplateGive<'_, '_, V> {
    fn number(&mut self, entry: Entry<'_>) -> Result<(), DecodeErrorKind> {
        let Entry::Integer(number) = entry else {
            return corrupt("the values of a hash by template do not begin with a number");
        };
        if self.template.is_none() {
            let template = self.templates.find(number.cast_unsigned())?;
            *self.template = Some(Arc::clone(template));
        }
        self.values.phase = Phase::Value(0);
        Ok(())
    }

    fn field(&mut self, at: usize) -> Result<(), DecodeErrorKind> {
        let Some(field) = self.template.as_ref().and_then(|template| template.fields.get(at))
        else {
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
