//! Where backups lie: artifacts, and the manifests that commit them.
//!
//! [`Store`] is the seam. Its verbs are those of the product, not of an object store: create an
//! artifact, commit a manifest, remove an attempt. [`FolderStore`] keeps them in a local folder,
//! [`BucketStore`] in a bucket of an object store.
//!
//! Every key carries the number of the attempt that wrote it, so nothing is ever overwritten.
//! Artifacts come first, the manifest last: what has no manifest is not a backup.
//!
//! ```text
//! <project>/<instance>/<backup>/attempt-0001/shard-0000.rdb.zst
//! <project>/<instance>/<backup>/attempt-0001/data-key-<master key>.json
//! <project>/<instance>/<backup>/attempt-0001/manifest.json
//! .cachevault-store
//! .check-<id>
//! ```
//!
//! `shard-0000.rdb` is one that is not compressed; the data key is there for what is encrypted;
//! `.cachevault-store` tells which store this is; the last is there while a store is checked.
//!
//! This crate knows neither the catalog nor what is inside an artifact.

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

/// Longest document, bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Most objects that one list shows.
pub const LIST_MAX: usize = 1000;

/// A place for artifacts and manifests.
///
/// The first methods are what a place has to offer; the others are made of them.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Begins an artifact of about that many bytes. Nothing is visible under its key until the sink
    /// has finished.
    async fn create(
        &self,
        key: &ArtifactKey,
        expected_bytes: Option<u64>,
    ) -> Result<Box<dyn ArtifactSink>, StoreError>;

    /// Opens a finished artifact for reading from its beginning.
    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError>;

    /// Writes a document, durably: it is there whole or not at all.
    async fn put(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError>;

    /// Reads a document; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreErrorKind::Damaged`] when it is longer than [`DOCUMENT_BYTES_MAX`].
    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError>;

    /// The next objects in `folder`, at any depth, whose names come behind `after`, in the order of
    /// their names: at most [`LIST_MAX`], none at the end.
    async fn list(
        &self,
        folder: &Folder,
        after: Option<&ObjectName>,
    ) -> Result<Vec<StoredObject>, StoreError>;

    /// Removes an object, durably. None there is no error.
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// The attempts in whose folders unfinished writing that was begun before that moment has left
    /// what no list shows.
    async fn unfinished(&self, _begun_before: Timestamp) -> Result<Vec<AttemptKey>, StoreError> {
        Ok(Vec::new())
    }

    /// Removes what unfinished writing has left in `folder` and no list shows, as far as it was begun
    /// before that moment.
    async fn remove_unfinished(
        &self,
        _folder: &Folder,
        _begun_before: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// Seals the key of an attempt with the current master key, where there is one and it is sealed
    /// with an earlier one. Whether it was.
    async fn rewrap(&self, _attempt: &AttemptKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// The bucket that the objects lie in, and the folder within it; `None` where there is no bucket.
    fn bucket(&self) -> Option<BucketPlace> {
        None
    }

    /// Where an object lies, for a person to look.
    fn locate(&self, key: &ArtifactKey) -> String;

    /// Proves that objects can be written, read, listed and removed now. Checks with different
    /// `scratch` do not disturb each other; what one of them left that broke off, a later one
    /// removes.
    async fn check(&self, scratch: &Scratch) -> Result<(), StoreError> {
        probe(self, &scratch.probe()).await
    }

    /// Writes the manifest, durably, and reads it back: from then on the attempt is a backup. Writing
    /// the same manifest again changes nothing.
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

    /// Reads the manifest of an attempt; `None` when there is none.
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

    /// Removes the manifest of an attempt: it is a backup no more. None there is no error.
    async fn retract(&self, key: &AttemptKey) -> Result<(), StoreError> {
        self.remove(&key.manifest()).await
    }

    /// Removes whatever an attempt left, its manifest first. Nothing there is no error.
    async fn remove_attempt(&self, key: &AttemptKey) -> Result<(), StoreError> {
        remove_folder(self, &Folder::of(key)).await
    }

    /// Removes whatever all attempts of a backup left, manifests first. Nothing there is no error.
    async fn remove_backup(&self, key: &BackupKey) -> Result<(), StoreError> {
        remove_folder(self, &Folder::of(key)).await
    }
}

/// A probe that is so much older than another is not in use any more.
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
    // By the clock of the store, which may not be ours. A new name may be missing in its list.
    let Some(now) = listed.iter().find(|object| object.name == *name) else { return Ok(()) };
    let is_left =
        |object: &&StoredObject| now.modified_at.duration_since(object.modified_at) > PROBE_LIFE;
    for object in listed.iter().filter(is_left) {
        store.remove(&object.name).await?;
    }
    Ok(())
}

/// All probes: their names come before those of what belongs to backups. A service that was killed
/// often has left more than one list shows.
async fn list_probes<S: Store + ?Sized>(store: &S) -> Result<Vec<StoredObject>, StoreError> {
    let mut probes = Vec::new();
    let mut after = None;
    loop {
        let listed = store.list(&Folder::all(), after.as_ref()).await?;
        after = listed.last().map(|object| object.name.clone());
        // Whatever lies behind all probes belongs to backups.
        let is_over = after.as_ref().is_none_or(|last| last.is_behind_probes());
        probes.extend(listed.into_iter().filter(|object| object.name.is_probe()));
        if is_over {
            return Ok(probes);
        }
    }
}

/// An attempt that is half removed must not look like a backup, so manifests go first.
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

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name.
    pub name: ObjectName,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// When it was written.
    pub modified_at: Timestamp,
}

/// A finished artifact, as it was read back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// Sums up what a source gives.
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

/// Takes the bytes of one artifact. Dropping it unfinished leaves nothing under the key.
#[async_trait]
pub trait ArtifactSink: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the artifact durable and visible, having proved that what is stored is what was
    /// written. On an error nothing is left under the key; [`StoreErrorKind::Damaged`] says that
    /// something else is stored.
    async fn finish(self: Box<Self>) -> Result<Stored, StoreError>;

    /// Gives up: whatever was written is removed when this returns.
    async fn abort(self: Box<Self>);
}

/// Gives the bytes of one artifact.
#[async_trait]
pub trait ArtifactSource: Send {
    /// The next bytes, at most 1 MiB; `None` at the end.
    async fn read(&mut self) -> Result<Option<Bytes>, StoreError>;

    /// What the store has given so far: all that is stored, once [`ArtifactSource::read`] has come
    /// to its end. It is what the manifest tells size and SHA-256 of, whatever `read` makes of it.
    fn seen(&self) -> Stored;
}
