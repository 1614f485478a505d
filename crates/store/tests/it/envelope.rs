use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cachevault_domain::{BackupId, InstanceId, ProjectId};
use cachevault_store::conformance::{self, Scratch};
use cachevault_store::{
    AttemptKey, BackupKey, BucketStore, Folder, FolderStore, KeyError, KeyRing, SealedStore, Store,
    StoreError, StoreErrorKind,
};
use cachevault_testkit::SeededEntropy;
use secrecy::{ExposeSecret, SecretString};

/// Seals secrets by exclusive or with its id, which distinguishes the keys.
#[derive(Debug)]
pub(crate) struct Ring(pub(crate) &'static [&'static str]);

fn mix(id: &str, owner: &str, bytes: &[u8]) -> Vec<u8> {
    let key: Vec<u8> = id.bytes().chain(owner.bytes()).collect();
    bytes.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

impl KeyRing for Ring {
    fn current(&self) -> &str {
        self.0[0]
    }

    fn seal(&self, owner: &str, secret: &SecretString) -> Vec<u8> {
        mix(self.0[0], owner, secret.expose_secret().as_bytes())
    }

    fn open(&self, id: &str, owner: &str, sealed: &[u8]) -> Result<SecretString, KeyError> {
        if !self.0.contains(&id) {
            return Err(KeyError::UnknownMasterKey { id: id.to_owned() });
        }
        let opened = String::from_utf8(mix(id, owner, sealed)).map_err(|_| KeyError::Altered)?;
        if opened.starts_with("AGE-SECRET-KEY-") {
            Ok(opened.into())
        } else {
            Err(KeyError::Altered)
        }
    }
}

fn sealed(inner: &Arc<dyn Store>, ids: &'static [&'static str]) -> SealedStore {
    SealedStore::new(Arc::clone(inner), Arc::new(Ring(ids)), true)
}

fn attempt(number: u32) -> AttemptKey {
    let entropy = SeededEntropy::new(1);
    let backup = BackupKey {
        project: ProjectId::mint(&entropy),
        instance: InstanceId::mint(&entropy),
        backup: BackupId::mint(&entropy),
    };
    backup.attempt(number)
}

const TEXT: &[u8] = b"the confidential content";

async fn write(store: &dyn Store, attempt: &AttemptKey, shard: u16, bytes: &[u8]) {
    let mut sink = store.create(&attempt.artifact(shard), None).await.unwrap();
    sink.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    sink.finish().await.unwrap();
}

async fn read(store: &dyn Store, attempt: &AttemptKey, shard: u16) -> Result<Vec<u8>, StoreError> {
    let mut source = store.open(&attempt.artifact(shard)).await?;
    let mut read = Vec::new();
    while let Some(piece) = source.read().await? {
        read.extend_from_slice(&piece);
    }
    Ok(read)
}

fn cause(error: &StoreError) -> &KeyError {
    error.source.as_ref().unwrap().downcast_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_with_encryption_conform() {
    let folder = tempfile::tempdir().unwrap();
    let inners: [Arc<dyn Store>; 2] =
        [Arc::new(BucketStore::in_memory()), Arc::new(FolderStore::open(folder.path()).unwrap())];
    for inner in inners {
        let scratch = Scratch::mint(&SeededEntropy::new(5));
        conformance::run(&sealed(&inner, &["a"]), &scratch).await.assert_passed();
        assert_eq!(inner.list(&Folder::all(), None).await.unwrap(), []);
    }
}

/// All bytes of all files.
fn everything(root: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().map(Result::unwrap) {
        let path = entry.path();
        all.extend(if path.is_dir() { everything(&path) } else { std::fs::read(path).unwrap() });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_objects_are_encrypted_and_readable_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let store = sealed(&inner, &["a"]);
    write(&store, &attempt(1), 0, TEXT).await;
    // A second artifact of the same attempt has the same data key.
    write(&store, &attempt(1), 1, b"more").await;
    assert_eq!(read(&store, &attempt(1), 0).await.unwrap(), TEXT);
    assert_eq!(read(&store, &attempt(1), 1).await.unwrap(), b"more");
    let all = everything(folder.path());
    for secret in [TEXT, b"AGE-SECRET-KEY"] {
        assert!(!all.windows(secret.len()).any(|window| window == secret));
    }
    let stored = read(&*inner, &attempt(1), 0).await.unwrap();
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
}

#[tokio::test]
async fn unencrypted_objects_stay_readable() {
    let inner: Arc<dyn Store> = Arc::new(BucketStore::in_memory());
    write(&*inner, &attempt(1), 0, TEXT).await;
    assert_eq!(read(&sealed(&inner, &["a"]), &attempt(1), 0).await.unwrap(), TEXT);
    let plain = SealedStore::new(Arc::clone(&inner), Arc::new(Ring(&["a"])), false);
    write(&plain, &attempt(2), 0, TEXT).await;
    assert_eq!(read(&*inner, &attempt(2), 0).await.unwrap(), TEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_key_changes_no_artifact() {
    let inner: Arc<dyn Store> = Arc::new(BucketStore::in_memory());
    write(&sealed(&inner, &["old"]), &attempt(1), 0, TEXT).await;
    let before = read(&*inner, &attempt(1), 0).await.unwrap();
    let both = sealed(&inner, &["new", "old"]);
    assert_eq!(read(&both, &attempt(1), 0).await.unwrap(), TEXT);
    assert!(both.rewrap(&attempt(1)).await.unwrap());
    assert!(!both.rewrap(&attempt(1)).await.unwrap());
    assert_eq!(read(&*inner, &attempt(1), 0).await.unwrap(), before);
    assert_eq!(read(&sealed(&inner, &["new"]), &attempt(1), 0).await.unwrap(), TEXT);
    let error = read(&sealed(&inner, &["old"]), &attempt(1), 0).await.unwrap_err();
    assert_eq!(*cause(&error), KeyError::UnknownMasterKey { id: "new".to_owned() });
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_wrong_and_altered_data_keys_have_different_errors() {
    let inner: Arc<dyn Store> = Arc::new(BucketStore::in_memory());
    let store = sealed(&inner, &["a"]);
    write(&store, &attempt(1), 0, TEXT).await;
    let error = read(&sealed(&inner, &["b"]), &attempt(1), 0).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NoKey);
    assert_eq!(*cause(&error), KeyError::UnknownMasterKey { id: "a".to_owned() });
    let objects = inner.list(&Folder::all(), None).await.unwrap();
    let name = &objects.iter().find(|o| o.name.as_str().contains("data-key")).unwrap().name;
    let document = inner.get(name).await.unwrap().unwrap();
    let altered = String::from_utf8(document.to_vec())
        .unwrap()
        .replace("\"sealed\": \"", "\"sealed\": \"AAAA");
    inner.put(name, altered.into()).await.unwrap();
    assert_eq!(*cause(&read(&store, &attempt(1), 0).await.unwrap_err()), KeyError::Altered);
    inner.put(name, Bytes::from_static(b"{}")).await.unwrap();
    let error = read(&store, &attempt(1), 0).await.unwrap_err();
    assert!(matches!(cause(&error), KeyError::Unreadable(_)), "{error:?}");
    inner.remove(name).await.unwrap();
    assert_eq!(*cause(&read(&store, &attempt(1), 0).await.unwrap_err()), KeyError::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_and_a_truncation_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let store = sealed(&inner, &["a"]);
    write(&store, &attempt(1), 0, &TEXT.repeat(10_000)).await;
    let file = folder.path().join(attempt(1).artifact(0).to_string());
    let good = std::fs::read(&file).unwrap();
    for at in [30, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, bad).unwrap();
        let error = read(&store, &attempt(1), 0).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Damaged, "{at}: {error:?}");
    }
    for len in [100, good.len() / 2, good.len() - 1] {
        std::fs::write(&file, &good[..len]).unwrap();
        let error = read(&store, &attempt(1), 0).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Damaged, "{len}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_reencryption_is_completed_by_the_next_one() {
    let inner: Arc<dyn Store> = Arc::new(BucketStore::in_memory());
    write(&sealed(&inner, &["old"]), &attempt(1), 0, TEXT).await;
    let objects = inner.list(&Folder::all(), None).await.unwrap();
    let old = &objects.iter().find(|o| o.name.as_str().contains("data-key")).unwrap().name;
    let document = inner.get(old).await.unwrap().unwrap();
    let both = sealed(&inner, &["new", "old"]);
    assert!(both.rewrap(&attempt(1)).await.unwrap());
    // The state between writing the new document and removing the old one.
    inner.put(old, document).await.unwrap();
    assert!(both.rewrap(&attempt(1)).await.unwrap());
    assert_eq!(inner.get(old).await.unwrap(), None);
    assert_eq!(read(&sealed(&inner, &["new"]), &attempt(1), 0).await.unwrap(), TEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_of_an_encrypted_artifact_is_always_encrypted() {
    let inner: Arc<dyn Store> = Arc::new(BucketStore::in_memory());
    write(&sealed(&inner, &["a"]), &attempt(1), 0, TEXT).await;
    let plain = SealedStore::new(Arc::clone(&inner), Arc::new(Ring(&["a"])), false);
    let name = attempt(1).manifest();
    plain.put(&name, Bytes::from_static(TEXT)).await.unwrap();
    assert!(inner.get(&name).await.unwrap().unwrap().starts_with(b"age-encryption.org/v1\n"));
    assert_eq!(plain.get(&name).await.unwrap().unwrap(), TEXT);
    let other = attempt(2).manifest();
    plain.put(&other, Bytes::from_static(TEXT)).await.unwrap();
    assert_eq!(inner.get(&other).await.unwrap().unwrap(), TEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_disappears_is_reported_and_never_replaced() {
    let inner: Arc<dyn Store> = Arc::new(BucketStore::in_memory());
    let store = sealed(&inner, &["a"]);
    write(&store, &attempt(1), 0, TEXT).await;
    let objects = inner.list(&Folder::all(), None).await.unwrap();
    let name = &objects.iter().find(|o| o.name.as_str().contains("data-key")).unwrap().name;
    inner.remove(name).await.unwrap();
    let manifest = store.put(&attempt(1).manifest(), Bytes::from_static(TEXT)).await;
    let artifact = store.create(&attempt(1).artifact(1), None).await.map(drop);
    for refused in [manifest, artifact] {
        assert_eq!(*cause(&refused.unwrap_err()), KeyError::Missing);
    }
    let left = inner.list(&Folder::all(), None).await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
}
