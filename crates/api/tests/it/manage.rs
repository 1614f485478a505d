//! Instances, backups and restores in `/api/v1`.

use cachevault_catalog::{BackupCatalog, JobQueue, RestoreCatalog};
use cachevault_domain::{
    Clock, Failure, FailureCode, JobId, JobKind, NewRestore, NodeId, RestoreId, RestoreOptions,
    RestoreOutcome, RestoreWay, TargetData,
};
use cachevault_testkit::SeededEntropy;
use jiff::SignedDuration;
use serde_json::json;

use crate::rig::{ADOPTABLE, INSTANCE, NEWER, OPAQUE, Rig};

const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";

#[tokio::test]
async fn registering_an_unusable_server_names_the_reason() {
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
async fn a_failed_backup_shows_its_reason() {
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
async fn a_cancelled_backup_names_the_caller() {
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
async fn a_cancelled_restore_names_the_caller() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    let now = rig.clock.now();
    let (id, job) = (RestoreId::mint(&*rig.app.entropy), JobId::mint(&*rig.app.entropy));
    let restore = NewRestore {
        id,
        job,
        project: rig.credential.project.clone(),
        instance: INSTANCE.parse().unwrap(),
        backup: BACKUP.parse().unwrap(),
        options: RestoreOptions::default(),
        note: None,
        created_at: now,
    };
    rig.catalog.request_restore(&restore).await.unwrap();
    let node = NodeId::mint(&*rig.app.entropy);
    let until = now + SignedDuration::from_secs(30);
    let claimed = rig.catalog.claim_job(JobKind::Restore, node, now, until).await;
    let lease = claimed.unwrap().unwrap();
    rig.catalog.start_restore(&lease, now).await.unwrap();
    let path = format!("/api/v1/restores/{id}/cancel");
    let answer = rig.call("POST", &path, "").await;
    let by = format!("key {}", rig.credential.access_key);
    assert_eq!((answer.status.as_u16(), &answer.body["state"]), (202, &json!("running")));
    assert_eq!((&answer.body["cancelled_by"], &answer.body["attempt"]), (&json!(by), &json!(1)));
    let any = Failure { code: FailureCode::ToolFailed, reason: "any".into() };
    rig.catalog.fail_restore(&lease, &any, &RestoreOutcome::untouched(), now).await.unwrap();
    let body = rig.call("GET", &format!("/api/v1/restores/{id}"), "").await.body;
    assert_eq!(body["failure"]["reason"], json!(format!("cancelled by {by}")));
    assert_eq!((&body["target_data"], &body["attempt"]), (&json!("untouched"), &json!(null)));
    let late = rig.call("POST", &path, "").await;
    assert_eq!((late.status.as_u16(), &late.body["error"]["code"]), (409, &json!("restore_ended")));

    let restore = NewRestore {
        id: RestoreId::mint(&*rig.app.entropy),
        job: JobId::mint(&*rig.app.entropy),
        ..restore
    };
    rig.catalog.request_restore(&restore).await.unwrap();
    let claimed = rig.catalog.claim_job(JobKind::Restore, node, now, until).await;
    rig.catalog.touch_target(&claimed.unwrap().unwrap(), now).await.unwrap();
    let late = rig.call("POST", &format!("/api/v1/restores/{}/cancel", restore.id), "").await;
    assert_eq!(
        (late.status.as_u16(), &late.body["error"]["code"]),
        (409, &json!("restore_touched_target"))
    );
}

#[tokio::test]
async fn an_instance_is_removed_only_after_its_backups() {
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
async fn an_invalid_restore_request_names_its_field() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    let path = format!("/api/v1/instances/{INSTANCE}/restores/plan");
    for (field, value) in [
        ("way", json!("magic")),
        ("ttl", json!("longer")),
        ("conflict", json!("maybe")),
        ("pattern", json!("x".repeat(1025))),
        ("database", json!(-1)),
        ("unverified", json!("yes")),
        ("backup_id", json!("none")),
        ("surprise", json!(1)),
    ] {
        let mut body = json!({"backup_id": BACKUP});
        body[field] = value;
        let answer = rig.call("POST", &path, &body.to_string()).await;
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert_eq!(answer.status.as_u16(), 400, "{field}: {message}");
        let is_named = !["database", "unverified"].contains(&field);
        assert!(message.contains(field) || !is_named, "{field}: {message}");
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
    rig.catalog.finish_drill(&lease, "redis 7.0.15", 3, now).await.unwrap();
    let text = scrape().await;
    let age = text.lines().find(|line| line.contains("proven_backup_age_seconds{")).unwrap();
    // From 08:31:16 to 08:40:00.
    assert!(age.contains("name=\"orders\"") && age.ends_with(" 524.0"), "{age}");
    let shown = rig.call("GET", &format!("/api/v1/instances/{INSTANCE}"), "").await.body;
    assert_eq!(shown["proven_backup_id"], json!(BACKUP));
    let shown = rig.call("GET", &format!("/api/v1/backups/{BACKUP}"), "").await.body;
    assert_eq!(
        (&shown["proven_by"], &shown["proven_uncompared"]),
        (&json!("redis 7.0.15"), &json!(3))
    );
}

#[tokio::test]
async fn an_opaque_backup_is_shown_as_opaque_and_not_restored_by_default() {
    let rig = Rig::new().await;
    rig.opaque(BACKUP, &crate::links::rdb(1000)).await;
    let target = rig.added("target", ADOPTABLE).await["id"].as_str().unwrap().to_owned();
    let shown = rig.call("GET", &format!("/api/v1/backups/{BACKUP}"), "").await.body;
    assert_eq!(
        (&shown["state"], &shown["content"], &shown["restorable"]),
        (&json!("succeeded"), &json!("opaque"), &json!(false))
    );
    assert_eq!(shown["artifacts"][0]["rdb"]["content"]["reason"], json!(OPAQUE));
    let list = rig.call("GET", &format!("/api/v1/instances/{INSTANCE}/backups"), "").await.body;
    assert_eq!(list["items"][0]["content"], json!("opaque"));
    let wish = json!({"backup_id": BACKUP}).to_string();
    let refused = rig.call("POST", &format!("/api/v1/instances/{target}/restores"), &wish).await;
    let error = &refused.body["error"];
    assert_eq!((refused.status.as_u16(), &error["code"]), (409, &json!("backup_unverified")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(OPAQUE) && message.contains("--unverified"), "{message}");
    let drill = rig.call("POST", &format!("/api/v1/backups/{BACKUP}/drill"), "").await;
    assert_eq!(
        (drill.status.as_u16(), &drill.body["error"]["code"]),
        (409, &json!("backup_not_restorable"))
    );
    for (version, place, code) in
        [("v1.0", "/error/code", "111400087"), ("v2", "/error_code", "DCS.4087")]
    {
        let path = rig.path(version, &format!("/instances/{INSTANCE}/backups"));
        let record = rig.call("GET", &path, "").await.body["backup_record_response"][0].clone();
        assert_eq!(
            (&record["status"], &record["is_support_restore"]),
            (&json!("succeed"), &json!("FALSE"))
        );
        let path = rig.path(version, &format!("/instances/{target}/restores"));
        let refused = rig.call("POST", &path, &wish).await;
        assert_eq!(
            (refused.status.as_u16(), refused.body.pointer(place)),
            (400, Some(&json!(code)))
        );
        // The file is complete and can be downloaded.
        let path = rig.path(version, &format!("/instances/{INSTANCE}/backups/{BACKUP}/links"));
        let links = rig.call("POST", &path, &json!({"expiration": 300}).to_string()).await;
        assert_eq!(links.status.as_u16(), 200, "{}", links.text);
    }
    let text = rig.metrics().await;
    let counted = |instance: &str, count: &str| {
        let line = text.lines().find(|line| {
            line.starts_with("cachevault_instance_opaque_backups{") && line.contains(instance)
        });
        assert!(line.is_some_and(|line| line.ends_with(count)), "{text}");
    };
    counted(INSTANCE, " 1.0");
    counted(&target, " 0.0");
}

#[tokio::test]
async fn an_opaque_backup_is_restored_on_request() {
    let rig = Rig::new().await;
    rig.opaque(BACKUP, &crate::links::rdb(1000)).await;
    let target = rig.added("target", ADOPTABLE).await["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/instances/{target}/restores");
    for (unverified, unprovable) in [(json!(null), json!(null)), (json!(true), json!(OPAQUE))] {
        let wish = json!({"backup_id": BACKUP, "unverified": unverified}).to_string();
        let plan = rig.call("POST", &format!("{path}/plan"), &wish).await;
        assert_eq!((plan.status.as_u16(), &plan.body["unprovable"]), (200, &unprovable));
    }
    let wish = json!({"backup_id": BACKUP, "unverified": true}).to_string();
    let created = rig.call("POST", &path, &wish).await;
    assert_eq!(
        (created.status.as_u16(), &created.body["unverified"]),
        (201, &json!(true)),
        "{}",
        created.text
    );
    assert_eq!(
        (&created.body["unproven"], &created.body["uncompared"]),
        (&json!(null), &json!(null))
    );
    let (node, now) = (NodeId::mint(&SeededEntropy::new(1)), rig.clock.now());
    let lease = rig.catalog.claim_job(JobKind::Restore, node, now, now).await.unwrap().unwrap();
    rig.catalog.start_restore(&lease, now).await.unwrap();
    let outcome = RestoreOutcome {
        way: Some(RestoreWay::Replica),
        target: TargetData::New,
        unavailable_ms: Some(15),
        proven: false,
        unproven: Some(OPAQUE.into()),
        uncompared: 7,
        keys: None,
    };
    rig.catalog.finish_restore(&lease, &outcome, now).await.unwrap();
    let id = created.body["id"].as_str().unwrap();
    let shown = rig.call("GET", &format!("/api/v1/restores/{id}"), "").await.body;
    assert_eq!(
        (&shown["proven"], &shown["unproven"], &shown["uncompared"], &shown["unverified"]),
        (&json!(false), &json!(OPAQUE), &json!(7), &json!(true))
    );
}

#[tokio::test]
async fn a_rebuilt_catalog_keeps_opaque_content_opaque() {
    let rig = Rig::new().await;
    rig.opaque_in_store(BACKUP, &crate::links::rdb(1000)).await;
    assert_eq!(rig.app.rebuild().await.unwrap().added, 1);
    let shown = rig.call("GET", &format!("/api/v1/backups/{BACKUP}"), "").await.body;
    assert_eq!((&shown["content"], &shown["restorable"]), (&json!("opaque"), &json!(false)));
}

#[tokio::test]
async fn a_server_of_an_unsupported_version_is_registered_with_a_warning() {
    let rig = Rig::new().await;
    assert_eq!(rig.added("known", ADOPTABLE).await["warnings"], json!([]));
    let added = rig.added("newer", NEWER).await;
    let warning = added["warnings"][0].as_str().unwrap();
    assert!(warning.contains("redis 9.0.0") && warning.contains("--unverified"), "{warning}");
    let path = format!("/api/v1/instances/{}", added["id"].as_str().unwrap());
    assert_eq!(rig.call("GET", &path, "").await.body["warnings"], added["warnings"]);
}
