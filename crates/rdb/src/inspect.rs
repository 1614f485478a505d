//! All that can be told of a stream in one pass: frame and checksum, structure, digest, report.

use crate::data;
use crate::digest::{Digest, Digester};
use crate::envelope::{Checksum, Envelope, EnvelopeError, EnvelopeReport};
use crate::error::DecodeError;
use crate::header::Header;
use crate::limits::Limits;
use crate::report::{Report, Reporter};

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
    /// the [`Limits`]. The frame is right and the
    /// checksum matches, so these are the server's own bytes; what they mean is not known.
    Opaque {
        /// Where reading ended, and why.
        reason: DecodeError,
    },
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
pub struct Inspector {
    envelope: Envelope,
    decoder: data::Decoder,
    visitor: (Digester, Reporter),
    failed: Option<DecodeError>,
}

impl Inspector {
    /// An inspector whose report lists the `top` largest keys and heaviest prefixes and tells
    /// expiries from the moment `as_of_ms` on, milliseconds since 1970.
    pub fn new(as_of_ms: i64, top: usize) -> Self {
        Self {
            envelope: Envelope::new(),
            decoder: data::Decoder::new(Limits::default()),
            visitor: (Digester::default(), Reporter::new(as_of_ms, top)),
            failed: None,
        }
    }

    /// The header, once its nine bytes have come.
    pub fn header(&self) -> Option<Header> {
        self.envelope.header()
    }

    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`InspectError`] as soon as the stream cannot be right any more.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InspectError> {
        self.envelope.feed(piece)?;
        if self.failed.is_none()
            && let Err(error) = self.decoder.feed(piece, &mut self.visitor)
        {
            self.fail(error)?;
        }
        Ok(())
    }

    /// Judges the stream, of which all has come.
    ///
    /// # Errors
    /// [`InspectError`] when it is not a complete and unharmed RDB.
    pub fn finish(mut self) -> Result<Inspection, InspectError> {
        let envelope = self.envelope.finish();
        if self.failed.is_none()
            && let Err(error) = self.decoder.finish()
        {
            // The frame's error says the same in better words.
            envelope.as_ref().map_err(Clone::clone)?;
            self.failed = Some(error);
        }
        let envelope = envelope?;
        let content = match self.failed {
            None => Content::Verified {
                digest: Box::new(self.visitor.0.finish()),
                report: Box::new(self.visitor.1.finish()),
            },
            Some(reason) => {
                let may_be_unknown = reason.kind.is_beyond_us() || !envelope.header.is_known();
                // Without a checksum nothing tells an unknown opcode from a damaged one.
                if !may_be_unknown || envelope.checksum == Checksum::Absent {
                    return Err(reason.into());
                }
                Content::Opaque { reason }
            }
        };
        Ok(Inspection { envelope, content })
    }

    /// Ends reading; whether that is an error shows at the end if the format may be unknown.
    fn fail(&mut self, error: DecodeError) -> Result<(), DecodeError> {
        let is_known = self.header().is_some_and(Header::is_known);
        if is_known && !error.kind.is_beyond_us() {
            return Err(error);
        }
        self.failed = Some(error);
        Ok(())
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
