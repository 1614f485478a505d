//! What happens, told by the real service.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cachevault_testkit::{Server, newest_redis};
use serde_json::Value;

use crate::service::{BINARY, Service, folder};

/// `cachevault event follow`, ended when dropped.
struct Follower {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Follower {
    fn start(service: &Service, options: &[&str]) -> Self {
        let mut child = Command::new(BINARY)
            .args(["event", "follow", "--output", "json"])
            .args(options)
            .arg("--data-dir")
            .arg(&service.data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        Self { child, lines: Box::new(lines) }
    }

    fn kinds(&mut self, count: usize) -> Vec<String> {
        let kind = |line: String| {
            let event: Value = serde_json::from_str(&line).unwrap();
            event["kind"].as_str().unwrap().to_owned()
        };
        self.lines.by_ref().take(count).map(kind).collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_follows_misses_nothing_though_the_service_is_away_for_a_while() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let mut service = Service::start(&data_dir, &["--shutdown-grace", "10m"]);
    service.adopt(&server);
    let port = service.endpoint.rsplit_once(':').unwrap().1.to_owned();
    let mut follower = Follower::start(&service, &["--after", "0"]);
    assert_eq!(follower.kinds(1), ["instance_adopted"]);
    // The open stream does not keep it until what runs is broken off.
    let told = Instant::now();
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    assert!(told.elapsed() < Duration::from_mins(5), "{:?}", told.elapsed());
    service = Service::start(&data_dir, &["--listen", &format!("127.0.0.1:{port}")]);
    service.json(&["backup", "create", "orders", "--wait"]);
    let expected = ["backup_requested", "backup_started", "backup_succeeded"];
    assert_eq!(follower.kinds(3), expected);
    let listed = service.json(&["event", "list", "orders"]);
    let newest = listed["items"][0]["kind"].as_str();
    assert_eq!((newest, listed["items"].as_array().unwrap().len()), (Some("backup_succeeded"), 4));
}
