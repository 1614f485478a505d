//! A fleet whose windows open at the same moment.

use std::collections::HashSet;
use std::thread;

use cachevault_testkit::{Server, eventually, newest_redis};
use jiff::Timestamp;

use crate::monitoring::Watched;
use crate::schedules::OpenWindow;
use crate::service::folder;

const SERVERS: usize = 50;
/// Captures at a time.
const JOBS_MAX: usize = 4;
/// Threads that start and fill servers.
const AT_A_TIME: usize = 5;

fn name(n: usize) -> String {
    format!("fleet-{n}")
}

/// Servers with a megabyte each. A capture of one takes about a second, however fast the machine is.
fn fleet() -> Vec<Server> {
    let start = || {
        let server = Server::start(&newest_redis(), &["--rdb-key-save-delay", "1000"]);
        server.fill(1000, 1000);
        server
    };
    let several = |_| (0..SERVERS / AT_A_TIME).map(|_| start()).collect::<Vec<_>>();
    thread::scope(|scope| {
        let started: Vec<_> = (0..AT_A_TIME).map(|n| scope.spawn(move || several(n))).collect();
        started.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Which servers have a child now, by their own word; looking takes a while.
fn captured(servers: &[Server]) -> HashSet<u16> {
    let has_child = |server: &&Server| server.info("rdb_bgsave_in_progress") == "1";
    servers.iter().filter(has_child).map(|server| server.port).collect()
}

#[test]
fn fifty_servers_at_the_same_moment_keep_all_limits() {
    let (_folder, data_dir) = folder();
    let servers = fleet();
    let watched = Watched::start(&data_dir, &["--jobs-max", &JOBS_MAX.to_string()]);
    let service = &watched.service;
    let window = OpenWindow::now();
    let policy = ["--policy", "auto", "--days", "1,2,3,4,5,6,7", "--save-days", "1", "--window"];
    for (n, server) in servers.iter().enumerate() {
        service.adopt_as(&name(n), server);
    }
    for n in 0..SERVERS {
        let name = name(n);
        service.json(&[&["instance", "set", &name][..], &policy, &[&window.text()]].concat());
    }
    let done = "cachevault_job_attempt_duration_seconds_count{kind=\"capture\",outcome=\"done\"}";
    let running = "cachevault_jobs{kind=\"capture\",state=\"running\"}";
    let (mut most, mut before) = (0.0_f64, HashSet::new());
    eventually("all are captured", || {
        most = most.max(watched.value(running));
        let now = captured(&servers);
        // Each is captured once: who had a child in both looks had it at the moment between them.
        let at_once = before.intersection(&now).count();
        assert!(at_once <= JOBS_MAX, "{at_once} servers have a child at the same moment");
        before = now;
        (watched.value(done) >= SERVERS as f64).then_some(())
    });
    assert_eq!(most, JOBS_MAX as f64, "what may run does run, and no more");
    for n in 0..SERVERS {
        let listed = service.json(&["backup", "list", &name(n)]);
        assert_eq!(listed["total"], 1, "{listed}");
        let backup = &listed["items"][0];
        assert_eq!(
            (&backup["state"], &backup["trigger"]),
            (&"succeeded".into(), &"automatic".into())
        );
        let moment = |key: &str| backup[key].as_str().unwrap().parse::<Timestamp>().unwrap();
        assert!(
            window.begin <= moment("started_at") && moment("completed_at") < window.end,
            "{backup}"
        );
    }
    assert!(captured(&servers).is_empty(), "no child is left");
}
