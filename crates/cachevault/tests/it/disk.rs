//! The disk of the data folder becomes full, and has room again.

use std::fs;
use std::io::Write;
use std::path::Path;

use cachevault_testkit::{Server, eventually, newest_redis};
use serde_json::Value;

use crate::monitoring::Watched;
use crate::service::{Service, folder};
use crate::sources::SmallDisk;

const MIB: usize = 1 << 20;

/// Writes until a file has this size, or its disk is full.
fn fill(path: &Path, mib: usize) {
    let mut file = fs::File::create(path).unwrap();
    for _ in 0..mib * 256 {
        if file.write_all(&[7; 4096]).is_err() {
            return;
        }
    }
}

fn kinds(service: &Service) -> Vec<String> {
    let events = service.json(&["event", "list"]);
    let kind = |event: &Value| event["kind"].as_str().unwrap().to_owned();
    let items = events["items"].as_array().unwrap();
    items.iter().map(kind).filter(|kind| kind.starts_with("disk_")).collect()
}

#[test]
fn new_work_is_refused_before_the_disk_is_full() {
    let (folder, data_dir) = folder();
    let disk = SmallDisk::mount_sized(&data_dir, 48);
    let server = Server::start(&newest_redis(), &[]);
    let watched = Watched::start(&data_dir, &["--disk-reserve-mib", "16"]);
    let service = &watched.service;
    service.adopt(&server);
    service.json(&["backup", "create", "orders", "--wait"]);
    let filler = data_dir.join("filler");
    fill(&filler, 36);
    eventually("it is recorded", || (kinds(service) == ["disk_low"]).then_some(()));
    let ready = eventually("it is not ready", || {
        Some(service.get("/readyz")).filter(|answer| answer.ends_with("503"))
    });
    assert!(ready.contains("a disk of the service is nearly full"), "{ready}");
    let refused = service.run(&["backup", "create", "orders"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("the disk of its data folder has"), "{told}");
    assert!(told.contains("disk_reserve_mib"), "{told}");
    let event = &service.json(&["event", "list"])["items"][0];
    assert!(event["detail"].as_str().unwrap().contains("MiB free"), "{event}");
    assert_eq!(event["instance_id"], Value::Null);
    let free = watched.value("cachevault_disk_free_bytes{folder=\"data\"}");
    assert!(free < watched.value("cachevault_disk_reserve_bytes"), "{free}");
    fs::remove_file(&filler).unwrap();
    eventually("it has room", || (kinds(service).len() == 2).then_some(()));
    assert_eq!(kinds(service), ["disk_recovered", "disk_low"]);
    let told = service.json(&["webhook", "add", "https://hooks.example.org/cachevault"]);
    assert!(told["kinds"].as_array().unwrap().contains(&"disk_low".into()), "{told}");
    let made = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(made["state"], "succeeded");
    drop((watched, disk, folder));
}

#[test]
fn a_service_whose_disk_was_full_works_on_without_a_restart() {
    let (folder, data_dir) = folder();
    let disk = SmallDisk::mount_sized(&data_dir, 20);
    let store = folder.path().join("store");
    let store = format!("file://{}", store.display());
    let server = Server::start(&newest_redis(), &[]);
    server.fill(1000, 1000);
    let service = Service::start(&data_dir, &["--store", &store, "--disk-reserve-mib", "0"]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders", "--wait"]);
    let filler = data_dir.join("filler");
    fill(&filler, 2 * MIB);
    eventually("the catalog is full", || {
        let created = service.run(&["backup", "create", "orders"]);
        let is_full = !created.status.success() && service.log().contains("disk is full");
        is_full.then_some(())
    });
    fs::remove_file(&filler).unwrap();
    let ended = service.settled();
    assert!(ended["state"] == "succeeded" || ended["state"] == "failed", "{ended}");
    let made = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(made["state"], "succeeded");
    assert!(service.get("/readyz").ends_with("200"));
    drop((service, disk, folder));
}

/// Begins something, lets the disk become full while it runs, and waits until that was noticed or
/// it is over.
fn under_a_full_disk(service: &Service, words: &[&str], is_over: impl Fn() -> bool) {
    let said = service.log().len();
    let _ = service.run(words);
    let filler = service.data_dir.join("filler");
    fill(&filler, MIB);
    eventually("it is noticed", || {
        let log = service.log();
        let new = &log[said..];
        let noticed = new.contains("no space left") || new.contains("disk is full");
        (noticed || is_over()).then_some(())
    });
    // Nothing can be asked for as long as it lasts, and that is told.
    let refused = service.run(&["backup", "create", "orders"]);
    assert_ne!(refused.status.code(), Some(101), "{refused:?}");
    fs::remove_file(&filler).unwrap();
}

#[test]
fn each_kind_of_job_outlives_a_full_disk_under_the_whole_data_folder() {
    let (folder, data_dir) = folder();
    let disk = SmallDisk::mount_sized(&data_dir, 32);
    let engine = newest_redis();
    let delayed = |name: &str| Server::start(&engine, &[name, "2000"]);
    let (source, target) = (delayed("--rdb-key-save-delay"), delayed("--key-load-delay"));
    source.fill(500, 1000);
    target.fill(50, 100);
    let (new, old) = (source.digest(), target.digest());
    let service = Service::start(&data_dir, &["--disk-reserve-mib", "0", "--retry-pause", "1s"]);
    service.adopt(&source);
    service.adopt_as("copy", &target);
    let good = service.json(&["backup", "create", "orders", "--wait"]);
    let good = good["id"].as_str().unwrap();
    let ended = |record: &Value| !matches!(record["state"].as_str(), Some("waiting" | "running"));

    under_a_full_disk(&service, &["backup", "create", "orders"], || {
        ended(&service.newest_backup())
    });
    let backup = service.settled();
    assert!(backup["state"] == "succeeded" || backup["failure"]["reason"].is_string(), "{backup}");

    let newest = || service.json(&["restore", "list", "copy"])["items"][0].clone();
    let restore = ["restore", "create", "copy", "--backup", good];
    under_a_full_disk(&service, &restore, || ended(&newest()));
    let restored = eventually("the restore ends", || Some(newest()).filter(&ended));
    let expected = match (restored["state"].as_str(), restored["target_data"].as_str()) {
        (Some("succeeded"), Some("new")) => &new,
        (Some("failed"), Some("old" | "untouched")) => &old,
        _ => panic!("{restored}"),
    };
    assert_eq!(target.digest(), *expected, "{restored}");

    let doomed = service.json(&["backup", "create", "orders", "--wait"]);
    let doomed = doomed["id"].as_str().unwrap();
    let shown = || service.json(&["backup", "show", doomed]);
    let is_removed = || shown()["state"] == "deleted";
    under_a_full_disk(&service, &["backup", "delete", doomed], is_removed);
    eventually("the removal ends", || {
        (is_removed() || shown()["restorable"] == true).then_some(())
    });

    let made = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(made["state"], "succeeded", "{made}");
    service.json(&["verify"]);
    assert!(service.get("/readyz").ends_with("200"));
    assert_eq!(source.digest(), new);
    drop((service, disk, folder));
}

#[test]
fn a_small_disk_is_of_use_with_default_settings() {
    let (folder, data_dir) = folder();
    let disk = SmallDisk::mount_sized(&data_dir, 20);
    let server = Server::start(&newest_redis(), &[]);
    let watched = Watched::start(&data_dir, &[]);
    watched.service.adopt(&server);
    let made = watched.service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(made["state"], "succeeded");
    let reserve = watched.value("cachevault_disk_reserve_bytes");
    assert_eq!(reserve, (20 * MIB / 16) as f64);
    drop((watched, disk, folder));
}

#[test]
fn a_backup_in_a_folder_beside_the_catalog_leaves_it_room() {
    let (folder, data_dir) = folder();
    let disk = SmallDisk::mount_sized(&data_dir, 48);
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &["--disk-reserve-mib", "16", "--compress", "false"]);
    service.adopt(&server);
    server.fill(36, MIB);
    let made = service.run(&["backup", "create", "orders", "--wait"]);
    assert!(!made.status.success());
    let failed = service.settled();
    let reason = failed["failure"]["reason"].as_str().unwrap();
    assert!(reason.contains("no space left in the store"), "{failed}");
    assert_eq!(failed["failure"]["dcs_code"], "dcs.08.0006", "{failed}");
    drop((service, disk, folder));
}

#[test]
fn a_recovery_while_the_service_was_down_is_recorded() {
    let (folder, data_dir) = folder();
    let disk = SmallDisk::mount_sized(&data_dir, 48);
    let flags = ["--disk-reserve-mib", "16"];
    let mut service = Service::start(&data_dir, &flags);
    let filler = data_dir.join("filler");
    fill(&filler, 36);
    eventually("it is recorded", || (kinds(&service) == ["disk_low"]).then_some(()));
    service.kill();
    let service = Service::start(&data_dir, &flags);
    eventually("it is not ready", || service.get("/readyz").ends_with("503").then_some(()));
    assert_eq!(kinds(&service), ["disk_low"], "it is the same shortage");
    drop(service);
    fs::remove_file(&filler).unwrap();
    let service = Service::start(&data_dir, &flags);
    let expected = ["disk_recovered", "disk_low"];
    eventually("it has room", || (kinds(&service) == expected).then_some(()));
    drop((service, disk, folder));
}
