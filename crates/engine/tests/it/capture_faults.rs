//! Captures that must fail, each for its own reason, and leave nothing behind.

use std::sync::Arc;
use std::time::Duration;

use crate::support::Rig;
use cachevault_domain::{FailureCode, Login, Target};
use cachevault_engine::{CaptureError, verify_artifact};
use cachevault_store::{ContentEntry, Fault, FaultyStore, FolderStore, StoreErrorKind};
use cachevault_testkit::{Act, ScriptedServer, Server, eventually, newest_redis, repository_file};

const MARK: &str = "0123456789abcdef0123456789abcdef01234567";
const INFO: &str = "redis_version:7.0.15\r\nrole:master\r\n";

/// A primary that answers everything well until the payload, which is `payload`.
fn primary(payload: Vec<Act>) -> ScriptedServer {
    ScriptedServer::start(move |command| match command[0].as_str() {
        "INFO" => vec![Act::bulk(INFO)],
        "PSYNC" => {
            let line = format!("+FULLRESYNC {MARK} 1\r\n").into_bytes();
            [vec![Act::Send(line)], payload.clone()].concat()
        }
        _ => vec![Act::Send(b"+OK\r\n".to_vec())],
    })
}

fn sample() -> Vec<u8> {
    std::fs::read(repository_file("fixtures/rdb/redis-7.0.15/all.rdb")).unwrap()
}

fn by_mark(rdb: &[u8]) -> Vec<u8> {
    [format!("$EOF:{MARK}\r\n").as_bytes(), rdb, MARK.as_bytes()].concat()
}

/// Captures from a scripted primary; nothing may be left in the store.
async fn failure(payload: Vec<Act>) -> CaptureError {
    let mut rig = Rig::new();
    rig.limits.stall = Duration::from_millis(200);
    let server = primary(payload);
    let error = rig.capture(&server.target()).await.expect_err("it must fail");
    assert_eq!(rig.files(), [""; 0]);
    error
}

#[tokio::test]
async fn the_scripted_primary_is_good_enough_to_succeed() {
    for header in [format!("$EOF:{MARK}\r\n"), format!("${}\r\n", sample().len())] {
        let rdb = if header.contains("EOF") {
            by_mark(&sample())
        } else {
            [header.as_bytes(), &sample()].concat()
        };
        let rig = Rig::new();
        let server = primary(vec![Act::Send(rdb), Act::Silence]);
        let entry = rig.capture(&server.target()).await.unwrap();
        assert_eq!(entry.rdb.size_bytes, sample().len() as u64);
    }
}

#[tokio::test]
async fn a_source_that_closes_is_told_with_how_far_it_came() {
    let half = by_mark(&sample())[..20_000].to_vec();
    let error = failure(vec![Act::Send(half), Act::Close]).await;
    assert!(matches!(error, CaptureError::Closed { received_bytes: 10_000.., .. }), "{error}");
    assert!(error.may_pass());
    let error = failure(vec![Act::Close]).await;
    assert!(matches!(error, CaptureError::Closed { received_bytes: 0, .. }), "{error}");
}

#[tokio::test]
async fn a_source_that_stalls_is_given_up() {
    for payload in [vec![], by_mark(&sample())[..20_000].to_vec()] {
        let error = failure(vec![Act::Send(payload), Act::Silence]).await;
        assert!(matches!(error, CaptureError::Stalled { .. }), "{error}");
        assert_eq!(error.failure_code(), FailureCode::TimedOut);
    }
}

#[tokio::test]
async fn garbage_is_told_from_data() {
    let error =
        failure(vec![Act::Send(by_mark(b"this is no snapshot of anything")), Act::Silence]).await;
    assert!(matches!(error, CaptureError::Damaged { .. }), "{error}");
    // The garbage never ends, and the source never closes: the header alone must end it.
    let error = failure(vec![
        Act::Send(format!("$EOF:{MARK}\r\n{}", "GARBAGE ".repeat(20)).into()),
        Act::Silence,
    ])
    .await;
    assert!(matches!(error, CaptureError::Damaged { .. }), "{error}");
    let error = failure(vec![Act::Send(b"*1\r\n$4\r\nPING\r\n".to_vec()), Act::Silence]).await;
    assert!(matches!(error, CaptureError::Session { .. }), "{error}");
}

#[tokio::test]
async fn one_wrong_bit_fails_the_capture() {
    let mut rdb = sample();
    let middle = rdb.len() / 2;
    rdb[middle] ^= 1;
    let error = failure(vec![Act::Send(by_mark(&rdb)), Act::Silence]).await;
    assert!(error.to_string().contains("CRC-64 mismatch"), "{error}");
    assert_eq!(error.failure_code(), FailureCode::ToolFailed);
}

/// An RDB of one record with a checksum that matches it.
fn with_checksum(header: &str, record: &[u8]) -> Vec<u8> {
    let content = [header.as_bytes(), record, b"\xff"].concat();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, &content);
    [content.as_slice(), &crc.to_le_bytes()].concat()
}

#[tokio::test]
async fn content_that_no_server_would_load_fails_the_capture_with_its_position() {
    // An intset of three bytes, under a checksum that is right.
    let rdb = by_mark(&with_checksum("REDIS0011", b"\x0b\x01k\x03abc"));
    let error = failure(vec![Act::Send(rdb), Act::Silence]).await;
    assert!(matches!(error, CaptureError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("at byte 12: corrupt"), "{error}");
}

#[tokio::test]
async fn content_of_a_newer_server_is_stored_and_marked() {
    let rdb = with_checksum("REDIS0016", b"\x22\x01a\x05");
    let rig = Rig::new();
    let server = primary(vec![Act::Send(by_mark(&rdb)), Act::Silence]);
    let entry = rig.capture(&server.target()).await.unwrap();
    let Some(ContentEntry::Opaque { warning, offset, reason }) = entry.rdb.content else {
        panic!("not marked: {:?}", entry.rdb.content);
    };
    assert_eq!((warning.as_str(), offset), ("opaque: not verified", 9));
    assert!(reason.contains("the type of value 34 is unknown in REDIS0016"), "{reason}");
    assert_eq!(crate::support::decoded(&rig.file()), rdb);
}

#[tokio::test]
async fn a_denied_command_is_named_and_not_retried() {
    let server = Server::start(&newest_redis(), &[]);
    server.ask(&["ACL", "SETUSER", "backup", "on", ">secret", "+replconf", "+ping", "+info"]);
    let login =
        Some(Login { username: Some("backup".into()), password: "secret".to_owned().into() });
    let rig = Rig::new();
    let error = rig.capture(&Target { login, ..server.target() }).await.unwrap_err();
    assert!(error.to_string().contains("denies the command `psync`"), "{error}");
    assert!(!error.may_pass());
    assert_eq!(rig.files(), [""; 0]);
}

#[tokio::test]
async fn a_server_that_cannot_synchronise_now_is_asked_again_later() {
    let server = ScriptedServer::start(|command| match command[0].as_str() {
        "INFO" => vec![Act::bulk(INFO)],
        "PSYNC" => vec![Act::Send(
            b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n".to_vec(),
        )],
        _ => vec![Act::Send(b"+OK\r\n".to_vec())],
    });
    let error = Rig::new().capture(&server.target()).await.unwrap_err();
    assert!(error.may_pass(), "{error}");
}

#[tokio::test]
async fn a_capture_has_a_deadline() {
    // The primary notices a reader that left when its child writes next: so it must keep writing.
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "2000"]);
    server.fill(5000, 1000);
    let mut rig = Rig::new();
    rig.limits.total = Duration::from_millis(300);
    let error = rig.capture(&server.target()).await.unwrap_err();
    assert!(matches!(error, CaptureError::TooLong { .. }), "{error}");
    assert_eq!(server.info("rdb_bgsave_in_progress"), "0", "the child was left running");
}

#[tokio::test]
async fn waiting_for_another_fork_has_an_end() {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "1000000"]);
    server.fill(100, 10);
    server.ask(&["BGSAVE"]);
    let mut rig = Rig::new();
    rig.limits.busy_wait = Duration::from_millis(100);
    let error = rig.capture(&server.target()).await.unwrap_err();
    assert!(matches!(error, CaptureError::Busy { .. }), "{error}");
    assert_eq!(error.failure_code(), FailureCode::TimedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_capture_leaves_no_child_and_no_file() {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "10000"]);
    server.fill(3000, 100);
    let rig = Arc::new(Rig::new());
    let (worker, target) = (Arc::clone(&rig), server.target());
    let capture = tokio::spawn(async move { worker.capture(&target).await });
    eventually("the child runs", || (server.info("rdb_bgsave_in_progress") == "1").then_some(()));
    rig.cancel.cancel();
    assert!(matches!(capture.await.unwrap(), Err(CaptureError::Cancelled)));
    assert_eq!(server.info("rdb_bgsave_in_progress"), "0");
    assert_eq!(rig.files(), [""; 0]);
}

#[tokio::test]
async fn a_store_that_fails_ends_the_capture_and_frees_the_source() {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(20_000, 1000);
    for (fault, kind, code) in [
        (Fault::Create, StoreErrorKind::Denied, FailureCode::StoreCredentials),
        (Fault::Write, StoreErrorKind::NoSpace, FailureCode::SizeUnconfirmed),
        (Fault::Finish, StoreErrorKind::Unavailable, FailureCode::StoreUnusable),
    ] {
        let rig = Rig::new();
        let store = FaultyStore::new(FolderStore::open(rig.folder.path()).unwrap());
        store.fail(fault, kind);
        let error = rig.capture_into(&store, &server.target()).await.unwrap_err();
        assert_eq!(error.failure_code(), code, "{error}");
        assert_eq!(rig.files(), [""; 0]);
        eventually("the child ends", || {
            (server.info("rdb_bgsave_in_progress") == "0").then_some(())
        });
    }
}

#[tokio::test]
async fn an_artifact_that_reads_back_differently_is_not_verified() {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(100, 100);
    let rig = Rig::new();
    let store = FaultyStore::new(FolderStore::open(rig.folder.path()).unwrap());
    let entry = rig.capture_into(&store, &server.target()).await.unwrap();
    verify_artifact(&store, &rig.key, &entry).await.unwrap();
    store.fail(Fault::ReadOtherBytes, StoreErrorKind::Damaged);
    let error = verify_artifact(&store, &rig.key, &entry).await.unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    let mut other = entry.clone();
    other.rdb.size_bytes += 1;
    store.heal();
    assert!(verify_artifact(&store, &rig.key, &other).await.is_err());
}
