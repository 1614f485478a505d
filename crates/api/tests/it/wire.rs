//! Client behavior beyond the documented examples.

use std::sync::Arc;

use cachevault_store::BucketStore;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::links::rdb;
use crate::rig::{INSTANCE, REGION, Rig};

const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
const VERSIONS: [&str; 2] = ["v1.0", "v2"];

impl Rig {
    fn at_instance(&self, version: &str, rest: &str) -> String {
        self.path(version, &format!("/instances/{INSTANCE}{rest}"))
    }

    async fn shown_instance(&self, version: &str) -> Value {
        self.call("GET", &self.at_instance(version, ""), "").await.body
    }
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().or(body["error_msg"].as_str()).unwrap()
}

#[tokio::test]
async fn an_end_time_beyond_all_times_lists_everything() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    for version in VERSIONS {
        let path = rig.at_instance(version, "/backups?end_time=99991231235959");
        let listed = rig.call("GET", &path, "").await;
        assert_eq!((listed.status.as_u16(), &listed.body["total_num"]), (200, &json!(1)));
        let path = rig.at_instance(version, "/backups?begin_time=99991231235959");
        let listed = rig.call("GET", &path, "").await;
        assert_eq!((listed.status.as_u16(), &listed.body["total_num"]), (200, &json!(0)));
    }
}

#[tokio::test]
async fn v1_reduces_a_limit_to_the_maximum() {
    let rig = Rig::new().await;
    for list in ["/backups", "/restores"] {
        for limit in ["1001", "4294967296", "99999999999999999999"] {
            let path = rig.at_instance("v1.0", &format!("{list}?limit={limit}"));
            assert_eq!(rig.call("GET", &path, "").await.status.as_u16(), 200, "{path}");
            let path = rig.at_instance("v2", &format!("{list}?limit={limit}"));
            assert_eq!(rig.call("GET", &path, "").await.outcome(), (400, "DCS.4800"), "{path}");
        }
    }
    let path = rig.path("v1.0", "/instances?limit=2001");
    assert_eq!(rig.call("GET", &path, "").await.status.as_u16(), 200);
}

#[tokio::test]
async fn automatic_scans_for_keys_are_never_enabled() {
    let rig = Rig::new().await;
    for kind in ["bigkey", "hotkey"] {
        let answer =
            rig.call("GET", &rig.at_instance("v2", &format!("/{kind}/autoscan")), "").await;
        let expected = json!({
            "instance_id": INSTANCE,
            "enable_auto_scan": false,
            "schedule_at": [],
            "updated_at": null,
        });
        assert_eq!((answer.status.as_u16(), answer.body), (200, expected), "{kind}");
    }
}

#[tokio::test]
async fn an_instance_shows_the_moment_of_its_last_change_in_both_spellings() {
    let rig = Rig::new().await;
    let created = rig.shown_instance("v2").await["created_at"].clone();
    let tags = r#"{"action":"create","tags":[{"key":"a","value":"b"}]}"#;
    let tag = rig.path("v2", &format!("/dcs/{INSTANCE}/tags/action"));
    let policy = r#"{"instance_backup_policy":{"backup_type":"manual"}}"#;
    let change = rig.at_instance("v2", "");
    for (method, path, body, changes) in [
        ("PUT", change.as_str(), "{}", false),
        ("PUT", &change, r#"{"description":"x"}"#, true),
        ("POST", &tag, tags, true),
        ("PUT", &change, policy, true),
        ("DELETE", &format!("/api/v1/instances/{INSTANCE}/policy"), "", true),
    ] {
        let before = rig.shown_instance("v2").await["updated_at"].clone();
        rig.clock.advance(SignedDuration::from_secs(1));
        let answer = rig.call(method, path, body).await;
        assert_eq!(answer.status.as_u16(), 204, "{body}: {}", answer.text);
        for version in VERSIONS {
            let shown = rig.shown_instance(version).await;
            assert_eq!(shown["update_at"], shown["updated_at"]);
            assert_eq!(shown["updated_at"] != before, changes, "{version} {method} {body}");
            assert_eq!(shown["created_at"], created);
        }
    }
    // A probe of the server does not count as a change of settings.
    let before = rig.shown_instance("v2").await["updated_at"].clone();
    rig.clock.advance(SignedDuration::from_secs(1));
    rig.looked_at().await;
    assert_eq!(rig.shown_instance("v2").await["updated_at"], before);
}

#[tokio::test]
async fn the_tenant_of_a_quota_has_the_name_of_the_project() {
    let rig = Rig::new().await;
    let quota = rig.call("GET", &rig.path("v1.0", "/quota"), "").await.body;
    let project = rig.credential.project.as_str();
    let user = json!({"tenant_id": project, "tenant_name": REGION});
    assert_eq!((&quota["resource_user"], &quota["quotas"]["resource_user"]), (&user, &user));
}

#[tokio::test]
async fn the_export_of_instances_is_no_route() {
    let rig = Rig::new().await;
    for method in ["GET", "PUT", "DELETE"] {
        let answer = rig.call(method, &rig.path("v2", "/instances/export-job?job_id=1"), "").await;
        assert_eq!(answer.outcome(), (404, "APIGW.0101"), "{method}");
    }
}

#[tokio::test]
async fn v1_ignores_a_format_and_v2_accepts_an_empty_one() {
    for (version, body, status) in [
        ("v1.0", r#"{"backup_format":"aof"}"#, 200),
        ("v1.0", r#"{"backup_format":5}"#, 200),
        ("v1.0", r#"{"backup_format":""}"#, 200),
        ("v2", r#"{"backup_format":""}"#, 200),
        ("v2", r#"{"backup_format":"aof"}"#, 400),
    ] {
        let rig = Rig::new().await;
        let answer = rig.call("POST", &rig.at_instance(version, "/backups"), body).await;
        assert_eq!(answer.status.as_u16(), status, "{version} {body}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_window_that_ends_at_24_is_shown_as_sent() {
    let rig = Rig::new().await;
    for (version, window) in [("v2", "23:00-24:00"), ("v1.0", "22:00-24:00"), ("v2", "23:00-00:00")]
    {
        let plan = json!({"begin_at": window, "period_type": "weekly", "backup_at": [1]});
        let policy = json!({"backup_type": "auto", "save_days": 1, "periodical_backup_plan": plan});
        let body = json!({"instance_backup_policy": policy}).to_string();
        let answer = rig.call("PUT", &rig.at_instance(version, ""), &body).await;
        assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
        let shown = rig.shown_instance(version).await;
        let plan = &shown["instance_backup_policy"]["policy"]["periodical_backup_plan"];
        assert_eq!(plan["begin_at"], window);
    }
}

#[tokio::test]
async fn links_name_the_real_bucket_and_the_real_object() {
    let mut rig = Rig::new().await;
    rig.app.store = Arc::new(BucketStore::in_memory());
    rig.reroute();
    rig.stored(BACKUP, &rdb(1000)).await;
    let place = rig.app.store.bucket().unwrap();
    let artifact = rig.artifact(BACKUP.parse().unwrap());
    let folder = format!("{}/", artifact.attempt);
    for (version, path) in [("v1.0", artifact.to_string()), ("v2", folder)] {
        let wish = r#"{"expiration": 300}"#;
        let links = rig.at_instance(version, &format!("/backups/{BACKUP}/links"));
        let body = rig.call("POST", &links, wish).await.body;
        assert_eq!(
            (&body["bucket_name"], &body["file_path"]),
            (&json!(place.bucket), &json!(path))
        );
    }
}

#[tokio::test]
async fn a_record_without_its_file_has_its_own_error() {
    let rig = Rig::new().await;
    let unknown = "0e8a1d6c-0000-4000-8000-5b1d1f6a7e55";
    let backup = rig.stored(BACKUP, &rdb(1000)).await;
    rig.removed(backup).await;
    for version in VERSIONS {
        for (method, rest) in [("DELETE", ""), ("POST", "/links")] {
            let ask = async |id: &str| {
                let path = rig.at_instance(version, &format!("/backups/{id}{rest}"));
                let body = if method == "POST" { r#"{"expiration": 300}"# } else { "" };
                let answer = rig.call(method, &path, body).await;
                assert_eq!(answer.status.as_u16(), 400, "{}", answer.text);
                // One client treats exactly this code as "not found".
                assert!(answer.text.contains("4031") || answer.text.contains("111400031"));
                message(&answer.body).to_owned()
            };
            assert_eq!(ask(BACKUP).await, "The file of this backup record no longer exists.");
            assert_eq!(ask(unknown).await, "This backup record does not exist.");
        }
    }
}

#[tokio::test]
async fn errors_name_a_parameter_as_the_client_spelled_it() {
    let rig = Rig::new().await;
    for version in VERSIONS {
        for (query, name) in [
            ("beginTime=x", "beginTime"),
            ("begin_time=x", "begin_time"),
            ("end_Time=x", "end_Time"),
            ("Limit=x", "Limit"),
            ("START=x", "START"),
        ] {
            let path = rig.at_instance(version, &format!("/backups?{query}"));
            let answer = rig.call("GET", &path, "").await;
            assert_eq!(answer.status.as_u16(), 400, "{query}");
            let said = message(&answer.body);
            assert!(said.starts_with(&format!("Invalid {name} ")), "{version} {query}: {said}");
        }
        for (query, name) in [
            ("Status=x", "Status"),
            ("CAPACITY=x", "CAPACITY"),
            ("includeFailure=x", "includeFailure"),
        ] {
            let answer =
                rig.call("GET", &rig.path(version, &format!("/instances?{query}")), "").await;
            let said = message(&answer.body);
            assert!(said.starts_with(&format!("Invalid {name} ")), "{version} {query}: {said}");
        }
    }
    // However long the name is, the answer stays short.
    let stretched = format!("limit{}=x", "_".repeat(5000));
    let path = rig.at_instance("v1.0", &format!("/backups?{stretched}"));
    let answer = rig.call("GET", &path, "").await;
    assert_eq!(message(&answer.body), "Invalid limit in the request.");
}
