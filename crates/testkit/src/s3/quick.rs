//! Fast replacements of operations that `s3s-fs` executes in pieces of 4 to 64 KiB: reading an
//! object, storing the parts of an upload and joining them. These operations would otherwise
//! dominate measurements. Parts get no MD5 either: `s3s` has checked their signed SHA-256.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::TryStreamExt;
use s3s::dto::StreamingBlob;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

const READ_BYTES: usize = 256 << 10;

/// Reads a range of a file.
pub(super) async fn body(path: &Path, range: Range<u64>) -> io::Result<StreamingBlob> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let file = tokio::fs::File::from_std(file).take(range.end - range.start);
    Ok(StreamingBlob::wrap(ReaderStream::with_capacity(file, READ_BYTES)))
}

/// The placeholder of an upload's part: a file of the part's length without content.
pub(super) fn part_file(root: &Path, upload: &str, number: usize) -> PathBuf {
    root.join(format!(".upload_id-{upload}.part-{number}"))
}

/// The file of a part that arrived before a part with a lower number.
fn early_part_file(root: &Path, upload: &str, number: usize) -> PathBuf {
    root.join(format!(".upload_id-{upload}.part-{number}.early"))
}

/// The file of the joined parts.
fn object_file(root: &Path, upload: &str) -> PathBuf {
    root.join(format!(".upload_id-{upload}.object"))
}

/// Reads a complete body.
pub(super) async fn whole(mut body: StreamingBlob) -> io::Result<Vec<Bytes>> {
    let mut pieces = Vec::new();
    while let Some(piece) = body.try_next().await.map_err(io::Error::other)? {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Stores a part: behind the parts with lower numbers if all of them are complete, so that the
/// completion has little to join. Only one part may be stored at a time. A part may be repeated
/// only with the same length, and none may be missing at the end; S3 permits all of this.
pub(super) fn keep(root: &Path, upload: &str, number: usize, part: &[Bytes]) -> io::Result<()> {
    let lengths = lengths(root, upload);
    let mut next = lengths.len() + 1;
    if number > next {
        let mut file = File::create(early_part_file(root, upload, number))?;
        return part.iter().try_for_each(|piece| file.write_all(piece));
    }
    let len = part.iter().map(|piece| piece.len() as u64).sum();
    if lengths.get(number - 1).is_some_and(|&before| before != len) {
        return Err(io::Error::other("a part is repeated with another length"));
    }
    let mut object =
        File::options().create(true).truncate(false).write(true).open(object_file(root, upload))?;
    object.seek(SeekFrom::Start(lengths[..number - 1].iter().sum()))?;
    part.iter().try_for_each(|piece| object.write_all(piece))?;
    if number < next {
        return Ok(());
    }
    File::create(part_file(root, upload, number))?.set_len(len)?;
    loop {
        next += 1;
        let early = early_part_file(root, upload, next);
        let Ok(mut file) = File::open(&early) else { return Ok(()) };
        let len = io::copy(&mut file, &mut object)?;
        File::create(part_file(root, upload, next))?.set_len(len)?;
        std::fs::remove_file(early)?;
    }
}

/// Lengths of the joined parts.
fn lengths(root: &Path, upload: &str) -> Vec<u64> {
    let part = |n| std::fs::metadata(part_file(root, upload, n)).ok();
    (1..).map_while(part).map(|part| part.len()).collect()
}

/// Whether all parts of an upload are complete, large enough for S3 (5 MiB except for the last
/// one), and of the same length, as required by Cloudflare R2.
pub(super) fn are_complete(root: &Path, upload: &str, parts: usize) -> bool {
    let lengths = lengths(root, upload);
    let first = lengths.first().copied().unwrap_or_default();
    let is_as_long = |&len: &u64| len == first && len >= 5 << 20;
    lengths.len() == parts
        && lengths.iter().rev().skip(1).all(is_as_long)
        && lengths.last().is_none_or(|&last| last <= first)
}

/// Moves the joined parts of an upload to the object `key`, and records its ETag in the form of
/// `s3s-fs`.
pub(super) fn publish(
    root: &Path,
    upload: &str,
    (bucket, key): (&str, &str),
    e_tag: &str,
) -> io::Result<()> {
    let [bucket_name, key_name] = [bucket, key].map(|name| BASE64_URL_SAFE_NO_PAD.encode(name));
    let info = root.join(format!(".bucket-{bucket_name}.object-{key_name}.internal.json"));
    std::fs::write(info, serde_json::json!({ "e_tag": e_tag }).to_string())?;
    let object = root.join(bucket).join(key);
    if let Some(folder) = object.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::rename(object_file(root, upload), object)
}
