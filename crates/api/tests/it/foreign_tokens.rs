//! Tokens of an external Keystone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use cachevault_app::{ForeignToken, TokenAuthority};
use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};

use crate::rig::{REGION, Rig};

const PROJECT: &str = "8538a3f13f9541b28c2620eb19065e45";

/// A Keystone that knows one token.
#[derive(Debug)]
struct OneToken {
    asked: AtomicUsize,
    answer: Mutex<Result<Option<ForeignToken>, String>>,
}

#[async_trait]
impl TokenAuthority for OneToken {
    async fn validate(&self, token: &SecretString) -> Result<Option<ForeignToken>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.lock().unwrap().clone();
        answer.map(|found| found.filter(|_| token.expose_secret() == "gAAAAA"))
    }
}

fn token(role: &str, name: &str) -> ForeignToken {
    ForeignToken {
        user_id: "3ec3164f750146be97f21559ee4d9c51".into(),
        user_name: "jane".into(),
        project: Some((PROJECT.into(), name.into())),
        roles: vec![role.into()],
        expires_at: "2019-05-10T10:40:00Z".parse().unwrap(),
    }
}

async fn rig(first: ForeignToken) -> (Rig, Arc<OneToken>) {
    let keystone =
        Arc::new(OneToken { asked: AtomicUsize::new(0), answer: Mutex::new(Ok(Some(first))) });
    (Rig::new().await.trusting(keystone.clone()), keystone)
}

async fn list(rig: &Rig, text: &str) -> (u16, String) {
    let uri = format!("/v2/{PROJECT}/instances");
    let answer = rig.with_token(text, "GET", &uri, "").await;
    (answer.status.as_u16(), answer.body["error_msg"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_external_project_is_created_and_a_validation_is_cached_for_a_minute() {
    let (rig, keystone) = rig(token("member", "their-project")).await;
    for _ in 0..3 {
        assert_eq!(list(&rig, "gAAAAA").await.0, 200);
    }
    assert_eq!(keystone.asked.load(Ordering::Relaxed), 1);
    let adopted = rig.call("GET", &format!("/api/v1/projects/{PROJECT}"), "").await;
    assert_eq!(adopted.body["name"], "their-project");
    let own = rig.with_token("gAAAAA", "GET", "/v3/auth/projects", "").await.body;
    assert_eq!(own["projects"][0]["id"], PROJECT);
    assert_eq!(own["projects"].as_array().unwrap().len(), 1);
    for (uri, code) in
        [("/api/v1/users", "not_administrator"), ("/api/v1/projects/nowhere", "project_not_found")]
    {
        let answer = rig.with_token("gAAAAA", "GET", uri, "").await;
        assert_eq!(answer.outcome().1, code, "{uri}: {}", answer.text);
    }
    *keystone.answer.lock().unwrap() = Ok(None);
    rig.clock.advance(SignedDuration::from_secs(59));
    assert_eq!(list(&rig, "gAAAAA").await.0, 200);
    rig.clock.advance(SignedDuration::from_secs(1));
    let (status, reason) = list(&rig, "gAAAAA").await;
    assert!(status == 401 && reason.ends_with("decrypt token fail"), "{reason}");

    rig.call("PATCH", &format!("/api/v1/projects/{PROJECT}"), r#"{"enabled": false}"#).await;
    *keystone.answer.lock().unwrap() = Ok(Some(token("admin", "their-project")));
    assert_eq!(list(&rig, "gAAAAA").await.0, 403);
}

#[tokio::test]
async fn an_external_project_never_takes_a_local_name_and_unknown_roles_grant_nothing() {
    let (rig, keystone) = rig(token("reader", REGION)).await;
    assert_eq!(list(&rig, "gAAAAA").await.0, 200);
    let adopted = rig.call("GET", &format!("/api/v1/projects/{PROJECT}"), "").await;
    assert_eq!(adopted.body["name"], PROJECT);
    let ours = format!("/v2/{}/instances", rig.credential.project);
    let other = rig.with_token("gAAAAA", "GET", &ours, "").await;
    assert_eq!(other.outcome(), (400, "DCS.1004"));
    rig.clock.advance(SignedDuration::from_mins(2));
    *keystone.answer.lock().unwrap() = Ok(Some(token("auditor", REGION)));
    let (status, _) = list(&rig, "gAAAAA").await;
    assert_eq!(status, 400);
    let answer = rig.with_token("gAAAAA", "GET", "/api/v1/instances", "").await;
    assert_eq!(answer.outcome(), (403, "denied"));
    rig.clock.advance(SignedDuration::from_hours(2));
    let (status, reason) = list(&rig, "gAAAAA").await;
    assert!(status == 401 && reason.contains("token expires"), "{reason}");
}

#[tokio::test]
async fn local_tokens_work_while_keystone_is_unreachable() {
    let (rig, keystone) = rig(token("reader", "theirs")).await;
    *keystone.answer.lock().unwrap() = Err("connection refused".into());
    assert_eq!(list(&rig, "gAAAAA").await.0, 500);
    rig.user("jane", "reader").await;
    let before = keystone.asked.load(Ordering::Relaxed);
    let token = rig.token("jane").await;
    let answer = rig.with_token(&token, "GET", "/api/v1/instances", "").await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(keystone.asked.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn an_external_user_is_never_a_local_one() {
    let (rig, keystone) = rig(token("admin", "theirs")).await;
    let id = rig.user("jane", "admin").await;
    let same = ForeignToken { user_id: id.clone(), ..token("admin", "theirs") };
    *keystone.answer.lock().unwrap() = Ok(Some(same));
    let ours = rig.token("jane").await;
    // External users have no access to local projects, tokens and keys.
    let projects = rig.with_token("gAAAAA", "GET", "/v3/auth/projects", "").await.body;
    assert_eq!(projects["projects"].as_array().unwrap().len(), 1, "{projects}");
    let headers = [("x-auth-token", "gAAAAA"), ("x-subject-token", ours.as_str())];
    assert_eq!(rig.plain("DELETE", "/v3/auth/tokens", &headers, "").await.status, 404);
    for user in ["jane", id.as_str()] {
        let wish = serde_json::json!({"role": "reader", "user": user}).to_string();
        let answer = rig.with_token("gAAAAA", "POST", "/api/v1/credentials", &wish).await;
        assert_eq!(answer.outcome(), (403, "not_administrator"), "{user}");
    }
    // Guessing by external users does not lock local users.
    let wrong = r#"{"current": "wrong wrong", "new": "another password"}"#;
    for _ in 0..6 {
        let answer = rig.with_token("gAAAAA", "POST", "/api/v1/password", wrong).await;
        assert_eq!(answer.outcome(), (403, "wrong_password"));
    }
    rig.token("jane").await;
    let audit = rig.with_token("gAAAAA", "GET", "/api/v1/audit", "").await.body;
    let records = audit["items"].as_array().unwrap();
    assert!(!records.is_empty());
    assert!(records.iter().all(|record| record["user"] == "keystone:jane"), "{audit}");
}

#[tokio::test]
async fn guessing_is_counted_while_keystone_is_unreachable() {
    let (rig, keystone) = rig(token("reader", "theirs")).await;
    *keystone.answer.lock().unwrap() = Err("connection refused".into());
    let guess = async |address: [u8; 4]| {
        let request = Request::builder().uri("/api/v1/instances").header("x-auth-token", "guess");
        let address = ConnectInfo(SocketAddr::from((address, 4711)));
        rig.send(request.extension(address).body(Body::empty()).unwrap()).await.status.as_u16()
    };
    for _ in 0..100 {
        assert_eq!(guess([10, 0, 0, 1]).await, 500);
    }
    assert_eq!(guess([10, 0, 0, 1]).await, 429);
    assert_eq!(guess([10, 0, 0, 2]).await, 500);
}
