//! Download links and downloads.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use cachevault_api::Downloads;
use cachevault_catalog::{BackupCatalog, JobQueue, RetentionCatalog};
use cachevault_domain::{BackupId, Clock, Failure, FailureCode, JobId, JobKind, Lease, NodeId};
use cachevault_testkit::SeededEntropy;
use crc_fast::{CrcAlgorithm, checksum};
use http_body_util::BodyExt;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::rig::{Answer, DOWNLOADS_MAX, INSTANCE, Rig};

const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
const HOST: &str = "http://cachevault.test";
const CRC64: &str = "x-cachevault-rdb-crc64";
/// Larger than all buffers between the store and a stalled client.
const LARGE: usize = 24 << 20;

/// A valid frame of incompressible bytes; only a server would decode it.
pub(crate) fn rdb(bytes: usize) -> Vec<u8> {
    let mut rdb = b"REDIS0010".to_vec();
    let mut state = 1u64;
    rdb.extend(
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(bytes - 18),
    );
    rdb.push(0xFF);
    let crc64 = checksum(CrcAlgorithm::Crc64Redis, &rdb);
    rdb.extend(crc64.to_le_bytes());
    rdb
}

impl Rig {
    async fn ask_for_links(&self, version: &str, backup: &str, body: &str) -> Answer {
        let path = self.path(version, &format!("/instances/{INSTANCE}/backups/{backup}/links"));
        self.call("POST", &path, body).await
    }

    /// The path and query of the only link, valid for five minutes.
    async fn link(&self, backup: BackupId) -> String {
        let answer = self.ask_for_links("v2", &backup.to_string(), r#"{"expiration": 300}"#).await;
        let link = answer.body["links"][0]["link"].as_str().unwrap();
        link.strip_prefix(HOST).unwrap().to_owned()
    }

    /// The removal job that is due now.
    async fn claimed_removal(&self) -> Option<Lease> {
        let (node, now) = (NodeId::mint(&SeededEntropy::new(1)), self.clock.now());
        self.catalog.claim_job(JobKind::Remove, node, now, now).await.unwrap()
    }

    async fn fetch(&self, link: &str) -> Response<Body> {
        self.fetch_with("GET", link, &[]).await
    }

    async fn fetch_with(
        &self,
        method: &str,
        link: &str,
        headers: &[(&str, &str)],
    ) -> Response<Body> {
        let request = Request::builder().method(method).uri(link);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// Flips one bit of the stored artifact, at the fraction `at` of its length.
    async fn damage(&self, backup: BackupId, at: f64) {
        let path = self.app.store.locate(&self.artifact(backup));
        let mut bytes = std::fs::read(&path).unwrap();
        let position = (bytes.len() as f64 * at) as usize;
        bytes[position] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
}

async fn bytes(response: Response<Body>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Asserts the uniform refusal, which reveals no reason.
async fn assert_refused(response: Response<Body>, what: &str) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&bytes(response).await).unwrap();
    assert_eq!((status, &body["error_code"]), (403, &json!("APIGW.0302")), "{what}: {body}");
    let message = "Invalid or expired download link; request a new one";
    assert_eq!(body["error_msg"], message, "{what}");
}

#[tokio::test]
async fn a_link_returns_the_whole_rdb_with_all_headers() {
    let rig = Rig::new().await;
    let rdb = rdb(3_000_000);
    let backup = rig.stored(BACKUP, &rdb).await;
    let link = rig.link(backup).await;
    for method in ["GET", "HEAD"] {
        let response = rig.fetch_with(method, &link, &[]).await;
        assert_eq!(response.status().as_u16(), 200, "{method}");
        for (name, value) in [
            ("content-length", "3000000"),
            ("content-type", "application/octet-stream"),
            ("accept-ranges", "bytes"),
            (
                "content-disposition",
                "attachment; filename=\"redis_10.0.0.7_6379_20190510083116.rdb\"",
            ),
            (CRC64, &format!("{:016x}", u64::from_le_bytes(*rdb.last_chunk().unwrap()))),
        ] {
            assert_eq!(header(&response, name), Some(value), "{method} {name}");
        }
        let tag = header(&response, "etag").unwrap();
        assert!(tag.len() == 66 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        let expected: &[u8] = if method == "GET" { &rdb } else { b"" };
        assert!(bytes(response).await == expected, "{method}");
    }
}

#[tokio::test]
async fn links_omit_a_missing_checksum_and_file_names_are_safe() {
    let rig = Rig::new().await;
    let mut rdb = rdb(1000);
    rdb[992..].fill(0);
    let backup = rig.stored_from(BACKUP, &rdb, "[fe80::1%eth0/../\"]:6379").await;
    let response = rig.fetch(&rig.link(backup).await).await;
    assert_eq!(header(&response, CRC64), None);
    assert_eq!(
        header(&response, "content-disposition"),
        Some("attachment; filename=\"redis_fe80--1-eth0-..--_6379_20190510083116.rdb\"")
    );
    assert!(bytes(response).await == rdb);
}

#[tokio::test]
async fn any_changed_byte_of_a_link_is_refused() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(1000)).await;
    let link = rig.link(backup).await;
    for at in "/download/".len()..link.len() {
        for replacement in ["0", "1", "f", "F", "%61", "/", "&", "=", ".", "?", ""] {
            let mut changed = link.clone();
            changed.replace_range(at..=at, replacement);
            if changed != link {
                assert_refused(rig.fetch(&changed).await, &changed).await;
            }
        }
    }
    for changed in [
        format!("{link}&x=1"),
        format!("{link}&Signature=0"),
        format!("{link}0"),
        link.replace("Expires", "expires"),
        link.replace("Expires=", "Expires=0"),
        link.replace("Expires=", "Expires=%2B"),
        link.replace("Expires=", "x=1&Expires="),
        link.replace("/0/", "/00/"),
        link.replace("/0/", "/1/"),
        link.replace(BACKUP, &BACKUP.to_uppercase()),
        link.replace(".rdb?", ".rdb/?"),
        link.split_once("&Signature").unwrap().0.to_owned(),
        link.split_once('?').unwrap().0.to_owned(),
        "/download/x".to_owned(),
    ] {
        assert_refused(rig.fetch(&changed).await, &changed).await;
    }
    assert_eq!(rig.fetch(&link).await.status().as_u16(), 200);
}

#[tokio::test]
async fn a_link_of_another_service_opens_nothing() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(1000)).await;
    let link = rig.link(backup).await;
    let (unsigned, _) = link.split_once("&Signature=").unwrap();
    let other = cachevault_app::MasterKey::from_hex(&"00".repeat(32)).unwrap();
    let sealer = cachevault_app::Sealer::new(&other, rig.app.entropy.clone());
    let project = &rig.credential.project;
    let expires = rig.clock.now().as_second() + 300;
    let signature = sealer.sign_link(&format!(
        "{project}\n{BACKUP}\n0\n{expires}\nredis_10.0.0.7_6379_20190510083116.rdb"
    ));
    assert_refused(rig.fetch(&format!("{unsigned}&Signature={signature}")).await, "forged").await;
}

#[tokio::test]
async fn a_link_expires_by_the_services_clock() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(1000)).await;
    let link = rig.link(backup).await;
    for (seconds, status) in [(0, 200), (299, 200), (1, 403), (100_000, 403)] {
        rig.clock.advance(SignedDuration::from_secs(seconds));
        for method in ["GET", "HEAD"] {
            let response = rig.fetch_with(method, &link, &[]).await;
            assert_eq!(response.status().as_u16(), status, "{method} {seconds}");
        }
    }
    assert_refused(rig.fetch(&link).await, "over").await;
}

#[tokio::test]
async fn deleting_a_backup_ends_its_links_and_lets_a_running_download_end_with_the_right_bytes() {
    let rig = Rig::new().await;
    let rdb = rdb(LARGE);
    let backup = rig.stored(BACKUP, &rdb).await;
    let link = rig.link(backup).await;
    let mut running = rig.fetch(&link).await.into_body();
    let mut received = running.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    let (project, now) = (&rig.credential.project, rig.clock.now());
    let job = JobId::mint(&SeededEntropy::new(98));
    rig.catalog.request_removal(project, rig.instance(), backup, job, now).await.unwrap();
    assert_refused(rig.fetch(&link).await, "removed").await;
    assert!(rig.claimed_removal().await.is_none(), "the backup is still being downloaded");
    received.extend(running.collect().await.unwrap().to_bytes());
    assert!(received == rdb);
    assert!(rig.claimed_removal().await.is_some(), "no download is running");
}

#[tokio::test]
async fn a_disconnected_client_does_not_block_deletion() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(LARGE)).await;
    let mut running = rig.fetch(&rig.link(backup).await).await.into_body();
    running.frame().await.unwrap().unwrap();
    let (project, now) = (&rig.credential.project, rig.clock.now());
    let job = JobId::mint(&SeededEntropy::new(98));
    rig.catalog.request_removal(project, rig.instance(), backup, job, now).await.unwrap();
    assert!(rig.claimed_removal().await.is_none(), "the backup is still being downloaded");
    drop(running);
    // The download lease ends with its task, which was cancelled.
    while rig.claimed_removal().await.is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_backup_with_a_due_removal_cannot_be_downloaded() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(1000)).await;
    let link = rig.link(backup).await;
    let job = JobId::mint(&SeededEntropy::new(98));
    let (project, now) = (&rig.credential.project, rig.clock.now());
    rig.catalog.request_removal(project, rig.instance(), backup, job, now).await.unwrap();
    assert_refused(rig.fetch(&link).await, "about to be removed").await;
}

#[tokio::test]
async fn a_missing_artifact_is_refused_like_a_removed_one() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(1000)).await;
    let link = rig.link(backup).await;
    std::fs::remove_file(rig.app.store.locate(&rig.artifact(backup))).unwrap();
    assert_refused(rig.fetch(&link).await, "missing").await;
}

#[tokio::test]
async fn every_range_is_that_part_of_the_rdb() {
    let rig = Rig::new().await;
    let rdb = rdb(1_500_000);
    let backup = rig.stored(BACKUP, &rdb).await;
    let link = rig.link(backup).await;
    let tag = header(&rig.fetch(&link).await, "etag").unwrap().to_owned();
    for (range, first, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1499999-", 1_499_999, 1_500_000),
        ("bytes=0-1499999", 0, 1_500_000),
        ("bytes=262143-262144", 262_143, 262_145),
        ("bytes=262144-900000", 262_144, 900_001),
        ("bytes=700000-", 700_000, 1_500_000),
        ("bytes=-18", 1_499_982, 1_500_000),
        ("bytes=1000-99999999", 1000, 1_500_000),
    ] {
        for if_range in [None, Some(("if-range", tag.as_str()))] {
            let headers: Vec<_> = [("range", range)].into_iter().chain(if_range).collect();
            let response = rig.fetch_with("GET", &link, &headers).await;
            assert_eq!(response.status().as_u16(), 206, "{range}");
            let part = format!("bytes {first}-{}/1500000", end - 1);
            assert_eq!(header(&response, "content-range"), Some(part.as_str()));
            assert_eq!(
                header(&response, "content-length"),
                Some((end - first).to_string().as_str())
            );
            assert_eq!(header(&response, "etag"), Some(tag.as_str()));
            assert!(bytes(response).await == rdb[first..end], "{range}");
        }
    }
}

#[tokio::test]
async fn unsupported_ranges_return_the_whole_file_or_nothing() {
    let rig = Rig::new().await;
    let rdb = rdb(1000);
    let backup = rig.stored(BACKUP, &rdb).await;
    let link = rig.link(backup).await;
    for headers in [
        &[("range", "bytes=0-1,5-6")][..],
        &[("range", "bytes=0-1"), ("if-range", "\"another\"")],
        &[("range", "bytes=0-1"), ("if-range", "Fri, 10 May 2019 08:31:16 GMT")],
        &[("range", "nonsense")],
    ] {
        let response = rig.fetch_with("GET", &link, headers).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-range")), (200, None));
        assert!(bytes(response).await == rdb, "{headers:?}");
    }
    for range in ["bytes=1000-", "bytes=5000-6000", "bytes=-0"] {
        let response = rig.fetch_with("GET", &link, &[("range", range)]).await;
        assert_eq!(response.status().as_u16(), 416, "{range}");
        assert_eq!(header(&response, "content-range"), Some("bytes */1000"));
    }
    // `HEAD` ignores the range.
    let response = rig.fetch_with("HEAD", &link, &[("range", "bytes=0-1")]).await;
    assert_eq!(
        (response.status().as_u16(), header(&response, "content-length")),
        (200, Some("1000"))
    );
}

#[tokio::test]
async fn a_damaged_artifact_never_completes_a_download() {
    let rig = Rig::new().await;
    let rdb = rdb(2_000_000);
    let backup = rig.stored(BACKUP, &rdb).await;
    let link = rig.link(backup).await;
    for at in [0.02, 0.5, 0.999] {
        rig.damage(backup, at).await;
        for range in ["bytes=0-", "bytes=0-0", "bytes=100-300000", "bytes=-1"] {
            let response = rig.fetch_with("GET", &link, &[("range", range)]).await;
            let announced: usize = header(&response, "content-length").unwrap().parse().unwrap();
            let mut body = response.into_body();
            let mut received = 0;
            let broke_off = loop {
                match body.frame().await {
                    Some(Ok(frame)) => received += frame.into_data().unwrap().len(),
                    Some(Err(_)) => break true,
                    None => break false,
                }
            };
            assert!(broke_off && received < announced, "{at} {range}: {received} of {announced}");
        }
        rig.damage(backup, at).await;
    }
    assert!(bytes(rig.fetch(&link).await).await == rdb);
}

#[tokio::test]
async fn a_damaged_artifact_closes_the_connection_early() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(2_000_000)).await;
    let link = rig.link(backup).await;
    rig.damage(backup, 0.9).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    let router = rig.router.clone();
    server.spawn(async move { axum::serve(listener, router).await });
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {link} HTTP/1.1\r\nhost: cachevault.test\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The client does not ask to close the connection: the error closes it.
    let read = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open");
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let head = (String::from_utf8_lossy(&answer[..head]).to_lowercase(), head);
    assert!(head.0.starts_with("http/1.1 200") && head.0.contains("content-length: 2000000"));
    assert!(answer.len() - head.1 < 2_000_000);
}

#[tokio::test]
async fn concurrent_downloads_are_limited_and_an_aborted_one_frees_its_slot() {
    let rig = Rig::with(Downloads::new(DOWNLOADS_MAX, Duration::from_secs(3600)), None).await;
    let rdb = rdb(LARGE);
    let backup = rig.stored(BACKUP, &rdb).await;
    let link = rig.link(backup).await;
    let mut running = Vec::new();
    for _ in 0..DOWNLOADS_MAX {
        running.push(rig.fetch(&link).await);
    }
    let refused = rig.fetch(&link).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (503, Some("10")));
    assert_eq!(rig.fetch_with("HEAD", &link, &[]).await.status().as_u16(), 200);
    drop(running.pop());
    assert!(bytes(eventually_served(&rig, &link).await).await == rdb);
    for response in running {
        assert!(bytes(response).await == rdb);
    }
}

#[tokio::test]
async fn a_stalled_client_loses_its_slot_and_gets_no_complete_body() {
    let rig = Rig::with(Downloads::new(1, Duration::from_millis(300)), None).await;
    let backup = rig.stored(BACKUP, &rdb(LARGE)).await;
    let link = rig.link(backup).await;
    let stalled = rig.fetch(&link).await;
    drop(eventually_served(&rig, &link).await);
    assert!(stalled.into_body().collect().await.is_err());
}

async fn eventually_served(rig: &Rig, link: &str) -> Response<Body> {
    loop {
        let response = rig.fetch(link).await;
        if response.status().as_u16() == 200 {
            return response;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn link_lifetimes_are_validated_as_documented() {
    let rig = Rig::new().await;
    rig.stored(BACKUP, &rdb(1000)).await;
    let (field, body, empty) = ("DCS.4063", "DCS.4005", "DCS.4004");
    for (wish, v1, v2) in [
        (r#"{"expiration": 300}"#, None, None),
        (r#"{"expiration": 86400, "unknown": 1}"#, None, None),
        (r#"{"expiration": "300"}"#, None, Some(body)),
        (r#"{"expiration": "86400"}"#, None, Some(body)),
        (r#"{"expiration": 299}"#, Some(field), Some(field)),
        (r#"{"expiration": 86401}"#, Some(field), Some(field)),
        (r#"{"expiration": -300}"#, Some(field), Some(field)),
        (r#"{"expiration": "299"}"#, Some(field), Some(body)),
        (r#"{"expiration": "soon"}"#, Some(field), Some(body)),
        (r#"{"expiration": null}"#, Some(field), Some(field)),
        ("{}", Some(field), Some(field)),
        ("", Some(empty), Some(empty)),
        (r#"{"expiration": 300.5}"#, Some(body), Some(body)),
        (r#"{"expiration": true}"#, Some(body), Some(body)),
        (r#"{"expiration": 1e30}"#, Some(body), Some(body)),
        (r#"[300]"#, Some(body), Some(body)),
        (r#"{"expiration""#, Some(body), Some(body)),
    ] {
        for (version, code) in [("v1.0", v1), ("v2", v2)] {
            let answer = rig.ask_for_links(version, BACKUP, wish).await;
            assert_error(&answer, version, code, wish);
            if code == Some(field) {
                let message = "Invalid expiration parameter in the request.";
                assert!(answer.text.contains(message), "{}", answer.text);
            }
        }
    }
}

/// Asserts an error in the format of its version; `None` for no error.
#[track_caller]
fn assert_error(answer: &Answer, version: &str, code: Option<&str>, what: &str) {
    let status = if code.is_none() {
        200
    } else if code == Some("DCS.3022") {
        404
    } else {
        400
    };
    assert_eq!(answer.status.as_u16(), status, "{version} {what}: {}", answer.text);
    let Some(code) = code else { return };
    if version == "v2" {
        assert_eq!(answer.body["error_code"], code, "{what}: {}", answer.text);
    } else {
        let nine = match code {
            "DCS.3022" => "111404022".to_owned(),
            code => format!("111400{}", &code[5..]),
        };
        assert_eq!(answer.body["error"]["code"], nine, "{what}: {}", answer.text);
    }
}

#[tokio::test]
async fn backups_without_files_have_no_links() {
    const WISH: &str = r#"{"expiration": 300}"#;
    let rig = Rig::new().await;
    let ask = async |what: &str, backup: &str, code: &str, word: &str| {
        for version in ["v1.0", "v2"] {
            let answer = rig.ask_for_links(version, backup, WISH).await;
            assert_error(&answer, version, Some(code), what);
        }
        let path = format!("/api/v1/backups/{backup}/links");
        let answer = rig.call("POST", &path, "").await;
        assert_eq!(answer.body["error"]["code"], word, "{what}: {}", answer.text);
    };
    ask("unknown", "00000000-0000-4000-8000-000000000000", "DCS.4031", "backup_not_found").await;
    ask("no id", "none", "DCS.4031", "backup_not_found").await;
    let lease = rig.claimed(BACKUP, None, "2019-05-10T08:31:16Z").await;
    ask("waiting", BACKUP, "DCS.4026", "backup_not_ended").await;
    rig.catalog.start_backup(&lease, rig.clock.now()).await.unwrap();
    ask("running", BACKUP, "DCS.4026", "backup_not_ended").await;
    let failure = Failure { code: FailureCode::TimedOut, reason: "why".into() };
    rig.catalog.fail_backup(&lease, &failure, rig.clock.now()).await.unwrap();
    ask("failed", BACKUP, "DCS.4087", "backup_not_restorable").await;
    let other = "5631832a-14c6-45b0-a0b3-3abd8f591ad1";
    let backup = rig.stored(other, &rdb(1000)).await;
    rig.removed(backup).await;
    ask("deleted", other, "DCS.4031", "backup_files_gone").await;
}

#[tokio::test]
async fn a_damaged_backup_is_shown_but_never_restored_or_linked() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(1000)).await;
    rig.app.store.retract(&rig.artifact(backup).attempt).await.unwrap();
    let wish = json!({"backup_id": BACKUP}).to_string();
    for version in ["v1.0", "v2"] {
        let path = rig.path(version, &format!("/instances/{INSTANCE}/restores"));
        let answer = rig.call("POST", &path, &wish).await;
        assert_error(&answer, version, Some("DCS.4087"), "damaged");
    }
    let shown = rig.call("GET", &format!("/api/v1/backups/{BACKUP}"), "").await;
    assert_eq!(shown.body["damage"], "its manifest is missing from the store");
    assert_eq!((&shown.body["restorable"], &shown.body["artifacts"]), (&json!(false), &json!([])));
    for damage in [None, Some("it is damaged")] {
        let now = rig.clock.now();
        rig.catalog.record_check(backup, 1, damage, now, now).await.unwrap();
        // A client must not mistake the answer for "not found".
        let answer = rig.ask_for_links("v2", BACKUP, r#"{"expiration": 300}"#).await;
        assert_error(&answer, "v2", Some("DCS.4087"), "damaged");
        let answer = rig.call("POST", &format!("/api/v1/backups/{BACKUP}/links"), "").await;
        assert_eq!(answer.body["error"]["code"], "backup_not_restorable", "{}", answer.text);
    }
}

#[tokio::test]
async fn a_backup_of_another_instance_has_no_links_here() {
    let rig = Rig::new().await;
    rig.stored(BACKUP, &rdb(1000)).await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (version, code) in [("v1.0", "111404022"), ("v2", "DCS.3022")] {
        let path = rig.path(version, &format!("/instances/{unknown}/backups/{BACKUP}/links"));
        let answer = rig.call("POST", &path, r#"{"expiration": 300}"#).await;
        assert_eq!(answer.status.as_u16(), 404);
        assert!(answer.text.contains(code), "{}", answer.text);
    }
    let second = "00000000-0000-4000-8000-000000000002";
    rig.adopt(second, "second").await;
    let path = rig.path("v2", &format!("/instances/{second}/backups/{BACKUP}/links"));
    let answer = rig.call("POST", &path, r#"{"expiration": 300}"#).await;
    assert_error(&answer, "v2", Some("DCS.4031"), "of another instance");
}

#[tokio::test]
async fn the_management_api_describes_a_link() {
    let rig = Rig::new().await;
    let rdb = rdb(1000);
    rig.stored(BACKUP, &rdb).await;
    let path = format!("/api/v1/backups/{BACKUP}/links");
    for (wish, end) in [
        ("", "2019-05-10T09:40:00Z"),
        ("{}", "2019-05-10T09:40:00Z"),
        (r#"{"expires_seconds": 300}"#, "2019-05-10T08:45:00Z"),
    ] {
        let answer = rig.call("POST", &path, wish).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        let link = &answer.body["links"][0];
        let crc64 = format!("{:016x}", u64::from_le_bytes(*rdb.last_chunk().unwrap()));
        assert_eq!(
            (&link["size_bytes"], &link["crc64"], &link["expires_at"]),
            (&json!(1000), &json!(crc64), &json!(end))
        );
        let url = link["url"].as_str().unwrap().strip_prefix(HOST).unwrap();
        assert!(bytes(rig.fetch(url).await).await == rdb);
    }
    for wish in
        [r#"{"expires_seconds": 10}"#, r#"{"expires_seconds": "1h"}"#, r#"{"expires": 300}"#]
    {
        let answer = rig.call("POST", &path, wish).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error"]["code"]),
            (400, &json!("bad_request")),
            "{wish}"
        );
    }
}

#[tokio::test]
async fn every_link_begins_with_the_configured_url() {
    let downloads = Downloads::new(DOWNLOADS_MAX, Duration::from_secs(30));
    let rig = Rig::with(downloads, Some("https://backup.example")).await;
    rig.stored(BACKUP, &rdb(1000)).await;
    let answer = rig.ask_for_links("v2", BACKUP, r#"{"expiration": 300}"#).await;
    let link = answer.body["links"][0]["link"].as_str().unwrap();
    assert!(link.starts_with("https://backup.example/download/"), "{link}");
}

#[tokio::test]
async fn links_into_a_disabled_project_are_refused() {
    let rig = Rig::new().await;
    rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    let administrator =
        rig.key(json!({"project": "second", "role": "admin", "administers_service": true})).await;
    let url = rig.link(rig.stored(BACKUP, &rdb(1000)).await).await;
    let project = format!("/api/v1/projects/{}", rig.credential.project);
    for (enabled, status) in [(true, 200), (false, 403), (true, 200)] {
        let body = json!({"enabled": enabled}).to_string();
        assert_eq!(rig.call_as(&administrator, "PATCH", &project, &body).await.status, 200);
        assert_eq!(rig.fetch(&url).await.status().as_u16(), status);
    }
}

/// The number of the instance's backups whose removal retention requests now.
async fn expiring(rig: &Rig) -> Vec<BackupId> {
    let (now, job) = (rig.clock.now(), JobId::mint(&SeededEntropy::new(99)));
    if rig.catalog.instances_to_retain(now, 1).await.unwrap().is_empty() {
        return Vec::new();
    }
    rig.catalog.retain_backups(rig.instance(), 24, &[job], now).await.unwrap()
}

#[tokio::test]
async fn a_backup_expires_only_after_its_downloads() {
    let rig = Rig::new().await;
    let rdb = rdb(LARGE);
    let backup = rig.promised(BACKUP, &rdb, "2019-05-10T08:41:00Z").await;
    let newer = "8ba256cb-e5ac-44f6-a3da-c03d8f0e5029";
    rig.succeeded(newer, None, ["2019-05-10T08:35:00Z"; 3], 5).await;
    let mut body = rig.fetch(&rig.link(backup).await).await.into_body();
    let mut received = Vec::new();
    // The link expires after a few chunks while the download runs for minutes. The last chunks are
    // sent at the end.
    while let Some(frame) = body.frame().await {
        received.extend_from_slice(frame.unwrap().data_ref().unwrap());
        rig.clock.advance(SignedDuration::from_secs(20));
        if received.len() + (8 << 20) <= rdb.len() {
            assert_eq!(expiring(&rig).await, [], "after {} bytes", received.len());
        }
    }
    assert!(rig.clock.now() > "2019-05-10T08:46:00Z".parse().unwrap());
    assert!(received == rdb);
    // The end of the download is not reported: its lease expires after twice the longest stall.
    rig.clock.advance(SignedDuration::from_mins(2));
    assert_eq!(expiring(&rig).await, [backup]);
}

/// The newest audit record, after its call has ended.
async fn ended_record(rig: &Rig) -> Value {
    let ended = async {
        loop {
            let records = rig.call("GET", "/api/v1/audit?limit=1", "").await;
            let record = records.body["items"][0].clone();
            if !record["status"].is_null() {
                return record;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap()
}

fn fetch_from(address: [u8; 4], link: &str, range: &str) -> Request<Body> {
    let address = ConnectInfo(SocketAddr::from((address, 4711)));
    let request = Request::builder().uri(link).header("range", range).extension(address);
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn downloads_are_recorded_with_address_and_the_bytes_that_were_sent() {
    let rig = Rig::new().await;
    let backup = rig.stored(BACKUP, &rdb(LARGE)).await;
    let link = rig.link(backup).await;
    let path = link.split('?').next().unwrap();
    for (range, status, sent) in [("bytes=0-", 206, LARGE), ("bytes=5-14", 206, 10)] {
        let request = fetch_from([192, 0, 2, 1], &link, range);
        let response = rig.router.clone().oneshot(request).await.unwrap();
        assert_eq!(bytes(response).await.len(), sent);
        let record = ended_record(&rig).await;
        let expected = json!(["GET /download", path, "192.0.2.1", status, null, sent]);
        let fields = ["operation", "resource", "address", "status", "error", "bytes"];
        assert_eq!(json!(fields.map(|field| &record[field])), expected);
        assert!(!record.to_string().contains("Signature"), "{record}");
    }
    // A client that disconnects has received a part.
    let mut body = rig.fetch(&link).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let record = ended_record(&rig).await;
    let sent = record["bytes"].as_u64().unwrap() as usize;
    assert!(record["error"] == "broken_off" && (1..LARGE).contains(&sent), "{record}");
    // Requests without a body are not recorded as downloads; invalid links are.
    rig.fetch_with("HEAD", &link, &[]).await;
    let forged = link.replace("Signature=", "Signature=0");
    assert_refused(rig.fetch(&forged).await, "forged").await;
    let records = rig.call("GET", "/api/v1/audit?limit=2", "").await.body["items"].clone();
    assert_eq!((&records[0]["status"], &records[0]["bytes"]), (&json!(403), &Value::Null));
    assert_eq!(records[1], record);
}
