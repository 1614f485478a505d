//! A data folder of an earlier version: all that it held is there, and works.
//!
//! `fixtures/upgrade/make` wrote them; each is named after the last migration that it knew.

use std::process::Command;

use cachevault_testkit::{Server, eventually, newest_redis, repository_file};
use serde_json::Value;

use crate::service::{Service, folder};

/// What an upgrade leaves as it was, of whatever is listed.
const LASTING: [&str; 16] = [
    "id",
    "name",
    "note",
    "created_at",
    "completed_at",
    "instance_id",
    "size_bytes",
    "held",
    "proven_at",
    "proven_by",
    "removed_at",
    "backup_id",
    "safety_backup_id",
    "target_data",
    "address",
    "url",
];

#[test]
fn a_data_folder_of_an_earlier_version_opens_with_all_that_it_held() {
    opens_with_all_that_it_held("catalog-0016");
}

fn opens_with_all_that_it_held(version: &str) {
    let fixture = |ending| repository_file(&format!("fixtures/upgrade/{version}.{ending}"));
    let told = std::fs::read(fixture("json")).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let (folder, data_dir) = folder();
    let mut tar = Command::new("tar");
    tar.args(["-xzpf"]).arg(fixture("tar.gz")).arg("-C").arg(folder.path());
    assert!(tar.status().unwrap().success());

    let service = Service::start(&data_dir, &[]);
    assert_told_alike(&service, &told["lists"]);
    assert_backups_work(&service, &told);
    assert_interrupted_backup_ends(&service);
}

#[track_caller]
fn assert_told_alike(service: &Service, lists: &Value) {
    for (command, before) in lists.as_object().unwrap() {
        let words: Vec<_> = command.split(' ').collect();
        let after = service.json(&words);
        assert_eq!(after["total"], before["total"], "{command}");
        for earlier in before["items"].as_array().unwrap() {
            let mut items = after["items"].as_array().unwrap().iter();
            let now = items.find(|item| item["id"] == earlier["id"]);
            let now = now.unwrap_or_else(|| panic!("{command}: {earlier} is gone"));
            let is_running = earlier["state"] == "running";
            for field in LASTING.iter().filter(|_| !is_running) {
                assert_eq!(now[field], earlier[field], "{command}: {field} of {now}");
            }
            assert!(is_running || now["state"] == earlier["state"], "{command}: {now}");
        }
    }
}

/// What was encrypted under both master keys is whole, can be restored, and a new backup made.
#[track_caller]
fn assert_backups_work(service: &Service, told: &Value) {
    let verified = service.json(&["verify"]);
    assert_eq!(verified["total"], 4, "{verified}");
    for backup in verified["items"].as_array().unwrap() {
        assert_eq!(backup["damage"], Value::Null, "{backup}");
    }
    let target = Server::start(&newest_redis(), &[]);
    service.adopt_as("fresh", &target);
    for (id, keys) in [("held", "501"), ("proven", "500"), ("after_rotation", "501")] {
        let id = told[id].as_str().unwrap();
        let restore = service.json(&["restore", "create", "--backup", id, "fresh", "--wait"]);
        assert_eq!((&restore["state"], &restore["proven"]), (&"succeeded".into(), &true.into()));
        assert_eq!(target.ask(&["DBSIZE"]), keys, "{restore}");
    }
    let backup = service.json(&["backup", "create", "fresh", "--wait"]);
    assert_eq!(backup["state"], "succeeded");
}

/// A backup of a server that was gone when the earlier version was killed.
#[track_caller]
fn assert_interrupted_backup_ends(service: &Service) {
    let backup = service.json(&["backup", "list", "gone"])["items"][0].clone();
    service.run(&["backup", "cancel", backup["id"].as_str().unwrap()]);
    let ended = eventually("the interrupted backup ends", || {
        let backup = service.json(&["backup", "list", "gone"])["items"][0].clone();
        (backup["state"] == "failed").then_some(backup)
    });
    assert!(ended["failure"].is_object() || ended["failure"].is_string(), "{ended}");
}
