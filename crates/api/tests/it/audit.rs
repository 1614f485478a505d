//! Audit records: the calls that they contain, and those that they omit.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use cachevault_app::NewCredential;
use cachevault_domain::Clock;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::rig::{REGION, Rig};

async fn recorded(rig: &Rig, query: &str) -> Vec<Value> {
    let answer = rig.call("GET", &format!("/api/v1/audit{query}"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn changing_calls_are_recorded_with_their_results() {
    let rig = Rig::new().await;
    let backups = rig.path("v2", &format!("/instances/{}/backups", rig.instance()));
    let made = rig.call("POST", &backups, "").await;
    let busy = rig.call("POST", &backups, "").await;
    let unknown = rig.call("DELETE", "/api/v1/instances/none", "").await;
    assert_eq!(
        (made.status.as_u16(), busy.status.as_u16(), unknown.status.as_u16()),
        (200, 400, 404)
    );
    rig.call("GET", &backups, "").await;

    let records = recorded(&rig, "").await;
    let shown =
        records.iter().map(|r| json!([r["operation"], r["resource"], r["status"], r["error"]]));
    let shown: Vec<_> = shown.collect();
    let create = "POST /v2/{project_id}/instances/{instance_id}/backups";
    let remove = "DELETE /api/v1/instances/{instance_id}";
    let expected = [
        json!([remove, "/api/v1/instances/none", 404, "instance_not_found"]),
        json!([create, backups, 400, "DCS.4096"]),
        json!([create, backups, 200, null]),
    ];
    assert_eq!(shown, expected);
    for (record, answer) in records.iter().zip([&unknown, &busy, &made]) {
        assert_eq!(record["request_id"], answer.headers["x-request-id"].to_str().unwrap());
        assert_eq!(record["access_key"], rig.credential.access_key.as_str());
        assert_eq!(record["at"], rig.clock.now().to_string());
    }
}

#[tokio::test]
async fn request_bodies_are_not_recorded() {
    let rig = Rig::new().await;
    let body = r#"{"name": "x", "host": "h", "port": 1, "password": "hunter2"}"#;
    rig.call("POST", "/api/v1/instances?password=hunter2", body).await;
    let records = recorded(&rig, "").await;
    assert_eq!(records.len(), 1);
    assert!(!records[0].to_string().contains("hunter2"), "{}", records[0]);
}

#[tokio::test]
async fn records_are_read_page_by_page() {
    let rig = Rig::new().await;
    for _ in 0..3 {
        rig.call("DELETE", "/api/v1/instances/none", "").await;
    }
    let ids = |records: Vec<Value>| {
        records.iter().map(|r| r["request_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let newest = ids(recorded(&rig, "").await);
    let oldest = ids(recorded(&rig, "?order=oldest&limit=2").await);
    assert_eq!(oldest, [newest[2].clone(), newest[1].clone()]);
    let rest = ids(recorded(&rig, &format!("?order=oldest&marker={}", oldest[1])).await);
    assert_eq!(rest, [newest[0].clone()]);
    for query in ["?marker=x", "?order=x", "?limit=0", "?limit=1001", "?begin_time=x"] {
        let answer = rig.call("GET", &format!("/api/v1/audit{query}"), "").await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
    }
    let unknown = "?marker=0123456789abcdef0123456789abcdef";
    let answer = rig.call("GET", &format!("/api/v1/audit{unknown}"), "").await;
    assert_eq!(answer.body["error"]["code"], "marker_not_found", "{}", answer.text);
}

#[tokio::test]
async fn signing_in_and_ending_a_token_is_recorded() {
    let rig = Rig::new().await;
    rig.user("ada", "admin").await;
    let (kept, ended) = (rig.token("ada").await, rig.token("ada").await);
    let headers = [("x-auth-token", kept.as_str()), ("x-subject-token", ended.as_str())];
    assert_eq!(rig.plain("DELETE", "/v3/auth/tokens", &headers, "").await.status, 204);
    let records = recorded(&rig, "?limit=3").await;
    let shown: Vec<_> =
        records.iter().map(|r| json!([r["operation"], r["user"], r["status"]])).collect();
    let expected = [
        json!(["DELETE /v3/auth/tokens", "ada", 204]),
        json!(["POST /v3/auth/tokens", "ada", 201]),
        json!(["POST /v3/auth/tokens", "ada", 201]),
    ];
    assert_eq!(shown, expected);
    let told = records.iter().map(ToString::to_string).collect::<String>();
    assert!(!told.contains(&kept) && !told.contains(&ended), "{told}");
}

#[tokio::test]
async fn a_project_sees_no_records_of_other_projects() {
    let rig = Rig::new().await;
    rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    rig.call("POST", "/api/v1/policies?project=second", r#"{"name": "some", "actions": []}"#).await;
    let auditor = rig.key(json!({"role": "admin"})).await;
    let seen = rig.call_as(&auditor, "GET", "/api/v1/audit", "").await;
    let seen = seen.body["items"].as_array().unwrap().clone();
    assert_eq!(seen.len(), 1, "only the auditor's own key: {seen:?}");
    // An administrator of the service sees all records.
    assert_eq!(recorded(&rig, "").await.len(), 3);
}

/// The operations that a project key finds in the audit, newest first.
async fn seen_by(rig: &Rig, auditor: &NewCredential) -> Vec<String> {
    let answer = rig.call_as(auditor, "GET", "/api/v1/audit", "").await;
    let records = answer.body["items"].as_array().unwrap().clone();
    records.iter().map(|record| record["operation"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn query_parameters_cannot_hide_a_call_from_its_project() {
    let rig = Rig::new().await;
    rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    let auditor = rig.key(json!({"role": "admin"})).await;
    let policy = r#"{"name": "some", "actions": []}"#;
    let restores = rig.path("v2", &format!("/instances/{}/restores", rig.instance()));
    for who in [&auditor, &rig.credential] {
        for (uri, body) in [
            (format!("{restores}?project=second"), "{}"),
            ("/api/v1/credentials?project=second".to_owned(), r#"{"role": "reader"}"#),
        ] {
            rig.call_as(who, "POST", &uri, body).await;
        }
    }
    rig.call_as(&auditor, "POST", "/api/v1/policies?project=second", policy).await;
    rig.call("POST", &format!("/api/v1/policies?project={REGION}"), policy).await;
    rig.call("POST", "/api/v1/policies?project=second", policy).await;
    rig.call("POST", "/api/v1/policies?project=nowhere", policy).await;
    let (policies, keys) = ("POST /api/v1/policies", "POST /api/v1/credentials");
    let restore = "POST /v2/{project_id}/instances/{instance_id}/restores";
    let expected = [policies, policies, keys, restore, keys, restore, keys];
    assert_eq!(seen_by(&rig, &auditor).await, expected);
}

#[tokio::test]
async fn an_administrators_change_of_a_key_is_visible_only_to_the_keys_project() {
    let rig = Rig::new().await;
    rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    let auditor = rig.key(json!({"role": "admin"})).await;
    let own = rig.key(json!({"role": "reader"})).await;
    let theirs = rig.key(json!({"project": "second", "role": "reader"})).await;
    let before = seen_by(&rig, &auditor).await.len();
    for key in [theirs.access_key.as_str(), "UNKNOWNKEY", own.access_key.as_str()] {
        let uri = format!("/api/v1/credentials/{key}");
        rig.call("PATCH", &uri, r#"{"description": "changed"}"#).await;
        rig.call("POST", &format!("{uri}/rotate"), "").await;
        rig.call("DELETE", &uri, "").await;
    }
    let seen = seen_by(&rig, &auditor).await;
    let uri = "/api/v1/credentials/{access_key}";
    let expected = [format!("DELETE {uri}"), format!("POST {uri}/rotate"), format!("PATCH {uri}")];
    assert_eq!(seen[..seen.len() - before], expected);
    let records = recorded(&rig, "?limit=1000").await;
    let of_theirs = |record: &&Value| record.to_string().contains(theirs.access_key.as_str());
    assert_eq!(
        records.iter().filter(of_theirs).count(),
        3,
        "administrators see all records: {records:?}"
    );
}

#[tokio::test]
async fn a_refusal_of_keystone_is_recorded_with_a_code() {
    let rig = Rig::new().await;
    rig.user("ada", "admin").await;
    let token = rig.token("ada").await;
    let headers = [("x-auth-token", token.as_str()), ("x-subject-token", "nonsense")];
    assert_eq!(rig.plain("DELETE", "/v3/auth/tokens", &headers, "").await.status, 404);
    assert_eq!(rig.plain("DELETE", "/v3/auth/tokens", &headers[..1], "").await.status, 400);
    let records = recorded(&rig, "?limit=2").await;
    let shown: Vec<_> = records.iter().map(|r| json!([r["status"], r["error"]])).collect();
    assert_eq!(shown, [json!([400, "bad_request"]), json!([404, "token_not_found"])]);
}

/// The newest records as `[operation, caller, address, status, error, times]`.
async fn refused(rig: &Rig, limit: usize) -> Vec<Value> {
    let records = recorded(rig, &format!("?limit={limit}")).await;
    let shown = records.iter().map(|r| {
        let who = r["user"].as_str().or(r["access_key"].as_str());
        json!([r["operation"], who, r["address"], r["status"], r["error"], r["times"]])
    });
    shown.collect()
}

#[tokio::test]
async fn failed_sign_ins_are_recorded_with_existing_user_and_address() {
    let rig = Rig::new().await;
    rig.user("ada", "admin").await;
    let sign_in = "POST /v3/auth/tokens";
    for user in ["ada", "a password in the wrong place", "nobody"] {
        let wrong = json!({"name": user, "password": "wrong password"});
        let identity = json!({"methods": ["password"], "password": {"user": wrong}});
        let body = json!({"auth": {"identity": identity}}).to_string();
        let request = Request::builder().method("POST").uri("/v3/auth/tokens");
        let request = request.extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4711))));
        assert_eq!(rig.send(request.body(Body::from(body)).unwrap()).await.status, 401);
    }
    let expected = [
        json!([sign_in, null, "192.0.2.1", 401, "unauthorized", 1]),
        json!([sign_in, null, "192.0.2.1", 401, "unauthorized", 1]),
        json!([sign_in, "ada", "192.0.2.1", 401, "unauthorized", 1]),
    ];
    let records = recorded(&rig, "?limit=3").await;
    assert_eq!(refused(&rig, 3).await, expected, "{records:?}");
    let told = records.iter().map(ToString::to_string).collect::<String>();
    assert!(!told.contains("wrong"), "neither passwords nor unknown names: {told}");
    // Users belong to the whole service: their records are invisible to projects.
    let auditor = rig.key(json!({"role": "admin"})).await;
    assert!(!seen_by(&rig, &auditor).await.iter().any(|operation| operation == sign_in));
}

#[tokio::test]
async fn refused_signatures_and_tokens_are_recorded_in_samples() {
    let rig = Rig::new().await;
    let auditor = rig.key(json!({"role": "admin"})).await;
    let before = recorded(&rig, "?limit=1000").await.len();
    let forged = NewCredential { secret_key: "wrong".to_owned().into(), ..rig.credential.clone() };
    for _ in 0..5 {
        assert_eq!(rig.call_as(&forged, "GET", "/api/v1/instances", "").await.status, 401);
    }
    let key = rig.credential.access_key.as_str();
    let (list, code) = ("GET /api/v1/instances", "APIGW.0301");
    rig.clock.advance(SignedDuration::from_mins(6));
    assert_eq!(refused(&rig, 5).await, vec![json!([list, key, null, 401, code, 1]); 5]);
    assert_eq!(seen_by(&rig, &auditor).await[..5], [list; 5], "the key belongs to the project");
    for _ in 0..1000 {
        assert_eq!(rig.with_token("guess", "GET", "/api/v1/instances", "").await.status, 401);
    }
    let records = refused(&rig, 1000).await;
    let of_tokens = &records[..records.len() - before - 5];
    let times: Vec<_> = of_tokens.iter().rev().map(|record| record[5].as_u64().unwrap()).collect();
    assert_eq!(times, [1, 1, 1, 1, 1, 5, 90, 900]);
    assert_eq!(of_tokens[0], json!([list, null, null, 401, code, 900]));
    assert!(!recorded(&rig, "?limit=1000").await.iter().any(|r| r.to_string().contains("guess")));
    // An expired signature is not an attempt to guess.
    let late = rig.signed(&rig.credential, "GET", "/api/v1/instances", "");
    rig.clock.advance(SignedDuration::from_mins(16));
    assert_eq!(rig.send(late).await.status, 401);
    assert_eq!(refused(&rig, 1).await, of_tokens[..1]);
}
