//! A store in a local folder.
//!
//! An artifact is written under a `.partial` name, flushed to the disk and renamed; then its folder
//! is flushed. After a power failure the artifact is complete or absent. Only the owner may read
//! it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cachevault_domain::ProjectId;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::{
    ArtifactKey, ArtifactSink, ArtifactSource, DOCUMENT_BYTES_MAX, Folder, LIST_MAX, ObjectName,
    Store, StoreError, StoreErrorKind, Stored, StoredObject, Tally, free_bytes,
};

const READ_BYTES: usize = 1 << 20;
const PARTIAL: &str = "partial";
/// Number of bytes after which written data is flushed and read back, in parallel to further
/// writes. Without this the kernel would collect gigabytes, and the end of the artifact would have
/// to wait for all of them.
const FLUSH_BYTES: u64 = 32 << 20;

/// Keeps artifacts and manifests in a local folder.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
    reserve_bytes: u64,
}

impl FolderStore {
    /// Opens the folder and creates it if it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be created.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        make_folder(&root, Path::new(""))
            .map_err(|e| StoreError::io("create the folder", root.display(), e))?;
        Ok(Self::at(root))
    }

    /// Opens the folder for reading, without creating it.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), reserve_bytes: 0 }
    }

    /// Limits artifacts, so that this number of bytes of the disk stays free. Small objects, such
    /// as manifests, are not limited.
    #[must_use]
    pub fn with_reserve(self, reserve_bytes: u64) -> Self {
        Self { reserve_bytes, ..self }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, key: &impl ToString) -> PathBuf {
        self.root.join(key.to_string())
    }

    /// Runs file operations on a blocking thread.
    async fn blocking<T: Send + 'static>(
        action: &'static str,
        object: String,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = tokio::task::spawn_blocking(work).await;
        outcome
            .unwrap_or_else(|gone| Err(io::Error::other(gone)))
            .map_err(|e| StoreError::io(action, object, e))
    }
}

#[async_trait]
impl Store for FolderStore {
    async fn create(
        &self,
        key: &ArtifactKey,
        _expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError> {
        let path = self.path(key);
        let object = key.to_string();
        let (file, read_back) = Self::blocking("create", object.clone(), {
            let (path, root) = (path.clone(), self.root.clone());
            move || {
                make_folder(parent(&path), &root)?;
                if path.try_exists()? {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let file = new_file(&partial(&path))?;
                Ok((file, File::open(partial(&path))?))
            }
        })
        .await?;
        let read_back =
            ReadBack { file: read_back, read_bytes: 0, read: checksum(), sha256: Sha256::new() };
        Ok(Box::new(FileSink {
            file: Some(file),
            path,
            object,
            reserve_bytes: self.reserve_bytes,
            written_bytes: 0,
            written: checksum(),
            proof: Proof::Idle(Box::new(read_back)),
        }))
    }

    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError> {
        let path = self.path(key);
        let object = key.to_string();
        let file = Self::blocking("open", object.clone(), move || open_file(&path)).await?;
        let file = file.ok_or_else(|| StoreError::new(StoreErrorKind::Damaged, "open", &object))?;
        Ok(Box::new(FileSource { file: Some(file), object, seen: Tally::default() }))
    }

    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let (path, root) = (self.path(name), self.root.clone());
        let work = move || {
            make_folder(parent(&path), &root)?;
            write_durably(&path, &bytes)
        };
        Self::blocking("write", name.to_string(), work).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(name);
        let read = Self::blocking("read", name.to_string(), move || {
            let Some(file) = open_file(&path)? else { return Ok(None) };
            let mut bytes = Vec::new();
            file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        });
        match read.await {
            Err(e) if e.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(Some(bytes)) if bytes.len() as u64 <= DOCUMENT_BYTES_MAX => Ok(Some(bytes.into())),
            Ok(_) => Err(StoreError::new(StoreErrorKind::Damaged, "read", name)),
        }
    }

    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        let (root, start) = (self.root.clone(), folder.0.clone());
        let after = after.map_or(String::new(), |name| name.0.clone());
        let object = self.root.join(&folder.0).display().to_string();
        let work = move || {
            let mut listing = Listing { root, after, found: Vec::new() };
            listing.walk(&start)?;
            Ok(listing.found)
        };
        Self::blocking("list", object, work).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.path(name);
        // Only one job uses the folders of a backup; other jobs may create the parent folders at
        // any time.
        let backup = name.kind().map(|kind| self.path(&kind.attempt().backup));
        Self::blocking("remove", name.to_string(), move || {
            ignore_missing(fs::remove_file(&path))?;
            sync_folder_if_there(parent(&path))?;
            let Some(backup) = backup else { return Ok(()) };
            let mut emptied = parent(&path);
            while emptied.starts_with(&backup) && fs::remove_dir(emptied).is_ok() {
                emptied = parent(emptied);
                sync_folder_if_there(emptied)?;
            }
            Ok(())
        })
        .await
    }

    fn locate(&self, key: &ArtifactKey) -> String {
        self.path(key).display().to_string()
    }
}

struct FileSink {
    /// Absent while a blocking thread uses it, and after a failed write.
    file: Option<File>,
    path: PathBuf,
    object: String,
    /// Free bytes that writing must leave on the disk.
    reserve_bytes: u64,
    written_bytes: u64,
    /// The checksum of the written bytes; reading the file back must yield the same value.
    written: crc_fast::Digest,
    proof: Proof,
}

/// The state of reading the file back.
enum Proof {
    Idle(Box<ReadBack>),
    /// Flushes and reads in parallel to writing.
    Running(JoinHandle<io::Result<Box<ReadBack>>>),
    /// Reading failed, and the error was returned.
    Failed,
}

/// Reads a growing file back.
struct ReadBack {
    file: File,
    read_bytes: u64,
    read: crc_fast::Digest,
    sha256: Sha256,
}

impl ReadBack {
    /// Flushes what `writer` has written and reads it back, up to `written_bytes`.
    fn catch_up(mut self: Box<Self>, writer: &File, written_bytes: u64) -> io::Result<Box<Self>> {
        writer.sync_data()?;
        let mut buffer = vec![0; READ_BYTES];
        while self.read_bytes < written_bytes {
            let len = READ_BYTES
                .min(usize::try_from(written_bytes - self.read_bytes).unwrap_or(READ_BYTES));
            self.file.read_exact(&mut buffer[..len])?;
            self.read.update(&buffer[..len]);
            self.sha256.update(&buffer[..len]);
            self.read_bytes += len as u64;
        }
        Ok(self)
    }
}

impl FileSink {
    /// Starts to read the written bytes back, unless this is in progress.
    async fn prove(&mut self) -> Result<(), StoreError> {
        let due = match &self.proof {
            Proof::Idle(read_back) => self.written_bytes - read_back.read_bytes >= FLUSH_BYTES,
            Proof::Running(proof) => proof.is_finished(),
            Proof::Failed => false,
        };
        let (true, Some(file)) = (due, &self.file) else { return Ok(()) };
        let writer = file.try_clone().map_err(|e| StoreError::io("flush", &self.object, e))?;
        let written_bytes = self.written_bytes;
        let read_back = self.proof().await?;
        let work = move || read_back.catch_up(&writer, written_bytes);
        self.proof = Proof::Running(tokio::task::spawn_blocking(work));
        Ok(())
    }

    /// Waits until reading back has ended. Its error must be returned, because the kernel reports
    /// it only once.
    async fn proof(&mut self) -> Result<Box<ReadBack>, StoreError> {
        let proved = match std::mem::replace(&mut self.proof, Proof::Failed) {
            Proof::Idle(read_back) => Ok(read_back),
            Proof::Running(proof) => proof.await.unwrap_or_else(|gone| Err(io::Error::other(gone))),
            Proof::Failed => Err(io::Error::other("an earlier flush failed")),
        };
        proved.map_err(|e| StoreError::io("flush and read back", &self.object, e))
    }

    async fn publish(&mut self) -> Result<Stored, StoreError> {
        let read_back = self.proof().await?;
        let Some(file) = self.file.take() else {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "finish", &self.object));
        };
        let (path, written_bytes, written) =
            (self.path.clone(), self.written_bytes, self.written.finalize());
        let work = move || {
            let read_back = read_back.catch_up(&file, written_bytes)?;
            file.sync_all()?;
            let size_bytes = file.metadata()?.len();
            if read_back.read.finalize() != written || size_bytes != written_bytes {
                return Ok(None);
            }
            fs::rename(partial(&path), &path)?;
            sync_folder(parent(&path))?;
            Ok(Some(Stored { size_bytes, sha256: hex::encode(read_back.sha256.finalize()) }))
        };
        let stored = FolderStore::blocking("finish", self.object.clone(), work).await?;
        stored.ok_or_else(|| StoreError::new(StoreErrorKind::Damaged, "finish", &self.object))
    }

    /// Removes the object and its partial file.
    async fn discard(&mut self) {
        let _ = self.proof().await;
        self.file = None;
        let path = self.path.clone();
        let work = move || {
            ignore_missing(fs::remove_file(partial(&path)))?;
            ignore_missing(fs::remove_file(&path))
        };
        // A remaining file does no harm: it has no manifest, and the undo of the attempt removes
        // it.
        let _ = FolderStore::blocking("abort", self.object.clone(), work).await;
    }
}

#[async_trait]
impl ArtifactSink for FileSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let Some(mut file) = self.file.take() else {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "write", &self.object));
        };
        let len = bytes.len() as u64;
        self.written.update(&bytes);
        let (folder, reserve_bytes) = (parent(&self.path).to_owned(), self.reserve_bytes);
        let work = move || {
            leave_reserve(&folder, reserve_bytes, len)?;
            file.write_all(&bytes).map(|()| file)
        };
        self.file = Some(FolderStore::blocking("write", self.object.clone(), work).await?);
        self.written_bytes += len;
        self.prove().await
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

/// Refuses a write that would leave less than the reserve of the disk.
fn leave_reserve(folder: &Path, reserve_bytes: u64, len: u64) -> io::Result<()> {
    if reserve_bytes > 0 && free_bytes(folder)? < reserve_bytes.saturating_add(len) {
        let reason = "the disk has only its reserve left, which is kept for the catalog";
        return Err(io::Error::new(io::ErrorKind::StorageFull, reason));
    }
    Ok(())
}

struct FileSource {
    file: Option<File>,
    object: String,
    seen: Tally,
}

#[async_trait]
impl ArtifactSource for FileSource {
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(mut file) = self.file.take() else { return Ok(None) };
        let mut seen = std::mem::take(&mut self.seen);
        let work = move || {
            let mut buffer = BytesMut::zeroed(READ_BYTES);
            let len = read_full(&mut file, &mut buffer)?;
            buffer.truncate(len);
            seen.add(&buffer);
            Ok((file, seen, buffer.freeze()))
        };
        let (file, seen, bytes) = FolderStore::blocking("read", self.object.clone(), work).await?;
        self.seen = seen;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(bytes))
    }

    fn seen(&self) -> Stored {
        self.seen.stored()
    }
}

/// A checksum against accidental changes, computed at several GB a second.
fn checksum() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(PARTIAL);
    path.with_file_name(name)
}

/// Creates a folder and its parents below `root`, which must exist. Each new entry is flushed in
/// its parent folder.
fn make_folder(path: &Path, root: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if path == root {
        return Err(io::ErrorKind::NotFound.into());
    }
    make_folder(parent(path), root)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => match parent(path) {
            above if above.as_os_str().is_empty() => sync_folder(Path::new(".")),
            above => sync_folder(above),
        },
    }
}

/// Opens a file; `None` for anything else, such as a pipe, which would wait for a writer.
fn open_file(path: &Path) -> io::Result<Option<File>> {
    if fs::metadata(path)?.is_file() { File::open(path).map(Some) } else { Ok(None) }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = (|| {
        let mut file = new_file(&partial(path))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(partial(path), path)
    })();
    if written.is_err() {
        ignore_missing(fs::remove_file(partial(path)))?;
    }
    written?;
    sync_folder(parent(path))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_folder_if_there(path: &Path) -> io::Result<()> {
    ignore_missing(sync_folder(path))
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lists folders in the order of the full object names.
struct Listing {
    root: PathBuf,
    after: String,
    found: Vec<StoredObject>,
}

impl Listing {
    fn walk(&mut self, folder: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.is_empty() => return Ok(()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            // Files whose names are not UTF-8 do not belong to this service.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_folder = entry.file_type()?.is_dir();
            // Foreign folders, such as `lost+found`, may be unreadable.
            if is_folder && folder.is_empty() && name.parse::<ProjectId>().is_err() {
                continue;
            }
            let slash = if is_folder { "/" } else { "" };
            let above = if folder.is_empty() { "" } else { "/" };
            names.push(format!("{folder}{above}{name}{slash}"));
        }
        names.sort_unstable();
        for name in names {
            if self.found.len() == LIST_MAX {
                return Ok(());
            }
            match name.strip_suffix('/') {
                Some(_) if self.after > name && !self.after.starts_with(&name) => {}
                Some(folder) => self.walk(folder)?,
                None if self.after >= name => {}
                None => self.push(name)?,
            }
        }
        Ok(())
    }

    fn push(&mut self, name: String) -> io::Result<()> {
        let metadata = match fs::metadata(self.root.join(&name)) {
            // Removed after its folder was read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let modified_at = metadata.modified()?.try_into().map_err(io::Error::other)?;
        let (name, size_bytes) = (ObjectName(name), metadata.len());
        self.found.push(StoredObject { name, size_bytes, modified_at });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use std::time::Duration;

    use cachevault_testkit::SeededEntropy;

    use crate::{AttemptKey, BackupKey, Scratch, conformance};

    fn scratch(seed: u64) -> Scratch {
        Scratch::mint(&SeededEntropy::new(seed))
    }

    fn attempt() -> AttemptKey {
        BackupKey {
            project: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            instance: "5560df16-cebf-4473-95c4-d1b573c16e79".parse().unwrap(),
            backup: "4631832a-14c6-45b0-a0b3-3abd8f591ad1".parse().unwrap(),
        }
        .attempt(1)
    }

    fn files(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    async fn stored(store: &FolderStore, bytes: &'static [u8]) -> Stored {
        let mut sink = store.create(&attempt().artifact(0), None).await.unwrap();
        sink.write(Bytes::from_static(bytes)).await.unwrap();
        sink.finish().await.unwrap()
    }

    #[tokio::test]
    async fn an_artifact_reads_back_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let told = stored(&store, b"some bytes").await;
        assert_eq!(told.size_bytes, 10);
        assert_eq!(told.sha256, hex::encode(Sha256::digest(b"some bytes")));
        let mut source = store.open(&attempt().artifact(0)).await.unwrap();
        assert_eq!(source.read().await.unwrap().as_deref(), Some(&b"some bytes"[..]));
        assert_eq!(source.read().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_pipe_instead_of_a_file_is_reported_as_damage() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let (artifact, manifest) = (attempt().artifact(0), attempt().manifest());
        fs::create_dir_all(parent(&store.path(&artifact))).unwrap();
        for path in [store.path(&artifact), store.path(&manifest)] {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        }
        let wait = Duration::from_secs(5);
        let opened = tokio::time::timeout(wait, store.open(&artifact)).await.unwrap();
        assert_eq!(opened.err().unwrap().kind, StoreErrorKind::Damaged);
        let read = tokio::time::timeout(wait, store.get(&manifest)).await.unwrap();
        assert_eq!(read.unwrap_err().kind, StoreErrorKind::Damaged);
    }

    #[tokio::test]
    async fn probes_of_many_killed_checks_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        for seed in 1..=2100 {
            let path = store.path(&scratch(seed).probe());
            fs::write(&path, b"x").unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - Duration::from_secs(2 * 3600)).unwrap();
        }
        store.check(&scratch(0)).await.unwrap();
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[tokio::test]
    async fn only_the_owner_can_read_an_artifact() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path().join("new")).unwrap();
        stored(&store, b"x").await;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.root()), 0o700);
        assert_eq!(mode(&store.path(&attempt().artifact(0))), 0o600);
    }

    #[tokio::test]
    async fn an_artifact_is_invisible_before_its_end_and_removed_by_an_abort() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let key = attempt().artifact(0);
        let mut sink = store.create(&key, None).await.unwrap();
        sink.write(Bytes::from_static(b"half")).await.unwrap();
        assert_eq!(store.open(&key).await.err().unwrap().kind, StoreErrorKind::NotFound);
        sink.abort().await;
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[tokio::test]
    async fn a_failed_finish_leaves_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let key = attempt().artifact(0);
        let mut sink = store.create(&key, None).await.unwrap();
        sink.write(Bytes::from_static(b"bytes")).await.unwrap();
        // A folder has the name of the object: the rename must fail.
        fs::create_dir(store.path(&key)).unwrap();
        assert!(sink.finish().await.is_err());
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[tokio::test]
    async fn bytes_altered_on_the_way_to_the_disk_are_detected() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let key = attempt().artifact(0);
        let mut sink = store.create(&key, None).await.unwrap();
        sink.write(Bytes::from_static(b"what was written")).await.unwrap();
        fs::write(partial(&store.path(&key)), b"what is storedXX").unwrap();
        assert_eq!(sink.finish().await.unwrap_err().kind, StoreErrorKind::Damaged);
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[tokio::test]
    async fn an_artifact_larger_than_a_flush_reads_back_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let mut sink = store.create(&attempt().artifact(0), None).await.unwrap();
        let piece = Bytes::from(vec![7; 3 << 20]);
        for _ in 0..20 {
            sink.write(piece.clone()).await.unwrap();
        }
        let told = sink.finish().await.unwrap();
        assert_eq!(
            (told.size_bytes, told.sha256),
            (60 << 20, hex::encode(Sha256::digest(vec![7; 60 << 20])))
        );
    }

    #[tokio::test]
    async fn the_folder_store_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let report =
            conformance::run(&store, &conformance::Scratch::mint(&SeededEntropy::new(7))).await;
        report.assert_passed();
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[tokio::test]
    async fn a_check_leaves_no_files_and_reports_a_missing_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path().join("s")).unwrap();
        store.check(&scratch(1)).await.unwrap();
        assert_eq!(files(folder.path()), [""; 0]);
        fs::remove_dir(store.root()).unwrap();
        assert_eq!(store.check(&scratch(1)).await.unwrap_err().kind, StoreErrorKind::NotFound);
        assert!(!store.root().exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parallel_checks_succeed() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let mut running = tokio::task::JoinSet::new();
        for seed in 0..32 {
            let store = store.clone();
            running.spawn(async move { store.check(&scratch(seed)).await });
        }
        for checked in running.join_all().await {
            checked.unwrap();
        }
    }

    #[tokio::test]
    async fn a_check_removes_the_probe_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let (left, running) = (scratch(1).probe(), scratch(2).probe());
        for (name, hours) in [(&left, 2), (&running, 0)] {
            store.put(name, Bytes::from_static(b"x")).await.unwrap();
            let file = File::options().write(true).open(store.path(name)).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - Duration::from_secs(hours * 3600)).unwrap();
        }
        store.check(&scratch(3)).await.unwrap();
        assert_eq!(files(folder.path()), [running.as_str()]);
    }
}
