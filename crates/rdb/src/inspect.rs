//! All that can be told of a stream in one pass: frame and checksum, structure, digest, report.

use crate::data;
use crate::digest::{Digest, Digester};
use crate::envelope::{Checksum, Envelope, EnvelopeError, EnvelopeReport};
use crate::error::DecodeError;
use crate::header::Header;
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
    /// Every byte was followed.
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
    /// [`DecodeErrorKind::Truncated`](crate::DecodeErrorKind::Truncated) when the stream has not
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
        let failed = self.failed.or_else(|| self.reading.finish().err());
        if let Some(error) = &failed {
            // Without a checksum nothing tells an unknown opcode from a damaged one.
            let is_opaque = may_be_unknown(error, Some(envelope.header))
                && envelope.checksum != Checksum::Absent;
            if !is_opaque {
                return Err(error.clone().into());
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
        inspector.feed(&crc.to_le_bytes())?;
        Ok(inspector.finish()?.content)
    }

    #[test]
    fn what_a_newer_server_wrote_is_opaque_only_if_its_checksum_matches() {
        let newer = b"REDIS0016\x00\x01k\x01v\x1c\x01a\x05\xff";
        assert!(
            matches!(inspect(newer, true), Ok(Content::Opaque { reason }) if reason.offset == 14)
        );
        assert!(matches!(inspect(newer, false), Err(InspectError::Content(_))));
    }

    #[test]
    fn a_newer_version_with_known_content_is_verified() {
        let known = b"REDIS0016\x00\x01k\x01v\xff";
        assert!(matches!(inspect(known, true), Ok(Content::Verified { .. })));
    }

    #[test]
    fn damage_in_a_known_version_is_an_error_whatever_the_checksum_says() {
        let torn = b"REDIS0011\x0b\x01k\x03abc\xff";
        let error = inspect(torn, true).unwrap_err();
        assert!(error.to_string().starts_with("at byte 12: corrupt"), "{error}");
    }
}
