//! LZF, the compression of strings in an RDB (`lzf_d.c`).
//!
//! A control byte below 32 announces that many plus one literal bytes. Any other control byte
//! announces a copy of earlier output: its upper three bits plus two are the length (7: one more
//! byte is added), its lower five bits and the next byte are the distance minus one. A unit is
//! therefore at most 33 bytes long, writes at most 264 bytes, and reaches back at most 8192 bytes.

use crate::error::{DecodeErrorKind, corrupt};
use crate::limits::whole_bytes;

/// Maximum distance of a copy.
const DISTANCE_MAX: usize = 1 << 13;
/// Maximum expansion of a unit: the longest copy writes 264 bytes from three.
const EXPANSION_MAX: u64 = 88;
/// Bytes copied at a time; no literal is longer.
const STRIDE: usize = 32;
/// Size of the decompressed pieces.
const PIECE_BYTES: usize = whole_bytes(64 << 10);

/// Whether `stored` bytes can decompress to `bytes`; the check precedes any allocation.
pub(crate) fn is_possible(stored: u64, bytes: u64) -> bool {
    stored >= 2 && bytes <= stored.saturating_mul(EXPANSION_MAX)
}

/// Decodes complete units of `input` until it holds none or `out` has `full` bytes or more; returns
/// the number of bytes consumed. `out` must hold the last [`DISTANCE_MAX`] bytes written, or all of
/// them. More than `out_max` bytes are an error.
fn unpack(
    input: &[u8],
    out: &mut Vec<u8>,
    full: usize,
    out_max: u64,
) -> Result<usize, DecodeErrorKind> {
    let mut at = 0;
    while out.len() < full && at < input.len() {
        let control = usize::from(input[at]);
        if control < 32 {
            let Some(literal) = input.get(at + 1..at + 2 + control) else { break };
            out.extend_from_slice(literal);
            at += 2 + control;
        } else {
            let is_long = control >> 5 == 7;
            let Some(rest) = input.get(at + 1..at + 2 + usize::from(is_long)) else { break };
            let (extra, low) = if is_long { (rest[0], rest[1]) } else { (0, rest[0]) };
            let len = (control >> 5) + 2 + usize::from(extra);
            let distance = ((control & 0x1F) << 8 | usize::from(low)) + 1;
            let Some(from) = out.len().checked_sub(distance) else {
                return before_beginning();
            };
            copy(out, from, len);
            at += 2 + usize::from(is_long);
        }
        if out.len() as u64 > out_max {
            return wrong_length();
        }
    }
    Ok(at)
}

/// Appends `len` bytes of `out` from `from` on; an overlap repeats a pattern.
fn copy(out: &mut Vec<u8>, from: usize, len: usize) {
    let distance = out.len() - from;
    let mut left = len;
    while left > 0 {
        let step = left.min(distance);
        let at = out.len() - distance;
        out.extend_from_within(at..at + step);
        left -= step;
    }
}

/// Decompresses a complete string into `scratch`, which grows if necessary.
///
/// The caller has limited `bytes`, and [`is_possible`] has compared it with the stored size.
pub(crate) fn decompress<'s>(
    stored: &[u8],
    bytes: u64,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8], DecodeErrorKind> {
    let Ok(bytes) = usize::try_from(bytes) else { return wrong_length() };
    if scratch.len() < bytes + STRIDE {
        scratch.resize(bytes + STRIDE, 0);
    }
    let (mut at, mut end) = (0, 0);
    while at < stored.len() {
        let unit = Unit::read(&stored[at..])?;
        let (from, after) = (unit.source(end)?, end + unit.len);
        if after > bytes {
            return wrong_length();
        }
        // Copies a whole stride where one is enough: the excess is overwritten later.
        let literal = stored[at + 1..].first_chunk::<STRIDE>();
        let written = scratch[from..].first_chunk::<STRIDE>();
        match (literal, written) {
            (Some(literal), Some(written)) if unit.is_one_stride() => {
                let stride = if unit.is_copy { *written } else { *literal };
                scratch[end..end + STRIDE].copy_from_slice(&stride);
            }
            _ if unit.is_copy => copy_strides(scratch, from, end, unit.len),
            _ => scratch[end..after].copy_from_slice(&stored[at + 1..at + unit.stored]),
        }
        at += unit.stored;
        end = after;
    }
    if end == bytes { Ok(&scratch[..bytes]) } else { wrong_length() }
}

/// Copies `len` bytes within `bytes` from `from` forward to `to`; a copy may read its own output.
/// The buffer has room for one stride behind the last byte.
#[inline]
fn copy_strides(bytes: &mut [u8], from: usize, to: usize, len: usize) {
    let distance = to - from;
    if distance >= STRIDE {
        let mut done = 0;
        while done < len {
            let (source, target) = bytes.split_at_mut(to + done);
            let source = &source[from + done..];
            match (source.first_chunk::<STRIDE>(), target.first_chunk_mut::<STRIDE>()) {
                (Some(source), Some(target)) => *target = *source,
                _ => target[..len - done].copy_from_slice(&source[..len - done]),
            }
            done += STRIDE;
        }
        return;
    }
    for at in to..to + len {
        bytes[at] = bytes[at - distance];
    }
}

/// Checks a complete string as [`decompress`] does, without output.
pub(crate) fn check(stored: &[u8], bytes: u64) -> Result<(), DecodeErrorKind> {
    let Ok(bytes) = usize::try_from(bytes) else { return wrong_length() };
    let (mut at, mut end) = (0, 0usize);
    while at < stored.len() {
        let unit = Unit::read(&stored[at..])?;
        unit.source(end)?;
        if unit.len > bytes - end {
            return wrong_length();
        }
        end += unit.len;
        at += unit.stored;
    }
    if end == bytes { Ok(()) } else { wrong_length() }
}

/// A literal or a copy, as announced by a control byte and the following bytes.
///
/// The data decides at random between literals and copies. The fields are therefore computed
/// without a branch, which the processor would mispredict half of the time.
#[derive(Debug, Clone, Copy)]
struct Unit {
    is_copy: bool,
    /// Bytes written.
    len: usize,
    /// Bytes consumed, including the control byte.
    stored: usize,
    /// Distance of a copy; 0 for a literal.
    distance: usize,
}

impl Unit {
    /// Reads the unit at the beginning of `rest`, which must contain the complete unit and at least
    /// one byte.
    #[inline]
    fn read(rest: &[u8]) -> Result<Self, DecodeErrorKind> {
        let [control, second, third] = match *rest {
            [control, second, third, ..] => [control, second, third],
            [control, second] => [control, second, 0],
            _ => [rest[0], 0, 0],
        };
        let is_copy = control >= 32;
        let is_long = control >= 7 << 5;
        let (extra, low) = if is_long { (second, third) } else { (0, second) };
        let back = (usize::from(control & 0x1F) << 8 | usize::from(low)) + 1;
        let literal = usize::from(control) + 1;
        let copied = usize::from(control >> 5) + 2 + usize::from(extra);
        let unit = Self {
            is_copy,
            len: if is_copy { copied } else { literal },
            stored: if is_copy { 2 + usize::from(is_long) } else { 1 + literal },
            distance: if is_copy { back } else { 0 },
        };
        if unit.stored <= rest.len() { Ok(unit) } else { wrong_length() }
    }

    /// Position of the copied bytes after `end` bytes of output.
    #[inline]
    fn source(&self, end: usize) -> Result<usize, DecodeErrorKind> {
        if self.distance <= end { Ok(end - self.distance) } else { before_beginning() }
    }

    /// Whether one stride covers the unit, and all copied bytes exist already.
    #[inline]
    fn is_one_stride(&self) -> bool {
        !self.is_copy | (self.len <= STRIDE.min(self.distance))
    }
}

fn wrong_length<T, E: From<DecodeErrorKind>>() -> Result<T, E> {
    corrupt("a compressed string does not decompress to its stated length")
}

fn before_beginning<T, E: From<DecodeErrorKind>>() -> Result<T, E> {
    corrupt("a copy in a compressed string refers to a position before the string")
}

/// Checks a string that arrives in pieces.
#[derive(Debug)]
pub(crate) struct Checker {
    expected: u64,
    written: u64,
    /// Literal bytes that are still missing.
    literal_left: usize,
    /// The beginning of an incomplete copy.
    partial: Option<(u8, Option<u8>)>,
}

impl Checker {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { expected: bytes, written: 0, literal_left: 0, partial: None }
    }

    pub(crate) fn feed(&mut self, mut input: &[u8]) -> Result<(), DecodeErrorKind> {
        loop {
            if self.literal_left > 0 {
                let step = self.literal_left.min(input.len());
                self.literal_left -= step;
                input = &input[step..];
            }
            // Counts a unit when it is complete, as decompression does: both fail at the same unit.
            if self.literal_left == 0 && self.written > self.expected {
                return wrong_length();
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(()) };
            input = rest;
            match self.partial.take() {
                None if byte < 32 => {
                    self.literal_left = usize::from(byte) + 1;
                    self.written += self.literal_left as u64;
                }
                None => self.partial = Some((byte, None)),
                Some((control, None)) if control >> 5 == 7 => {
                    self.partial = Some((control, Some(byte)));
                }
                Some((control, extra)) => {
                    let distance = (u64::from(control & 0x1F) << 8 | u64::from(byte)) + 1;
                    if distance > self.written {
                        return before_beginning();
                    }
                    self.written += u64::from(control >> 5) + 2 + u64::from(extra.unwrap_or(0));
                }
            }
        }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeErrorKind> {
        if self.literal_left > 0 || self.partial.is_some() || self.written != self.expected {
            return wrong_length();
        }
        Ok(())
    }
}

/// Decompresses a string that arrives in pieces, in constant memory.
#[derive(Debug)]
pub(crate) struct Stream {
    expected: u64,
    handed_on: u64,
    /// Incomplete units.
    partial: Vec<u8>,
    /// Output that copies may refer to, then output that was not passed on.
    out: Vec<u8>,
    kept: usize,
}

impl Stream {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { expected: bytes, handed_on: 0, partial: Vec::new(), out: Vec::new(), kept: 0 }
    }

    /// Decompresses a piece and passes the output on in pieces.
    pub(crate) fn feed<E: From<DecodeErrorKind>>(
        &mut self,
        mut input: &[u8],
        mut give: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.partial.is_empty() && !input.is_empty() {
            // One byte at a time: a unit is short, and this happens once per piece.
            self.partial.push(input[0]);
            input = &input[1..];
            let partial = std::mem::take(&mut self.partial);
            let taken = self.unpack(&partial, usize::MAX)?;
            if taken == 0 {
                self.partial = partial;
            }
        }
        loop {
            let taken = self.unpack(input, self.kept + PIECE_BYTES)?;
            input = &input[taken..];
            if self.out.len() < self.kept + PIECE_BYTES {
                self.partial.extend_from_slice(input);
                return Ok(());
            }
            self.hand_on(&mut give)?;
        }
    }

    /// Like [`unpack`]; output beyond the stated length is an error at once.
    fn unpack(&mut self, input: &[u8], full: usize) -> Result<usize, DecodeErrorKind> {
        let out_max = (self.expected - self.handed_on).saturating_add(self.kept as u64);
        unpack(input, &mut self.out, full, out_max)
    }

    /// Passes on the remaining output.
    pub(crate) fn finish<E: From<DecodeErrorKind>>(
        &mut self,
        mut give: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.hand_on(&mut give)?;
        if !self.partial.is_empty() || self.handed_on != self.expected {
            return wrong_length();
        }
        Ok(())
    }

    fn hand_on<E: From<DecodeErrorKind>>(
        &mut self,
        give: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let fresh = &self.out[self.kept..];
        self.handed_on += fresh.len() as u64;
        if !fresh.is_empty() {
            give(fresh)?;
        }
        let forget = self.out.len().saturating_sub(DISTANCE_MAX);
        self.out.drain(..forget);
        self.kept = self.out.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `abcabcabc…` and a literal, as the server stores them.
    const STORED: &[u8] = &[2, b'a', b'b', b'c', 0xE0, 10, 2, 0, b'!'];

    fn plain() -> Vec<u8> {
        let mut plain: Vec<u8> = b"abc".iter().copied().cycle().take(3 + 9 + 10).collect();
        plain.push(b'!');
        plain
    }

    #[test]
    fn all_three_decoders_agree_for_pieces_of_any_size() {
        let plain = plain();
        let mut out = Vec::new();
        assert_eq!(decompress(STORED, plain.len() as u64, &mut out).unwrap(), plain);
        for chunk in 1..=STORED.len() {
            let mut checker = Checker::new(plain.len() as u64);
            let mut stream = Stream::new(plain.len() as u64);
            let mut streamed = Vec::new();
            let mut give = |piece: &[u8]| -> Result<(), DecodeErrorKind> {
                streamed.extend_from_slice(piece);
                Ok(())
            };
            for piece in STORED.chunks(chunk) {
                checker.feed(piece).unwrap();
                stream.feed(piece, &mut give).unwrap();
            }
            checker.finish().unwrap();
            stream.finish(&mut give).unwrap();
            assert_eq!(streamed, plain, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_wrong_length_and_an_invalid_reference_are_refused() {
        let len = plain().len() as u64;
        let mut out = Vec::new();
        for (stored, bytes) in
            [(STORED, len + 1), (STORED, len - 1), (&STORED[..8], len), (&[0x20, 0], 3), (&[], 0)]
        {
            let checked = check(stored, bytes);
            let decompressed = decompress(stored, bytes, &mut out).map(|_| ());
            assert_eq!(checked, decompressed);
            assert_eq!(checked.is_ok(), stored.is_empty());
        }
    }

    #[test]
    fn all_decoders_refuse_too_long_a_string_at_the_same_place() {
        // The copy also refers to a position before the string, but only after the string was too
        // long.
        let far_back = [&STORED[..4], &[0x3F, 0xFF]].concat();
        for (stored, bytes) in [(STORED, plain().len() as u64), (&far_back, 3)] {
            for (claimed, chunk) in (0..bytes).flat_map(|c| (1..=stored.len()).map(move |n| (c, n)))
            {
                let (mut checker, mut stream) = (Checker::new(claimed), Stream::new(claimed));
                let refused = |piece: &[u8]| {
                    let checked = checker.feed(piece);
                    assert_eq!(checked, stream.feed(piece, |_| Ok(())), "{claimed} by {chunk}");
                    checked.is_err()
                };
                assert!(stored.chunks(chunk).any(refused), "{claimed} by {chunk}");
            }
            let checked = check(stored, bytes - 1);
            assert_eq!(checked, decompress(stored, bytes - 1, &mut Vec::new()).map(|_| ()));
            assert_eq!(checked, wrong_length());
        }
    }

    #[test]
    fn a_long_string_streams_in_constant_memory() {
        // Zeroes: one literal and copies of 264 bytes with a distance of one.
        let mut stored = vec![0, 0];
        let copies = 40_000;
        for _ in 0..copies {
            stored.extend_from_slice(&[0xE0, 255, 0]);
        }
        let bytes = 1 + copies * 264;
        let mut stream = Stream::new(bytes);
        let mut given = 0;
        let mut give = |piece: &[u8]| -> Result<(), DecodeErrorKind> {
            assert!(piece.len() < PIECE_BYTES + 264 && piece.iter().all(|b| *b == 0));
            given += piece.len() as u64;
            Ok(())
        };
        for piece in stored.chunks(1001) {
            stream.feed(piece, &mut give).unwrap();
        }
        stream.finish(&mut give).unwrap();
        assert_eq!(given, bytes);
        assert!(stream.out.capacity() < 4 * PIECE_BYTES);
        assert!(check(&stored, bytes).is_ok());
    }
}
