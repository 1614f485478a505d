//! A store is known by its id: another one, an empty mount point, one that is gone.

use std::fs;
use std::path::{Path, PathBuf};

use cachevault_testkit::{Server, eventually, newest_redis};

use crate::bucket::Bucket;
use crate::service::{Service, client, folder};

const FOREIGN: &str = r#"{"status":"not ready","reason":"the store is not the one that the backups are in; see `cachevault store accept` and `cachevault catalog rebuild`"} 503"#;

/// A service whose store is a folder that may be taken away.
struct Rig {
    _folder: tempfile::TempDir,
    data_dir: PathBuf,
    vault: PathBuf,
    server: Server,
}

impl Rig {
    fn new() -> Self {
        let (folder, data_dir) = folder();
        let vault = folder.path().join("vault");
        let server = Server::start(&newest_redis(), &[]);
        server.ask(&["SET", "a", "1"]);
        Self { _folder: folder, data_dir, vault, server }
    }

    fn store(&self) -> String {
        format!("--store=file://{}", self.vault.display())
    }

    fn serve(&self) -> Service {
        Service::start(&self.data_dir, &[&self.store()])
    }

    /// Runs a command that takes the settings of `serve`.
    #[track_caller]
    fn offline(&self, command: &[&str]) -> String {
        let output = client(&self.data_dir, &[command, &[&self.store()]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn take_away(&self) -> PathBuf {
        let away = self.vault.with_extension("away");
        fs::rename(&self.vault, &away).unwrap();
        away
    }

    fn id(&self) -> String {
        fs::read_to_string(self.vault.join(".cachevault-store")).unwrap()
    }
}

fn back_up(service: &Service) -> String {
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    backup["id"].as_str().unwrap().to_owned()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Nothing is done in the wrong store: no backup, no removal.
#[track_caller]
fn assert_refuses(service: &Service, backup: &str) {
    eventually("readyz tells", || (service.get("/readyz") == FOREIGN).then_some(()));
    let made = service.run(&["backup", "create", "orders", "--wait"]);
    assert!(!made.status.success());
    let failed = service.newest_backup();
    let told = (&failed["state"], &failed["failure"]["dcs_code"]);
    assert_eq!(told, (&"failed".into(), &"dcs.08.0005".into()), "{failed}");
    let removed = service.run(&["backup", "delete", backup]);
    assert!(!removed.status.success());
    let shown = service.json(&["backup", "show", backup]);
    assert_eq!(shown["state"], "succeeded", "{shown}");
}

#[test]
fn an_empty_mount_point_at_the_next_start_is_not_taken_for_the_store() {
    let rig = Rig::new();
    let service = rig.serve();
    service.adopt(&rig.server);
    let backup = back_up(&service);
    service.signal("-INT");
    assert_eq!(service.wait(), Some(0));
    let away = rig.take_away();
    fs::create_dir(&rig.vault).unwrap();
    let service = rig.serve();
    assert_refuses(&service, &backup);
    assert!(is_empty(&rig.vault));
    // Also where it is gone as a whole.
    drop(service);
    fs::remove_dir(&rig.vault).unwrap();
    let service = rig.serve();
    eventually("readyz tells", || (service.get("/readyz") == FOREIGN).then_some(()));
    assert!(!rig.vault.exists());
    drop(service);
    fs::rename(away, &rig.vault).unwrap();
    let service = rig.serve();
    assert_eq!(service.get("/readyz"), r#"{"status":"ready"} 200"#);
    // What somebody wanted to delete goes, now that it can.
    eventually("it is removed", || {
        let shown = service.json(&["backup", "show", &backup]);
        (shown["state"] == "deleted").then_some(())
    });
    back_up(&service);
}

#[test]
fn a_folder_that_is_unmounted_under_the_service_is_noticed() {
    let rig = Rig::new();
    let service = rig.serve();
    service.adopt(&rig.server);
    let backup = back_up(&service);
    let away = rig.take_away();
    fs::create_dir(&rig.vault).unwrap();
    assert_refuses(&service, &backup);
    assert!(is_empty(&rig.vault));
    fs::remove_dir(&rig.vault).unwrap();
    fs::rename(away, &rig.vault).unwrap();
    eventually("it is ready again", || {
        (service.get("/readyz") == r#"{"status":"ready"} 200"#).then_some(())
    });
    back_up(&service);
}

#[test]
fn a_bucket_without_the_id_is_not_taken_for_the_store() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &[]);
    let service = bucket.serve(&data_dir, &[]);
    service.adopt(&server);
    let backup = back_up(&service);
    fs::remove_file(bucket.server.file("backups/.cachevault-store")).unwrap();
    drop(service);
    let before = bucket.server.keys();
    let service = bucket.serve(&data_dir, &[]);
    assert_refuses(&service, &backup);
    assert_eq!(bucket.server.keys(), before);
}

#[test]
fn a_store_is_accepted_by_command() {
    let rig = Rig::new();
    let service = rig.serve();
    service.adopt(&rig.server);
    let backup = back_up(&service);
    drop(service);
    let (id, away) = (rig.id(), rig.take_away());
    fs::create_dir(&rig.vault).unwrap();
    let told = rig.offline(&["store", "accept"]);
    assert!(told.contains("it holds 0 of the catalog's 1 backups"), "{told}");
    assert_ne!(rig.id(), id);
    let service = rig.serve();
    assert_eq!(service.get("/readyz"), r#"{"status":"ready"} 200"#);
    assert!(!service.run(&["verify", "orders"]).status.success());
    assert_eq!(service.json(&["backup", "show", &backup])["restorable"], false);
    back_up(&service);
    drop(service);
    // The earlier one is another store now.
    fs::remove_dir_all(&rig.vault).unwrap();
    fs::rename(away, &rig.vault).unwrap();
    let service = rig.serve();
    eventually("readyz tells", || (service.get("/readyz") == FOREIGN).then_some(()));
}

#[test]
fn a_rebuilt_catalog_keeps_the_id_of_its_store() {
    let rig = Rig::new();
    let service = rig.serve();
    service.adopt(&rig.server);
    back_up(&service);
    drop(service);
    let id = rig.id();
    fs::remove_file(rig.data_dir.join("catalog.sqlite")).unwrap();
    let rebuild = ["catalog", "rebuild", "--listen", "127.0.0.1:0"];
    assert!(rig.offline(&rebuild).contains("added 1 backups"));
    assert_eq!(rig.id(), id);
    let service = rig.serve();
    assert_eq!(service.get("/readyz"), r#"{"status":"ready"} 200"#);
    drop(service);
    // A copy of it under another id, as after `store accept` elsewhere, is taken over too.
    let other = id.replace(&id[20..24], "0000");
    assert_ne!(other, id);
    fs::write(rig.vault.join(".cachevault-store"), &other).unwrap();
    let service = rig.serve();
    eventually("readyz tells", || (service.get("/readyz") == FOREIGN).then_some(()));
    drop(service);
    assert!(rig.offline(&rebuild).contains("1 were known"));
    assert_eq!(rig.id(), other);
    let service = rig.serve();
    assert_eq!(service.get("/readyz"), r#"{"status":"ready"} 200"#);
}
