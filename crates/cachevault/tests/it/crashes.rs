//! kill -9 anywhere in a backup: the record ends truthfully, with a good file or with none.
//!
//! The service runs with a library that kills it at the n-th call that makes something durable or
//! visible, for every n: every point where another state of disk or catalog begins. What lies
//! between two such calls cannot be told apart after a crash.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use cachevault_testkit::{Server, eventually, newest_redis, repository_file};
use tempfile::TempDir;

use crate::service::{BINARY, Service, assert_one_backup, folder, only_rdb, stored};

/// More than any run needs: a run that is never killed ends the search.
pub(crate) const CALLS_MAX: usize = 300;

/// The library, compiled once.
static KILLER: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("kill_at.so");
    let source = repository_file("crates/cachevault/tests/it/kill_at.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    assert!(compile.arg("-ldl").status().unwrap().success());
    (folder, library)
});

/// The library that kills at a call, or lets one fail.
pub(crate) fn library() -> &'static Path {
    &KILLER.1
}

/// The service as it is when the n-th call of all kills it. The calls are written to `log`.
pub(crate) fn killed_at(n: usize, log: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.env("LD_PRELOAD", library()).env("KILL_AT", n.to_string()).env("KILL_LOG", log);
    command
}

/// How many calls of each kind a log holds.
fn count(log: &Path, call: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| *line == call).count()
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
        assert_one_backup(&stored(&service.data_dir), what);
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
    let (folder, data_dir) = folder();
    // What the first start does is not the backup's; and the instance is to be there.
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    drop(service);
    let log = folder.path().join("calls");
    for n in 1..=CALLS_MAX {
        let what = format!("killed at call {n}");
        let copied = folder.path().join(format!("copy-{n}"));
        copy(&data_dir, &copied);
        let _ = std::fs::remove_file(&log);
        // `None` where it was killed during its start.
        if let Some(mut service) = Service::start_by(killed_at(n, &log), &copied, &[]) {
            let done = service.run(&["backup", "create", "orders", "--wait"]).status.success();
            if done && !service.was_killed() {
                assert!(n > 25, "only {n} calls were found");
                for call in ["fsync", "rename", "mkdir"] {
                    assert!(count(&log, call) > 0, "{call} is not counted");
                }
                return;
            }
        }
        assert_truthful(&Service::start(&copied, &[]), &server, &what);
        std::fs::remove_dir_all(&copied).unwrap();
    }
    panic!("still killed at call {CALLS_MAX}");
}

/// Tells whether a service has come so far.
type Reached = Box<dyn Fn(&Service) -> bool>;

/// Moments within a backup that can be seen from outside, in their order.
fn moments() -> Vec<(&'static str, Reached)> {
    let logged =
        |what: &'static str| Box::new(move |service: &Service| service.log().contains(what));
    let received = |bytes: u64| {
        Box::new(move |service: &Service| {
            let size = |file: &PathBuf| file.metadata().map_or(0, |m| m.len());
            stored(&service.data_dir).iter().any(|file| size(file) >= bytes)
        })
    };
    vec![
        ("the request is recorded", Box::new(|_: &Service| true)),
        ("the capture begins", logged("step=\"capture\"")),
        ("the artifact is begun", received(0)),
        ("a part is written", received(1 << 20)),
        ("more is written", received(5 << 20)),
        ("the check begins", logged("step=\"verify\"")),
        ("the commit begins", logged("step=\"commit\"")),
        ("it is done", logged("job done")),
    ]
}

#[test]
fn killed_at_every_step_many_times_it_ends_truthfully() {
    const ROUNDS: usize = 3;
    let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "20"]);
    server.fill(1000, 10_000);
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    drop(service);
    for (name, reached) in moments() {
        for round in 0..ROUNDS {
            let what = format!("killed when {name}, round {round}");
            std::fs::remove_file(data_dir.with_extension("log")).unwrap();
            let mut service = Service::start(&data_dir, &[]);
            service.json(&["backup", "create", "orders"]);
            eventually(name, || reached(&service).then_some(()));
            service.kill();
            let service = Service::start(&data_dir, &[]);
            assert_truthful(&service, &server, &what);
            let backup = service.newest_backup();
            service.json(&["backup", "delete", backup["id"].as_str().unwrap()]);
            assert!(stored(&data_dir).is_empty(), "{what}");
        }
    }
}

#[test]
fn killed_at_every_durable_step_of_a_removal_the_files_are_gone_in_the_end() {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(500, 100);
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    drop(service);
    let id = backup["id"].as_str().unwrap();
    let log = folder.path().join("calls");
    for n in 1..=CALLS_MAX {
        let copied = folder.path().join(format!("copy-{n}"));
        copy(&data_dir, &copied);
        let _ = std::fs::remove_file(&log);
        let mut told_done = false;
        if let Some(mut service) = Service::start_by(killed_at(n, &log), &copied, &[]) {
            told_done = service.run(&["backup", "delete", id]).status.success();
            if told_done && !service.was_killed() {
                assert!(n > 8, "only {n} calls were found");
                assert!(count(&log, "unlink") > 0 && count(&log, "rmdir") > 0);
                return;
            }
        }
        let service = Service::start(&copied, &[]);
        let state = eventually("the removal ends", || {
            let backup = service.newest_backup();
            // Killed before the wish was recorded it is a good backup still.
            let settled = backup["state"] == "deleted" || backup["restorable"] == true;
            settled.then(|| backup["state"].as_str().unwrap().to_owned())
        });
        let what = format!("killed at call {n}");
        if state == "deleted" {
            assert!(stored(&copied).is_empty(), "{what}");
        } else {
            assert_one_backup(&stored(&copied), &what);
        }
        assert!(!told_done || state == "deleted", "killed at call {n}: told done, but is not");
        drop(service);
        std::fs::remove_dir_all(&copied).unwrap();
    }
    panic!("still killed at call {CALLS_MAX}");
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
