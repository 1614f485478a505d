//! Every operation of the published descriptions, called without permission.

use axum::body::Body;
use axum::http::Request;
use cachevault_api::openapi::{cachevault_v1, dcs_v1_0, dcs_v2};
use cachevault_app::NewCredential;
use cachevault_domain::ProjectId;
use jiff::SignedDuration;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::links::rdb;
use crate::rig::{Answer, INSTANCE, Rig};

/// An id without an object.
const UNKNOWN: &str = "0e8a1d6c-0000-4000-8000-5b1d1f6a7e55";
const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";

/// An operation of a description.
pub(crate) struct Operation {
    id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Whether the operation requires no authentication.
    is_open: bool,
}

impl Operation {
    pub(crate) fn all() -> Vec<Self> {
        let documents = [dcs_v1_0(), dcs_v2(), cachevault_v1()];
        documents.iter().flat_map(Self::of).collect()
    }

    fn of(document: &Value) -> Vec<Self> {
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            let item = item.as_object().unwrap().iter();
            item.map(move |(method, operation)| (path, method, operation))
        });
        let described = operations.map(|(path, method, operation)| Self {
            id: operation["operationId"].as_str().unwrap().to_owned(),
            method: method.to_uppercase(),
            path: path.clone(),
            is_open: operation["security"] == json!([{}]),
        });
        described.collect()
    }

    fn uri(&self, project: &str, ids: &Ids) -> String {
        self.path
            .replace("{project_id}", project)
            .replace("{instance_id}", ids.instance)
            .replace("{backup_id}", ids.backup)
            .replace("{restore_id}", UNKNOWN)
            .replace("{webhook_id}", ids.webhook)
            .replace("{project}", ids.project)
            .replace("{user}", ids.user)
            .replace("{access_key}", ids.access_key)
            .replace("{policy}", ids.policy)
    }

    fn names_a_thing(&self) -> bool {
        self.path.replace("{project_id}", "").contains('{')
    }

    /// A valid body.
    fn body(&self) -> String {
        let body = match self.id.as_str() {
            "RestoreInstance" | "CreateRestore" | "PlanRestore" => json!({"backup_id": BACKUP}),
            "ListBackupFileLinks" => json!({"expiration": 300}),
            "UpdateInstance" | "ChangeInstance" => json!({"description": "of no use"}),
            "BatchDeleteInstances" => json!({"instances": [INSTANCE]}),
            "BatchCreateOrDeleteTags" => {
                json!({"action": "create", "tags": [{"key": "a", "value": "b"}]})
            }
            "CreateInstance" => {
                json!({"name": "other", "cachevault": {"host": "10.0.0.8", "port": 6379}})
            }
            "SetBackupPolicy" => {
                json!({"schedule": {"pattern": "30 2 * * *"}, "keep": {"count": 3}})
            }
            "AddInstance" => json!({"name": "other", "host": "10.0.0.8", "port": 6379}),
            "CreateProject" | "UpdateProject" | "UpdateUser" => json!({"name": "another"}),
            "CreateUser" => json!({"name": "ada", "password": "correct horse battery"}),
            "SetGrant" | "CreateCredential" => json!({"role": "reader"}),
            "UpdateCredential" => json!({"description": "of no use"}),
            "CreatePolicy" => json!({"name": "some", "actions": ["dcs:*:get*"]}),
            "CreateWebhook" => json!({"url": "https://10.0.0.9/hook"}),
            "ChangeWebhook" => json!({"enabled": false}),
            "UpdatePolicy" => json!({"actions": ["dcs:*:get*"]}),
            "UpdatePassword" => json!({"old_password": "a password", "new_password": "another"}),
            "ChangeOwnPassword" => json!({"current": "a password", "new": "another password"}),
            _ => return String::new(),
        };
        body.to_string()
    }
}

/// The values of path parameters.
struct Ids<'a> {
    instance: &'a str,
    backup: &'a str,
    project: &'a str,
    user: &'a str,
    access_key: &'a str,
    policy: &'a str,
    webhook: &'a str,
}

const UNKNOWN_IDS: Ids<'static> = Ids {
    instance: UNKNOWN,
    backup: UNKNOWN,
    project: "nowhere",
    user: "nobody",
    access_key: "UNKNOWNKEY",
    policy: "nothing",
    webhook: UNKNOWN,
};

/// A project with one object of each kind, and a second project with an administrator.
struct Walk {
    rig: Rig,
    first_key: String,
    webhook: String,
    stranger: NewCredential,
}

impl Walk {
    async fn new() -> Self {
        let rig = Rig::new().await;
        rig.stored(BACKUP, &rdb(1000)).await;
        rig.user("bob", "admin").await;
        let nobody = json!({"name": "powerless", "actions": []}).to_string();
        rig.call("POST", "/api/v1/policies", &nobody).await;
        let hook = r#"{"url": "https://10.0.0.9/hook"}"#;
        let webhook = rig.call("POST", "/api/v1/webhooks", hook).await;
        let webhook = webhook.body["id"].as_str().unwrap().to_owned();
        rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
        let stranger = rig.key(json!({"project": "second", "role": "admin"})).await;
        let first_key = rig.credential.access_key.to_string();
        Self { rig, first_key, webhook, stranger }
    }

    fn ids(&self) -> Ids<'_> {
        Ids {
            instance: INSTANCE,
            backup: BACKUP,
            project: self.rig.credential.project.as_str(),
            user: "bob",
            access_key: &self.first_key,
            policy: "powerless",
            webhook: &self.webhook,
        }
    }

    fn own_uri(&self, operation: &Operation) -> String {
        operation.uri(self.rig.credential.project.as_str(), &self.ids())
    }

    async fn ask(&self, who: &NewCredential, operation: &Operation, uri: &str) -> Answer {
        self.rig.call_as(who, &operation.method, uri, &operation.body()).await
    }
}

fn message(answer: &Answer) -> String {
    let message = answer.body["error_msg"].as_str().unwrap_or_default();
    message.trim_start_matches("Incorrect IAM authentication information: ").to_owned()
}

#[tokio::test]
async fn every_operation_requires_authentication() {
    let walk = Walk::new().await;
    let rig = &walk.rig;
    let forged = NewCredential {
        secret_key: SecretString::from("another".to_owned()),
        ..rig.credential.clone()
    };
    let unknown =
        NewCredential { access_key: "UNKNOWNKEY".parse().unwrap(), ..rig.credential.clone() };
    for operation in Operation::all() {
        let (uri, body) = (walk.own_uri(&operation), operation.body());
        let (method, what) = (operation.method.as_str(), format!("{} {uri}", operation.method));
        let bare = Request::builder().method(method).uri(&uri).body(Body::from(body.clone()));
        let bare = rig.send(bare.unwrap()).await;
        if operation.is_open {
            assert!(bare.status.as_u16() < 400, "{what}: {}", bare.text);
            continue;
        }
        let old = rig.signed(&rig.credential, method, &uri, &body);
        // Five consecutive failures would also lock the key.
        rig.clock.advance(SignedDuration::from_mins(16));
        let answers = [
            (bare, "x-auth-token not found"),
            (walk.ask(&forged, &operation, &uri).await, "verify aksk signature fail"),
            (walk.ask(&unknown, &operation, &uri).await, "Get secretKey failed"),
            (rig.send(old).await, "calc ak sk signature fail:signature expired"),
        ];
        for (answer, reason) in answers {
            assert_eq!(answer.outcome(), (401, "APIGW.0301"), "{what}: {}", answer.text);
            assert!(message(&answer).starts_with(reason), "{what}: {}", answer.text);
            let request = answer.headers["x-request-id"].to_str().unwrap();
            assert_eq!(answer.body["request_id"], request, "{what}");
        }
    }
}

#[tokio::test]
async fn every_operation_requires_its_permission() {
    for operation in Operation::all().iter().filter(|operation| !operation.is_open) {
        let walk = Walk::new().await;
        let powerless = walk.rig.key(json!({"role": "powerless"})).await;
        let uri = walk.own_uri(operation);
        let answer = walk.ask(&powerless, operation, &uri).await;
        let what = format!("{} {uri}: {}", operation.method, answer.text);
        assert_eq!(answer.status, 403, "{what}");
    }
}

/// Masks the ids in an answer.
fn told(answer: &Answer, ids: &[&str]) -> (u16, String) {
    let mut text = answer.text.clone();
    let request = answer.headers["x-request-id"].to_str().unwrap();
    for id in ids.iter().chain([&request]) {
        text = text.replace(id, "…");
    }
    (answer.status.as_u16(), text)
}

#[tokio::test]
async fn objects_of_another_project_are_undetectable() {
    for operation in Operation::all().iter().filter(|operation| !operation.is_open) {
        let walk = Walk::new().await;
        let (ids, own) = (walk.ids(), walk.stranger.project.as_str());
        let first = walk.rig.credential.project.as_str();
        let theirs = walk.ask(&walk.stranger, operation, &operation.uri(own, &ids)).await;
        let nobodys = walk.ask(&walk.stranger, operation, &operation.uri(own, &UNKNOWN_IDS)).await;
        let what = format!("{} {}: {}", operation.method, operation.path, theirs.text);
        if operation.names_a_thing() {
            assert!(theirs.status.is_client_error(), "{what}");
            let known = [ids.instance, ids.backup, ids.user, ids.access_key, ids.policy, first];
            let known = [&known[..], &[ids.webhook]].concat();
            assert_eq!(told(&theirs, &known), told(&nobodys, &known), "{what}");
        }
        if operation.path.contains("{project_id}") {
            let nowhere: ProjectId = "0123456789abcdef0123456789abcdef".parse().unwrap();
            let theirs = walk.ask(&walk.stranger, operation, &operation.uri(first, &ids)).await;
            let uri = operation.uri(nowhere.as_str(), &UNKNOWN_IDS);
            let nowhere = walk.ask(&walk.stranger, operation, &uri).await;
            assert!(matches!(theirs.outcome().1, "DCS.1004" | "111401004"), "{what}");
            assert_eq!(told(&theirs, &[]), told(&nowhere, &[]), "{what}");
        }
    }
}

#[tokio::test]
async fn an_invalid_instance_id_has_its_error() {
    let walk = Walk::new().await;
    let project = walk.rig.credential.project.as_str();
    let of_instance = |operation: &&Operation| operation.path.contains("{project_id}");
    for operation in Operation::all().iter().filter(of_instance) {
        if !operation.path.contains("{instance_id}") {
            continue;
        }
        for id in [
            "orders",
            "5560df16cebf447395c4d1b573c16e79",
            "%00",
            "5560df16-cebf-4473-95c4-d1b573c16e7g",
        ] {
            let uri = operation.uri(project, &Ids { instance: id, ..walk.ids() });
            let answer = walk.ask(&walk.rig.credential, operation, &uri).await;
            let code = if uri.starts_with("/v1.0") { "111400061" } else { "DCS.4061" };
            assert_eq!(answer.outcome(), (400, code), "{} {uri}", operation.method);
        }
    }
}
