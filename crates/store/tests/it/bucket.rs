use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cachevault_domain::{BackupId, InstanceId, ProjectId};
use cachevault_store::conformance;
use cachevault_store::{
    AttemptKey, BackupKey, BucketSettings, BucketStore, BucketUrl, Folder, LIST_MAX, Scratch,
    SealedStore, SpoolStore, Store, StoreErrorKind,
};
use cachevault_testkit::{BUCKET, S3Call, S3Fault, S3Key, S3Server, SeededEntropy, eventually};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::envelope::Ring;

const REQUEST: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(60);
const IMPATIENT: Duration = Duration::from_secs(1);

/// A server, and a file with its access key.
struct Rig {
    server: S3Server,
    folder: TempDir,
}

impl Rig {
    async fn new() -> Self {
        Self::with(S3Server::start().await)
    }

    fn with(server: S3Server) -> Self {
        let rig = Self { server, folder: tempfile::tempdir().unwrap() };
        rig.server.write_credentials(&rig.credentials());
        rig
    }

    fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }

    fn settings(&self, bucket: &str, create: bool) -> BucketSettings {
        BucketSettings {
            url: BucketUrl::parse(&self.server.store_url(bucket)).unwrap(),
            credentials_file: Some(self.credentials()),
            create,
            request: REQUEST,
            patience: PATIENCE,
        }
    }

    fn store(&self) -> BucketStore {
        BucketStore::new(&self.settings(BUCKET, false)).unwrap()
    }

    fn impatient_store(&self) -> BucketStore {
        let settings = BucketSettings { patience: IMPATIENT, ..self.settings(BUCKET, false) };
        BucketStore::new(&settings).unwrap()
    }
}

pub(crate) fn scratch() -> Scratch {
    Scratch::mint(&SeededEntropy::new(2))
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

#[tokio::test]
async fn a_store_in_memory_conforms() {
    let scratch = Scratch::mint(&SeededEntropy::new(3));
    conformance::run(&BucketStore::in_memory(), &scratch).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms() {
    let rig = Rig::new().await;
    let store = rig.store();
    store.prepare().await.unwrap();
    let scratch = Scratch::mint(&SeededEntropy::new(4));
    conformance::run(&store, &scratch).await.assert_passed();
}

/// The order of the service: encryption in front of the spool in front of the bucket.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms_behind_encryption_and_a_spool() {
    let rig = Rig::new().await;
    for limit in [1 << 30, 0] {
        let spool = SpoolStore::new(Arc::new(rig.store()), rig.folder.path().to_owned(), limit);
        let store = SealedStore::new(Arc::new(spool), Arc::new(Ring(&["first"])), true);
        let scratch = Scratch::mint(&SeededEntropy::new(8));
        conformance::run(&store, &scratch).await.assert_passed();
        assert_eq!(rig.server.keys(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_continues_beyond_one_response() {
    const OBJECTS: u32 = 2345;
    let rig = Rig::new().await;
    let (store, backup) = (rig.store(), attempt().backup);
    let expected: Vec<_> = (1..=OBJECTS).map(|number| backup.attempt(number).manifest()).collect();
    for name in &expected {
        let file = rig.server.file(&format!("backups/{name}"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "{}").unwrap();
    }
    let mut listed = Vec::new();
    loop {
        let found = store.list(&Folder::all(), listed.last()).await.unwrap();
        assert!(found.len() <= LIST_MAX, "{}", found.len());
        if found.is_empty() {
            break;
        }
        listed.extend(found.into_iter().map(|object| object.name));
    }
    assert!(listed == expected, "{} objects are listed", listed.len());
    store.remove_backup(&backup).await.unwrap();
    assert_eq!(rig.server.keys(), [""; 0]);
}

/// The right to write is not enough: objects that cannot be removed would stay indefinitely.
#[tokio::test(flavor = "multi_thread")]
async fn every_missing_right_is_reported() {
    let rig = Rig::new().await;
    let store = rig.store();
    for call in [S3Call::Put, S3Call::Get, S3Call::List, S3Call::Delete] {
        rig.server.inject(call, S3Fault::Deny, u32::MAX);
        let error = store.check(&scratch()).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Denied, "{call:?}: {error:?}");
        rig.server.heal();
        store.check(&scratch()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_key_may_change_during_an_upload() {
    let rig = Rig::new().await;
    let store = rig.store();
    let mut sink = store.create(&attempt().artifact(0), Some(0)).await.unwrap();
    let half = long().slice(..long().len() / 2);
    sink.write(half.clone()).await.unwrap();
    eventually("a part is stored", || (!rig.server.part_files().is_empty()).then_some(()));
    // This server continues an upload only for the access key that began it.
    rig.server.rotate(S3Key { secret: "fresh".into(), ..S3Key::default() });
    rig.server.write_credentials(&rig.credentials());
    sink.write(long().slice(half.len()..)).await.unwrap();
    sink.finish().await.unwrap();
    assert!(read(&store).await == long());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_created_only_if_permitted() {
    let rig = Rig::new().await;
    let store = BucketStore::new(&rig.settings("fresh", false)).unwrap();
    let error = store.prepare().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NoBucket, "{error}");
    let store = BucketStore::new(&rig.settings("fresh", true)).unwrap();
    for _ in 0..2 {
        store.prepare().await.unwrap();
    }
    store.check(&scratch()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_disappears_is_created_again() {
    for call in ["check", "get", "list", "put"] {
        let rig = Rig::new().await;
        let ask = async |create| {
            let store = BucketStore::new(&rig.settings("later", create)).unwrap();
            let manifest = attempt().manifest();
            match call {
                "check" => store.check(&scratch()).await,
                "get" => store.get(&manifest).await.map(drop),
                "list" => store.list(&Folder::all(), None).await.map(drop),
                _ => store.put(&manifest, Bytes::from_static(b"it")).await,
            }
        };
        assert_eq!(ask(false).await.unwrap_err().kind, StoreErrorKind::NoBucket, "{call}");
        ask(true).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
        ask(false).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_access_key_is_reported_at_once_and_replaced_from_the_file() {
    let rig = Rig::new().await;
    let store = rig.store();
    store.check(&scratch()).await.unwrap();
    rig.server.rotate(S3Key { key: "AKOTHER".into(), secret: "another".into() });
    for outcome in [store.check(&scratch()).await, store.prepare().await] {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Denied, "{error:?}");
        let text = format!("{error:?}");
        assert!(!text.contains(&S3Key::default().secret), "{text}");
    }
    rig.server.write_credentials(&rig.credentials());
    store.check(&scratch()).await.unwrap();
    std::fs::remove_file(rig.credentials()).unwrap();
    assert_eq!(store.check(&scratch()).await.unwrap_err().kind, StoreErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_reported_after_the_retries() {
    let rig = Rig::new().await;
    let store = rig.impatient_store();
    let Rig { server, folder: _folder } = rig;
    drop(server);
    let error = store.check(&scratch()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_read_unchanged() {
    let rig = Rig::new().await;
    let (store, key) = (rig.store(), attempt().artifact(0));
    let mut sink = store.create(&key, Some(0)).await.unwrap();
    sink.write(Bytes::from_static(b"original content")).await.unwrap();
    sink.finish().await.unwrap();
    let file = rig.server.file(&format!("backups/{key}"));
    std::fs::write(&file, b"modified content").unwrap();
    let mut source = store.open(&key).await.unwrap();
    assert_eq!(source.read().await.unwrap().unwrap(), "modified content");
    assert_eq!(source.read().await.unwrap(), None);
}

/// Longer than two parts.
fn long() -> Bytes {
    (0..(17 << 20) + 1).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn write(store: &BucketStore, bytes: &Bytes) -> Result<(), StoreErrorKind> {
    let kind = |error: cachevault_store::StoreError| error.kind;
    let mut sink = store.create(&attempt().artifact(0), Some(0)).await.map_err(kind)?;
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        if let Err(error) = sink.write(rest.split_to(rest.len().min(1 << 20))).await {
            sink.abort().await;
            return Err(error.kind);
        }
    }
    sink.finish().await.map(drop).map_err(kind)
}

async fn read(store: &BucketStore) -> Vec<u8> {
    let mut source = store.open(&attempt().artifact(0)).await.unwrap();
    let mut read = Vec::new();
    while let Some(piece) = source.read().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_errors_are_retried_and_repeated_requests_have_one_effect() {
    let faults = [S3Fault::Refuse, S3Fault::LoseReply, S3Fault::Stall(REQUEST + REQUEST / 2)];
    let calls = [
        (S3Call::CreateUpload, long()),
        (S3Call::UploadPart, long()),
        (S3Call::CompleteUpload, long()),
        (S3Call::Put, Bytes::from_static(b"short")),
        (S3Call::Get, long()),
        (S3Call::Delete, Bytes::from_static(b"short")),
        (S3Call::List, Bytes::from_static(b"short")),
    ];
    for fault in faults {
        let mut running = JoinSet::new();
        for (call, bytes) in &calls {
            running.spawn(pass_once(*call, fault, bytes.clone()));
        }
        running.join_all().await;
    }
}

async fn pass_once(call: S3Call, fault: S3Fault, bytes: Bytes) {
    let rig = Rig::new().await;
    let store = rig.store();
    rig.server.inject(call, fault, 1);
    let began = Instant::now();
    write(&store, &bytes).await.unwrap_or_else(|e| panic!("{call:?} {fault:?}: {e:?}"));
    assert!(read(&store).await == bytes, "{call:?} {fault:?}");
    let listed = store.list(&Folder::all(), None).await.unwrap();
    assert_eq!(listed.len(), 1, "{call:?} {fault:?}");
    store.remove_attempt(&attempt()).await.unwrap();
    assert_eq!(rig.server.keys(), [""; 0], "{call:?} {fault:?}");
    assert_eq!(rig.server.faults_left(), 0, "{call:?} {fault:?}");
    // The call waited until the timeout of a request.
    let stalled = matches!(fault, S3Fault::Stall(_));
    assert!(!stalled || began.elapsed() >= REQUEST, "{call:?} {fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_error_fails_and_leaves_no_objects() {
    let mut running = JoinSet::new();
    for call in [S3Call::CreateUpload, S3Call::UploadPart, S3Call::CompleteUpload] {
        running.spawn(async move {
            let rig = Rig::new().await;
            rig.server.inject(call, S3Fault::Refuse, u32::MAX);
            let kind = write(&rig.impatient_store(), &long()).await.unwrap_err();
            assert_eq!(kind, StoreErrorKind::Unavailable, "{call:?}");
            assert_eq!(rig.server.keys(), [""; 0], "{call:?}");
        });
    }
    running.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_completion_is_reported_at_once() {
    let rig = Rig::new().await;
    rig.server.inject(S3Call::CompleteUpload, S3Fault::Deny, u32::MAX);
    let store = rig.store();
    let written = tokio::time::timeout(PATIENCE / 2, write(&store, &long())).await;
    assert_eq!(written.expect("no waiting"), Err(StoreErrorKind::Denied));
    assert_eq!(rig.server.keys(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_aborted_by_another_program_is_a_transient_error() {
    // The error appears with the next part, or only at the end.
    for rest in [long(), Bytes::new()] {
        let rig = Rig::new().await;
        let mut sink = rig.impatient_store().create(&attempt().artifact(0), Some(0)).await.unwrap();
        sink.write(long().slice(..10 << 20)).await.unwrap();
        let arrived = async {
            while rig.server.part_files().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived).await.unwrap();
        rig.server.end_uploads();
        let error = match sink.write(rest).await {
            Err(error) => error,
            Ok(()) => sink.finish().await.unwrap_err(),
        };
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_continues_after_a_truncated_response() {
    let rig = Rig::new().await;
    let store = rig.store();
    write(&store, &long()).await.unwrap();
    rig.server.inject(S3Call::Get, S3Fault::CutBody, 3);
    assert!(read(&store).await == long());
    assert_eq!(rig.server.faults_left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_name_with_space_and_umlaut_stays_unencoded() {
    let rig = Rig::new().await;
    let url = rig.server.store_url(BUCKET).replace("/backups?", "/a%20%C3%BC?");
    let settings =
        BucketSettings { url: BucketUrl::parse(&url).unwrap(), ..rig.settings(BUCKET, false) };
    let store = BucketStore::new(&settings).unwrap();
    let attempt = attempt();
    let mut sink = store.create(&attempt.artifact(0), Some(0)).await.unwrap();
    for _ in 0..20 {
        sink.write(Bytes::from(vec![7; 1 << 20])).await.unwrap();
    }
    eventually("an upload exists", || (!rig.server.uploads().is_empty()).then_some(()));
    // The service is killed.
    std::mem::forget(sink);
    let begun = format!("a ü/{}", attempt.artifact(0));
    assert_eq!(rig.server.uploads(), [begun]);
    store.remove_unfinished(&attempt.folder(), None).await.unwrap();
    assert_eq!(rig.server.uploads(), [""; 0]);
    let scratch = Scratch::mint(&SeededEntropy::new(11));
    conformance::run(&store, &scratch).await.assert_passed();
    assert_eq!(rig.server.keys(), [""; 0]);
}

/// A server that refuses every request and has a different clock, as its `Date` shows.
fn refusing_server_of(date: &'static str) -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 4096]);
            let head = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n";
            let _ = write!(connection, "{head}date: {date}\r\n\r\n");
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_because_of_a_wrong_clock_reports_the_clocks() {
    let rig = Rig::new().await;
    let port = refusing_server_of("Fri, 10 May 2019 08:31:16 GMT");
    let url = format!("s3://{BUCKET}?endpoint=http://127.0.0.1:{port}");
    let url = BucketUrl::parse(&url).unwrap();
    let settings = BucketSettings { url, patience: IMPATIENT, ..rig.settings(BUCKET, false) };
    let store = BucketStore::new(&settings).unwrap();
    for error in [store.prepare().await.unwrap_err(), store.check(&scratch()).await.unwrap_err()] {
        let text = cachevault_domain::with_sources(&error);
        assert_eq!(error.kind, StoreErrorKind::Denied, "{text}");
        assert!(text.contains("the clocks differ by"), "{text}");
        assert!(text.contains("2019-05-10T08:31:16Z"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_checksums_is_detected_and_conforms() {
    let rig = Rig::with(S3Server::start_careless().await);
    let store = rig.store();
    assert!(!store.compares_checksums().await.unwrap());
    assert_eq!(rig.server.keys(), [""; 0], "the probe is removed");
    conformance::run(&store, &scratch()).await.assert_passed();
    let rig = Rig::new().await;
    assert!(rig.store().compares_checksums().await.unwrap());
    assert_eq!(rig.server.keys(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrongly_stored_artifact_never_succeeds() {
    let rig = Rig::with(S3Server::start_careless().await);
    let store = rig.store();
    assert!(!store.compares_checksums().await.unwrap());
    for (call, bytes) in [(S3Call::Put, long().slice(..10)), (S3Call::UploadPart, long())] {
        rig.server.inject(call, S3Fault::Alter, 1);
        assert_eq!(write(&store, &bytes).await, Err(StoreErrorKind::Damaged), "{call:?}");
        assert_eq!(rig.server.keys(), [""; 0], "{call:?}: all of its objects are removed");
        write(&store, &bytes).await.unwrap();
        store.remove_attempt(&attempt()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrongly_stored_manifest_or_data_key_never_succeeds() {
    let rig = Rig::with(S3Server::start_careless().await);
    let (store, manifest) = (rig.store(), crate::identity::manifest());
    rig.server.inject(S3Call::Put, S3Fault::Alter, 1);
    let error = store.commit(&attempt(), &manifest).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
    assert_eq!(rig.server.keys(), [""; 0]);
    store.commit(&attempt(), &manifest).await.unwrap();
    store.retract(&attempt()).await.unwrap();

    let sealed = SealedStore::new(Arc::new(store), Arc::new(Ring(&["first"])), true);
    rig.server.inject(S3Call::Put, S3Fault::Alter, 1);
    let error = sealed.create(&attempt().artifact(0), Some(0)).await.err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_completion_is_not_reported_as_damage() {
    let rig = Rig::new().await;
    let store = rig.store();
    rig.server.inject(S3Call::CompleteUpload, S3Fault::Reject, 1);
    assert_eq!(write(&store, &long()).await, Err(StoreErrorKind::Refused));
    assert_eq!(rig.server.keys(), [""; 0], "all of its objects are removed");
    write(&store, &long()).await.unwrap();
}
