//! What people and scripts see.

use std::process::Command;

use cachevault_testkit::{Server, eventually, newest_redis};

use crate::service::{BINARY, Service, folder, stored};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_whole_life_of_a_backup() {
    let (_folder, data_dir) = folder();
    let mut server = Server::start(&newest_redis(), &["--requirepass", "s3cret/%"]);
    server.log_in(&["s3cret/%"]);
    server.fill(100, 50);
    let service = Service::start(&data_dir, &[]);
    let url = format!("redis://:s3cret%2F%25@127.0.0.1:{}", server.port);
    let instance = service.json(&["instance", "add", "--name", "orders", &url]);
    assert_eq!((&instance["has_password"], &instance["reachable"]), (&true.into(), &true.into()));
    let listed = service.run(&["instance", "list"]);
    assert!(
        text(&listed.stdout).contains("orders") && text(&listed.stdout).contains("redis 7.0.15")
    );

    let backup = service.json(&["backup", "create", "orders", "--wait", "--note", "by hand"]);
    assert_eq!(
        (backup["state"].as_str(), backup["note"].as_str()),
        (Some("succeeded"), Some("by hand"))
    );
    let rdb = &backup["artifacts"][0]["rdb"];
    assert_eq!(
        (&rdb["header"], &rdb["content"]["state"]),
        (&"REDIS0010".into(), &"verified".into())
    );
    assert_eq!(rdb["content"]["digest"]["key_count"], 100);
    assert_eq!(rdb["content"]["report"]["total"]["keys"], 100);
    let location = backup["locations"][0].as_str().unwrap();
    assert!(std::path::Path::new(location).is_file(), "{location}");
    let id = backup["id"].as_str().unwrap();
    let table = service.run(&["backup", "list", "orders"]);
    assert!(text(&table.stdout).contains(id) && text(&table.stdout).contains("100.00 %"));
    assert!(service.run(&["backup", "show", id]).status.success());

    let removal = service.run(&["instance", "remove", "orders"]);
    assert_eq!(removal.status.code(), Some(4));
    assert!(
        text(&removal.stderr).contains("say whether to delete or to keep them"),
        "{}",
        text(&removal.stderr)
    );
    assert!(service.run(&["backup", "delete", id]).status.success());
    assert!(stored(&data_dir).is_empty());
    assert_eq!(service.run(&["backup", "delete", id]).status.code(), Some(4));
    assert!(service.run(&["instance", "remove", "orders"]).status.success());
    assert_eq!(service.json(&["instance", "list"])["total"], 0);
    assert!(!service.log().contains("s3cret"), "the log holds a password");
    for file in ["catalog.sqlite", "catalog.sqlite-wal"] {
        let bytes = std::fs::read(data_dir.join(file)).unwrap();
        assert!(
            !bytes.windows(6).any(|window| window == b"s3cret"),
            "{file} holds a password in clear"
        );
    }
}

#[test]
fn a_remark_of_somebody_else_commands_no_terminal() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &[]);
    service.adopt(&server);
    let remark = "\u{1b}]0;owned\u{7}\u{9b}2J";
    let backup = service.json(&["backup", "create", "orders", "--wait", "--note", remark]);
    assert_eq!(backup["note"], remark, "nothing is lost");
    let id = backup["id"].as_str().unwrap();
    for (arguments, shown) in [
        (&["backup", "list", "orders"][..], "\\u001b]0;owned\\u0007\\u009b2J"),
        (&["backup", "show", id], "\\u001b]0;owned\\u0007\\u009b2J"),
        (&["backup", "list", "orders", "--output", "json"], "\\u009b2J"),
    ] {
        let printed = text(&service.run(arguments).stdout);
        assert!(!printed.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{printed:?}");
        assert!(printed.contains(shown), "{printed}");
    }
}

/// What commands a terminal, and what forges a line.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";

fn assert_harmless(printed: &str) {
    assert!(!printed.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{printed:?}");
    assert!(printed.contains("\\u001b]0;owned"), "{printed}");
}

#[test]
fn no_log_line_commands_a_terminal_or_forges_another() {
    for format in ["text", "json"] {
        let (folder, _) = folder();
        let data_dir = folder.path().join(format!("{HOSTILE}\nforged"));
        let service = Service::start(&data_dir, &["--log-format", format]);
        let log = eventually("the log tells of the folder", || {
            Some(service.log()).filter(|log| log.contains("owned"))
        });
        assert_harmless(&log);
        assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
    }
}

#[test]
fn nothing_of_a_path_or_a_file_commands_a_terminal() {
    let (folder, _) = folder();
    let missing = folder.path().join(HOSTILE);
    let missing = missing.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        text(&output.stdout) + &text(&output.stderr)
    };
    for arguments in [
        &["store", "check", "file:///proc/%1b%5d0;owned%07%c2%9b2J%e2%80%ae"][..],
        &["serve", "--tls-cert-file", missing, "--tls-key-file", missing],
        &["serve", "--config", missing],
    ] {
        assert_harmless(&run(arguments));
    }
    // A manifest is what somebody else may have written.
    for command in [&["inspect"][..], &["diff", "backup:x"]] {
        let name = format!("backup:{HOSTILE}");
        let data_dir = ["--data-dir", missing];
        let printed = run(&[command, &[name.as_str()][..], &data_dir[..]].concat());
        assert!(!printed.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{printed:?}");
    }
}

#[test]
fn a_user_without_a_password_and_a_url_with_database_0_are_taken() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    server.fill(10, 5);
    let acl = ["ACL", "SETUSER", "backup", "on", "nopass", "~*", "+@all"];
    server.call(&acl);
    let service = Service::start(&data_dir, &[]);
    let url = format!("redis://backup@127.0.0.1:{}/0", server.port);
    service.json(&["instance", "add", "--name", "orders", &url]);
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(backup["state"], "succeeded");
}

#[test]
fn a_server_that_cannot_be_adopted_is_explained() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &["--requirepass", "right"]);
    let service = Service::start(&data_dir, &["--command-timeout", "500ms"]);
    let add = |url: &str| {
        let output = service.run(&["instance", "add", "--name", "x", url]);
        (output.status.code(), text(&output.stderr))
    };
    let port = server.port;
    for (url, code, word) in [
        (format!("redis://127.0.0.1:{port}"), 4, "requires a password"),
        (format!("redis://:wrong@127.0.0.1:{port}"), 4, "refused the user name or password"),
        ("redis://127.0.0.1:1".to_owned(), 4, "refused the connection"),
        (format!("rediss://:right@127.0.0.1:{port}"), 4, "TLS"),
        (format!("http://127.0.0.1:{port}"), 2, "redis://"),
    ] {
        let (status, message) = add(&url);
        assert_eq!(status, Some(code), "{url}: {message}");
        assert!(message.contains(word), "{url}: {message}");
    }
    assert!(add(&format!("redis://:right@127.0.0.1:{port}")).0 == Some(0));
    let (status, message) = add(&format!("redis://:right@127.0.0.1:{port}"));
    assert_eq!((status, message.contains("exists already")), (Some(4), true), "{message}");
}

#[test]
fn a_failed_backup_is_an_exit_code_and_a_reason() {
    let (_folder, data_dir) = folder();
    let mut server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &["--retry-pause", "10ms"]);
    service.adopt(&server);
    server.kill();
    let output = service.run(&["backup", "create", "orders", "--wait"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the backup failed"), "{}", text(&output.stderr));
    assert_eq!(service.newest_backup()["failure"]["dcs_code"], "dcs.08.0001");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output =
            std::process::Command::new(BINARY).args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains("cachevault"), "{shell}");
    }
}
