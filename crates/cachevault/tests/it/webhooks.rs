//! Webhooks by the real service and a real receiver.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use cachevault_testkit::{Certificates, Server, eventually, newest_redis};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::service::{Service, folder};

const ALLOWED: [&str; 4] = ["--webhook-http", "true", "--webhook-local", "true"];

/// What was received, once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Received {
    path: String,
    id: String,
    timestamp: String,
    signature: String,
    body: String,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Inbox {
    received: Vec<Received>,
    /// What is answered; 204 behind its end.
    answers: VecDeque<u16>,
    /// The service that is killed before it gets its first answer.
    victim: Option<u32>,
}

type Shared = Arc<Mutex<Inbox>>;

/// A receiver, ended when dropped.
struct Receiver {
    address: SocketAddr,
    inbox: Shared,
    _runtime: Runtime,
}

async fn receive(State(inbox): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut inbox = inbox.lock().unwrap();
    inbox.received.push(Received {
        path: parts.uri.path().to_owned(),
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    if let Some(pid) = inbox.victim.take() {
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    }
    let status = StatusCode::from_u16(inbox.answers.pop_front().unwrap_or(204)).unwrap();
    // To where nobody may follow.
    (status, [("location", "/elsewhere")]).into_response()
}

impl Receiver {
    fn start(answers: &[u16]) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), answers, None)
    }

    fn listen(listener: TcpListener, answers: &[u16], tls: Option<&Path>) -> Self {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let inbox = Shared::default();
        inbox.lock().unwrap().answers.extend(answers);
        let router = Router::new().fallback(receive).with_state(inbox.clone());
        let runtime = Runtime::new().unwrap();
        let files = tls.map(|folder| (folder.join("server.pem"), folder.join("server.key")));
        runtime.spawn(async move {
            let service = router.into_make_service();
            match files {
                None => axum_server::from_tcp(listener).unwrap().serve(service).await,
                Some((certificate, key)) => {
                    let _ = rustls::crypto::ring::default_provider().install_default();
                    let config = RustlsConfig::from_pem_file(certificate, key).await.unwrap();
                    let server = axum_server::from_tcp_rustls(listener, config).unwrap();
                    server.serve(service).await
                }
            }
        });
        Self { address, inbox, _runtime: runtime }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn received(&self) -> Vec<Received> {
        self.inbox.lock().unwrap().received.clone()
    }

    /// Waits until so many messages have come.
    #[track_caller]
    fn wait(&self, count: usize) -> Vec<Received> {
        eventually("messages come", || Some(self.received()).filter(|all| all.len() >= count))
    }
}

/// Whether Python's `hmac` finds the same signature, as a receiver would look for it.
fn is_signed(secret: &str, message: &Received) -> bool {
    const VERIFY: &str = "
import base64, hashlib, hmac, json, sys
message = json.load(sys.stdin)
key = base64.b64decode(message['secret'].removeprefix('whsec_'), validate=True)
assert 24 <= len(key) <= 64
signed = f\"{message['id']}.{message['timestamp']}.{message['body']}\".encode()
expected = 'v1,' + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
sys.exit(0 if hmac.compare_digest(expected, message['signature']) else 1)
";
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", VERIFY]).stdin(Stdio::piped()).spawn().unwrap();
    let message = json!({
        "secret": secret, "id": message.id, "timestamp": message.timestamp,
        "body": message.body, "signature": message.signature,
    });
    python.stdin.take().unwrap().write_all(message.to_string().as_bytes()).unwrap();
    python.wait().unwrap().success()
}

fn add(service: &Service, url: &str, kind: &str) -> Value {
    service.json(&["webhook", "add", url, "--kind", kind])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn a_message_that_is_refused_comes_again_and_can_be_verified() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &ALLOWED);
    let receiver = Receiver::start(&[302, 503]);
    service.adopt(&server);
    let added = add(&service, &receiver.url("/hook"), "backup_succeeded");
    let (id, secret) = (text(&added["id"]), text(&added["secret"]));
    let backup = service.json(&["backup", "create", "orders", "--wait"]);
    let received = receiver.wait(3);
    for message in &received {
        assert_eq!((&message.id, &message.body), (&received[0].id, &received[0].body));
        assert_eq!(message.path, "/hook", "no redirection is followed");
        assert!(is_signed(secret, message), "{message:?}");
        let forged = Received { body: message.body.replace("orders", "ordErs"), ..message.clone() };
        assert!(!is_signed(secret, &forged));
    }
    let event = service.json(&["event", "list"])["items"][0].clone();
    let told = received[0].json();
    assert_eq!((&told["type"], &told["timestamp"]), (&event["kind"], &event["at"]));
    for (name, value) in told["data"].as_object().unwrap() {
        assert_eq!(value, &event[name], "{name}");
    }
    assert_eq!(told["data"]["backup_id"], backup["id"]);
    let shown = eventually("it is recorded", || {
        let shown = service.json(&["webhook", "show", id]);
        shown["delivered_at"].is_string().then_some(shown)
    });
    assert_eq!((&shown["failures"], &shown["given_up"]), (&json!(0), &json!(0)));
    assert_eq!(shown["last_error"], "the receiver answered 503 Service Unavailable");
    assert_eq!(shown.get("secret"), None, "it is shown once");
    assert_eq!(receiver.received().len(), 3);
    // A message of no event, when somebody asks for it.
    let sent = service.json(&["webhook", "test", id]);
    assert_eq!(sent, json!({"delivered": true, "error": null}));
    let test = receiver.received().pop().unwrap();
    assert!(is_signed(secret, &test) && test.json()["type"] == "webhook_test", "{test:?}");
    service.json(&["webhook", "remove", id]);
    assert_eq!(service.json(&["webhook", "list"]), json!({"items": []}));
    assert!(!service.log().contains(secret));
}

#[test]
fn a_receiver_that_is_down_is_told_when_it_is_back() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &ALLOWED);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let added = add(&service, &format!("http://{address}/"), "instance_adopted");
    let id = text(&added["id"]);
    service.adopt(&server);
    let failed = eventually("it fails", || {
        let shown = service.json(&["webhook", "show", id]);
        (shown["failures"].as_u64() >= Some(1)).then_some(shown)
    });
    assert!(failed["last_error"].is_string() && failed["delivered_at"].is_null(), "{failed}");
    let receiver = Receiver::listen(TcpListener::bind(address).unwrap(), &[], None);
    let received = receiver.wait(1);
    assert_eq!(received[0].json()["type"], "instance_adopted");
}

#[test]
fn a_service_that_is_killed_before_it_records_sends_the_same_again() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let service = Service::start(&data_dir, &ALLOWED);
    let receiver = Receiver::start(&[]);
    add(&service, &receiver.url("/"), "instance_adopted");
    receiver.inbox.lock().unwrap().victim = Some(service.pid());
    // Its answer may be lost with the service.
    let url = format!("redis://127.0.0.1:{}", server.port);
    service.run(&["instance", "add", "--name", "orders", &url]);
    receiver.wait(1);
    assert_eq!(service.wait(), None, "it was killed");
    let service = Service::start(&data_dir, &ALLOWED);
    let received = receiver.wait(2);
    assert_eq!((&received[0].id, &received[0].body), (&received[1].id, &received[1].body));
    let id = text(&service.json(&["webhook", "list"])["items"][0]["id"]).to_owned();
    eventually("it is recorded", || {
        service.json(&["webhook", "show", &id])["delivered_at"].is_string().then_some(())
    });
    assert_eq!(receiver.received().len(), 2);
}

#[test]
fn a_webhook_hears_nothing_while_it_is_disabled_and_nothing_of_other_projects() {
    let (_folder, data_dir) = folder();
    let server = Server::start(&newest_redis(), &[]);
    let instances = ["--instance-hosts", "127.0.0.1"];
    let service = Service::start(&data_dir, &[&ALLOWED[..], &instances].concat());
    let receiver = Receiver::start(&[]);
    service.json(&["project", "create", "second"]);
    let key = data_dir.with_extension("second.json");
    let key = key.to_str().unwrap();
    service.json(&[
        "credential",
        "create",
        "--project",
        "second",
        "--role",
        "admin",
        "--save",
        key,
    ]);
    let first = add(&service, &receiver.url("/first"), "instance_adopted");
    let id = text(&first["id"]);
    let url = receiver.url("/second");
    let kind = ["--kind", "instance_adopted"];
    service.json(&[&["webhook", "add", &url][..], &kind, &["--credentials", key]].concat());
    service.json(&["webhook", "disable", id]);
    service.adopt_as("unheard", &server);
    service.json(&["webhook", "enable", id]);
    service.adopt_as("heard", &server);
    let redis = format!("redis://127.0.0.1:{}", server.port);
    service.json(&["instance", "add", "--name", "theirs", &redis, "--credentials", key]);
    let received = receiver.wait(2);
    let mut told: Vec<_> = received
        .iter()
        .map(|message| (message.path.clone(), message.json()["data"]["instance_name"].clone()))
        .collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told, [("/first".into(), json!("heard")), ("/second".into(), json!("theirs"))]);
}

#[test]
fn receivers_are_known_by_their_certificates() {
    let (folder, data_dir) = folder();
    Certificates::issue(folder.path());
    let ca = folder.path().join("ca.pem").display().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Receiver::listen(listener, &[], Some(folder.path()));
    let url = format!("https://{}/", receiver.address);
    for (trusts, options) in [(false, &[][..]), (true, &["--webhook-ca-file", &ca])] {
        let service = Service::start(&data_dir, &[&["--webhook-local", "true"], options].concat());
        let added = add(&service, &url, "instance_adopted");
        let sent = service.run(&["webhook", "test", text(&added["id"])]);
        assert_eq!(sent.status.success(), trusts, "{}", String::from_utf8_lossy(&sent.stderr));
    }
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn no_webhook_leads_here_or_goes_without_tls_unless_that_is_allowed() {
    let (_folder, data_dir) = folder();
    let service = Service::start(&data_dir, &[]);
    for (url, word) in [
        ("http://hooks.example.org/", "webhook_http"),
        ("https://127.0.0.1/", "webhook_local"),
        ("https://169.254.169.254/latest/meta-data", "webhook_local"),
        ("https://user:topsecret@hooks.example.org/", "no password"),
    ] {
        let refused = service.run(&["webhook", "add", url]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(4), "{stderr}");
        assert!(stderr.contains(word) && !stderr.contains("topsecret"), "{stderr}");
    }
    let added = service.json(&["webhook", "add", "https://hooks.example.org/"]);
    assert_eq!(
        added["kinds"],
        json!(["backup_failed", "backup_expired", "window_missed", "disk_low"])
    );
}
