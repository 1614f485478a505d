//! Stored backups for the offline commands, read directly from the store. Nothing is created,
//! locked or changed.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use cachevault_app::Sealer;
use cachevault_domain::{BackupId, with_sources};
use cachevault_store::{
    ArtifactEntry, ArtifactKey, ArtifactSource, AttemptKey, Folder, Manifest, ObjectKind,
    SealedStore, Store, StoreError, StoreErrorKind, StoreUrl, StoredObject,
};
use clap::Args;
use tokio::runtime::{Builder, Runtime};

use super::rdb_name::escaped;
use super::rdb_source::Trouble;
use crate::config::default_data_dir;
use crate::entropy::OsEntropy;
use crate::{data_dir, stores};

/// The store for `backup:ID`.
#[derive(Debug, Args)]
pub(crate) struct StoreOptions {
    /// Data folder with backups and master keys
    ///
    /// [default: ~/.cachevault]
    #[arg(long, value_name = "DIR", env = "CACHEVAULT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Store URL: file:///folder, s3://bucket/folder or obs://…
    ///
    /// Query parameters of a bucket: `endpoint=URL&region=NAME`
    #[arg(long, value_name = "URL", env = "CACHEVAULT_STORE")]
    store: Option<StoreUrl>,

    /// File with the bucket's access key, in AWS format
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_STORE_CREDENTIALS_FILE")]
    store_credentials_file: Option<PathBuf>,
}

/// A backup with one artifact.
#[derive(Debug)]
pub(crate) struct StoredBackup {
    place: StorePlace,
    key: ArtifactKey,
    entry: ArtifactEntry,
}

/// A store with the state for reading it.
#[derive(Debug)]
struct StorePlace {
    runtime: Runtime,
    store: Arc<dyn Store>,
    shown: String,
    master_key_file: PathBuf,
    has_master_keys: bool,
}

impl StoredBackup {
    pub(crate) fn find(id: &str, options: &StoreOptions) -> Result<Self, Trouble> {
        let id: BackupId = id.parse().map_err(|e| Trouble::Unreadable(format!("{e}")))?;
        let place = StorePlace::open(options).map_err(|e| Trouble::Unreadable(format!("{e:#}")))?;
        let objects = place.objects_of(id)?;
        let Some((attempt, manifest)) = place.newest_manifest(id, &objects)? else {
            return Err(Trouble::Unreadable(if objects.is_empty() {
                let shown = &place.shown;
                format!(
                    "backup {id} does not exist in `{shown}`; choose the store with --data-dir or --store"
                )
            } else {
                format!("backup {id} has no manifest: it is unfinished or failed")
            }));
        };
        let count = manifest.artifacts.len();
        let Ok([entry]) = <[_; 1]>::try_from(manifest.artifacts) else {
            return Err(Trouble::Unreadable(format!(
                "backup {id} has {count} artifacts, and only backups of one can be read here; \
                 download them by `cachevault backup link {id}`"
            )));
        };
        let beside = objects.iter().find_map(|object| match object.name.kind() {
            Some(ObjectKind::Artifact(key)) => {
                let is_it = key.attempt == attempt && key.file_name() == entry.file_name;
                is_it.then_some((key, object.size_bytes))
            }
            _ => None,
        });
        let Some((key, size_bytes)) = beside else {
            return Err(Trouble::Damaged(format!(
                "backup {id} is damaged: its manifest names `{}`, which does not exist",
                escaped(entry.file_name.as_bytes())
            )));
        };
        if size_bytes != entry.stored_bytes {
            return Err(Trouble::Damaged(format!(
                "`{}` is damaged: its size is {size_bytes} bytes, expected {} by the manifest",
                place.store.locate(&key),
                entry.stored_bytes
            )));
        }
        Ok(Self { place, key, entry })
    }

    /// Opens the artifact. The reader fails at the end unless the whole artifact was read and
    /// matches the manifest.
    pub(crate) fn open(&self) -> Result<StoredReader<'_>, Trouble> {
        let opened = self.place.runtime.block_on(self.place.store.open(&self.key));
        let source = opened.map_err(|error| self.place.trouble(error))?;
        Ok(StoredReader { backup: self, source, piece: Bytes::new() })
    }

    /// Compares the read artifact with the manifest.
    fn compare(&self, source: &dyn ArtifactSource) -> Result<(), StoreError> {
        let (seen, entry) = (source.seen(), &self.entry);
        let difference = if seen.size_bytes != entry.stored_bytes {
            let (size_bytes, stored_bytes) = (seen.size_bytes, entry.stored_bytes);
            format!("the size is {size_bytes} bytes, expected {stored_bytes} by the manifest")
        } else if seen.sha256 != entry.stored_sha256 {
            let (sha256, stored_sha256) = (seen.sha256, &entry.stored_sha256);
            format!("the SHA-256 is {sha256}, expected {stored_sha256} by the manifest")
        } else {
            return Ok(());
        };
        Err(StoreError {
            kind: StoreErrorKind::Damaged,
            action: "read",
            object: self.place.store.locate(&self.key),
            source: Some(difference.into()),
        })
    }
}

impl StorePlace {
    fn open(options: &StoreOptions) -> anyhow::Result<Self> {
        let data_dir = match &options.data_dir {
            Some(path) => path.clone(),
            None => default_data_dir()?,
        };
        let folder = data_dir::backups_in(&data_dir);
        let credentials = options.store_credentials_file.clone();
        let store = stores::open_to_read(options.store.as_ref(), credentials, &folder)?;
        let keys = data_dir::read_master_keys(&data_dir)?;
        let has_master_keys = keys.is_some();
        let store = match keys.as_deref().and_then(<[_]>::split_first) {
            Some((current, earlier)) => {
                let sealer = Sealer::with_earlier(current, earlier, Arc::new(OsEntropy));
                Arc::new(SealedStore::new(store, Arc::new(sealer), true))
            }
            None => store,
        };
        let shown = options.store.as_ref().map(ToString::to_string);
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            store,
            shown: shown.unwrap_or_else(|| folder.display().to_string()),
            master_key_file: data_dir::master_key_file(&data_dir),
            has_master_keys,
        })
    }

    /// All stored objects of a backup. Its project and instance are unknown, so the whole store is
    /// listed.
    fn objects_of(&self, id: BackupId) -> Result<Vec<StoredObject>, Trouble> {
        let (everywhere, mut objects, mut after) = (Folder::all(), Vec::new(), None);
        loop {
            let listing = self.store.list(&everywhere, after.as_ref());
            let listed = self.runtime.block_on(listing).map_err(|error| self.trouble(error))?;
            let Some(last) = listed.last() else { return Ok(objects) };
            after = Some(last.name.clone());
            objects.extend(listed.into_iter().filter(|object| {
                object.name.kind().is_some_and(|kind| kind.attempt().backup.backup == id)
            }));
        }
    }

    /// The manifest of the latest attempt that has one.
    fn newest_manifest(
        &self,
        id: BackupId,
        objects: &[StoredObject],
    ) -> Result<Option<(AttemptKey, Manifest)>, Trouble> {
        let manifests = objects.iter().filter_map(|object| match object.name.kind() {
            Some(ObjectKind::Manifest(attempt)) => Some((attempt, &object.name)),
            _ => None,
        });
        let newest = manifests.max_by_key(|(attempt, _)| attempt.attempt);
        let Some((attempt, name)) = newest else { return Ok(None) };
        self.check_openable(id, &attempt, objects)?;
        let read = self.runtime.block_on(self.store.get(name));
        // The manifest was removed after the listing.
        let Some(bytes) = read.map_err(|error| self.trouble(error))? else { return Ok(None) };
        let manifest = Manifest::decode(&bytes)
            .map_err(|error| Trouble::Unreadable(format!("cannot use `{name}`: {error}")))?;
        Ok(Some((attempt, manifest)))
    }

    /// Refuses an encrypted backup without a master key. Its bytes would look like damage.
    fn check_openable(
        &self,
        id: BackupId,
        attempt: &AttemptKey,
        objects: &[StoredObject],
    ) -> Result<(), Trouble> {
        let sealed_with = objects.iter().find_map(|object| match object.name.kind() {
            Some(ObjectKind::DataKey(of, master_key)) if of == *attempt => Some(master_key),
            _ => None,
        });
        match sealed_with {
            Some(master_key) if !self.has_master_keys => Err(Trouble::Unreadable(format!(
                "backup {id} is encrypted under the master key {master_key}, and there is no `{}`; \
                 put it back, or say where it is with --data-dir",
                self.master_key_file.display()
            ))),
            _ => Ok(()),
        }
    }

    fn trouble(&self, error: StoreError) -> Trouble {
        let kind = error.kind;
        let words = with_sources(&error);
        match kind {
            StoreErrorKind::Damaged => Trouble::Damaged(format!("cannot {words}")),
            StoreErrorKind::NoKey => Trouble::Unreadable(format!(
                "cannot {words}; the master keys come from `{}`",
                self.master_key_file.display()
            )),
            _ => Trouble::Unreadable(format!("cannot {words}")),
        }
    }
}

/// Reads a stored artifact like a file. Its errors contain a [`StoreError`].
pub(crate) struct StoredReader<'a> {
    backup: &'a StoredBackup,
    source: Box<dyn ArtifactSource>,
    piece: Bytes,
}

impl Read for StoredReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let next = self.backup.place.runtime.block_on(self.source.read());
            match next.map_err(io::Error::other)? {
                Some(piece) => self.piece = piece,
                None => {
                    let compared = self.backup.compare(&*self.source);
                    return compared.map(|()| 0).map_err(io::Error::other);
                }
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}
