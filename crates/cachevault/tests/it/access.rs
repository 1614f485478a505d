//! Projects, users and keys by the command line, over restarts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::service::{Service, client_command, folder};
use crate::sources::resident_kib;

const PASSWORD: &str = "correct horse battery";

/// What a client of Keystone gets from the service, with the token where there is one.
fn keystone(service: &Service, arguments: &[&str], path: &str) -> (String, Value) {
    let url = format!("{}{path}", service.endpoint);
    let output = Command::new("curl")
        .args(["-s", "-i", "--noproxy", "*", "-H", "content-type: application/json"])
        .args(arguments)
        .arg(&url)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn a_team_gets_a_project_a_user_and_a_key_of_its_own() {
    let (_folder, data_dir) = folder();
    let mut service = Service::start(&data_dir, &["--region", "eu-test"]);
    let first = service.json(&["project", "list"]);
    assert_eq!((&first["total"], &first["items"][0]["name"]), (&json!(1), &json!("eu-test")));
    service.json(&["project", "create", "team"]);
    let password_file = data_dir.with_extension("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    let password_file = password_file.to_str().unwrap();
    service.json(&["user", "create", "jane@example.org", "--password-file", password_file]);
    let grant = ["user", "grant", "jane@example.org", "--project", "team", "--role", "operator"];
    let user = service.json(&grant);
    assert_eq!(user["grants"][0]["project_name"], "team");
    let key_file = data_dir.with_extension("key.json");
    let saved = key_file.to_str().unwrap();
    let key = service.json(&[
        "credential",
        "create",
        "--project",
        "team",
        "--role",
        "admin",
        "--save",
        saved,
    ]);
    assert_eq!((&key["role"], key.get("secret_key")), (&json!("admin"), None));
    assert_eq!(std::fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let of_team = service.json(&["project", "list", "--credentials", saved]);
    assert_eq!((&of_team["total"], &of_team["items"][0]["name"]), (&json!(1), &json!("team")));
    let denied = service.run(&["user", "list", "--credentials", saved]);
    assert_eq!(denied.status.code(), Some(4));
    let table = service.run(&["credential", "list", "--credentials", saved]);
    let access_key = key["access_key"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&table.stdout).contains(access_key));

    let user =
        json!({"name": "jane@example.org", "password": PASSWORD, "domain": {"id": "default"}});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let scope = json!({"project": {"name": "team"}});
    let body = json!({"auth": {"identity": identity, "scope": scope}}).to_string();
    let (head, token) = keystone(&service, &["-d", &body], "/v3/auth/tokens");
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    assert_eq!(token["token"]["roles"][0]["name"], "operator");
    let text = head.lines().find_map(|line| line.strip_prefix("x-subject-token: ")).unwrap();
    let header = format!("x-auth-token: {text}");
    let url = token["token"]["catalog"][1]["endpoints"][0]["url"].as_str().unwrap();
    let list = format!("{}/instances", url.strip_prefix(&service.endpoint).unwrap());

    service.kill();
    let service = Service::start(&data_dir, &["--region", "eu-test"]);
    let (head, body) = keystone(&service, &["-H", &header], &list);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body["instance_num"], 0);
    service.json(&["user", "disable", "jane@example.org"]);
    let (head, _) = keystone(&service, &["-H", &header], &list);
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    for secret in [PASSWORD, text] {
        assert_nowhere_in_clear(&service, secret);
    }
}

fn assert_nowhere_in_clear(service: &Service, secret: &str) {
    assert!(!service.log().contains(secret), "the log holds a secret");
    for file in ["catalog.sqlite", "catalog.sqlite-wal"] {
        let bytes = std::fs::read(service.data_dir.join(file)).unwrap();
        let holds = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!holds, "{file} holds a secret in clear");
    }
}

#[test]
fn a_key_is_saved_in_a_file_by_a_bare_name() {
    let (_folder, data_dir) = folder();
    let _service = Service::start(&data_dir, &[]);
    let bare = ["credential", "create", "--role", "reader", "--save", "bare.json"];
    let created = client_command(&data_dir, &bare).current_dir(&data_dir).output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    assert!(data_dir.join("bare.json").exists());
}

#[test]
fn tokens_of_another_keystone_count_where_it_is_named() {
    // The other one is a service of ours, which speaks Keystone to everybody.
    let (_their_folder, their_data) = folder();
    let theirs = Service::start(&their_data, &["--region", "theirs"]);
    let file = their_data.with_extension("password");
    std::fs::write(&file, PASSWORD).unwrap();
    theirs.json(&["user", "create", "jane", "--password-file", file.to_str().unwrap()]);
    theirs.json(&["user", "grant", "jane", "--project", "theirs", "--role", "reader"]);
    let user = json!({"name": "jane", "password": PASSWORD, "domain": {"id": "default"}});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let scope = json!({"project": {"name": "theirs"}});
    let body = json!({"auth": {"identity": identity, "scope": scope}}).to_string();
    let (head, token) = keystone(&theirs, &["-d", &body], "/v3/auth/tokens");
    let project = token["token"]["project"]["id"].as_str().unwrap();
    let text = head.lines().find_map(|line| line.strip_prefix("x-subject-token: ")).unwrap();

    let (_folder, data_dir) = folder();
    let url = format!("{}/v3", theirs.endpoint);
    let service = Service::start(&data_dir, &["--keystone-url", &url]);
    let with = |token: &str, method: &str, rest: &str| {
        let header = format!("x-auth-token: {token}");
        let path = format!("/v2/{project}/instances{rest}");
        keystone(&service, &["-X", method, "-H", &header], &path)
    };
    let (head, listed) = with(text, "GET", "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head} {listed}");
    assert_eq!(listed["instance_num"], 0);
    // A reader there is one here.
    let (head, denied) = with(text, "DELETE", "/5560df16-cebf-4473-95c4-d1b573c16e79");
    assert!(head.starts_with("HTTP/1.1 403"), "{head} {denied}");
    let (head, refused) = with(&text.replace(char::is_alphabetic, "x"), "GET", "");
    assert!(head.starts_with("HTTP/1.1 401"), "{head} {refused}");
    assert!(!service.log().contains(text) && !theirs.log().contains(text));
}

/// How a sign-in of somebody whom nobody knows is answered.
fn sign_in_status(address: &str, name: &str) -> String {
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": name, "domain": {"name": "Default"}, "password": "x".repeat(20)}}}}})
    .to_string();
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v3/auth/tokens HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_hundred_sign_ins_take_bounded_memory() {
    const LIMIT_KIB: u64 = 64 << 10;
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    let address = service.endpoint.strip_prefix("http://").unwrap();
    let (idle, _) = resident_kib(service.pid());
    for round in 0..2 {
        let sign_in = |n: usize| sign_in_status(address, &format!("nobody-{round}-{n}"));
        let statuses: Vec<String> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..99).map(|n| scope.spawn(move || sign_in(n))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(statuses.iter().all(|status| status == "401" || status == "429"), "{statuses:?}");
        assert!(round > 0 || statuses.contains(&"401".to_owned()), "{statuses:?}");
    }
    let (_, highest) = resident_kib(service.pid());
    assert!(highest <= idle + LIMIT_KIB, "{idle} KiB before, {highest} KiB at the highest");
}
