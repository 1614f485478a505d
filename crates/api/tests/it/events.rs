//! Events: lists and streams.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use cachevault_api::EventStreamLimits;
use cachevault_app::NewCredential;
use cachevault_catalog::InstanceCatalog;
use cachevault_domain::{InstanceChange, PolicyId};
use cachevault_testkit::SeededEntropy;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::rig::{INSTANCE, Rig};

const OTHER: &str = "8d3f5c2a-1b7e-4c6d-9f00-2a4b6c8d0e1f";
const STREAM: &str = "/api/v1/events/stream";
/// Timeout for an expected message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limits of streams that outlive every test.
fn long_streams() -> EventStreamLimits {
    let limits = EventStreamLimits::new(64, PATIENCE * 2);
    EventStreamLimits { prove_every: Duration::from_millis(20), ..limits }
}

/// Reads a stream message by message.
struct Reader {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    text: String,
}

impl Reader {
    async fn open(rig: &Rig, who: &NewCredential, uri: &str, last: Option<&str>) -> Self {
        let mut request = rig.signed(who, "GET", uri, "");
        if let Some(last) = last {
            request.headers_mut().insert("last-event-id", last.parse().unwrap());
        }
        Self::of(rig.router.clone().oneshot(request).await.unwrap())
    }

    fn of(response: axum::response::Response) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body, text: String::new() }
    }

    /// Reads more text; `false` at the end of the stream.
    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
        let Some(frame) = frame.unwrap() else { return false };
        let piece = frame.unwrap().into_data().unwrap();
        self.text.push_str(std::str::from_utf8(&piece).unwrap());
        true
    }

    /// The next event: its id, kind and data.
    async fn event(&mut self) -> (u64, String, Value) {
        loop {
            while let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = message.lines();
                    lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                };
                let found = (field("id: "), field("event: "), field("data: "));
                self.text = rest.to_owned();
                if let (Some(id), Some(kind), Some(data)) = found {
                    return (id.parse().unwrap(), kind, serde_json::from_str(&data).unwrap());
                }
            }
            assert!(self.more().await, "the stream ended");
        }
    }

    async fn end(mut self) -> String {
        while self.more().await {}
        self.text
    }
}

async fn rename(rig: &Rig, instance: &str, name: &str) {
    let change = InstanceChange { name: Some(name.parse().unwrap()), ..Default::default() };
    let policy = PolicyId::mint(&SeededEntropy::new(5));
    let (project, now) = (&rig.credential.project, rig.app.clock.now());
    let id = instance.parse().unwrap();
    rig.catalog.change_instance(project, id, &change, policy, now).await.unwrap();
}

async fn listed(rig: &Rig, uri: &str) -> Vec<(u64, String)> {
    let answer = rig.call("GET", uri, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let items = answer.body["items"].as_array().unwrap().iter();
    let of =
        |item: &Value| (item["id"].as_u64().unwrap(), item["kind"].as_str().unwrap().to_owned());
    items.map(of).collect()
}

#[tokio::test]
async fn events_are_listed_by_project_and_by_instance() {
    let rig = Rig::new().await;
    rig.adopt(OTHER, "sessions").await;
    let at = "2019-05-10T08:31:16.166Z";
    let backup = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
    rig.succeeded(backup, None, [at; 3], 1000).await;
    let kinds =
        |listed: Vec<(u64, String)>| listed.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>();
    let all = listed(&rig, "/api/v1/events").await;
    let expected = [
        "instance_adopted",
        "instance_adopted",
        "backup_requested",
        "backup_started",
        "backup_succeeded",
    ];
    assert_eq!(kinds(all.clone()), expected);
    let second = all[1].0;
    let uri = format!("/api/v1/events?after={second}&limit=1");
    assert_eq!(listed(&rig, &uri).await, [all[2].clone()]);
    let uri = format!("/api/v1/events?order=newest&before={}&limit=2", all[4].0);
    assert_eq!(listed(&rig, &uri).await, [all[3].clone(), all[2].clone()]);
    let uri = format!("/api/v1/instances/{OTHER}/events");
    assert_eq!(listed(&rig, &uri).await, [all[1].clone()]);
    let answer = rig.call("GET", "/api/v1/events?order=newest&limit=1", "").await;
    let expected = json!({
        "id": all[4].0, "at": at, "kind": "backup_succeeded",
        "project_id": rig.credential.project.to_string(), "instance_id": INSTANCE,
        "instance_name": "orders", "backup_id": backup, "restore_id": null, "detail": null,
    });
    assert_eq!(answer.body["items"], json!([expected]));
    for bad in ["after=-1", "after=x", "before=1.5", "order=best", "limit=0", "limit=1001"] {
        let answer = rig.call("GET", &format!("/api/v1/events?{bad}"), "").await;
        assert_eq!(answer.outcome(), (400, "bad_request"), "{bad}");
    }
}

#[tokio::test]
async fn a_stream_continues_after_the_last_event_seen() {
    let rig = Rig::new().await.streaming(long_streams(), CancellationToken::new());
    let who = rig.credential.clone();
    let mut stream = Reader::open(&rig, &who, STREAM, None).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["cache-control"], "no-cache");
    assert!(stream.more().await && stream.text.contains("retry: 2000"), "{}", stream.text);
    // A new stream contains no earlier events.
    for name in ["a", "b", "c"] {
        rename(&rig, INSTANCE, name).await;
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (id, kind, data) = stream.event().await;
        assert_eq!((kind.as_str(), data["id"].as_u64()), ("instance_changed", Some(id)));
        seen.push(id);
    }
    let mut again = Reader::open(&rig, &who, STREAM, Some(&seen[0].to_string())).await;
    assert_eq!((again.event().await.0, again.event().await.0), (seen[1], seen[2]));
    // The header takes precedence: browsers send it when they reconnect to the same URL.
    let uri = format!("{STREAM}?after=0");
    let mut header = Reader::open(&rig, &who, &uri, Some(&seen[1].to_string())).await;
    assert_eq!(header.event().await.0, seen[2]);
    let mut all = Reader::open(&rig, &who, &uri, None).await;
    assert_eq!(all.event().await.1, "instance_adopted");
    // An unknown event id belongs to a lost catalog.
    let mut lost = Reader::open(&rig, &who, STREAM, Some("9000")).await;
    assert_eq!(lost.event().await.1, "instance_adopted");
    for bad in ["-1", "x", "1 2"] {
        assert_eq!(Reader::open(&rig, &who, STREAM, Some(bad)).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_stream_contains_only_the_requested_events() {
    let rig = Rig::new().await.streaming(long_streams(), CancellationToken::new());
    rig.adopt(OTHER, "sessions").await;
    rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    let stranger = rig.key(json!({"project": "second", "role": "admin"})).await;
    let who = rig.credential.clone();
    let of_other = format!("/api/v1/instances/{OTHER}/events/stream");
    let mut other = Reader::open(&rig, &who, &of_other, None).await;
    let mut theirs = Reader::open(&rig, &stranger, &format!("{STREAM}?after=0"), None).await;
    assert_eq!(Reader::open(&rig, &stranger, &of_other, None).await.status, 404);
    rename(&rig, INSTANCE, "a").await;
    rename(&rig, OTHER, "b").await;
    let (id, _, told) = other.event().await;
    assert_eq!(told["instance_id"], OTHER);
    let adopted = json!({"name": "theirs", "host": "adoptable.test", "port": 6379}).to_string();
    let answer = rig.call_as(&stranger, "POST", "/api/v1/instances", &adopted).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let (theirs_id, _, told) = theirs.event().await;
    assert_eq!(told["instance_name"], "theirs");
    assert!(theirs_id > id);
}

#[tokio::test]
async fn streams_are_limited_and_free_their_slots() {
    let limits = EventStreamLimits { open_max: 4, ..long_streams() };
    let rig = Rig::new().await.streaming(limits, CancellationToken::new());
    let who = rig.credential.clone();
    let first = Reader::open(&rig, &who, STREAM, None).await;
    assert_eq!(first.status, 200);
    // One of four streams is the project's share.
    let refused = Reader::open(&rig, &who, STREAM, None).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["retry-after"]),
        (429, &"10".parse().unwrap())
    );
    rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    let stranger = rig.key(json!({"project": "second", "role": "admin"})).await;
    assert_eq!(Reader::open(&rig, &stranger, STREAM, None).await.status, 200);
    drop(first);
    assert_eq!(Reader::open(&rig, &who, STREAM, None).await.status, 200);
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_opened_it() {
    let rig = Rig::new().await.streaming(long_streams(), CancellationToken::new());
    let reader = rig.key(json!({"role": "reader"})).await;
    let by_key = Reader::open(&rig, &reader, STREAM, None).await;
    rig.user("bob", "reader").await;
    let token = rig.token("bob").await;
    let request = axum::http::Request::builder().uri(STREAM).header("x-auth-token", &token);
    let request = request.body(Body::empty()).unwrap();
    let by_token = Reader::of(rig.router.clone().oneshot(request).await.unwrap());
    assert_eq!((by_key.status.as_u16(), by_token.status.as_u16()), (200, 200));
    let uri = format!("/api/v1/credentials/{}", reader.access_key);
    let disabled = rig.call("PATCH", &uri, r#"{"enabled": false}"#).await;
    assert_eq!(disabled.status, 200, "{}", disabled.text);
    by_key.end().await;
    let disabled = rig.call("PATCH", "/api/v1/users/bob", r#"{"enabled": false}"#).await;
    assert_eq!(disabled.status, 200, "{}", disabled.text);
    by_token.end().await;
    // Streams whose credentials are still valid.
    let mut own = Reader::open(&rig, &rig.credential, STREAM, None).await;
    rename(&rig, INSTANCE, "a").await;
    own.event().await;
}

#[tokio::test]
async fn streams_end_when_the_service_stops() {
    let stop = CancellationToken::new();
    let limits = EventStreamLimits { prove_every: PATIENCE, ..long_streams() };
    let rig = Rig::new().await.streaming(limits, stop.clone());
    let stream = Reader::open(&rig, &rig.credential, STREAM, None).await;
    let began = Instant::now();
    let (_, text) = tokio::join!(async { stop.cancel() }, stream.end());
    assert!(text.contains("retry"), "{text}");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_stream_outlives_the_request_timeout_and_ends_with_its_lifetime() {
    let limits = EventStreamLimits { heartbeat: Duration::from_millis(20), ..long_streams() };
    let limits = EventStreamLimits { lifetime: Duration::from_secs(3), ..limits };
    let rig = Rig::new().await.streaming(limits, CancellationToken::new());
    let began = Instant::now();
    // A slow machine may exceed the rig's request timeout, so the request is repeated.
    let text = loop {
        let stream = Reader::open(&rig, &rig.credential, STREAM, None).await;
        if stream.status == 200 {
            break stream.end().await;
        }
        assert!(began.elapsed() < PATIENCE, "no stream opened");
    };
    assert!(began.elapsed() >= limits.lifetime);
    assert!(text.contains(": heartbeat"), "{text}");
}
