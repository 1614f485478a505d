//! Compression in frames of zstd, one after the other, which decode as one.
//!
//! Servers compress most strings of an RDB themselves, and much of the rest is random: compressing
//! it again may save little, and is a quarter of a capture's work. So negative levels judge frames,
//! as file systems judge their blocks, and after one that was not worth it the next are only
//! stored.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// Bytes that a frame holds, but the last.
pub(crate) const FRAME_BYTES: usize = 1 << 20;
/// Levels from this one on compress whatever comes: who asks for them wants small backups.
const THOROUGH_LEVEL: i32 = 0;
/// A frame is worth it that becomes smaller by this part of its bytes.
const WORTH_IT: usize = 10;
/// Most frames that are only stored after one that was not worth it.
const STORED_FRAMES_MAX: u32 = 16;

/// Makes frames.
pub(crate) struct Frames {
    compressor: Compressor<'static>,
    level: i32,
    /// How many frames are only stored after one that is not worth it; twice as many after another.
    stored: u32,
    /// How many of them are still to come.
    stored_left: u32,
}

impl Frames {
    /// Frames of a zstd level, each with a checksum.
    pub(crate) fn new(level: i32) -> io::Result<Self> {
        let mut compressor = Compressor::new(level)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { compressor, level, stored: 1, stored_left: 0 })
    }

    /// The frame that holds `bytes`.
    pub(crate) fn frame(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let frame = self.compressor.compress(bytes)?;
        if self.stored_left > 0 {
            self.stored_left -= 1;
            if self.stored_left == 0 {
                self.compressor.set_compression_level(self.level)?;
            }
        } else if self.level >= THOROUGH_LEVEL
            || frame.len() <= bytes.len() - bytes.len() / WORTH_IT
        {
            self.stored = 1;
        } else {
            self.stored_left = self.stored;
            self.stored = STORED_FRAMES_MAX.min(self.stored * 2);
            // So fast that it finds nothing worth mentioning: a copy with a frame around it.
            self.compressor.set_compression_level(*zstd::compression_level_range().start())?;
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nothing compresses: a multiplicative generator's upper halves.
    fn random() -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u8
        };
        std::iter::repeat_with(&mut next).take(FRAME_BYTES).collect()
    }

    fn words() -> Vec<u8> {
        b"{\"session\":".iter().copied().cycle().take(FRAME_BYTES).collect()
    }

    /// Lengths of the frames that hold these, each of which decodes to what it holds.
    fn lengths(level: i32, given: &[&[u8]]) -> Vec<usize> {
        let mut frames = Frames::new(level).unwrap();
        let mut len = |bytes: &&[u8]| {
            let frame = frames.frame(bytes).unwrap();
            assert!(zstd::decode_all(frame.as_slice()).unwrap() == *bytes);
            frame.len()
        };
        given.iter().map(&mut len).collect()
    }

    #[test]
    fn what_is_not_worth_it_is_stored_for_longer_and_longer_and_then_tried_again() {
        let (words, random) = (&*words(), &*random());
        // Two in a row that are not worth it, as two that are judged, and then only words.
        let mut given = vec![words, random, words, random];
        given.resize(8, words);
        given.push(random);
        given.resize(11, words);
        let stored = |len: &usize| (FRAME_BYTES..FRAME_BYTES + 100).contains(len);
        let stored: Vec<_> = lengths(-1, &given).iter().map(stored).collect();
        let expected = [false, true, true, true, true, true, false, false, true, true, false];
        assert_eq!(stored, expected);
    }

    #[test]
    fn no_more_than_a_few_are_stored_before_one_is_tried_again() {
        let (words, random) = (&*words(), &*random());
        // The last one of these that is judged is the seventy-first.
        let mut given = vec![random; 75];
        given.resize(75 + 16 + 1, words);
        let lengths = lengths(-7, &given);
        assert!(lengths[lengths.len() - 1] < FRAME_BYTES / 100, "{lengths:?}");
        assert!(lengths[75] > FRAME_BYTES, "{lengths:?}");
    }

    #[test]
    fn a_thorough_level_compresses_whatever_comes() {
        let (words, random) = (&*words(), &*random());
        let lengths = lengths(0, &[random, words, words]);
        assert!(lengths[1] < FRAME_BYTES / 100 && lengths[2] < FRAME_BYTES / 100, "{lengths:?}");
    }
}
