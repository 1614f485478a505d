//! A queue of bytes between two threads, bounded by bytes: pieces from the network are small when
//! the network is slow and large when it is fast, and what has to be bounded is memory.
//!
//! Pieces are gathered and change hands in batches: waking a thread for each would cost as much
//! as the work that it does.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

/// Capacity is counted in such units, because a semaphore counts in 32 bits.
const UNIT_BYTES: usize = 1 << 10;

const BATCH_BYTES: usize = 256 << 10;
/// The first bytes are handed over at once: what is no RDB shows in them, and nothing may follow.
const EAGER_BYTES: usize = 4 << 10;

/// The end that gives.
pub(crate) struct Sender {
    batches: mpsc::UnboundedSender<Batch>,
    room: Arc<Semaphore>,
    gathered: Batch,
    handed_over_bytes: usize,
}

/// The end that takes.
pub(crate) struct Receiver {
    batches: mpsc::UnboundedReceiver<Batch>,
    room: Arc<Semaphore>,
    capacity_units: usize,
}

/// Pieces in their order.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) pieces: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn units(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
    }
}

/// The other end is gone.
pub(crate) struct Gone;

/// A queue that holds at most `bytes`; a single piece must be smaller.
pub(crate) fn queue(bytes: usize) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(bytes / UNIT_BYTES));
    let sender = Sender {
        batches: sender,
        room: Arc::clone(&room),
        gathered: Batch::default(),
        handed_over_bytes: 0,
    };
    (sender, Receiver { batches: receiver, room, capacity_units: bytes / UNIT_BYTES })
}

impl Sender {
    /// Gives a piece; it is handed over when enough have come.
    pub(crate) async fn send(&mut self, piece: Bytes) -> Result<(), Gone> {
        self.gathered.bytes += piece.len();
        self.gathered.pieces.push(piece);
        let is_full = self.gathered.bytes >= BATCH_BYTES;
        if is_full || self.handed_over_bytes < EAGER_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Waits for room and hands over what has been gathered.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        let batch = std::mem::take(&mut self.gathered);
        self.handed_over_bytes = self.handed_over_bytes.saturating_add(batch.bytes);
        let room = self.room.acquire_many(batch.units()).await.map_err(|_| Gone)?;
        room.forget();
        self.batches.send(batch).map_err(|_| Gone)
    }

    /// Returns when the other end is gone.
    pub(crate) async fn closed(&self) {
        self.batches.closed().await;
    }
}

impl Receiver {
    /// Waits for pieces, blocking the thread; `None` when the other end is gone.
    pub(crate) fn blocking_recv(&mut self) -> Option<Batch> {
        let batch = self.batches.blocking_recv()?;
        self.room.add_permits(batch.units() as usize);
        Some(batch)
    }

    /// Whether so much waits that the other end may soon have to.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.room.available_permits() < self.capacity_units / 4
    }

    /// Whether the other end is gone: no more comes than what waits.
    pub(crate) fn has_ended(&self) -> bool {
        self.batches.is_closed()
    }

    /// Whether so little waits that the other end has time.
    pub(crate) fn is_nearly_empty(&self) -> bool {
        self.room.available_permits() > self.capacity_units / 4 * 3
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Who waits for room must not wait for ever.
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_given_is_taken_in_order_and_no_more_than_fits_waits() {
        let (mut sender, mut receiver) = queue(300 << 10);
        let taking = tokio::task::spawn_blocking(move || {
            let mut taken = Vec::new();
            while let Some(batch) = receiver.blocking_recv() {
                batch.pieces.iter().for_each(|piece| taken.extend_from_slice(piece));
            }
            taken
        });
        let given: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
        for piece in given.chunks(3000) {
            assert!(sender.send(Bytes::copy_from_slice(piece)).await.is_ok());
        }
        assert!(sender.flush().await.is_ok());
        drop(sender);
        assert_eq!(taking.await.unwrap(), given);
    }

    #[tokio::test]
    async fn a_full_queue_whose_taker_leaves_does_not_hang() {
        let (mut sender, receiver) = queue(BATCH_BYTES);
        let full = Bytes::from_static(&[0; BATCH_BYTES]);
        assert!(sender.send(full.clone()).await.is_ok());
        let (sent, ()) = tokio::join!(sender.send(full), async { drop(receiver) });
        assert!(sent.is_err());
        sender.closed().await;
    }
}
