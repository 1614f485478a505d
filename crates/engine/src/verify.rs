//! Reads an artifact back from the store and proves it to the last byte.

use bytes::Bytes;
use cachevault_rdb::{Checksum, EnvelopeReport};
use cachevault_store::{
    ArtifactEntry, ArtifactKey, Encoding, RdbEntry, Store, StoreErrorKind, Stored, StoredObject,
};
use tokio::sync::mpsc;

use crate::decode::Decoder;
use crate::error::VerifyError;

/// Pieces of 1 MiB that may wait for the decoder.
const PIECES_MAX: usize = 4;

/// Reads the artifact of the shard `key` back and compares it with `entry`: the stored object's size and
/// SHA-256, and, decoded, the RDB's header, size, end and checksum.
///
/// # Errors
/// [`VerifyError`] when anything differs or cannot be read.
pub async fn verify_artifact(
    store: &dyn Store,
    key: &ArtifactKey,
    entry: &ArtifactEntry,
) -> Result<(), VerifyError> {
    let (pieces, decoder_input) = mpsc::channel(PIECES_MAX);
    let encoding = entry.encoding;
    let decoder = tokio::task::spawn_blocking(move || decode(decoder_input, encoding));
    let key = &key.encoded(encoding);
    let stored = read_back(store, key, pieces).await;
    // The decoder has ended or will: its input is closed.
    let decoded = decoder.await.unwrap_or_else(|e| Err(VerifyError::Undecodable(e.to_string())));
    match stored {
        Ok(stored) => compare_stored(&stored, entry)?,
        Err(error) => return Err(named(store, key, entry, error).await),
    }
    compare_rdb(decoded?, &entry.rdb)
}

/// What is wrong with an artifact that does not decrypt: how much of it there is says more.
async fn named(
    store: &dyn Store,
    key: &ArtifactKey,
    entry: &ArtifactEntry,
    error: VerifyError,
) -> VerifyError {
    let VerifyError::Store(error) = error else { return error };
    if error.kind != StoreErrorKind::Damaged {
        return error.into();
    }
    let is_it = |object: &StoredObject| object.name == key.object();
    let listed = store.list(&key.attempt.folder(), None).await;
    let size =
        listed.ok().and_then(|listed| listed.into_iter().find(is_it)).map(|it| it.size_bytes);
    match size.map(|size| same("its size", &size, &entry.stored_bytes)) {
        Some(Ok(())) => VerifyError::Altered { size_bytes: entry.stored_bytes, error },
        Some(Err(differs)) => differs,
        None => error.into(),
    }
}

/// Whether the stored object is the one that was written.
pub(crate) fn compare_stored(stored: &Stored, entry: &ArtifactEntry) -> Result<(), VerifyError> {
    same("its size", &stored.size_bytes, &entry.stored_bytes)?;
    same("its SHA-256", &stored.sha256, &entry.stored_sha256)
}

/// Passes the bytes to the decoder, and tells what was stored.
async fn read_back(
    store: &dyn Store,
    key: &ArtifactKey,
    pieces: mpsc::Sender<Bytes>,
) -> Result<Stored, VerifyError> {
    let mut source = store.open(key).await?;
    while let Some(piece) = source.read().await? {
        // A decoder that gave up says why itself; size and SHA-256 are still worth knowing.
        let _ = pieces.send(piece).await;
    }
    Ok(source.seen())
}

fn decode(
    mut pieces: mpsc::Receiver<Bytes>,
    encoding: Encoding,
) -> Result<EnvelopeReport, VerifyError> {
    let undecodable = |e: std::io::Error| VerifyError::Undecodable(e.to_string());
    let mut decoder = Decoder::new(encoding).map_err(undecodable)?;
    while let Some(piece) = pieces.blocking_recv() {
        decoder.push(&piece).map_err(undecodable)?;
    }
    decoder.finish().map_err(undecodable)
}

/// Whether it decodes to the RDB that was captured.
pub(crate) fn compare_rdb(decoded: EnvelopeReport, rdb: &RdbEntry) -> Result<(), VerifyError> {
    let crc64 = match decoded.checksum {
        Checksum::Matches(crc) => Some(format!("{crc:016x}")),
        Checksum::Absent => None,
    };
    same("the RDB's header", &decoded.header.to_string(), &rdb.header)?;
    same("the RDB's size", &decoded.size_bytes, &rdb.size_bytes)?;
    same("the RDB's CRC-64", &crc64.unwrap_or_default(), &rdb.crc64.clone().unwrap_or_default())
}

fn same<T: PartialEq + ToString>(
    what: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), VerifyError> {
    if found == expected {
        return Ok(());
    }
    Err(VerifyError::Differs { what, found: found.to_string(), expected: expected.to_string() })
}
