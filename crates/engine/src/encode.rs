//! The CPU's share of a capture: inspect, compress, decode again; on a thread of its own.

use std::io;

use bytes::Bytes;
use cachevault_rdb::EnvelopeReport;
use cachevault_rdb::inspect::{InspectError, Inspection, Inspector};
use cachevault_store::Encoding;
use tokio::sync::mpsc;

use crate::decode::Decoder;
use crate::frames::{FRAME_BYTES, Frames};
use crate::queue;

/// Encoded bytes that go to the store at a time.
const PIECE_BYTES: usize = 1 << 20;

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
    /// Pieces of the last batch that are not encoded yet.
    pieces: std::vec::IntoIter<Bytes>,
    inspector: Inspector,
    output: Output,
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
        let output = Output::new(output, zstd_level)?;
        Ok(Box::new(Self { input, pieces: Vec::new().into_iter(), inspector, output }))
    }

    /// Encodes while it keeps up: until so much waits that the source may have to, or the input has
    /// ended. The end is left to somebody who has a processor for sure.
    ///
    /// It looks after each piece: where nobody leaves it a processor, a piece takes long enough.
    pub(crate) fn run_until_pressed(mut self: Box<Self>) -> Result<Box<Self>, EncodeError> {
        while let Some(piece) = self.next_piece() {
            self.encode(&piece)?;
            if self.input.is_nearly_full() || self.input.has_ended() {
                break;
            }
        }
        Ok(self)
    }

    /// Encodes to the end of the input, or until little waits and, given how many bytes it has
    /// encoded, `may_leave`.
    pub(crate) fn run_until_relieved(
        mut self: Box<Self>,
        may_leave: impl Fn(u64) -> bool,
    ) -> Result<Encoded, EncodeError> {
        let mut encoded_bytes = 0_u64;
        while let Some(piece) = self.next_piece() {
            self.encode(&piece)?;
            encoded_bytes = encoded_bytes.saturating_add(piece.len() as u64);
            let is_relieved = self.input.is_nearly_empty() && !self.input.has_ended();
            if is_relieved && may_leave(encoded_bytes) {
                return Ok(Encoded::Part(self));
            }
        }
        self.finish().map(Encoded::Whole)
    }

    /// Waits for a piece; `None` at the end of the input.
    fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.pieces.next() {
                return Some(piece);
            }
            self.pieces = self.input.blocking_recv()?.pieces.into_iter();
        }
    }

    fn encode(&mut self, piece: &[u8]) -> Result<(), EncodeError> {
        self.inspector.feed(piece).map_err(EncodeError::Damaged)?;
        self.output.push(piece)
    }

    fn finish(self: Box<Self>) -> Result<Box<Inspection>, EncodeError> {
        let inspection = self.inspector.finish().map_err(EncodeError::Damaged)?;
        let decoded = self.output.finish()?;
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

/// Gathers an RDB into frames, and sends them on in the form that is to be stored.
struct Output {
    /// What the next frame is made of; nothing where nothing is compressed.
    gathered: Vec<u8>,
    frames: Option<Frames>,
    pieces: Pieces,
}

impl Output {
    fn new(output: mpsc::Sender<Bytes>, zstd_level: Option<i32>) -> io::Result<Self> {
        let frames = zstd_level.map(Frames::new).transpose()?;
        let decoder = Decoder::new(encoding(zstd_level))?;
        let pieces = Pieces { piece: Vec::new(), decoder, output };
        Ok(Self { gathered: Vec::new(), frames, pieces })
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), EncodeError> {
        if self.frames.is_none() {
            return self.pieces.push(bytes);
        }
        while !bytes.is_empty() {
            if self.gathered.len() == FRAME_BYTES {
                self.end_frame()?;
            }
            bytes = fill(&mut self.gathered, FRAME_BYTES, bytes);
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), EncodeError> {
        if let Some(frames) = &mut self.frames {
            self.pieces.push(&frames.frame(&self.gathered)?)?;
            self.gathered.clear();
        }
        Ok(())
    }

    /// Sends the rest; tells what all of it decodes to.
    fn finish(mut self) -> Result<EnvelopeReport, EncodeError> {
        self.end_frame()?;
        self.pieces.send()?;
        Ok(self.pieces.decoder.finish()?)
    }
}

/// Sends what is encoded in pieces that but for the last are as long as their memory: who counts
/// their bytes counts what they take.
struct Pieces {
    piece: Vec<u8>,
    /// What was compressed is decoded again at once: a backup has to load, not to be compressed.
    decoder: Decoder,
    output: mpsc::Sender<Bytes>,
}

impl Pieces {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), EncodeError> {
        while !bytes.is_empty() {
            if self.piece.len() == PIECE_BYTES {
                self.send()?;
            }
            bytes = fill(&mut self.piece, PIECE_BYTES, bytes);
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), EncodeError> {
        let piece = std::mem::take(&mut self.piece);
        self.decoder.push(&piece)?;
        self.output.blocking_send(piece.into()).map_err(|_| EncodeError::OutputGone)
    }
}

/// Appends what there is room for up to `full`; gives the rest back. Never more: the buffer would
/// be moved, and take twice as much.
fn fill<'b>(buffer: &mut Vec<u8>, full: usize, bytes: &'b [u8]) -> &'b [u8] {
    buffer.reserve_exact(full - buffer.len());
    let (taken, rest) = bytes.split_at(bytes.len().min(full - buffer.len()));
    buffer.extend_from_slice(taken);
    rest
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
        for level in [-1, 1] {
            assert!(zstd::decode_all(encoded(&rdb, Some(level)).await.as_slice()).unwrap() == rdb);
        }
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
        let Ok(Ok(encoder)) = run.await else { panic!("it failed") };
        assert!(encoder.input.is_nearly_full(), "it did not stop when it fell behind");
        let run = tokio::task::spawn_blocking(move || encoder.run_until_relieved(|_| true));
        let Ok(Ok(Encoded::Part(encoder))) = run.await else { panic!("it did not catch up") };
        let run = tokio::task::spawn_blocking(move || encoder.run_until_pressed());
        assert!(input.send(Bytes::copy_from_slice(rest)).await.is_ok());
        assert!(input.flush().await.is_ok());
        drop(input);
        let Ok(Ok(encoder)) = run.await else { panic!("it failed") };
        let run = tokio::task::spawn_blocking(move || encoder.run_until_relieved(|_| false));
        let Ok(Ok(Encoded::Whole(inspection))) = run.await else { panic!("it did not end") };
        assert_eq!(inspection.envelope.size_bytes, rdb.len() as u64);
        let (mut artifact, mut last_bytes) = (Vec::new(), PIECE_BYTES);
        while let Some(piece) = pieces.recv().await {
            assert_eq!(last_bytes, PIECE_BYTES, "a piece that is not the last");
            last_bytes = piece.len();
            artifact.extend_from_slice(&piece);
            assert_eq!(piece.try_into_mut().unwrap().capacity(), PIECE_BYTES);
        }
        artifact
    }
}
