//! Decodes an artifact and judges the RDB inside.

use std::io::{self, Write};

use cachevault_rdb::{Envelope, EnvelopeReport};

/// Takes an artifact in pieces.
pub(crate) struct Decoder(zstd::stream::write::Decoder<'static, Judge>);

impl Decoder {
    pub(crate) fn new() -> io::Result<Self> {
        zstd::stream::write::Decoder::new(Judge(Envelope::new())).map(Self)
    }

    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.0.write_all(piece)
    }

    /// What the whole artifact decoded to.
    pub(crate) fn finish(mut self) -> io::Result<EnvelopeReport> {
        self.0.flush()?;
        self.0.into_inner().0.finish().map_err(io::Error::other)
    }
}

struct Judge(Envelope);

impl Write for Judge {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.feed(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
