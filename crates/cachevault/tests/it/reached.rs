//! How instances are reached, how that changes, and where no connection goes: real servers, real
//! certificates.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use cachevault_testkit::{Certificates, Server, eventually, free_port, newest_redis};
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

/// A project that does not administer the service, by the file with its key.
fn tenant(service: &Service, folder: &Path) -> String {
    let key = folder.join("team.json").display().to_string();
    service.json(&["project", "create", "team"]);
    let create = ["credential", "create", "--project", "team", "--role", "admin", "--save", &key];
    service.json(&create);
    key
}

/// Listens, and tells whether anybody came.
fn listen(address: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[track_caller]
fn assert_nobody_came(listener: &TcpListener) {
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn no_project_but_the_administrators_own_reaches_the_machine_of_the_service() {
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &["--command-timeout", "2s"]);
    let team = tenant(&service, folder.path());
    // Of every kind of address, and at the same port.
    let everywhere = listen("[::]:0");
    let port = everywhere.local_addr().unwrap().port();
    let of_team = |url: &str| {
        service.run(&["instance", "add", "--name", "other", url, "--credentials", &team])
    };
    for host in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        // Old spellings, which the system understands.
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::1]",
        "[2001:0:7f00:1::1]",
        "[2001:db8::5efe:127.0.0.1]",
        "[fe80::1]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
    ] {
        let refused = of_team(&format!("redis://:secret@{host}:{port}"));
        let reason = said(&refused);
        assert_eq!(refused.status.code(), Some(4), "{host}: {reason}");
        assert!(reason.contains("`instance_hosts`"), "{host}: {reason}");
        assert_nobody_came(&everywhere);
    }
    // What is here and what is not is the same to them.
    let closed = said(&of_team(&format!("redis://127.0.0.1:{}", free_port())));
    assert!(closed.contains("`instance_hosts`"), "{closed}");
    // The administrators may, and their instances are what they were.
    let server = Server::start(&newest_redis(), &[]);
    service.adopt(&server);
    backed_up(&service);
}

#[test]
fn a_list_allows_and_denies_for_every_project_whenever_a_connection_is_opened() {
    let (folder, data_dir) = folder();
    let (one, other) = (Server::start(&newest_redis(), &[]), Server::start(&newest_redis(), &[]));
    let mut service = Service::start(&data_dir, &["--instance-hosts", "127.0.0.1"]);
    let team = tenant(&service, folder.path());
    let url = format!("redis://127.0.0.1:{}", one.port);
    service.json(&["instance", "add", "--name", "theirs", &url, "--credentials", &team]);
    let by_name = format!("redis://localhost:{}", one.port);
    let moved = ["instance", "set", "theirs", "--credentials", &team, "--url"];
    let denied =
        service.run(&[&moved[..], &[&format!("redis://127.0.0.2:{}", other.port)]].concat());
    assert!(said(&denied).contains("`instance_hosts`"), "{}", said(&denied));
    service.json(&[&moved[..], &[&by_name]].concat());
    service.adopt(&other);
    backed_up(&service);
    let address = service.endpoint.strip_prefix("http://").unwrap().to_owned();
    service.kill();
    // What was adopted before is reached by the rules of now.
    let options = ["--listen", &address, "--instance-hosts", "!127.0.0.0/8"];
    let service = Service::start(&data_dir, &options);
    for (name, key) in [("orders", None), ("theirs", Some(&team))] {
        let key = key.map(|key| ["--credentials", key]);
        let wish = ["backup", "create", name, "--wait"];
        let failed = service.run(&[&wish[..], key.as_ref().map_or(&[], |key| &key[..])].concat());
        let reason = said(&failed);
        assert!(!failed.status.success() && reason.contains("`instance_hosts`"), "{reason}");
    }
}

#[test]
fn a_replica_at_an_address_that_is_not_allowed_is_not_connected_to() {
    let (_folder, data_dir) = folder();
    let elsewhere = listen("127.0.0.2:0");
    let port = elsewhere.local_addr().unwrap().port().to_string();
    let primary = Server::start(&newest_redis(), &[]);
    let follow = ["--replicaof", "127.0.0.1", &primary.port.to_string()];
    let announce = ["--replica-announce-ip", "127.0.0.2", "--replica-announce-port", &port];
    let _replica = Server::start(&newest_redis(), &[&follow[..], &announce].concat());
    eventually("the replica follows", || {
        primary.info("slave0").contains("state=online").then_some(())
    });
    let service = Service::start(&data_dir, &["--instance-hosts", "127.0.0.1,!*"]);
    service.adopt(&primary);
    backed_up(&service);
    assert_nobody_came(&elsewhere);
}

/// A server that answers every line with these words.
fn foreign(words: &'static str) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let hears = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut bytes) {
                hears.lock().unwrap().extend_from_slice(&bytes[..len]);
                if stream.write_all(words.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (port, heard)
}

#[test]
fn what_a_foreign_server_says_is_told_to_administrators_of_the_service_alone() {
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &["--instance-hosts", "127.0.0.1"]);
    let team = tenant(&service, folder.path());
    let mine = folder.path().join("mine.json").display().to_string();
    // In the project of the administrators, too, not everybody is one.
    service.json(&["credential", "create", "--role", "admin", "--save", &mine]);
    for words in [
        "-ERR Tops3cret words of the inside\r\n",
        "-NOPERM Tops3cret words of the inside\r\n",
        "-WRONGPASS Tops3cret words of the inside\r\n",
        "HTTP/1.1 400 Tops3cret words of the inside\r\n\r\n",
        ":Tops3cret words of the inside\r\n",
    ] {
        let (port, _) = foreign(words);
        let url = format!("redis://:guess@127.0.0.1:{port}");
        let add = ["instance", "add", "--name", "other", &url];
        for key in [&team, &mine] {
            let refused = service.run(&[&add[..], &["--credentials", key]].concat());
            assert_eq!(refused.status.code(), Some(4), "{words}: {}", said(&refused));
            assert!(!said(&refused).contains("Tops3cret"), "{words}: {}", said(&refused));
        }
        let told = said(&service.run(&add));
        let is_protocol = words.starts_with(['H']);
        assert!(told.contains("Tops3cret") || is_protocol, "{words}: {told}");
    }
    assert!(service.log().contains("Tops3cret"), "the log tells");
}

#[test]
fn no_line_of_its_own_gets_to_a_server_by_a_user_or_a_password() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    let (port, heard) = foreign("-ERR no\r\n");
    let server = with_password("right");
    let good = format!("redis://:right@127.0.0.1:{}", server.port);
    service.json(&["instance", "add", "--name", "orders", &good]);
    for login in [":a%0d%0aQUIT", ":a%0aQUIT", "a%0d:b", ":a%00b", ":a%1bb", ":a%7fb", ":%c2%85"] {
        let url = format!("redis://{login}@127.0.0.1:{port}");
        for command in [
            &["instance", "add", "--name", "other", &url][..],
            &["instance", "set", "orders", "--url", &url],
        ] {
            let refused = service.run(command);
            assert_eq!(refused.status.code(), Some(4), "{login}: {}", said(&refused));
            assert!(said(&refused).contains("control characters"), "{login}: {}", said(&refused));
        }
    }
    assert!(heard.lock().unwrap().is_empty(), "something was sent");
    backed_up(&service);
}
