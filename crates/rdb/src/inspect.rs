//! All that can be told of a stream in one pass: frame and checksum, structure, digest, report.

use crate::data;
use crate::digest::{Digest, Digester};
use crate::envelope::{Checksum, Envelope, EnvelopeError, EnvelopeReport};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::header::{Header, HeaderError};
use crate::report::{Report, Reporter};
use crate::structure;

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Its frame or its checksum.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Its content.
    #[error(transparent)]
    Content(#[from] DecodeError),
    /// Its content is beyond what this crate knows, and there is no checksum by which that could
    /// be told from damage.
    #[error(
        "{0}; without a checksum that cannot be told from damage: set `rdbchecksum yes` at the \
        server, or use a version of this service that knows the format"
    )]
    Unproven(DecodeError),
}

impl InspectError {
    /// Whether nothing says that the stream is damaged: it is in a form that is not supported.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Envelope(EnvelopeError::Header(HeaderError::Compressed)))
    }
}

/// What a complete and unharmed stream is and holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Its frame.
    pub envelope: EnvelopeReport,
    /// What it holds.
    pub content: Content,
}

/// What a stream holds, as far as it can be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Every byte was followed, in a version of the format that is known.
    Verified {
        /// The fingerprint of the data.
        digest: Box<Digest>,
        /// Sums and lists.
        report: Box<Report>,
    },
    /// The server that wrote it is newer than this crate, or modified, or the content goes beyond
    /// the [`Limits`](crate::Limits). The frame is right and the checksum matches, so these are the
    /// server's own bytes; what they mean is not known.
    Opaque {
        /// Where reading ended, and why.
        reason: DecodeError,
    },
}

/// Reads the content of a stream: a decoder, and the visitor that sees what it finds.
pub trait Reading {
    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`DecodeError`] with the position of what is wrong.
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError>;
    /// Judges the stream, of which all has come.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when the stream has not
    /// come to its end.
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

/// Reads content and checks the frame around it; tells damage from what is only unknown.
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

/// A complete and unharmed stream that was read.
#[derive(Debug)]
pub struct Read<R> {
    /// Its frame.
    pub envelope: EnvelopeReport,
    /// What has read it.
    pub reading: R,
    /// Where reading ended before the stream did, and why: see [`Content::Opaque`].
    pub opaque: Option<DecodeError>,
}

impl<R: Reading> Checked<R> {
    /// Nothing has come yet.
    pub fn new(reading: R) -> Self {
        Self { envelope: Envelope::new(), reading, failed: None }
    }

    /// What reads the content.
    pub fn reading_mut(&mut self) -> &mut R {
        &mut self.reading
    }

    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`InspectError`] as soon as the stream cannot be right any more.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        self.envelope.feed(piece)?;
        if self.failed.is_none()
            && let Err(error) = self.reading.feed(piece)
        {
            // Whether what may be unknown is an error shows at the end.
            if !may_be_unknown(&error, self.envelope.header()) {
                return Err(error.into());
            }
            self.failed = Some(error);
        }
        Ok(())
    }

    /// Judges the stream, of which all has come.
    ///
    /// # Errors
    /// [`InspectError`] when it is not a complete and unharmed RDB.
    pub fn finish(self) -> Result<Read<R>, InspectError> {
        // The frame's error comes first: it says in better words that a stream was cut.
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
    /// An inspector whose report lists the `top` largest keys and heaviest prefixes and tells
    /// expiries from the moment `as_of_ms` on, milliseconds since 1970.
    pub fn new(as_of_ms: i64, top: usize) -> Self {
        let visitors = (Digester::default(), Reporter::new(as_of_ms, top));
        Self(Checked::new((data::Decoder::default(), visitors)))
    }

    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`InspectError`] as soon as the stream cannot be right any more.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        self.0.feed(piece)
    }

    /// Judges the stream, of which all has come.
    ///
    /// # Errors
    /// [`InspectError`] when it is not a complete and unharmed RDB.
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
    fn what_a_newer_server_wrote_is_opaque_only_if_its_checksum_matches() {
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
    fn a_newer_version_is_opaque_even_where_nothing_in_it_is_unknown() {
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
    fn what_does_not_fit_a_layout_of_documents_alone_is_opaque_and_not_damaged() {
        // A hash by a template that is not there; a rate limiter, and then half a listpack.
        for file in
            [&b"REDIS0015\x20\x01k\x07\x01v\xff"[..], b"REDIS0015\x21\x01k\x07\x10\x01h\x03abc\xff"]
        {
            let Ok(Content::Opaque { reason }) = inspect(file, true) else { panic!("not opaque") };
            assert!(matches!(reason.kind, DecodeErrorKind::Unfit(_)), "{reason}");
            assert!(matches!(inspect(file, false), Err(InspectError::Unproven(_))));
        }
    }

    #[test]
    fn damage_in_a_known_version_is_an_error_whatever_the_checksum_says() {
        let torn = b"REDIS0011\x0b\x01k\x03abc\xff";
        let error = inspect(torn, true).unwrap_err();
        assert!(error.to_string().starts_with("at byte 12: corrupt"), "{error}");
    }
}
