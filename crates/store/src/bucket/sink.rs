//! Writes an artifact into a bucket in parts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bucket::failure::failed;
use crate::bucket::source::BucketSource;
use crate::{ArtifactSink, ArtifactSource, StoreError, StoreErrorKind, Stored};

const PARTS_MAX: usize = 10_000;
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Maximum number of bytes that are buffered or being sent.
const HELD_BYTES_MAX: usize = 16 << 20;

/// Possible lengths of parts. Servers accept parts from 5 MiB on, and 10,000 of them. A part of the
/// maximum length is sent before the next one is buffered.
const PART_BYTES: [usize; 3] = [5 << 20, 8 << 20, HELD_BYTES_MAX];

/// Length of all parts of an upload except the last: some servers, Cloudflare R2 among them, refuse
/// parts of different lengths, and report this only at the end. The upload has room for twice the
/// expected size.
fn part_bytes(expected_bytes: Option<u64>) -> usize {
    let has_room = |part: &usize| {
        let room = *part as u64 * PARTS_MAX as u64;
        expected_bytes.is_some_and(|bytes| bytes.saturating_mul(2) <= room)
    };
    PART_BYTES.into_iter().find(has_room).unwrap_or(HELD_BYTES_MAX)
}

pub(super) struct BucketSink {
    objects: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    path: Path,
    shown: String,
    patience: Duration,
    part_bytes: usize,
    /// Whether the artifact must be read back, because the server does not compare checksums.
    reads_back: bool,
    upload: Option<MultipartId>,
    /// The bytes of the next part.
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    sending: JoinSet<object_store::Result<Sent>>,
    sending_bytes: usize,
    sent: Vec<Option<PartId>>,
    size_bytes: u64,
    sha256: Sha256,
}

/// A part that the server has received.
struct Sent {
    index: usize,
    len: usize,
    part: PartId,
}

impl BucketSink {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        parts: Arc<dyn MultipartStore>,
        path: Path,
        shown: String,
        patience: Duration,
        expected_bytes: Option<u64>,
        reads_back: bool,
    ) -> Self {
        Self {
            objects,
            parts,
            path,
            shown,
            patience,
            part_bytes: part_bytes(expected_bytes),
            reads_back,
            upload: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            sending: JoinSet::new(),
            sending_bytes: 0,
            sent: Vec::new(),
            size_bytes: 0,
            sha256: Sha256::new(),
        }
    }

    /// Starts to send the buffered part.
    async fn send_part(&mut self) -> Result<(), StoreError> {
        let index = self.sent.len();
        if index == PARTS_MAX {
            let gib = (self.part_bytes * PARTS_MAX) >> 30;
            let source = format!("an upload of this size has room for {gib} GiB");
            return Err(StoreError {
                source: Some(source.into()),
                ..StoreError::new(StoreErrorKind::NoSpace, "write", &self.shown)
            });
        }
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => {
                let begun = self.parts.create_multipart(&self.path).await;
                let upload = begun.map_err(|e| failed("begin the upload of", &self.shown, e))?;
                self.upload.insert(upload).clone()
            }
        };
        let payload: PutPayload = self.gathered.drain(..).collect();
        let len = std::mem::take(&mut self.gathered_bytes);
        self.sending_bytes += len;
        self.sent.push(None);
        let (parts, path) = (Arc::clone(&self.parts), self.path.clone());
        self.sending.spawn(async move {
            let part = parts.put_part(&path, &upload, index, payload).await?;
            Ok(Sent { index, len, part })
        });
        Ok(())
    }

    /// Waits until a part is sent.
    async fn await_part(&mut self) -> Result<(), StoreError> {
        let Some(sent) = self.sending.join_next().await else { return Ok(()) };
        let lost = |error| StoreError::io("write", &self.shown, std::io::Error::other(error));
        let Sent { index, len, part } = sent.map_err(lost)?.map_err(|e| self.broken("write", e))?;
        self.sent[index] = Some(part);
        self.sending_bytes -= len;
        Ok(())
    }

    /// Converts an error of an upload. An upload that another program has aborted is not found; a
    /// new attempt may succeed.
    fn broken(&self, action: &'static str, error: object_store::Error) -> StoreError {
        let error = failed(action, &self.shown, error);
        match error.kind {
            StoreErrorKind::NotFound => StoreError { kind: StoreErrorKind::Unavailable, ..error },
            _ => error,
        }
    }

    async fn publish(&mut self) -> Result<Stored, StoreError> {
        match self.upload.clone() {
            None => {
                let payload: PutPayload = self.gathered.drain(..).collect();
                let written = self.objects.put(&self.path, payload).await;
                written.map_err(|e| failed("write", &self.shown, e))?;
            }
            Some(upload) => {
                if self.gathered_bytes > 0 {
                    self.send_part().await?;
                }
                while !self.sending.is_empty() {
                    self.await_part().await?;
                }
                let sent = self.sent.drain(..).flatten().collect();
                let began = Instant::now();
                let done = self.parts.complete_multipart(&self.path, &upload, sent).await;
                if let Err(error) = done {
                    let error = self.broken("finish", error);
                    if !self.appears(error.kind, began).await {
                        return Err(error);
                    }
                }
            }
        }
        if self.stored_bytes().await? != self.size_bytes {
            return Err(StoreError::new(StoreErrorKind::Damaged, "finish", &self.shown));
        }
        let sha256 = hex::encode(std::mem::take(&mut self.sha256).finalize());
        let stored = Stored { size_bytes: self.size_bytes, sha256 };
        if self.reads_back && self.read_back().await? != stored {
            return Err(StoreError::new(StoreErrorKind::Damaged, "read back", &self.shown));
        }
        Ok(stored)
    }

    async fn read_back(&self) -> Result<Stored, StoreError> {
        let (objects, path) = (Arc::clone(&self.objects), self.path.clone());
        let mut source = BucketSource::new(objects, path, self.size_bytes, self.shown.clone());
        while source.read().await?.is_some() {}
        Ok(source.seen())
    }

    /// Waits until the object appears although completing the upload, which started at `began`,
    /// failed. A server may need minutes to join the parts, or its reply is lost; the repeated
    /// request then reports that the upload is missing or foreign. After a refusal the object does
    /// not appear.
    async fn appears(&self, kind: StoreErrorKind, began: Instant) -> bool {
        loop {
            if self.stored_bytes().await.ok() == Some(self.size_bytes) {
                return true;
            }
            if !kind.may_pass() || began.elapsed() >= self.patience {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn stored_bytes(&self) -> Result<u64, StoreError> {
        let meta = self.objects.head(&self.path).await;
        meta.map(|meta| meta.size).map_err(|e| self.broken("find", e))
    }

    /// Removes the object and its upload.
    async fn discard(&mut self) {
        self.sending.shutdown().await;
        // A remaining object does no harm: it has no manifest, and the undo of the attempt removes
        // it.
        if let Some(upload) = self.upload.take() {
            let _ = self.parts.abort_multipart(&self.path, &upload).await;
        }
        let _ = self.objects.delete(&self.path).await;
    }
}

#[async_trait]
impl ArtifactSink for BucketSink {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        self.size_bytes += bytes.len() as u64;
        self.sha256.update(&bytes);
        while !bytes.is_empty() {
            let room = self.part_bytes - self.gathered_bytes;
            let piece = bytes.split_to(bytes.len().min(room));
            while !self.sending.is_empty()
                && self.sending_bytes + self.gathered_bytes + piece.len() > HELD_BYTES_MAX
            {
                self.await_part().await?;
            }
            self.gathered_bytes += piece.len();
            self.gathered.push(piece);
            if self.gathered_bytes == self.part_bytes {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, StoreError> {
        let published = self.publish().await;
        if published.is_err() {
            self.discard().await;
        }
        published
    }

    async fn abort(mut self: Box<Self>) {
        self.discard().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;
    use object_store::memory::InMemory;

    use super::*;

    const PIECE_BYTES: usize = 1 << 20;

    /// Accepts parts and records their lengths, but never replies.
    #[derive(Debug, Default)]
    struct Silent(Mutex<Vec<usize>>);

    #[async_trait]
    impl MultipartStore for Silent {
        async fn create_multipart(&self, _: &Path) -> object_store::Result<MultipartId> {
            Ok("upload".to_owned())
        }

        async fn put_part(
            &self,
            _: &Path,
            _: &MultipartId,
            _: usize,
            part: PutPayload,
        ) -> object_store::Result<PartId> {
            self.0.lock().unwrap().push(part.content_length());
            std::future::pending().await
        }

        async fn complete_multipart(
            &self,
            _: &Path,
            _: &MultipartId,
            _: Vec<PartId>,
        ) -> object_store::Result<object_store::PutResult> {
            std::future::pending().await
        }

        async fn abort_multipart(&self, _: &Path, _: &MultipartId) -> object_store::Result<()> {
            Ok(())
        }
    }

    /// A sink that has already sent this number of parts.
    fn sink(parts: &Arc<Silent>, expected_bytes: Option<u64>, arrived: usize) -> BucketSink {
        let (objects, path) = (Arc::new(InMemory::new()), Path::from("it"));
        let (parts, patience) = (Arc::clone(parts) as _, Duration::ZERO);
        let mut sink =
            BucketSink::new(objects, parts, path, "it".to_owned(), patience, expected_bytes, false);
        sink.sent = std::iter::repeat_with(|| None).take(arrived).collect();
        sink
    }

    /// Writes until the sink blocks; returns the number of bytes.
    fn fill(sink: &mut BucketSink) -> usize {
        let mut held = 0;
        while let Some(written) = sink.write(vec![7; PIECE_BYTES].into()).now_or_never() {
            written.unwrap();
            held += PIECE_BYTES;
        }
        held
    }

    const EXPECTED: [Option<u64>; 5] =
        [Some(0), Some(24 << 30), Some(38 << 30), Some(u64::MAX), None];

    #[tokio::test]
    async fn held_bytes_do_not_depend_on_the_length_of_the_artifact() {
        for expected in EXPECTED {
            let held = fill(&mut sink(&Arc::default(), expected, 0));
            assert_eq!(held, HELD_BYTES_MAX, "{expected:?}");
        }
    }

    #[tokio::test]
    async fn all_parts_of_an_upload_have_the_same_length() {
        for (expected, mib) in EXPECTED.into_iter().zip([5, 5, 8, 16, 16]) {
            for arrived in [0, 1999, 2000, 5999, 6000, 9990] {
                let parts = Arc::default();
                let mut sink = sink(&parts, expected, arrived);
                fill(&mut sink);
                tokio::task::yield_now().await;
                let lengths = parts.0.lock().unwrap().clone();
                assert!(!lengths.is_empty());
                assert!(
                    lengths.iter().all(|length| *length == mib << 20),
                    "{expected:?} after {arrived}: {lengths:?}"
                );
            }
        }
    }

    #[test]
    fn an_upload_has_room_for_twice_the_expected_size() {
        for gib in [1, 24, 25, 38, 39, 78] {
            let room = part_bytes(Some(gib << 30)) as u64 * PARTS_MAX as u64;
            assert!(room >= gib << 31, "{gib} GiB");
        }
        assert_eq!((part_bytes(None) * PARTS_MAX) >> 30, 156);
    }
}
