//! The data folder: who may read it, who may use it, and when it counts as new.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cachevault_testkit::{Certificates, Server, newest_redis};

use crate::service::{BINARY, Service, folder};
use crate::upkeep::offline;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What a start that is refused prints.
#[track_caller]
fn refusal(data_dir: &Path, options: &[&str]) -> String {
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let output = Command::new("timeout")
        .args(["20", BINARY])
        .args(serve.iter().chain(options))
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {told}", output.status);
    told
}

fn remove_catalog(data_dir: &Path) {
    for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        let _ = fs::remove_file(data_dir.join(name));
    }
}

#[track_caller]
fn assert_private(data_dir: &Path) {
    for file in files(data_dir) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn every_file_of_a_data_folder_that_existed_is_private() {
    let (_folder, data_dir) = folder();
    fs::create_dir(&data_dir).unwrap();
    chmod(&data_dir, 0o755);
    let server = Server::start(&newest_redis(), &[]);
    let mut service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders", "--wait"]);
    let names = ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "lock", "node-id"];
    for name in names {
        assert_eq!(mode(&data_dir.join(name)), 0o600, "{name}");
    }
    assert_private(&data_dir);
    // A killed service leaves its log; an earlier version left all of them readable.
    service.kill();
    for name in names {
        chmod(&data_dir.join(name), 0o644);
    }
    let _service = Service::start(&data_dir, &[]);
    assert_private(&data_dir);
}

#[test]
fn a_master_key_that_others_may_read_is_refused() {
    let (_folder, data_dir) = folder();
    drop(Service::start(&data_dir, &[]));
    let key = data_dir.join("master.key");
    for readable in [0o604, 0o644, 0o640, 0o660] {
        chmod(&key, readable);
        let told = refusal(&data_dir, &[]);
        let expected = format!("cannot use `{}`: other users may read it", key.display());
        assert!(told.contains(&expected) && told.contains("chmod 600"), "{told}");
    }
    chmod(&key, 0o400);
    Service::start(&data_dir, &[]);
}

#[test]
fn a_tls_key_that_others_may_read_is_refused() {
    let (folder, data_dir) = folder();
    Certificates::issue(folder.path());
    let [certificate, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name));
    chmod(&key, 0o644);
    for kind in ["", "restore-"] {
        let names = [format!("--{kind}tls-cert-file"), format!("--{kind}tls-key-file")];
        let [cert_file, key_file] = &names;
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        let told = refusal(&data_dir, &[cert_file, certificate, key_file, key]);
        assert!(told.contains(&format!("cannot use `{key}`: other users may read it")), "{told}");
    }
    chmod(&key, 0o600);
    let options =
        ["--tls-cert-file", certificate.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()];
    Service::start(&data_dir, &options);
}

#[test]
fn a_second_service_is_refused_without_the_lock_file() {
    let (_folder, data_dir) = folder();
    let _service = Service::start(&data_dir, &[]);
    fs::remove_file(data_dir.join("lock")).unwrap();
    let told = refusal(&data_dir, &[]);
    assert!(told.contains("another cachevault process uses"), "{told}");
}

#[test]
fn a_lost_catalog_is_not_a_first_start() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let made = service.json(&["backup", "create", "orders", "--wait"]);
    drop(service);
    let credentials = data_dir.join("credentials.json");
    let before = fs::read(&credentials).unwrap();
    for catalog in [None, Some("")] {
        remove_catalog(&data_dir);
        if let Some(text) = catalog {
            fs::write(data_dir.join("catalog.sqlite"), text).unwrap();
        }
        for _ in 0..2 {
            let told = refusal(&data_dir, &[]);
            assert!(told.contains("the catalog is empty"), "{told}");
            assert!(told.contains("catalog rebuild") && told.contains("start over"), "{told}");
        }
        assert_eq!(fs::read(&credentials).unwrap(), before);
    }
    offline(&data_dir, &["catalog", "rebuild", "--listen", "127.0.0.1:0"]);
    let service = Service::start(&data_dir, &[]);
    assert_eq!(service.newest_backup()["id"], made["id"]);
}

#[test]
fn a_store_with_backups_is_not_a_first_start() {
    let (folder, data_dir) = folder();
    let store = format!("file://{}", folder.path().join("store").display());
    let options = ["--store", store.as_str()];
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &options);
    service.adopt(&server);
    service.json(&["backup", "create", "orders", "--wait"]);
    drop(service);
    let fresh = folder.path().join("fresh");
    let told = refusal(&fresh, &options);
    assert!(told.contains("the catalog is empty") && told.contains("backups"), "{told}");
    assert!(!fresh.join("master.key").exists() && !fresh.join("credentials.json").exists());
    Service::start(&fresh, &[]);
}
