//! What a store cannot take at once waits on the local disk.
//!
//! A server that sends its data holds a forked child for as long as we read: a store that stalls
//! must not slow the reading. What comes is passed on through a little memory; when that is full, the
//! rest goes into a file without a name, which the system removes with the process, and from there
//! to the store in the same order. Only when the file is as long as it may be does the writer wait.

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

use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, AttemptKey, Folder, ObjectName, Store, StoreError,
    StoreErrorKind, Stored, StoredObject,
};

/// Bytes of an artifact that wait in memory.
const MEMORY_BYTES: usize = 4 << 20;

/// Lets artifacts wait on the local disk while another store takes its time.
#[derive(Debug)]
pub struct SpoolStore {
    inner: Arc<dyn Store>,
    folder: PathBuf,
    limit_bytes: u64,
}

impl SpoolStore {
    /// A store in front of another, with files of at most `limit_bytes` for each artifact in
    /// `folder`, which is there.
    pub fn new(inner: Arc<dyn Store>, folder: PathBuf, limit_bytes: u64) -> Self {
        Self { inner, folder, limit_bytes }
    }
}

#[async_trait]
impl Store for SpoolStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }

    async fn create(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSink>, StoreError> {
        let inner = self.inner.create(key).await?;
        let shared = Arc::new(Shared::default());
        let mut pump = JoinSet::new();
        pump.spawn(Arc::clone(&shared).pump(inner, key.to_string()));
        Ok(Box::new(SpoolSink {
            shared,
            pump,
            folder: self.folder.clone(),
            limit_bytes: self.limit_bytes,
            object: key.to_string(),
            written_bytes: 0,
            is_unusable: false,
        }))
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

    fn locate(&self, key: &ArtifactKey) -> String {
        self.inner.locate(key)
    }
}

/// What the writer and the pump share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something waits, or nothing more will come.
    for_pump: Notify,
    /// Something was passed on, or never will be.
    for_writer: Notify,
    aborted: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    memory_bytes: usize,
    /// Made when memory is full for the first time.
    file: Option<Arc<File>>,
    /// Where the next bytes go in the file, and how many in it were not passed on.
    file_end: u64,
    file_bytes: u64,
    is_closed: bool,
    is_over: bool,
}

/// A piece that was not passed on.
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

    /// A place in the file; the beginning when nothing in it is waiting.
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

    /// Passes on what waits until there is no more.
    async fn pass_on(&self, inner: &mut dyn ArtifactSink, object: &str) -> Result<(), StoreError> {
        loop {
            // Both at once: what comes between two looks would be taken for the end.
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

/// Tells the writer that nothing is passed on any more, however that came.
struct Over<'s>(&'s Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.for_writer.notify_one();
    }
}

async fn read(
    file: Option<Arc<File>>,
    at: u64,
    len: usize,
    object: &str,
) -> Result<Bytes, StoreError> {
    let work = move || {
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = BytesMut::zeroed(len);
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.freeze())
    };
    let read = tokio::task::spawn_blocking(work).await;
    let read = read.unwrap_or_else(|gone| Err(io::Error::other(gone)));
    read.map_err(|error| broken("read back what waited of", object, error))
}

fn broken(action: &'static str, object: &str, error: io::Error) -> StoreError {
    StoreError::io(action, object, error)
}

struct SpoolSink {
    shared: Arc<Shared>,
    pump: JoinSet<Result<Stored, StoreError>>,
    folder: PathBuf,
    limit_bytes: u64,
    object: String,
    written_bytes: u64,
    /// The local disk has failed once: what comes waits for the store.
    is_unusable: bool,
}

impl SpoolSink {
    /// How the pump ended.
    async fn outcome(&mut self) -> Result<Stored, StoreError> {
        let gone = |error| broken("write", &self.object, error);
        match self.pump.join_next().await {
            Some(outcome) => outcome.map_err(|error| gone(io::Error::other(error)))?,
            None => Err(gone(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Tries to write into the file; gives the bytes back where there is no room.
    async fn spool(&mut self, bytes: Bytes) -> Option<Bytes> {
        let (file, at) = {
            let mut state = self.shared.state();
            let has_room = state.file_bytes + bytes.len() as u64 <= self.limit_bytes
                && (state.file_bytes == 0
                    || state.file_end + bytes.len() as u64 <= self.limit_bytes);
            if self.is_unusable || !has_room {
                return Some(bytes);
            }
            (state.file.clone(), state.place(bytes.len()))
        };
        let (folder, piece) = (self.folder.clone(), bytes.clone());
        let work = move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(folder)?),
            };
            file.write_all_at(&piece, at)?;
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
                tracing::warn!(%error, "the local disk takes nothing that waits for the store");
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
        let mut rest = Some(bytes);
        while let Some(bytes) = rest.take() {
            let fits = {
                let mut state = self.shared.state();
                if state.is_over {
                    None
                // Nothing may overtake what waits in the file.
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
