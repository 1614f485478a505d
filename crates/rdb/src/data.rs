//! The third level: logical values, the same whatever encoding they are stored in.
//!
//! Numbers are their decimal notation, a field's expiry always follows its value, and a score of
//! minus zero is zero, since packed encodings cannot tell the two apart. The order of members and
//! fields is that of the stream: it depends on the encoding and means nothing.

use crate::error::DecodeError;
use crate::header::Header;
use crate::limits::Limits;
use crate::opcode::{FieldExpiry, Kind, Role};
use crate::raw::{Key, Record};
use crate::structure::{self, Item, Piece, Shape};

/// Takes what a [`Decoder`] finds, in the order of the stream. What is borrowed is gone after
/// the call. Every method does nothing unless it is written.
pub trait Visitor {
    /// A record that is no key.
    fn record(&mut self, _record: Record<'_>) {}
    /// A key; its value follows.
    fn key(&mut self, _key: &Key<'_>) {}
    /// A string of the value, or a piece of one; its role is never a packed one.
    fn text(&mut self, _piece: Piece<'_>) {}
    /// The score of the member before it.
    fn score(&mut self, _score: f64) {}
    /// Another item of the value, or of a module's data outside of keys. Here an
    /// [`Item::FieldExpiry`] follows every value of a hash, with `None` where the field stays.
    fn item(&mut self, _item: Item<'_>) {}
    /// The value has ended.
    fn key_end(&mut self, _shape: &Shape) {}
}

/// Two visitors see the same stream.
impl<A: Visitor, B: Visitor> Visitor for (A, B) {
    fn record(&mut self, record: Record<'_>) {
        self.0.record(record);
        self.1.record(record);
    }
    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        self.0.key(key);
        self.1.key(key);
    }
    #[inline]
    fn text(&mut self, piece: Piece<'_>) {
        self.0.text(piece);
        self.1.text(piece);
    }
    #[inline]
    fn score(&mut self, score: f64) {
        self.0.score(score);
        self.1.score(score);
    }
    #[inline]
    fn item(&mut self, item: Item<'_>) {
        self.0.item(item);
        self.1.item(item);
    }
    #[inline]
    fn key_end(&mut self, shape: &Shape) {
        self.0.key_end(shape);
        self.1.key_end(shape);
    }
}

/// Gives the logical values of a stream that is fed in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    structure: structure::Decoder,
    expiries: Expiries,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { structure: structure::Decoder::new(limits), expiries: Expiries::default() }
    }

    /// The header, once its nine bytes have come.
    pub fn header(&self) -> Option<Header> {
        self.structure.header()
    }

    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`DecodeError`] with the position of what is wrong; every later call gives it again.
    pub fn feed<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<(), DecodeError> {
        self.structure.feed(bytes, &mut Level { expiries: &mut self.expiries, visitor })
    }

    /// Judges the stream, of which all has come.
    ///
    /// # Errors
    /// [`Truncated`](crate::DecodeErrorKind::Truncated) when the stream has not come to its end.
    pub fn finish(&self) -> Result<(), DecodeError> {
        self.structure.finish()
    }
}

/// Where the expiries of a hash's fields come from.
#[derive(Debug)]
struct Expiries {
    is_hash: bool,
    stored: FieldExpiry,
    held: Option<i64>,
}

impl Default for Expiries {
    fn default() -> Self {
        Self { is_hash: false, stored: FieldExpiry::None, held: None }
    }
}

struct Level<'l, V> {
    expiries: &'l mut Expiries,
    visitor: &'l mut V,
}

impl<V: Visitor> structure::Visitor for Level<'_, V> {
    fn record(&mut self, record: Record<'_>) {
        self.expiries.is_hash = false;
        self.visitor.record(record);
    }

    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        *self.expiries = Expiries {
            is_hash: key.value_type.kind() == Kind::Hash,
            stored: key.value_type.field_expiry(),
            held: None,
        };
        self.visitor.key(key);
    }

    #[inline]
    fn text(&mut self, piece: Piece<'_>) {
        self.visitor.text(piece);
        let ends_field = piece.role == Role::FieldValue && piece.is_last && self.expiries.is_hash;
        if ends_field && self.expiries.stored != FieldExpiry::After {
            self.visitor.item(Item::FieldExpiry(self.expiries.held.take()));
        }
    }

    #[inline]
    fn integer(&mut self, role: Role, number: i64) {
        let mut decimal = itoa::Buffer::new();
        let bytes = decimal.format(number).as_bytes();
        self.text(Piece { role, bytes, is_first: true, is_last: true });
    }

    #[inline]
    fn score(&mut self, score: f64) {
        // Adding zero turns minus zero into zero.
        self.visitor.score(score + 0.0);
    }

    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::FieldExpiry(expiry) if self.expiries.stored == FieldExpiry::Before => {
                self.expiries.held = expiry;
            }
            item => self.visitor.item(item),
        }
    }

    #[inline]
    fn key_end(&mut self, shape: &Shape) {
        self.visitor.key_end(shape);
    }
}
