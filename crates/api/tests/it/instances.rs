//! Instances in both versions: lists, changes, registration, deletion, tags and statistics.

use serde_json::{Value, json};

use crate::links::rdb;
use crate::rig::{ADOPTABLE, Answer, INSTANCE, Rig};

const VERSIONS: [&str; 2] = ["v1.0", "v2"];
const OTHER: &str = "11111111-2222-4333-8444-555555555555";
const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
const ANOTHER_BACKUP: &str = "8ba256cb-e5ac-44f6-a3da-c03d8f0e5029";

fn at(version: &str, rig: &Rig) -> String {
    rig.path(version, &format!("/instances/{INSTANCE}"))
}

/// The error code of an answer, in the spelling of v2.
#[track_caller]
fn refused(answer: &Answer, version: &str, status: u16) -> String {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    let code = match version {
        "v1.0" => {
            assert_eq!(answer.body["error"]["ext_message"], Value::Null, "{}", answer.text);
            let digits = answer.body["error"]["code"].as_str().unwrap();
            assert_eq!(digits.len(), 9, "{digits}");
            format!("DCS.4{}", &digits[6..])
        }
        _ => {
            assert_eq!(answer.body["error_ext_msg"], Value::Null, "{}", answer.text);
            answer.body["error_code"].as_str().unwrap().to_owned()
        }
    };
    if status == 404 { code.replace("DCS.4", "DCS.3") } else { code }
}

async fn names(rig: &Rig, version: &str, query: &str) -> Vec<String> {
    let answer = rig.call("GET", &rig.path(version, &format!("/instances?{query}")), "").await;
    assert_eq!(answer.status.as_u16(), 200, "{query}: {}", answer.text);
    let instances = answer.body["instances"].as_array().unwrap();
    instances.iter().map(|instance| instance["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn instances_are_found_by_every_filter_of_both_versions() {
    let rig = Rig::new().await;
    rig.adopt(OTHER, "orders-2").await;
    for version in VERSIONS {
        for (query, expected) in [
            ("", &["orders-2", "orders"][..]),
            ("name=orders", &["orders-2", "orders"]),
            ("name=orders&name_equal=true", &["orders"]),
            ("name=orders&isExactMatchName=True", &["orders"]),
            ("includeFailure=True&exactMatchName=True&name=orders", &["orders"]),
            ("name=orders&name_equal=false&include_delete=false", &["orders-2", "orders"]),
            (&format!("instance_id={OTHER}"), &["orders-2"]),
            (&format!("id={OTHER}"), &["orders-2"]),
            ("instance_id=none", &[]),
            ("status=RUNNING", &["orders-2", "orders"]),
            ("status=ERROR", &[]),
            ("status=CREATING", &[]),
            ("ip=10.0.0.7&capacity=0.125", &["orders-2", "orders"]),
            ("ip=10.0.0.8", &[]),
            ("capacity=1", &[]),
            ("tags=a=1", &[]),
            ("limit=1", &["orders-2"]),
            ("limit=1&offset=1", &["orders"]),
            ("limit=1&start=2", &["orders"]),
            (&format!("limit=1&marker={OTHER}"), &["orders"]),
            ("offset=5", &[]),
            ("nonsense=1", &["orders-2", "orders"]),
        ] {
            assert_eq!(names(&rig, version, query).await, expected, "{version} {query}");
        }
        for (query, code) in [
            ("limit=0", "DCS.4800"),
            (if version == "v2" { "limit=1001" } else { "limit=-1" }, "DCS.4800"),
            ("start=0", "DCS.4800"),
            ("status=happy", "DCS.4062"),
            ("capacity=x", "DCS.4062"),
            ("include_failure=maybe", "DCS.4062"),
        ] {
            let path = rig.path(version, &format!("/instances?{query}"));
            assert_eq!(refused(&rig.call("GET", &path, "").await, version, 400), code, "{query}");
        }
    }
    assert_eq!(names(&rig, "v1.0", "limit=2000").await.len(), 2);
}

#[tokio::test]
async fn a_change_is_204_and_shown_in_both_versions() {
    let rig = Rig::new().await;
    for (n, version) in VERSIONS.into_iter().enumerate() {
        // One client also sends the id, another a security group.
        let body = json!({
            "instance_id": INSTANCE,
            "security_group_id": "securityGroupId",
            "name": format!("renamed-{n}"),
            "description": "Bestellungen 🌙",
            "maintain_begin": "22:00:00",
            "maintain_end": "02:00:00",
        });
        let answer = rig.call("PUT", &at(version, &rig), &body.to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
        for shown_by in VERSIONS {
            let shown = rig.call("GET", &at(shown_by, &rig), "").await.body;
            for field in ["name", "description", "maintain_begin", "maintain_end"] {
                assert_eq!(shown[field], body[field], "{field}");
            }
        }
        // An empty change is valid.
        assert_eq!(rig.call("PUT", &at(version, &rig), "{}").await.status.as_u16(), 204);
        let cleared = rig.call("PUT", &at(version, &rig), r#"{"description":""}"#).await;
        assert_eq!(cleared.status.as_u16(), 204);
        let shown = rig.call("GET", &at(version, &rig), "").await.body;
        assert_eq!(shown["description"], Value::Null);
    }
}

#[tokio::test]
async fn an_invalid_change_has_its_error_and_no_effect() {
    let rig = Rig::new().await;
    rig.adopt(OTHER, "taken").await;
    for version in VERSIONS {
        let before = rig.call("GET", &at(version, &rig), "").await.body;
        for (body, code) in [
            ("", "DCS.4004"),
            ("[]", "DCS.4005"),
            ("{", "DCS.4005"),
            (r#"{"name":5}"#, "DCS.4005"),
            (r#"{"instance_backup_policy":[]}"#, "DCS.4005"),
            (r#"{"name":""}"#, "DCS.4010"),
            (r#"{"name":"a b"}"#, "DCS.4010"),
            (r#"{"name":"taken","description":"x"}"#, "DCS.4060"),
            (&format!(r#"{{"description":"{}"}}"#, "x".repeat(1025)), "DCS.4011"),
            (r#"{"maintain_begin":"22:00:00"}"#, "DCS.4106"),
            (r#"{"maintain_begin":"22:30:00","maintain_end":"23:30:00"}"#, "DCS.4106"),
            (r#"{"port":6380}"#, "DCS.4027"),
        ] {
            let answer = rig.call("PUT", &at(version, &rig), body).await;
            assert_eq!(refused(&answer, version, 400), code, "{body}");
        }
        assert_eq!(rig.call("GET", &at(version, &rig), "").await.body, before);
        let unknown = rig.path(version, &format!("/instances/{BACKUP}"));
        let answer = rig.call("PUT", &unknown, "{}").await;
        assert_eq!(refused(&answer, version, 404), "DCS.3022");
        let malformed = rig.call("PUT", &rig.path(version, "/instances/orders"), "{}").await;
        assert_eq!(refused(&malformed, version, 400), "DCS.4061");
    }
}

const PLAN: &str = r#""periodical_backup_plan":{"begin_at":"00:00-01:00","period_type":"weekly",
    "backup_at":["1",2,"7"],"timezone_offset":"+08:00"}"#;

#[tokio::test]
async fn a_policy_is_stored_and_shown_wrapped() {
    let rig = Rig::new().await;
    let shown = async |version: &str| {
        let shown = rig.call("GET", &at(version, &rig), "").await.body;
        shown["instance_backup_policy"].clone()
    };
    let automatic =
        format!(r#"{{"instance_backup_policy":{{"backup_type":"auto","save_days":1,{PLAN}}}}}"#);
    let answer = rig.call("PUT", &at("v2", &rig), &automatic).await;
    assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
    let first = shown("v2").await;
    let expected = json!({
        "backup_type": "auto",
        "save_days": 1,
        "periodical_backup_plan": {
            "begin_at": "00:00-01:00",
            "period_type": "weekly",
            "backup_at": [1, 2, 7],
            "timezone_offset": null,
        },
    });
    assert_eq!(first["policy"], expected);
    assert_eq!(first["tenant_id"], rig.credential.project.as_str());
    assert_eq!(first["created_at"], "2019-05-10T08:40:00.000Z");
    assert_eq!(first["backup_policy_id"].as_str().unwrap().len(), 36);
    assert_eq!(shown("v1.0").await, first);
    // A manual policy keeps its plan and id.
    rig.clock.advance(jiff::SignedDuration::from_secs(1));
    let manual = r#"{"instance_backup_policy":{"backup_type":"manual"}}"#;
    assert_eq!(rig.call("PUT", &at("v1.0", &rig), manual).await.status.as_u16(), 204);
    let second = shown("v2").await;
    assert_eq!(second["policy"]["backup_type"], "manual");
    assert_eq!(second["policy"]["periodical_backup_plan"], expected["periodical_backup_plan"]);
    assert_eq!(second["backup_policy_id"], first["backup_policy_id"]);
    assert_eq!(
        (&second["created_at"], &second["updated_at"]),
        (&first["created_at"], &json!("2019-05-10T08:40:01.000Z"))
    );
}

#[tokio::test]
async fn an_instance_that_lost_its_replica_keeps_its_policy() {
    let rig = Rig::new().await;
    let automatic =
        format!(r#"{{"instance_backup_policy":{{"backup_type":"auto","save_days":1,{PLAN}}}}}"#);
    assert_eq!(rig.call("PUT", &at("v2", &rig), &automatic).await.status.as_u16(), 204);
    let rig = rig.refusing_single_nodes().await;
    for version in VERSIONS {
        let answer = rig.call("PUT", &at(version, &rig), &automatic).await;
        assert_eq!(refused(&answer, version, 400), "DCS.4086");
        let path = format!("{}/backups", at(version, &rig));
        let answer = rig.call("POST", &path, "{}").await;
        assert_eq!(refused(&answer, version, 400), "DCS.4086");
        let manual = r#"{"instance_backup_policy":{"backup_type":"manual"}}"#;
        assert_eq!(rig.call("PUT", &at(version, &rig), manual).await.status.as_u16(), 204);
    }
}

#[tokio::test]
async fn v1_accepts_a_policy_as_text_and_without_its_type() {
    let rig = Rig::new().await;
    let policy = format!(r#"{{"save_days":1,{PLAN}}}"#);
    let as_text = json!({"instance_backup_policy": policy}).to_string();
    let as_object = format!(r#"{{"instance_backup_policy":{policy}}}"#);
    for body in [as_text.as_str(), &as_object] {
        let answer = rig.call("PUT", &at("v1.0", &rig), body).await;
        assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
        let shown = rig.call("GET", &at("v1.0", &rig), "").await.body;
        let policy = &shown["instance_backup_policy"]["policy"];
        assert_eq!(policy["backup_type"], "manual");
        assert_eq!(policy["periodical_backup_plan"]["backup_at"], json!([1, 2, 7]));
    }
    let cut = rig.call("PUT", &at("v1.0", &rig), r#"{"instance_backup_policy":"{"}"#).await;
    assert_eq!(refused(&cut, "v1.0", 400), "DCS.4005");
    // v2 accepts neither, except for the empty type that one client sends.
    let answer = rig.call("PUT", &at("v2", &rig), &as_text).await;
    assert_eq!(refused(&answer, "v2", 400), "DCS.4005");
    let answer = rig.call("PUT", &at("v2", &rig), &as_object).await;
    assert_eq!(refused(&answer, "v2", 400), "DCS.4073");
    let empty = as_object.replace(r#""save_days""#, r#""backup_type":"","save_days""#);
    assert_eq!(rig.call("PUT", &at("v2", &rig), &empty).await.status.as_u16(), 204);
}

#[tokio::test]
async fn the_bounds_of_a_policy_have_their_errors() {
    let rig = Rig::new().await;
    let good = format!(r#"{{"backup_type":"auto","save_days":1,{PLAN}}}"#);
    for version in VERSIONS {
        for (from, to, code) in [
            (r#""save_days":1"#, r#""save_days":0"#, "DCS.4072"),
            (r#""save_days":1"#, r#""save_days":8"#, "DCS.4072"),
            (r#""save_days":1,"#, "", "DCS.4072"),
            ("auto", "hourly", "DCS.4073"),
            ("weekly", "daily", "DCS.4074"),
            (r#"["1",2,"7"]"#, "[]", "DCS.4075"),
            (r#"["1",2,"7"]"#, "[0]", "DCS.4075"),
            (r#"["1",2,"7"]"#, "[8]", "DCS.4075"),
            ("00:00-01:00", "00:30-01:30", "DCS.4076"),
            ("00:00-01:00", "24:00-25:00", "DCS.4076"),
        ] {
            let body = format!(r#"{{"instance_backup_policy":{}}}"#, good.replace(from, to));
            let answer = rig.call("PUT", &at(version, &rig), &body).await;
            assert_eq!(refused(&answer, version, 400), code, "{to}");
        }
    }
}

#[tokio::test]
async fn creating_an_instance_registers_a_server_or_is_not_supported() {
    let rig = Rig::new().await;
    let unsupported = r#"{"name":"new","engine":"Redis","capacity":0.125,"backup_type":""}"#;
    for (n, version) in VERSIONS.into_iter().enumerate() {
        let path = rig.path(version, "/instances");
        for (body, code) in [
            ("", "DCS.4004"),
            (unsupported, "DCS.4027"),
            (r#"{"name":"new","cachevault":{"host":"nowhere.test","port":6379}}"#, "DCS.4063"),
            (r#"{"name":"new","cachevault":{"host":"h","port":0}}"#, "DCS.4063"),
            (r#"{"name":"new","cachevault":{"host":"h"}}"#, "DCS.4005"),
            (r#"{"name":"orders","cachevault":{"host":"adoptable.test","port":1}}"#, "DCS.4060"),
        ] {
            let answer = rig.call("POST", &path, body).await;
            assert_eq!(refused(&answer, version, 400), code, "{body}");
        }
        let name = format!("new-{n}");
        let body = json!({
            "name": name,
            "description": "x",
            "tags": [{"key": "owner", "value": "terraform"}],
            "instance_backup_policy": {"backup_type": "manual"},
            "cachevault": {"host": ADOPTABLE, "port": 6379, "password": "secret"},
        });
        let answer = rig.call("POST", &path, &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        let created = &answer.body["instances"][0];
        assert_eq!(created["instance_name"], name.as_str());
        assert_eq!(answer.body.get("instance_id").is_some(), version == "v1.0");
        assert_eq!(answer.body.get("order_id"), None);
        let id = created["instance_id"].as_str().unwrap();
        let shown = rig.call("GET", &rig.path(version, &format!("/instances/{id}")), "").await;
        assert_eq!(shown.body["tags"], body["tags"]);
        assert_eq!(shown.body["no_password_access"], "false");
        assert_eq!(shown.body["instance_backup_policy"]["policy"]["backup_type"], "manual");
        assert!(!shown.text.contains("secret"));
    }
}

#[tokio::test]
async fn deleting_an_instance_deletes_its_backups_files() {
    for version in VERSIONS {
        let rig = Rig::new().await;
        let times = ["2019-05-10T08:31:16Z", "2019-05-10T08:31:17Z", "2019-05-10T08:31:18Z"];
        let backup = rig.succeeded(BACKUP, None, times, 5).await;
        let path = at(version, &rig);
        let answer = rig.removing(rig.call("DELETE", &path, "")).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
        for method in ["GET", "DELETE"] {
            let answer = rig.call(method, &path, "").await;
            assert_eq!(refused(&answer, version, 404), "DCS.3022", "{method}");
        }
        assert_eq!(names(&rig, version, "").await, [""; 0]);
        use cachevault_catalog::BackupCatalog;
        let record = rig.catalog.find_backup(&rig.credential.project, backup).await.unwrap();
        assert_eq!(record.unwrap().state, cachevault_domain::BackupState::Deleted);
    }
}

#[tokio::test]
async fn an_instance_in_use_keeps_its_backups() {
    let rig = Rig::new().await;
    let times = ["2019-05-10T08:31:16Z"; 3];
    let kept = rig.succeeded(BACKUP, None, times, 5).await;
    rig.claimed(ANOTHER_BACKUP, None, "2019-05-10T08:32:16Z").await;
    for version in VERSIONS {
        let answer = rig.removing(rig.call("DELETE", &at(version, &rig), "")).await;
        assert_eq!(refused(&answer, version, 400), "DCS.4096");
    }
    let found = rig.call("GET", &at("v2", &rig), "").await;
    assert_eq!(found.status.as_u16(), 200);
    let list = rig.call("GET", &format!("{}/backups", at("v2", &rig)), "").await;
    let record = &list.body["backup_record_response"][1];
    assert_eq!(record["backup_id"], kept.to_string());
    assert_eq!(
        (&record["status"], &record["is_support_restore"]),
        (&json!("succeed"), &json!("TRUE"))
    );
}

#[tokio::test]
async fn the_management_api_deletes_backups_only_on_request() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    let path = format!("/api/v1/instances/{INSTANCE}");
    let answer = rig.removing(rig.call("DELETE", &path, "")).await;
    assert_eq!(answer.body["error"]["code"], "instance_has_backups", "{}", answer.text);
    let answer = rig.call("DELETE", &format!("{path}?backups=some"), "").await;
    assert_eq!(answer.status.as_u16(), 400);
    let answer = rig.removing(rig.call("DELETE", &format!("{path}?backups=delete"), "")).await;
    assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
    assert_eq!(rig.call("GET", &path, "").await.status.as_u16(), 404);
}

#[tokio::test]
async fn backups_of_a_removed_instance_can_be_kept() {
    let rig = Rig::new().await;
    let rdb = rdb(1000);
    rig.stored(BACKUP, &rdb).await;
    let path = format!("/api/v1/instances/{INSTANCE}");
    let answer = rig.call("DELETE", &format!("{path}?backups=keep"), "").await;
    assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
    assert_eq!(rig.call("GET", &path, "").await.status.as_u16(), 404);
    for version in VERSIONS {
        assert_eq!(names(&rig, version, "").await, [""; 0]);
    }
    // The name is free, and the backups still exist.
    rig.adopt(OTHER, "orders").await;
    let list = rig.call("GET", &format!("{path}/backups"), "").await;
    assert_eq!(list.body["items"][0]["id"], json!(BACKUP), "{}", list.text);
    let backup = format!("/api/v1/backups/{BACKUP}");
    let shown = rig.call("GET", &backup, "").await.body;
    assert_eq!((&shown["restorable"], &shown["held"]), (&json!(true), &json!(false)));
    let links = rig.call("POST", &format!("{backup}/links"), "").await;
    assert_eq!(links.status.as_u16(), 200, "{}", links.text);
    for call in ["PUT", "DELETE"] {
        let held = rig.call(call, &format!("{backup}/hold"), "").await;
        assert_eq!(held.status.as_u16(), 204, "{call}: {}", held.text);
    }
    let deleted = rig.removing(rig.call("DELETE", &backup, "")).await;
    assert_eq!(deleted.status.as_u16(), 204, "{}", deleted.text);
    assert_eq!(rig.call("GET", &backup, "").await.body["state"], "deleted");
    let list = rig.call("GET", &format!("{path}/backups"), "").await;
    assert_eq!(list.body["error"]["code"], "instance_not_found", "no file must be left");
}

#[tokio::test]
async fn the_management_api_changes_an_instance() {
    let rig = Rig::new().await;
    let path = format!("/api/v1/instances/{INSTANCE}");
    let policy =
        json!({"automatic": true, "days": [1, 4], "window": "00:00-01:00", "save_days": 7});
    let body = json!({"name": "renamed", "description": "x", "maintenance": "05:00-06:00",
        "policy": policy});
    let answer = rig.call("PATCH", &path, &body.to_string()).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    for field in ["name", "description", "maintenance", "policy"] {
        assert_eq!(answer.body[field], body[field], "{field}");
    }
    let shown = rig.call("GET", &at("v2", &rig), "").await.body;
    assert_eq!(shown["instance_backup_policy"]["policy"]["backup_type"], "auto");
    let bad = rig.call("PATCH", &path, r#"{"maintenance":"always"}"#).await;
    assert_eq!((bad.status.as_u16(), &bad.body["error"]["code"]), (400, &json!("bad_request")));
}

#[tokio::test]
async fn a_batch_deletion_reports_each_instance() {
    for version in VERSIONS {
        let rig = Rig::new().await;
        rig.adopt(OTHER, "other").await;
        let path = rig.path(version, "/instances");
        let many = json!({"instances": vec![OTHER; 51]}).to_string();
        for (body, code) in [
            ("", "DCS.4004"),
            ("{}", "DCS.4063"),
            (r#"{"instances":[]}"#, "DCS.4063"),
            (many.as_str(), "DCS.4063"),
            (r#"{"instances":["orders"]}"#, "DCS.4061"),
            (r#"{"instances":5}"#, "DCS.4005"),
        ] {
            let answer = rig.call("DELETE", &path, body).await;
            assert_eq!(refused(&answer, version, 400), code, "{body}");
        }
        let body = json!({"instances": [OTHER, BACKUP]}).to_string();
        let answer = rig.removing(rig.call("DELETE", &path, &body)).await;
        let expected = json!({"results": [
            {"instance": OTHER, "result": "success"},
            {"instance": BACKUP, "result": "failed"},
        ]});
        assert_eq!((answer.status.as_u16(), answer.body), (200, expected));
        assert_eq!(names(&rig, version, "").await, ["orders"]);
        for query in ["allFailure=true", "all_failure=True"] {
            let answer = rig.call("DELETE", &format!("{path}?{query}"), "").await;
            assert_eq!((answer.status.as_u16(), answer.body), (200, json!({"results": []})));
        }
        assert_eq!(names(&rig, version, "").await, ["orders"]);
    }
}

#[tokio::test]
async fn tags_are_added_removed_and_listed() {
    let rig = Rig::new().await;
    let action = rig.path("v2", &format!("/dcs/{INSTANCE}/tags/action"));
    let of_instance = format!("{}/tags", at("v2", &rig));
    let create = r#"{"action":"create","tags":[{"key":"owner","value":"ops"},{"key":"a"}]}"#;
    let answer = rig.call("POST", &action, create).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    let tags = json!({"tags": [{"key": "a", "value": ""}, {"key": "owner", "value": "ops"}]});
    assert_eq!(rig.call("GET", &of_instance, "").await.body, tags);
    assert_eq!(rig.call("GET", &at("v1.0", &rig), "").await.body["tags"], tags["tags"]);
    let listed = rig.call("GET", &rig.path("v2", "/dcs/tags"), "").await.body;
    let expected =
        json!({"tags": [{"key": "a", "values": [""]}, {"key": "owner", "values": ["ops"]}]});
    assert_eq!(listed, expected);
    assert_eq!(names(&rig, "v2", "tags=owner%3Dops,a%3D").await, ["orders"]);
    assert_eq!(names(&rig, "v2", "tags=owner=dev").await, [""; 0]);
    let delete = r#"{"action":"delete","tags":[{"key":"a"},{"key":"owner","value":"dev"}]}"#;
    assert_eq!(rig.call("POST", &action, delete).await.status.as_u16(), 204);
    let tags = json!({"tags": [{"key": "owner", "value": "ops"}]});
    assert_eq!(rig.call("GET", &of_instance, "").await.body, tags);
    let many: Vec<_> = (0..20).map(|n| json!({"key": format!("k{n}")})).collect();
    let many = json!({"action": "create", "tags": many}).to_string();
    for (body, code) in [
        ("", "DCS.4004"),
        ("{}", "DCS.4063"),
        (r#"{"action":"create","tags":[]}"#, "DCS.4063"),
        (r#"{"action":"keep","tags":[{"key":"a"}]}"#, "DCS.4063"),
        (r#"{"action":"create","tags":[{"key":""}]}"#, "DCS.4063"),
        (r#"{"action":"create","tags":[{"value":""}]}"#, "DCS.4005"),
        (many.as_str(), "DCS.4039"),
    ] {
        let answer = rig.call("POST", &action, body).await;
        assert_eq!(refused(&answer, "v2", 400), code, "{body}");
    }
    assert_eq!(rig.call("GET", &of_instance, "").await.body, tags);
}

#[tokio::test]
async fn the_statistics_match_the_instances() {
    let rig = Rig::new().await;
    rig.adopt(OTHER, "other").await;
    for version in VERSIONS {
        let quota = rig.call("GET", &rig.path(version, "/quota"), "").await.body;
        let resources = quota["quotas"]["resources"].as_array().unwrap();
        assert_eq!(resources.len(), 2);
        assert_eq!((&resources[0]["type"], &resources[0]["used"]), (&json!("instance"), &json!(2)));
        assert_eq!((&resources[1]["type"], &resources[1]["used"]), (&json!("ram"), &json!(1)));
        let project = json!(rig.credential.project.as_str());
        let user = &quota["resource_user"]["tenant_id"];
        assert_eq!(user, if version == "v1.0" { &project } else { &Value::Null });
        let statistic = rig.call("GET", &rig.path(version, "/instances/statistic"), "").await.body;
        let first = &statistic["statistics"][0];
        assert_eq!((&first["instance_id"], &first["keys"]), (&json!(OTHER), &json!(1000)));
        assert_eq!((&first["used_memory"], &first["max_memory"]), (&json!(64), &json!(128)));
        assert!(first["used_cpu"].is_string() && first["cmd_get_count"].is_u64());
        let counts = rig.call("GET", &rig.path(version, "/instances/status"), "").await.body;
        assert_eq!((&counts["running_count"], &counts["restoring_count"]), (&json!(2), &json!(0)));
        assert_eq!(counts["redis"]["running_count"], 2);
        assert_eq!(counts["memcached"]["running_count"], 0);
        let configs = rig.call("GET", &format!("{}/configs", at(version, &rig)), "").await.body;
        assert_eq!(configs["redis_config"], json!([]));
        assert_eq!(
            (&configs["config_status"], &configs["status"]),
            (&json!("SUCCESS"), &json!("RUNNING"))
        );
    }
    let whitelist = rig.path("v2", &format!("/instance/{INSTANCE}/whitelist"));
    let expected = json!({"instance_id": INSTANCE, "enable_whitelist": false, "whitelist": []});
    assert_eq!(rig.call("GET", &whitelist, "").await.body, expected);
    for other in ["groups", "bigkey/autoscan", "hotkey/autoscan"] {
        let path = rig.path("v2", &format!("/instance/{INSTANCE}/{other}"));
        let answer = rig.call("GET", &path, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error_code"]),
            (404, &json!("APIGW.0101"))
        );
    }
}

#[tokio::test]
async fn zones_windows_and_products_require_only_the_list_permission() {
    let rig = Rig::new().await;
    for (path, region) in
        [("/v1.0/availableZones", "regionId"), ("/v2/available-zones", "region_id")]
    {
        let answer = rig.call("GET", path, "").await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        assert!(answer.body[region].is_string() && answer.body["region_id"].is_string());
        let zones = answer.body["available_zones"].as_array().unwrap();
        assert_eq!(zones.len(), 3);
        assert_eq!(
            (&zones[0]["resource_availability"], zones[0]["port"].is_string()),
            (&json!("true"), true)
        );
    }
    for version in VERSIONS {
        let path = format!("/{version}/instances/maintain-windows");
        let windows = rig.call("GET", &path, "").await.body["maintain_windows"].clone();
        let windows = windows.as_array().unwrap();
        assert_eq!(windows.len(), 24);
        assert_eq!(windows[18], json!({"seq": 19, "begin": "18", "end": "19", "default": false}));
        assert_eq!(windows.iter().filter(|window| window["default"] == true).count(), 1);
    }
    const WANTED: &str = "redis.ha.xu1.tiny.r2.128";
    let products = rig.call("GET", "/v1.0/products", "").await.body;
    assert_eq!(products["products"][0]["spec_code"], WANTED);
    assert_eq!(products["products"][0]["product_id"], "redis.ha.xu1.tiny.r2.128-h");
    let flavors = rig.call("GET", &rig.path("v2", "/flavors"), "").await.body;
    assert_eq!(flavors["flavors"][0]["spec_code"], WANTED);
}

#[tokio::test]
async fn the_version_documents_require_no_authentication() {
    use axum::body::Body;
    use axum::http::Request;
    let rig = Rig::new().await;
    let get = async |uri: &str| {
        let request = Request::builder().uri(uri).header("host", "cachevault.test");
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        answer.body
    };
    let all = get("/").await;
    let versions = all["versions"].as_array().unwrap();
    let told: Vec<_> = versions.iter().map(|v| (v["id"].clone(), v["status"].clone())).collect();
    let expected = [(json!("v1.0"), json!("DEPRECATED")), (json!("v2"), json!("CURRENT"))];
    assert_eq!(told, expected);
    let link = json!([{"href": "http://cachevault.test/v2", "rel": "self"}]);
    assert_eq!(versions[1]["links"], link);
    for (n, uri) in ["/v1.0", "/v2"].into_iter().enumerate() {
        assert_eq!(get(uri).await["version"], versions[n]);
    }
}
