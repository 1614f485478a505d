//! The CPU's share of a capture: inspect, compress, decode again; on a thread of its own.

use std::io::{self, Write};

use bytes::Bytes;
use cachevault_rdb::inspect::{InspectError, Inspection, Inspector};
use cachevault_store::Encoding;
use tokio::sync::mpsc;

use crate::decode::Decoder;
use crate::queue::{self, Batch};

/// At most so many encoded bytes are gathered before they go to the store.
const OUTPUT_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) enum EncodeError {
    /// What came is no whole RDB.
    Damaged(InspectError),
    Compressor(io::Error),
    /// Nobody takes the output any more; the reason is elsewhere.
    OutputGone,
}

/// Checks one RDB, and compresses it if it is to be.
pub(crate) struct Encoder {
    input: queue::Receiver,
    inspector: Inspector,
    compressor: Compressor,
}

/// Writes in the form that is to be stored.
enum Compressor {
    Zstd(zstd::stream::write::Encoder<'static, Output>),
    None(Output),
}

impl Compressor {
    fn new(zstd_level: Option<i32>, output: mpsc::Sender<Bytes>) -> io::Result<Self> {
        let decoder = Decoder::new(encoding(zstd_level))?;
        let output = Output { buffer: Vec::with_capacity(OUTPUT_BYTES), output, decoder };
        let Some(level) = zstd_level else { return Ok(Self::None(output)) };
        let mut zstd = zstd::stream::write::Encoder::new(output, level)?;
        zstd.include_checksum(true)?;
        Ok(Self::Zstd(zstd))
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(zstd) => zstd.write_all(piece),
            Self::None(output) => output.write_all(piece),
        }
    }

    fn finish(self) -> io::Result<Output> {
        match self {
            Self::Zstd(zstd) => zstd.finish(),
            Self::None(output) => Ok(output),
        }
    }
}

/// How an artifact is encoded at a level; none is not compressed.
pub(crate) fn encoding(zstd_level: Option<i32>) -> Encoding {
    if zstd_level.is_some() { Encoding::Zstd } else { Encoding::None }
}

/// How far an encoder came.
pub(crate) enum Encoded {
    /// To the end; this is what the RDB is.
    Whole(Box<Inspection>),
    /// To where it is to go on at another priority.
    Part(Box<Encoder>),
}

impl Encoder {
    /// An encoder from `input` to `output`.
    pub(crate) fn new(
        input: queue::Receiver,
        output: mpsc::Sender<Bytes>,
        inspector: Inspector,
        zstd_level: Option<i32>,
    ) -> Result<Box<Self>, EncodeError> {
        let compressor = Compressor::new(zstd_level, output)?;
        Ok(Box::new(Self { input, inspector, compressor }))
    }

    /// Encodes to the end of the input, or until so much waits that the source may have to: it
    /// sends faster than the encoder, at the priority it runs with, can take.
    pub(crate) fn run_until_pressed(self: Box<Self>) -> Result<Encoded, EncodeError> {
        self.run_until(queue::Receiver::is_nearly_full)
    }

    /// Encodes to the end of the input, or until little waits.
    pub(crate) fn run_until_relieved(self: Box<Self>) -> Result<Encoded, EncodeError> {
        self.run_until(queue::Receiver::is_nearly_empty)
    }

    fn run_until(
        mut self: Box<Self>,
        is_far_enough: impl Fn(&queue::Receiver) -> bool,
    ) -> Result<Encoded, EncodeError> {
        while let Some(batch) = self.input.blocking_recv() {
            self.encode(batch)?;
            if is_far_enough(&self.input) {
                return Ok(Encoded::Part(self));
            }
        }
        self.finish().map(Encoded::Whole)
    }

    fn encode(&mut self, batch: Batch) -> Result<(), EncodeError> {
        for piece in batch.pieces {
            self.inspector.feed(&piece).map_err(EncodeError::Damaged)?;
            self.compressor.write(&piece).map_err(output_error)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<Inspection>, EncodeError> {
        let inspection = self.inspector.finish().map_err(EncodeError::Damaged)?;
        let mut sink = self.compressor.finish().map_err(output_error)?;
        sink.flush().map_err(output_error)?;
        let decoded = sink.decoder.finish()?;
        if decoded != inspection.envelope {
            return Err(EncodeError::Compressor(io::Error::other(
                "what was compressed decodes to something else",
            )));
        }
        Ok(Box::new(inspection))
    }
}

impl From<io::Error> for EncodeError {
    fn from(error: io::Error) -> Self {
        Self::Compressor(error)
    }
}

impl From<tokio::task::JoinError> for EncodeError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Compressor(io::Error::other(error))
    }
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
        if self.buffer.len() == OUTPUT_BYTES {
            self.flush()?;
        }
        // Never more than there is room for: the piece would be moved, and take twice as much.
        let len = bytes.len().min(OUTPUT_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..len]);
        Ok(len)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::queue;

    const QUEUE_BYTES: usize = 2 << 20;
    const VALUE_BYTES: u32 = 2 << 20;

    /// An RDB of one string, a little longer than the queue is.
    fn rdb() -> Vec<u8> {
        let mut rdb = b"REDIS0009\x00\x01k\x80".to_vec();
        rdb.extend_from_slice(&VALUE_BYTES.to_be_bytes());
        rdb.resize(rdb.len() + VALUE_BYTES as usize, b'v');
        rdb.extend_from_slice(&[0xFF, 0, 0, 0, 0, 0, 0, 0, 0]);
        rdb
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_encoder_that_falls_behind_or_catches_up_says_so_and_goes_on_where_it_was() {
        let rdb = rdb();
        assert!(zstd::decode_all(encoded(&rdb, Some(1)).await.as_slice()).unwrap() == rdb);
        assert!(encoded(&rdb, None).await == rdb);
    }

    async fn encoded(rdb: &[u8], zstd_level: Option<i32>) -> Vec<u8> {
        let (mut input, encoder_input) = queue(QUEUE_BYTES);
        let (output, mut pieces) = mpsc::channel(64);
        let encoder = Encoder::new(encoder_input, output, Inspector::new(0, 1), zstd_level);
        let encoder = encoder.unwrap_or_else(|_| panic!("no encoder"));
        let (waiting, rest) = rdb.split_at(QUEUE_BYTES - (16 << 10));
        for piece in waiting.chunks(4096) {
            assert!(input.send(Bytes::copy_from_slice(piece)).await.is_ok());
        }
        let run = tokio::task::spawn_blocking(move || encoder.run_until_pressed());
        let Ok(Ok(Encoded::Part(encoder))) = run.await else { panic!("it kept up") };
        let run = tokio::task::spawn_blocking(move || encoder.run_until_relieved());
        let Ok(Ok(Encoded::Part(encoder))) = run.await else { panic!("it did not catch up") };
        let run = tokio::task::spawn_blocking(move || encoder.run_until_pressed());
        assert!(input.send(Bytes::copy_from_slice(rest)).await.is_ok());
        assert!(input.flush().await.is_ok());
        drop(input);
        let Ok(Ok(Encoded::Whole(inspection))) = run.await else { panic!("it did not end") };
        assert_eq!(inspection.envelope.size_bytes, rdb.len() as u64);
        let mut artifact = Vec::new();
        while let Some(piece) = pieces.recv().await {
            artifact.extend_from_slice(&piece);
        }
        artifact
    }
}
