//! The first nine bytes of a stream: server family and version of the format.

use std::fmt;

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 9;

/// Redis 8.10.
const REDIS_VERSION_KNOWN: u16 = 15;
/// Valkey 9.0.
const VALKEY_VERSION_FIRST: u16 = 80;
/// Valkey 9.2.
const VALKEY_VERSION_KNOWN: u16 = 81;

/// The server family, which determines the numbering of versions. The same byte can have different
/// meanings in the two families; the family decides how the rest of the stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    /// `REDIS` and four digits: Redis, and Valkey up to 8.
    Redis,
    /// `VALKEY` and three digits: Valkey from 9.0 on.
    Valkey,
}

impl Magic {
    /// The letters as stored in the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "REDIS",
            Self::Valkey => "VALKEY",
        }
    }
}

/// The first bytes of a file that Valkey 9.2 has compressed as a whole.
const COMPRESSED_MAGIC: &[u8] = b"VCS";

/// The nine bytes are no RDB header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes belong to another format.
    #[error(
        "the stream begins with {}, not with REDIS or VALKEY and a version",
        .0.escape_ascii()
    )]
    NoRdb([u8; HEADER_BYTES]),
    /// The RDB is compressed as a whole.
    #[error(
        "the stream begins with VCS: Valkey has compressed the RDB as a whole, which is not \
         supported; save it with `rdbcompression yes` or `no`"
    )]
    Compressed,
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The server family.
    pub magic: Magic,
    /// Version of the format.
    pub version: u16,
}

impl Header {
    /// Parses the first nine bytes of a stream.
    ///
    /// # Errors
    /// [`HeaderError`] when the bytes are no RDB header; version 0 is invalid.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        for magic in [Magic::Valkey, Magic::Redis] {
            if let Some(digits) = bytes.strip_prefix(magic.as_str().as_bytes()) {
                let version = decimal(digits).filter(|version| *version > 0);
                let version = version.ok_or(HeaderError::NoRdb(bytes))?;
                return Ok(Self { magic, version });
            }
        }
        Err(match bytes.starts_with(COMPRESSED_MAGIC) {
            true => HeaderError::Compressed,
            false => HeaderError::NoRdb(bytes),
        })
    }

    /// Whether this crate knows everything that a server may write under this header.
    pub fn is_known(self) -> bool {
        match self.magic {
            Magic::Redis => (1..=REDIS_VERSION_KNOWN).contains(&self.version),
            Magic::Valkey => (VALKEY_VERSION_FIRST..=VALKEY_VERSION_KNOWN).contains(&self.version),
        }
    }

    /// Whether a CRC-64 follows the end opcode (Redis 2.6 and later).
    pub fn has_checksum(self) -> bool {
        self.magic == Magic::Valkey || self.version >= 5
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = HEADER_BYTES - self.magic.as_str().len();
        write!(f, "{}{:0width$}", self.magic.as_str(), self.version)
    }
}

fn decimal(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_letters_determine_the_family() {
        for (bytes, magic, version) in [
            (b"REDIS0011", Magic::Redis, 11),
            (b"REDIS0006", Magic::Redis, 6),
            (b"VALKEY080", Magic::Valkey, 80),
        ] {
            let header = Header::parse(*bytes).unwrap();
            assert_eq!(header, Header { magic, version });
            assert_eq!(header.to_string().as_bytes(), bytes);
        }
    }

    #[test]
    fn a_foreign_header_is_refused_and_escaped() {
        for bytes in [b"REDIS00x1", b"REDIS0000", b"VALKEY-80", b"\x1b[31mHTTP", b"redis0011"] {
            let text = Header::parse(*bytes).unwrap_err().to_string();
            assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)), "{text}");
        }
        let compressed = Header::parse(*b"VCS\x01\0\0\0\0\0").unwrap_err();
        assert_eq!(compressed, HeaderError::Compressed);
    }
}
