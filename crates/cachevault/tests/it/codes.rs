//! Each state and each code of the vendor's documents, from a natural cause on real parts, seen
//! through both versions of the DCS API and through our own.

use cachevault_domain::{Clock, SystemClock};
use cachevault_testkit::{S3Call, S3Fault, S3Key, Server, eventually, newest_redis};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::schedules::{dcs, instance_path, policy_whose_window_is_open};
use crate::service::{Service, folder, stored};
use crate::sources::SmallDisk;

/// Attempts that fail are few and quick.
const QUICKLY: [&str; 6] =
    ["--attempts-max", "1", "--retry-pause", "10ms", "--store-timeout", "2s"];

/// A server whose child takes so long that nothing a test waits for meanwhile is too late.
fn slow_server() -> Server {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "30000"]);
    server.fill(4000, 100);
    server
}

fn quick_server() -> Server {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(500, 100);
    server
}

fn id_of(record: &Value) -> &str {
    record["id"].as_str().unwrap()
}

/// The record of this id in a list of the DCS API.
#[track_caller]
fn dcs_record(service: &Service, version: &str, name: &str, list: &str, id: &str) -> Value {
    let path = format!("{}/{list}s", instance_path(service, version, name));
    let answer: Value = serde_json::from_str(&dcs(service, "GET", &path, "")).unwrap();
    let records = answer[format!("{list}_record_response")].as_array().unwrap();
    let found = records.iter().find(|record| record[format!("{list}_id")] == id);
    found.unwrap_or_else(|| panic!("{answer}")).clone()
}

/// Checks how a record looks in both versions of the DCS API.
#[track_caller]
fn assert_dcs(service: &Service, name: &str, list: &str, id: &str, status: &str, code: &Value) {
    for version in ["v1.0", "v2"] {
        let seen = dcs_record(service, version, name, list, id);
        assert_eq!((&seen["status"], &seen["error_code"]), (&json!(status), code), "{seen}");
    }
}

/// Checks that our own API says why and what to do; gives the reason.
#[track_caller]
fn assert_explained(record: &Value, code: &str) -> String {
    let failure = &record["failure"];
    assert_eq!(failure["dcs_code"], code, "{record}");
    assert!(failure["hint"].as_str().unwrap().len() > 40, "{record}");
    let reason = failure["reason"].as_str().unwrap();
    assert!(!reason.is_empty());
    reason.to_owned()
}

/// Checks that the newest backup has failed with this code, in every API; gives the reason.
#[track_caller]
fn assert_failed(service: &Service, code: &str) -> String {
    let backup = service.settled();
    assert_eq!(backup["state"], "failed", "{backup}");
    assert_dcs(service, "orders", "backup", id_of(&backup), "failed", &json!(code));
    assert_explained(&backup, code)
}

#[test]
fn each_state_comes_and_a_source_that_dies_is_0001() {
    let (_folder, data_dir) = folder();
    let (mut slow, quick) = (slow_server(), quick_server());
    let options = [&QUICKLY[..], &["--jobs-max", "1", "--backups-max", "1"]].concat();
    let service = Service::start(&data_dir, &options);
    service.adopt_as("slow", &slow);
    service.adopt(&quick);
    let assert_state = |name: &str, backup: &Value, status: &str| {
        assert_dcs(&service, name, "backup", id_of(backup), status, &Value::Null);
    };
    let running = service.json(&["backup", "create", "slow"]);
    eventually("it runs", || {
        let shown = service.json(&["backup", "show", id_of(&running)]);
        (shown["state"] == "running").then_some(())
    });
    let waiting = service.json(&["backup", "create", "orders"]);
    assert_state("slow", &running, "backuping");
    assert_state("orders", &waiting, "waiting");

    slow.kill();
    let failed = eventually("the capture fails", || {
        let shown = service.json(&["backup", "show", id_of(&running)]);
        (shown["state"] == "failed").then_some(shown)
    });
    assert_explained(&failed, "dcs.08.0001");
    assert_dcs(&service, "slow", "backup", id_of(&failed), "failed", &json!("dcs.08.0001"));

    let first = service.settled();
    assert_state("orders", &first, "succeed");
    let second = service.json(&["backup", "create", "orders", "--wait"]);
    eventually("there were too many", || {
        let shown = service.json(&["backup", "show", id_of(&first)]);
        (shown["state"] == "expired").then_some(())
    });
    assert_state("orders", &first, "expired");
    service.json(&["backup", "delete", id_of(&second)]);
    assert_state("orders", &second, "deleted");
}

/// Has the newest backup made by a policy of its own, which keeps one and whose window of a day began
/// so many hours ago; gives its record.
#[track_caller]
fn made_by_policy(service: &Service, hours_ago: i64) -> Value {
    let before = service.newest_backup();
    let begin = SystemClock.now() - SignedDuration::from_hours(hours_ago);
    let pattern = begin.strftime("%M %H * * *").to_string();
    let schedule = ["schedule", "set", "orders", "--pattern", &pattern, "--zone", "UTC"];
    service.json(&[&schedule[..], &["--window", "1440", "--keep-count", "1"]].concat());
    eventually("the automatic backup succeeds", || {
        let newest = service.newest_backup();
        (newest["id"] != before["id"] && newest["state"] == "succeeded").then_some(newest)
    })
}

#[test]
fn an_automatic_backup_expires_when_its_policy_keeps_it_no_longer() {
    let (_folder, data_dir) = folder();
    let server = quick_server();
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let first = made_by_policy(&service, 23);
    assert_dcs(&service, "orders", "backup", id_of(&first), "succeed", &Value::Null);
    made_by_policy(&service, 22);
    eventually("the first one expires", || {
        let shown = service.json(&["backup", "show", id_of(&first)]);
        (shown["state"] == "expired").then_some(())
    });
    assert_dcs(&service, "orders", "backup", id_of(&first), "expired", &Value::Null);
    for version in ["v1.0", "v2"] {
        let seen = dcs_record(&service, version, "orders", "backup", id_of(&first));
        assert_eq!((&seen["backup_type"], &seen["period"].is_string()), (&json!("auto"), &true));
    }
}

#[test]
fn a_deadline_that_passes_is_0002() {
    let (_folder, data_dir) = folder();
    let server = slow_server();
    let service = Service::start(&data_dir, &["--capture-timeout", "500ms"]);
    service.adopt(&server);
    service.run(&["backup", "create", "orders", "--wait"]);
    let reason = assert_failed(&service, "dcs.08.0002");
    assert!(reason.contains("the limit"), "{reason}");
}

#[test]
fn files_that_the_store_does_not_remove_are_0003_until_they_are_gone() {
    let (_folder, data_dir) = folder();
    let (bucket, server) = (Bucket::start(), quick_server());
    let service = bucket.serve(&data_dir, &QUICKLY);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let id = id_of(&backup);
    bucket.server.inject(S3Call::Delete, S3Fault::Deny, u32::MAX);
    assert!(!service.run(&["backup", "delete", id]).status.success());
    let shown = eventually("it says so", || {
        let shown = service.json(&["backup", "show", id]);
        shown["failure"].is_object().then_some(shown)
    });
    assert_eq!((&shown["state"], &shown["restorable"]), (&json!("succeeded"), &json!(false)));
    let reason = assert_explained(&shown, "dcs.08.0003");
    assert!(reason.contains("denies access"), "{reason}");
    assert_dcs(&service, "orders", "backup", id, "succeed", &json!("dcs.08.0003"));
    bucket.server.heal();
    service.json(&["backup", "delete", id]);
    assert_dcs(&service, "orders", "backup", id, "deleted", &Value::Null);
}

#[test]
fn a_key_that_the_store_no_longer_takes_is_0004() {
    let (_folder, data_dir) = folder();
    let (bucket, server) = (Bucket::start(), quick_server());
    let service = bucket.serve(&data_dir, &QUICKLY);
    service.adopt(&server);
    let other = S3Key { secret: "another secret".to_owned(), ..S3Key::default() };
    bucket.server.rotate(other);
    service.run(&["backup", "create", "orders", "--wait"]);
    let reason = assert_failed(&service, "dcs.08.0004");
    assert!(reason.contains("check its credentials"), "{reason}");
    // The hint helps.
    bucket.server.write_credentials(&bucket.credentials());
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(backup["state"], "succeeded");
}

#[test]
fn a_store_that_takes_no_writes_is_0005() {
    let (_folder, data_dir) = folder();
    let (bucket, server) = (Bucket::start(), quick_server());
    let service = bucket.serve(&data_dir, &QUICKLY);
    service.adopt(&server);
    bucket.server.inject(S3Call::Put, S3Fault::Refuse, u32::MAX);
    service.run(&["backup", "create", "orders", "--wait"]);
    assert_failed(&service, "dcs.08.0005");
}

#[test]
fn a_full_disk_and_a_damaged_file_are_0006() {
    let (folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(2000, 10_000);
    let disk = SmallDisk::mount(&data_dir.join("backups"));
    let service = Service::start(&data_dir, &QUICKLY);
    service.adopt(&server);
    service.run(&["backup", "create", "orders", "--wait"]);
    let reason = assert_failed(&service, "dcs.08.0006");
    assert!(reason.contains("no space left"), "{reason}");

    server.ask(&["FLUSHALL"]);
    server.fill(500, 100);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let files = stored(&data_dir);
    let artifact = files.iter().find(|file| file.ends_with("shard-0000.rdb.zst")).unwrap();
    let mut bytes = std::fs::read(artifact).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(artifact, bytes).unwrap();
    service.run(&["restore", "create", "orders", "--backup", id_of(&backup), "--wait"]);
    let restore = service.json(&["restore", "list", "orders"])["items"][0].clone();
    assert_explained(&restore, "dcs.08.0006");
    assert_eq!(restore["target_data"], "untouched", "{restore}");
    assert_dcs(&service, "orders", "restore", id_of(&restore), "failed", &json!("dcs.08.0006"));
    drop((service, disk, folder));
}

#[test]
fn a_target_that_dies_while_it_loads_is_0007() {
    let (_folder, data_dir) = folder();
    let (source, mut target) = (quick_server(), Server::start(&newest_redis(), &[]));
    let service = Service::start(&data_dir, &QUICKLY);
    service.adopt(&source);
    service.adopt_as("copy", &target);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    target.load_slowly();
    service.json(&["restore", "create", "copy", "--backup", id_of(&backup), "--way", "replica"]);
    eventually("it loads", || (target.info("loading") == "1").then_some(()));
    target.kill();
    // Whatever it holds then, the restore does not end before that is known.
    target.start_again();
    let restore = eventually("the restore fails", || {
        let restore = service.json(&["restore", "list", "copy"])["items"][0].clone();
        (restore["state"] == "failed").then_some(restore)
    });
    assert_explained(&restore, "dcs.08.0007");
    assert_dcs(&service, "copy", "restore", id_of(&restore), "failed", &json!("dcs.08.0007"));
}

#[test]
fn an_automatic_backup_that_finds_its_instance_busy_is_0008() {
    let (_folder, data_dir) = folder();
    let server = slow_server();
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let manual = service.json(&["backup", "create", "orders"]);
    let policy = policy_whose_window_is_open();
    dcs(&service, "PUT", &instance_path(&service, "v2", "orders"), &policy.to_string());
    let skipped = eventually("the automatic one is recorded", || {
        let newest = service.newest_backup();
        (newest["id"] != manual["id"]).then_some(newest)
    });
    let reason = assert_explained(&skipped, "dcs.08.0008");
    assert!(reason.contains("capture"), "{reason}");
    assert_dcs(&service, "orders", "backup", id_of(&skipped), "failed", &json!("dcs.08.0008"));
    let seen = dcs_record(&service, "v2", "orders", "backup", id_of(&skipped));
    assert_eq!(seen["backup_type"], "auto");
}
