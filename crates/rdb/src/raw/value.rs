//! The grammar of values: a state machine that follows the layouts of the table of types.

use std::sync::Arc;

use crate::cursor::{Cursor, Form, HeldText};
use crate::error::{DecodeErrorKind, Stop, Take, corrupt};
use crate::limits::{Limits, whole_bytes};
use crate::opcode::{Cell, Container, Layout, Packing, Role, Row, ValueType};
use crate::packed::listpack::texts_of_listpack;
use crate::raw::Visitor;
use crate::raw::module::{ModuleId, ModulePart, ModuleParts};
use crate::raw::stream::{StreamPart, Tail};
use crate::template::{HashTemplate, HashTemplates, NewTemplate};

/// A longer string passes in pieces unless it is complete.
const HELD_TEXT_BYTES: u64 = whole_bytes(64 << 10) as u64;
/// `QUICKLIST_NODE_CONTAINER_PLAIN` and `_PACKED` of `quicklist.h`.
const NODE_PLAIN: u64 = 1;
const NODE_PACKED: u64 = 2;
/// One more than the latest possible expiry of a field, milliseconds (`EB_EXPIRE_TIME_MAX`).
pub(crate) const EXPIRY_END: i64 = 1 << 48;
/// Maximum length of a number with its sign.
const NUMBER_BYTES_MAX: u64 = 20;
/// Length of a stream node's identifier.
const NODE_ID_BYTES: u64 = 16;
/// The number that determines the form of an array's value.
const ARRAY_TEXT: u64 = 0;
const ARRAY_SIGNED: u64 = 1;
const ARRAY_DOUBLE: u64 = 2;
const ARRAY_SHORT_TEXT: u64 = 3;
/// The first invalid index of an array.
const ARRAY_INDEX_END: u64 = u64::MAX;
/// The number that determines the form of a template's fields in front of a value.
const FIELDS_PACKED: u64 = 0;
const FIELDS_COUNTED: u64 = 1;

/// A part of a value, except for strings and scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'a> {
    /// Number of elements, pairs, or nodes, which follow.
    Count(u64),
    /// Expiry of the preceding field or, in Redis' own layouts, of the following one: milliseconds
    /// since 1970.
    FieldExpiry(Option<i64>),
    /// A part of a stream's tail.
    Stream(StreamPart<'a>),
    /// The module of the value; its parts follow.
    ModuleValue(ModuleId),
    /// A part of a module's data.
    Module(ModulePart),
    /// The next insert index of an array.
    ArrayInsert(u64),
    /// The index of an array's value; a string or a double follows.
    ArrayIndex(u64),
    /// A value of an array that is stored as a double.
    ArrayDouble(f64),
    /// The time of a rate limiter.
    Time(u64),
    /// The template of the hash. If the values are not packed, each value is preceded by its field,
    /// a string that does not belong to the stored bytes.
    Template(&'a Arc<HashTemplate>),
}

/// A string, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The role of the string.
    pub role: Role,
    /// The stored form.
    pub form: Form,
    /// The stored bytes; empty for a number.
    pub stored: &'a [u8],
    /// Length of the complete string as stored, bytes.
    pub stored_bytes: u64,
    /// Whether this is the first piece.
    pub is_first: bool,
    /// Whether this is the last piece.
    pub is_last: bool,
}

impl<'a> Text<'a> {
    /// A complete plain string.
    #[inline]
    fn short(role: Role, stored: &'a [u8]) -> Self {
        let (form, stored_bytes) = (Form::Plain, stored.len() as u64);
        Self { role, form, stored, stored_bytes, is_first: true, is_last: true }
    }

    /// Length of the complete string in bytes; at most 20 for a number.
    pub fn bytes(&self) -> u64 {
        match self.form {
            Form::Plain => self.stored_bytes,
            Form::Integer(_) => NUMBER_BYTES_MAX,
            Form::Lzf { bytes } => bytes,
        }
    }

    /// The decoded string, or `None` for a piece. Decoding grows `scratch` up to [`Text::bytes`]
    /// unless the stored form is plain. This may be 88 times the piece that was fed to the decoder,
    /// so check the length first.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Corrupt`] when decompression fails.
    pub fn whole<'s>(
        &'s self,
        scratch: &'s mut Vec<u8>,
    ) -> Result<Option<&'s [u8]>, DecodeErrorKind> {
        if !(self.is_first && self.is_last) {
            return Ok(None);
        }
        HeldText::new(self.form, self.stored).decode(scratch).map(Some)
    }
}

/// A string with missing pieces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OpenText {
    role: Role,
    form: Form,
    stored_bytes: u64,
    left: u64,
}

impl OpenText {
    /// Begins a string; `open` stays unchanged when the string was complete and has passed.
    #[inline]
    pub(crate) fn begin<V: Visitor>(
        open: &mut Option<Self>,
        role: Role,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
        let header = cursor.text_header()?;
        let (form, stored_bytes) = (header.form, header.stored_bytes);
        let (bytes, limit) = (header.bytes().max(stored_bytes), limits.text_bytes_max);
        if bytes > limit {
            return Err(DecodeErrorKind::TooLong { what: "a string", bytes, limit }.into());
        }
        if role == Role::NodeId && (form, stored_bytes) != (Form::Plain, NODE_ID_BYTES) {
            return corrupt("the identifier of a stream node is not 16 bytes long");
        }
        if stored_bytes <= HELD_TEXT_BYTES || stored_bytes <= cursor.left() as u64 {
            let stored = cursor.take(stored_bytes as usize)?;
            let text = Text { role, form, stored, stored_bytes, is_first: true, is_last: true };
            return Ok(visitor.text(text)?);
        }
        *open = Some(Self { role, form, stored_bytes, left: stored_bytes });
        Ok(())
    }

    /// Passes the available bytes on; returns whether the string has ended.
    pub(crate) fn go_on<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        visitor: &mut V,
    ) -> Take<bool> {
        let stored = cursor.up_to(self.left);
        if stored.is_empty() {
            return Err(Stop::Need(cursor.at() + 1));
        }
        let is_first = self.left == self.stored_bytes;
        self.left -= stored.len() as u64;
        visitor.text(Text {
            role: self.role,
            form: self.form,
            stored,
            stored_bytes: self.stored_bytes,
            is_first,
            is_last: self.left == 0,
        })?;
        Ok(self.left == 0)
    }
}

/// The position in a value.
#[derive(Debug, Default)]
pub(crate) struct Value {
    phase: Phase,
    /// The position in the row of cells, and the number of remaining rows, including this one.
    cells: &'static [Cell],
    cell: usize,
    rows_left: u64,
    /// The beginning of the inner rows, and the number of remaining inner rows, including this one.
    inner: Option<(usize, u64)>,
    open: Option<OpenText>,
    /// The earliest expiry of a hash's fields, to which the other expiries are relative.
    base_expiry_ms: i64,
    tail: Option<Box<Tail>>,
    /// The template of a hash, and the partial template that precedes a value.
    template: Option<Arc<HashTemplate>>,
    new_template: NewTemplate,
}

/// Context from outside of the value.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c> {
    pub(crate) limits: &'c Limits,
    pub(crate) templates: &'c HashTemplates,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Phase {
    /// The earliest expiry follows; then optionally a count.
    BaseExpiry {
        is_counted: bool,
    },
    Count,
    ArrayCount,
    ArrayInsert,
    TemplateId,
    FieldsForm,
    Fields {
        left: u64,
    },
    Cells,
    Tail,
    ModuleId,
    Module(ModuleParts),
    #[default]
    Done,
}

const STREAM_NODE: &[Cell] =
    &[Cell::Text(Role::NodeId), Cell::Text(Role::Packed(Packing::StreamNode))];

impl Value {
    /// Begins a value; the preceding one has ended.
    pub(crate) fn begin(&mut self, value_type: &ValueType) -> Result<(), DecodeErrorKind> {
        (self.phase, self.cells) = match value_type.layout() {
            Layout::Once(cells) => (Phase::Cells, cells),
            Layout::Counted(cells) => (Phase::Count, cells),
            Layout::ExpiryOnce(cells) => (Phase::BaseExpiry { is_counted: false }, cells),
            Layout::ExpiryCounted(cells) => (Phase::BaseExpiry { is_counted: true }, cells),
            Layout::Stream(version) => {
                self.tail = Some(Box::new(Tail::new(version)));
                (Phase::Count, STREAM_NODE)
            }
            Layout::Array(cells) => (Phase::ArrayCount, cells),
            Layout::Template(cells) if is_packed(cells) => (Phase::Cells, cells),
            Layout::Template(cells) => (Phase::TemplateId, cells),
            Layout::OwnTemplate(cells) => (Phase::FieldsForm, cells),
            Layout::Module => (Phase::ModuleId, &[] as &[Cell]),
            Layout::Opaque(what) => return Err(DecodeErrorKind::NotSelfDescribing(what)),
        };
        (self.cell, self.rows_left, self.inner) = (0, 1, None);
        Ok(())
    }

    /// Decodes until the value ends or a part is incomplete; the cursor is then at the beginning of
    /// that part.
    #[inline]
    pub(crate) fn run<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: Context<'_>,
        visitor: &mut V,
    ) -> Take<()> {
        let limits = context.limits;
        loop {
            if self.phase == Phase::Cells {
                self.short_cells(cursor, limits, visitor)?;
            }
            let from = cursor.at();
            let taken = match self.phase {
                Phase::Done => return Ok(()),
                Phase::Cells => self.cell(cursor, limits, visitor),
                _ => self.step(cursor, context, visitor),
            };
            if let Err(stop) = taken {
                cursor.rewind(from);
                return Err(stop);
            }
        }
    }

    /// Decodes all parts except cells.
    fn step<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: Context<'_>,
        visitor: &mut V,
    ) -> Take<()> {
        let limits = context.limits;
        match &mut self.phase {
            Phase::Count => {
                self.rows_left = cursor.length()?;
                visitor.part(Part::Count(self.rows_left))?;
                self.phase = if self.rows_left == 0 { self.after_cells() } else { Phase::Cells };
                Ok(())
            }
            Phase::BaseExpiry { is_counted } => {
                let next = if *is_counted { Phase::Count } else { Phase::Cells };
                self.base_expiry_ms = i64::from_le_bytes(cursor.array()?);
                self.phase = next;
                Ok(())
            }
            Phase::Tail => {
                let Some(tail) = &mut self.tail else { return corrupt("a stream without a tail") };
                if tail.step(cursor, limits, visitor)? {
                    (self.phase, self.tail) = (Phase::Done, None);
                }
                Ok(())
            }
            Phase::ModuleId => {
                let (module, parts) = ModuleParts::value(cursor)?;
                visitor.part(Part::ModuleValue(module))?;
                self.phase = Phase::Module(parts);
                Ok(())
            }
            Phase::Module(parts) => {
                if parts.step(cursor, limits, visitor)? {
                    self.phase = Phase::Done;
                }
                Ok(())
            }
            Phase::ArrayCount | Phase::ArrayInsert => self.array_head(cursor, visitor),
            Phase::TemplateId | Phase::FieldsForm | Phase::Fields { .. } => {
                self.template_head(cursor, context, visitor)
            }
            Phase::Cells | Phase::Done => Ok(()),
        }
    }

    /// Decodes the beginning of an array.
    fn array_head<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Take<()> {
        if self.phase == Phase::ArrayCount {
            self.rows_left = cursor.length()?;
            if self.rows_left == 0 {
                return corrupt("an array is empty");
            }
            visitor.part(Part::Count(self.rows_left))?;
            self.phase = Phase::ArrayInsert;
            return Ok(());
        }
        match cursor.length()? {
            0 => {}
            1 => visitor.part(Part::ArrayInsert(cursor.length()?))?,
            _ => return corrupt("an array has an invalid mark of its insert index"),
        }
        self.phase = Phase::Cells;
        Ok(())
    }

    /// Decodes the beginning of a hash by template: the number of its template, or the fields.
    fn template_head<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: Context<'_>,
        visitor: &mut V,
    ) -> Take<()> {
        let limit = context.limits.held_bytes_max;
        match &mut self.phase {
            Phase::TemplateId => {
                let template = context.templates.find(cursor.length()?)?;
                self.by_template(Arc::clone(template), visitor)
            }
            Phase::FieldsForm => {
                self.new_template = NewTemplate::default();
                let left = match cursor.length()? {
                    FIELDS_COUNTED => cursor.length()?,
                    FIELDS_PACKED => {
                        let packed = cursor.held_text("a hash's fields", limit)?;
                        texts_of_listpack(packed.decode(&mut Vec::new())?, |field| {
                            self.new_template.push(field, limit)
                        })?;
                        0
                    }
                    _ => return corrupt("the fields of a hash have an unknown form"),
                };
                self.phase = Phase::Fields { left };
                Ok(())
            }
            Phase::Fields { left: 0 } => {
                let template = std::mem::take(&mut self.new_template).finish();
                self.by_template(template, visitor)
            }
            Phase::Fields { left } => {
                let field = cursor.held_text("a hash's field", limit)?;
                let mut scratch = Vec::new();
                self.new_template.push(field.decode(&mut scratch)?, limit)?;
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Continues with the values of the template's fields.
    fn by_template<V: Visitor>(
        &mut self,
        template: Arc<HashTemplate>,
        visitor: &mut V,
    ) -> Take<()> {
        visitor.part(Part::Template(&template))?;
        self.rows_left = if is_packed(self.cells) { 1 } else { template.fields.len() as u64 };
        self.phase = if self.rows_left == 0 { Phase::Done } else { Phase::Cells };
        self.template = Some(template);
        Ok(())
    }

    /// Passes the field of the next value on.
    fn template_field<V: Visitor>(&self, visitor: &mut V) -> Take<()> {
        let field = self.template.as_ref().and_then(|template| {
            let left = usize::try_from(self.rows_left).ok()?;
            template.fields.get(template.fields.len().checked_sub(left)?)
        });
        match field {
            Some(field) => Ok(visitor.text(Text::short(Role::Field, field))?),
            None => corrupt("a hash has more values than its template has fields"),
        }
    }

    /// Fast path for a sequence of short strings and scores: most values contain little else. The
    /// position in the row stays in registers, which [`Value::cell`] cannot do.
    #[inline]
    fn short_cells<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Result<(), DecodeErrorKind> {
        if self.open.is_some() || self.inner.is_some() {
            return Ok(());
        }
        let cells = self.cells;
        let (mut cell, mut rows_left) = (self.cell, self.rows_left);
        loop {
            let from = cursor.rest();
            let taken = match cells[cell] {
                Cell::Text(role) if role != Role::NodeId => {
                    let Some(stored) = cursor.short_text(limits.text_bytes_max) else { break };
                    visitor.text(Text::short(role, stored))
                }
                Cell::Score => {
                    let Ok(bytes) = cursor.array() else { break };
                    score(f64::from_le_bytes(bytes)).and_then(|score| visitor.score(score))
                }
                _ => break,
            };
            if taken.is_err() {
                cursor.go_to(from);
                return taken;
            }
            cell += 1;
            if cell == cells.len() {
                (cell, rows_left) = (0, rows_left - 1);
                if rows_left == 0 {
                    self.phase = self.after_cells();
                    break;
                }
            }
        }
        (self.cell, self.rows_left) = (cell, rows_left);
        Ok(())
    }

    #[inline]
    fn cell<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
        if let Some(open) = &mut self.open {
            if open.go_on(cursor, visitor)? {
                self.open = None;
                self.advance();
            }
            return Ok(());
        }
        match self.cells[self.cell] {
            Cell::Text(role) => OpenText::begin(&mut self.open, role, cursor, limits, visitor)?,
            Cell::QuicklistNode => {
                let role = match cursor.length()? {
                    NODE_PLAIN => {
                        refuse_empty(cursor)?;
                        Role::Element
                    }
                    NODE_PACKED => {
                        Role::Packed(Packing::Entries(Container::Listpack, Row::Element))
                    }
                    _ => return corrupt("a node of a list is neither plain nor packed"),
                };
                OpenText::begin(&mut self.open, role, cursor, limits, visitor)?;
            }
            Cell::Score => visitor.score(score(f64::from_le_bytes(cursor.array()?))?)?,
            Cell::AsciiScore => visitor.score(ascii_score(cursor)?)?,
            Cell::RelativeExpiry => {
                let expiry = match cursor.length()? {
                    0 => None,
                    distance => Some(absolute(distance - 1, self.base_expiry_ms)?),
                };
                visitor.part(Part::FieldExpiry(expiry))?;
            }
            Cell::Expiry => {
                let expiry = match cursor.length()? {
                    0 => None,
                    at => Some(absolute(at, 0)?),
                };
                visitor.part(Part::FieldExpiry(expiry))?;
            }
            Cell::ArrayIndex => match cursor.length()? {
                ARRAY_INDEX_END => return corrupt("an array's index exceeds the maximum"),
                index => visitor.part(Part::ArrayIndex(index))?,
            },
            Cell::ArrayValue => self.array_value(cursor, limits, visitor)?,
            Cell::Time => visitor.part(Part::Time(cursor.length()?))?,
            Cell::TemplateField => self.template_field(visitor)?,
            Cell::InnerCount => match cursor.length()? {
                0 => return corrupt("a path of a path hash has no fields"),
                count => self.inner = Some((self.cell + 1, count)),
            },
            Cell::SignedExpiry => {
                let expiry = match i64::from_le_bytes(cursor.array()?) {
                    -1 => None,
                    at if at >= 0 => Some(at),
                    _ => return corrupt("a field's expiry is negative"),
                };
                visitor.part(Part::FieldExpiry(expiry))?;
            }
        }
        if self.open.is_none() {
            self.advance();
        }
        Ok(())
    }

    fn array_value<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
        let role = Role::ArrayValue;
        match cursor.length()? {
            ARRAY_TEXT | ARRAY_SHORT_TEXT => {
                OpenText::begin(&mut self.open, role, cursor, limits, visitor)?;
            }
            ARRAY_SIGNED => {
                let form = Form::Integer(i64::from_le_bytes(cursor.array()?));
                visitor.text(Text { form, ..Text::short(role, &[]) })?;
            }
            ARRAY_DOUBLE => {
                let double = f64::from_le_bytes(cursor.array()?);
                visitor.part(Part::ArrayDouble(double))?;
            }
            _ => return corrupt("a value of an array has an unknown form"),
        }
        Ok(())
    }

    #[inline]
    fn advance(&mut self) {
        self.cell += 1;
        if self.cell == self.cells.len() {
            if let Some((from, left @ 2..)) = self.inner {
                (self.cell, self.inner) = (from, Some((from, left - 1)));
                return;
            }
            self.cell = 0;
            self.rows_left -= 1;
            if self.rows_left == 0 {
                self.phase = self.after_cells();
            }
        }
    }

    fn after_cells(&self) -> Phase {
        if self.tail.is_some() { Phase::Tail } else { Phase::Done }
    }
}

fn is_packed(cells: &[Cell]) -> bool {
    matches!(cells, [Cell::Text(Role::Packed(_))])
}

/// A plain node contains one large element; servers refuse an empty one.
fn refuse_empty(cursor: &mut Cursor<'_>) -> Take<()> {
    let from = cursor.at();
    let header = cursor.text_header()?;
    cursor.rewind(from);
    if header.form == Form::Plain && header.stored_bytes == 0 {
        return corrupt("a node of a list is empty");
    }
    Ok(())
}

fn absolute(distance: u64, base: i64) -> Result<i64, DecodeErrorKind> {
    let sum = i64::try_from(distance).ok().and_then(|distance| base.checked_add(distance));
    match sum {
        Some(at @ 0..EXPIRY_END) => Ok(at),
        _ => corrupt("a field's expiry exceeds the maximum"),
    }
}

/// A score may be infinite, but not NaN.
#[inline]
pub(crate) fn score(score: f64) -> Result<f64, DecodeErrorKind> {
    if score.is_nan() { corrupt("a score is not a number") } else { Ok(score) }
}

/// `rdbLoadDoubleValue`: a length and digits, or one of three marks.
fn ascii_score(cursor: &mut Cursor<'_>) -> Take<f64> {
    match cursor.byte()? {
        253 => corrupt("a score is not a number"),
        254 => Ok(f64::INFINITY),
        255 => Ok(f64::NEG_INFINITY),
        len => Ok(parse_score(cursor.take(usize::from(len))?)?),
    }
}

/// Parses a score in decimal notation, as stored by old layouts and packed encodings.
pub(crate) fn parse_score(digits: &[u8]) -> Result<f64, DecodeErrorKind> {
    match fast_float2::parse(digits) {
        Ok(number) => score(number),
        Err(_) => corrupt("a score is not a number"),
    }
}

/// Whether the text consists of digits and at most one point, the simplest input of
/// [`parse_score`]. This check is enough when the number is not needed.
pub(crate) fn is_simple_score(score: &[u8]) -> bool {
    let whole = score.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match &score[whole..] {
        [b'.', fraction @ ..] => whole > 0 && are_digits(fraction),
        _ => false,
    }
}

/// Eight bytes at a time: scores can be as long as 64-bit numbers.
fn are_digits(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let are_eight = |chunk: &[u8; 8]| {
        let bytes = u64::from_le_bytes(*chunk);
        let above = bytes.wrapping_add(0x4646_4646_4646_4646);
        let below = bytes.wrapping_sub(0x3030_3030_3030_3030);
        (above | below | bytes) & 0x8080_8080_8080_8080 == 0
    };
    chunks.iter().all(are_eight) && rest.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_score_parses() {
        for simple in ["0.5", "5.", "12345678.12345678", "0.12345678901234567", "9.1234567", "00.0"]
        {
            assert!(is_simple_score(simple.as_bytes()), "{simple}");
            assert!(parse_score(simple.as_bytes()).is_ok(), "{simple}");
        }
        for (other, is_score) in [
            ("", false),
            (".", false),
            ("1.2.3", false),
            ("0.1234567:", false),
            ("0.12345678/", false),
            ("0.1234567\u{e9}", false),
            ("1 .5", false),
            ("nan", false),
            (".5", true),
            ("7", true),
            ("-0.5", true),
            ("1.5e3", true),
            ("inf", true),
        ] {
            assert!(!is_simple_score(other.as_bytes()), "{other}");
            assert_eq!(parse_score(other.as_bytes()).is_ok(), is_score, "{other}");
        }
        for byte in 0..=u8::MAX {
            for place in 0..9 {
                let mut fraction = *b"012345678";
                fraction[place] = byte;
                assert_eq!(are_digits(&fraction), byte.is_ascii_digit(), "{byte} at {place}");
            }
        }
    }
}
