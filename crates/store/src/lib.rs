//! Stores of backups: artifacts, and the manifests that commit them.
//!
//! [`Store`] is the interface. Its operations are those of the product, not of an object store:
//! create an artifact, commit a manifest, remove an attempt. [`FolderStore`] is a local folder,
//! [`BucketStore`] a bucket of an object store.
//!
//! Every path contains the number of the attempt that wrote it, so nothing is ever overwritten.
//! Artifacts come first, the manifest last: an attempt without a manifest is not a backup.
//!
//! ```text
//! <project>/<instance>/<backup>/attempt-0001/shard-0000.rdb.zst
//! <project>/<instance>/<backup>/attempt-0001/data-key-<master key>.json
//! <project>/<instance>/<backup>/attempt-0001/manifest.json
//! .cachevault-store
//! .check-<id>
//! ```
//!
//! `shard-0000.rdb` is an uncompressed artifact; the data key exists for encrypted attempts;
//! `.cachevault-store` contains the id of the store; the last object exists during a check of the
//! store.
//!
//! This crate depends neither on the catalog nor on the content of an artifact.

#![deny(missing_docs)]

mod bucket;
pub mod conformance;
mod counted;
mod disk;
mod envelope;
mod error;
mod faulty;
mod folder;
mod identity;
mod key;
mod manifest;
mod spool;

use std::fmt;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

pub use bucket::{BucketSettings, BucketStore, BucketUrl, InvalidStoreUrl, StoreUrl};
pub use conformance::Scratch;
pub use counted::{CountedStore, StoreFigures};
pub use disk::{disk_bytes, free_bytes, is_same_disk};
pub use envelope::{KeyError, KeyRing, SealedStore};
pub use error::{StoreError, StoreErrorKind};
pub use faulty::{Fault, FaultyStore};
pub use folder::FolderStore;
pub use identity::{KnownStore, StoreMemory, find_store_id, write_store_id};
pub use key::{ArtifactKey, AttemptKey, BackupKey, Folder, ObjectKind, ObjectName};
pub use manifest::{
    ArtifactEntry, ContentEntry, DatabaseDigest, DigestEntry, Encoding, MANIFEST_VERSION, Manifest,
    ManifestError, RdbEntry, SourceEntry,
};

pub use spool::SpoolStore;

/// Maximum size of a document, bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of objects in one list.
pub const LIST_MAX: usize = 1000;

/// A store of artifacts and manifests.
///
/// Implementations provide the first methods; the others are built from them.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Creates an artifact of about `expected_bytes`. The artifact is invisible until its sink has
    /// finished.
    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError>;

    /// Opens a finished artifact for reading from its beginning.
    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError>;

    /// Writes a document durably: afterwards it is complete or absent.
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError>;

    /// Reads a document; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreErrorKind::Damaged`] when it is longer than [`DOCUMENT_BYTES_MAX`].
    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError>;

    /// Lists the next objects of `folder`, at any depth, with names behind `after`, sorted by name:
    /// at most [`LIST_MAX`] objects, none at the end.
    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError>;

    /// Removes an object durably. A missing object is no error.
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Finds the attempts with remains of unfinished writing that began before `begun_before`;
    /// lists do not show such remains.
    async fn unfinished(&self, _begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        Ok(Vec::new())
    }

    /// Removes the remains of unfinished writing in `folder` that began before `begun_before`.
    async fn remove_unfinished(
        &self,
        _folder: &Folder,
        _begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// Seals the data key of an attempt with the current master key, if an earlier master key has
    /// sealed it. Returns whether it did.
    async fn rewrap(&self, _attempt: &AttemptKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// The bucket of the objects, and the folder in it; `None` for other stores.
    fn bucket(&self) -> Option<BucketPlace> {
        None
    }

    /// The location of an object, for messages.
    fn locate(&self, key: &ArtifactKey) -> String;

    /// Proves that objects can be written, read, listed and removed. Checks with different
    /// `scratch` may run in parallel; a later check removes the remains of an interrupted one.
    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        probe(self, &scratch.probe()).await
    }

    /// Writes the manifest durably and reads it back; with the manifest the attempt becomes a
    /// backup. Writing the same manifest again has no effect.
    async fn commit(&self, key: &AttemptKey, manifest: &Manifest) -> Result<(), StoreError> {
        let name = key.manifest();
        if let Some(existing) = self.find_manifest(key).await? {
            return if existing == *manifest {
                Ok(())
            } else {
                Err(StoreError::new(StoreErrorKind::Conflict, "write", name))
            };
        }
        let encoded = manifest.encode();
        let bytes = encoded.map_err(|e| StoreError::io("encode", &name, io::Error::other(e)))?;
        self.put(&name, bytes.into()).await?;
        let stored = self.find_manifest(key).await;
        match stored {
            Ok(Some(stored)) if stored == *manifest => return Ok(()),
            Err(error) if error.kind != StoreErrorKind::Damaged => return Err(error),
            _ => {}
        }
        self.retract(key).await?;
        Err(StoreError::new(StoreErrorKind::Damaged, "read back", name))
    }

    /// Reads the manifest of an attempt; `None` if it does not exist.
    async fn find_manifest(&self, key: &AttemptKey) -> Result<Option<Manifest>, StoreError> {
        let name = key.manifest();
        let Some(bytes) = self.get(&name).await? else { return Ok(None) };
        Manifest::decode(&bytes).map(Some).map_err(|error| StoreError {
            kind: StoreErrorKind::Damaged,
            action: "read",
            object: name.to_string(),
            source: Some(error.into()),
        })
    }

    /// Removes the manifest of an attempt, which ends the backup. A missing manifest is no error.
    async fn retract(&self, key: &AttemptKey) -> Result<(), StoreError> {
        self.remove(&key.manifest()).await
    }

    /// Removes all objects of an attempt, its manifest first. Missing objects are no error.
    async fn remove_attempt(&self, key: &AttemptKey) -> Result<(), StoreError> {
        remove_folder(self, &Folder::of(key)).await
    }

    /// Removes all objects of a backup's attempts, manifests first. Missing objects are no error.
    async fn remove_backup(&self, key: &BackupKey) -> Result<(), StoreError> {
        remove_folder(self, &Folder::of(key)).await
    }
}

/// A probe is stale if it is older than another one by this time.
const PROBE_LIFE: SignedDuration = SignedDuration::from_hours(1);

async fn probe<S: Store + ?Sized>(store: &S, name: &ObjectName) -> Result<(), StoreError> {
    let written = Bytes::from_static(b"cachevault");
    store.put(name, written.clone()).await?;
    let read = store.get(name).await;
    let listed = list_probes(store).await;
    store.remove(name).await?;
    let (read, listed) = (read?, listed?);
    if read != Some(written) {
        return Err(StoreError::new(StoreErrorKind::Damaged, "read back", name));
    }
    // Compares times of the store's clock, which may differ from the service's. A new name may be
    // missing in its list.
    let Some(now) = listed.iter().find(|object| object.name == *name) else { return Ok(()) };
    let is_left =
        |object: &&StoredObject| now.modified_at.duration_since(object.modified_at) > PROBE_LIFE;
    for object in listed.iter().filter(is_left) {
        store.remove(&object.name).await?;
    }
    Ok(())
}

/// Lists all probes, whose names precede those of backups. A service that was killed often may
/// leave more than one list contains.
async fn list_probes<S: Store + ?Sized>(store: &S) -> Result<Vec<StoredObject>, StoreError> {
    let mut probes = Vec::new();
    let mut after = None;
    loop {
        let listed = store.list(&Folder::all(), after.as_ref()).await?;
        after = listed.last().map(|object| object.name.clone());
        // All objects behind the probes belong to backups.
        let is_over = after.as_ref().is_none_or(|last| last.is_behind_probes());
        probes.extend(listed.into_iter().filter(|object| object.name.is_probe()));
        if is_over {
            return Ok(probes);
        }
    }
}

/// Removes manifests first, because a partly removed attempt must not look like a backup.
async fn remove_folder<S: Store + ?Sized>(store: &S, folder: &Folder) -> Result<(), StoreError> {
    for manifests in [true, false] {
        let mut after = None;
        loop {
            let found = store.list(folder, after.as_ref()).await?;
            let Some(last) = found.last() else { break };
            after = Some(last.name.clone());
            for object in found {
                if !manifests || object.name.is_manifest() {
                    store.remove(&object.name).await?;
                }
            }
        }
    }
    store.remove_unfinished(folder, None).await
}

/// A folder in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPlace {
    /// The bucket.
    pub bucket: String,
    /// The folder, without a `/` at either end; empty for the whole bucket.
    pub folder: String,
}

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name.
    pub name: ObjectName,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// The time of its last modification.
    pub modified_at: Timestamp,
}

/// Size and checksum of a finished artifact, as read back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// Computes size and checksum of a sequence of pieces.
#[derive(Clone, Default)]
struct Tally {
    size_bytes: u64,
    sha256: Sha256,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    fn stored(&self) -> Stored {
        let sha256 = hex::encode(self.sha256.clone().finalize());
        Stored { size_bytes: self.size_bytes, sha256 }
    }
}

/// Receives the bytes of one artifact. Dropping an unfinished sink leaves no visible object.
#[async_trait]
pub trait ArtifactSink: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the artifact durable and visible, after proving that the stored bytes equal the
    /// written ones. An error leaves no visible object; [`StoreErrorKind::Damaged`] means that the
    /// stored bytes differ.
    async fn finish(self: Box<Self>) -> Result<Stored, StoreError>;

    /// Cancels the artifact and removes everything that was written.
    async fn abort(self: Box<Self>);
}

/// Reads the bytes of one artifact.
#[async_trait]
pub trait ArtifactSource: Send {
    /// The next bytes, at most 1 MiB; `None` at the end.
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError>;

    /// Size and checksum of the stored bytes read so far, and of the complete object after the end.
    /// These are the size and SHA-256 of the manifest, which may differ from those of the bytes
    /// that `read` returns.
    fn seen(&self) -> Stored;
}
