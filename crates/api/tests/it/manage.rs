//! Our own API.

use cachevault_catalog::{BackupCatalog, JobQueue};
use cachevault_domain::{Clock, Failure, FailureCode, JobId, JobKind, NodeId};
use cachevault_testkit::SeededEntropy;
use serde_json::json;

use crate::rig::{INSTANCE, Rig};

const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";

#[tokio::test]
async fn a_server_that_cannot_be_adopted_is_told_why() {
    let rig = Rig::new().await;
    let body = json!({"name": "new", "host": "10.0.0.9", "port": 6379, "password": "topsecret"});
    let answer = rig.call("POST", "/api/v1/instances", &body.to_string()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (422, &json!("connection_refused"))
    );
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("10.0.0.9:6379"));
    assert!(!answer.text.contains("topsecret"));
    for (body, word) in
        [("{", "body"), ("{}", "name"), (r#"{"name":"a b","host":"h","port":1}"#, "name")]
    {
        let answer = rig.call("POST", "/api/v1/instances", body).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}");
        assert!(
            answer.body["error"]["message"].as_str().unwrap().contains(word),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn the_reason_of_a_failure_can_be_read() {
    let rig = Rig::new().await;
    let lease = rig.claimed(BACKUP, Some("n"), "2019-05-10T08:31:16Z").await;
    let failure = Failure {
        code: FailureCode::ToolFailed,
        reason: "`db:6379` refused the connection".into(),
    };
    rig.catalog.fail_backup(&lease, &failure, rig.clock.now()).await.unwrap();
    let body = rig.call("GET", &format!("/api/v1/backups/{BACKUP}"), "").await.body;
    assert_eq!(
        body["failure"],
        json!({
            "code": "tool_failed",
            "dcs_code": "dcs.08.0001",
            "reason": failure.reason,
            "hint": failure.code.hint(),
        })
    );
    assert_eq!(
        (&body["state"], &body["restorable"], &body["artifacts"]),
        (&json!("failed"), &json!(false), &json!([]))
    );
}

#[tokio::test]
async fn who_cancelled_a_backup_can_be_read() {
    let rig = Rig::new().await;
    let lease = rig.claimed(BACKUP, None, "2019-05-10T08:31:16Z").await;
    let path = format!("/api/v1/backups/{BACKUP}/cancel");
    let answer = rig.call("POST", &path, "").await;
    let by = format!("key {}", rig.credential.access_key);
    assert_eq!((answer.status.as_u16(), &answer.body["state"]), (202, &json!("waiting")));
    assert_eq!(
        (&answer.body["cancelled_by"], &answer.body["cancelled_at"]),
        (&json!(by), &json!("2019-05-10T08:40:00Z"))
    );
    let failure = Failure { code: FailureCode::TimedOut, reason: "something else".into() };
    rig.catalog.fail_backup(&lease, &failure, rig.clock.now()).await.unwrap();
    let body = rig.call("GET", &format!("/api/v1/backups/{BACKUP}"), "").await.body;
    assert_eq!(body["failure"]["reason"], json!(format!("cancelled by {by}")));
    let late = rig.call("POST", &path, "").await;
    assert_eq!((late.status.as_u16(), &late.body["error"]["code"]), (409, &json!("backup_ended")));
    assert!(late.body["error"]["message"].as_str().unwrap().contains("`failed`"), "{}", late.text);
}

#[tokio::test]
async fn an_instance_is_removed_only_when_nothing_of_it_is_left() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    let path = format!("/api/v1/instances/{INSTANCE}");
    let answer = rig.call("DELETE", &path, "").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (409, &json!("instance_has_backups"))
    );
    let unknown =
        rig.call("DELETE", "/api/v1/instances/00000000-0000-4000-8000-000000000000", "").await;
    assert_eq!(unknown.status.as_u16(), 404);
}

#[tokio::test]
async fn a_wish_for_a_restore_that_cannot_be_meant_is_refused_by_its_field() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    let path = format!("/api/v1/instances/{INSTANCE}/restores/plan");
    for (field, value) in [
        ("way", json!("magic")),
        ("ttl", json!("longer")),
        ("conflict", json!("maybe")),
        ("pattern", json!("x".repeat(1025))),
        ("database", json!(-1)),
        ("backup_id", json!("none")),
        ("surprise", json!(1)),
    ] {
        let mut body = json!({"backup_id": BACKUP});
        body[field] = value;
        let answer = rig.call("POST", &path, &body.to_string()).await;
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert_eq!(answer.status.as_u16(), 400, "{field}: {message}");
        assert!(message.contains(field) || field == "database", "{field}: {message}");
    }
}

#[tokio::test]
async fn the_age_of_the_newest_proven_backup_can_be_watched() {
    let rig = Rig::new().await;
    let backup = rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    let scrape = || async { rig.metrics().await };
    let text = scrape().await;
    assert!(text.contains("cachevault_instance_reachable{project="), "{text}");
    assert!(!text.contains("proven_backup_age_seconds{"), "{text}");
    let job = JobId::mint(&SeededEntropy::new(5));
    let (project, now) = (&rig.credential.project, rig.clock.now());
    rig.catalog.request_drill(project, backup, job, now).await.unwrap();
    let node = NodeId::mint(&SeededEntropy::new(1));
    let lease = rig.catalog.claim_job(JobKind::Drill, node, now, now).await.unwrap().unwrap();
    rig.catalog.finish_drill(&lease, "redis 7.0.15", now).await.unwrap();
    let text = scrape().await;
    let age = text.lines().find(|line| line.contains("proven_backup_age_seconds{")).unwrap();
    // From 08:31:16 to 08:40:00.
    assert!(age.contains("name=\"orders\"") && age.ends_with(" 524.0"), "{age}");
    let shown = rig.call("GET", &format!("/api/v1/instances/{INSTANCE}"), "").await.body;
    assert_eq!(shown["proven_backup_id"], json!(BACKUP));
}
