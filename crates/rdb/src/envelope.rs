//! Checks the frame of a stream: header, end opcode and checksum.

use crc_fast::{CrcAlgorithm, Digest};

use crate::header::{HEADER_BYTES, Header, HeaderError};
use crate::raw::{END_MARK_BYTES, is_end_mark};

const CHECKSUM_BYTES: usize = 8;
const END_OF_FILE: u8 = 0xFF;

/// The fault of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The stream does not begin with an RDB header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The stream is shorter than any RDB.
    #[error("the stream ends after {size_bytes} bytes, too short for an RDB")]
    TooShort {
        /// Bytes received.
        size_bytes: u64,
    },
    /// The end-of-file opcode is missing.
    #[error(
        "the stream of {size_bytes} bytes does not end with the end-of-file opcode: it was cut or \
         altered"
    )]
    NoEnd {
        /// Bytes received.
        size_bytes: u64,
    },
    /// The checksum of the received bytes differs from the stored one.
    #[error(
        "CRC-64 mismatch: the stored checksum is {stored:016x}, the checksum of its {size_bytes} \
         bytes is {computed:016x}"
    )]
    ChecksumMismatch {
        /// The checksum in the last eight bytes.
        stored: u64,
        /// The checksum of the content.
        computed: u64,
        /// Bytes received.
        size_bytes: u64,
    },
}

/// The result of checking the stream's own checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum is present and correct.
    Matches(u64),
    /// The checksum is zero or the format has none: the server does not compute it.
    Absent,
}

/// The frame of a complete and undamaged stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeReport {
    /// Its header.
    pub header: Header,
    /// Its length in bytes, header and checksum included.
    pub size_bytes: u64,
    /// The result of the checksum.
    pub checksum: Checksum,
    /// Whether the 40 bytes that end a replication stream of unknown length follow the checksum.
    /// Servers ignore these bytes.
    pub has_end_mark: bool,
}

/// Checks the frame of an RDB stream that is fed in pieces of any size.
///
/// Memory is constant. The last 49 bytes are held back, because only the end of the stream shows
/// whether they are end opcode and checksum, with or without an end mark.
#[derive(Debug)]
pub struct Envelope {
    header: Option<Header>,
    crc: Digest,
    held: Tail,
    size_bytes: u64,
    head: [u8; HEADER_BYTES],
}

/// Length of end opcode, checksum and end mark.
const TAIL_BYTES: usize = 1 + CHECKSUM_BYTES + END_MARK_BYTES;

/// The most recent bytes of a stream, up to [`TAIL_BYTES`].
#[derive(Debug)]
struct Tail {
    bytes: [u8; TAIL_BYTES],
    len: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { bytes: [0; TAIL_BYTES], len: 0 }
    }
}

impl Default for Envelope {
    fn default() -> Self {
        Self::new()
    }
}

impl Envelope {
    /// Creates an envelope at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            header: None,
            crc: Digest::new(CrcAlgorithm::Crc64Redis),
            held: Tail::default(),
            size_bytes: 0,
            head: [0; HEADER_BYTES],
        }
    }

    /// The header; `None` until its nine bytes have arrived.
    pub fn header(&self) -> Option<Header> {
        self.header
    }

    /// Reads the next piece of the stream.
    ///
    /// # Errors
    /// [`EnvelopeError::Header`] as soon as the first nine bytes are no RDB header.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), EnvelopeError> {
        self.collect_header(piece)?;
        self.size_bytes += piece.len() as u64;
        self.held.shift(piece, |settled| self.crc.update(settled));
        Ok(())
    }

    /// Checks the end of the stream. Call it after the last piece.
    ///
    /// # Errors
    /// [`EnvelopeError`] when the stream is no complete RDB or its checksum does not match.
    pub fn finish(mut self) -> Result<EnvelopeReport, EnvelopeError> {
        let size_bytes = self.size_bytes;
        let header = self.header.ok_or(EnvelopeError::TooShort { size_bytes })?;
        let trailer_len = if header.has_checksum() { 1 + CHECKSUM_BYTES } else { 1 };
        if size_bytes < (HEADER_BYTES + trailer_len) as u64 {
            return Err(EnvelopeError::TooShort { size_bytes });
        }
        let held = &self.held.bytes[..self.held.len];
        let (rdb, has_end_mark) = without_end_mark(held, trailer_len);
        let (content, trailer) = rdb.split_at(rdb.len() - trailer_len);
        if trailer[0] != END_OF_FILE {
            return Err(EnvelopeError::NoEnd { size_bytes });
        }
        self.crc.update(content);
        self.crc.update(&trailer[..1]);
        let checksum = match <[u8; CHECKSUM_BYTES]>::try_from(&trailer[1..]).map(u64::from_le_bytes)
        {
            Err(_) | Ok(0) => Checksum::Absent,
            Ok(stored) => {
                let computed = self.crc.finalize();
                if stored != computed {
                    return Err(EnvelopeError::ChecksumMismatch { stored, computed, size_bytes });
                }
                Checksum::Matches(stored)
            }
        };
        Ok(EnvelopeReport { header, size_bytes, checksum, has_end_mark })
    }

    fn collect_header(&mut self, piece: &[u8]) -> Result<(), HeaderError> {
        if self.header.is_some() {
            return Ok(());
        }
        // `size_bytes` is below nine here: a complete header either sets `header` or returns an
        // error.
        let have = (self.size_bytes as usize).min(HEADER_BYTES);
        let take = piece.len().min(HEADER_BYTES - have);
        self.head[have..have + take].copy_from_slice(&piece[..take]);
        if have + take == HEADER_BYTES {
            self.header = Some(Header::parse(self.head)?);
        }
        Ok(())
    }
}

/// Removes the end mark from the end of a stream, if there is one.
fn without_end_mark(held: &[u8], trailer_len: usize) -> (&[u8], bool) {
    let split = held.len().checked_sub(END_MARK_BYTES).and_then(|at| held.split_at_checked(at));
    match split {
        Some((rdb, mark)) if is_end_mark(mark) && is_trailer(rdb, trailer_len) => (rdb, true),
        _ => (held, false),
    }
}

/// Whether these bytes end with an end opcode and a checksum.
fn is_trailer(rdb: &[u8], trailer_len: usize) -> bool {
    rdb.len().checked_sub(trailer_len).is_some_and(|at| rdb[at] == END_OF_FILE)
}

impl Tail {
    /// Appends `piece` and passes the bytes that cannot belong to the tail any more to `settled`.
    fn shift(&mut self, piece: &[u8], mut settled: impl FnMut(&[u8])) {
        let capacity = self.bytes.len();
        if piece.len() >= capacity {
            let (before, last) = piece.split_at(piece.len() - capacity);
            settled(&self.bytes[..self.len]);
            settled(before);
            self.bytes.copy_from_slice(last);
            self.len = capacity;
            return;
        }
        let overflow = (self.len + piece.len()).saturating_sub(capacity);
        settled(&self.bytes[..overflow]);
        self.bytes.copy_within(overflow..self.len, 0);
        let kept = self.len - overflow;
        self.bytes[kept..kept + piece.len()].copy_from_slice(piece);
        self.len = kept + piece.len();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;
    use crate::header::Magic;

    fn judge(stream: &[u8], chunk: usize) -> Result<EnvelopeReport, EnvelopeError> {
        let mut envelope = Envelope::new();
        for piece in stream.chunks(chunk) {
            envelope.feed(piece)?;
        }
        envelope.finish()
    }

    fn samples() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/rdb");
        let mut files = Vec::new();
        for folder in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|e| e == "rdb") {
                    files.push(path);
                }
            }
        }
        assert!(files.len() > 80, "only {} sample files", files.len());
        files
    }

    #[test]
    fn every_sample_passes_in_pieces_of_any_size() {
        for path in samples() {
            let stream = fs::read(&path).unwrap();
            let whole = judge(&stream, stream.len()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            assert_eq!(whole.size_bytes, stream.len() as u64);
            let unchecked = path.ends_with("nochecksum.rdb")
                || path.parent().is_some_and(|folder| folder.ends_with("handmade"));
            assert_eq!(whole.checksum == Checksum::Absent, unchecked, "{path:?}");
            let small = stream.len() < 100_000;
            for chunk in [1, 2, 3, 7, 8, 9, 10, 4096].into_iter().filter(|c| small || *c > 1000) {
                assert_eq!(
                    judge(&stream, chunk).as_ref(),
                    Ok(&whole),
                    "{path:?} in chunks of {chunk}"
                );
            }
        }
    }

    fn small_sample() -> Vec<u8> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/rdb");
        fs::read(root.join("valkey-9.1.2/ttl.rdb")).unwrap()
    }

    #[test]
    fn a_changed_bit_fails_the_check() {
        let good = small_sample();
        assert_eq!(judge(&good, 64).unwrap().header.magic, Magic::Valkey);
        // A change in the last eight bytes could make the stored checksum zero, which disables it.
        for at in (0..good.len()).step_by(11).chain(good.len() - 9..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(judge(&bad, 64).is_err(), "bit flipped at {at}");
        }
    }

    #[test]
    fn a_truncated_stream_fails_the_check() {
        let good = small_sample();
        for len in (0..good.len()).rev().take(300).chain(0..30) {
            assert!(judge(&good[..len], 64).is_err(), "cut to {len} bytes");
        }
    }

    #[test]
    fn only_an_end_mark_may_follow_the_checksum() {
        let good = small_sample();
        let mark = b"0123456789abcdef0123456789abcdef01234567";
        let marked = [&good[..], mark].concat();
        for chunk in [1, 39, 41, 49, marked.len()] {
            let report = judge(&marked, chunk).unwrap();
            assert!(report.has_end_mark);
            assert_eq!(report.checksum, judge(&good, 64).unwrap().checksum);
        }
        for tail in [&mark[..39], b"0123456789abcdef0123456789abcdef0123456!", b"x"] {
            assert!(judge(&[&good[..], tail].concat(), 64).is_err());
        }
        let twice = [&marked[..], mark].concat();
        assert!(judge(&twice, 64).is_err());
    }

    #[test]
    fn a_foreign_header_fails_at_once() {
        let mut envelope = Envelope::new();
        envelope.feed(b"HTTP/").unwrap();
        assert!(matches!(envelope.feed(b"1.1 200"), Err(EnvelopeError::Header(_))));
    }

    #[test]
    fn the_checksum_equals_that_of_redis() {
        // The check value of CRC-64/REDIS for "123456789" in Redis' own crc64.c.
        let mut crc = Digest::new(CrcAlgorithm::Crc64Redis);
        crc.update(b"123456789");
        assert_eq!(crc.finalize(), 0xe9c6_d914_c4b8_d9ca);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut envelope = Envelope::new();
            for piece in &pieces {
                if envelope.feed(piece).is_err() {
                    return Ok(());
                }
            }
            let _ = envelope.finish();
        }
    }
}
