//! Reads a stream in one pass: frame and checksum, structure, digest, report.

use crate::data;
use crate::digest::{Digest, Digester};
use crate::envelope::{Checksum, Envelope, EnvelopeError, EnvelopeReport};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::header::{Header, HeaderError};
use crate::report::{Report, Reporter};
use crate::structure;

/// The fault of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// The frame or its checksum is wrong.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The content is wrong.
    #[error(transparent)]
    Content(#[from] DecodeError),
    /// The content is beyond the knowledge of this crate. Without a checksum, such content cannot
    /// be distinguished from damage.
    #[error(
        "{0}; without a checksum this cannot be distinguished from damage: set `rdbchecksum yes` \
         at the server, or use a version of this service that supports the format"
    )]
    Unproven(DecodeError),
}

impl InspectError {
    /// Whether the stream has an unsupported form and shows no damage.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Envelope(EnvelopeError::Header(HeaderError::Compressed)))
    }
}

/// The findings of a complete and undamaged stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The frame.
    pub envelope: EnvelopeReport,
    /// The content.
    pub content: Content,
}

/// The content of a stream, as far as this crate can read it.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// All bytes were decoded, and the version of the format is known.
    Verified {
        /// The fingerprint of the data.
        digest: Box<Digest>,
        /// Sums and lists.
        report: Box<Report>,
    },
    /// The server that wrote the stream is newer than this crate or modified, or the content
    /// exceeds the [`Limits`](crate::Limits). Frame and checksum are right, so the bytes are those
    /// of the server; their meaning is unknown.
    Opaque {
        /// The position and the reason at which reading ended.
        reason: DecodeError,
    },
}

/// Reads the content of a stream: a decoder, and the visitor that receives its findings.
pub trait Reading {
    /// Reads the next piece of the stream.
    ///
    /// # Errors
    /// [`DecodeError`] with the position of the fault.
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError>;
    /// Checks that the stream is complete. Call it after the last piece.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when the stream ends before its end opcode.
    fn finish(&self) -> Result<(), DecodeError>;
}

impl<V: structure::Visitor> Reading for (structure::Decoder, V) {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        self.0.feed(piece, &mut self.1)
    }
    fn finish(&self) -> Result<(), DecodeError> {
        self.0.finish()
    }
}

impl<V: data::Visitor> Reading for (data::Decoder, V) {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        self.0.feed(piece, &mut self.1)
    }
    fn finish(&self) -> Result<(), DecodeError> {
        self.0.finish()
    }
}

/// Reads content and checks its frame; distinguishes damage from unknown content.
///
/// ```
/// use cachevault_rdb::inspect::Checked;
/// use cachevault_rdb::structure::{Decoder, Shape, Visitor};
///
/// struct Keys(u64);
/// impl Visitor for Keys {
///     const WANTS_TEXTS: bool = false;
///     fn key_end(&mut self, _: &Shape) {
///         self.0 += 1;
///     }
/// }
///
/// let mut checked = Checked::new((Decoder::default(), Keys(0)));
/// checked.feed(b"REDIS0009\x00\x01k\x05value\xff\0\0\0\0\0\0\0\0")?;
/// let read = checked.finish()?;
/// assert_eq!((read.opaque, read.reading.1.0), (None, 1));
/// # Ok::<(), cachevault_rdb::inspect::InspectError>(())
/// ```
#[derive(Debug)]
pub struct Checked<R> {
    envelope: Envelope,
    reading: R,
    failed: Option<DecodeError>,
}

/// The result of reading a complete and undamaged stream.
#[derive(Debug)]
pub struct Read<R> {
    /// The frame.
    pub envelope: EnvelopeReport,
    /// The reader of the content.
    pub reading: R,
    /// The position and the reason where reading ended early: see [`Content::Opaque`].
    pub opaque: Option<DecodeError>,
}

impl<R: Reading> Checked<R> {
    /// Creates a reader at the beginning of a stream.
    pub fn new(reading: R) -> Self {
        Self { envelope: Envelope::new(), reading, failed: None }
    }

    /// The reader of the content.
    pub fn reading_mut(&mut self) -> &mut R {
        &mut self.reading
    }

    /// Reads the next piece of the stream.
    ///
    /// # Errors
    /// [`InspectError`] as soon as the stream is invalid.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        self.envelope.feed(piece)?;
        if self.failed.is_none()
            && let Err(error) = self.reading.feed(piece)
        {
            // The end of the stream decides whether unknown content is an error.
            if !may_be_unknown(&error, self.envelope.header()) {
                return Err(error.into());
            }
            self.failed = Some(error);
        }
        Ok(())
    }

    /// Checks the stream. Call it after the last piece.
    ///
    /// # Errors
    /// [`InspectError`] when the stream is no complete and undamaged RDB.
    pub fn finish(self) -> Result<Read<R>, InspectError> {
        // The frame's error comes first: it describes a truncated stream better.
        let envelope = self.envelope.finish()?;
        let header = envelope.header;
        let failed = self.failed.or_else(|| self.reading.finish().err());
        let failed = failed.or_else(|| {
            let kind = DecodeErrorKind::UnknownVersion(header);
            (!header.is_known()).then_some(DecodeError { offset: 0, kind })
        });
        if let Some(error) = &failed {
            if !may_be_unknown(error, Some(header)) {
                return Err(error.clone().into());
            }
            if envelope.checksum == Checksum::Absent {
                return Err(InspectError::Unproven(error.clone()));
            }
        }
        Ok(Read { envelope, reading: self.reading, opaque: failed })
    }
}

fn may_be_unknown(error: &DecodeError, header: Option<Header>) -> bool {
    error.kind.is_beyond_us() || !header.is_some_and(Header::is_known)
}

/// Inspects a stream that is fed in pieces of any size.
///
/// ```
/// use cachevault_rdb::inspect::{Content, Inspector};
///
/// let mut inspector = Inspector::new(0, 10);
/// inspector.feed(b"REDIS0009\x00\x01k\x05value\xff")?;
/// inspector.feed(&[0; 8])?;
/// let Content::Verified { report, .. } = inspector.finish()?.content else { unreachable!() };
/// assert_eq!(report.total.keys, 1);
/// # Ok::<(), cachevault_rdb::inspect::InspectError>(())
/// ```
#[derive(Debug)]
pub struct Inspector(Checked<(data::Decoder, (Digester, Reporter))>);

impl Inspector {
    /// Creates an inspector. The report lists the `top` largest keys and heaviest prefixes.
    /// Expiries are relative to `as_of_ms`, milliseconds since 1970.
    pub fn new(as_of_ms: i64, top: usize) -> Self {
        let visitors = (Digester::default(), Reporter::new(as_of_ms, top));
        Self(Checked::new((data::Decoder::default(), visitors)))
    }

    /// Inspects the next piece of the stream.
    ///
    /// # Errors
    /// [`InspectError`] as soon as the stream is invalid.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        self.0.feed(piece)
    }

    /// Returns the findings. Call it after the last piece.
    ///
    /// # Errors
    /// [`InspectError`] when the stream is no complete and undamaged RDB.
    pub fn finish(self) -> Result<Inspection, InspectError> {
        let Read { envelope, reading: (_, (digester, reporter)), opaque } = self.0.finish()?;
        let content = match opaque {
            None => Content::Verified {
                digest: Box::new(digester.finish()),
                report: Box::new(reporter.finish()),
            },
            Some(reason) => Content::Opaque { reason },
        };
        Ok(Inspection { envelope, content })
    }
}

#[cfg(test)]
mod tests {
    use crc_fast::{CrcAlgorithm, checksum};

    use super::*;

    fn inspect(content: &[u8], crc: bool) -> Result<Content, InspectError> {
        let crc = if crc { checksum(CrcAlgorithm::Crc64Redis, content) } else { 0 };
        let mut inspector = Inspector::new(0, 10);
        inspector.feed(content)?;
        let has_checksum = Header::parse(content[..9].try_into().unwrap()).unwrap().has_checksum();
        if has_checksum {
            inspector.feed(&crc.to_le_bytes())?;
        }
        Ok(inspector.finish()?.content)
    }

    #[test]
    fn content_of_a_newer_server_is_opaque_only_with_a_matching_checksum() {
        let newer = b"REDIS0016\x00\x01k\x01v\x22\x01a\x05\xff";
        assert!(
            matches!(inspect(newer, true), Ok(Content::Opaque { reason }) if reason.offset == 14)
        );
        let error = inspect(newer, false).unwrap_err();
        assert!(matches!(error, InspectError::Unproven(_)), "{error}");
        assert!(
            error.to_string().contains("type of value 34")
                && error.to_string().contains("rdbchecksum")
        );
    }

    #[test]
    fn a_newer_version_is_opaque_even_without_unknown_parts() {
        for (header, is_known) in [
            (b"REDIS0001", true),
            (b"REDIS0012", true),
            (b"REDIS0015", true),
            (b"REDIS0016", false),
            (b"REDIS9999", false),
            (b"VALKEY081", true),
            (b"VALKEY082", false),
        ] {
            let file = [&header[..], b"\x00\x01k\x01v\xff"].concat();
            match inspect(&file, true) {
                Ok(Content::Verified { .. }) => assert!(is_known, "{}", header.escape_ascii()),
                Ok(Content::Opaque { reason }) => {
                    assert!(!is_known && reason.to_string().contains("newer version"), "{reason}");
                }
                Err(error) => panic!("{}: {error}", header.escape_ascii()),
            }
        }
    }

    #[test]
    fn a_mismatch_of_a_documented_layout_is_opaque_and_not_damaged() {
        // A hash by a missing template; a rate limiter, followed by half a listpack.
        for file in
            [&b"REDIS0015\x20\x01k\x07\x01v\xff"[..], b"REDIS0015\x21\x01k\x07\x10\x01h\x03abc\xff"]
        {
            let Ok(Content::Opaque { reason }) = inspect(file, true) else { panic!("not opaque") };
            assert!(matches!(reason.kind, DecodeErrorKind::Unfit(_)), "{reason}");
            assert!(matches!(inspect(file, false), Err(InspectError::Unproven(_))));
        }
    }

    #[test]
    fn damage_in_a_known_version_is_an_error_with_and_without_a_checksum() {
        let torn = b"REDIS0011\x0b\x01k\x03abc\xff";
        let error = inspect(torn, true).unwrap_err();
        assert!(error.to_string().starts_with("at byte 12: corrupt"), "{error}");
    }
}
