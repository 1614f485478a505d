//! Refused requests, and the information in their answers.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use cachevault_domain::Clock;
use jiff::SignedDuration;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::rig::{INSTANCE, Rig};

#[tokio::test]
async fn an_old_signature_is_refused_even_though_it_is_right() {
    let rig = Rig::new().await;
    let path = rig.path("v2", "/instances");
    let date = "20190510T084000Z";
    let headers = [("host", "cachevault.test"), ("x-sdk-date", date)];
    let request = cachevault_api::signing::SignedRequest {
        method: "GET",
        path: &path,
        query: "",
        headers: &headers,
        body: b"",
    };
    let names = headers.map(|(name, _)| name.to_owned());
    use secrecy::ExposeSecret;
    let (access_key, secret_key) =
        (rig.credential.access_key.as_str(), rig.credential.secret_key.expose_secret());
    let signature =
        cachevault_api::signing::sign(&request, &names, access_key, secret_key).unwrap();
    let build = || {
        let request = Request::builder().uri(&path).header("authorization", &signature);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Body::empty()).unwrap()
    };
    for (minutes, status) in [(0, 200), (15, 200), (1, 401)] {
        rig.clock.advance(SignedDuration::from_mins(minutes));
        let answer = rig.send(build()).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    }
}

#[tokio::test]
async fn an_invalid_project_id_has_its_error() {
    let rig = Rig::new().await;
    let answer = rig.call("GET", "/v2/not-a-project/instances", "").await;
    assert_eq!(answer.outcome(), (400, "DCS.4002"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_the_gateways_413() {
    let rig = Rig::new().await;
    let body = format!("\"{}\"", "x".repeat(12 << 20));
    for version in ["v1.0", "v2"] {
        let path = rig.path(version, &format!("/instances/{INSTANCE}"));
        let answer = rig.call("PUT", &path, &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body["error_code"].as_str()),
            (413, Some("APIGW.0201"))
        );
    }
}

/// A request with a token and an endless body.
fn endless(rig: &Rig, token: &str) -> Request<Body> {
    let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
    let request = Request::builder().method("PUT").header("x-auth-token", token);
    request.uri(rig.path("v2", &format!("/instances/{INSTANCE}"))).body(body).unwrap()
}

#[tokio::test]
async fn large_bodies_are_limited_and_small_ones_are_not() {
    let rig = Rig::new().await;
    rig.user("jane", "operator").await;
    let token = rig.token("jane").await;
    let mut held = JoinSet::new();
    for _ in 0..9 {
        held.spawn(rig.router.clone().oneshot(endless(&rig, &token)));
    }
    // Eight bodies never end.
    let refused = held.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let path = rig.path("v2", &format!("/instances/{INSTANCE}"));
    let wish = r#"{"description": "small"}"#;
    let headers = [("x-auth-token", token.as_str()), ("content-length", "24")];
    assert_eq!(rig.plain("PUT", &path, &headers, wish).await.status.as_u16(), 204);
    held.shutdown().await;
    let large = format!(r#"{{"description": "{}"}}"#, "x".repeat(100_000));
    assert_eq!(rig.with_token(&token, "PUT", &path, &large).await.status.as_u16(), 400);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_the_gateways_404() {
    let rig = Rig::new().await;
    for (method, uri) in [
        ("POST", "/".to_owned()),
        ("PUT", "/v2".to_owned()),
        ("GET", "/v1".to_owned()),
        ("GET", "/v9/x/instances".to_owned()),
        ("PUT", rig.path("v2", &format!("/instances/{INSTANCE}/backups"))),
        ("PATCH", rig.path("v1.0", "/instances")),
        ("GET", rig.path("v2", &format!("/instances/{INSTANCE}/nonsense"))),
        ("POST", "/healthz".to_owned()),
    ] {
        let answer = rig.call(method, &uri, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.body["error_code"].as_str()),
            (404, Some("APIGW.0101")),
            "{method} {uri}"
        );
    }
}

#[tokio::test]
async fn paths_that_are_not_utf8_are_refused() {
    let rig = Rig::new().await;
    // One part that is not UTF-8 makes the whole path unreadable, the project included.
    let answer = rig.call("GET", &rig.path("v2", "/instances/%ff%fe/backups"), "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (400, Some("DCS.4002"))
    );
    let answer = rig
        .call("DELETE", &rig.path("v2", &format!("/instances/{INSTANCE}/backups/%00")), "")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (400, Some("DCS.4031"))
    );
    let answer = rig.call("GET", "/api/v1/instances/%ff", "").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (400, &"bad_request".into())
    );
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let rig = Rig::new().await;
    let request = Request::builder().uri("/healthz").header("x-filler", "x".repeat(40_000));
    let answer = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (431, Some("APIGW.0201"))
    );
}

#[tokio::test]
async fn health_requires_no_signature_and_reveals_nothing() {
    let rig = Rig::new().await;
    for (uri, status) in [("/healthz", "alive"), ("/readyz", "ready")] {
        let answer = rig.send(Request::builder().uri(uri).body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body),
            (200, serde_json::json!({"status": status}))
        );
    }
}

#[tokio::test]
async fn concurrent_requests_of_one_credential_are_limited() {
    const RUNNING_MAX: usize = 128;
    let rig = Rig::new().await;
    let backup = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
    rig.succeeded(backup, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    // No worker removes the files, so each of these requests waits.
    let path = rig.path("v2", &format!("/instances/{INSTANCE}/backups/{backup}"));
    let waiting = (0..=RUNNING_MAX).map(|_| Box::pin(rig.call("DELETE", &path, "")));
    let (answer, _, waiting) = futures_util::future::select_all(waiting).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (429, Some("APIGW.0308"))
    );
    assert!(answer.headers.contains_key("retry-after"));
    // Dropping the requests frees their slots.
    drop(waiting);
    let next = rig.call("GET", &rig.path("v2", "/instances"), "").await;
    assert_eq!(next.status.as_u16(), 200);
    // A request refused at this limit costs no write.
    let records = rig.call("GET", "/api/v1/audit?limit=1000", "").await.text;
    assert!(!records.contains(answer.body["request_id"].as_str().unwrap()), "{records}");
}

#[tokio::test]
async fn more_tags_than_an_instance_can_have_are_refused() {
    let rig = Rig::new().await;
    for (version, code) in [("v1.0", "111400062"), ("v2", "DCS.4062")] {
        let uri =
            |count| rig.path(version, &format!("/instances?tags={}", vec!["a"; count].join(",")));
        let refused = rig.call("GET", &uri(1000), "").await;
        assert_eq!(refused.outcome(), (400, code), "{}", refused.text);
        assert_eq!(rig.call("GET", &uri(20), "").await.status, 200);
    }
}

#[tokio::test]
async fn a_body_is_parsed_with_any_content_type() {
    let rig = Rig::new().await;
    let uri = rig.path("v2", &format!("/instances/{INSTANCE}/backups"));
    let date = rig.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    for (method, content_type) in [
        ("GET", Some("application/json")),
        ("GET", None),
        ("POST", Some("application/json;charset=utf-8")),
        ("POST", None),
        ("POST", Some("text/plain")),
    ] {
        let mut headers = vec![("host", "cachevault.test"), ("x-sdk-date", date.as_str())];
        headers.extend(content_type.map(|value| ("content-type", value)));
        let body: &[u8] = if method == "POST" { b"{\"remark\":5}" } else { b"" };
        let request = cachevault_api::signing::SignedRequest {
            method,
            path: &uri,
            query: "",
            headers: &headers,
            body,
        };
        let names: Vec<_> = headers.iter().map(|(name, _)| (*name).to_owned()).collect();
        use secrecy::ExposeSecret;
        let (key, secret) =
            (rig.credential.access_key.as_str(), rig.credential.secret_key.expose_secret());
        let signature = cachevault_api::signing::sign(&request, &names, key, secret).unwrap();
        let built = Request::builder().method(method).uri(&uri).header("authorization", signature);
        let built = headers.iter().fold(built, |built, (name, value)| built.header(*name, *value));
        let answer = rig.send(built.body(Body::from(body)).unwrap()).await;
        let expected = if method == "GET" { (200, None) } else { (400, Some("DCS.4005")) };
        let found = (answer.status.as_u16(), answer.body["error_code"].as_str());
        assert_eq!(found, expected, "{method} {content_type:?}");
    }
}

/// A request without credentials, for a page that requires none.
fn open_page(uri: &str) -> axum::http::request::Builder {
    Request::builder().uri(uri).header("host", "cachevault.test")
}

#[tokio::test]
async fn an_oversized_head_is_refused_with_an_id_and_a_body() {
    let rig = Rig::new().await;
    let many = (0..100).fold(open_page("/"), |request, n| request.header(format!("x-{n}"), "1"));
    for (request, status) in [
        (open_page("/").header("host", "elsewhere.test"), 400),
        (open_page("/").header("host", "cachevault.test"), 400),
        (open_page(&format!("/?x={}", "x".repeat(16 << 10))), 414),
        (open_page(&format!("/{}", "x".repeat(16 << 10))), 414),
        (many, 431),
    ] {
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert_eq!(answer.body["error_code"], "APIGW.0201");
        assert_eq!(answer.body["request_id"], answer.headers["x-request-id"].to_str().unwrap());
    }
    let fits = open_page(&format!("/?x={}", "x".repeat(15 << 10)));
    assert_eq!(rig.send(fits.body(Body::empty()).unwrap()).await.status.as_u16(), 200);
}
