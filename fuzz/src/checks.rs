//! What must hold for any input. The fuzz targets and the tests of the crate, which replay what
//! the fuzzer kept, share these.

use cachevault_rdb::data;
use cachevault_rdb::digest::{Digest, Digester};
use cachevault_rdb::inspect::{Content, Inspection, Inspector};
use cachevault_rdb::structure::{self, Shape};
use cachevault_rdb::{DecodeErrorKind, Limits};

struct Shapes;

impl structure::Visitor for Shapes {
    const WANTS_TEXTS: bool = false;
    fn key_end(&mut self, _shape: &Shape) {}
}

/// Any bytes, as a whole: no level, nor the report, may panic, hang, or take memory that is not there;
/// and checking what nobody wants to see is as strict as reading it.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut structure = structure::Decoder::new(Limits::default());
    let is_sound = structure.feed(bytes, &mut Shapes).is_ok();
    let mut data = data::Decoder::new(Limits::default());
    let is_readable = data.feed(bytes, &mut Digester::default()).is_ok();
    assert_eq!(is_sound, is_readable);
    assert_eq!(structure.finish().is_ok(), data.finish().is_ok());
    let mut inspector = Inspector::new(0, 3);
    if inspector.feed(bytes).is_ok()
        && let Ok(Inspection { content: Content::Verified { .. }, .. }) = inspector.finish()
    {
        assert!(structure.finish().is_ok(), "verified, and not sound");
    }
}

/// The same bytes in pieces: how they are cut may change nothing. The first byte says how.
pub(crate) fn feeds(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else { return };
    let (whole, pieces) = (digest(std::iter::once(bytes)), digest(cut(bytes, *seed).into_iter()));
    assert_eq!(whole.1, pieces.1);
    assert!(whole.0 == pieces.0, "the digests differ");
}

/// The kind of error alone: inside a long string, its position is that of the piece. Of a compressed
/// string with two faults the one or the other is found first, depending on whether it is whole.
fn digest<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Digest, Result<(), DecodeErrorKind>) {
    let (mut decoder, mut digester) = (data::Decoder::default(), Digester::default());
    let mut fed = Ok(());
    for piece in pieces {
        fed = decoder.feed(piece, &mut digester);
        if fed.is_err() {
            break;
        }
    }
    let fed = fed.and_then(|()| decoder.finish());
    let kind = |kind| match kind {
        DecodeErrorKind::Corrupt(_) => DecodeErrorKind::Corrupt("somewhere"),
        DecodeErrorKind::Unfit(_) => DecodeErrorKind::Unfit("somewhere"),
        other => other,
    };
    (digester.finish(), fed.map_err(|error| kind(error.kind)))
}

/// Pieces of lengths that repeat in a pattern of `seed`.
fn cut(mut bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut step = usize::from(seed);
    while !bytes.is_empty() {
        step = (step * 5 + 3) % 251;
        let (piece, rest) = bytes.split_at(step.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
