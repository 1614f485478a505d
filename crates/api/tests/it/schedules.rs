//! Complete backup policies.

use cachevault_domain::Clock;
use serde_json::{Value, json};

use crate::rig::{INSTANCE, Rig};

fn path() -> String {
    format!("/api/v1/instances/{INSTANCE}/policy")
}

fn rich() -> Value {
    json!({
        "enabled": true,
        "schedule": {"pattern": "30 2 * * *", "zone": "Europe/Berlin", "window_minutes": 90},
        "keep": {"days": 7, "count": 3, "daily": 7, "weekly": 4, "monthly": 12, "yearly": 2},
        "missed": "catch_up",
    })
}

#[tokio::test]
async fn a_policy_is_set_shown_with_its_next_window_and_removed() {
    let rig = Rig::new().await;
    let missing = rig.call("GET", &path(), "").await;
    assert_eq!(missing.status.as_u16(), 404);
    assert_eq!(missing.body["error"]["code"], "backup_policy_not_found");
    let set = rig.call("PUT", &path(), &rich().to_string()).await;
    assert_eq!(set.status.as_u16(), 200, "{}", set.text);
    let shown = rig.call("GET", &path(), "").await;
    assert_eq!(shown.body, set.body);
    for field in ["enabled", "schedule", "missed"] {
        assert_eq!(shown.body[field], rich()[field], "{field}");
    }
    let mut keep = rich()["keep"].clone();
    keep["zone"] = json!("Europe/Berlin");
    assert_eq!(shown.body["keep"], keep);
    assert_eq!(shown.body["weekly"], Value::Null);
    // 02:30 in Berlin, in summer.
    let window = json!({"begin": "2019-05-11T00:30:00Z", "end": "2019-05-11T02:00:00Z"});
    assert_eq!(shown.body["next_window"], window);
    let moment = |at: &Value| at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let start = moment(&shown.body["next_start"]);
    assert!(moment(&window["begin"]) <= start && start < moment(&window["end"]));
    let mut disabled = rich();
    disabled["enabled"] = json!(false);
    let disabled = rig.call("PUT", &path(), &disabled.to_string()).await.body;
    assert_eq!((&disabled["id"], &disabled["enabled"]), (&set.body["id"], &json!(false)));
    assert_eq!((&disabled["next_window"], &disabled["next_start"]), (&Value::Null, &Value::Null));
    assert_eq!(rig.call("DELETE", &path(), "").await.status.as_u16(), 204);
    for method in ["GET", "DELETE"] {
        let gone = rig.call(method, &path(), "").await;
        assert_eq!(gone.body["error"]["code"], "backup_policy_not_found", "{method}");
    }
}

#[tokio::test]
async fn a_change_of_a_policy_is_recorded() {
    let rig = Rig::new().await;
    rig.call("PUT", &path(), &rich().to_string()).await;
    rig.call("PUT", &path(), r#"{"keep": {}}"#).await;
    rig.call("DELETE", &path(), "").await;
    let audit = rig.call("GET", "/api/v1/audit?order=oldest", "").await.body;
    let calls = audit["items"].as_array().unwrap().iter();
    let calls: Vec<_> =
        calls.map(|call| (call["operation"].clone(), call["status"].clone())).collect();
    let operation = |method| json!(format!("{method} /api/v1/instances/{{instance_id}}/policy"));
    let expected = [("PUT", 200), ("PUT", 400), ("DELETE", 204)];
    assert_eq!(calls, expected.map(|(method, status)| (operation(method), json!(status))));
}

#[tokio::test]
async fn dcs_shows_a_reduced_policy_and_replaces_it() {
    let rig = Rig::new().await;
    let weekly = json!({"weekly": {"days": [1, 4], "hours": "22:00-02:00"}, "keep": {"days": 5}});
    let mut longer = weekly.clone();
    longer["keep"]["yearly"] = json!(2);
    let plan = json!({"begin_at": "22:00-02:00", "period_type": "weekly", "backup_at": [1, 4],
        "timezone_offset": null});
    for (body, save_days, shown_plan) in [
        (rich(), Value::Null, Value::Null),
        (longer, Value::Null, plan.clone()),
        (weekly, json!(5), plan),
    ] {
        rig.call("PUT", &path(), &body.to_string()).await;
        for version in ["v1.0", "v2"] {
            let instance = rig.path(version, &format!("/instances/{INSTANCE}"));
            let shown = rig.call("GET", &instance, "").await.body;
            let policy = &shown["instance_backup_policy"]["policy"];
            assert_eq!(policy["backup_type"], "auto", "{version} {body}");
            assert_eq!(policy["save_days"], save_days, "{version} {body}");
            assert_eq!(policy["periodical_backup_plan"], shown_plan, "{version} {body}");
        }
    }
    rig.call("PUT", &path(), &rich().to_string()).await;
    let instance = rig.path("v2", &format!("/instances/{INSTANCE}"));
    let manual = r#"{"instance_backup_policy": {"backup_type": "manual"}}"#;
    rig.call("PUT", &instance, manual).await;
    let shown = rig.call("GET", &path(), "").await.body;
    assert_eq!((&shown["enabled"], &shown["schedule"]), (&json!(false), &rich()["schedule"]));
    let auto = json!({"instance_backup_policy": {"backup_type": "auto", "save_days": 2,
        "periodical_backup_plan":
            {"begin_at": "01:00-02:00", "period_type": "weekly", "backup_at": [7]}}});
    rig.call("PUT", &instance, &auto.to_string()).await;
    let shown = rig.call("GET", &path(), "").await.body;
    assert_eq!(shown["weekly"], json!({"days": [7], "hours": "01:00-02:00"}));
    assert_eq!((&shown["schedule"], &shown["missed"]), (&Value::Null, &Value::Null));
    let keep = (&shown["keep"]["days"], &shown["keep"]["yearly"]);
    assert_eq!(keep, (&json!(2), &json!(0)), "the richer policy must be gone");
    assert!(rig.clock.now().to_string() == shown["updated_at"]);
}

#[tokio::test]
async fn an_invalid_policy_changes_nothing() {
    let rig = Rig::new().await;
    rig.call("PUT", &path(), &rich().to_string()).await;
    for (field, value) in [
        ("schedule", json!({"pattern": "30 2 * * *", "zone": "Atlantis"})),
        ("keep", json!({"days": 0})),
        ("missed", json!("later")),
        ("surprise", json!(1)),
    ] {
        let mut body = rich();
        body[field] = value;
        let answer = rig.call("PUT", &path(), &body.to_string()).await;
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert_eq!(answer.status.as_u16(), 400, "{field}: {message}");
        assert!(message.contains(field), "{field}: {message}");
    }
    assert_eq!(rig.call("GET", &path(), "").await.body["schedule"], rich()["schedule"]);
}
