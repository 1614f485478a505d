//! What the capture tests share: a store, a key, and limits short enough for a test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cachevault_domain::{Identity, RdbDialect, Target};
use cachevault_engine::{
    CaptureError, CaptureLimits, CaptureRequest, Meter, SourceGate, SourceLimits, capture,
};
use cachevault_store::{ArtifactEntry, ArtifactKey, BackupKey, FolderStore, Store};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) struct Rig {
    pub(crate) store: FolderStore,
    pub(crate) key: ArtifactKey,
    pub(crate) meter: Arc<Meter>,
    pub(crate) cancel: CancellationToken,
    pub(crate) dialect: RdbDialect,
    pub(crate) gate: SourceGate,
    pub(crate) limits: CaptureLimits,
    /// What we present to targets that replicate by TLS.
    pub(crate) identity: Option<Identity>,
    pub(crate) folder: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backup = BackupKey {
            project: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            instance: "5560df16-cebf-4473-95c4-d1b573c16e79".parse().unwrap(),
            backup: "4631832a-14c6-45b0-a0b3-3abd8f591ad1".parse().unwrap(),
        };
        Self {
            store: FolderStore::open(folder.path()).unwrap(),
            key: backup.attempt(1).artifact(0),
            meter: Arc::default(),
            cancel: CancellationToken::new(),
            dialect: RdbDialect::Native,
            gate: SourceGate::default(),
            limits: CaptureLimits {
                command: Duration::from_secs(5),
                stall: Duration::from_secs(20),
                busy_wait: Duration::from_secs(20),
                total: Duration::from_secs(60),
                source: Some(SourceLimits::default()),
            },
            identity: None,
            folder,
        }
    }

    pub(crate) async fn capture(&self, target: &Target) -> Result<ArtifactEntry, CaptureError> {
        self.capture_into(&self.store, target).await
    }

    pub(crate) async fn capture_into(
        &self,
        store: &dyn Store,
        target: &Target,
    ) -> Result<ArtifactEntry, CaptureError> {
        let request = CaptureRequest {
            target,
            prefer_replica: true,
            dialect: self.dialect,
            as_of: "2026-11-21T00:00:00Z".parse().unwrap(),
            zstd_level: Some(1),
            earlier_bytes: None,
            gate: &self.gate,
            limits: self.limits,
        };
        capture(request, store, &self.key, &self.meter, &self.cancel).await
    }

    /// The artifact's path.
    pub(crate) fn file(&self) -> PathBuf {
        self.store.locate(&self.key).into()
    }

    /// Names of all files in the store.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        found
    }
}

/// The RDB inside an artifact, decoded as any operator would: by the `zstd` format alone.
pub(crate) fn decoded(file: &Path) -> Vec<u8> {
    zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap()
}
