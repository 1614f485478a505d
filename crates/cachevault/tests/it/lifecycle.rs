//! First start, restarts and stops.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cachevault_testkit::{Server, eventually, newest_redis};

use crate::service::{BINARY, Service, client, folder, only_rdb, stored};

#[test]
fn the_first_start_writes_keys_for_its_owner_alone() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &["--region", "eu-test"]);
    let text = std::fs::read_to_string(data_dir.join("credentials.json")).unwrap();
    let credentials: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(credentials["endpoint"], service.endpoint.as_str());
    assert_eq!(credentials["region"], "eu-test");
    assert_eq!(credentials["project_id"].as_str().unwrap().len(), 32);
    for (name, mode) in [("credentials.json", 0o600), ("master.key", 0o600), ("", 0o700)] {
        let found = std::fs::metadata(data_dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    let secret = credentials["secret_key"].as_str().unwrap();
    assert!(!service.log().contains(secret));
    for file in ["catalog.sqlite", "catalog.sqlite-wal"] {
        let bytes = std::fs::read(data_dir.join(file)).unwrap_or_default();
        assert!(
            !bytes.windows(secret.len()).any(|window| window == secret.as_bytes()),
            "{file} holds the secret in clear"
        );
    }
}

#[test]
fn a_restart_keeps_everything_and_only_the_endpoint_changes() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(100, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders", "--wait", "--note", "kept"]);
    let before = (
        service.json(&["backup", "list", "orders"]),
        service.json(&["instance", "list"])["total"].clone(),
    );
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    let service = Service::start(&data_dir, &[]);
    let after = (
        service.json(&["backup", "list", "orders"]),
        service.json(&["instance", "list"])["total"].clone(),
    );
    assert_eq!(before, after);
    assert_eq!(after.0["items"][0]["note"], "kept");
}

#[test]
fn a_second_service_on_the_same_folder_is_refused() {
    let (_folder, data_dir) = folder();
    let _service = Service::start(&data_dir, &[]);
    let second = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data_dir)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another cachevault process"));
}

#[test]
fn a_running_backup_is_cancelled() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    server.fill(2000, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let asked = service.json(&["backup", "create", "orders"]);
    let id = asked["id"].as_str().unwrap();
    eventually("the source forks", || (server.info("rdb_bgsave_in_progress") == "1").then_some(()));
    let cancelled = service.json(&["backup", "cancel", id]);
    let by = cancelled["cancelled_by"].as_str().unwrap();
    assert!(by.starts_with("key "), "{cancelled}");
    assert_eq!(cancelled["failure"]["reason"], format!("cancelled by {by}"));
    assert_eq!(server.info("rdb_bgsave_in_progress"), "0");
    let late = service.run(&["backup", "cancel", id]);
    assert_eq!(late.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&late.stderr).contains("it is `failed`"));
    server.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    let next = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(next["state"], "succeeded");
}

#[test]
fn a_stop_lets_a_running_backup_end() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "300"]);
    server.fill(2000, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders"]);
    eventually("it runs", || (service.newest_backup()["state"] == "running").then_some(()));
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    let service = Service::start(&data_dir, &[]);
    assert_eq!(service.newest_backup()["state"], "succeeded");
}

#[test]
fn a_second_signal_breaks_off_and_the_next_start_finishes() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    server.fill(2000, 100);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders"]);
    eventually("the source forks", || (server.info("rdb_bgsave_in_progress") == "1").then_some(()));
    service.signal("-INT");
    eventually("the first signal is heard", || {
        service.log().contains("stopping: what runs").then_some(())
    });
    service.signal("-INT");
    assert_eq!(service.wait(), Some(0));
    assert_eq!(server.info("rdb_bgsave_in_progress"), "0");
    assert_eq!(stored(&data_dir), [""; 0].map(std::path::PathBuf::from));
    server.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    let service = Service::start(&data_dir, &[]);
    assert_eq!(service.settled()["state"], "succeeded");
    let loaded = Server::start_with_rdb(&newest_redis(), &only_rdb(&data_dir), &[]);
    assert_eq!(loaded.digest(), server.digest());
}

#[test]
fn a_bad_configuration_is_named_and_nothing_starts() {
    let (folder, data_dir) = folder();
    let file = folder.path().join("cachevault.toml");
    std::fs::write(&file, "zstd_levle = 3\n").unwrap();
    let start = |command: &mut Command| {
        let output = command.arg("--data-dir").arg(&data_dir).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(!data_dir.exists());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let serve = || {
        let mut command = Command::new(BINARY);
        command.arg("serve");
        command
    };
    assert!(start(serve().arg("--config").arg(&file)).contains("zstd_levle"));
    assert!(start(serve().args(["--zstd-level", "99"])).contains("zstd_level"));
    assert!(start(serve().env("CACHEVAULT_JOBSMAX", "1")).contains("CACHEVAULT_JOBSMAX"));
    assert!(start(serve().env("CACHEVAULT_JOBS_MAX", "many")).contains("jobs-max"));
}

#[test]
fn settings_come_from_file_variable_and_flag_in_this_order() {
    let (folder, data_dir) = folder();
    let file = folder.path().join("cachevault.toml");
    std::fs::write(&file, "region = \"from-file\"\n").unwrap();
    let file = file.to_str().unwrap();
    let region = |service: Service| {
        let text = std::fs::read_to_string(service.data_dir.join("credentials.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["region"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let with_variable = || {
        let mut command = Command::new(BINARY);
        command.env("CACHEVAULT_REGION", "from-variable");
        command
    };
    let start = |command, options: &[&str]| Service::start_by(command, &data_dir, options).unwrap();
    assert_eq!(region(start(Command::new(BINARY), &["--config", file])), "from-file");
    assert_eq!(region(start(with_variable(), &["--config", file])), "from-variable");
    assert_eq!(
        region(start(with_variable(), &["--config", file, "--region", "from-flag"])),
        "from-flag"
    );
}

#[test]
fn a_store_that_cannot_be_used_is_told_by_readyz() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    assert_eq!(service.get("/readyz"), r#"{"status":"ready"} 200"#);
    std::fs::remove_dir_all(data_dir.join("backups")).unwrap();
    std::fs::write(data_dir.join("backups"), "no folder").unwrap();
    assert_eq!(service.get("/healthz"), r#"{"status":"alive"} 200"#);
    let told = r#"{"status":"not ready","reason":"the store cannot be used"} 503"#;
    eventually("readyz tells", || (service.get("/readyz") == told).then_some(()));
}

#[test]
fn without_a_service_the_client_says_so() {
    let (_folder, data_dir) = folder();
    assert_eq!(client(&data_dir, &["instance", "list"]).status.code(), Some(2));
    let mut service = Service::start(&data_dir, &[]);
    service.kill();
    assert_eq!(client(&data_dir, &["instance", "list"]).status.code(), Some(3));
}
