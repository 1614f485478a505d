//! The same bytes in pieces: how they are cut may change nothing. The first byte says how.

#![no_main]

use cachevault_rdb::DecodeErrorKind;
use cachevault_rdb::data::Decoder;
use cachevault_rdb::digest::{Digest, Digester};
use libfuzzer_sys::fuzz_target;

/// The kind of error alone: inside a long string, its position is that of the piece.
fn digest<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Digest, Result<(), DecodeErrorKind>) {
    let (mut decoder, mut digester) = (Decoder::default(), Digester::default());
    let mut fed = Ok(());
    for piece in pieces {
        fed = decoder.feed(piece, &mut digester);
        if fed.is_err() {
            break;
        }
    }
    let fed = fed.and_then(|()| decoder.finish());
    (digester.finish(), fed.map_err(|error| error.kind))
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

fuzz_target!(|bytes: &[u8]| {
    let Some((seed, bytes)) = bytes.split_first() else { return };
    let (whole, pieces) = (digest(std::iter::once(bytes)), digest(cut(bytes, *seed).into_iter()));
    assert_eq!(whole.1, pieces.1);
    assert!(whole.0 == pieces.0, "the digests differ");
});
