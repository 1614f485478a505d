//! A backup, downloaded by a link alone and loaded by a server that knows nothing of us.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use cachevault_testkit::{Server, newest_redis, text};

use crate::service::{Service, folder, only_rdb, stored};

/// `curl` without a header of ours, into `file`.
pub(crate) fn curl(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--output"]);
    command.arg(file).args(arguments).output().unwrap()
}

/// A service with a server of some MiB, backed up.
fn backed_up(folder: &Path, options: &[&str]) -> (Server, Service, String) {
    let server = Server::start(&newest_redis(), &[]);
    server.fill(8000, 1000);
    server.call(&["XADD", "audit", "*", "actor", "Zoë"]);
    server.call(&["HSET", "user:1", "city", "北京"]);
    let service = Service::start(folder, options);
    service.adopt(&server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let id = backup["id"].as_str().unwrap().to_owned();
    (server, service, id)
}

#[test]
fn a_backup_that_is_not_compressed_is_the_plain_rdb_and_serves_all_the_same() {
    let (folder, data_dir) = folder();
    let options = ["--compress", "false", "--encrypt", "false"];
    let (server, service, id) = backed_up(&data_dir, &options);
    let files = stored(&data_dir);
    let file = files.iter().find(|path| path.ends_with("shard-0000.rdb"));
    let rdb = std::fs::read(file.unwrap_or_else(|| panic!("{files:?}"))).unwrap();
    let loaded = Server::start_with_rdb(&newest_redis(), &rdb, &[]);
    assert_eq!(loaded.digest(), server.digest());

    let shown = service.json(&["backup", "show", &id]).to_string();
    assert!(shown.contains("shard-0000.rdb\""), "{shown}");
    let links = service.json(&["backup", "link", &id]);
    let whole = folder.path().join("whole.rdb");
    assert!(curl(&[links["links"][0]["url"].as_str().unwrap()], &whole).status.success());
    assert!(std::fs::read(&whole).unwrap() == rdb);
    assert_eq!(service.json(&["verify"])["items"][0]["damage"], serde_json::Value::Null);
    server.call(&["FLUSHALL"]);
    service.json(&["restore", "create", "orders", "--backup", &id, "--wait"]);
    assert_eq!(server.digest(), loaded.digest());
}

#[test]
fn a_downloaded_backup_is_loaded_by_a_server_and_holds_the_same_data() {
    let (folder, data_dir) = folder();
    let (server, service, id) = backed_up(&data_dir, &[]);
    let links = service.json(&["backup", "link", &id, "--expires", "10m"]);
    let link = &links["links"][0];
    let name = link["file_name"].as_str().unwrap();
    assert!(name.starts_with(&format!("redis_127.0.0.1_{}_", server.port)), "{name}");
    let url = link["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/download/", service.endpoint)), "{url}");

    let file = folder.path().join("whole.rdb");
    let output = curl(&[url], &file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rdb = std::fs::read(&file).unwrap();
    assert_eq!(link["size_bytes"], rdb.len());
    let crc64 = format!("{:016x}", u64::from_le_bytes(*rdb.last_chunk().unwrap()));
    assert_eq!(link["crc64"], crc64);
    assert!(rdb == only_rdb(&data_dir));

    // What was broken off goes on where it ended.
    let part = folder.path().join("resumed.rdb");
    std::fs::write(&part, &rdb[..rdb.len() / 3]).unwrap();
    assert!(curl(&["--continue-at", "-", url], &part).status.success());
    assert!(std::fs::read(&part).unwrap() == rdb);

    let loaded = Server::start_with_rdb(&newest_redis(), &rdb, &[]);
    assert_eq!(loaded.digest(), server.digest());
    assert_eq!(text(&loaded.call(&["DBSIZE"])), "8002");

    let printed = service.run(&["backup", "link", &id]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(curl(&[printed.trim_end()], &file).status.success(), "{printed}");
    assert!(!service.log().contains("Signature="), "the log holds a link");

    assert_eq!(service.run(&["backup", "link", &id, "--expires", "soon"]).status.code(), Some(2));
    assert_eq!(service.run(&["backup", "link", &id, "--expires", "1m"]).status.code(), Some(4));
    assert!(service.run(&["backup", "delete", &id]).status.success());
    // 22: curl's word for a refusal.
    assert_eq!(curl(&[url], &file).status.code(), Some(22));
    assert_eq!(service.run(&["backup", "link", &id]).status.code(), Some(4));
}

#[test]
fn a_damaged_backup_is_no_complete_download() {
    let (folder, data_dir) = folder();
    let (_server, service, id) = backed_up(&data_dir, &[]);
    let links = service.json(&["backup", "link", &id]);
    let artifact = stored(&data_dir).into_iter().find(|file| file.ends_with("shard-0000.rdb.zst"));
    let artifact = artifact.unwrap();
    let mut bytes = std::fs::read(&artifact).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&artifact, bytes).unwrap();
    let file = folder.path().join("dump.rdb");
    let output = curl(&[links["links"][0]["url"].as_str().unwrap()], &file);
    // 18: less came than was announced.
    assert_eq!(output.status.code(), Some(18), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(service.log().contains("download ended early"), "{}", service.log());
}

#[test]
fn links_survive_a_restart_and_stand_behind_the_public_url() {
    let (_folder, data_dir) = folder();
    let (server, service, id) = backed_up(&data_dir, &[]);
    let links = service.json(&["backup", "link", &id]);
    let url = links["links"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix(&service.endpoint).unwrap().to_owned();
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    let service = Service::start(&data_dir, &["--public-url", "https://backup.example:8443/"]);
    let file = data_dir.with_extension("rdb");
    assert!(curl(&[&format!("{}{path}", service.endpoint)], &file).status.success());
    let endpoint = service.endpoint.clone();
    let links = service.json(&["backup", "link", &id, "--endpoint", &endpoint]);
    let url = links["links"][0]["url"].as_str().unwrap();
    assert!(url.starts_with("https://backup.example:8443/download/"), "{url}");
    drop(server);
}

/// A service with one slot for downloads, and the link to a backup that is larger than all buffers
/// on the way.
fn service_with_one_slot(data_dir: &Path, server: &Server, stall: &str) -> (Service, String) {
    server.fill(40_000, 1000);
    let options = ["--downloads-max", "1", "--stall-timeout", stall, "--shutdown-grace", "500ms"];
    let service = Service::start(data_dir, &options);
    service.adopt(server);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let links = service.json(&["backup", "link", backup["id"].as_str().unwrap()]);
    let url = links["links"][0]["url"].as_str().unwrap().to_owned();
    (service, url)
}

/// Asks for a link and reads no more than the status.
pub(crate) fn stalled(url: &str) -> (TcpStream, String) {
    use std::io::Write;

    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET /{path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut first = [0; 12];
    client.read_exact(&mut first).unwrap();
    (client, String::from_utf8_lossy(&first).into_owned())
}

#[test]
fn a_client_that_has_stopped_reading_does_not_keep_its_slot() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let (service, url) = service_with_one_slot(&data_dir, &server, "2s");
    let connections = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap();
        let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    let before = connections();
    let (_first, status) = stalled(&url);
    assert_eq!(status, "HTTP/1.1 200");
    cachevault_testkit::eventually("the slot is free again", || {
        (stalled(&url).1 == "HTTP/1.1 200").then_some(())
    });
    // The first client still holds its end.
    cachevault_testkit::eventually("the stalled connection is closed", || {
        (connections() <= before).then_some(())
    });
}

#[test]
fn a_client_that_has_stopped_reading_does_not_keep_the_service_from_ending() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let (service, url) = service_with_one_slot(&data_dir, &server, "1h");
    let (_first, status) = stalled(&url);
    assert_eq!(status, "HTTP/1.1 200");
    assert_eq!(stalled(&url).1, "HTTP/1.1 503");
    let began = std::time::Instant::now();
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    assert!(began.elapsed() < std::time::Duration::from_secs(600), "{:?}", began.elapsed());
}
