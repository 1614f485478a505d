//! What a backup does to its source and to the machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cachevault_testkit::{Server, eventually, free_port, newest_redis};

use crate::place::{Place, everywhere};
use crate::service::{BINARY, Service, folder, only_rdb, stored};

everywhere!(memory_is_a_constant_whatever_the_size_of_the_data);

/// Resident memory of a process at this moment and at its highest, KiB.
pub(crate) fn resident_kib(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// What a process takes from now on in comparison with what it takes now.
struct Growth {
    pid: u32,
    before_kib: u64,
}

impl Growth {
    fn since_now(pid: u32) -> Self {
        // Sets the highest back to what it is at this moment.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Self { pid, before_kib: resident_kib(pid).0 }
    }

    /// Checks that it was never more than one backup may take.
    #[track_caller]
    fn assert_small(&self) {
        const LIMIT_KIB: u64 = 64 << 10;
        let (_, highest) = resident_kib(self.pid);
        let before = self.before_kib;
        assert!(highest <= before + LIMIT_KIB, "{before} KiB before, {highest} KiB at the highest");
    }
}

fn memory_is_a_constant_whatever_the_size_of_the_data(place: &Place) {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    // What the service holds is looked at. Where it is slower than its source, glibc keeps up to 30
    // MiB more of what several threads have freed, unless large pieces are mapped one by one.
    let mut command = Command::new(BINARY);
    command.env("MALLOC_MMAP_THRESHOLD_", "65536");
    let service = place.serve_by(command, &data_dir);
    service.adopt(&server);
    // A first one brings the code into memory: pages of the binary count too.
    service.json(&["backup", "create", "orders", "--wait"]);
    server.fill(27_000, 10_000);
    let growth = Growth::since_now(service.pid());
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    assert!(backup["artifacts"][0]["stored_bytes"].as_u64().unwrap() > 256 << 20, "{backup}");
    growth.assert_small();
}

/// A small file system, gone when dropped; whoever has files open there has to go first.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A file system of its own needs a privilege; where there is none, root in a namespace has it.
    pub(crate) fn mount(folder: &Path) -> Self {
        Self::mount_sized(folder, 2)
    }

    pub(crate) fn mount_sized(folder: &Path, mib: u32) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={mib}m");
        let mount = ["-t", "tmpfs", "-o", &size, "tmpfs", folder.to_str().unwrap()];
        let mounted = Command::new("mount").args(mount).stderr(Stdio::null()).status().unwrap();
        assert!(mounted.success(), "this test mounts a small file system and has to run as root");
        Self(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn what_a_source_cannot_bear_is_waited_for_and_then_told() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(100, 100);
    let service =
        Service::start(&data_dir, &["--memory-reserve-percent", "100", "--busy-timeout", "5s"]);
    service.adopt(&server);
    service.json(&["backup", "create", "orders"]);
    let waiting = "waiting: the source's machine has ";
    eventually("it says what it waits for", || {
        let phase = service.newest_backup()["phase"].clone();
        phase.as_str().filter(|phase| phase.starts_with(waiting)).map(drop)
    });
    let failed = eventually("it gives up", || {
        let backup = service.newest_backup();
        (backup["state"] == "failed").then_some(backup)
    });
    assert_eq!(failed["failure"]["dcs_code"], "dcs.08.0002");
    let reason = failed["failure"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("gave up waiting after 5 s: "), "{reason}");
    assert!(reason.contains("lower `memory_reserve_percent`"), "{reason}");
    assert_eq!(server.info("total_forks"), "0");
    drop(service);
    let service = Service::start(&data_dir, &[]);
    let made = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(made["state"], "succeeded");
}

#[test]
fn a_full_disk_fails_the_backup_and_leaves_nothing() {
    let (folder, data_dir) = folder();
    let disk = SmallDisk::mount(&data_dir.join("backups"));
    let server = Server::start(&newest_redis(), &[]);
    server.fill(2000, 10_000);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let output = service.run(&["backup", "create", "orders", "--wait"]);
    let backup = service.newest_backup();
    let left = stored(&data_dir);
    server.ask(&["FLUSHALL"]);
    let retried = service.json(&["backup", "create", "orders", "--wait"]);
    drop((service, disk, folder));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        (&backup["state"], &backup["failure"]["dcs_code"]),
        (&"failed".into(), &"dcs.08.0006".into())
    );
    assert!(backup["failure"]["reason"].as_str().unwrap().contains("no space left"), "{backup}");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(retried["state"], "succeeded");
}

#[test]
fn sentinels_never_hear_of_a_capture() {
    let engine = newest_redis();
    let (folder, data_dir) = folder();
    let primary = Server::start(&engine, &["--rdb-key-save-delay", "1500"]);
    primary.fill(8000, 1000);
    let port = free_port();
    let configuration = folder.path().join("sentinel.conf");
    let monitor = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {} 1\n",
        folder.path().display(),
        primary.port
    );
    std::fs::write(&configuration, monitor).unwrap();
    let mut sentinel = Command::new(&engine.binary)
        .arg(&configuration)
        .arg("--sentinel")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ask = |what: &str| {
        let output = Command::new("redis-cli")
            .args(["-p", &port.to_string(), "sentinel", what, "mymaster"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let refreshed = || -> Option<u64> {
        let master = ask("master");
        let mut lines = master.lines().skip_while(|line| *line != "info-refresh").skip(1);
        lines.next()?.parse().ok()
    };
    eventually("the sentinel knows its primary", || refreshed().filter(|age| *age < 60_000));
    let service = Service::start(&data_dir, &[]);
    service.adopt(&primary);
    service.json(&["backup", "create", "orders"]);
    // The primary lists us for as long as it sends; the sentinel reads that list every 10 seconds.
    eventually("the primary lists us", || primary.info("slave0").contains("65536").then_some(()));
    let age = refreshed().unwrap();
    eventually("the sentinel has read it", || refreshed().filter(|now| *now < age));
    assert!(primary.info("slave0").contains("65536"), "the capture was over too soon");
    let replicas = ask("replicas");
    primary.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    assert_eq!(service.settled()["state"], "succeeded");
    let written = std::fs::read_to_string(&configuration).unwrap();
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    assert_eq!(replicas.trim(), "");
    assert!(!written.contains("known-replica"), "{written}");
    assert_eq!(primary.info("connected_slaves"), "0");
    let loaded = Server::start_with_rdb(&engine, &only_rdb(&data_dir), &[]);
    assert_eq!(loaded.digest(), primary.digest());
}
