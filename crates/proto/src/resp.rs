//! RESP2: encodes commands and decodes replies.

use bytes::{Bytes, BytesMut};

/// Encodes a command as an array of bulk strings.
pub fn encode_command<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin_command(&mut bytes, arguments.len());
    for argument in arguments {
        push_argument(&mut bytes, argument.as_ref());
    }
    bytes
}

/// Begins a command at the end of `bytes`; `arguments` includes the command's name.
pub fn begin_command(bytes: &mut Vec<u8>, arguments: usize) {
    push_count(bytes, b'*', arguments);
}

/// Appends an argument to the command.
pub fn push_argument(bytes: &mut Vec<u8>, argument: &[u8]) {
    begin_argument(bytes, argument.len());
    bytes.extend_from_slice(argument);
    bytes.extend_from_slice(b"\r\n");
}

/// Begins an argument; the caller sends its `len` bytes and the final CR LF.
pub fn begin_argument(bytes: &mut Vec<u8>, len: usize) {
    push_count(bytes, b'$', len);
}

fn push_count(bytes: &mut Vec<u8>, kind: u8, mut count: usize) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (count % 10) as u8;
        count /= 10;
        if count == 0 {
            break;
        }
    }
    bytes.push(kind);
    bytes.extend_from_slice(&digits[from..]);
    bytes.extend_from_slice(b"\r\n");
}

/// A server's reply to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+…`
    Simple(Bytes),
    /// `-…`
    Error(Bytes),
    /// `:…`
    Integer(i64),
    /// `$…`; `None` is the null bulk string.
    Bulk(Option<Bytes>),
    /// `*…`; `None` is the null array.
    Array(Option<Vec<Reply>>),
}

/// Limits of one reply of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum length of a line (simple string, error, number), bytes.
    pub line_bytes_max: usize,
    /// Maximum length of a bulk string, bytes.
    pub bulk_bytes_max: usize,
    /// Maximum number of values in one reply, including nested values.
    pub values_max: usize,
    /// Maximum depth of nested arrays.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes_max: 64 << 10, bulk_bytes_max: 1 << 20, values_max: 4096, depth_max: 4 }
    }
}

/// The bytes are not RESP, or exceed the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first byte of a reply is invalid.
    #[error("invalid first byte of a reply: 0x{0:02x}")]
    UnknownType(u8),
    /// A length or integer is no decimal number in its range.
    #[error("`{}` is no length or number", .0.escape_ascii())]
    BadNumber(Vec<u8>),
    /// CR LF is missing at the end of a bulk string.
    #[error("CR LF is missing at the end of a bulk string")]
    BadBulkEnd,
    /// A reply exceeds a limit.
    #[error("a reply exceeds the limit of {max} {what}")]
    TooLarge {
        /// The limited quantity.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

/// Decodes the replies in a stream of bytes.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    buffer: BytesMut,
    limits: Limits,
}

impl ReplyDecoder {
    /// Creates a decoder with these limits.
    pub fn with_limits(limits: Limits) -> Self {
        Self { buffer: BytesMut::new(), limits }
    }

    /// Adds bytes of the network, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete reply; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream is unusable afterwards.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, DecodeError> {
        decode(&mut self.buffer, &self.limits)
    }
}

/// Removes the first complete reply from the buffer.
pub(crate) fn decode(buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Reply>, DecodeError> {
    let mut cursor = Cursor { bytes: buffer, at: 0, values: 0, limits };
    let Some(shape) = cursor.shape(0)? else { return Ok(None) };
    let consumed = cursor.at;
    let frame = buffer.split_to(consumed).freeze();
    Ok(Some(shape.build(&frame)))
}

/// A reply as positions in the buffer: bytes are copied only after the reply is complete.
enum Shape {
    Simple(usize, usize),
    Error(usize, usize),
    Integer(i64),
    Bulk(Option<(usize, usize)>),
    Array(Option<Vec<Shape>>),
}

impl Shape {
    fn build(self, frame: &Bytes) -> Reply {
        match self {
            Self::Simple(from, to) => Reply::Simple(frame.slice(from..to)),
            Self::Error(from, to) => Reply::Error(frame.slice(from..to)),
            Self::Integer(number) => Reply::Integer(number),
            Self::Bulk(range) => Reply::Bulk(range.map(|(from, to)| frame.slice(from..to))),
            Self::Array(items) => Reply::Array(
                items.map(|items| items.into_iter().map(|item| item.build(frame)).collect()),
            ),
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
    limits: &'a Limits,
}

impl Cursor<'_> {
    fn shape(&mut self, depth: usize) -> Result<Option<Shape>, DecodeError> {
        self.values += 1;
        if self.values > self.limits.values_max {
            return Err(DecodeError::TooLarge { what: "values", max: self.limits.values_max });
        }
        let Some(&kind) = self.bytes.get(self.at) else { return Ok(None) };
        if !b"+-:$*".contains(&kind) {
            return Err(DecodeError::UnknownType(kind));
        }
        let Some((from, to)) = self.line()? else { return Ok(None) };
        match kind {
            b'+' => Ok(Some(Shape::Simple(from, to))),
            b'-' => Ok(Some(Shape::Error(from, to))),
            b':' => Ok(Some(Shape::Integer(number(&self.bytes[from..to])?))),
            b'$' => self.bulk(number(&self.bytes[from..to])?),
            _ => self.array(number(&self.bytes[from..to])?, depth),
        }
    }

    fn bulk(&mut self, len: i64) -> Result<Option<Shape>, DecodeError> {
        if len == -1 {
            return Ok(Some(Shape::Bulk(None)));
        }
        let max = self.limits.bulk_bytes_max;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= max)
            .ok_or(DecodeError::TooLarge { what: "bytes", max })?;
        let (from, to) = (self.at, self.at + len);
        if self.bytes.len() < to + 2 {
            return Ok(None);
        }
        if &self.bytes[to..to + 2] != b"\r\n" {
            return Err(DecodeError::BadBulkEnd);
        }
        self.at = to + 2;
        Ok(Some(Shape::Bulk(Some((from, to)))))
    }

    fn array(&mut self, len: i64, depth: usize) -> Result<Option<Shape>, DecodeError> {
        if len == -1 {
            return Ok(Some(Shape::Array(None)));
        }
        if depth >= self.limits.depth_max {
            return Err(DecodeError::TooLarge {
                what: "nested arrays",
                max: self.limits.depth_max,
            });
        }
        let max = self.limits.values_max;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= max)
            .ok_or(DecodeError::TooLarge { what: "values", max })?;
        let mut items = Vec::new();
        for _ in 0..len {
            let Some(item) = self.shape(depth + 1)? else { return Ok(None) };
            items.push(item);
        }
        Ok(Some(Shape::Array(Some(items))))
    }

    /// The rest of a line behind its type byte, without CR LF.
    fn line(&mut self) -> Result<Option<(usize, usize)>, DecodeError> {
        let from = self.at + 1;
        let max = self.limits.line_bytes_max;
        let rest = &self.bytes[from..];
        let Some(len) = memchr::memchr(b'\n', &rest[..rest.len().min(max)]) else {
            if rest.len() >= max {
                return Err(DecodeError::TooLarge { what: "bytes in a line", max });
            }
            return Ok(None);
        };
        self.at = from + len + 1;
        let to = from + len;
        let to = if to > from && self.bytes[to - 1] == b'\r' { to - 1 } else { to };
        Ok(Some((from, to)))
    }
}

fn number(digits: &[u8]) -> Result<i64, DecodeError> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| DecodeError::BadNumber(digits[..digits.len().min(32)].to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replies(stream: &[u8], chunk: usize) -> Result<Vec<Reply>, DecodeError> {
        let mut decoder = ReplyDecoder::default();
        let mut replies = Vec::new();
        for piece in stream.chunks(chunk) {
            decoder.feed(piece);
            while let Some(reply) = decoder.next_reply()? {
                replies.push(reply);
            }
        }
        Ok(replies)
    }

    #[test]
    fn replies_do_not_depend_on_the_size_of_pieces() {
        let stream = b"+OK\r\n-ERR no\r\n:-42\r\n$5\r\nhe\r\nl\r\n$-1\r\n*3\r\n$1\r\na\r\n*1\r\n:1\r\n*-1\r\n$0\r\n\r\n";
        let whole = replies(stream, stream.len()).unwrap();
        assert_eq!(whole.len(), 7);
        assert_eq!(whole[3], Reply::Bulk(Some(Bytes::from_static(b"he\r\nl"))));
        for chunk in 1..stream.len() {
            assert_eq!(replies(stream, chunk).as_ref(), Ok(&whole), "chunk {chunk}");
        }
    }

    #[test]
    fn too_large_a_reply_is_refused_before_its_bytes_arrive() {
        for stream in [
            &b"$1048577\r\n"[..],
            b"$-2\r\n",
            b"*4097\r\n",
            b"*9223372036854775807\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
        ] {
            let error = replies(stream, stream.len()).unwrap_err();
            assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
        }
        let endless = vec![b'+'; 70 << 10];
        assert!(matches!(replies(&endless, 4096), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(
            encode_command(&["PSYNC", "?", "-1"]),
            b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"
        );
        let mut bytes = b"before".to_vec();
        begin_command(&mut bytes, 10);
        push_argument(&mut bytes, b"");
        begin_argument(&mut bytes, usize::MAX);
        assert_eq!(bytes, b"before*10\r\n$0\r\n\r\n$18446744073709551615\r\n");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(stream in proptest::collection::vec(
            prop_oneof![Just(b'$'), Just(b'*'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'-'), any::<u8>()], 0..200), chunk in 1usize..50) {
            let _ = replies(&stream, chunk);
        }
    }
}
