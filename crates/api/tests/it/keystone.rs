//! Sign-in as OpenStack clients do it, and the permissions of tokens.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::request::Builder;
use cachevault_app::NewCredential;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::rig::{Answer, PASSWORD, REGION, Rig};

fn jane() -> Value {
    json!({"name": "jane", "domain": {"name": "Default"}, "password": PASSWORD})
}

fn is_unauthorized(answer: &Answer, what: &str) {
    let message = "The request you have made requires authentication.";
    let expected = json!({"error": {"code": 401, "message": message, "title": "Unauthorized"}});
    assert_eq!((answer.status.as_u16(), &answer.body), (401, &expected), "{what}");
    assert!(!answer.headers.contains_key("x-subject-token"));
}

#[tokio::test]
async fn a_user_signs_in_with_every_scope_that_clients_send() {
    let rig = Rig::new().await;
    let id = rig.user("jane", "operator").await;
    let project = rig.credential.project.to_string();
    let by_id = json!({"id": id, "password": PASSWORD});
    for (user, scope) in [
        (jane(), json!({"project": {"id": project}})),
        (by_id.clone(), json!({"project": {"name": REGION, "domain": {"name": "Default"}}})),
        (by_id.clone(), json!({"project": {"name": REGION, "domain": {"id": "default"}}})),
        (jane(), json!({"project": {"name": REGION}})),
    ] {
        let answer = rig.sign_in(user, scope.clone()).await;
        assert_eq!(answer.status.as_u16(), 201, "{scope}: {}", answer.text);
        let token = &answer.body["token"];
        let domain = json!({"id": "default", "name": "Default"});
        let expected = json!({"id": project, "name": REGION, "domain": domain});
        assert_eq!(
            (&token["project"], &token["roles"][0]["name"]),
            (&expected, &json!("operator"))
        );
        assert_eq!((&token["user"]["id"], &token["user"]["domain"]), (&json!(id), &domain));
        assert_eq!(token["methods"], json!(["password"]));
        assert_eq!(token["issued_at"], "2019-05-10T08:40:00.000000Z");
        assert_eq!(token["expires_at"], "2019-05-11T08:40:00.000000Z");
    }
    let domain = rig.sign_in(jane(), json!({"domain": {"name": "Default"}})).await;
    assert_eq!(domain.body["token"]["domain"]["id"], "default");
    assert!(domain.body["token"].get("project").is_none());
    for none in [Value::Null, json!("unscoped"), json!({"unscoped": {}})] {
        let answer = rig.sign_in(by_id.clone(), none).await;
        let token = &answer.body["token"];
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
        assert!(token.get("project").is_none() && token.get("catalog").is_none());
    }
}

#[tokio::test]
async fn the_catalog_leads_to_dcs_under_both_names() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let answer = rig.sign_in(jane(), json!({"project": {"name": REGION}})).await;
    let catalog = answer.body["token"]["catalog"].as_array().unwrap();
    let url = format!("http://cachevault.test/v1.0/{}", rig.credential.project);
    for (kind, url) in
        [("dcs", url.as_str()), ("dcsv1", &url), ("identity", "http://cachevault.test/v3")]
    {
        let service = catalog.iter().find(|service| service["type"] == kind).unwrap();
        let endpoint = &service["endpoints"][0];
        assert_eq!((&endpoint["url"], &endpoint["interface"]), (&json!(url), &json!("public")));
        assert_eq!((&endpoint["region"], &endpoint["region_id"]), (&json!(REGION), &json!(REGION)));
    }
    let shown = rig.with_token(&answer.token(), "GET", "/v3/auth/catalog", "").await;
    assert_eq!(shown.body["catalog"], answer.body["token"]["catalog"]);
    let signed = rig.call("GET", "/v3/auth/catalog", "").await;
    assert_eq!(signed.body["catalog"], answer.body["token"]["catalog"]);
    let headers = [("x-auth-token", answer.token()), ("x-subject-token", answer.token())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let bare = rig.plain("GET", "/v3/auth/tokens?nocatalog", &headers, "").await;
    assert!(bare.body["token"].get("catalog").is_none());
}

#[tokio::test]
async fn a_refused_sign_in_reveals_no_reason() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    rig.call("POST", "/api/v1/projects", r#"{"name": "other"}"#).await;
    let id = rig.user("gone", "reader").await;
    rig.call("PATCH", "/api/v1/users/gone", r#"{"enabled": false}"#).await;
    let scope = json!({"project": {"name": REGION}});
    let user = |name: &str, password: &str| json!({"name": name, "password": password});
    for (user, scope) in [
        (user("jane", "wrong"), scope.clone()),
        (user("nobody", PASSWORD), scope.clone()),
        (user("no such name", PASSWORD), scope.clone()),
        (user("gone", PASSWORD), scope.clone()),
        (json!({"id": id, "password": PASSWORD}), scope.clone()),
        (json!({"id": "x", "password": PASSWORD}), scope.clone()),
        (json!({"name": "jane", "domain": {"name": "Other"}, "password": PASSWORD}), scope),
        (jane(), json!({"project": {"name": "other"}})),
        (jane(), json!({"project": {"name": "nowhere"}})),
        (jane(), json!({"project": {"id": "nowhere"}})),
        (jane(), json!({"project": {"name": REGION, "domain": {"name": "Other"}}})),
        (jane(), json!({"domain": {"id": "other"}})),
    ] {
        rig.clock.advance(SignedDuration::from_mins(6));
        let what = format!("{user} {scope}");
        is_unauthorized(&rig.sign_in(user, scope).await, &what);
    }
    for body in ["", "{}", r#"{"auth": {"identity": {"methods": ["hw_ak_sk"]}}}"#] {
        let answer = rig.plain("POST", "/v3/auth/tokens", &[], body).await;
        assert_eq!(answer.body["error"]["title"], "Bad Request", "{body}: {}", answer.text);
    }
    let secret = r#"{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": 7, "password": "topsecret"}}}}}"#;
    let answer = rig.plain("POST", "/v3/auth/tokens", &[], secret).await;
    assert!(answer.status.as_u16() == 400 && !answer.text.contains("topsecret"), "{}", answer.text);
}

#[tokio::test]
async fn a_token_grants_its_role_only_in_its_project() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let token = rig.token("jane").await;
    for version in ["v1.0", "v2"] {
        let listed = rig.with_token(&token, "GET", &rig.path(version, "/instances"), "").await;
        assert_eq!(listed.status.as_u16(), 200, "{}", listed.text);
        let path = rig.path(version, &format!("/instances/{}/backups", crate::rig::INSTANCE));
        let denied = rig.with_token(&token, "POST", &path, "{}").await;
        let code = if version == "v2" { "DCS.2007" } else { "111403003" };
        assert_eq!(denied.outcome(), (403, code));
    }
    assert_eq!(rig.with_token(&token, "GET", "/api/v1/instances", "").await.status.as_u16(), 200);
    let elsewhere = "/v2/ffffffffffffffffffffffffffffffff/instances";
    let other = rig.with_token(&token, "GET", elsewhere, "").await;
    assert_eq!(other.outcome(), (400, "DCS.1004"));
    for scope in [Value::Null, json!({"domain": {"id": "default"}})] {
        let token = rig.sign_in(jane(), scope).await.token();
        let other = rig.with_token(&token, "GET", &rig.path("v2", "/instances"), "").await;
        assert_eq!(other.outcome(), (400, "DCS.1004"));
        let denied = rig.with_token(&token, "GET", "/api/v1/instances", "").await;
        assert_eq!(denied.outcome(), (403, "denied"));
    }
    // Permissions of a token are evaluated at each use.
    rig.call("PUT", &format!("/api/v1/users/jane/grants/{REGION}"), r#"{"role": "admin"}"#).await;
    let answer = rig.with_token(&token, "GET", "/api/v1/credentials", "").await;
    assert_eq!(answer.status.as_u16(), 200);
}

#[tokio::test]
async fn an_unusable_token_has_the_gateways_errors() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let path = rig.path("v2", "/instances");
    let refused = async |token: &str, reason: &str| {
        let answer = rig.with_token(token, "GET", &path, "").await;
        assert_eq!(answer.outcome(), (401, "APIGW.0301"));
        let message = format!("Incorrect IAM authentication information: {reason}");
        assert_eq!(answer.body["error_msg"], message);
    };
    let token = rig.token("jane").await;
    for wrong in ["", "x", &"0".repeat(64), &token.to_uppercase(), &token[1..]] {
        refused(wrong, "decrypt token fail").await;
    }
    let revoked = rig.token("jane").await;
    let headers = [("x-auth-token", token.as_str()), ("x-subject-token", revoked.as_str())];
    let answer = rig.plain("DELETE", "/v3/auth/tokens", &headers, "").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    refused(&revoked, "decrypt token fail").await;
    rig.clock.advance(SignedDuration::from_hours(24));
    refused(&token, "token expires, expires_at: 2019-05-11T08:40:00.000000Z").await;

    let token = rig.token("jane").await;
    let open = rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    let second = open.body["id"].as_str().unwrap().to_owned();
    let grant = format!("/api/v1/users/jane/grants/{second}");
    rig.call("PUT", &grant, r#"{"role": "reader"}"#).await;
    let in_second = rig.sign_in(jane(), json!({"project": {"id": second}})).await.token();
    rig.call("PATCH", "/api/v1/projects/second", r#"{"enabled": false}"#).await;
    let answer = rig.with_token(&in_second, "GET", "/api/v1/instances", "").await;
    assert_eq!(answer.outcome(), (403, "APIGW.0310"));
    let scope = json!({"project": {"name": "second"}});
    is_unauthorized(&rig.sign_in(jane(), scope).await, "disabled project");
    rig.call("PATCH", "/api/v1/users/jane", r#"{"password": "another password"}"#).await;
    refused(&token, "decrypt token fail").await;
}

#[tokio::test]
async fn a_token_is_shown_and_revoked_only_by_its_user() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    rig.user("john", "admin").await;
    let (jane, john) = (rig.token("jane").await, rig.token("john").await);
    let about = async |method: &str, caller: &str, subject: &str| {
        let headers = [("x-auth-token", caller), ("x-subject-token", subject)];
        rig.plain(method, "/v3/auth/tokens", &headers, "").await
    };
    let shown = about("GET", &jane, &jane).await;
    assert_eq!((shown.status.as_u16(), shown.token()), (200, jane.clone()));
    assert_eq!(shown.body["token"]["user"]["name"], "jane");
    let head = about("HEAD", &jane, &jane).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    for method in ["GET", "DELETE"] {
        let answer = about(method, &john, &jane).await;
        assert_eq!(answer.body["error"]["code"], 404, "{method}: {}", answer.text);
        assert_eq!(about(method, &jane, "nonsense").await.status.as_u16(), 404);
    }
    let answer = about("GET", "nonsense", &jane).await;
    assert_eq!((&answer.body["error"]["code"], answer.status.as_u16()), (&json!(401), 401));
    rig.call("PATCH", "/api/v1/users/john", r#"{"administers_service": true}"#).await;
    assert_eq!(about("GET", &john, &jane).await.status.as_u16(), 200);
    assert_eq!(about("DELETE", &john, &jane).await.status.as_u16(), 204);
    assert_eq!(about("GET", &john, &jane).await.status.as_u16(), 404);
    let missing = rig.with_token(&john, "GET", "/v3/auth/tokens", "").await;
    assert_eq!(missing.body["error"]["code"], 400);
}

#[tokio::test]
async fn a_token_for_a_token_ends_with_the_first() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let first = rig.sign_in(jane(), Value::Null).await.token();
    rig.clock.advance(SignedDuration::from_hours(1));
    let scoped = async |token: &str| {
        let identity = json!({"methods": ["token"], "token": {"id": token}});
        let scope = json!({"project": {"name": REGION}});
        let body = json!({"auth": {"identity": identity, "scope": scope}}).to_string();
        rig.plain("POST", "/v3/auth/tokens", &[], &body).await
    };
    let answer = scoped(&first).await;
    assert_eq!(answer.body["token"]["expires_at"], "2019-05-11T08:40:00.000000Z");
    assert_eq!(answer.body["token"]["issued_at"], "2019-05-10T09:40:00.000000Z");
    assert_eq!(answer.body["token"]["methods"], json!(["token", "password"]));
    let path = rig.path("v2", "/instances");
    let token = answer.token();
    assert_eq!(rig.with_token(&token, "GET", &path, "").await.status.as_u16(), 200);
    is_unauthorized(&scoped("nonsense").await, "nonsense");
    rig.clock.advance(SignedDuration::from_hours(23));
    is_unauthorized(&scoped(&first).await, "expired");
    assert_eq!(rig.with_token(&token, "GET", &path, "").await.status.as_u16(), 401);
}

#[tokio::test]
async fn revoking_a_token_revokes_the_tokens_derived_from_it() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let first = rig.sign_in(jane(), Value::Null).await.token();
    let identity = json!({"methods": ["token"], "token": {"id": first}});
    let scope = json!({"project": {"name": REGION}});
    let body = json!({"auth": {"identity": identity, "scope": scope}}).to_string();
    let second = rig.plain("POST", "/v3/auth/tokens", &[], &body).await.token();
    let path = rig.path("v2", "/instances");
    assert_eq!(rig.with_token(&second, "GET", &path, "").await.status.as_u16(), 200);
    let headers = [("x-auth-token", first.as_str()), ("x-subject-token", &first)];
    let revoked = rig.plain("DELETE", "/v3/auth/tokens", &headers, "").await;
    assert_eq!(revoked.status.as_u16(), 204);
    assert_eq!(rig.with_token(&second, "GET", &path, "").await.status.as_u16(), 401);
}

#[tokio::test]
async fn a_signed_request_finds_only_its_own_project_by_region() {
    let rig = Rig::new().await;
    rig.call("POST", "/api/v1/projects", r#"{"name": "other"}"#).await;
    let project = rig.credential.project.to_string();
    for uri in [&format!("/v3/projects?name={REGION}")[..], "/v3/projects", "/v3/auth/projects"] {
        let body = rig.call("GET", uri, "").await.body;
        let [found] = &body["projects"].as_array().unwrap()[..] else { panic!("{uri}: {body}") };
        assert_eq!((&found["id"], &found["name"]), (&json!(project), &json!(REGION)));
        assert_eq!((&found["enabled"], &found["domain_id"]), (&json!(true), &json!("default")));
    }
    for none in ["/v3/projects?name=other", "/v3/auth/domains?name=other"] {
        let body = rig.call("GET", none, "").await.body;
        let list = body["projects"].as_array().or(body["domains"].as_array());
        assert!(list.unwrap().is_empty(), "{none}: {body}");
    }
    let domains = rig.call("GET", "/v3/auth/domains", "").await.body;
    assert_eq!(domains["domains"][0]["id"], "default");
    // An administrator of the service sees only the projects with a role of its own.
    rig.user("jane", "reader").await;
    rig.call("PATCH", "/api/v1/users/jane", r#"{"administers_service": true}"#).await;
    let token = rig.token("jane").await;
    let body = rig.with_token(&token, "GET", "/v3/auth/projects", "").await.body;
    assert_eq!(body["projects"].as_array().unwrap().len(), 1);
    let bare = rig.plain("GET", "/v3/auth/projects", &[], "").await;
    assert_eq!((&bare.body["error"]["code"], bare.status.as_u16()), (&json!(401), 401));
}

#[tokio::test]
async fn the_version_and_unknown_paths_look_like_keystones() {
    let rig = Rig::new().await;
    for uri in ["/v3", "/v3/"] {
        let body = rig.plain("GET", uri, &[], "").await.body;
        assert_eq!(
            (&body["version"]["id"], &body["version"]["status"]),
            (&json!("v3.14"), &json!("stable"))
        );
        assert_eq!(body["version"]["links"][0]["href"], "http://cachevault.test/v3/");
    }
    let answer = rig.plain("GET", "/v3/users", &[], "").await;
    assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (404, &json!(404)));
    let large = format!(r#"{{"auth": "{}"}}"#, "x".repeat(100_000));
    let answer = rig.plain("POST", "/v3/auth/tokens", &[], &large).await;
    assert_eq!(answer.status.as_u16(), 400);
}

#[tokio::test]
async fn five_wrong_signatures_in_a_row_lock_the_key_for_five_minutes() {
    let rig = Rig::new().await;
    let path = rig.path("v2", "/instances");
    let wrong = NewCredential { secret_key: "wrong".to_owned().into(), ..rig.credential.clone() };
    let reason = |answer: &Answer| answer.body["error_msg"].as_str().unwrap_or("").to_owned();
    for _ in 0..4 {
        rig.call_as(&wrong, "GET", &path, "").await;
    }
    assert_eq!(rig.call("GET", &path, "").await.status.as_u16(), 200);
    for _ in 0..5 {
        let answer = rig.call_as(&wrong, "GET", &path, "").await;
        assert!(reason(&answer).ends_with("verify aksk signature fail"), "{}", answer.text);
    }
    for who in [&wrong, &rig.credential] {
        let answer = rig.call_as(who, "GET", &path, "").await;
        assert_eq!(answer.outcome(), (401, "APIGW.0301"));
        let expected = "AK access failed to reach the limit,forbidden";
        assert!(reason(&answer).ends_with(expected), "{}", answer.text);
    }
    rig.clock.advance(SignedDuration::from_mins(5));
    assert_eq!(rig.call("GET", &path, "").await.status.as_u16(), 200);
}

#[tokio::test]
async fn five_wrong_passwords_lock_the_user_without_another_answer() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let wrong = json!({"name": "jane", "password": "wrong password"});
    for _ in 0..5 {
        is_unauthorized(&rig.sign_in(wrong.clone(), Value::Null).await, "wrong");
    }
    is_unauthorized(&rig.sign_in(jane(), Value::Null).await, "locked");
    rig.clock.advance(SignedDuration::from_mins(5));
    assert_eq!(rig.sign_in(jane(), Value::Null).await.status.as_u16(), 201);
}

#[tokio::test]
async fn a_guessing_address_has_to_wait() {
    let rig = Rig::new().await;
    let from = async |address: [u8; 4], uri: &str| {
        let request = Request::builder().uri(uri).header("x-auth-token", "guess");
        rig.send(request_from(address, request, String::new())).await
    };
    for _ in 0..100 {
        assert_eq!(from([10, 0, 0, 1], "/api/v1/instances").await.status.as_u16(), 401);
    }
    rig.clock.advance(SignedDuration::from_secs(20));
    let answer = from([10, 0, 0, 1], "/api/v1/instances").await;
    assert_eq!(answer.outcome(), (429, "APIGW.0308"));
    assert_eq!(answer.headers["retry-after"], "40");
    let keystone = from([10, 0, 0, 1], "/v3/auth/projects").await;
    assert_eq!((keystone.status.as_u16(), &keystone.body["error"]["code"]), (429, &json!(429)));
    assert_eq!(keystone.headers["retry-after"], "40");
    assert_eq!(from([10, 0, 0, 2], "/api/v1/instances").await.status.as_u16(), 401);
    rig.clock.advance(SignedDuration::from_secs(40));
    assert_eq!(from([10, 0, 0, 1], "/api/v1/instances").await.status.as_u16(), 401);
}

#[tokio::test]
async fn a_security_token_is_always_refused() {
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
    use secrecy::ExposeSecret;
    let names = headers.map(|(name, _)| name.to_owned());
    let (access, secret) = (rig.credential.access_key.as_str(), &rig.credential.secret_key);
    let signature =
        cachevault_api::signing::sign(&request, &names, access, secret.expose_secret()).unwrap();
    let headers = [("x-sdk-date", date), ("authorization", &signature)];
    assert_eq!(rig.plain("GET", &path, &headers, "").await.status.as_u16(), 200);
    let headers = [headers[0], headers[1], ("x-security-token", "temporary")];
    assert_eq!(rig.plain("GET", &path, &headers, "").await.outcome(), (401, "APIGW.0301"));
}

/// A request from this address.
fn request_from(address: [u8; 4], request: Builder, body: String) -> Request<Body> {
    let address = ConnectInfo(SocketAddr::from((address, 4711)));
    request.extension(address).body(Body::from(body)).unwrap()
}

async fn sign_in_from(rig: &Rig, address: [u8; 4]) -> Answer {
    let identity = json!({"methods": ["password"], "password": {"user": jane()}});
    let body = json!({"auth": {"identity": identity}}).to_string();
    let request = Request::builder().method("POST").uri("/v3/auth/tokens");
    rig.send(request_from(address, request, body)).await
}

#[tokio::test]
async fn sign_ins_of_one_address_are_limited() {
    const WAITING_MAX: usize = 16;
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let turns = [rig.app.password_turn().await.unwrap(), rig.app.password_turn().await.unwrap()];
    let one = [10, 0, 0, 1];
    let signing_in = (0..=WAITING_MAX).map(|_| sign_in_from(&rig, one));
    let mut signing_in: FuturesUnordered<_> = signing_in.collect();
    // All other sign-ins wait.
    let refused = signing_in.next().await.unwrap();
    assert_eq!((refused.status.as_u16(), &refused.body["error"]["code"]), (429, &json!(429)));
    assert!(refused.headers.contains_key("retry-after"));
    signing_in.push(sign_in_from(&rig, [10, 0, 0, 2]));
    drop(turns);
    let answers: Vec<_> = signing_in.collect().await;
    assert_eq!(answers.len(), WAITING_MAX + 1);
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(sign_in_from(&rig, one).await.status, 201);
}

#[tokio::test]
async fn chains_of_tokens_are_limited() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let mut token = rig.sign_in(jane(), Value::Null).await.token();
    let next = async |token: &str| {
        let identity = json!({"methods": ["token"], "token": {"id": token}});
        let body = json!({"auth": {"identity": identity}}).to_string();
        rig.plain("POST", "/v3/auth/tokens", &[], &body).await
    };
    for _ in 1..16 {
        let answer = next(&token).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
        token = answer.token();
    }
    let refused = next(&token).await;
    let error = &refused.body["error"];
    assert_eq!((refused.status.as_u16(), &error["title"]), (403, &json!("Forbidden")));
    assert!(error["message"].as_str().unwrap().contains("sign in with the password"), "{error}");
    assert_eq!(rig.with_token(&token, "GET", "/v3/auth/projects", "").await.status, 200);
    let changed = rig.call("PATCH", "/api/v1/users/jane", r#"{"enabled": false}"#).await;
    assert_eq!(changed.status.as_u16(), 200, "{}", changed.text);
}
