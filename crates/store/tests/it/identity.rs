//! A folder or a bucket without the registered id is never used.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cachevault_domain::{BackupId, InstanceId, ProjectId, StoreId};
use cachevault_store::{
    AttemptKey, BackupKey, Folder, FolderStore, KnownStore, Manifest, SealedStore, Store,
    StoreError, StoreErrorKind, StoreMemory, conformance, find_store_id, write_store_id,
};
use cachevault_testkit::SeededEntropy;

use crate::bucket::scratch;
use crate::envelope::Ring;

/// Registers the first store in use.
#[derive(Debug, Default)]
struct Memory(Mutex<Option<StoreId>>);

#[async_trait]
impl StoreMemory for Memory {
    async fn id_of(&self, store: &dyn Store) -> Result<StoreId, StoreError> {
        let known = *self.0.lock().unwrap();
        if let Some(id) = known {
            return Ok(id);
        }
        let id = StoreId::mint(&SeededEntropy::new(5));
        write_store_id(store, id).await?;
        *self.0.lock().unwrap() = Some(id);
        Ok(id)
    }
}

fn known(root: &Path, memory: &Arc<Memory>) -> KnownStore {
    let folder = Arc::new(FolderStore::at(root));
    KnownStore::new(folder, Arc::clone(memory) as _, Duration::ZERO)
}

fn attempt() -> AttemptKey {
    let entropy = SeededEntropy::new(1);
    let backup = BackupKey {
        project: ProjectId::mint(&entropy),
        instance: InstanceId::mint(&entropy),
        backup: BackupId::mint(&entropy),
    };
    backup.attempt(1)
}

pub(crate) fn manifest() -> Manifest {
    let text = include_str!("../../fixtures/manifest-v1.json");
    Manifest::decode(text.as_bytes()).unwrap()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Every operation of a store, with the kind of its error.
async fn verbs(store: &dyn Store) -> Vec<(&'static str, Option<StoreErrorKind>)> {
    let key = attempt();
    let (artifact, name) = (key.artifact(0), key.manifest());
    let kind = |error: Option<StoreError>| error.map(|error| error.kind);
    vec![
        ("check", kind(store.check(&scratch()).await.err())),
        ("create", kind(store.create(&artifact, None).await.err())),
        ("open", kind(store.open(&artifact).await.err())),
        ("put", kind(store.put(&name, Bytes::from_static(b"x")).await.err())),
        ("get", kind(store.get(&name).await.err())),
        ("list", kind(store.list(&Folder::all(), None).await.err())),
        ("remove", kind(store.remove(&name).await.err())),
        ("unfinished", kind(store.unfinished(jiff::Timestamp::MAX).await.err())),
        ("commit", kind(store.commit(&key, &manifest()).await.err())),
        ("find", kind(store.find_manifest(&key).await.err())),
        ("retract", kind(store.retract(&key).await.err())),
        ("remove attempt", kind(store.remove_attempt(&key).await.err())),
        ("remove backup", kind(store.remove_backup(&key.backup).await.err())),
    ]
}

#[tokio::test]
async fn a_registered_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = known(folder.path(), &Arc::default());
    conformance::run(&store, &scratch()).await.assert_passed();
    let sealed = SealedStore::new(Arc::new(store), Arc::new(Ring(&["first"])), true);
    conformance::run(&sealed, &scratch()).await.assert_passed();
    // The folders of projects remain.
    let entries = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.path().is_file());
    let left: Vec<_> = files.map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".cachevault-store"]);
}

/// An empty mount point, a missing folder, another store: for a running service, and for a starting
/// one.
#[tokio::test]
async fn a_foreign_store_is_never_used() {
    let above = tempfile::tempdir().unwrap();
    let (root, away, other) =
        (above.path().join("vault"), above.path().join("away"), above.path().join("other"));
    fs::create_dir(&root).unwrap();
    let memory = Arc::new(Memory::default());
    let running = known(&root, &memory);
    running.commit(&attempt(), &manifest()).await.unwrap();
    let mut sink = running.create(&attempt().artifact(1), None).await.unwrap();
    sink.write(Bytes::from_static(b"half")).await.unwrap();

    fs::create_dir(&other).unwrap();
    let other_id = StoreId::mint(&SeededEntropy::new(6));
    write_store_id(&FolderStore::at(&other), other_id).await.unwrap();
    fs::rename(&root, &away).unwrap();
    let assert_refused = async || {
        for store in [running.clone(), known(&root, &memory)] {
            for (verb, kind) in verbs(&store).await {
                assert_eq!(kind, Some(StoreErrorKind::Foreign), "{verb}");
            }
        }
    };
    assert_refused().await;
    assert!(!root.exists(), "a missing folder is not created");
    fs::create_dir(&root).unwrap();
    assert_refused().await;
    assert!(is_empty(&root), "an empty mount point stays empty");
    assert_eq!(sink.finish().await.unwrap_err().kind, StoreErrorKind::Foreign);
    assert!(is_empty(&root));
    fs::remove_dir(&root).unwrap();
    fs::rename(&other, &root).unwrap();
    assert_refused().await;
    let found = find_store_id(&FolderStore::at(&root)).await.unwrap();
    assert_eq!(found, Some(other_id));

    fs::rename(&root, &other).unwrap();
    fs::rename(&away, &root).unwrap();
    assert!(
        running.find_manifest(&attempt()).await.unwrap().is_some(),
        "the store is mounted \
        again"
    );
}

#[tokio::test]
async fn an_unreadable_id_is_reported_as_damage_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".cachevault-store");
    fs::write(&path, "{}").unwrap();
    let error = find_store_id(&FolderStore::at(folder.path())).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged);
}
