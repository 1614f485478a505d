//! The CPU's share of a capture: check, fingerprint, compress; on a thread of its own.

use std::io::{self, Write};

use bytes::Bytes;
use cachevault_rdb::{Envelope, EnvelopeError, EnvelopeReport};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

/// Encoded bytes gathered before they go to the store.
const OUTPUT_BYTES: usize = 1 << 20;

/// What passed through, once all of it has.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) envelope: EnvelopeReport,
    pub(crate) rdb_sha256: String,
    pub(crate) stored_sha256: String,
}

#[derive(Debug)]
pub(crate) enum EncodeError {
    Envelope(EnvelopeError),
    Compressor(io::Error),
    /// Nobody takes the output any more; the reason is elsewhere.
    OutputGone,
}

/// Takes RDB bytes from `input` until it closes and sends encoded ones to `output`.
pub(crate) fn encode(
    mut input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<Bytes>,
    zstd_level: i32,
) -> Result<Encoded, EncodeError> {
    let mut envelope = Envelope::new();
    let mut rdb_sha256 = Sha256::new();
    let sink = Output { buffer: Vec::with_capacity(OUTPUT_BYTES), output, sha256: Sha256::new() };
    let mut zstd =
        zstd::stream::write::Encoder::new(sink, zstd_level).map_err(EncodeError::Compressor)?;
    zstd.include_checksum(true).map_err(EncodeError::Compressor)?;
    while let Some(piece) = input.blocking_recv() {
        envelope.update(&piece).map_err(EncodeError::Envelope)?;
        rdb_sha256.update(&piece);
        zstd.write_all(&piece).map_err(output_error)?;
    }
    let envelope = envelope.finish().map_err(EncodeError::Envelope)?;
    let mut sink = zstd.finish().map_err(output_error)?;
    sink.flush().map_err(output_error)?;
    Ok(Encoded {
        envelope,
        rdb_sha256: hex::encode(rdb_sha256.finalize()),
        stored_sha256: hex::encode(sink.sha256.finalize()),
    })
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
    sha256: Sha256,
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
        self.sha256.update(&piece);
        self.output.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
