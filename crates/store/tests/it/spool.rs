use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cachevault_domain::{BackupId, InstanceId, ProjectId};
use cachevault_store::conformance::{self, Scratch};
use cachevault_store::{
    ArtifactKey, BackupKey, BucketSettings, BucketStore, BucketUrl, FolderStore, SpoolStore, Store,
    StoreErrorKind,
};
use cachevault_testkit::{BUCKET, S3Call, S3Fault, S3Server, SeededEntropy};

const GENEROUS: u64 = 1 << 30;
/// Longer than any operation that does not wait for it.
const STALL: Duration = Duration::from_secs(8);
const PIECES: usize = 64;
const PIECE_BYTES: usize = 1 << 20;

fn key() -> ArtifactKey {
    let entropy = SeededEntropy::new(1);
    let backup = BackupKey {
        project: ProjectId::mint(&entropy),
        instance: InstanceId::mint(&entropy),
        backup: BackupId::mint(&entropy),
    };
    backup.attempt(1).artifact(0)
}

fn piece(number: usize) -> Bytes {
    vec![number as u8; PIECE_BYTES].into()
}

/// A bucket with slow parts behind a spool.
async fn stalling(folder: &Path, limit: u64, stalls: u32) -> (S3Server, SpoolStore) {
    let server = S3Server::start().await;
    let credentials = folder.join("credentials");
    server.write_credentials(&credentials);
    let settings = BucketSettings {
        url: BucketUrl::parse(&server.store_url(BUCKET)).unwrap(),
        credentials_file: Some(credentials),
        create: false,
        request: Duration::from_secs(30),
        patience: Duration::from_secs(5),
    };
    server.inject(S3Call::UploadPart, S3Fault::Stall(STALL), stalls);
    let bucket = Arc::new(BucketStore::new(&settings).unwrap());
    (server, SpoolStore::new(bucket, folder.to_owned(), limit))
}

/// Writes all pieces; returns the elapsed time.
async fn write(sink: &mut dyn cachevault_store::ArtifactSink) -> Duration {
    let began = Instant::now();
    for number in 0..PIECES {
        sink.write(piece(number)).await.unwrap();
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_spool_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let inner = Arc::new(FolderStore::open(folder.path().join("store")).unwrap());
    for limit in [GENEROUS, 0] {
        let store = SpoolStore::new(inner.clone(), folder.path().to_owned(), limit);
        let scratch = Scratch::mint(&SeededEntropy::new(6));
        conformance::run(&store, &scratch).await.assert_passed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_store_does_not_delay_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, store) = stalling(folder.path(), GENEROUS, 3).await;
    let mut sink = store.create(&key(), None).await.unwrap();
    let took = write(&mut *sink).await;
    assert!(took < STALL, "{took:?}");
    let stored = sink.finish().await.unwrap();
    assert_eq!(stored.size_bytes, (PIECES * PIECE_BYTES) as u64);
    let mut source = store.open(&key()).await.unwrap();
    for number in 0..PIECES {
        assert!(source.read().await.unwrap() == Some(piece(number)), "piece {number}");
    }
    assert_eq!(source.read().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, store) = stalling(folder.path(), 4 << 20, 3).await;
    let mut sink = store.create(&key(), None).await.unwrap();
    let took = write(&mut *sink).await;
    assert!(took >= STALL, "{took:?}");
    assert_eq!(sink.finish().await.unwrap().size_bytes, (PIECES * PIECE_BYTES) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_local_disk_only_slows_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let inner = Arc::new(BucketStore::in_memory());
    let store = SpoolStore::new(inner, folder.path().join("missing"), GENEROUS);
    let mut sink = store.create(&key(), None).await.unwrap();
    write(&mut *sink).await;
    assert_eq!(sink.finish().await.unwrap().size_bytes, (PIECES * PIECE_BYTES) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_store_reaches_the_writer_and_leaves_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    let (server, store) = stalling(folder.path(), GENEROUS, 0).await;
    server.inject(S3Call::UploadPart, S3Fault::Refuse, u32::MAX);
    let mut sink = store.create(&key(), None).await.unwrap();
    let mut written = Ok(());
    for number in 0..PIECES {
        written = sink.write(piece(number)).await;
        if written.is_err() {
            break;
        }
    }
    let error = match written {
        Err(error) => error,
        Ok(()) => sink.finish().await.unwrap_err(),
    };
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error:?}");
    assert_eq!(server.keys(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_does_not_wait_for_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (server, store) = stalling(folder.path(), GENEROUS, 1).await;
    let mut sink = store.create(&key(), None).await.unwrap();
    write(&mut *sink).await;
    let began = Instant::now();
    sink.abort().await;
    assert!(began.elapsed() < STALL, "{:?}", began.elapsed());
    assert_eq!(server.keys(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_detected_directly_after_the_last_piece() {
    let folder = tempfile::tempdir().unwrap();
    let inner = Arc::new(BucketStore::in_memory());
    let store = SpoolStore::new(inner, folder.path().to_owned(), GENEROUS);
    for attempt in 1..=3000 {
        let key = key().attempt.backup.attempt(attempt).artifact(0);
        let mut sink = store.create(&key, None).await.unwrap();
        sink.write(Bytes::from_static(b"first")).await.unwrap();
        tokio::task::yield_now().await;
        sink.write(Bytes::from_static(b"last")).await.unwrap();
        assert_eq!(sink.finish().await.unwrap().size_bytes, 9, "attempt {attempt}");
    }
}
