//! The CPU's share of a capture: check, compress, decode again; on a thread of its own.

use std::io::{self, Write};

use bytes::Bytes;
use cachevault_rdb::{Envelope, EnvelopeError, EnvelopeReport};
use tokio::sync::mpsc;

use crate::decode::Decoder;
use crate::queue;

/// Encoded bytes gathered before they go to the store.
const OUTPUT_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) enum EncodeError {
    Envelope(EnvelopeError),
    Compressor(io::Error),
    /// Nobody takes the output any more; the reason is elsewhere.
    OutputGone,
}

/// Takes RDB bytes from `input` until it closes and sends encoded ones to `output`; tells what the
/// RDB is.
pub(crate) fn encode(
    mut input: queue::Receiver,
    output: mpsc::Sender<Bytes>,
    zstd_level: i32,
) -> Result<EnvelopeReport, EncodeError> {
    let mut envelope = Envelope::new();
    let sink = Output {
        buffer: Vec::with_capacity(OUTPUT_BYTES),
        output,
        decoder: Decoder::new().map_err(EncodeError::Compressor)?,
    };
    let mut zstd =
        zstd::stream::write::Encoder::new(sink, zstd_level).map_err(EncodeError::Compressor)?;
    zstd.include_checksum(true).map_err(EncodeError::Compressor)?;
    while let Some(batch) = input.blocking_recv() {
        for piece in batch.pieces {
            envelope.update(&piece).map_err(EncodeError::Envelope)?;
            zstd.write_all(&piece).map_err(output_error)?;
        }
    }
    let envelope = envelope.finish().map_err(EncodeError::Envelope)?;
    let mut sink = zstd.finish().map_err(output_error)?;
    sink.flush().map_err(output_error)?;
    let decoded = sink.decoder.finish().map_err(EncodeError::Compressor)?;
    if decoded != envelope {
        return Err(EncodeError::Compressor(io::Error::other(
            "what was compressed decodes to something else",
        )));
    }
    Ok(envelope)
}

fn output_error(error: io::Error) -> EncodeError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        EncodeError::OutputGone
    } else {
        EncodeError::Compressor(error)
    }
}

/// Gathers the compressor's output into pieces and sends them on.
struct Output {
    buffer: Vec<u8>,
    output: mpsc::Sender<Bytes>,
    /// What was compressed is decoded again at once: a backup has to load, not to be compressed.
    decoder: Decoder,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= OUTPUT_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(OUTPUT_BYTES));
        self.decoder.push(&piece)?;
        self.output.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
