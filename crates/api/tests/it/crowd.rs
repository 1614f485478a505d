//! Well-behaved clients that share an address or a proxy with an attacker.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request};
use bytes::Bytes;
use cachevault_app::NewCredential;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::rig::{Answer, INSTANCE, PASSWORD, PROXY, Rig};

const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";

fn from(address: &str, mut request: Request<Body>) -> Request<Body> {
    let address = SocketAddr::new(address.parse().unwrap(), 4711);
    request.extensions_mut().insert(ConnectInfo(address));
    request
}

/// A request as a proxy forwards it for this client.
fn through(proxy: &str, client: &'static str, request: Request<Body>) -> Request<Body> {
    let mut request = from(proxy, request);
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static(client));
    request
}

fn guess() -> Request<Body> {
    let request = Request::builder().uri("/api/v1/instances").header("x-auth-token", "guess");
    request.body(Body::empty()).unwrap()
}

fn signing_in(user: &Value, password: &str) -> Request<Body> {
    let mut user = user.clone();
    user["password"] = password.into();
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let body = json!({"auth": {"identity": identity}}).to_string();
    Request::builder().method("POST").uri("/v3/auth/tokens").body(Body::from(body)).unwrap()
}

/// The first access key with a wrong secret.
fn forged(rig: &Rig) -> NewCredential {
    NewCredential { secret_key: "wrong".to_owned().into(), ..rig.credential.clone() }
}

async fn listed(rig: &Rig, who: &NewCredential, address: &str) -> Answer {
    rig.send(from(address, rig.signed(who, "GET", "/api/v1/instances", ""))).await
}

#[tokio::test]
async fn correct_credentials_are_accepted_from_an_attackers_address() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let token = rig.token("jane").await;
    for _ in 0..100 {
        assert_eq!(rig.send(from(HERE, guess())).await.status, 401);
    }
    assert_eq!(rig.send(from(HERE, guess())).await.status, 429);
    let answer = listed(&rig, &rig.credential, HERE).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let with_token = Request::builder().uri("/api/v1/instances").header("x-auth-token", token);
    let answer = rig.send(from(HERE, with_token.body(Body::empty()).unwrap())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let jane = json!({"name": "jane"});
    let answer = rig.send(from(HERE, signing_in(&jane, PASSWORD))).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    // Wrong credentials get the same answer as before.
    let wrong = rig.send(from(HERE, signing_in(&jane, "wrong password"))).await;
    assert_eq!(wrong.status, 429, "{}", wrong.text);
    assert_eq!(listed(&rig, &forged(&rig), HERE).await.status, 429);
}

#[tokio::test]
async fn a_key_and_a_user_are_locked_only_for_the_guessing_address() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let jane = json!({"name": "jane"});
    for _ in 0..5 {
        assert_eq!(listed(&rig, &forged(&rig), HERE).await.status, 401);
        let wrong = rig.send(from(HERE, signing_in(&jane, "wrong password"))).await;
        assert_eq!(wrong.status, 401);
    }
    for (address, signed, signed_in) in [(HERE, 401, 401), (THERE, 200, 201)] {
        let answer = listed(&rig, &rig.credential, address).await;
        assert_eq!(answer.status.as_u16(), signed, "{address} {}", answer.text);
        let answer = rig.send(from(address, signing_in(&jane, PASSWORD))).await;
        assert_eq!(answer.status.as_u16(), signed_in, "{address} {}", answer.text);
    }
}

#[tokio::test]
async fn attempts_by_id_by_name_and_by_password_change_share_one_limit() {
    let rig = Rig::new().await;
    let id = rig.user("jane", "reader").await;
    let token = rig.token("jane").await;
    let tried = [json!({"id": id}), json!({"name": "jane"})];
    for user in tried.iter().cycle().take(4) {
        let wrong = rig.send(from(HERE, signing_in(user, "wrong password"))).await;
        assert_eq!(wrong.status, 401);
    }
    let change = json!({"current": "wrong password", "new": "another password"}).to_string();
    let change = Request::builder().method("POST").uri("/api/v1/password").body(change.into());
    let mut change: Request<Body> = change.unwrap();
    change.headers_mut().insert("x-auth-token", token.parse().unwrap());
    assert_eq!(rig.send(from(HERE, change)).await.outcome(), (403, "wrong_password"));
    for user in &tried {
        let locked = rig.send(from(HERE, signing_in(user, PASSWORD))).await;
        assert_eq!(locked.status, 401, "{user}: {}", locked.text);
    }
}

#[tokio::test]
async fn wrong_signatures_do_not_block_large_bodies() {
    let rig = Rig::new().await;
    let path = rig.path("v2", &format!("/instances/{INSTANCE}"));
    let mut sent = JoinSet::new();
    // The signatures cannot be verified yet: their bodies never end.
    for _ in 0..9 {
        let endless = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        let request =
            rig.signed(&forged(&rig), "PUT", &path, "").map(|_| Body::from_stream(endless));
        sent.spawn(rig.router.clone().oneshot(request));
    }
    let refused = sent.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(refused.status(), 429, "the service has eight slots");
    let large = format!(r#"{{"description": "{}"}}"#, "x".repeat(100_000));
    let answer = rig.call("PUT", &path, &large).await;
    assert_eq!(answer.outcome(), (400, "DCS.4011"), "{}", answer.text);
    sent.shutdown().await;
}

/// The address in the newest audit record.
async fn recorded_address(rig: &Rig) -> Value {
    let records = rig.call("GET", "/api/v1/audit?limit=1", "").await;
    records.body["items"][0]["address"].clone()
}

#[tokio::test]
async fn only_a_trusted_proxy_sets_the_client_address() {
    let rig = Rig::new().await;
    let call = || rig.signed(&rig.credential, "DELETE", "/api/v1/instances/none", "");
    for (proxy, client, expected) in [
        (PROXY, HERE, HERE),
        (PROXY, "203.0.113.9, 192.0.2.1", HERE),
        (PROXY, "nonsense", PROXY),
        (THERE, HERE, THERE),
    ] {
        rig.send(through(proxy, client, call())).await;
        assert_eq!(recorded_address(&rig).await, expected, "{client} through {proxy}");
    }
    for _ in 0..100 {
        rig.send(through(PROXY, HERE, guess())).await;
    }
    for (client, status) in [(HERE, 429), (THERE, 401)] {
        let answer = rig.send(through(PROXY, client, guess())).await;
        assert_eq!(answer.status.as_u16(), status, "{client}");
    }
}
