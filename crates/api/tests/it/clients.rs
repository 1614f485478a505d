//! Behavior that clients rely on without documenting it.

use std::time::Duration;

use cachevault_domain::Clock;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::links::rdb;
use crate::rig::{ADOPTABLE, Answer, INSTANCE, PASSWORD, REGION, Rig};

const VERSIONS: [&str; 2] = ["v1.0", "v2"];
const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
const UNKNOWN: &str = "0e8a1d6c-0000-4000-8000-5b1d1f6a7e55";
const HOST: &str = "http://cachevault.test";

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

impl Rig {
    async fn get(&self, uri: &str) -> Value {
        let answer = self.call("GET", uri, "").await;
        assert_eq!(answer.status.as_u16(), 200, "{uri}: {}", answer.text);
        answer.body
    }

    fn of_instance(&self, version: &str, rest: &str) -> String {
        self.path(version, &format!("/instances/{INSTANCE}{rest}"))
    }

    /// A GET signed as two Go clients do: they add headers after signing.
    async fn get_as_go(&self, uri: &str, added: &[(&str, &str)]) -> Answer {
        let date = self.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &date[..8];
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let canonical = format!(
            "GET\n{path}/\n{query}\nhost:cachevault.test\nx-sdk-date:{date}\n\nhost;x-sdk-date\n{}",
            hex::encode(Sha256::digest(b""))
        );
        let scope = format!("{day}///sdk_request");
        let to_sign = format!(
            "SDK-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex::encode(Sha256::digest(canonical.as_bytes()))
        );
        let secret = format!("SDK{}", self.credential.secret_key.expose_secret()).into_bytes();
        let parts = [day, "", "", "sdk_request"];
        let key = parts.iter().fold(secret, |key, part| hmac(&key, part.as_bytes()));
        let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
        let access_key = &self.credential.access_key;
        let authorization = format!(
            "SDK-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders=host;x-sdk-date, \
             Signature={signature}"
        );
        let headers = [("x-sdk-date", date.as_str()), ("authorization", &authorization)];
        self.plain("GET", uri, &[&headers[..], added].concat(), "").await
    }
}

#[tokio::test]
async fn a_deleted_backup_is_204_without_a_body_and_stays_listed_as_deleted() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    let path = rig.of_instance("v2", &format!("/backups/{BACKUP}"));
    let answer = rig.removing(rig.call("DELETE", &path, "")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    let listed = rig.get(&rig.of_instance("v2", "/backups")).await;
    let record = &listed["backup_record_response"][0];
    assert_eq!(
        (&record["backup_id"], &record["status"], &record["is_support_restore"]),
        (&json!(BACKUP), &json!("deleted"), &json!("FALSE"))
    );
    assert_eq!(listed["total_num"], 1);
}

#[tokio::test]
async fn deleting_an_unknown_backup_has_the_not_found_code() {
    let rig = Rig::new().await;
    let path = rig.of_instance("v2", &format!("/backups/{UNKNOWN}"));
    let answer = rig.call("DELETE", &path, "").await;
    assert_eq!(answer.outcome(), (400, "DCS.4031"));
    assert!(answer.body["error_code"].is_string() && answer.body["error_msg"].is_string());
}

#[tokio::test]
async fn a_restore_is_listed_before_its_id_is_answered() {
    for version in VERSIONS {
        let rig = Rig::new().await;
        rig.stored(BACKUP, &rdb(1000)).await;
        let running = json!({"name": "new", "cachevault": {"host": ADOPTABLE, "port": 6379}});
        let running =
            rig.call("POST", &rig.path(version, "/instances"), &running.to_string()).await;
        let running = running.body["instances"][0]["instance_id"].as_str().unwrap().to_owned();
        let path = rig.path(version, &format!("/instances/{running}/restores"));
        let answer = rig.call("POST", &path, &json!({"backup_id": BACKUP}).to_string()).await;
        let id = &answer.body["restore_id"];
        assert!(id.is_string(), "{}", answer.text);
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &json!({"restore_id": id})));
        let listed = rig.get(&format!("{path}?limit=1000&offset=0")).await;
        assert_eq!(listed["total_num"], 1);
        assert_eq!(listed["restore_record_response"][0]["restore_id"], *id);
    }
}

#[tokio::test]
async fn empty_lists_are_answered_with_200() {
    let rig = Rig::new().await;
    for version in VERSIONS {
        for (rest, records) in
            [("/backups", "backup_record_response"), ("/restores", "restore_record_response")]
        {
            let listed = rig.get(&rig.of_instance(version, rest)).await;
            assert_eq!(listed, json!({records: [], "total_num": 0}), "{version} {rest}");
        }
        let listed = rig.get(&rig.path(version, "/instances?name=none")).await;
        assert_eq!(listed, json!({"instance_num": 0, "instances": []}), "{version}");
    }
}

#[tokio::test]
async fn the_number_of_instances_is_independent_of_the_page() {
    let rig = Rig::new().await;
    rig.adopt("00000000-0000-4000-8000-000000000001", "carts-1").await;
    for version in VERSIONS {
        let listed = rig.get(&rig.path(version, "/instances?limit=1")).await;
        let shown = listed["instances"].as_array().unwrap().len();
        assert_eq!((&listed["instance_num"], shown), (&json!(2), 1), "{version}");
    }
    for n in 2..=10 {
        rig.adopt(&format!("00000000-0000-4000-8000-{n:012}"), &format!("carts-{n}")).await;
    }
    for (version, query, expected) in [
        ("v2", "", 10),
        ("v2", "?offset=10&limit=10", 1),
        ("v2", "?offset=20&limit=10", 0),
        ("v1.0", "", 11),
    ] {
        let listed = rig.get(&rig.path(version, &format!("/instances{query}"))).await;
        let shown = listed["instances"].as_array().unwrap().len();
        assert_eq!((&listed["instance_num"], shown), (&json!(11), expected), "{version} {query}");
    }
}

#[tokio::test]
async fn unknown_query_fields_change_nothing() {
    let rig = Rig::new().await;
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    for version in VERSIONS {
        for rest in ["/backups", "/restores"] {
            let path = rig.of_instance(version, rest);
            let expected = rig.get(&path).await;
            for query in ["nonsense=1", "enterprise_project_id=0&x", "limit=10&marker=none", "="] {
                assert_eq!(rig.get(&format!("{path}?{query}")).await, expected, "{query}");
            }
        }
    }
}

#[tokio::test]
async fn a_project_header_must_match_the_path() {
    let rig = Rig::new().await;
    let own = rig.credential.project.to_string();
    let other = "ffffffffffffffffffffffffffffffff";
    for (version, refused) in [("v1.0", (401, "111401004")), ("v2", (400, "DCS.1004"))] {
        let uri = rig.path(version, "/instances");
        for (headers, expected) in [
            (&[][..], (200, "")),
            (&[("x-project-id", other)], refused),
            (&[("x-project-id", own.as_str())], (200, "")),
            (&[("x-domain-id", other)], (200, "")),
            (&[("x-domain-id", "default"), ("x-project-id", &own)], (200, "")),
        ] {
            let answer = rig.get_as_go(&uri, headers).await;
            assert_eq!(answer.outcome(), expected, "{version} {headers:?}: {}", answer.text);
        }
        let mut request = rig.signed(&rig.credential, "GET", &uri, "");
        request.headers_mut().insert("x-project-id", other.parse().unwrap());
        assert_eq!(rig.send(request).await.outcome(), refused, "{version}");
    }
}

#[tokio::test]
async fn unsupported_terraform_calls_are_404_in_json() {
    let rig = Rig::new().await;
    for uri in [
        rig.of_instance("v2", "/scan-expire-keys/autoscan-config"),
        rig.of_instance("v2", "/autoscaling-policy/bandwidth"),
        rig.path("v2", &format!("/jobs/{UNKNOWN}")),
    ] {
        let answer = rig.call("GET", &uri, "").await;
        assert_eq!(answer.outcome(), (404, "APIGW.0101"), "{uri}");
        assert!(answer.body["error_msg"].is_string(), "{uri}");
        let content_type = answer.headers["content-type"].to_str().unwrap();
        assert!(content_type.starts_with("application/json"), "{uri}: {content_type}");
    }
}

fn plan() -> Value {
    json!({
        "begin_at": "00:00-01:00",
        "period_type": "weekly",
        "backup_at": [1, 2, 7],
    })
}

#[tokio::test]
async fn an_instance_is_idle_at_once_with_the_policy_that_it_was_created_with() {
    let rig = Rig::new().await;
    for (n, version) in VERSIONS.into_iter().enumerate() {
        let policy = json!({
            "backup_type": "auto",
            "save_days": 3,
            "periodical_backup_plan": plan(),
        });
        let body = json!({
            "name": format!("new-{n}"),
            "instance_backup_policy": policy,
            "cachevault": {"host": ADOPTABLE, "port": 6379},
        });
        let created =
            rig.call("POST", &rig.path(version, "/instances"), &body.to_string()).await.body;
        let id = created["instances"][0]["instance_id"].as_str().unwrap();
        for version in VERSIONS {
            let shown = rig.get(&rig.path(version, &format!("/instances/{id}"))).await;
            assert_eq!((&shown["status"], &shown["task"]), (&json!("RUNNING"), &Value::Null));
            let shown = &shown["instance_backup_policy"]["policy"];
            for field in ["backup_type", "save_days"] {
                assert_eq!(shown[field], policy[field], "{field}");
            }
            for (field, expected) in plan().as_object().unwrap() {
                assert_eq!(shown["periodical_backup_plan"][field], *expected, "{field}");
            }
        }
    }
}

#[tokio::test]
async fn empty_fields_of_the_go_client_count_as_absent() {
    let rig = Rig::new().await;
    for (n, version) in VERSIONS.into_iter().enumerate() {
        let body = json!({
            "name": format!("new-{n}"),
            "engine": "Redis",
            "engine_version": "5.0",
            "capacity": 0.125,
            "no_password_access": "",
            "backup_type": "",
            "available_zones": ["eu-test-01"],
            "spec_code": "redis.ha.xu1.tiny.r2.128",
            "cachevault": {"host": ADOPTABLE, "port": 6379},
        });
        let answer = rig.call("POST", &rig.path(version, "/instances"), &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), 200, "{version}: {}", answer.text);
    }
    let policy = json!({"backup_type": "", "save_days": 1, "periodical_backup_plan": plan()});
    let body = json!({"instance_backup_policy": policy}).to_string();
    let answer = rig.call("PUT", &rig.of_instance("v1.0", ""), &body).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    let shown = rig.get(&rig.of_instance("v1.0", "")).await;
    let shown = &shown["instance_backup_policy"]["policy"]["periodical_backup_plan"];
    for (field, expected) in plan().as_object().unwrap() {
        assert_eq!(shown[field], *expected, "{field}");
    }
}

#[tokio::test]
async fn the_url_of_the_catalog_leads_to_v2_and_to_shared_lists() {
    let rig = Rig::new().await;
    rig.user("jane", "reader").await;
    let user = json!({"name": "jane", "password": PASSWORD});
    let answer = rig.sign_in(user, json!({"project": {"name": REGION}})).await;
    let catalog = answer.body["token"]["catalog"].as_array().unwrap();
    let service = catalog.iter().find(|service| service["type"] == "dcsv1").unwrap();
    let url = service["endpoints"][0]["url"].as_str().unwrap().strip_prefix(HOST).unwrap();
    let v2 = url.replacen("v1.0", "v2", 1);
    assert_ne!(url, v2);
    for uri in [format!("{url}/instances"), format!("{v2}/instances")] {
        let listed = rig.with_token(&answer.token(), "GET", &uri, "").await;
        assert_eq!((listed.status.as_u16(), &listed.body["instance_num"]), (200, &json!(1)));
    }
    let base = url.strip_suffix(&format!("/{}", rig.credential.project)).unwrap();
    for rest in ["/availableZones", "/products", "/instances/maintain-windows"] {
        let uri = format!("{base}{rest}");
        let offered = rig.with_token(&answer.token(), "GET", &uri, "").await;
        assert_eq!(offered.status.as_u16(), 200, "{uri}: {}", offered.text);
    }
}

#[tokio::test]
async fn a_remark_is_listed_as_it_came_whether_raw_or_escaped() {
    for (version, body) in [
        ("v1.0", "{\"remark\":\"夜间\"}"),
        ("v2", "{\"remark\":\"夜间\"}"),
        ("v1.0", r#"{"remark":"\u591c\u95f4"}"#),
        ("v2", "{\"remark\":\"\\u591c\\u95f4\"}\n"),
    ] {
        let rig = Rig::new().await;
        let answer = rig.call("POST", &rig.of_instance(version, "/backups"), body).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        for version in VERSIONS {
            let listed = rig.get(&rig.of_instance(version, "/backups")).await;
            assert_eq!(listed["backup_record_response"][0]["remark"], "夜间", "{version} {body}");
        }
    }
}

#[tokio::test]
async fn the_pages_between_two_moments_add_up_to_the_total() {
    let rig = Rig::new().await;
    for n in 10..35 {
        let id = format!("00000000-0000-4000-8000-{n:012}");
        rig.succeeded(&id, None, [&format!("2019-05-10T08:31:{n}Z"); 3], 5).await;
    }
    let path = rig.of_instance("v2", "/backups");
    let mut found = Vec::new();
    loop {
        let between = "begin_time=20190510083112&end_time=20190510083133";
        let page = rig.get(&format!("{path}?{between}&limit=10&offset={}", found.len())).await;
        assert_eq!(page["total_num"], 22);
        let records = page["backup_record_response"].as_array().unwrap();
        let ids = records.iter().map(|record| record["backup_id"].as_str().unwrap().to_owned());
        let before = found.len();
        found.extend(ids);
        if found.len() == before {
            break;
        }
    }
    let expected: Vec<_> =
        (12..=33).rev().map(|n| format!("00000000-0000-4000-8000-{n:012}")).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn repeated_requests_of_go_clients_get_the_same_answer() {
    let rig = Rig::new().await;
    let named = format!("/v3/projects?name={REGION}");
    for (uri, list) in [
        (named.as_str(), "projects"),
        ("/v3/auth/projects", "projects"),
        ("/v3/auth/domains", "domains"),
        ("/v3/auth/catalog", "catalog"),
    ] {
        let first = rig.get_as_go(uri, &[]).await;
        assert_eq!(first.status.as_u16(), 200, "{uri}: {}", first.text);
        assert!(!first.body[list].as_array().unwrap().is_empty(), "{uri}: {}", first.text);
        let headers = [("x-domain-id", "default")];
        let second = rig.get_as_go(uri, &headers).await;
        assert_eq!((second.status, second.text), (first.status, first.text), "{uri}");
        assert_eq!(rig.get(uri).await, first.body, "{uri}");
    }
}

#[tokio::test]
async fn a_request_beyond_the_timeout_is_the_gateways_504() {
    let rig = Rig::new().await.hurried(Duration::from_millis(50));
    rig.succeeded(BACKUP, None, ["2019-05-10T08:31:16Z"; 3], 5).await;
    // No worker removes the files, so the request waits.
    let path = rig.of_instance("v2", &format!("/backups/{BACKUP}"));
    let answer = rig.call("DELETE", &path, "").await;
    assert_eq!(answer.outcome(), (504, "APIGW.0201"), "{}", answer.text);
    assert!(answer.body["error_msg"].is_string() && answer.body["request_id"].is_string());
}
