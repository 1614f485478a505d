//! Parts that begin in one piece of input and end in another.

/// Least number of bytes added to an unfinished part at a time.
const TOP_UP_BYTES: usize = 512;
/// Memory up to this much is kept for the next part.
const KEPT_BYTES: usize = 1 << 20;

/// Empties a buffer, and gives its memory back if it was needed for something huge.
#[inline]
pub(crate) fn release(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
    }
}

/// Holds the bytes of a part that is not all there.
#[derive(Debug, Default)]
pub(crate) struct Carry {
    bytes: Vec<u8>,
    /// How many bytes the part needs at least.
    need: usize,
}

/// What was done with a window of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Bytes used from its beginning.
    pub(crate) used: usize,
    /// How many bytes from there on the next part needs at least.
    pub(crate) need: usize,
}

impl Carry {
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Shows `decode` the input, with the held bytes before it, and holds what it does not use.
    ///
    /// The input is not copied but for the parts that do not end in it.
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
