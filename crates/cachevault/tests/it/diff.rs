//! `cachevault diff`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cachevault_testkit::{Server, newest_redis, repository_file};
use serde_json::Value;

use crate::inspect::many_keys;
use crate::service::BINARY;

fn sample(name: &str) -> PathBuf {
    repository_file("fixtures/rdb").join(name)
}

fn diff(a: &Path, b: &Path, options: &[&str]) -> Output {
    Command::new(BINARY).arg("diff").args([a, b]).args(options).output().unwrap()
}

/// The exit code, and the lines in an order that does not depend on the passes.
#[track_caller]
fn outcome(output: &Output) -> (i32, Vec<String>) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "{stderr}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let keys = lines.len() - 1;
    lines[..keys].sort();
    (output.status.code().unwrap(), lines)
}

fn save(server: &Server) -> PathBuf {
    server.ask(&["SAVE"]);
    server.folder().join("dump.rdb")
}

#[test]
fn the_same_data_are_equal_whoever_wrote_them() {
    for kind in ["strings", "lists", "sets", "zsets", "streams"] {
        let newest = sample(&format!("valkey-9.1.2/{kind}.rdb"));
        for server in ["redis-5.0.14", "redis-6.2.16", "redis-7.0.15", "redis-7.4.1"] {
            let (code, lines) =
                outcome(&diff(&sample(&format!("{server}/{kind}.rdb")), &newest, &[]));
            assert_eq!((code, lines.len()), (0, 1), "{server} {kind}: {lines:?}");
            assert!(lines[0].starts_with("0 added, 0 removed, 0 changed, "), "{lines:?}");
        }
    }
}

#[test]
fn every_difference_is_told() {
    let (server, folder) = (Server::start(&newest_redis(), &[]), tempfile::tempdir().unwrap());
    server.ask(&["MSET", "kept", "1", "gone", "1", "value", "1", "kind", "1", "expiry", "1"]);
    server.ask(&["RPUSH", "order", "a", "b"]);
    server.ask(&["SADD", "set", "a", "b"]);
    let before = folder.path().join("before.rdb");
    fs::copy(save(&server), &before).unwrap();
    server.ask(&["DEL", "gone", "kind", "order", "set"]);
    server.ask(&["MSET", "value", "2", "new\nline", "1"]);
    server.ask(&["HSET", "kind", "f", "v"]);
    server.ask(&["RPUSH", "order", "b", "a"]);
    server.ask(&["SADD", "set", "b", "a"]);
    server.ask(&["PEXPIREAT", "expiry", "4000000000000"]);
    let after = folder.path().join("after.rdb");
    fs::copy(save(&server), &after).unwrap();
    let expected =
        ["+ 0 new\\nline", "- 0 gone", "~ 0 expiry", "~ 0 kind", "~ 0 order", "~ 0 value"];
    let (code, lines) = outcome(&diff(&before, &after, &[]));
    assert_eq!((code, lines.len()), (1, 7), "{lines:?}");
    assert_eq!(lines[..6], expected);
    assert_eq!(lines[6], "1 added, 1 removed, 4 changed, 2 the same");
    let (code, lines) = outcome(&diff(&after, &before, &["--json"]));
    assert_eq!((code, lines.len()), (1, 7));
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["change"] == "added" && line["name"] == "gone"));
    assert_eq!(lines[6]["summary"]["changed"], 4);
    server.ask(&["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)"]);
    let (code, lines) = outcome(&diff(&after, &save(&server), &[]));
    assert_eq!((code, lines.len()), (1, 1));
    assert!(lines[0].ends_with("; the functions differ"), "{lines:?}");
}

#[test]
fn little_memory_gives_the_same_result_and_is_all_that_is_used() {
    const KEYS: u32 = 300_000;
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.rdb"), folder.path().join("b.rdb"));
    fs::write(&a, many_keys((0..KEYS).filter(|n| n % 1000 != 1))).unwrap();
    fs::write(&b, many_keys((0..KEYS).rev().filter(|n| n % 1000 != 2))).unwrap();
    let (code, lines) = outcome(&diff(&a, &b, &[]));
    assert_eq!((code, lines.len()), (1, 601));
    assert_eq!(lines[600], "300 added, 300 removed, 0 changed, 299400 the same");
    // The whole table has 10 MiB.
    let small = limited(&a, &b, "3", 24 << 10);
    assert_eq!(outcome(&small), (code, lines));
}

/// With so much address space, KiB, in which all that is mapped counts, the program too.
fn limited(a: &Path, b: &Path, memory: &str, table_and_rest_kib: u64) -> Output {
    let program_kib = fs::metadata(BINARY).unwrap().len() >> 10;
    let limit = format!("ulimit -v {} && exec \"$@\"", program_kib + table_and_rest_kib);
    Command::new("sh")
        .args(["-c", &limit, "sh", BINARY, "diff", "--memory", memory])
        .args([a, b])
        .output()
        .unwrap()
}

#[test]
fn trouble_is_not_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let sound = sample("redis-7.0.15/strings.rdb");
    let cut = folder.path().join("cut.rdb");
    fs::write(&cut, &fs::read(&sound).unwrap()[..60_000]).unwrap();
    let twice = folder.path().join("twice.rdb");
    fs::write(&twice, many_keys([1, 2, 1].into_iter())).unwrap();
    let once = folder.path().join("once.rdb");
    fs::write(&once, many_keys([1, 2].into_iter())).unwrap();
    for (a, b, word) in [
        (&sound, &cut, "is damaged"),
        (&cut, &sound, "is damaged"),
        (&sound, &folder.path().join("none"), "No such file"),
        (&PathBuf::from("-"), &sound, "expected a regular file"),
        (&twice, &once, "twice"),
        (&once, &twice, "twice"),
    ] {
        let output = diff(a, b, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(word), "{word}: {stderr}");
    }
    let output = diff(&sound, &sound, &["--memory", "0"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_reader_that_has_seen_enough_learns_of_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.rdb"), folder.path().join("b.rdb"));
    fs::write(&a, many_keys(0..0)).unwrap();
    fs::write(&b, many_keys(0..50_000)).unwrap();
    let mut child = Command::new(BINARY)
        .arg("diff")
        .args([&a, &b])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]));
}

#[test]
fn keys_without_elements_are_no_difference_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.rdb"), folder.path().join("b.rdb"));
    fs::write(&a, b"REDIS0009\x00\x01k\x01v\x0e\x01l\x00\x05\x01z\x00\xff\0\0\0\0\0\0\0\0")
        .unwrap();
    fs::write(&b, b"REDIS0009\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0").unwrap();
    for (a, b) in [(&a, &b), (&b, &a)] {
        let (code, lines) = outcome(&diff(a, b, &[]));
        let summary = "0 added, 0 removed, 0 changed, 1 the same; 2 keys without elements were \
                       ignored, as servers do";
        assert_eq!((code, &lines[..]), (0, &[summary.to_owned()][..]));
        let (code, lines) = outcome(&diff(a, b, &["--json"]));
        let summary: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((code, &summary["summary"]["empty"]), (0, &2.into()));
    }
}
