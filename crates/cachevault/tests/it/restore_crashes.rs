//! kill -9 anywhere in a restore: the record ends truthfully, and the target holds the old data or
//! the new, all of it, and takes writes.

use cachevault_testkit::{Server, eventually, newest_redis};
use serde_json::Value;

use crate::crashes::{CALLS_MAX, copy, killed_at};
use crate::service::{Service, folder};

/// The target's digest before and after a restore, and its settings at both times.
struct Digests {
    old: String,
    new: String,
    settings: [String; 5],
}

/// Every setting that a restore touches.
fn settings(target: &Server) -> [String; 5] {
    [
        "masterauth",
        "maxmemory-policy",
        "repl-diskless-load",
        "repl-diskless-sync-delay",
        "replica-lazy-flush",
    ]
    .map(|name| target.ask(&["CONFIG", "GET", name]))
}

/// Waits until the only restore has ended; `None` when its request was never recorded.
fn settled(service: &Service) -> Option<Value> {
    eventually("the restore ends", || {
        let listed = service.json(&["restore", "list", "copy"]);
        if listed["total"] == 0 {
            return Some(None);
        }
        let restore = &listed["items"][0];
        let has_ended = matches!(restore["state"].as_str(), Some("succeeded" | "failed"));
        has_ended.then(|| Some(restore.clone()))
    })
}

/// Checks the promise after a restart, and that the next restore works.
fn assert_truthful(service: &Service, target: &Server, digests: &Digests, what: &str) {
    let restore = settled(service);
    let (state, holds) = match &restore {
        None => ("failed", "untouched"),
        Some(restore) => {
            (restore["state"].as_str().unwrap(), restore["target_data"].as_str().unwrap())
        }
    };
    let expected = match (state, holds) {
        ("succeeded", "new") => &digests.new,
        ("failed", "old" | "untouched") => &digests.old,
        other => panic!("{what}: {other:?} {restore:?}"),
    };
    assert_eq!(target.digest(), *expected, "{what}: {restore:?}");
    assert_eq!(target.info("role"), "master", "{what}");
    assert_eq!(settings(target), digests.settings, "{what}");
    assert_eq!(target.ask(&["SET", "written", "after"]), "OK", "{what}");
}

fn killed_at_every_durable_step(way: &str) {
    let (source, target) =
        (Server::start(&newest_redis(), &[]), Server::start(&newest_redis(), &[]));
    source.fill(800, 100);
    target.fill(300, 50);
    let digests =
        Digests { old: target.digest(), new: source.digest(), settings: settings(&target) };
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    service.adopt(&source);
    service.json(&[
        "instance",
        "add",
        "--name",
        "copy",
        &format!("redis://127.0.0.1:{}", target.port),
    ]);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    drop(service);
    let id = backup["id"].as_str().unwrap();
    let restore = ["restore", "create", "copy", "--backup", id, "--way", way, "--wait"];
    let log = folder.path().join("calls");
    for n in 1..=CALLS_MAX {
        target.ask(&["FLUSHALL"]);
        target.fill(300, 50);
        assert_eq!(target.digest(), digests.old);
        let copied = folder.path().join(format!("copy-{n}"));
        copy(&data_dir, &copied);
        let _ = std::fs::remove_file(&log);
        // `None` where it was killed during its start.
        if let Some(mut service) = Service::start_by(killed_at(n, &log), &copied, &[]) {
            let done = service.run(&restore).status.success();
            if done && !service.was_killed() {
                assert!(n > 30, "only {n} calls were found");
                assert_truthful(&service, &target, &digests, "not killed");
                return;
            }
        }
        let service = Service::start(&copied, &[]);
        let what = format!("{way}: killed at call {n}");
        assert_truthful(&service, &target, &digests, &what);
        let again = service.json(&restore);
        assert_eq!(again["state"], "succeeded", "{what}, again: {again}");
        assert_eq!(target.digest(), digests.new, "{what}, again");
        drop(service);
        std::fs::remove_dir_all(&copied).unwrap();
    }
    panic!("still killed at call {CALLS_MAX}");
}

#[test]
fn killed_at_every_durable_step_of_a_restore_it_ends_truthfully() {
    killed_at_every_durable_step("replica");
}

#[test]
fn killed_at_every_durable_step_of_a_restore_by_keys_it_ends_truthfully() {
    killed_at_every_durable_step("keys");
}
