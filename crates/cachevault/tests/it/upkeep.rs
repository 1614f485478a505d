//! Looking after what is stored: checks, a lost catalog, another master key.

use std::path::Path;
use std::process::{Command, Output};

use cachevault_testkit::{Server, eventually, newest_redis};
use serde_json::Value;

use crate::place::{Place, everywhere};
use crate::service::{BINARY, Service, folder};

everywhere!(
    verify_says_what_is_damaged_and_it_is_not_restored,
    a_lost_catalog_comes_back_from_the_store,
    another_master_key_seals_the_keys_of_backups_anew,
);

/// A service with one backup of a server, and the backup's id.
fn backed_up(place: &Place, data_dir: &Path) -> (Server, Service, String) {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(2000, 100);
    let service = place.serve(data_dir);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let id = backup["id"].as_str().unwrap().to_owned();
    (server, service, id)
}

/// Runs a command on the data folder of a service that is stopped.
#[track_caller]
pub(crate) fn offline(data_dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    let Output { status, stdout, stderr } =
        command.args(words).arg("--data-dir").arg(data_dir).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn verify_says_what_is_damaged_and_it_is_not_restored(place: &Place) {
    let (_folder, data_dir) = folder();
    let (_server, service, id) = backed_up(place, &data_dir);
    let checked = service.json(&["verify"]);
    assert_eq!(checked["items"][0]["damage"], Value::Null, "{checked}");
    assert!(checked["items"][0]["checked_at"].is_string());
    // Of two shares one holds it.
    let shares = ["1/2", "2/2"].map(|share| service.json(&["verify", "--subset", share]));
    let counts = shares.map(|checked| checked["total"].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), 1, "{counts:?}");

    let artifact = place.file(&data_dir, "shard");
    let good = std::fs::read(&artifact).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&artifact, bad).unwrap();
    let output = service.run(&["verify", "orders"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("1 of 1 backups are damaged"), "{told}");
    let shown = service.json(&["backup", "show", &id]);
    assert_eq!(shown["restorable"], false, "{shown}");
    assert!(shown["damage"].as_str().unwrap().contains("some of them were changed"), "{shown}");
    let refused = service.run(&["restore", "create", "orders", "--backup", &id]);
    assert_eq!(refused.status.code(), Some(4));

    std::fs::write(&artifact, good).unwrap();
    service.json(&["verify"]);
    assert_eq!(service.json(&["backup", "show", &id])["restorable"], true);
}

fn a_lost_catalog_comes_back_from_the_store(place: &Place) {
    let (_folder, data_dir) = folder();
    let (server, service, id) = backed_up(place, &data_dir);
    let shown = |service: &Service| {
        let mut shown = service.json(&["backup", "show", &id]);
        // The manifest has the moments of the capture, a little apart from those of the job.
        for moment in ["started_at", "completed_at"] {
            shown.as_object_mut().unwrap().remove(moment).unwrap();
        }
        shown
    };
    let before = shown(&service);
    drop(service);
    for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        let _ = std::fs::remove_file(data_dir.join(name));
    }
    // The key of the project is lost too.
    std::fs::remove_file(data_dir.join("credentials.json")).unwrap();
    // Whatever the log says goes to standard error.
    let settings = place.settings();
    let settings = settings.iter().map(String::as_str);
    let rebuild = ["catalog", "rebuild", "--listen", "127.0.0.1:0"];
    let rebuild: Vec<_> = rebuild.into_iter().chain(settings).collect();
    let refused = Command::new(BINARY).args(&rebuild).arg("--data-dir").arg(&data_dir).output();
    let refused = refused.unwrap();
    let told = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(told.contains("added 1 backups, 0 were known"), "{told}");
    assert!(offline(&data_dir, &rebuild).contains("added 0 backups, 1 were known"));

    let service = place.serve(&data_dir);
    assert_eq!(shown(&service), before);
    let digest = server.digest();
    server.ask(&["FLUSHALL"]);
    let restored = service.json(&["restore", "create", "orders", "--backup", &id, "--wait"]);
    assert_eq!(restored["state"], "succeeded", "{restored}");
    assert_eq!(server.digest(), digest);
}

fn another_master_key_seals_the_keys_of_backups_anew(place: &Place) {
    let (_folder, data_dir) = folder();
    let (server, service, id) = backed_up(place, &data_dir);
    drop(service);
    let old_key = place.file(&data_dir, "data-key");
    let artifact = std::fs::read(place.file(&data_dir, "shard")).unwrap();
    let told = offline(&data_dir, &["key", "rotate"]);
    assert!(told.contains("1 earlier ones stay"), "{told}");
    let service = place.serve(&data_dir);
    eventually("the key is sealed anew", || (!old_key.exists()).then_some(()));
    assert_eq!(std::fs::read(place.file(&data_dir, "shard")).unwrap(), artifact);
    assert_eq!(service.json(&["verify"])["items"][0]["damage"], Value::Null);
    drop(service);
    // Without the earlier key too, as far as the store goes.
    let path = data_dir.join("master.key");
    let keys = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, keys.lines().next().unwrap()).unwrap();
    let source = format!("backup:{id}");
    let mut inspect = vec!["inspect", &source, "--verify"];
    let settings = place.settings();
    inspect.extend(settings.iter().map(String::as_str));
    let verdict = offline(&data_dir, &inspect);
    assert!(verdict.contains("2000 keys"), "{verdict}");
    drop(server);
}
