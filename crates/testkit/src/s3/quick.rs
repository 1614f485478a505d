//! What `s3s-fs` does in pieces of 4 to 64 KiB, done in large ones: reading an object, taking the
//! parts of an upload and putting them together. It would otherwise take longer than what is
//! measured with it. Parts get no MD5 either: `s3s` has checked their signed SHA-256.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::TryStreamExt;
use s3s::dto::StreamingBlob;
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

const READ_BYTES: usize = 256 << 10;

/// Some bytes of a file.
pub(super) async fn body(path: &Path, range: Range<u64>) -> io::Result<StreamingBlob> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let file = tokio::fs::File::from_std(file).take(range.end - range.start);
    Ok(StreamingBlob::wrap(ReaderStream::with_capacity(file, READ_BYTES)))
}

/// The file of a part of an upload.
pub(super) fn part_file(root: &Path, upload: &str, number: usize) -> PathBuf {
    root.join(format!(".upload_id-{upload}.part-{number}"))
}

/// Writes a whole body into a file that is yet to get its name.
pub(super) async fn write(root: &Path, mut body: StreamingBlob) -> io::Result<NamedTempFile> {
    let mut pieces = Vec::new();
    while let Some(piece) = body.try_next().await.map_err(io::Error::other)? {
        pieces.push(piece);
    }
    let mut file = NamedTempFile::new_in(root)?;
    let written = tokio::task::spawn_blocking(move || {
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        Ok(file)
    });
    written.await?
}

/// Whether all parts of an upload are there, and large enough for S3: 5 MiB but the last one.
pub(super) fn are_complete(root: &Path, upload: &str, parts: usize) -> bool {
    (1..=parts).all(|n| {
        let part = std::fs::metadata(part_file(root, upload, n));
        part.is_ok_and(|part| n == parts || part.len() >= 5 << 20)
    })
}

/// Appends the parts of an upload, 2 to `parts`, to its first one, which is the object then.
pub(super) async fn join_parts(root: &Path, upload: &str, parts: usize) -> io::Result<()> {
    let files: Vec<_> = (1..=parts).map(|n| part_file(root, upload, n)).collect();
    let joined = tokio::task::spawn_blocking(move || {
        let [first, others @ ..] = files.as_slice() else { return Ok(()) };
        let mut object = OpenOptions::new().append(true).open(first)?;
        for other in others {
            io::copy(&mut File::open(other)?, &mut object)?;
        }
        Ok(())
    });
    joined.await?
}

/// Makes the joined parts of an upload the object `key`, and notes its ETag where `s3s-fs` looks
/// for it.
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
    std::fs::rename(part_file(root, upload, 1), object)
}
