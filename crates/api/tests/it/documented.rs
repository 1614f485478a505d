//! The vendor's published examples, compared field by field.

use cachevault_catalog::{BackupCatalog, JobQueue, RestoreCatalog};
use cachevault_domain::{
    Clock, Failure, FailureCode, JobId, JobKind, NewRestore, NodeId, Progress, RestoreOptions,
    RestoreOutcome, RestoreWay, TargetData,
};
use cachevault_testkit::SeededEntropy;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::rig::{INSTANCE, Rig};

const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
/// The times of creation, start and completion in the examples of both pages.
const MOMENTS: [&str; 3] =
    ["2019-05-10T08:31:16.166Z", "2019-05-10T08:31:21.461Z", "2019-05-10T08:32:30.546Z"];

fn examples() -> Value {
    serde_json::from_slice(include_bytes!("../../../../fixtures/dcs/docs_examples.json")).unwrap()
}

/// The example with null instead of the documented `{}`, and with its name in UTC: the vendor uses
/// the region's local time.
fn expected(mut example: Value) -> Value {
    let record = &mut example["backup_record_response"][0];
    for value in record.as_object_mut().unwrap().values_mut() {
        if *value == json!({}) {
            *value = Value::Null;
        }
    }
    assert_eq!(record["backup_name"], "backup_20190510163116");
    record["backup_name"] = json!("backup_20190510083116");
    example
}

#[tokio::test]
async fn both_list_pages_answer_as_their_examples_show() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, Some("001"), MOMENTS, 880_232).await;
    for (version, example, added) in [
        // Later editions of the pages add the fields that the older examples do not show.
        ("v1.0", "v1_list_backups_200", json!({"backup_format": "RDB"})),
        ("v2", "v2_list_backups_200", json!({"backup_format": "rdb", "execution_at": MOMENTS[1]})),
    ] {
        let answer = rig
            .call("GET", &rig.path(version, &format!("/instances/{INSTANCE}/backups")), "")
            .await;
        let mut expected = expected(examples()[example]["body"].clone());
        for (name, value) in added.as_object().unwrap() {
            expected["backup_record_response"][0][name] = value.clone();
        }
        assert_eq!((answer.status.as_u16(), answer.body), (200, expected), "{version}");
    }
}

#[tokio::test]
async fn a_request_as_documented_is_answered_as_documented() {
    let rig = Rig::new().await;
    let example = &examples()["create_backup"];
    let path = |version| rig.path(version, &format!("/instances/{INSTANCE}/backups"));
    // The v2 example asks for an AOF, which the service does not support.
    let answer = rig.call("POST", &path("v2"), &example["v2_request"].to_string()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["error_code"].as_str()),
        (400, Some("DCS.4063"))
    );
    assert_eq!(answer.body["error_msg"], "Invalid backup_format parameter in the request.");

    let mut request = example["v2_request"].clone();
    request["backup_format"] = json!("rdb");
    for (version, request) in [("v2", request), ("v1.0", example["v1_request"].clone())] {
        let answer = rig.call("POST", &path(version), &request.to_string()).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        let names: Vec<_> = answer.body.as_object().unwrap().keys().cloned().collect();
        let documented: Vec<_> =
            example["response_200"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, documented);
        // The record exists before the answer.
        let list = rig.call("GET", &path("v2"), "").await.body;
        let record = &list["backup_record_response"][0];
        assert_eq!(
            (&record["backup_id"], &record["remark"]),
            (&answer.body["backup_id"], &json!("Backup instances"))
        );
        assert_eq!(
            (record["status"].as_str(), record["progress"].as_str()),
            (Some("waiting"), Some("0.00"))
        );
        let node = NodeId::mint(&SeededEntropy::new(1));
        let lease = rig
            .catalog
            .claim_job(JobKind::Capture, node, rig.clock.now(), rig.clock.now())
            .await
            .unwrap()
            .unwrap();
        let failure = Failure { code: FailureCode::TimedOut, reason: "end of the test".into() };
        rig.catalog.fail_backup(&lease, &failure, rig.clock.now()).await.unwrap();
    }
}

#[tokio::test]
async fn links_are_given_as_both_examples_show() {
    let rig = Rig::new().await;
    rig.stored_from(BACKUP, &crate::links::rdb(1000), "192.168.63.250:6379").await;
    let folder = format!("{}/{INSTANCE}/{BACKUP}/attempt-0001/", rig.credential.project);
    for (version, example) in [("v1.0", "v1_links"), ("v2", "v2_links")] {
        let example = &examples()[example];
        let path = rig.path(version, &format!("/instances/{INSTANCE}/backups/{BACKUP}/links"));
        let answer = rig.call("POST", &path, &example["request"].to_string()).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        let (body, shown) = (&answer.body, &example["response_200"]);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(body), keys(shown));
        assert_eq!(keys(&body["links"][0]), keys(&shown["links"][0]));
        assert_eq!(body["links"].as_array().unwrap().len(), 1);
        let (name, link) = (&body["links"][0]["file_name"], &body["links"][0]["link"]);
        // As in the v2 example, except for the slots of a cluster.
        let name = name.as_str().unwrap();
        assert_eq!(name, "redis_192.168.63.250_6379_20190510083116.rdb");
        // The path is the folder in the v2 example, and the object's name in that of v1.0.
        let shown_path = shown["file_path"].as_str().unwrap();
        assert_eq!(shown_path.ends_with('/'), version == "v2");
        let object = format!("{folder}shard-0000.rdb.zst");
        let expected = if version == "v2" { folder.clone() } else { object };
        assert_eq!(body["file_path"], expected);
        assert!(!body["bucket_name"].as_str().unwrap().is_empty());
        let end = rig.clock.now().as_second() + example["request"]["expiration"].as_i64().unwrap();
        let link = link.as_str().unwrap();
        assert!(link.starts_with("http://cachevault.test/download/"), "{link}");
        assert!(link.contains(&format!("/{name}?Expires={end}&Signature=")), "{link}");
    }
}

#[tokio::test]
async fn every_state_and_code_of_the_pages_is_shown() {
    let rig = Rig::new().await;
    let list = rig.path("v2", &format!("/instances/{INSTANCE}/backups"));
    let newest =
        async || rig.call("GET", &list, "").await.body["backup_record_response"][0].clone();
    for (n, code) in FailureCode::ALL.into_iter().enumerate() {
        let id = format!("00000000-0000-4000-8000-00000000000{n}");
        let lease = rig.claimed(&id, None, &format!("2019-05-10T08:31:1{n}Z")).await;
        assert_eq!(newest().await["status"], "waiting");
        rig.catalog.start_backup(&lease, rig.clock.now()).await.unwrap();
        rig.catalog.report_progress(&lease, Progress::of(1, 3), 5, "receiving").await.unwrap();
        let running = newest().await;
        assert_eq!(
            (&running["status"], &running["progress"], &running["size"]),
            (&json!("backuping"), &json!("33.33"), &json!(0))
        );
        let instance =
            rig.call("GET", &rig.path("v2", &format!("/instances/{INSTANCE}")), "").await.body;
        assert_eq!(
            (&instance["status"], &instance["task"]),
            (&json!("RUNNING"), &json!("BACKUPING"))
        );
        rig.catalog
            .fail_backup(&lease, &Failure { code, reason: "why".into() }, rig.clock.now())
            .await
            .unwrap();
        let failed = newest().await;
        assert_eq!(
            (&failed["status"], &failed["error_code"]),
            (&json!("failed"), &json!(format!("dcs.08.000{}", n + 1)))
        );
        assert_eq!(
            (&failed["is_support_restore"], failed["updated_at"].is_string()),
            (&json!("FALSE"), true)
        );
    }
    let backup = rig.succeeded(BACKUP, None, ["2019-05-10T08:39:00Z"; 3], 5).await;
    assert_eq!(newest().await["status"], "succeed");
    let job = JobId::mint(&SeededEntropy::new(99));
    let (project, now) = (&rig.credential.project, rig.clock.now());
    rig.catalog.request_removal(project, rig.instance(), backup, job, now).await.unwrap();
    let leaving = newest().await;
    assert_eq!(
        (&leaving["status"], &leaving["is_support_restore"]),
        (&json!("succeed"), &json!("FALSE"))
    );
    let lease = rig
        .catalog
        .claim_job(JobKind::Remove, NodeId::mint(&SeededEntropy::new(1)), now, now)
        .await
        .unwrap()
        .unwrap();
    rig.catalog.finish_removal(&lease, now).await.unwrap();
    assert_eq!(newest().await["status"], "deleted");
}

#[tokio::test]
async fn instances_are_shown_in_the_documented_types() {
    let rig = Rig::new().await;
    for version in ["v1.0", "v2"] {
        let list = rig.call("GET", &rig.path(version, "/instances"), "").await.body;
        let shown =
            rig.call("GET", &rig.path(version, &format!("/instances/{INSTANCE}")), "").await.body;
        assert_eq!((list["instance_num"].as_u64(), &list["instances"][0]), (Some(1), &shown));
        assert_eq!((&shown["capacity"], &shown["capacity_minor"]), (&json!(0), &json!(".125")));
        assert_eq!((&shown["max_memory"], &shown["used_memory"]), (&json!(128), &json!(64)));
        assert_eq!(
            (&shown["no_password_access"], &shown["cache_mode"]),
            (&json!("true"), &json!("ha"))
        );
        for null in ["task", "instance_backup_policy", "is_free", "free", "description"] {
            assert_eq!(shown[null], Value::Null, "{null}");
        }
        assert_eq!(shown.get("domainName").is_some(), version == "v1.0");
    }
}

#[tokio::test]
async fn a_marker_ends_the_pages_of_instances() {
    let rig = Rig::new().await;
    let path = rig.path("v1.0", &format!("/instances?limit=1&marker={INSTANCE}"));
    assert_eq!(rig.call("GET", &path, "").await.body["instances"], json!([]));
}

#[tokio::test]
async fn both_restore_pages_answer_as_their_examples_show() {
    let rig = Rig::new().await;
    let example = &examples()["v1_list_restores_200"]["body"]["restore_record_response"][0];
    let text = |name: &str| example[name].as_str().unwrap();
    let backup = rig.succeeded(text("backup_id"), None, ["2017-07-18T00:00:02Z"; 3], 5).await;
    let created_at = text("created_at").parse().unwrap();
    let restore = NewRestore {
        id: text("restore_id").parse().unwrap(),
        job: JobId::mint(&SeededEntropy::new(99)),
        project: rig.credential.project.clone(),
        instance: INSTANCE.parse().unwrap(),
        backup,
        options: RestoreOptions::default(),
        note: Some(text("restore_remark").parse().unwrap()),
        created_at,
    };
    rig.catalog.request_restore(&restore).await.unwrap();
    let node = NodeId::mint(&SeededEntropy::new(1));
    let until = created_at.checked_add(SignedDuration::from_secs(30)).unwrap();
    let lease = rig.catalog.claim_job(JobKind::Restore, node, created_at, until).await;
    let lease = lease.unwrap().unwrap();
    rig.catalog.start_restore(&lease, created_at).await.unwrap();
    let shown = rig.call("GET", &rig.path("v2", &format!("/instances/{INSTANCE}")), "").await.body;
    assert_eq!((&shown["status"], &shown["task"]), (&json!("RESTORING"), &json!("RESTORING")));
    let outcome = RestoreOutcome {
        way: Some(RestoreWay::Replica),
        target: TargetData::New,
        unavailable_ms: Some(15),
        unproven: None,
        uncompared: 0,
        proven: true,
        keys: Some(1),
    };
    let completed_at = text("updated_at").parse().unwrap();
    rig.catalog.finish_restore(&lease, &outcome, completed_at).await.unwrap();
    for (version, page) in [("v1.0", "v1_list_restores_200"), ("v2", "v2_list_restores_200")] {
        let mut expected = examples()[page]["body"].clone();
        let record = expected["restore_record_response"][0].as_object_mut().unwrap();
        for value in record.values_mut().filter(|value| **value == json!({})) {
            *value = Value::Null;
        }
        // The example shows another instance; the table spells its id in two ways.
        if version == "v1.0" {
            record.insert("sourceInstanceId".into(), json!(INSTANCE));
            record.insert("sourceInstanceID".into(), json!(INSTANCE));
            record.insert("sourceInstanceName".into(), json!("orders"));
        }
        let path = rig.path(version, &format!("/instances/{INSTANCE}/restores"));
        let answer = rig.call("GET", &path, "").await;
        assert_eq!((answer.status.as_u16(), answer.body), (200, expected), "{version}");
    }
}
