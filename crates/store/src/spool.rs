//! A local buffer for data that a store cannot accept at once.
//!
//! A server that sends its data keeps a forked child until the transfer ends: a stalled store must
//! not delay the transfer. Data passes through a small buffer in memory. When the memory is full,
//! further data goes into an unnamed file, which the system removes with the process, and from
//! there to the store in the same order. The file is a ring: data that was passed on makes room for
//! new data. The writer waits only when memory and file are full.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::disk::free_bytes;
use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, AttemptKey, BucketPlace, Folder, ObjectName,
    Scratch, Store, StoreError, StoreErrorKind, Stored, StoredObject,
};

/// Maximum number of an artifact's bytes in memory.
const MEMORY_BYTES: usize = 4 << 20;

/// Buffers artifacts on the local disk while another store is slow.
#[derive(Debug)]
pub struct SpoolStore {
    inner: Arc<dyn Store>,
    folder: PathBuf,
    limit_bytes: u64,
    reserve_bytes: u64,
}

impl SpoolStore {
    /// Creates a store in front of `inner`. Each artifact in progress has a file of at most
    /// `limit_bytes` in `folder`, which must exist.
    pub fn new(inner: Arc<dyn Store>, folder: PathBuf, limit_bytes: u64) -> Self {
        Self { inner, folder, limit_bytes, reserve_bytes: 0 }
    }

    /// Keeps this number of bytes of the disk free; beyond this limit a writer waits for the store.
    #[must_use]
    pub fn with_reserve(self, reserve_bytes: u64) -> Self {
        Self { reserve_bytes, ..self }
    }
}

#[async_trait]
impl Store for SpoolStore {
    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        self.inner.check(scratch).await
    }

    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError> {
        let inner = self.inner.create(key, expected_bytes).await?;
        let folder = self.folder.clone();
        let limits = SpoolLimits { bytes: self.limit_bytes, reserve_bytes: self.reserve_bytes };
        Ok(Box::new(SpoolSink::new(inner, folder, limits, key.to_string())))
    }

    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError> {
        self.inner.open(key).await
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(name).await
    }

    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        self.inner.list(folder, after).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.remove(name).await
    }

    async fn unfinished(&self, begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        self.inner.unfinished(begun_before).await
    }

    async fn remove_unfinished(
        &self,
        folder: &Folder,
        begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.inner.remove_unfinished(folder, begun_before).await
    }

    async fn rewrap(&self, attempt: &AttemptKey) -> Result<bool, StoreError> {
        self.inner.rewrap(attempt).await
    }

    fn bucket(&self) -> Option<BucketPlace> {
        self.inner.bucket()
    }

    fn locate(&self, key: &ArtifactKey) -> String {
        self.inner.locate(key)
    }
}

/// The state that writer and pump share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A piece waits, or the writer has ended.
    for_pump: Notify,
    /// A piece was passed on, or the pump has ended.
    for_writer: Notify,
    aborted: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    memory_bytes: usize,
    /// Created when memory is full for the first time.
    file: Option<Arc<Ring>>,
    /// Number of bytes written to the file, and the number of those that were not passed on.
    file_end: u64,
    file_bytes: u64,
    is_closed: bool,
    is_over: bool,
}

/// A waiting piece.
enum Waiting {
    InMemory(Bytes),
    InFile { at: u64, len: usize },
}

impl State {
    fn fits_memory(&self, len: usize) -> bool {
        self.memory_bytes == 0 || self.memory_bytes + len <= MEMORY_BYTES
    }

    fn push_memory(&mut self, bytes: Bytes) {
        self.memory_bytes += bytes.len();
        self.waiting.push_back(Waiting::InMemory(bytes));
    }

    /// Reserves a place in the file; an empty file restarts at its beginning, which keeps it short.
    fn place(&mut self, len: usize) -> u64 {
        if self.file_bytes == 0 {
            self.file_end = 0;
        }
        let at = self.file_end;
        self.file_end += len as u64;
        self.file_bytes += len as u64;
        at
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pump(
        self: Arc<Self>,
        mut inner: Box<dyn ArtifactSink>,
        object: String,
    ) -> Result<Stored, StoreError> {
        let _over = Over(&self);
        let passed_on = tokio::select! {
            passed_on = self.pass_on(&mut *inner, &object) => passed_on,
            () = self.aborted.notified() => Err(broken("write", &object, io::ErrorKind::Interrupted.into())),
        };
        match passed_on {
            Ok(()) => inner.finish().await,
            Err(error) => {
                inner.abort().await;
                Err(error)
            }
        }
    }

    /// Passes waiting pieces on until the writer has ended.
    async fn pass_on(&self, inner: &mut dyn ArtifactSink, object: &str) -> Result<(), StoreError> {
        loop {
            // Reads both under one lock: a piece that arrives between two reads would be lost.
            let (next, file, is_closed) = {
                let mut state = self.state();
                (state.waiting.pop_front(), state.file.clone(), state.is_closed)
            };
            match next {
                Some(Waiting::InMemory(bytes)) => {
                    let len = bytes.len();
                    inner.write(bytes).await?;
                    self.state().memory_bytes -= len;
                }
                Some(Waiting::InFile { at, len }) => {
                    inner.write(read(file, at, len, object).await?).await?;
                    self.state().file_bytes -= len as u64;
                }
                None if is_closed => return Ok(()),
                None => self.for_pump.notified().await,
            }
            self.for_writer.notify_one();
        }
    }
}

/// Wakes the writer when the pump ends for any reason.
struct Over<'s>(&'s Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.for_writer.notify_one();
    }
}

/// A file of limited length that continues at its beginning. A piece must not be longer than the
/// file.
struct Ring {
    file: File,
    len: u64,
}

impl Ring {
    /// The position of a piece behind `at` bytes of other pieces: its offset, and the length of its
    /// first part before the end of the file.
    fn place(&self, at: u64, len: usize) -> (u64, usize) {
        let offset = at % self.len;
        let room = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
        (offset, len.min(room))
    }

    fn write(&self, piece: &[u8], at: u64) -> io::Result<()> {
        let (offset, first) = self.place(at, piece.len());
        self.file.write_all_at(&piece[..first], offset)?;
        self.file.write_all_at(&piece[first..], 0)
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Bytes> {
        let mut piece = BytesMut::zeroed(len);
        let (offset, first) = self.place(at, len);
        self.file.read_exact_at(&mut piece[..first], offset)?;
        self.file.read_exact_at(&mut piece[first..], 0)?;
        Ok(piece.freeze())
    }
}

async fn read(
    file: Option<Arc<Ring>>,
    at: u64,
    len: usize,
    object: &str,
) -> Result<Bytes, StoreError> {
    let work = move || {
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        file.read(at, len)
    };
    let read = tokio::task::spawn_blocking(work).await;
    let read = read.unwrap_or_else(|gone| Err(io::Error::other(gone)));
    read.map_err(|error| broken("read back waiting bytes of", object, error))
}

fn broken(action: &'static str, object: &str, error: io::Error) -> StoreError {
    StoreError::io(action, object, error)
}

#[derive(Debug, Clone, Copy)]
struct SpoolLimits {
    /// Maximum number of one artifact's bytes in the file.
    bytes: u64,
    /// Bytes of the disk that stay free.
    reserve_bytes: u64,
}

struct SpoolSink {
    shared: Arc<Shared>,
    pump: JoinSet<Result<Stored, StoreError>>,
    folder: PathBuf,
    limits: SpoolLimits,
    object: String,
    written_bytes: u64,
    /// The local disk has failed once: the writer waits for the store from then on.
    is_unusable: bool,
}

impl SpoolSink {
    fn new(
        inner: Box<dyn ArtifactSink>,
        folder: PathBuf,
        limits: SpoolLimits,
        object: String,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let mut pump = JoinSet::new();
        pump.spawn(Arc::clone(&shared).pump(inner, object.clone()));
        Self { shared, pump, folder, limits, object, written_bytes: 0, is_unusable: false }
    }

    /// The result of the pump.
    async fn outcome(&mut self) -> Result<Stored, StoreError> {
        let gone = |error| broken("write", &self.object, error);
        match self.pump.join_next().await {
            Some(outcome) => outcome.map_err(|error| gone(io::Error::other(error)))?,
            None => Err(gone(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Whether the disk keeps its reserve after `len` more bytes. If the free space is unknown, the
    /// write itself reports the error.
    async fn leaves_reserve(&self, len: usize) -> bool {
        if self.limits.reserve_bytes == 0 {
            return true;
        }
        let folder = self.folder.clone();
        let free = tokio::task::spawn_blocking(move || free_bytes(&folder)).await;
        let needed = self.limits.reserve_bytes.saturating_add(len as u64);
        !matches!(free, Ok(Ok(free)) if free < needed)
    }

    /// Writes into the file; returns the bytes if there is no room.
    async fn spool(&mut self, bytes: Bytes) -> Option<Bytes> {
        if !self.leaves_reserve(bytes.len()).await {
            return Some(bytes);
        }
        let (file, at) = {
            let mut state = self.shared.state();
            let has_room = state.file_bytes + bytes.len() as u64 <= self.limits.bytes;
            if self.is_unusable || !has_room {
                return Some(bytes);
            }
            (state.file.clone(), state.place(bytes.len()))
        };
        let (folder, len, piece) = (self.folder.clone(), self.limits.bytes, bytes.clone());
        let work = move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(Ring { file: tempfile::tempfile_in(folder)?, len }),
            };
            file.write(&piece, at)?;
            Ok(file)
        };
        let written = tokio::task::spawn_blocking(work).await;
        let written: io::Result<_> = written.unwrap_or_else(|gone| Err(io::Error::other(gone)));
        let mut state = self.shared.state();
        match written {
            Ok(file) => {
                state.file = Some(file);
                state.waiting.push_back(Waiting::InFile { at, len: bytes.len() });
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the local disk cannot buffer data for the store");
                state.file_bytes -= bytes.len() as u64;
                self.is_unusable = true;
                Some(bytes)
            }
        }
    }
}

#[async_trait]
impl ArtifactSink for SpoolSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.written_bytes += bytes.len() as u64;
        let mut rest = Some(bytes).filter(|bytes| !bytes.is_empty());
        while let Some(bytes) = rest.take() {
            let fits = {
                let mut state = self.shared.state();
                if state.is_over {
                    None
                // Data must not overtake the data in the file.
                } else if state.file_bytes == 0 && state.fits_memory(bytes.len()) {
                    state.push_memory(bytes.clone());
                    Some(true)
                } else {
                    Some(false)
                }
            };
            match fits {
                None => return self.outcome().await.map(drop),
                Some(true) => {}
                Some(false) => rest = self.spool(bytes).await,
            }
            self.shared.for_pump.notify_one();
            if rest.is_some() {
                self.shared.for_writer.notified().await;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, StoreError> {
        self.shared.state().is_closed = true;
        self.shared.for_pump.notify_one();
        let stored = self.outcome().await?;
        if stored.size_bytes != self.written_bytes {
            return Err(StoreError::new(StoreErrorKind::Damaged, "finish", &self.object));
        }
        Ok(stored)
    }

    async fn abort(mut self: Box<Self>) {
        self.shared.aborted.notify_one();
        let _ = self.outcome().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sha2::{Digest, Sha256};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::Tally;

    const PIECE_BYTES: usize = 1 << 20;
    /// No multiple of a piece, so that pieces continue at the beginning of the file.
    const LIMIT: u64 = (8 << 20) + 12_345;
    const LIMITS: SpoolLimits = SpoolLimits { bytes: LIMIT, reserve_bytes: 0 };
    /// Number of pieces that fit into the file.
    const BACKLOG: usize = 8;
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Receives a piece per permit.
    struct Gated {
        gate: Arc<Semaphore>,
        taken: Tally,
    }

    #[async_trait]
    impl ArtifactSink for Gated {
        async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
            self.gate.acquire().await.unwrap().forget();
            self.taken.add(&bytes);
            Ok(())
        }

        async fn finish(self: Box<Self>) -> Result<Stored, StoreError> {
            Ok(self.taken.stored())
        }

        async fn abort(self: Box<Self>) {}
    }

    fn piece(number: usize) -> Bytes {
        (0..PIECE_BYTES).map(|at| (at / 7 + number * 31) as u8).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_writer_continues_at_the_pace_of_a_slow_store() {
        const PIECES: usize = BACKLOG + 40;
        let folder = tempfile::tempdir().unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let inner = Box::new(Gated { gate: Arc::clone(&gate), taken: Tally::default() });
        let mut sink =
            Box::new(SpoolSink::new(inner, folder.path().to_owned(), LIMITS, "it".to_owned()));
        let mut expected = Sha256::new();
        for number in 0..PIECES {
            // Each arriving piece replaces one that was passed on: the file stays full.
            gate.add_permits(usize::from(number >= BACKLOG));
            expected.update(piece(number));
            let written = tokio::time::timeout(PATIENCE, sink.write(piece(number))).await;
            written.unwrap_or_else(|_| panic!("piece {number} waits")).unwrap();
        }
        gate.add_permits(PIECES);
        let stored = sink.finish().await.unwrap();
        assert_eq!(stored.size_bytes, (PIECES * PIECE_BYTES) as u64);
        assert_eq!(stored.sha256, hex::encode(expected.finalize()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_spool_leaves_the_reserve_of_its_disk_free() {
        const PIECES: usize = 20;
        let folder = tempfile::tempdir().unwrap();
        for (reserve_bytes, is_spooled) in [(1, true), (u64::MAX / 2, false)] {
            let gate = Arc::new(Semaphore::new(0));
            let inner = Box::new(Gated { gate: Arc::clone(&gate), taken: Tally::default() });
            let limits = SpoolLimits { bytes: 1 << 30, reserve_bytes };
            let path = folder.path().to_owned();
            let mut sink = Box::new(SpoolSink::new(inner, path, limits, "it".to_owned()));
            let shared = Arc::clone(&sink.shared);
            for number in 0..PIECES {
                // Memory is full when the piece comes; only then is one of those before it taken.
                let is_full = number >= MEMORY_BYTES / PIECE_BYTES;
                let takes = async { gate.add_permits(usize::from(is_full && !is_spooled)) };
                let writes = tokio::time::timeout(PATIENCE, sink.write(piece(number)));
                let (written, ()) = tokio::join!(writes, takes);
                written.unwrap_or_else(|_| panic!("piece {number} waits")).unwrap();
            }
            assert_eq!(shared.state().file.is_some(), is_spooled);
            gate.add_permits(PIECES);
            let stored = sink.finish().await.unwrap();
            assert_eq!(stored.size_bytes, (PIECES * PIECE_BYTES) as u64);
        }
    }
}
