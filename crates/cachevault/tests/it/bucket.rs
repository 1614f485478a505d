//! The service with its store in a bucket: nothing but the setting differs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cachevault_testkit::{
    BUCKET, S3Call, S3Fault, S3Key, S3Server, Server, eventually, newest_redis,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::download::curl;
use crate::service::{BINARY, Service, client, folder, is_of_a_backup, stored};

/// An S3 server with a runtime of its own, and a file with the key to it.
pub(crate) struct Bucket {
    runtime: Runtime,
    pub(crate) server: S3Server,
    folder: TempDir,
}

impl Bucket {
    pub(crate) fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(S3Server::start());
        let bucket = Self { runtime, server, folder: tempfile::tempdir().unwrap() };
        bucket.server.write_credentials(&bucket.credentials());
        bucket
    }

    pub(crate) fn stop(&mut self) {
        self.runtime.block_on(self.server.stop());
    }

    pub(crate) fn start_again(&mut self) {
        self.runtime.block_on(self.server.start_again());
    }

    /// What is stored of backups.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.server.keys().into_iter().filter(|key| is_of_a_backup(key)).collect()
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }

    /// The settings that put the store here.
    pub(crate) fn settings(&self) -> [String; 4] {
        let credentials = self.credentials().display().to_string();
        let url = self.server.store_url(BUCKET);
        ["--store".to_owned(), url, "--store-credentials-file".to_owned(), credentials]
    }

    pub(crate) fn serve(&self, data_dir: &Path, more: &[&str]) -> Service {
        let settings = self.settings();
        let options: Vec<_> = settings.iter().map(String::as_str).collect();
        Service::start(data_dir, &[&options, more].concat())
    }

    /// Runs a command that reads the store without the service.
    fn offline(&self, data_dir: &Path, arguments: &[&str]) -> Output {
        let settings = self.settings();
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        client(data_dir, &[arguments, &settings].concat())
    }

    /// Checks that all of one backup is stored, and nothing else.
    #[track_caller]
    fn assert_one_backup(&self, attempt: u32) {
        let keys = self.keys();
        let attempt = format!("/attempt-{attempt:04}/");
        assert!(keys.iter().all(|key| key.contains(&attempt)), "{keys:?}");
        let names: Vec<_> = keys.iter().map(|key| key.rsplit_once('/').unwrap().1).collect();
        let [key, "manifest.json", "shard-0000.rdb.zst"] = names[..] else { panic!("{keys:?}") };
        assert!(key.starts_with("data-key-"), "{keys:?}");
    }
}

/// The RDB of a backup, by a link.
fn downloaded(service: &Service, id: &str) -> Vec<u8> {
    let links = service.json(&["backup", "link", id]);
    let file = service.data_dir.with_extension("rdb");
    let output = curl(&[links["links"][0]["url"].as_str().unwrap()], &file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(file).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const NOT_READY: &str = r#"{"status":"not ready","reason":"the store cannot be used"} 503"#;
const READY: &str = r#"{"status":"ready"} 200"#;

#[test]
fn the_whole_job_is_done_with_a_bucket() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let (source, target) =
        (Server::start(&newest_redis(), &[]), Server::start(&newest_redis(), &[]));
    // More than two parts of an upload.
    source.fill(2000, 10_000);
    source.call(&["XADD", "audit", "*", "actor", "Zoë"]);
    target.fill(50, 50);
    let service = bucket.serve(&data_dir, &[]);
    service.adopt(&source);
    service.adopt_as("copy", &target);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(backup["state"], "succeeded");
    let location = backup["locations"][0].as_str().unwrap();
    assert!(location.starts_with(&format!("s3://{BUCKET}/backups/")), "{location}");
    bucket.assert_one_backup(1);
    assert!(stored(&data_dir).is_empty(), "{:?}", stored(&data_dir));
    let id = backup["id"].as_str().unwrap();
    assert_eq!(service.newest_backup()["id"], id);

    let loaded = Server::start_with_rdb(&newest_redis(), &downloaded(&service, id), &[]);
    assert_eq!(loaded.digest(), source.digest());

    let named = format!("backup:{id}");
    // Answers that break off are gone on with.
    bucket.server.inject(S3Call::Get, S3Fault::CutBody, 2);
    let inspected = bucket.offline(&data_dir, &["inspect", &named, "--verify"]);
    let verdict = text(&inspected.stdout);
    assert!(verdict.contains("2001 keys"), "{verdict} {}", text(&inspected.stderr));
    assert_eq!(bucket.server.faults_left(), 0);
    let compared = bucket.offline(&data_dir, &["diff", &named, &named]);
    assert_eq!(text(&compared.stdout), "0 added, 0 removed, 0 changed, 2001 the same\n");

    let wish = ["restore", "create", "copy", "--backup", id, "--no-safety-backup", "--wait"];
    assert_eq!(service.json(&wish)["state"], "succeeded");
    assert_eq!(target.digest(), source.digest());

    assert!(service.run(&["backup", "delete", id]).status.success());
    assert_eq!(bucket.keys(), [""; 0]);
    assert!(bucket.server.part_files().is_empty());
    let gone = bucket.offline(&data_dir, &["inspect", &named]);
    assert_eq!(gone.status.code(), Some(2));
    let expected = format!("backup {id} does not exist in `s3://{BUCKET}/backups");
    assert!(text(&gone.stderr).contains(&expected), "{}", text(&gone.stderr));
}

#[test]
fn a_wrong_key_of_the_bucket_stops_the_start_and_says_so() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let mut wrong = S3Key::default();
    wrong.secret.push('x');
    for key in [wrong, S3Key { key: "AKSOMEONEELSE".to_owned(), ..S3Key::default() }] {
        let S3Key { key, secret } = key;
        let file =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        std::fs::write(bucket.credentials(), file).unwrap();
        let output = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data_dir)
            .args(bucket.settings())
            .output()
            .unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("the store denies access; check its credentials"), "{message}");
        assert!(!message.contains(&secret), "{message}");
        let named = "backup:4631832a-14c6-45b0-a0b3-3abd8f591ad1";
        let output = bucket.offline(&data_dir, &["inspect", named]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("the store denies access; check its credentials"), "{message}");
    }
    assert_eq!(bucket.keys(), [""; 0]);
}

#[test]
fn a_store_that_is_away_is_told_and_waited_for() {
    let (_folder, data_dir) = folder();
    let mut bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(100, 100);
    bucket.stop();
    let service = bucket.serve(&data_dir, &["--store-timeout", "2s"]);
    assert_eq!(service.get("/healthz"), r#"{"status":"alive"} 200"#);
    assert_eq!(service.get("/readyz"), NOT_READY);
    assert!(service.log().contains("the store is not usable now"), "{}", service.log());
    bucket.start_again();
    eventually("it is well again", || (service.get("/readyz") == READY).then_some(()));
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(backup["state"], "succeeded");
    bucket.assert_one_backup(1);
}

/// Whoever asks whether we are ready is not kept waiting as long as a backup is.
#[test]
fn a_store_that_goes_away_is_told_within_seconds() {
    let (_folder, data_dir) = folder();
    let mut bucket = Bucket::start();
    let service = bucket.serve(&data_dir, &["--request-timeout", "20s"]);
    assert_eq!(service.get("/readyz"), READY);
    bucket.stop();
    // What was found holds for a second.
    let told = eventually("it is noticed", || Some(service.get("/readyz")).filter(|r| r != READY));
    assert_eq!(told, NOT_READY);
}

#[test]
fn a_store_that_refuses_all_writes_fails_the_backup_and_nothing_is_left() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(2000, 10_000);
    let options = ["--store-timeout", "2s", "--attempts-max", "2", "--retry-pause", "10ms"];
    let service = bucket.serve(&data_dir, &options);
    service.adopt(&server);
    for (calls, what) in [
        (
            &[S3Call::Put, S3Call::CreateUpload, S3Call::UploadPart, S3Call::CompleteUpload][..],
            "all",
        ),
        (&[S3Call::UploadPart], "parts"),
        (&[S3Call::CompleteUpload], "the end"),
    ] {
        for call in calls {
            bucket.server.inject(*call, S3Fault::Refuse, u32::MAX);
        }
        let output = service.run(&["backup", "create", "orders", "--wait"]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let backup = service.newest_backup();
        assert_eq!(backup["state"], "failed", "{what}: {backup}");
        assert_eq!(backup["failure"]["dcs_code"], "dcs.08.0005", "{what}: {backup}");
        assert_eq!(bucket.keys(), [""; 0], "{what}");
        assert!(bucket.server.part_files().is_empty(), "{what}");
        eventually("the source has no child", || {
            (server.info("rdb_bgsave_in_progress") == "0").then_some(())
        });
        bucket.server.heal();
    }
    assert_eq!(service.json(&["backup", "create", "orders", "--wait"])["state"], "succeeded");
}

/// What is left of it cannot be removed: it waits for the sweep, and nobody waits for that.
#[test]
fn a_store_that_refuses_everything_fails_the_backup_and_works_on_when_it_is_well() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "500"]);
    server.fill(4000, 10_000);
    let service = bucket.serve(&data_dir, &["--store-timeout", "2s", "--attempts-max", "1"]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders"]);
    eventually("a part is there", || (!bucket.server.part_files().is_empty()).then_some(()));
    for call in [
        S3Call::Put,
        S3Call::Get,
        S3Call::Delete,
        S3Call::List,
        S3Call::CreateUpload,
        S3Call::UploadPart,
        S3Call::CompleteUpload,
    ] {
        bucket.server.inject(call, S3Fault::Refuse, u32::MAX);
    }
    let backup = service.settled();
    assert_eq!(backup["state"], "failed", "{backup}");
    assert_eq!(backup["failure"]["dcs_code"], "dcs.08.0005", "{backup}");
    assert_eq!(service.get("/readyz"), NOT_READY);
    bucket.server.heal();
    server.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    assert_eq!(service.json(&["backup", "create", "orders", "--wait"])["state"], "succeeded");
}

#[test]
fn killed_in_the_middle_of_an_upload_it_ends_truthfully_and_leaves_no_upload() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "500"]);
    server.fill(4000, 10_000);
    let mut service = bucket.serve(&data_dir, &[]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders"]);
    eventually("a part is there", || (!bucket.server.part_files().is_empty()).then_some(()));
    service.kill();
    let keys = bucket.keys();
    assert!(keys.iter().any(|key| key.ends_with("/shard-0000.rdb.zst")), "{keys:?}");
    assert!(!keys.iter().any(|key| key.ends_with("/manifest.json")), "{keys:?}");
    server.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    let service = bucket.serve(&data_dir, &[]);
    let backup = service.settled();
    assert_eq!(backup["state"], "succeeded", "{backup}");
    bucket.assert_one_backup(2);
    assert!(bucket.server.part_files().is_empty());
    let id = backup["id"].as_str().unwrap();
    let loaded = Server::start_with_rdb(&newest_redis(), &downloaded(&service, id), &[]);
    assert_eq!(loaded.digest(), server.digest());
    assert!(service.run(&["backup", "delete", id]).status.success());
    assert_eq!(bucket.keys(), [""; 0]);
}

#[test]
fn a_store_that_goes_away_in_the_middle_and_returns_is_gone_on_with() {
    let (_folder, data_dir) = folder();
    let mut bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "500"]);
    server.fill(4000, 10_000);
    let service = bucket.serve(&data_dir, &[]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders"]);
    eventually("a part is there", || (!bucket.server.part_files().is_empty()).then_some(()));
    bucket.stop();
    eventually("it is noticed", || (service.get("/readyz") == NOT_READY).then_some(()));
    eventually("the child has ended", || {
        (server.info("rdb_bgsave_in_progress") == "0").then_some(())
    });
    assert_eq!(service.newest_backup()["state"], "running");
    bucket.start_again();
    let backup = service.settled();
    assert_eq!(backup["state"], "succeeded", "{backup}");
    bucket.assert_one_backup(1);
    assert!(bucket.server.part_files().is_empty());
}

/// While the store takes nothing at all, for longer than a request may take, the source is read to
/// its end.
#[test]
fn a_store_that_stalls_does_not_slow_the_source() {
    // Until it is healed.
    const STALL: Duration = Duration::from_secs(3600);
    let bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &[]);
    // More than all queues hold, those of the sockets too.
    server.fill(1200, 100_000);
    let (_folder, data_dir) = folder();
    let service = bucket.serve(&data_dir, &[]);
    service.adopt(&server);
    bucket.server.inject(S3Call::UploadPart, S3Fault::Stall(STALL), u32::MAX);
    service.json(&["backup", "create", "orders"]);
    eventually("the source has had a child", || (server.info("total_forks") != "0").then_some(()));
    eventually("the child has ended", || {
        (server.info("rdb_bgsave_in_progress") == "0").then_some(())
    });
    assert!(bucket.server.part_files().is_empty(), "{:?}", bucket.server.part_files());
    let stalled = || bucket.server.parts_sent_again() > 0;
    eventually("a request has taken its 30 seconds", || stalled().then_some(()));
    assert_eq!(service.newest_backup()["state"], "running");
    bucket.server.heal();
    let backup = service.settled();
    assert_eq!(backup["state"], "succeeded", "{backup}");
    assert_eq!(server.info("total_forks"), "1");
    bucket.assert_one_backup(1);
}

/// What a command prints that has to fail.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_missing_bucket_is_made_only_where_that_is_allowed() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(100, 100);
    let (url, credentials) = (bucket.server.store_url("fresh"), bucket.credentials());
    let settings = ["--store", &url, "--store-credentials-file", credentials.to_str().unwrap()];
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let told = refused(&[&serve[..], &settings].concat());
    assert!(told.contains("the bucket does not exist"), "{told}");
    let options = [&settings[..], &["--store-create-bucket", "true"]].concat();
    let service = Service::start(&data_dir, &options);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(backup["state"], "succeeded");
    let location = backup["locations"][0].as_str().unwrap();
    assert!(location.starts_with("s3://fresh/backups/"), "{location}");
}

#[test]
fn a_bucket_is_tried_by_a_command_that_leaves_nothing() {
    let bucket = Bucket::start();
    let (url, credentials) = (bucket.server.store_url(BUCKET), bucket.credentials());
    let check = ["store", "check", &url, "--credentials-file", credentials.to_str().unwrap()];
    let output = Command::new(BINARY).args(check).output().unwrap();
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    assert!(told.lines().count() > 5 && told.lines().all(|line| line.starts_with("ok ")), "{told}");
    assert_eq!(bucket.keys(), [""; 0]);
    assert!(bucket.server.part_files().is_empty());
    let missing = bucket.server.store_url("fresh");
    let told = refused(&["store", "check", &missing, check[3], check[4]]);
    assert!(told.contains("the bucket does not exist"), "{told}");
}

/// The right to write is not enough: the service has to list and to remove too.
#[test]
fn a_key_that_lacks_a_right_stops_the_start_and_fails_the_command() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let (url, credentials) = (bucket.server.store_url(BUCKET), bucket.credentials());
    let check = ["store", "check", &url, "--credentials-file", credentials.to_str().unwrap()];
    let settings = bucket.settings();
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    for call in [S3Call::Put, S3Call::Get, S3Call::List, S3Call::Delete] {
        bucket.server.inject(call, S3Fault::Deny, u32::MAX);
        for command in [&check[..], &[&serve[..], &settings].concat()] {
            let told = refused(command);
            assert!(told.contains("the store denies access"), "{call:?}: {told}");
        }
        bucket.server.heal();
    }
}
