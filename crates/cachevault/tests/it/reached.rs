//! How instances are reached, and how that changes: real servers, real certificates.

use std::path::Path;
use std::process::{Command, Output};

use cachevault_testkit::{Certificates, Server, free_port, newest_redis};
use serde_json::{Value, json};

use crate::service::{Service, folder};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn shown(service: &Service) -> Value {
    service.json(&["instance", "show", "orders"])
}

fn backed_up(service: &Service) {
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    assert_eq!(backup["state"], "succeeded", "{backup}");
}

fn with_password(password: &str) -> Server {
    let mut server = Server::start(&newest_redis(), &["--requirepass", password]);
    server.log_in(&[password]);
    server
}

#[test]
fn a_changed_password_is_told_and_everything_else_of_the_instance_stays() {
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    let mut server = with_password("old-secret");
    let url = format!("redis://:old-secret@127.0.0.1:{}", server.port);
    let id = service.json(&["instance", "add", "--name", "orders", &url])["id"].clone();
    let policy = ["--policy", "auto", "--days", "1", "--window", "00:00-01:00", "--save-days", "3"];
    service.json(&[&["instance", "set", "orders"], &policy[..]].concat());
    backed_up(&service);
    server.ask(&["CONFIG", "SET", "requirepass", "new-secret"]);
    server.log_in(&["new-secret"]);
    assert!(!service.run(&["backup", "create", "orders", "--wait"]).status.success());

    // A password that the server does not take is refused with the reason, and nothing changes.
    let wrong = file(folder.path(), "wrong", "topsecret\n");
    let refused = service.run(&["instance", "set", "orders", "--password-file", &wrong]);
    assert!(!refused.status.success());
    let reason = said(&refused);
    assert!(reason.contains("refused the user name or password"), "{reason}");
    assert!(!reason.contains("topsecret") && !service.log().contains("topsecret"));
    let new = file(folder.path(), "new", "new-secret\n");
    let changed = service.json(&["instance", "set", "orders", "--password-file", &new]);
    assert_eq!((&changed["id"], &changed["reachable"]), (&id, &json!(true)));
    assert_eq!(changed["policy"]["automatic"], true);
    backed_up(&service);
    let backups = service.json(&["backup", "list", "orders"]);
    let states: Vec<_> = backups["items"].as_array().unwrap().iter().map(|b| &b["state"]).collect();
    assert_eq!(states, ["succeeded", "failed", "succeeded"]);
    let events = service.json(&["event", "list"]);
    let told = |event: &&Value| event["kind"] == "instance_changed";
    let told = events["items"].as_array().unwrap().iter().filter(told).count();
    assert_eq!(told, 1, "{events}");
    let audit = service.json(&["audit", "list"]).to_string();
    assert!(audit.contains("PATCH /api/v1/instances/{instance_id}"), "{audit}");
    for file in ["catalog.sqlite", "catalog.sqlite-wal"] {
        let bytes = std::fs::read(data_dir.join(file)).unwrap();
        let secret = b"new-secret";
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file}");
    }
    assert!(!service.log().contains("new-secret"));
}

#[test]
fn another_address_is_taken_when_the_server_answers_there() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    let first = with_password("secret");
    let second = with_password("secret");
    second.ask(&["SET", "moved", "1"]);
    let url = format!("redis://:secret@127.0.0.1:{}", first.port);
    let id = service.json(&["instance", "add", "--name", "orders", &url])["id"].clone();
    backed_up(&service);
    let nowhere = format!("redis://:secret@127.0.0.1:{}", free_port());
    let refused = service.run(&["instance", "set", "orders", "--url", &nowhere]);
    assert!(said(&refused).contains("refused the connection"), "{}", said(&refused));
    // Whoever may change an instance does not learn its password by naming a server of its own.
    let elsewhere = format!("redis://127.0.0.1:{}", second.port);
    let refused = service.run(&["instance", "set", "orders", "--url", &elsewhere]);
    assert!(said(&refused).contains("give the password again"), "{}", said(&refused));
    assert_eq!(shown(&service)["address"], format!("127.0.0.1:{}", first.port));
    let moved = format!("redis://:secret@127.0.0.1:{}", second.port);
    let changed = service.json(&["instance", "set", "orders", "--url", &moved]);
    assert_eq!((&changed["id"], &changed["keys"]), (&id, &json!(1)));
    assert_eq!(changed["address"], format!("127.0.0.1:{}", second.port));
    backed_up(&service);
    let backups = service.json(&["backup", "list", "orders"]);
    assert_eq!(backups["total"], 2);
    let newest = backups["items"][0]["id"].as_str().unwrap();
    let backup = service.json(&["backup", "show", newest]);
    let source = &backup["artifacts"][0]["source"]["address"];
    assert_eq!(source, &changed["address"], "{backup}");
}

#[test]
fn tls_its_ca_and_the_client_certificate_are_changed_together_or_alone() {
    let (folder, data_dir) = folder();
    let [one, two] = ["one", "two"].map(|name| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        (Certificates::issue(&folder), folder)
    });
    let serve = |(certificates, _): &(Certificates, _)| {
        let port = free_port();
        let options = certificates.server_options(port, true);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        (Server::start(&newest_redis(), &options), port)
    };
    let (plain, first) = serve(&one);
    let (_second, second) = serve(&two);
    let service = Service::start(&data_dir, &[]);
    service.adopt_as("orders", &plain);
    let pem = |(certificates, folder): &(Certificates, std::path::PathBuf)| {
        let certificate = file(folder, "client.pem", &certificates.client_certificate_pem);
        let key = file(folder, "client.key", &certificates.client_key_pem);
        [folder.join("ca.pem").display().to_string(), certificate, key]
    };
    let set = |port: u16, [ca, certificate, key]: &[String; 3]| {
        let url = format!("rediss://127.0.0.1:{port}");
        let wish = ["instance", "set", "orders", "--url", &url, "--tls-ca-file", ca];
        service.run(&[&wish[..], &["--tls-cert-file", certificate, "--tls-key-file", key]].concat())
    };
    let (of_one, of_two) = (pem(&one), pem(&two));
    for (port, files) in [(first, &of_one), (second, &of_two)] {
        let changed = set(port, files);
        assert!(changed.status.success(), "{}", said(&changed));
        assert_eq!(shown(&service)["tls"], true);
        backed_up(&service);
    }
    let untrusted = set(second, &of_one);
    assert!(said(&untrusted).contains("TLS with"), "{}", said(&untrusted));
    backed_up(&service);
    let back = format!("redis://127.0.0.1:{}", plain.port);
    assert_eq!(service.json(&["instance", "set", "orders", "--url", &back])["tls"], false);
    backed_up(&service);
}

/// Sends a request with a token of the first user, as DCS clients do.
fn dcs(service: &Service, token: &str, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}{path}", service.endpoint);
    let header = format!("x-auth-token: {token}");
    let output = Command::new("curl")
        .args(["-s", "--noproxy", "*", "-w", "\n%{http_code}", "-X", "PUT", "-H", &header])
        .args(["-H", "content-type: application/json", "-d", &body.to_string(), &url])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A token of a user with this role in the first project, and that project.
fn token(service: &Service, folder: &Path, role: &str) -> (String, String) {
    let password = file(folder, "user-password", "correct horse battery");
    service.json(&["user", "create", role, "--password-file", &password]);
    service.json(&["user", "grant", role, "--project", "local", "--role", role]);
    let user =
        json!({"name": role, "password": "correct horse battery", "domain": {"id": "default"}});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let body = json!({"auth": {"identity": identity, "scope": {"project": {"name": "local"}}}});
    let output = Command::new("curl")
        .args(["-s", "-i", "--noproxy", "*", "-H", "content-type: application/json", "-d"])
        .args([&body.to_string(), &format!("{}/v3/auth/tokens", service.endpoint)])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let token = head.lines().find_map(|line| line.strip_prefix("x-subject-token: ")).unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    (token.to_owned(), body["token"]["project"]["id"].as_str().unwrap().to_owned())
}

#[test]
fn dcs_tells_a_new_password_that_the_server_takes_already() {
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    let mut server = with_password("one");
    let url = format!("redis://:one@127.0.0.1:{}", server.port);
    let id = service.json(&["instance", "add", "--name", "orders", &url])["id"].clone();
    let (operator, project) = token(&service, folder.path(), "operator");
    let (reader, _) = token(&service, folder.path(), "reader");
    let mut known = "one";
    for (version, next, code) in [("v2", "two", "DCS.4080"), ("v1.0", "three", "111400080")] {
        let path = format!("/{version}/{project}/instances/{}/password", id.as_str().unwrap());
        let tell = |token: &str, old: &str, new: &str| {
            dcs(&service, token, &path, &json!({"old_password": old, "new_password": new}))
        };
        let code_of = |(status, body): (u16, Value)| {
            assert_eq!(status, 400, "{body}");
            let code = body["error_code"].as_str().or(body["error"]["code"].as_str());
            code.unwrap().to_owned()
        };
        // Not the stored one; then one that the server does not take.
        assert_eq!(code_of(tell(&operator, "guess", known)), code);
        assert_eq!(code_of(tell(&operator, known, "guess")), code);
        let needed = code_of(dcs(&service, &operator, &path, &json!({"old_password": known})));
        assert!(needed.ends_with("063"), "{needed}");
        server.ask(&["CONFIG", "SET", "requirepass", next]);
        server.log_in(&[next]);
        assert_eq!(tell(&reader, known, next).0, 403);
        let (status, body) = tell(&operator, known, next);
        assert_eq!((status, &body["result"]), (200, &json!("success")), "{body}");
        backed_up(&service);
        known = next;
    }
}
