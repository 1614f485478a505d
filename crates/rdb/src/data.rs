//! The third level: logical values, independent of their encoding.
//!
//! Numbers have their decimal notation. The expiry of a field always follows its value. A score of
//! minus zero becomes zero, because packed encodings cannot distinguish the two. Members and fields
//! come in the order of the stream; this order depends on the encoding and has no meaning.

use crate::error::DecodeError;
use crate::header::Header;
use crate::limits::Limits;
use crate::opcode::{FieldExpiry, Kind, Role};
use crate::raw::{Key, Record};
use crate::structure::{self, Item, Piece, Shape};

/// Receives the findings of a [`Decoder`] in the order of the stream. Borrowed data is valid during
/// the call only. The default of every method does nothing.
pub trait Visitor {
    /// A record other than a key.
    fn record(&mut self, _record: Record<'_>) {}
    /// A key; its value follows.
    fn key(&mut self, _key: &Key<'_>) {}
    /// A string of the value, or a piece of one; its role is never a packed role.
    fn text(&mut self, _piece: Piece<'_>) {}
    /// The score of the preceding member.
    fn score(&mut self, _score: f64) {}
    /// Another item of the value, or of module data outside of keys. An [`Item::FieldExpiry`]
    /// follows every value of a hash; it is `None` for a field without expiry.
    fn item(&mut self, _item: Item<'_>) {}
    /// The value has ended.
    fn key_end(&mut self, _shape: &Shape) {}
}

/// Passes one stream to two visitors.
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

/// Decodes the logical values of a stream that is fed in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    structure: structure::Decoder,
    expiries: Expiries,
}

impl Decoder {
    /// Creates a decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { structure: structure::Decoder::new(limits), expiries: Expiries::default() }
    }

    /// The header; `None` until its nine bytes have arrived.
    pub fn header(&self) -> Option<Header> {
        self.structure.header()
    }

    /// Decodes the next piece of the stream.
    ///
    /// # Errors
    /// [`DecodeError`] with the position of the fault; every later call returns it again.
    pub fn feed<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<(), DecodeError> {
        self.structure.feed(bytes, &mut Level { expiries: &mut self.expiries, visitor })
    }

    /// Checks that the stream is complete. Call it after the last piece.
    ///
    /// # Errors
    /// [`Truncated`](crate::DecodeErrorKind::Truncated) when the stream ends before its end opcode.
    pub fn finish(&self) -> Result<(), DecodeError> {
        self.structure.finish()
    }
}

/// The form in which a hash stores the expiries of its fields.
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
