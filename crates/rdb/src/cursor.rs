//! Reading parts from bytes that may not all have come yet.

use crate::error::{DecodeErrorKind, Stop, Take, corrupt};

/// Reads from the beginning of a window. A read that finds too little says how much it needs and
/// is tried again from the part's beginning when more has come.
pub(crate) struct Cursor<'a> {
    window: &'a [u8],
    /// What has not been read: the end of the window.
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

    /// What has been read from `at` on.
    pub(crate) fn taken_since(&self, at: usize) -> &'a [u8] {
        &self.window[at..self.at()]
    }

    /// What has not been read.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Goes on or back to `rest`, an end of the window.
    #[inline]
    pub(crate) fn go_to(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    /// Bytes that are there and not read.
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

    /// At most `max` bytes, whatever is there.
    pub(crate) fn up_to(&mut self, max: u64) -> &'a [u8] {
        let len = usize::try_from(max).map_or(self.left(), |max| self.left().min(max));
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    pub(crate) fn u64_le(&mut self) -> Take<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length: 6, 14, 32 or 64 bits by its first two bits or first byte (`rdbLoadLenByRef`).
    #[inline]
    pub(crate) fn length(&mut self) -> Take<u64> {
        match self.length_or_special()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => corrupt("a length is expected where an encoded string stands"),
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
                _ => corrupt("no length begins with this byte"),
            },
        }
    }

    /// A plain string of less than 64 bytes and at most `limit`, if all of it is there: most are.
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

    /// What a string's first bytes say of it; its stored bytes follow.
    #[inline]
    pub(crate) fn text_header(&mut self) -> Take<TextHeader> {
        // Most strings are short and plain.
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
                    return corrupt("a compressed string cannot have the length that it claims");
                }
                Ok(TextHeader { form: Form::Lzf { bytes }, stored_bytes })
            }
            Length::Special(_) => corrupt("no string has this encoding"),
        }
    }

    /// A string that is held whole.
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

/// A length, or what stands in a length's place.
pub(crate) enum Length {
    Plain(u64),
    Special(u8),
}

/// How a string is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// As a number; the string is its decimal notation.
    Integer(i64),
    /// LZF-compressed.
    Lzf {
        /// Its length when decompressed, bytes.
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

/// A string of which all stored bytes are there.
pub(crate) struct HeldText<'a> {
    form: Form,
    stored: &'a [u8],
}

impl<'a> HeldText<'a> {
    pub(crate) fn new(form: Form, stored: &'a [u8]) -> Self {
        Self { form, stored }
    }

    /// The string itself; `scratch` is used where it is not stored as it is.
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
