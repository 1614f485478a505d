//! Carries the bytes of a part that begins in one piece of input and ends in another.

/// Minimum number of bytes added to an unfinished part at a time.
const TOP_UP_BYTES: usize = 512;
/// Capacity up to this size is kept for the next part.
const KEPT_BYTES: usize = 1 << 20;

/// Empties a buffer and frees its memory when its capacity exceeds [`KEPT_BYTES`].
#[inline]
pub(crate) fn release(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
    }
}

/// Holds the bytes of an incomplete part.
#[derive(Debug, Default)]
pub(crate) struct Carry {
    bytes: Vec<u8>,
    /// Minimum size of the part in bytes, as far as it is known.
    need: usize,
}

/// How much of a window was decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Bytes consumed from the beginning of the window.
    pub(crate) used: usize,
    /// Minimum number of bytes that the next part needs from there on.
    pub(crate) need: usize,
}

impl Carry {
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Passes the held bytes and the input to `decode`, then holds the bytes that `decode` leaves.
    ///
    /// Only parts that do not end in the input are copied.
    #[inline]
    pub(crate) fn feed<E>(
        &mut self,
        mut input: &[u8],
        mut decode: impl FnMut(&[u8]) -> Result<Progress, E>,
    ) -> Result<(), E> {
        while !self.bytes.is_empty() {
            let held = self.bytes.len();
            let wanted = self.need.saturating_sub(held).max(TOP_UP_BYTES).min(input.len());
            self.bytes.extend_from_slice(&input[..wanted]);
            if self.bytes.len() < self.need {
                return Ok(());
            }
            let progress = decode(&self.bytes)?;
            self.need = progress.need;
            if progress.used >= held {
                release(&mut self.bytes);
                input = &input[progress.used - held..];
            } else {
                self.bytes.drain(..progress.used);
                input = &input[wanted..];
                if input.is_empty() {
                    return Ok(());
                }
            }
        }
        let progress = decode(input)?;
        self.need = progress.need;
        self.bytes.extend_from_slice(&input[progress.used..]);
        Ok(())
    }
}
