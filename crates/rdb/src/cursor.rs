//! Reads parts from a window of bytes that may end in the middle of a part.

use crate::error::{DecodeErrorKind, Stop, Take, corrupt};

/// Reads from the beginning of a window. A read of an incomplete part returns the number of bytes
/// that the part needs. The caller reads the part from its beginning when more bytes have arrived.
pub(crate) struct Cursor<'a> {
    window: &'a [u8],
    /// The unread end of the window.
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(window: &'a [u8]) -> Self {
        Self { window, rest: window }
    }

    /// Bytes read so far.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.window.len() - self.rest.len()
    }

    /// Goes back to an earlier position.
    #[inline]
    pub(crate) fn rewind(&mut self, at: usize) {
        self.rest = &self.window[at..];
    }

    /// The bytes read since position `at`.
    pub(crate) fn taken_since(&self, at: usize) -> &'a [u8] {
        &self.window[at..self.at()]
    }

    /// The unread bytes.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Moves to `rest`, which must be an end of the window.
    #[inline]
    pub(crate) fn go_to(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    /// Number of unread bytes.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Take<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.need(len)),
        }
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Take<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.need(N)),
        }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Take<u8> {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                Ok(*byte)
            }
            None => Err(self.need(1)),
        }
    }

    #[cold]
    fn need(&self, len: usize) -> Stop {
        Stop::Need(self.at().saturating_add(len))
    }

    /// Reads at most `max` bytes, fewer when the window ends before.
    pub(crate) fn up_to(&mut self, max: u64) -> &'a [u8] {
        let len = usize::try_from(max).map_or(self.left(), |max| self.left().min(max));
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    pub(crate) fn u64_le(&mut self) -> Take<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a length of 6, 14, 32 or 64 bits; its first byte determines the size
    /// (`rdbLoadLenByRef`).
    #[inline]
    pub(crate) fn length(&mut self) -> Take<u64> {
        match self.length_or_special()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => corrupt(
                "a length is expected, but the bytes announce an encoded \
                                           string",
            ),
        }
    }

    #[inline]
    pub(crate) fn length_or_special(&mut self) -> Take<Length> {
        let first = self.byte()?;
        match first >> 6 {
            0b00 => Ok(Length::Plain(u64::from(first))),
            0b01 => {
                let low = self.byte()?;
                Ok(Length::Plain(u64::from(first & 0x3F) << 8 | u64::from(low)))
            }
            0b11 => Ok(Length::Special(first & 0x3F)),
            _ => match first {
                0x80 => Ok(Length::Plain(u64::from(u32::from_be_bytes(self.array()?)))),
                0x81 => Ok(Length::Plain(u64::from_be_bytes(self.array()?))),
                _ => corrupt("the first byte of a length is invalid"),
            },
        }
    }

    /// Reads a complete, plain string of less than 64 bytes and at most `limit`. Most strings are
    /// such strings.
    #[inline]
    pub(crate) fn short_text(&mut self, limit: u64) -> Option<&'a [u8]> {
        let (&len @ 0..0x40, rest) = self.rest.split_first()? else { return None };
        if u64::from(len) > limit {
            return None;
        }
        let (text, rest) = rest.split_at_checked(usize::from(len))?;
        self.rest = rest;
        Some(text)
    }

    /// Reads the header of a string; the stored bytes follow the header.
    #[inline]
    pub(crate) fn text_header(&mut self) -> Take<TextHeader> {
        // Fast path: most strings are short and plain.
        if let Some((&first @ 0..0x40, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(TextHeader { form: Form::Plain, stored_bytes: u64::from(first) });
        }
        self.long_text_header()
    }

    fn long_text_header(&mut self) -> Take<TextHeader> {
        let integer = |number: i64| TextHeader { form: Form::Integer(number), stored_bytes: 0 };
        match self.length_or_special()? {
            Length::Plain(len) => Ok(TextHeader { form: Form::Plain, stored_bytes: len }),
            Length::Special(0) => Ok(integer(i64::from(i8::from_le_bytes(self.array()?)))),
            Length::Special(1) => Ok(integer(i64::from(i16::from_le_bytes(self.array()?)))),
            Length::Special(2) => Ok(integer(i64::from(i32::from_le_bytes(self.array()?)))),
            Length::Special(3) => {
                let stored_bytes = self.length()?;
                let bytes = self.length()?;
                if bytes == 0 || !crate::lzf::is_possible(stored_bytes, bytes) {
                    return corrupt("the decompressed length of a compressed string is impossible");
                }
                Ok(TextHeader { form: Form::Lzf { bytes }, stored_bytes })
            }
            Length::Special(_) => corrupt("unknown string encoding"),
        }
    }

    /// Reads a complete string.
    #[inline]
    pub(crate) fn held_text(&mut self, what: &'static str, limit: u64) -> Take<HeldText<'a>> {
        if let Some(stored) = self.short_text(limit) {
            return Ok(HeldText { form: Form::Plain, stored });
        }
        let header = self.text_header()?;
        let bytes = header.bytes().max(header.stored_bytes);
        let stored = match usize::try_from(header.stored_bytes) {
            Ok(stored) if bytes <= limit => self.take(stored)?,
            _ => return Err(DecodeErrorKind::TooLong { what, bytes, limit }.into()),
        };
        Ok(HeldText { form: header.form, stored })
    }
}

/// A length, or a special encoding in its place.
pub(crate) enum Length {
    Plain(u64),
    Special(u8),
}

/// The stored form of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Plain bytes.
    Plain,
    /// A number; the string is its decimal notation.
    Integer(i64),
    /// LZF-compressed.
    Lzf {
        /// Length of the decompressed string in bytes.
        bytes: u64,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct TextHeader {
    pub(crate) form: Form,
    pub(crate) stored_bytes: u64,
}

impl TextHeader {
    /// Length of the string itself; 0 for a number.
    pub(crate) fn bytes(&self) -> u64 {
        match self.form {
            Form::Plain => self.stored_bytes,
            Form::Integer(_) => 0,
            Form::Lzf { bytes } => bytes,
        }
    }
}

/// A string whose stored bytes are complete.
pub(crate) struct HeldText<'a> {
    form: Form,
    stored: &'a [u8],
}

impl<'a> HeldText<'a> {
    pub(crate) fn new(form: Form, stored: &'a [u8]) -> Self {
        Self { form, stored }
    }

    /// Decodes the string; `scratch` holds the result unless the stored form is plain.
    #[inline]
    pub(crate) fn decode<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], DecodeErrorKind>
    where
        'a: 's,
    {
        match self.form {
            Form::Plain => Ok(self.stored),
            Form::Integer(number) => Ok(decimal(number, scratch)),
            Form::Lzf { bytes } => crate::lzf::decompress(self.stored, bytes, scratch),
        }
    }
}

fn decimal(number: i64, scratch: &mut Vec<u8>) -> &[u8] {
    scratch.clear();
    scratch.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    scratch
}
