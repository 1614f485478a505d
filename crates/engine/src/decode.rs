//! Decodes an artifact and judges the RDB inside.

use std::io::{self, Write};

use cachevault_rdb::{Envelope, EnvelopeReport};
use cachevault_store::Encoding;

/// Passes what is inside an artifact on to `output`.
pub(crate) enum Decoding<W: Write> {
    Zstd(Box<zstd::stream::write::Decoder<'static, W>>),
    None(W),
}

impl<W: Write> Decoding<W> {
    pub(crate) fn new(encoding: Encoding, output: W) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Zstd => Self::Zstd(Box::new(zstd::stream::write::Decoder::new(output)?)),
            Encoding::None => Self::None(output),
        })
    }

    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(decoder) => decoder.write_all(piece),
            Self::None(output) => output.write_all(piece),
        }
    }

    /// The output, when all has been passed on.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Zstd(mut decoder) => {
                decoder.flush()?;
                Ok(decoder.into_inner())
            }
            Self::None(output) => Ok(output),
        }
    }
}

/// Takes an artifact in pieces.
pub(crate) struct Decoder(Decoding<Judge>);

impl Decoder {
    pub(crate) fn new(encoding: Encoding) -> io::Result<Self> {
        Decoding::new(encoding, Judge(Envelope::new())).map(Self)
    }

    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.0.push(piece)
    }

    /// What the whole artifact decoded to.
    pub(crate) fn finish(self) -> io::Result<EnvelopeReport> {
        self.0.finish()?.0.finish().map_err(io::Error::other)
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
