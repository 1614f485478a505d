//! kill -9 anywhere in a backup: the record ends truthfully, with a good file or with none.
//!
//! The service runs under `strace`, which kills it at the n-th call that makes something durable
//! or visible: every point where another state of disk or catalog begins. What lies between two
//! such calls cannot be told apart after a crash.

use std::process::Command;

use cachevault_testkit::{Server, eventually, newest_redis};

use crate::service::{BINARY, Service, folder, only_rdb, stored};

/// Calls after which something is on the disk that was not there before, or not any more.
const CALLS: [&str; 5] = ["fdatasync", "fsync", "rename", "unlink", "mkdir"];

/// The service as it is when the n-th `call` kills it.
fn killed_at(call: &str, n: usize) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=KILL:when={n}"), BINARY]);
    strace
}

/// Checks the promise after a restart, and that the next backup works.
fn assert_truthful(service: &Service, server: &Server, what: &str) {
    let total = service.json(&["backup", "list", "orders"])["total"].as_u64().unwrap();
    if total == 0 {
        // Killed before the request was recorded.
        assert!(stored(&service.data_dir).is_empty(), "{what}");
    } else {
        let backup = service.settled();
        assert_eq!(backup["state"], "succeeded", "{what}: {backup}");
        assert_eq!(stored(&service.data_dir).len(), 2, "{what}");
        let loaded = Server::start_with_rdb(&newest_redis(), &only_rdb(&service.data_dir), &[]);
        assert_eq!(loaded.digest(), server.digest(), "{what}");
        eventually("the source has no child", || {
            (server.info("rdb_bgsave_in_progress") == "0").then_some(())
        });
    }
}

#[test]
fn killed_at_every_durable_step_of_a_backup_it_ends_truthfully() {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(500, 100);
    let mut kills = 0;
    for call in CALLS {
        let (folder, data_dir) = folder();
        // What the first start does is not the backup's; and the instance is to be there.
        let service = Service::start(&data_dir, &[]);
        service.adopt(&server);
        drop(service);
        for n in 1.. {
            let what = format!("{call} number {n}");
            let pristine = folder.path().join(format!("{call}-{n}"));
            copy(&data_dir, &pristine);
            let Some(service) = Service::start_by(killed_at(call, n), &pristine, &[]) else {
                // Killed during its start.
                assert_truthful(&Service::start(&pristine, &[]), &server, &what);
                kills += 1;
                continue;
            };
            let done = service.run(&["backup", "create", "orders", "--wait"]).status.success();
            drop(service);
            assert_truthful(&Service::start(&pristine, &[]), &server, &what);
            std::fs::remove_dir_all(&pristine).unwrap();
            if done {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 15, "only {kills} places to kill at were found");
}

#[test]
fn killed_at_any_moment_again_and_again_it_ends_truthfully() {
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "100"]);
    server.fill(2000, 200);
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    drop(service);
    // The moments are spread over a backup, which takes about a third of a second here.
    for (round, pause_ms) in (0..400).step_by(25).enumerate() {
        let mut service = Service::start(&data_dir, &[]);
        service.json(&["backup", "create", "orders"]);
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        service.kill();
        let service = Service::start(&data_dir, &[]);
        let backup = service.settled();
        assert_eq!(backup["state"], "succeeded", "round {round}: {backup}");
        assert_eq!(stored(&data_dir).len(), 2, "round {round}");
        let loaded = Server::start_with_rdb(&newest_redis(), &only_rdb(&data_dir), &[]);
        assert_eq!(loaded.digest(), server.digest(), "round {round}");
        service.json(&["backup", "delete", backup["id"].as_str().unwrap()]);
        assert!(stored(&data_dir).is_empty(), "round {round}");
    }
}

#[test]
fn killed_during_a_removal_the_files_are_gone_after_the_next_start() {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(500, 100);
    for call in ["fdatasync", "unlink", "rmdir"] {
        for n in 1..=6 {
            let (_folder, data_dir) = folder();
            let service = Service::start(&data_dir, &[]);
            service.adopt(&server);
            let backup = service.json(&["backup", "create", "orders", "--wait"]);
            drop(service);
            let Some(service) = Service::start_by(killed_at(call, n), &data_dir, &[]) else {
                continue;
            };
            let asked = service.run(&["backup", "delete", backup["id"].as_str().unwrap()]);
            drop(service);
            let service = Service::start(&data_dir, &[]);
            let state = eventually("the removal ends", || {
                let backup = service.newest_backup();
                // Killed before the wish was recorded it is a good backup still.
                let settled = backup["state"] == "deleted" || backup["restorable"] == true;
                settled.then(|| backup["state"].as_str().unwrap().to_owned())
            });
            assert_eq!(
                stored(&data_dir).len(),
                if state == "deleted" { 0 } else { 2 },
                "{call} {n}"
            );
            assert!(
                !asked.status.success() || state == "deleted",
                "{call} {n}: told done, but is not"
            );
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
