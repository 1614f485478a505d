//! Nothing of the data and no secret lies in clear where it does not belong.

use std::path::{Path, PathBuf};
use std::process::Command;

use cachevault_domain::Entropy;
use cachevault_testkit::{S3Key, SeededEntropy, Server, newest_redis};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::service::{Service, folder};

/// Random bytes: neither LZF nor zstd can make anything else of them.
fn noise(entropy: &SeededEntropy, prefix: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = vec![0; prefix.len() + len];
    entropy.fill(&mut bytes);
    bytes[..prefix.len()].copy_from_slice(prefix);
    bytes
}

/// A text that no log has to escape.
fn token(entropy: &SeededEntropy) -> String {
    noise(entropy, b"", 48).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All files below some folders, with what they hold.
fn contents(folders: &[&Path]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = folders.iter().map(|&folder| folder.to_owned()).collect();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// What must not be seen again: passwords, names and values.
type Known = Vec<Vec<u8>>;

/// How many keys are larger than all others: more than a report lists.
const LARGEST: usize = 25;

/// A server with a password.
fn server(entropy: &SeededEntropy, known: &mut Known) -> (Server, String) {
    let password = token(entropy);
    let mut server = Server::start(&newest_redis(), &["--requirepass", &password]);
    server.log_in(&[&password]);
    known.push(password.clone().into_bytes());
    (server, password)
}

fn fill(server: &Server, entropy: &SeededEntropy, known: &mut Known) {
    let set = |name: &[u8], value: &[u8]| {
        server.pipeline(&[vec![&b"SET"[..], name, value]]);
    };
    for number in 0..200 {
        let (name, value) = match number % 2 {
            0 => (noise(entropy, b"user:", 48), noise(entropy, b"", 48)),
            _ => (token(entropy).into_bytes(), token(entropy).into_bytes()),
        };
        set(&name, &value);
        if number < 6 {
            known.extend([name, value]);
        }
    }
    for _ in 0..LARGEST {
        let (name, value) = (token(entropy).into_bytes(), noise(entropy, b"", 500));
        set(&name, &value);
        known.extend([name, value]);
    }
}

fn backed_up_and_restored(service: &Service, source: (&Server, &str), target: (&Server, &str)) {
    for (name, (server, password)) in [("orders", source), ("copy", target)] {
        let url = format!("redis://:{password}@127.0.0.1:{}", server.port);
        service.json(&["instance", "add", "--name", name, &url]);
    }
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let id = backup["id"].as_str().unwrap();
    service.json(&["backup", "link", id]);
    let drilled = service.run(&["drill", id]);
    assert!(drilled.status.success(), "{}", String::from_utf8_lossy(&drilled.stderr));
    for way in ["replica", "keys"] {
        let wish = ["restore", "create", "copy", "--backup", id, "--way", way, "--wait"];
        assert_eq!(service.json(&wish)["state"], "succeeded", "{way}");
        assert_eq!(target.0.digest(), source.0.digest(), "{way}");
    }
    // What it holds already is told by its places.
    let wish = ["restore", "create", "copy", "--backup", id, "--merge", "fail", "--wait"];
    let refused = service.run(&wish);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("at the places "), "{said}");
}

#[test]
fn no_data_and_no_secret_lies_in_clear_anywhere() {
    let entropy = SeededEntropy::new(20);
    let mut known = Known::new();
    let (source, source_password) = server(&entropy, &mut known);
    let (target, target_password) = server(&entropy, &mut known);
    fill(&source, &entropy, &mut known);
    let bucket = Bucket::start();
    known.push(S3Key::default().secret.into_bytes());
    for in_bucket in [false, true] {
        let (folder, data_dir) = folder();
        let service = match in_bucket {
            true => bucket.serve(&data_dir, &[]),
            false => Service::start(&data_dir, &[]),
        };
        let hook = service.json(&["webhook", "add", "https://192.0.2.1/"]);
        let hook_secret = hook["secret"].as_str().unwrap().trim_start_matches("whsec_");
        known.push(hook_secret.as_bytes().to_vec());
        let source = (&source, &source_password[..]);
        backed_up_and_restored(&service, source, (&target, &target_password));
        // Beside the running service, whose write-ahead log is not yet gone.
        let files = contents(&[folder.path(), bucket.server.folder()]);
        let named = |name: &str| files.iter().filter(|(path, _)| path.ends_with(name)).count();
        for name in ["catalog.sqlite", "catalog.sqlite-wal", "data.log", "manifest.json"] {
            assert!(named(name) > 0, "{name} is not looked at");
        }
        let master_key = std::fs::read_to_string(data_dir.join("master.key")).unwrap();
        let credentials = std::fs::read_to_string(data_dir.join("credentials.json")).unwrap();
        let credentials: serde_json::Value = serde_json::from_str(&credentials).unwrap();
        let api_secret = credentials["secret_key"].as_str().unwrap();
        for (path, bytes) in &files {
            for what in &known {
                let shown = String::from_utf8_lossy(what);
                assert!(!holds(bytes, what), "{} holds {shown}", path.display());
            }
            // Each of these has one file that is there to hold it.
            let its_own = path.ends_with("master.key");
            assert!(its_own || !holds(bytes, master_key.trim().as_bytes()), "{}", path.display());
            let its_own = path.ends_with("credentials.json");
            assert!(its_own || !holds(bytes, api_secret.as_bytes()), "{}", path.display());
        }
    }
}

/// That the search above would find what there is to find.
#[test]
fn without_encryption_the_data_would_be_found() {
    let entropy = SeededEntropy::new(21);
    let mut known = Known::new();
    let (source, password) = server(&entropy, &mut known);
    fill(&source, &entropy, &mut known);
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &["--encrypt", "false"]);
    let url = format!("redis://:{password}@127.0.0.1:{}", source.port);
    service.json(&["instance", "add", "--name", "orders", &url]);
    service.json(&["backup", "create", "orders", "--wait"]);
    let files = contents(&[folder.path()]);
    let artifact = files.iter().find(|(path, _)| path.ends_with("shard-0000.rdb.zst")).unwrap();
    // The first is the password, then come names and values of noise.
    assert!(known[1..3].iter().all(|what| holds(&artifact.1, what)), "the data are not noise");
    assert!(!files.iter().any(|(_, bytes)| holds(bytes, &known[0])), "the password is found");
}

/// One call of the API as `curl` makes it, with a body; what comes back.
fn post(service: &Service, path: &str, header: &str, body: &str) -> String {
    let url = format!("{}{path}", service.endpoint);
    let output = Command::new("curl")
        .args(["-s", "-i", "--noproxy", "*", "-H", "content-type: application/json"])
        .args(["-H", header, "-d", body, &url])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// A server that nobody runs, with a password.
fn nobody(password: &str) -> Value {
    json!({"host": "127.0.0.1", "port": 1, "password": password})
}

/// What `ada` gets for a password.
fn sign_in(service: &Service, password: &str) -> String {
    let user = json!({"name": "ada", "domain": {"name": "Default"}, "password": password});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let scope = json!({"project": {"name": "eu-test"}});
    let body = json!({"auth": {"identity": identity, "scope": scope}}).to_string();
    post(service, "/v3/auth/tokens", "x: x", &body)
}

#[test]
fn what_proves_who_asks_lies_in_clear_nowhere() {
    let entropy = SeededEntropy::new(22);
    let (folder, data_dir) = folder();
    let service = Service::start(&data_dir, &["--region", "eu-test"]);
    let [password, wrong, adopted, changed] = [(); 4].map(|()| token(&entropy));
    let file = folder.path().join("given");
    std::fs::write(&file, &password).unwrap();
    service.json(&["user", "create", "ada", "--password-file", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    service.json(&["user", "grant", "ada", "--project", "eu-test", "--role", "admin"]);
    let key = service.json(&["credential", "create", "--role", "reader"]);
    let secret_key = key["secret_key"].as_str().unwrap().to_owned();
    let access_key = key["access_key"].as_str().unwrap();
    let rotated = service.json(&["credential", "rotate", access_key]);
    let rotated = rotated["secret_key"].as_str().unwrap().to_owned();
    assert_ne!(rotated, secret_key);

    let signed_in = sign_in(&service, &password);
    let token_of = |line: &str| Some(line.strip_prefix("x-subject-token: ")?.to_owned());
    let given = signed_in.lines().find_map(token_of).unwrap();
    let with = format!("x-auth-token: {given}");
    let forged = format!("x-auth-token: {wrong}");
    // A client of the vendor's adopts with a password too, and our own gets it in a URL.
    let project = service.json(&["project", "list"])["items"][0]["id"].as_str().unwrap().to_owned();
    let of_vendor = json!({"name": "orders", "cachevault": nobody(&adopted)}).to_string();
    let url = format!("redis://:{adopted}@127.0.0.1:1");
    let refused = service.run(&["instance", "add", "--name", "x", &url]);
    assert!(!refused.status.success());
    // Right ones, wrong ones, and ones in places where nobody expects them.
    let mut wish = nobody(&adopted);
    wish["name"] = json!("x");
    let nobody = wish;
    let answers = [
        sign_in(&service, &wrong),
        post(&service, "/api/v1/instances", &with, &nobody.to_string()),
        post(&service, "/api/v1/instances", &with, &format!("{{\"password\": \"{adopted}\"")),
        post(&service, "/api/v1/instances", &with, &json!({"port": adopted}).to_string()),
        post(&service, "/api/v1/policies", &with, &json!({"name": adopted}).to_string()),
        post(&service, "/api/v1/instances", &forged, &nobody.to_string()),
        post(&service, "/v3/auth/tokens", "x: x", &format!("{{\"auth\": \"{password}\"}}")),
        post(&service, &format!("/v1.0/{project}/instances"), &with, &of_vendor),
        post(&service, &format!("/v2/{project}/instances"), &with, &of_vendor),
        post(
            &service,
            "/api/v1/users",
            &with,
            &json!({"name": "x", "password": [wrong]}).to_string(),
        ),
        String::from_utf8_lossy(&refused.stderr).into_owned(),
        // The last: its tokens end with it.
        post(
            &service,
            "/api/v1/password",
            &with,
            &json!({"current": password, "new": changed}).to_string(),
        ),
    ];
    assert!(answers.last().unwrap().starts_with("HTTP/1.1 204"), "{answers:?}");
    let audit = service.run(&["audit", "export"]);
    let audit = String::from_utf8(audit.stdout).unwrap();
    assert!(audit.lines().count() >= 5 && audit.contains("\"ada\""), "{audit}");
    let mut places = contents(&[folder.path()]);
    places.retain(|(path, _)| !path.ends_with("credentials.json"));
    assert!(places.iter().any(|(path, _)| path.ends_with("data.log")));
    places.push(("audit".into(), audit.into_bytes()));
    places.extend(answers.into_iter().map(|answer| ("an answer".into(), answer.into_bytes())));
    for (path, bytes) in &places {
        for secret in [&password, &wrong, &secret_key, &rotated, &given, &adopted, &changed] {
            assert!(!holds(bytes, secret.as_bytes()), "{} holds {secret}", path.display());
        }
    }
}
