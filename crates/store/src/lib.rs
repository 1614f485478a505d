//! Where backups lie: artifacts, and the manifests that commit them.
//!
//! [`Store`] is the seam. Its verbs are those of the product, not of an object store: create an
//! artifact, commit a manifest, remove an attempt. [`FolderStore`] keeps them in a local folder.
//!
//! Every key carries the number of the attempt that wrote it, so nothing is ever overwritten.
//! Artifacts come first, the manifest last: what has no manifest is not a backup.
//!
//! ```text
//! <project>/<instance>/<backup>/attempt-0001/shard-0000.rdb.zst
//! <project>/<instance>/<backup>/attempt-0001/manifest.json
//! ```
//!
//! This crate knows neither the catalog nor what is inside an artifact.

#![deny(missing_docs)]

mod error;
mod faulty;
mod folder;
mod key;
mod manifest;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{StoreError, StoreErrorKind};
pub use faulty::{Fault, FaultyStore};
pub use folder::FolderStore;
pub use key::{ArtifactKey, AttemptKey, BackupKey};
pub use manifest::{
    ArtifactEntry, ContentEntry, DatabaseDigest, DigestEntry, Encoding, MANIFEST_VERSION, Manifest,
    ManifestError, RdbEntry, SourceEntry,
};

/// A place for artifacts and manifests.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Proves that objects can be written, read and removed now.
    async fn check(&self) -> Result<(), StoreError>;

    /// Begins an artifact. Nothing is visible under its key until the sink has finished.
    async fn create(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSink>, StoreError>;

    /// Opens a finished artifact for reading from its beginning.
    async fn open(&self, key: &ArtifactKey) -> Result<Box<dyn ArtifactSource>, StoreError>;

    /// Writes the manifest, durably: from then on the attempt is a backup. Writing the same
    /// manifest again changes nothing.
    async fn commit(&self, key: &AttemptKey, manifest: &Manifest) -> Result<(), StoreError>;

    /// Reads the manifest of an attempt; `None` when there is none.
    async fn find_manifest(&self, key: &AttemptKey) -> Result<Option<Manifest>, StoreError>;

    /// Removes the manifest of an attempt: it is a backup no more. None there is no error.
    async fn retract(&self, key: &AttemptKey) -> Result<(), StoreError>;

    /// Removes whatever an attempt left, its manifest first. Nothing there is no error.
    async fn remove_attempt(&self, key: &AttemptKey) -> Result<(), StoreError>;

    /// Removes whatever all attempts of a backup left, manifests first. Nothing there is no error.
    async fn remove_backup(&self, key: &BackupKey) -> Result<(), StoreError>;

    /// Where an object lies, for a person to look.
    fn locate(&self, key: &ArtifactKey) -> String;
}

/// A finished artifact, as it was read back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
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
}
