//! One durable system call of the service fails, with ENOSPC or EIO: the service works on without a
//! restart, and its records are true.
//!
//! The same library that kills the service at a call makes one fail: any write, sync, rename,
//! removal or creation of a file in the data folder, of the catalog as of the store. Each kind of
//! work is counted first, and then done again and again with another call failing. What runs with
//! every test is a sample; all calls are
//!
//! ```text
//! cargo test --release -p cachevault --test it -- --ignored every_durable_call
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cachevault_testkit::{Server, eventually, newest_redis};
use serde_json::Value;

use crate::crashes::{copy, library};
use crate::service::{BINARY, Service, folder, stored};
use crate::upkeep::offline;

/// Calls of a kind of work that fail in a run with all other tests.
const SAMPLE: usize = 6;
const CONTROL_BYTES: usize = 64;
const ERRORS: [Error; 2] = [("ENOSPC", 28), ("EIO", 5)];

/// An error by its name and number.
type Error = (&'static str, i64);
/// Which of so many calls fail, and how.
type Choice = fn(usize) -> Vec<(usize, Error)>;

fn every(calls: usize) -> Vec<(usize, Error)> {
    (1..=calls).flat_map(|n| ERRORS.map(|error| (n, error))).collect()
}

/// Some in all parts of the work, always the same for the same count.
fn sample(calls: usize) -> Vec<(usize, Error)> {
    let part = calls.div_ceil(SAMPLE).max(1);
    let chosen = (0..SAMPLE).map(|n| (1 + n * part + (n * 7919 + 3) % part, ERRORS[n % 2]));
    chosen.filter(|(n, _)| *n <= calls).collect()
}

/// Says to a running service which of its calls fails.
struct Failing {
    control: File,
    path: PathBuf,
}

/// What happened since a call was to fail.
struct Counted {
    calls: usize,
    /// The call that failed.
    failed: Option<String>,
}

impl Failing {
    fn new(folder: &Path) -> Self {
        let path = folder.join("control");
        std::fs::write(&path, [0; CONTROL_BYTES]).unwrap();
        Self { control: File::options().read(true).write(true).open(&path).unwrap(), path }
    }

    fn command(&self, data_dir: &Path) -> Command {
        let mut command = Command::new(BINARY);
        command.env("LD_PRELOAD", library()).env("FAIL_CONTROL", &self.path);
        command.env("FAIL_UNDER", data_dir);
        command
    }

    /// From now on the `n`-th call fails; none if that is 0.
    fn arm(&self, n: usize, error: i64) {
        let mut control = [0; CONTROL_BYTES];
        control[..8].copy_from_slice(&n.to_ne_bytes());
        control[8..16].copy_from_slice(&error.to_ne_bytes());
        self.control.write_all_at(&control, 0).unwrap();
    }

    fn disarm(&self) -> Counted {
        let mut control = [0; CONTROL_BYTES];
        self.control.read_exact_at(&mut control, 0).unwrap();
        self.arm(0, 0);
        let number = |at: usize| usize::from_ne_bytes(control[at..at + 8].try_into().unwrap());
        let name = control[32..].split(|byte| *byte == 0).next().unwrap();
        let name = String::from_utf8(name.to_vec()).unwrap();
        Counted { calls: number(16), failed: (number(24) > 0).then_some(name) }
    }
}

/// A service whose calls can fail, a server that it backs up, and one that it restores into.
struct Rig {
    failing: Failing,
    service: Service,
    source: Server,
    target: Server,
    /// A good backup of the source.
    backup: String,
    /// Of the source, and of the target before each restore.
    digests: [String; 2],
    _folder: tempfile::TempDir,
}

impl Rig {
    fn start(options: &[&str]) -> Self {
        let engine = newest_redis();
        let (source, target) = (Server::start(&engine, &[]), Server::start(&engine, &[]));
        source.fill(200, 50);
        let (folder, data_dir) = folder();
        let failing = Failing::new(folder.path());
        let servers = engine.binary.to_str().unwrap();
        let retry = ["--retry-pause", "100ms", "--drill-servers", servers];
        let command = failing.command(&data_dir);
        let options = [&retry[..], options].concat();
        let service = Service::start_by(command, &data_dir, &options).unwrap();
        service.adopt(&source);
        service.adopt_as("copy", &target);
        let made = service.json(&["backup", "create", "orders", "--wait"]);
        let backup = made["id"].as_str().unwrap().to_owned();
        let mut rig = Self {
            failing,
            service,
            digests: [source.digest(), String::new()],
            source,
            target,
            backup,
            _folder: folder,
        };
        rig.refill();
        rig.digests[1] = rig.target.digest();
        rig
    }

    fn refill(&self) {
        self.target.ask(&["FLUSHALL"]);
        self.target.fill(60, 50);
    }

    fn items(&self, words: &[&str]) -> Vec<Value> {
        self.service.json(words)["items"].as_array().unwrap().clone()
    }

    /// Waits until nothing is done any more; all backups of the source.
    fn settled(&self, what: &str) -> Vec<Value> {
        eventually(&format!("{what}: all records have ended"), || {
            let [backups, safety, restores] = [
                ["backup", "list", "orders"],
                ["backup", "list", "copy"],
                ["restore", "list", "copy"],
            ]
            .map(|words| self.items(&words));
            let has_ended = |record: &Value| {
                let state = record["state"].as_str().unwrap();
                !matches!(state, "waiting" | "running") && record["drilling"] != true
            };
            let all = backups.iter().chain(&safety).chain(&restores).all(has_ended);
            let idle =
                self.items(&["instance", "list"]).iter().all(|one| one["operation"].is_null());
            (all && idle).then_some(backups)
        })
    }

    /// What must be true after any work, however it went.
    #[track_caller]
    fn assert_works_on(&self, what: &str) {
        for backup in self.settled(what) {
            let failure = &backup["failure"];
            // A removal that is still tried leaves a good record, with why it was not done yet.
            let is_good = failure.is_null() || failure["code"] == "removal_failed";
            let is_true = match backup["state"].as_str().unwrap() {
                "succeeded" => is_good && backup["damage"].is_null(),
                "failed" => failure["reason"].is_string(),
                "deleted" | "expired" => true,
                other => panic!("{what}: {other}"),
            };
            assert!(is_true, "{what}: {backup}");
        }
        let made = self.service.json(&["backup", "create", "orders", "--wait"]);
        assert_eq!(made["state"], "succeeded", "{what}: {made}");
        let ready = self.service.get("/readyz");
        assert!(ready.ends_with("200"), "{what}: {ready}");
    }
}

/// What can be done with a service, and how it is known what became of it.
#[derive(Clone, Copy)]
enum Work {
    Backup,
    RestoreByReplication,
    RestoreByKeys,
    Delete,
    Drill,
    Policy,
}

impl Work {
    fn options(self) -> &'static [&'static str] {
        match self {
            // Each backup pushes one out.
            Self::Policy => &["--backups-max", "2"],
            _ => &["--backups-max", "10000"],
        }
    }

    /// Does it, with what it needs made before `fail` lets a call fail.
    fn run(self, rig: &Rig, fail: impl Fn(), what: &str) -> Counted {
        match self {
            Self::Backup => rig.back_up(&fail, what),
            Self::Policy => rig.back_up_by_policy(&fail, what),
            Self::RestoreByReplication => rig.restore("replica", &fail, what),
            Self::RestoreByKeys => rig.restore("keys", &fail, what),
            Self::Delete => rig.delete(&fail, what),
            Self::Drill => rig.drill(&fail, what),
        }
    }
}

/// Each kind of work, and what must be true of what came of it.
impl Rig {
    fn back_up(&self, fail: &dyn Fn(), what: &str) -> Counted {
        fail();
        let told = self.service.run(&["backup", "create", "orders", "--wait"]);
        let newest = self.settled(what).remove(0);
        let counted = self.failing.disarm();
        if told.status.success() {
            assert_eq!(newest["state"], "succeeded", "{what}: told so, but {newest}");
        }
        counted
    }

    fn back_up_by_policy(&self, fail: &dyn Fn(), what: &str) -> Counted {
        fail();
        let set = ["schedule", "set", "orders", "--pattern", "30 2 1 1 *", "--keep-days", "7"];
        self.service.run(&set);
        self.back_up(&|| {}, what)
    }

    fn restore(&self, way: &str, fail: &dyn Fn(), what: &str) -> Counted {
        self.refill();
        let list = || self.items(&["restore", "list", "copy"]);
        let before = list().len();
        fail();
        let create = ["restore", "create", "copy", "--wait", "--way", way, "--backup"];
        self.service.run(&[&create[..], &[&self.backup]].concat());
        self.settled(what);
        let counted = self.failing.disarm();
        let restores = list();
        let newest = restores.first().filter(|_| restores.len() > before);
        let state = newest.map_or("failed", |one| one["state"].as_str().unwrap());
        let data = newest.map_or("untouched", |one| one["target_data"].as_str().unwrap());
        let expected = match (state, data) {
            ("succeeded", "new") => &self.digests[0],
            ("failed", "old" | "untouched") => &self.digests[1],
            other => panic!("{what}: {other:?} {newest:?}"),
        };
        assert_eq!(self.target.digest(), *expected, "{what}: {newest:?}");
        assert_eq!(self.target.info("role"), "master", "{what}");
        counted
    }

    fn delete(&self, fail: &dyn Fn(), what: &str) -> Counted {
        let made = self.service.json(&["backup", "create", "orders", "--wait"]);
        let id = made["id"].as_str().unwrap();
        fail();
        let told = self.service.run(&["backup", "delete", id]).status.success();
        let state = eventually(&format!("{what}: the removal ends"), || {
            let shown = self.service.json(&["backup", "show", id]);
            let has_ended = shown["state"] == "deleted" || shown["restorable"] == true;
            has_ended.then(|| shown["state"].clone())
        });
        let counted = self.failing.disarm();
        assert!(!told || state == "deleted", "{what}: told so, but it is {state}");
        let files = stored(&self.service.data_dir);
        let left = files.iter().any(|file| file.to_string_lossy().contains(id));
        assert_eq!(left, state != "deleted", "{what}: {state}");
        counted
    }

    fn drill(&self, fail: &dyn Fn(), what: &str) -> Counted {
        fail();
        self.service.run(&["drill", &self.backup]);
        self.settled(what);
        let counted = self.failing.disarm();
        self.service.json(&["drill", &self.backup]);
        let shown = self.service.json(&["backup", "show", &self.backup]);
        assert!(shown["proven_at"].is_string(), "{what}: {shown}");
        counted
    }
}

/// Does the work once for each chosen call and each error.
fn each_call_fails_once(work: Work, choose: Choice) {
    let rig = Rig::start(work.options());
    let counted = work.run(&rig, || rig.failing.arm(0, 0), "nothing fails");
    assert!(counted.calls > 20, "only {} calls were counted", counted.calls);
    let mut failed = 0;
    for (n, (name, error)) in choose(counted.calls) {
        let what = format!("call {n} of {}, {name}", counted.calls);
        let call = work.run(&rig, || rig.failing.arm(n, error), &what).failed;
        failed += usize::from(call.is_some());
        rig.assert_works_on(&format!("{what}, which was {call:?}"));
    }
    assert!(failed > 0, "no call failed");
    // Everything that is said to be good is read once more.
    rig.service.json(&["verify"]);
    assert_eq!(rig.source.digest(), rig.digests[0]);
    let log = rig.service.log();
    assert!(!log.contains("panicked at"), "{log}");
}

/// What is done to a data folder that no service uses.
#[derive(Clone, Copy)]
enum Offline {
    Start,
    Rebuild,
    Rotate,
}

impl Offline {
    /// Runs it; its exit code matters to nobody, as long as it ends.
    fn run(self, failing: &Failing, data_dir: &Path) {
        let words = match self {
            Self::Start => {
                // Ended at once when it has started.
                drop(Service::start_by(failing.command(data_dir), data_dir, &[]));
                return;
            }
            Self::Rebuild => ["catalog", "rebuild"],
            Self::Rotate => ["key", "rotate"],
        };
        let mut command = failing.command(data_dir);
        command.args(words).arg("--data-dir").arg(data_dir);
        command.output().unwrap();
    }
}

fn each_call_of_a_command_fails_once(work: Offline, choose: Choice) {
    let source = Server::start(&newest_redis(), &[]);
    source.fill(200, 50);
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    service.adopt(&source);
    let made = service.json(&["backup", "create", "orders", "--wait"]);
    let id = made["id"].as_str().unwrap();
    drop(service);
    if matches!(work, Offline::Rebuild) {
        for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
            let _ = std::fs::remove_file(data_dir.join(name));
        }
    }
    let failing = Failing::new(folder.path());
    let attempt = |n, error, name: &str| {
        let copied = folder.path().join(name);
        copy(&data_dir, &copied);
        failing.arm(n, error);
        work.run(&failing, &copied);
        (failing.disarm(), copied)
    };
    let (counted, _) = attempt(0, 0, "counted");
    assert!(counted.calls > 4, "only {} calls were counted", counted.calls);
    for (n, (name, error)) in choose(counted.calls) {
        let (failed, copied) = attempt(n, error, &format!("{name}-{n}"));
        let what = format!("call {n} of {}, {name}: {:?}", counted.calls, failed.failed);
        if matches!(work, Offline::Rebuild) {
            offline(&copied, &["catalog", "rebuild"]);
        }
        let service = Service::start(&copied, &[]);
        let shown = service.json(&["backup", "show", id]);
        assert_eq!(shown["restorable"], true, "{what}: {shown}");
        service.json(&["verify"]);
        let made = service.json(&["backup", "create", "orders", "--wait"]);
        assert_eq!(made["state"], "succeeded", "{what}: {made}");
        drop(service);
        std::fs::remove_dir_all(&copied).unwrap();
    }
}

/// A test of a sample of calls, and one of all.
macro_rules! failing {
    ($($sample:ident, $all:ident: $each:ident($work:expr);)+) => {
        $(
            #[test]
            fn $sample() {
                $each($work, sample);
            }

            #[test]
            #[ignore = "takes long: each call of the work fails by itself"]
            fn $all() {
                $each($work, every);
            }
        )+
    };
}

failing! {
    a_failed_durable_call_of_a_backup_is_survived, every_durable_call_of_a_backup_fails_once:
        each_call_fails_once(Work::Backup);
    a_failed_durable_call_of_a_restore_is_survived, every_durable_call_of_a_restore_fails_once:
        each_call_fails_once(Work::RestoreByReplication);
    a_failed_durable_call_of_a_restore_by_keys_is_survived,
    every_durable_call_of_a_restore_by_keys_fails_once:
        each_call_fails_once(Work::RestoreByKeys);
    a_failed_durable_call_of_a_removal_is_survived, every_durable_call_of_a_removal_fails_once:
        each_call_fails_once(Work::Delete);
    a_failed_durable_call_of_a_drill_is_survived, every_durable_call_of_a_drill_fails_once:
        each_call_fails_once(Work::Drill);
    a_failed_durable_call_of_a_policy_is_survived, every_durable_call_of_a_policy_fails_once:
        each_call_fails_once(Work::Policy);
    a_failed_durable_call_of_a_start_is_survived, every_durable_call_of_a_start_fails_once:
        each_call_of_a_command_fails_once(Offline::Start);
    a_failed_durable_call_of_a_rebuild_is_survived, every_durable_call_of_a_rebuild_fails_once:
        each_call_of_a_command_fails_once(Offline::Rebuild);
    a_failed_durable_call_of_a_rotation_is_survived, every_durable_call_of_a_rotation_fails_once:
        each_call_of_a_command_fails_once(Offline::Rotate);
}
