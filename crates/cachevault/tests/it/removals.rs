//! Backups that somebody deletes while they are in use.

use std::io::Read;
use std::process::Stdio;

use cachevault_testkit::{Server, eventually, newest_redis};
use serde_json::Value;

use crate::bucket::Bucket;
use crate::download::{curl, stalled};
use crate::service::{Service, client_command, folder};

fn id_of(record: &Value) -> &str {
    record["id"].as_str().unwrap()
}

/// On a bucket, as opposed to a folder, what is removed cannot be read on.
#[test]
fn who_deletes_a_backup_that_is_downloaded_waits_and_the_download_is_whole() {
    let (_folder, data_dir) = folder();
    let bucket = Bucket::start();
    let server = Server::start(&newest_redis(), &[]);
    // More than all buffers between the bucket and a client that takes nothing, some times.
    server.fill(40_000, 1000);
    let service = bucket.serve(&data_dir, &["--stall-timeout", "60s"]);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let id = id_of(&backup);
    let link = &service.json(&["backup", "link", id])["links"][0];
    let url = link["url"].as_str().unwrap();
    let (mut download, status) = stalled(url);
    assert_eq!(status, "HTTP/1.1 200");

    let mut deleting = client_command(&data_dir, &["backup", "delete", id]);
    let mut deleting = deleting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let file = data_dir.with_extension("rdb");
    eventually("its removal is asked for", || {
        (service.json(&["backup", "show", id])["restorable"] == false).then_some(())
    });
    // 22: curl's word for a refusal.
    assert_eq!(curl(&[url], &file).status.code(), Some(22));
    assert!(!bucket.keys().is_empty(), "the files went while they were read");
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap_or_default();
    let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!((rest.len() - head) as u64, link["size_bytes"].as_u64().unwrap());

    // It waits for so long; what it has begun goes on in any case.
    deleting.wait().unwrap();
    eventually("it is deleted", || {
        (service.json(&["backup", "show", id])["state"] == "deleted").then_some(())
    });
    assert_eq!(bucket.keys(), [""; 0]);
}

/// Deletes a backup, which is refused because a restore runs.
#[track_caller]
fn assert_not_deleted(service: &Service, id: &str) {
    let output = service.run(&["backup", "delete", id]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("busy"), "{told}");
    let shown = service.json(&["backup", "show", id]);
    assert_eq!((&shown["state"], &shown["restorable"]), (&"succeeded".into(), &true.into()));
}

#[test]
fn a_restore_is_cancelled_before_it_touches_its_target() {
    let (_folder, data_dir) = folder();
    let source = Server::start(&newest_redis(), &[]);
    source.fill(2000, 100);
    let target = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20000"]);
    target.fill(500, 10);
    let (old, service) = (target.digest(), Service::start(&data_dir, &[]));
    service.adopt(&source);
    service.adopt_as("copy", &target);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let restore = service.json(&["restore", "create", "copy", "--backup", id_of(&backup)]);
    eventually("its safety backup is made", || {
        (target.info("rdb_bgsave_in_progress") == "1").then_some(())
    });
    let cancelled = service.json(&["restore", "cancel", id_of(&restore)]);
    assert_eq!(
        (&cancelled["state"], &cancelled["target_data"]),
        (&"failed".into(), &"untouched".into()),
        "{cancelled}"
    );
    assert!(cancelled["cancelled_by"].as_str().unwrap().starts_with("key "), "{cancelled}");
    assert_eq!(target.info("rdb_bgsave_in_progress"), "0");
    assert_eq!((target.info("role"), target.digest()), ("master".to_owned(), old));
    let late = service.run(&["restore", "cancel", id_of(&restore)]);
    assert_eq!(late.status.code(), Some(4), "{}", String::from_utf8_lossy(&late.stderr));
}

#[test]
fn what_a_restore_needs_is_not_deleted_before_it_has_ended() {
    let (_folder, data_dir) = folder();
    let source = Server::start(&newest_redis(), &[]);
    source.fill(2000, 100);
    let target = Server::start(&newest_redis(), &[]);
    target.fill(20, 10);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&source);
    service.adopt_as("copy", &target);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    target.load_slowly();
    let wish = ["restore", "create", "copy", "--backup", id_of(&backup), "--way", "replica"];
    let restore = service.json(&wish);
    eventually("it loads", || (target.info("loading") == "1").then_some(()));
    assert_not_deleted(&service, id_of(&backup));
    // What would be put back if it failed.
    let safety = service.json(&["backup", "list", "copy"])["items"][0].clone();
    assert_not_deleted(&service, id_of(&safety));
    target.load_at_once();
    eventually("it succeeds", || {
        let restore = service.json(&["restore", "show", id_of(&restore)]);
        assert_ne!(restore["state"], "failed", "{restore}");
        (restore["state"] == "succeeded").then_some(())
    });
    assert_eq!(target.digest(), source.digest());
    for record in [&backup, &safety] {
        assert!(service.run(&["backup", "delete", id_of(record)]).status.success());
    }
}
