//! Writes an artifact into a bucket, in parts.

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
use crate::{ArtifactSink, StoreError, StoreErrorKind, Stored};

/// Bytes of a part. Servers take from 5 MiB on, and 10,000 parts.
const PART_BYTES: usize = 5 << 20;
/// Parts from this one on are longer, so that 134 GiB have room.
const LONG_PARTS_FROM: usize = 2000;
const LONG_PART_BYTES: usize = 16 << 20;
const PARTS_MAX: usize = 10_000;
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Bytes on their way at once.
const SENDING_BYTES_MAX: usize = 10 << 20;

pub(super) struct BucketSink {
    objects: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    path: Path,
    shown: String,
    patience: Duration,
    upload: Option<MultipartId>,
    /// What the next part is made of.
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    sending: JoinSet<object_store::Result<(usize, PartId)>>,
    sent: Vec<Option<PartId>>,
    size_bytes: u64,
    sha256: Sha256,
}

impl BucketSink {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        parts: Arc<dyn MultipartStore>,
        path: Path,
        shown: String,
        patience: Duration,
    ) -> Self {
        Self {
            objects,
            parts,
            path,
            shown,
            patience,
            upload: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            sending: JoinSet::new(),
            sent: Vec::new(),
            size_bytes: 0,
            sha256: Sha256::new(),
        }
    }

    fn part_bytes(&self) -> usize {
        if self.sent.len() < LONG_PARTS_FROM { PART_BYTES } else { LONG_PART_BYTES }
    }

    /// Begins to send what has been gathered.
    async fn send_part(&mut self) -> Result<(), StoreError> {
        let index = self.sent.len();
        if index == PARTS_MAX {
            return Err(StoreError::new(StoreErrorKind::NoSpace, "write", &self.shown));
        }
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => {
                let begun = self.parts.create_multipart(&self.path).await;
                let upload = begun.map_err(|e| failed("begin the upload of", &self.shown, e))?;
                self.upload.insert(upload).clone()
            }
        };
        while !self.sending.is_empty()
            && (self.sending.len() + 1) * self.part_bytes() > SENDING_BYTES_MAX
        {
            self.await_part().await?;
        }
        let payload: PutPayload = self.gathered.drain(..).collect();
        self.gathered_bytes = 0;
        self.sent.push(None);
        let (parts, path) = (Arc::clone(&self.parts), self.path.clone());
        self.sending.spawn(async move {
            Ok((index, parts.put_part(&path, &upload, index, payload).await?))
        });
        Ok(())
    }

    /// Waits for a part that is on its way.
    async fn await_part(&mut self) -> Result<(), StoreError> {
        let Some(sent) = self.sending.join_next().await else { return Ok(()) };
        let lost = |error| StoreError::io("write", &self.shown, std::io::Error::other(error));
        let (index, part) = sent.map_err(lost)?.map_err(|e| failed("write", &self.shown, e))?;
        self.sent[index] = Some(part);
        Ok(())
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
                let done = self.parts.complete_multipart(&self.path, &upload, sent).await;
                if let Err(error) = done
                    && !self.appears().await
                {
                    return Err(failed("finish", &self.shown, error));
                }
            }
        }
        if self.stored_bytes().await? != self.size_bytes {
            return Err(StoreError::new(StoreErrorKind::Damaged, "finish", &self.shown));
        }
        let sha256 = hex::encode(std::mem::take(&mut self.sha256).finalize());
        Ok(Stored { size_bytes: self.size_bytes, sha256 })
    }

    /// Whether the object is there after all. A server may need minutes to put parts together, or
    /// its answer is lost; asked again it says that there is no such upload, or that it is not ours.
    async fn appears(&self) -> bool {
        let began = Instant::now();
        loop {
            if self.stored_bytes().await.ok() == Some(self.size_bytes) {
                return true;
            }
            if began.elapsed() >= self.patience {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn stored_bytes(&self) -> Result<u64, StoreError> {
        let meta = self.objects.head(&self.path).await;
        meta.map(|meta| meta.size).map_err(|e| failed("look at", &self.shown, e))
    }

    /// Removes whatever there is of the object.
    async fn discard(&mut self) {
        self.sending.shutdown().await;
        // Left over at worst: it has no manifest, and the attempt's undo removes it too.
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
            let room = self.part_bytes() - self.gathered_bytes;
            let piece = bytes.split_to(bytes.len().min(room));
            self.gathered_bytes += piece.len();
            self.gathered.push(piece);
            if self.gathered_bytes == self.part_bytes() {
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
