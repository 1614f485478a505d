//! Reads an artifact from a bucket in ranges.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::bucket::failure::failed;
use crate::{ArtifactSource, StoreError, Stored, Tally};

/// Bytes per request: a single long response could not be resumed.
const RANGE_BYTES: u64 = 8 << 20;
/// Parallel requests: one is in progress while the bytes of the other are used.
const RANGES_AT_ONCE: usize = 2;
const PIECE_BYTES: usize = 1 << 20;

pub(super) struct BucketSource {
    ranges: BoxStream<'static, object_store::Result<Bytes>>,
    pieces: VecDeque<Bytes>,
    seen: Tally,
    shown: String,
}

impl BucketSource {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, path: Path, size: u64, shown: String) -> Self {
        let ranges = futures_util::stream::iter(ranges(size))
            .map(move |range| {
                let (objects, path) = (Arc::clone(&objects), path.clone());
                async move { objects.get_range(&path, range).await }
            })
            .buffered(RANGES_AT_ONCE)
            .boxed();
        Self { ranges, pieces: VecDeque::new(), seen: Tally::default(), shown }
    }
}

fn ranges(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(RANGE_BYTES))
        .map(move |index| index * RANGE_BYTES..size.min((index + 1) * RANGE_BYTES))
}

#[async_trait]
impl ArtifactSource for BucketSource {
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.pieces.is_empty() {
            let Some(range) = self.ranges.next().await else { return Ok(None) };
            let mut range = range.map_err(|e| failed("read", &self.shown, e))?;
            while !range.is_empty() {
                self.pieces.push_back(range.split_to(range.len().min(PIECE_BYTES)));
            }
        }
        let piece = self.pieces.pop_front();
        self.seen.add(piece.as_deref().unwrap_or_default());
        Ok(piece)
    }

    fn seen(&self) -> Stored {
        self.seen.stored()
    }
}
