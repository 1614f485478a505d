//! The published descriptions: equal to the committed files, valid, and matching the routes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::Request;
use cachevault_api::openapi::{cachevault_v1, dcs_v1_0, dcs_v2};
use serde_json::{Value, json};

use crate::rig::{INSTANCE, Rig};

fn documents() -> [(&'static str, Value); 3] {
    [
        ("dcs-v1.0.json", dcs_v1_0()),
        ("dcs-v2.json", dcs_v2()),
        ("cachevault-v1.json", cachevault_v1()),
    ]
}

/// Every operation: method, path and description.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap();
            item.iter().map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
        })
        .collect()
}

#[test]
fn the_committed_descriptions_match_the_code() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi");
    for (name, document) in documents() {
        let path = folder.join(name);
        let now = serde_json::to_string_pretty(&document).unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == now,
            "docs/openapi/{name} is not what the code says; look at the difference after \
             `UPDATE_OPENAPI=1 cargo test -p cachevault-api openapi` and commit it"
        );
    }
}

/// Every `$ref` of a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), field) {
                    ("$ref", Value::String(target)) => found.push(target),
                    _ => references(field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn descriptions_are_whole() {
    for (name, document) in documents() {
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{name}");
        let mut targets = Vec::new();
        references(&document, &mut targets);
        for target in targets {
            assert!(document.pointer(&target[1..]).is_some(), "{name}: {target} does not exist");
        }
        let mut ids = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let what = format!("{name}: {method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{what}: duplicate id");
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{what}");
            // Absent properties are omitted and never null.
            assert!(operation.as_object().unwrap().values().all(|said| !said.is_null()), "{what}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let part = part.trim_end_matches('}');
                let of_path = |p: &&Value| p["name"] == part && p["in"] == "path";
                let found = parameters.iter().find(of_path);
                assert_eq!(found.map(|p| &p["required"]), Some(&json!(true)), "{what}: {part}");
            }
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status.starts_with('2')), "{what}");
            for (status, answer) in answers {
                let is_bodyless = status == "204";
                assert_eq!(answer.get("content").is_none(), is_bodyless, "{what}: {status}");
                assert!(answer["description"].is_string(), "{what}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn every_operation_is_answered_as_it_is_described() {
    for (name, document) in documents() {
        for (method, path, operation) in operations(&document) {
            // Some operations delete the instance.
            let rig = Rig::new().await;
            let uri = path
                .replace("{project_id}", rig.credential.project.as_str())
                .replace("{instance_id}", INSTANCE)
                .replace("{backup_id}", INSTANCE)
                .replace("{restore_id}", INSTANCE);
            let answer = rig.call(&method.to_uppercase(), &uri, "").await;
            let what = format!("{name}: {method} {path}: {}", answer.text);
            assert_ne!(answer.body["error_code"], "APIGW.0101", "{what}");
            let described = &operation["responses"][answer.status.as_str()];
            assert!(described.is_object(), "{what}");
            if answer.status.is_success() && answer.status != 204 {
                let media = answer.headers["content-type"].to_str().unwrap();
                assert!(described["content"][media].is_object(), "{what}: {media}");
                if media == "application/json" {
                    assert_fits(&document, described, &answer.body, &what);
                }
            }
            // Only the version documents are accessible without authentication.
            let bare = Request::builder().method(method.to_uppercase().as_str()).uri(&uri);
            let bare = rig.send(bare.body(Body::empty()).unwrap()).await;
            let is_open = operation["security"] == json!([{}]);
            assert_eq!(bare.status.as_u16() == 401, !is_open, "{what}");
        }
    }
}

/// Asserts that an answer has only described fields, and all required ones.
#[track_caller]
fn assert_fits(document: &Value, described: &Value, body: &Value, what: &str) {
    let schema = &described["content"]["application/json"]["schema"];
    let (known, required) = fields(document, schema);
    let shown: BTreeSet<String> = body.as_object().unwrap().keys().cloned().collect();
    assert!(shown.is_subset(&known), "{what}: {:?}", shown.difference(&known));
    assert!(required.is_subset(&shown), "{what}: {:?}", required.difference(&shown));
}

fn fields(document: &Value, schema: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return fields(document, document.pointer(&target[1..]).unwrap());
    }
    let mut known: BTreeSet<String> =
        schema["properties"].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
    let names = schema["required"].as_array().into_iter().flatten();
    let mut required: BTreeSet<String> =
        names.map(|name| name.as_str().unwrap().to_owned()).collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (of_part, required_of_part) = fields(document, part);
        known.extend(of_part);
        required.extend(required_of_part);
    }
    (known, required)
}

#[tokio::test]
async fn descriptions_require_no_authentication() {
    let rig = Rig::new().await;
    let get = async |uri: &str| {
        let answer = rig.send(Request::builder().uri(uri).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), 200, "{uri}: {}", answer.text);
        answer
    };
    let page = get("/openapi/").await.text;
    for (name, document) in documents() {
        assert_eq!(get(&format!("/openapi/{name}")).await.body, document);
        assert!(page.contains(&format!("href=\"{name}\"")), "{name}");
    }
    assert!(page.contains("CopyInstance") && page.contains("/v2/{project_id}/instances"));
    for from_elsewhere in ["http://", "https://", "<script"] {
        assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
    }
}
