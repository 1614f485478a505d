//! Reads the RDB out of an artifact, in pieces, and lets nobody have its end before it is proved.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use cachevault_rdb::Envelope;
use cachevault_store::{ArtifactEntry, ArtifactKey, ArtifactSource, Store, Stored};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::decode::Decoding;
use crate::error::VerifyError;
use crate::verify::{compare_rdb, compare_stored};

const PIECE_BYTES: usize = 256 << 10;
/// Stored pieces that may wait for the decoder, 1 MiB each, and decoded ones for who takes them.
const STORED_PIECES_MAX: usize = 4;
const DECODED_PIECES_MAX: usize = 8;

/// The RDB inside an artifact, from its beginning.
///
/// The last piece comes only when everything before it, and it itself, was compared with the
/// manifest: the stored object's size and SHA-256, the RDB's header, size and checksum. A target
/// that lacks the end of an RDB does not load it.
pub struct RdbReader {
    pieces: mpsc::Receiver<Result<Bytes, VerifyError>>,
    /// They end when nobody takes pieces any more.
    _tasks: JoinSet<()>,
}

impl RdbReader {
    /// Opens the artifact of the shard `key`, which is to be as `entry` says.
    ///
    /// # Errors
    /// [`VerifyError::Store`] when the store does not give it.
    pub async fn open(
        store: &dyn Store,
        key: &ArtifactKey,
        entry: &ArtifactEntry,
    ) -> Result<Self, VerifyError> {
        let source = store.open(&key.encoded(entry.encoding)).await?;
        let (stored, decoder_input) = mpsc::channel(STORED_PIECES_MAX);
        let (decoded, pieces) = mpsc::channel(DECODED_PIECES_MAX);
        let mut tasks = JoinSet::new();
        let (seen, was_seen) = oneshot::channel();
        tasks.spawn(read(source, stored, seen));
        let entry = entry.clone();
        tasks.spawn_blocking(move || {
            let output = Output { gathered: BytesMut::new(), held: None, pieces: decoded.clone() };
            if let Err(error) = decode(decoder_input, was_seen, output, &entry) {
                // Who has gone does not want to know.
                let _ = decoded.blocking_send(Err(error));
            }
        });
        Ok(Self { pieces, _tasks: tasks })
    }

    /// The next piece, less than 1 MiB; `None` after the last.
    ///
    /// # Errors
    /// [`VerifyError`] when the artifact differs from what was written, or cannot be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, VerifyError> {
        self.pieces.recv().await.transpose()
    }
}

async fn read(
    mut source: Box<dyn ArtifactSource>,
    stored: mpsc::Sender<Result<Bytes, VerifyError>>,
    seen: oneshot::Sender<Stored>,
) {
    loop {
        let piece = source.read().await.map_err(VerifyError::from).transpose();
        let Some(piece) = piece else {
            // Who has gone does not want to know.
            let _ = seen.send(source.seen());
            return;
        };
        let is_over = piece.is_err();
        if stored.send(piece).await.is_err() || is_over {
            return;
        }
    }
}

fn decode(
    mut stored: mpsc::Receiver<Result<Bytes, VerifyError>>,
    seen: oneshot::Receiver<Stored>,
    output: Output,
    entry: &ArtifactEntry,
) -> Result<(), VerifyError> {
    let undecodable = |error: io::Error| VerifyError::Undecodable(error.to_string());
    let judge = Judge { envelope: Envelope::new(), output };
    let mut decoding = Decoding::new(entry.encoding, judge).map_err(undecodable)?;
    while let Some(piece) = stored.blocking_recv() {
        decoding.push(&piece?).map_err(undecodable)?;
    }
    let Judge { envelope, output } = decoding.finish().map_err(undecodable)?;
    let gone = |_| undecodable(io::ErrorKind::BrokenPipe.into());
    compare_stored(&seen.blocking_recv().map_err(gone)?, entry)?;
    let report = envelope.finish().map_err(|e| VerifyError::Undecodable(e.to_string()))?;
    compare_rdb(report, &entry.rdb)?;
    output.release().map_err(undecodable)
}

/// Judges the RDB while it passes.
struct Judge {
    envelope: Envelope,
    output: Output,
}

impl Write for Judge {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.envelope.feed(bytes).map_err(io::Error::other)?;
        self.output.push(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gathers pieces and sends each one when the next is complete.
struct Output {
    gathered: BytesMut,
    held: Option<Bytes>,
    pieces: mpsc::Sender<Result<Bytes, VerifyError>>,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            let piece = self.gathered.split().freeze();
            if let Some(before) = self.held.replace(piece) {
                self.send(before)?;
            }
        }
        Ok(())
    }

    /// Sends what was held back.
    fn release(mut self) -> io::Result<()> {
        let last = self.gathered.split().freeze();
        for piece in self.held.take().into_iter().chain([last]) {
            if !piece.is_empty() {
                self.send(piece)?;
            }
        }
        Ok(())
    }

    fn send(&self, piece: Bytes) -> io::Result<()> {
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
