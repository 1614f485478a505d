//! Projects, users, credentials and custom roles in `/api/v1`.

use cachevault_app::NewCredential;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::links::rdb;
use crate::rig::{Answer, INSTANCE, PASSWORD, REGION, Rig};

/// A second project with a key of this role, created by the first key.
async fn second_project(rig: &Rig, role: &str) -> NewCredential {
    let project = rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    assert_eq!(project.status.as_u16(), 201, "{}", project.text);
    rig.key(json!({"project": "second", "role": role})).await
}

async fn as_key(rig: &Rig, key: &NewCredential, method: &str, uri: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    rig.call_as(key, method, uri, &body).await
}

#[tokio::test]
async fn projects_are_managed_by_administrators_and_seen_by_their_own() {
    let rig = Rig::new().await;
    let second = second_project(&rig, "admin").await;
    let all = rig.call("GET", "/api/v1/projects", "").await.body;
    assert_eq!((&all["total"], &all["items"][1]["name"]), (&json!(2), &json!("second")));
    let own = as_key(&rig, &second, "GET", "/api/v1/projects", Value::Null).await.body;
    assert_eq!((&own["total"], &own["items"][0]["name"]), (&json!(1), &json!("second")));
    let other =
        as_key(&rig, &second, "GET", &format!("/api/v1/projects/{REGION}"), Value::Null).await;
    assert_eq!(other.outcome(), (404, "project_not_found"));
    for (method, uri) in [("POST", "/api/v1/projects"), ("PATCH", "/api/v1/projects/second")] {
        let denied = as_key(&rig, &second, method, uri, json!({"name": "mine"})).await;
        assert_eq!(denied.outcome(), (403, "not_administrator"), "{method}");
    }
    let taken = rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
    assert_eq!(taken.outcome(), (409, "name_taken"));
    let bad = rig.call("POST", "/api/v1/projects", r#"{"name": "a b"}"#).await;
    assert_eq!(bad.outcome(), (400, "bad_request"));

    let renamed = rig.call("PATCH", "/api/v1/projects/second", r#"{"name": "two"}"#).await;
    assert_eq!(renamed.body["name"], "two");
    let disabled = rig.call("PATCH", "/api/v1/projects/two", r#"{"enabled": false}"#).await;
    assert_eq!((disabled.status.as_u16(), &disabled.body["enabled"]), (200, &json!(false)));
    let shut = as_key(&rig, &second, "GET", "/api/v1/instances", Value::Null).await;
    assert_eq!(shut.outcome(), (403, "APIGW.0310"));
    let own =
        rig.call("PATCH", &format!("/api/v1/projects/{REGION}"), r#"{"enabled": false}"#).await;
    assert_eq!(own.outcome(), (409, "own_access"));
}

#[tokio::test]
async fn a_key_does_what_its_role_allows_in_its_project() {
    let rig = Rig::new().await;
    let backups = format!("/api/v1/instances/{INSTANCE}/backups");
    let check = format!("/api/v1/backups/{INSTANCE}/check");
    let delete = rig.path("v2", &format!("/instances/{INSTANCE}/backups/{INSTANCE}"));
    for (role, statuses) in [
        ("reader", [200, 403, 403, 403]),
        ("operator", [200, 409, 404, 403]),
        ("admin", [200, 409, 404, 400]),
    ] {
        let key = rig.key(json!({"role": role})).await;
        let calls = [
            ("GET", "/api/v1/instances", Value::Null),
            ("POST", &backups, json!({})),
            ("POST", &check, Value::Null),
            ("DELETE", &delete, Value::Null),
        ];
        for ((method, uri, body), status) in calls.into_iter().zip(statuses) {
            let answer = as_key(&rig, &key, method, uri, body).await;
            // An earlier role has created a backup that is still waiting, so the instance is busy.
            let seen = if answer.status.as_u16() == 201 { 409 } else { answer.status.as_u16() };
            assert_eq!(seen, status, "{role} {method} {uri}: {}", answer.text);
        }
    }
    let second = second_project(&rig, "admin").await;
    let empty = as_key(&rig, &second, "GET", "/api/v1/instances", Value::Null).await;
    assert_eq!(empty.body["total"], 0);
    let missing =
        as_key(&rig, &second, "GET", &format!("/api/v1/instances/{INSTANCE}"), Value::Null).await;
    assert_eq!(missing.outcome(), (404, "instance_not_found"));
}

#[tokio::test]
async fn a_secret_is_shown_once_and_a_key_is_rotated_with_an_overlap() {
    let rig = Rig::new().await;
    let wish = json!({"role": "reader", "description": "for the dashboard"});
    let key = rig.key(wish).await;
    let uri = format!("/api/v1/credentials/{}", key.access_key);
    let listed = rig.call("GET", "/api/v1/credentials", "").await;
    let shown = rig.call("GET", &uri, "").await;
    assert_eq!((&listed.body["total"], &listed.body["items"][1]), (&json!(2), &shown.body));
    assert_eq!(shown.body["description"], "for the dashboard");
    use secrecy::ExposeSecret;
    for answer in [&listed, &shown] {
        assert!(!answer.text.contains(key.secret_key.expose_secret()));
    }
    let rotate = json!({"old_works_for_seconds": 3600}).to_string();
    let new = rig.call("POST", &format!("{uri}/rotate"), &rotate).await;
    assert_eq!(new.body["description"], "for the dashboard");
    let new = new.key();
    let status = async |key: &NewCredential| {
        as_key(&rig, key, "GET", "/api/v1/instances", Value::Null).await.status.as_u16()
    };
    assert_ne!(
        (&key.access_key, key.secret_key.expose_secret()),
        (&new.access_key, new.secret_key.expose_secret())
    );
    assert_eq!((status(&key).await, status(&new).await), (200, 200));
    rig.clock.advance(SignedDuration::from_hours(1));
    assert_eq!((status(&key).await, status(&new).await), (401, 200));
    let later = json!({"expires_at": "2019-05-11T00:00:00Z", "description": null}).to_string();
    let changed = rig.call("PATCH", &uri, &later).await;
    assert_eq!((&changed.body["description"], status(&key).await), (&Value::Null, 200));

    let new_uri = format!("/api/v1/credentials/{}", new.access_key);
    rig.call("PATCH", &new_uri, r#"{"enabled": false}"#).await;
    let disabled = as_key(&rig, &new, "GET", "/api/v1/instances", Value::Null).await;
    assert!(disabled.body["error_msg"].as_str().unwrap().ends_with("Get secretKey failed"));
    rig.call("PATCH", &new_uri, r#"{"enabled": true}"#).await;
    assert_eq!(status(&new).await, 200);
    assert_eq!(rig.call("DELETE", &new_uri, "").await.status.as_u16(), 204);
    assert_eq!(status(&new).await, 401);
    assert_eq!(rig.call("DELETE", &new_uri, "").await.outcome(), (404, "credential_not_found"));
}

#[tokio::test]
async fn a_caller_cannot_remove_its_own_access() {
    let rig = Rig::new().await;
    let uri = format!("/api/v1/credentials/{}", rig.credential.access_key);
    for body in [json!({"enabled": false}), json!({"role": "reader"}), json!({"expires_at": null})]
    {
        let answer = rig.call("PATCH", &uri, &body.to_string()).await;
        assert_eq!(answer.outcome(), (409, "own_access"), "{body}");
    }
    assert_eq!(rig.call("DELETE", &uri, "").await.outcome(), (409, "own_access"));
    let described = rig.call("PATCH", &uri, r#"{"description": "the first"}"#).await;
    assert_eq!(described.status.as_u16(), 200);
    rig.user("root", "admin").await;
    rig.call("PATCH", "/api/v1/users/root", r#"{"administers_service": true}"#).await;
    let token = rig.token("root").await;
    for (method, body) in [
        ("PATCH", r#"{"enabled": false}"#),
        ("PATCH", r#"{"administers_service": false}"#),
        ("DELETE", ""),
    ] {
        let answer = rig.with_token(&token, method, "/api/v1/users/root", body).await;
        assert_eq!(answer.outcome(), (409, "own_access"), "{method} {body}");
    }
    assert_eq!(rig.with_token(&token, "DELETE", &uri, "").await.status.as_u16(), 204);
}

#[tokio::test]
async fn grants_never_exceed_the_callers_permissions() {
    let rig = Rig::new().await;
    let actions = ["cachevault:*:*", "*:*:get*", "*:*:list*", "dcs:instance:backupData"];
    let policy = json!({"name": "keeper", "actions": actions}).to_string();
    assert_eq!(rig.call("POST", "/api/v1/policies", &policy).await.status.as_u16(), 201);
    let keeper = rig.key(json!({"role": "keeper"})).await;
    let admin = rig.key(json!({"role": "admin"})).await;
    let create = async |who: &NewCredential, wish: Value| {
        as_key(&rig, who, "POST", "/api/v1/credentials", wish).await
    };
    for role in ["admin", "operator"] {
        let answer = create(&keeper, json!({"role": role})).await;
        assert_eq!(answer.outcome(), (403, "grants_too_much"), "{role}");
    }
    for role in ["reader", "keeper"] {
        assert_eq!(create(&keeper, json!({"role": role})).await.status.as_u16(), 201, "{role}");
    }
    assert_eq!(
        create(&keeper, json!({"role": "nothing"})).await.outcome(),
        (422, "role_not_found")
    );
    // Rotating, changing and removing a stronger key are refused too.
    let admin_uri = format!("/api/v1/credentials/{}", admin.access_key);
    for (method, uri, body) in [
        ("POST", format!("{admin_uri}/rotate"), json!({})),
        ("PATCH", admin_uri.clone(), json!({"role": "reader"})),
        ("PATCH", admin_uri.clone(), json!({"enabled": false})),
        ("DELETE", admin_uri.clone(), Value::Null),
    ] {
        let answer = as_key(&rig, &keeper, method, &uri, body).await;
        assert_eq!(answer.outcome(), (403, "grants_too_much"), "{method} {uri}");
    }
    // A custom role cannot exceed its creator's permissions either.
    let everything = json!({"actions": ["dcs:*:*"]});
    let widened = as_key(&rig, &keeper, "PUT", "/api/v1/policies/keeper", everything.clone()).await;
    assert_eq!(widened.outcome(), (403, "grants_too_much"));
    let new = json!({"name": "new", "actions": ["dcs:*:*"]});
    let written = as_key(&rig, &keeper, "POST", "/api/v1/policies", new).await;
    assert_eq!(written.outcome(), (403, "grants_too_much"));
    let strong = json!({"name": "strong", "actions": ["dcs:*:*"]}).to_string();
    assert_eq!(rig.call("POST", "/api/v1/policies", &strong).await.status.as_u16(), 201);
    let weak = json!({"actions": ["dcs:instance:get"]});
    let narrowed = as_key(&rig, &keeper, "PUT", "/api/v1/policies/strong", weak).await;
    assert_eq!(narrowed.outcome(), (403, "grants_too_much"));
    let reader = create(&keeper, json!({"role": "reader"})).await.key();
    let reader_uri = format!("/api/v1/credentials/{}", reader.access_key);
    let raised = as_key(&rig, &keeper, "PATCH", &reader_uri, json!({"role": "admin"})).await;
    assert_eq!(raised.outcome(), (403, "grants_too_much"));
    let kept = as_key(&rig, &keeper, "PATCH", &reader_uri, json!({"role": "keeper"})).await;
    assert_eq!(kept.body["role"], "keeper");
    // A project administrator may grant every permission in the project, and none beyond.
    assert_eq!(create(&admin, json!({"role": "admin"})).await.status.as_u16(), 201);
    let answer = create(&admin, json!({"role": "reader", "administers_service": true})).await;
    assert_eq!(answer.outcome(), (403, "changes_administrator"));
    let first = format!("/api/v1/credentials/{}", rig.credential.access_key);
    for (method, uri) in [("DELETE", first.clone()), ("POST", format!("{first}/rotate"))] {
        let answer = as_key(&rig, &admin, method, &uri, Value::Null).await;
        assert_eq!(answer.outcome(), (403, "changes_administrator"), "{method}");
    }
    for (method, uri) in [("GET", "/api/v1/users"), ("POST", "/api/v1/projects")] {
        let answer = as_key(&rig, &admin, method, uri, json!({"name": "x"})).await;
        assert_eq!(answer.outcome(), (403, "not_administrator"), "{uri}");
    }
}

#[tokio::test]
async fn keys_and_custom_roles_of_another_project_are_not_found() {
    let rig = Rig::new().await;
    let second = second_project(&rig, "admin").await;
    let mine = rig.key(json!({"role": "reader"})).await;
    let uri = format!("/api/v1/credentials/{}", mine.access_key);
    for (method, uri) in
        [("GET", uri.clone()), ("DELETE", uri.clone()), ("POST", format!("{uri}/rotate"))]
    {
        let answer = as_key(&rig, &second, method, &uri, Value::Null).await;
        assert_eq!(answer.outcome(), (404, "credential_not_found"), "{method}");
    }
    rig.call("POST", "/api/v1/policies", r#"{"name": "own", "actions": ["dcs:*:get*"]}"#).await;
    let answer = as_key(&rig, &second, "GET", "/api/v1/policies/own", Value::Null).await;
    assert_eq!(answer.outcome(), (404, "policy_not_found"));
    for list in ["credentials", "policies"] {
        let uri = format!("/api/v1/{list}?project={REGION}");
        let answer = as_key(&rig, &second, "GET", &uri, Value::Null).await;
        assert_eq!(answer.outcome(), (404, "project_not_found"), "{list}");
        let answer = rig.call("GET", &format!("/api/v1/{list}?project=second"), "").await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    }
    let wish = json!({"project": REGION, "role": "reader"});
    let answer = as_key(&rig, &second, "POST", "/api/v1/credentials", wish).await;
    assert_eq!(answer.outcome(), (404, "project_not_found"));
    // An administrator of the service can change the keys of all projects.
    let other = format!("/api/v1/credentials/{}", second.access_key);
    assert_eq!(rig.call("DELETE", &other, "").await.status.as_u16(), 204);
}

#[tokio::test]
async fn a_custom_role_is_granted_by_its_name() {
    let rig = Rig::new().await;
    let create =
        |name: &str, actions: &[&str]| json!({"name": name, "actions": actions}).to_string();
    let body = create("nightly", &["dcs:instance:list"]);
    let made = rig.call("POST", "/api/v1/policies", &body).await;
    assert_eq!((made.status.as_u16(), &made.body["actions"]), (201, &json!(["dcs:instance:list"])));
    assert_eq!(rig.call("POST", "/api/v1/policies", &body).await.outcome(), (409, "name_taken"));
    let built_in = rig.call("POST", "/api/v1/policies", &create("admin", &[])).await;
    assert_eq!(built_in.outcome(), (409, "name_taken"));
    let bad = rig.call("POST", "/api/v1/policies", &create("bad", &["dcs:*"])).await;
    assert_eq!(bad.outcome(), (400, "bad_request"));
    let key = rig.key(json!({"role": "nightly"})).await;
    let status =
        async |uri: &str| as_key(&rig, &key, "GET", uri, Value::Null).await.status.as_u16();
    let show = format!("/api/v1/instances/{INSTANCE}");
    assert_eq!((status("/api/v1/instances").await, status(&show).await), (200, 403));
    let update = r#"{"actions": ["dcs:instance:get"]}"#;
    assert_eq!(rig.call("PUT", "/api/v1/policies/nightly", update).await.status.as_u16(), 200);
    assert_eq!((status("/api/v1/instances").await, status(&show).await), (403, 200));
    let in_use = rig.call("DELETE", "/api/v1/policies/nightly", "").await;
    assert_eq!(in_use.outcome(), (409, "policy_in_use"));
    rig.call("DELETE", &format!("/api/v1/credentials/{}", key.access_key), "").await;
    assert_eq!(rig.call("DELETE", "/api/v1/policies/nightly", "").await.status.as_u16(), 204);
    let gone = rig.call("GET", "/api/v1/policies/nightly", "").await;
    assert_eq!(gone.outcome(), (404, "policy_not_found"));
}

#[tokio::test]
async fn deleting_a_user_deletes_its_key() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let key = rig.key(json!({"role": "admin", "user": "jane"})).await;
    let list = async || as_key(&rig, &key, "GET", "/api/v1/instances", Value::Null).await;
    assert_eq!(list().await.status.as_u16(), 200);
    let more = as_key(&rig, &key, "GET", "/api/v1/users", Value::Null).await;
    assert_eq!(more.outcome(), (403, "not_administrator"));
    let backups = format!("/api/v1/instances/{INSTANCE}/backups");
    assert_eq!(as_key(&rig, &key, "POST", &backups, json!({})).await.outcome(), (403, "denied"));
    rig.call("PATCH", "/api/v1/users/jane", r#"{"enabled": false}"#).await;
    assert_eq!(list().await.status.as_u16(), 401);
    rig.call("PATCH", "/api/v1/users/jane", r#"{"enabled": true}"#).await;
    assert_eq!(list().await.status.as_u16(), 200);
    let gone = rig.call("DELETE", &format!("/api/v1/users/jane/grants/{REGION}"), "").await;
    assert_eq!(gone.status.as_u16(), 204);
    assert_eq!(list().await.status.as_u16(), 401);
    let wish = json!({"role": "reader", "user": "jane"}).to_string();
    let refused = rig.call("POST", "/api/v1/credentials", &wish).await;
    assert_eq!(refused.outcome(), (404, "user_not_found"));
    let wish = json!({"role": "reader", "user": "jane", "administers_service": true}).to_string();
    let refused = rig.call("POST", "/api/v1/credentials", &wish).await;
    assert_eq!(refused.outcome(), (400, "administrator_of_user"));
}

#[tokio::test]
async fn users_are_managed_and_change_their_own_password() {
    let rig = Rig::new().await;
    let id = rig.user("jane", "reader").await;
    let shown = rig.call("GET", "/api/v1/users/jane", "").await;
    assert_eq!(shown.body, rig.call("GET", &format!("/api/v1/users/{id}"), "").await.body);
    assert_eq!(shown.body["grants"][0]["role"], "reader");
    assert!(!shown.text.contains("password") && !shown.text.contains("argon2"));
    for (body, outcome) in [
        (json!({"name": "jane", "password": PASSWORD}), (409, "name_taken")),
        (json!({"name": "john", "password": "short"}), (400, "bad_password")),
        (json!({"name": "j o", "password": PASSWORD}), (400, "bad_request")),
        (json!({"name": "john"}), (400, "bad_request")),
    ] {
        let answer = rig.call("POST", "/api/v1/users", &body.to_string()).await;
        assert_eq!(answer.outcome(), outcome, "{body}");
    }
    let grant = |project: &str| format!("/api/v1/users/jane/grants/{project}");
    let nowhere = rig.call("PUT", &grant("nowhere"), r#"{"role": "reader"}"#).await;
    assert_eq!(nowhere.outcome(), (404, "project_not_found"));
    let nothing = rig.call("PUT", &grant(REGION), r#"{"role": "nothing"}"#).await;
    assert_eq!(nothing.outcome(), (422, "role_not_found"));

    let token = rig.token("jane").await;
    let change = async |token: &str, current: &str, new: &str| {
        let body = json!({"current": current, "new": new}).to_string();
        rig.with_token(token, "POST", "/api/v1/password", &body).await
    };
    assert_eq!(change(&token, "wrong", "a new password").await.outcome(), (403, "wrong_password"));
    assert_eq!(change(&token, PASSWORD, "short").await.outcome(), (400, "bad_password"));
    assert_eq!(change(&token, PASSWORD, "a new password").await.status.as_u16(), 204);
    assert_eq!(change(&token, "a new password", PASSWORD).await.status.as_u16(), 401);
    let user = json!({"name": "jane", "password": "a new password"});
    assert_eq!(rig.sign_in(user, Value::Null).await.status.as_u16(), 201);
    let by_key =
        rig.call("POST", "/api/v1/password", r#"{"current": "x", "new": "xxxxxxxx"}"#).await;
    assert_eq!(by_key.outcome(), (403, "wrong_password"));

    assert_eq!(rig.call("DELETE", "/api/v1/users/jane", "").await.status.as_u16(), 204);
    assert_eq!(rig.call("GET", "/api/v1/users/jane", "").await.outcome(), (404, "user_not_found"));
    assert_eq!(rig.call("GET", "/api/v1/users", "").await.body["total"], 0);
}

#[tokio::test]
async fn a_permitted_change_is_answered_without_the_permission_to_read() {
    let rig = Rig::new().await;
    let policy =
        json!({"name": "asks", "actions": ["dcs:instance:backupData", "dcs:instance:modify"]});
    rig.call("POST", "/api/v1/policies", &policy.to_string()).await;
    let key = rig.key(json!({"role": "asks"})).await;
    let backups = format!("/api/v1/instances/{INSTANCE}/backups");
    let made = as_key(&rig, &key, "POST", &backups, json!({})).await;
    assert_eq!((made.status.as_u16(), &made.body["state"]), (201, &json!("waiting")));
    let listed = as_key(&rig, &key, "GET", &backups, Value::Null).await;
    assert_eq!(listed.outcome(), (403, "denied"));
    let instance = format!("/api/v1/instances/{INSTANCE}");
    let change = json!({"description": "changed"});
    assert_eq!(as_key(&rig, &key, "PATCH", &instance, change).await.status, 200);
}

#[tokio::test]
async fn only_the_user_may_use_its_key() {
    let rig = Rig::new().await;
    rig.user("ada", "admin").await;
    rig.user("bob", "admin").await;
    let ada = rig.token("ada").await;
    let ask = async |user: &str| {
        let wish = json!({"role": "reader", "user": user}).to_string();
        rig.with_token(&ada, "POST", "/api/v1/credentials", &wish).await
    };
    let bob = ask("bob").await;
    assert_eq!(bob.outcome(), (403, "not_administrator"));
    // The answer does not reveal which users exist.
    for nobody in ["nobody", "0123456789abcdef0123456789abcdef"] {
        let answer = ask(nobody).await;
        assert_eq!(answer.outcome(), (403, "not_administrator"), "{nobody}");
        assert_eq!(answer.body["error"]["message"], bob.body["error"]["message"], "{nobody}");
    }
    let own = ask("ada").await;
    assert_eq!(own.status, 201, "{}", own.text);
    let key = rig.key(json!({"role": "reader", "user": "bob"})).await;
    let rotate = format!("/api/v1/credentials/{}/rotate", key.access_key);
    let rotated = rig.with_token(&ada, "POST", &rotate, "").await;
    assert_eq!(rotated.outcome(), (403, "not_administrator"));
}

#[tokio::test]
async fn a_correct_password_beyond_the_limit_changes_nothing() {
    let rig = Rig::new().await;
    rig.user("ada", "admin").await;
    let token = rig.token("ada").await;
    let ask = async |current: &str| {
        let body = json!({"current": current, "new": "another password"}).to_string();
        rig.with_token(&token, "POST", "/api/v1/password", &body).await
    };
    for _ in 0..5 {
        assert_eq!(ask("wrong wrong").await.outcome(), (403, "wrong_password"));
    }
    assert_eq!(ask(PASSWORD).await.outcome(), (403, "wrong_password"));
    rig.clock.advance(SignedDuration::from_mins(6));
    rig.token("ada").await;
}

#[tokio::test]
async fn errors_repeat_no_value_of_a_body() {
    let rig = Rig::new().await;
    for (method, uri, body) in [
        ("POST", "/api/v1/users", r#"{"name": "x", "password": 12345678}"#),
        ("PATCH", "/api/v1/users/x", r#"{"password": 12345678}"#),
        ("POST", "/api/v1/password", r#"{"current": 12345678, "new": 12345678}"#),
        (
            "POST",
            "/api/v1/instances",
            r#"{"name": "x", "host": "h", "port": 1, "password": 12345678}"#,
        ),
        ("POST", "/api/v1/credentials", r#""12345678""#),
    ] {
        let answer = rig.call(method, uri, body).await;
        assert_eq!(answer.status, 400, "{method} {uri}: {}", answer.text);
        assert!(!answer.text.contains("12345678"), "{method} {uri}: {}", answer.text);
    }
}

#[tokio::test]
async fn an_expired_key_cannot_be_rotated_and_an_expiry_is_kept() {
    let rig = Rig::new().await;
    let end = "2019-05-10T09:40:00Z";
    let key = rig.key(json!({"role": "reader", "expires_at": end})).await;
    let rotate = format!("/api/v1/credentials/{}/rotate", key.access_key);
    let rotated = rig.call("POST", &rotate, "").await;
    assert_eq!((rotated.status.as_u16(), &rotated.body["expires_at"]), (201, &json!(end)));
    rig.clock.advance(SignedDuration::from_hours(1));
    let refused = rig.call("POST", &rotate, "").await;
    assert_eq!(refused.outcome(), (409, "credential_over"));
    let longer = r#"{"expires_at": "2019-05-10T10:40:00Z"}"#;
    rig.call("PATCH", &format!("/api/v1/credentials/{}", key.access_key), longer).await;
    assert_eq!(rig.call("POST", &rotate, "").await.status.as_u16(), 201);
}

/// A key of the first project with exactly these permissions.
async fn key_for(rig: &Rig, actions: &[&str]) -> NewCredential {
    let name = actions.join("-").replace(':', "_");
    let policy = json!({"name": name, "actions": actions}).to_string();
    let made = rig.call("POST", "/api/v1/policies", &policy).await;
    assert_eq!(made.status.as_u16(), 201, "{}", made.text);
    rig.key(json!({"role": name})).await
}

#[tokio::test]
async fn removing_and_linking_a_backup_need_no_permission_to_read_it() {
    let rig = Rig::new().await;
    let backup = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
    rig.stored(backup, &rdb(1000)).await;
    let uri = format!("/api/v1/backups/{backup}");
    let (links, unknown) = (format!("{uri}/links"), format!("/api/v1/backups/{INSTANCE}"));
    let downloads = key_for(&rig, &["dcs:instance:downloadBackupData"]).await;
    let removes = key_for(&rig, &["dcs:instance:deleteDataBackupFile"]).await;
    let linked = as_key(&rig, &downloads, "POST", &links, json!({})).await;
    assert_eq!(linked.body["links"].as_array().map(Vec::len), Some(1), "{}", linked.text);
    let denied = as_key(&rig, &removes, "POST", &links, json!({})).await;
    assert_eq!(denied.outcome(), (403, "denied"));
    for uri in [&uri, &unknown] {
        let denied = as_key(&rig, &downloads, "DELETE", uri, Value::Null).await;
        assert_eq!(denied.outcome(), (403, "denied"), "{uri}");
    }
    let removed = rig.removing(as_key(&rig, &removes, "DELETE", &uri, Value::Null)).await;
    assert_eq!(removed.status.as_u16(), 204, "{}", removed.text);
}

#[tokio::test]
async fn requests_without_effect_require_the_permission_too() {
    let rig = Rig::new().await;
    let powerless = key_for(&rig, &["dcs:instance:backupData"]).await;
    for (version, code) in [("v1.0", "111403003"), ("v2", "DCS.2007")] {
        for (method, query) in [("GET", "instance_id=x"), ("DELETE", "all_failure=true")] {
            let uri = rig.path(version, &format!("/instances?{query}"));
            let answer = as_key(&rig, &powerless, method, &uri, Value::Null).await;
            assert_eq!(answer.outcome(), (403, code), "{method} {uri}");
        }
    }
}

#[tokio::test]
async fn a_batch_deletion_fails_only_for_forbidden_instances() {
    let rig = Rig::new().await;
    rig.stored("4631832a-14c6-45b0-a0b3-3abd8f591ad1", &rdb(1000)).await;
    let empty = "0e8a1d6c-0000-4000-8000-5b1d1f6a7e55";
    rig.adopt(empty, "empty").await;
    let key = key_for(&rig, &["dcs:instance:delete"]).await;
    let body = json!({"instances": [empty, INSTANCE]});
    let answer = as_key(&rig, &key, "DELETE", &rig.path("v2", "/instances"), body).await;
    let expected = json!([
        {"instance": empty, "result": "success"},
        {"instance": INSTANCE, "result": "failed"},
    ]);
    assert_eq!((answer.status.as_u16(), &answer.body["results"]), (200, &expected));
}
