//! The body of a download. A separate task sends it, so that a stalled client is noticed.

use std::ops::Range;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cachevault_app::{RdbPieces, RdbUnreadable};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument;

use crate::audit::DownloadRecord;

/// The reason why a body ends early. The connection is then closed before the announced length.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error("{0}")]
    Unreadable(#[from] RdbUnreadable),
    #[error("the store returned no data for {0:?}")]
    StoreStalled(Duration),
    #[error("the client accepted no data for {0:?}")]
    ClientStalled(Duration),
    #[error("the RDB has {found} bytes, which differs from its manifest")]
    WrongSize { found: u64 },
    #[error("the client closed the connection")]
    ClientGone,
}

type Pieces = mpsc::Sender<Result<Bytes, BrokenOff>>;

/// Streams the bytes `part` of an RDB. `slot` is held while the store is read; `record` receives
/// the result.
pub(super) fn stream(
    rdb: Box<dyn RdbPieces>,
    part: Range<u64>,
    stall: Duration,
    slot: OwnedSemaphorePermit,
    mut record: DownloadRecord,
) -> Body {
    let (sender, pieces) = mpsc::channel(1);
    let mut task = JoinSet::new();
    let sending = async move {
        let sent = send(rdb, part, stall, &sender, &mut record.bytes).await;
        if sent.is_ok() {
            record.error = None;
        }
        drop(record);
        // The slot is free now, however long the client keeps the connection open.
        drop(slot);
        if let Err(error) = sent {
            match error {
                BrokenOff::ClientGone | BrokenOff::ClientStalled(_) => {
                    tracing::info!(%error, "download ended early");
                }
                _ => tracing::error!(%error, "download ended early"),
            }
            // A stalled client receives the error with the rest, if at all.
            let _ = sender.send(Err(error)).await;
        }
    };
    task.spawn(sending.in_current_span());
    // Dropping the body ends the task: after the last chunk, or when the client disconnects.
    let state = (pieces, task);
    Body::from_stream(stream::unfold(state, |(mut pieces, task)| async move {
        let piece = pieces.recv().await?;
        Some((piece, (pieces, task)))
    }))
}

/// Sends the bytes `part`. The last chunk is sent only after the whole RDB was read and compared.
async fn send(
    mut rdb: Box<dyn RdbPieces>,
    part: Range<u64>,
    stall: Duration,
    pieces: &Pieces,
    sent: &mut u64,
) -> Result<(), BrokenOff> {
    let (mut offset, mut held) = (0, None);
    loop {
        let next = timeout(stall, rdb.next()).await;
        let Some(piece) = next.map_err(|_| BrokenOff::StoreStalled(stall))?? else { break };
        let wanted = overlap(&part, offset, piece.len());
        offset += piece.len() as u64;
        if wanted.is_empty() {
            continue;
        }
        if let Some(before) = held.replace(piece.slice(wanted)) {
            give(pieces, before, stall, sent).await?;
        }
    }
    if offset < part.end {
        return Err(BrokenOff::WrongSize { found: offset });
    }
    match held {
        Some(last) => give(pieces, last, stall, sent).await,
        None => Ok(()),
    }
}

async fn give(
    pieces: &Pieces,
    piece: Bytes,
    stall: Duration,
    sent: &mut u64,
) -> Result<(), BrokenOff> {
    let length = piece.len() as u64;
    match timeout(stall, pieces.send(Ok(piece))).await {
        Ok(Ok(())) => {
            *sent += length;
            Ok(())
        }
        Ok(Err(_)) => Err(BrokenOff::ClientGone),
        Err(_) => Err(BrokenOff::ClientStalled(stall)),
    }
}

/// The intersection of `part` with a chunk of `len` bytes at `offset`, relative to the chunk.
fn overlap(part: &Range<u64>, offset: u64, len: usize) -> Range<usize> {
    let within = |position: u64| {
        // Positions behind the chunk are cut to its end.
        usize::try_from(position.saturating_sub(offset)).map_or(len, |at| at.min(len))
    };
    within(part.start)..within(part.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_cut_to_the_range() {
        for (part, offset, expected) in [
            (0..30, 0, 0..10),
            (5..30, 0, 5..10),
            (5..7, 0, 5..7),
            (5..30, 10, 0..10),
            (5..17, 10, 0..7),
            (5..10, 10, 0..0),
            (25..30, 10, 10..10),
            (0..u64::MAX, 1 << 40, 0..10),
        ] {
            assert_eq!(overlap(&part, offset, 10), expected, "{part:?} at {offset}");
        }
    }
}
