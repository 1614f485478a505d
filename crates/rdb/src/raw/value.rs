//! The grammar of values: a small machine that runs the layouts of the table of types.

use crate::cursor::{Cursor, Form, HeldText};
use crate::error::{DecodeErrorKind, Stop, Take, corrupt};
use crate::limits::{Limits, whole_bytes};
use crate::opcode::{Cell, Container, Layout, Packing, Role, Row, ValueType};
use crate::raw::Visitor;
use crate::raw::module::{ModuleId, ModulePart, ModuleParts};
use crate::raw::stream::{StreamPart, Tail};

/// A string longer than this is passed on in pieces unless all of it is there.
const HELD_TEXT_BYTES: u64 = whole_bytes(64 << 10) as u64;
/// `QUICKLIST_NODE_CONTAINER_PLAIN` and `_PACKED` of `quicklist.h`.
const NODE_PLAIN: u64 = 1;
const NODE_PACKED: u64 = 2;
/// One more than the latest expiry that a field can have, milliseconds (`EB_EXPIRE_TIME_MAX`).
const EXPIRY_END: i64 = 1 << 48;
/// Most digits of a number, with its sign.
const NUMBER_BYTES_MAX: u64 = 20;
/// Length of a stream node's identifier.
const NODE_ID_BYTES: u64 = 16;

/// A part of a value that is neither a string nor a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'a> {
    /// How many elements, pairs, or nodes follow.
    Count(u64),
    /// When the field before it or, in Redis' own layouts, after it expires: milliseconds since
    /// 1970.
    FieldExpiry(Option<i64>),
    /// A part of a stream's tail.
    Stream(StreamPart<'a>),
    /// The module that the value belongs to; its parts follow.
    ModuleValue(ModuleId),
    /// A part of a module's data.
    Module(ModulePart),
}

/// A string, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// What the string is.
    pub role: Role,
    /// How it is stored.
    pub form: Form,
    /// Bytes as they are stored; none where the form is a number.
    pub stored: &'a [u8],
    /// Length of the whole string as it is stored, bytes.
    pub stored_bytes: u64,
    /// Whether this is where it begins.
    pub is_first: bool,
    /// Whether this is where it ends.
    pub is_last: bool,
}

impl Text<'_> {
    /// Length of the whole string, bytes; at most 20 where the form is a number.
    pub fn bytes(&self) -> u64 {
        match self.form {
            Form::Plain => self.stored_bytes,
            Form::Integer(_) => NUMBER_BYTES_MAX,
            Form::Lzf { bytes } => bytes,
        }
    }

    /// The string itself, or `None` where this is only a piece of it. `scratch` is used, and grown
    /// to [`Text::bytes`], where it is not stored as it is: that may be 88 times the piece that the
    /// decoder was fed, so look at it before.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Corrupt`] when it does not decompress.
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

/// A string of which pieces are still to come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OpenText {
    role: Role,
    form: Form,
    stored_bytes: u64,
    left: u64,
}

impl OpenText {
    /// Begins a string; `open` is left alone when all of it is there and has been passed on.
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

    /// Passes on what is there; whether the string has ended.
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

/// Where in a value we are.
#[derive(Debug, Default)]
pub(crate) struct Value {
    phase: Phase,
    /// Where in the row of cells, and how often the row is to come, this one included.
    cells: &'static [Cell],
    cell: usize,
    rows_left: u64,
    /// Where the inner rows begin, and how many are left, this one included.
    inner: Option<(usize, u64)>,
    open: Option<OpenText>,
    /// The smallest expiry of a hash's fields, which the others are told by.
    base_expiry_ms: i64,
    tail: Option<Box<Tail>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Phase {
    /// The smallest expiry is next; then a count, or not.
    BaseExpiry {
        is_counted: bool,
    },
    Count,
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
    pub(crate) fn new(value_type: &ValueType) -> Result<Self, DecodeErrorKind> {
        let (phase, cells) = match value_type.layout() {
            Layout::Once(cells) => (Phase::Cells, cells),
            Layout::Counted(cells) => (Phase::Count, cells),
            Layout::ExpiryOnce(cells) => (Phase::BaseExpiry { is_counted: false }, cells),
            Layout::ExpiryCounted(cells) => (Phase::BaseExpiry { is_counted: true }, cells),
            Layout::Stream(_) => (Phase::Count, STREAM_NODE),
            Layout::Module => (Phase::ModuleId, &[] as &[Cell]),
            Layout::Opaque(what) => return Err(DecodeErrorKind::NotSelfDescribing(what)),
        };
        let tail = match value_type.layout() {
            Layout::Stream(version) => Some(Box::new(Tail::new(version))),
            _ => None,
        };
        Ok(Self { phase, cells, rows_left: 1, tail, ..Self::default() })
    }

    /// Runs until the value has ended or a part is not all there; the cursor then stands where
    /// that part begins.
    #[inline]
    pub(crate) fn run<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
        while self.phase != Phase::Done {
            let from = cursor.at();
            let taken = match self.phase {
                Phase::Cells => self.cell(cursor, limits, visitor),
                _ => self.step(cursor, limits, visitor),
            };
            if let Err(stop) = taken {
                cursor.rewind(from);
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Everything but cells.
    fn step<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<()> {
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
                    self.phase = Phase::Done;
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
            Phase::Cells | Phase::Done => Ok(()),
        }
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

/// A plain node holds one large element, and servers refuse an empty one.
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
        _ => corrupt("a field's expiry is beyond all time"),
    }
}

/// A score may be infinite and must be a number.
#[inline]
pub(crate) fn score(score: f64) -> Result<f64, DecodeErrorKind> {
    if score.is_nan() { corrupt("a score is not a number") } else { Ok(score) }
}

/// `rdbLoadDoubleValue`: a length, or one of three marks, and digits.
fn ascii_score(cursor: &mut Cursor<'_>) -> Take<f64> {
    match cursor.byte()? {
        253 => corrupt("a score is not a number"),
        254 => Ok(f64::INFINITY),
        255 => Ok(f64::NEG_INFINITY),
        len => Ok(parse_score(cursor.take(usize::from(len))?)?),
    }
}

/// A score in decimal notation, as old layouts and packed encodings have it.
pub(crate) fn parse_score(digits: &[u8]) -> Result<f64, DecodeErrorKind> {
    match fast_float2::parse(digits) {
        Ok(number) => score(number),
        Err(_) => corrupt("a score is not a number"),
    }
}
