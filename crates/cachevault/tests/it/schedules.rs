//! Automatic backups by the real service.

use std::path::Path;
use std::process::Command;

use cachevault_domain::{Clock, SystemClock};
use cachevault_testkit::{Server, eventually, newest_redis, repository_file};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::service::{BINARY, Service, folder};
use crate::upkeep::offline;

/// A call of the DCS API, signed as the vendor's SDKs do; what it answers.
#[track_caller]
pub(crate) fn dcs(service: &Service, method: &str, path: &str, body: &str) -> String {
    let output = Command::new(repository_file("scripts/dcs-curl"))
        .args([method, path])
        .args((!body.is_empty()).then_some(body))
        .env("CACHEVAULT_DATA_DIR", &service.data_dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A window of 23 hours in whose last two the present moment is: every instance has begun, and none
/// comes too late on a slow machine.
pub(crate) struct OpenWindow {
    pub(crate) begin: Timestamp,
    pub(crate) end: Timestamp,
}

impl OpenWindow {
    pub(crate) fn now() -> Self {
        let this_hour = SystemClock.now().as_second() / 3600 * 3600;
        let hour = |hours: i64| Timestamp::from_second(this_hour + 3600 * hours).unwrap();
        Self { begin: hour(-21), end: hour(2) }
    }

    pub(crate) fn text(&self) -> String {
        format!("{}-{}", self.begin.strftime("%H:00"), self.end.strftime("%H:00"))
    }
}

/// A policy as the DCS API takes it, by which a backup begins at once.
pub(crate) fn policy_whose_window_is_open() -> Value {
    json!({"instance_backup_policy": {
        "backup_type": "auto",
        "save_days": 3,
        "periodical_backup_plan": {
            "begin_at": OpenWindow::now().text(),
            "period_type": "weekly",
            "backup_at": [1, 2, 3, 4, 5, 6, 7],
        },
    }})
}

/// Where the DCS API has the instance of this name.
pub(crate) fn instance_path(service: &Service, version: &str, name: &str) -> String {
    let listed = service.json(&["instance", "list"]);
    let found = listed["items"].as_array().unwrap().iter().find(|item| item["name"] == name);
    let id = found.unwrap()["id"].as_str().unwrap();
    format!("/{version}/{{project_id}}/instances/{id}")
}

/// Makes the catalog anew of what is in the store.
fn rebuild(data_dir: &Path) {
    for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        let _ = std::fs::remove_file(data_dir.join(name));
    }
    offline(data_dir, &["catalog", "rebuild", "--listen", "127.0.0.1:0"]);
}

#[test]
fn a_policy_set_over_dcs_makes_an_automatic_backup() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(2000, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let instance = instance_path(&service, "v2", "orders");
    let policy = policy_whose_window_is_open();
    let window = &policy["instance_backup_policy"]["periodical_backup_plan"]["begin_at"];
    dcs(&service, "PUT", &instance, &policy.to_string());
    let made = eventually("the automatic backup succeeds", || {
        let listed = dcs(&service, "GET", &format!("{instance}/backups"), "");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let newest = listed["backup_record_response"][0].clone();
        (newest["status"] == "succeed").then_some(newest)
    });
    assert_eq!((&made["backup_type"], &made["period"]), (&json!("auto"), window), "{made}");
    assert_eq!(made["is_support_restore"], "TRUE");
    let backup = made["backup_id"].as_str().unwrap();
    let shown = service.json(&["backup", "show", backup]);
    assert_eq!((&shown["trigger"], &shown["held"]), (&json!("automatic"), &json!(false)));
    let moment = |key: &str| shown[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    let kept = moment("keep_until").duration_since(moment("created_at"));
    assert_eq!(kept, SignedDuration::from_hours(3 * 24));
    service.json(&["backup", "hold", backup]);
    let refused = service.run(&["backup", "delete", backup]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the backup is held"));
    let v2 = dcs(&service, "DELETE", &format!("{instance}/backups/{backup}"), "");
    assert!(v2.contains("DCS.4026"), "{v2}");
    service.json(&["backup", "release", backup]);
    // What was promised is in the store too.
    drop(service);
    rebuild(&data_dir);
    let service = Service::start(&data_dir, &[]);
    let rebuilt = service.json(&["backup", "show", backup]);
    for key in ["trigger", "window", "keep_until"] {
        assert_eq!(rebuilt[key], shown[key], "{rebuilt}");
    }
    service.json(&["backup", "delete", backup]);
}

/// What people are told to type, one command after the other.
fn commands_of(page: &str) -> String {
    let page = std::fs::read_to_string(repository_file(page)).unwrap();
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .flat_map(str::lines)
        .map(|line| line.trim_start_matches("$ ").to_owned() + "\n")
        .collect()
}

#[test]
fn every_command_of_the_page_on_schedules_works() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let binaries = Path::new(BINARY).parent().unwrap().display();
    let commands = commands_of("docs/how-to/schedules.md");
    assert!(commands.lines().count() > 6, "{commands}");
    let commands = format!("PATH={binaries}:$PATH\n{commands}");
    let mut shell = Command::new("sh");
    let shell = shell.args(["-e", "-c", &commands]).env("CACHEVAULT_DATA_DIR", &data_dir);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("next_start") && told.contains("its backups stay"), "{told}");
}

#[test]
fn a_schedule_makes_backups_that_can_be_kept_when_their_instance_goes() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(2000, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    // Windows of a day, of which one began 23 hours ago: every instance has begun in it.
    let begin = SystemClock.now() - SignedDuration::from_hours(23);
    let begin = begin.to_zoned(TimeZone::get("Asia/Tokyo").unwrap());
    let pattern = begin.strftime("%M %H * * *").to_string();
    let set = ["schedule", "set", "orders", "--pattern", &pattern, "--zone", "Asia/Tokyo"];
    let kept = ["--window", "1440", "--keep-count", "2", "--missed", "catch-up"];
    let set = service.json(&[&set[..], &kept[..]].concat());
    let schedule = json!({"pattern": pattern, "zone": "Asia/Tokyo", "window_minutes": 1440});
    assert_eq!((&set["schedule"], &set["missed"]), (&schedule, &json!("catch_up")), "{set}");
    assert_eq!(service.json(&["schedule", "show", "orders"])["keep"]["count"], 2);
    let made = eventually("the automatic backup succeeds", || {
        Some(service.newest_backup()).filter(|newest| newest["state"] == "succeeded")
    });
    assert_eq!((&made["trigger"], &made["keep_until"]), (&json!("automatic"), &Value::Null));
    service.json(&["schedule", "remove", "orders"]);
    let missing = service.run(&["schedule", "show", "orders"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no backup policy"));

    let refused = service.run(&["instance", "remove", "orders"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("still has 1 backups"));
    let old = made["instance_id"].as_str().unwrap();
    service.json(&["instance", "remove", "orders", "--backups", "keep"]);
    assert_eq!(service.json(&["instance", "list"])["total"], 0);
    let listed = service.json(&["backup", "list", old]);
    assert_eq!(listed["items"], json!([made]));
    // The same server under another id takes it back.
    let backup = made["id"].as_str().unwrap();
    service.adopt(&server);
    let restored = service.json(&["restore", "create", "orders", "--backup", backup, "--wait"]);
    assert_eq!((&restored["state"], &restored["proven"]), (&json!("succeeded"), &json!(true)));
    drop(service);
    rebuild(&data_dir);
    let service = Service::start(&data_dir, &[]);
    let rebuilt = service.json(&["backup", "show", backup]);
    assert_eq!((&rebuilt["instance_id"], &rebuilt["restorable"]), (&json!(old), &json!(true)));
    service.json(&["backup", "delete", backup]);
}
