//! Two projects on one service: neither can detect the objects of the other.

use cachevault_app::NewCredential;
use cachevault_catalog::{JobQueue, RestoreCatalog};
use cachevault_domain::{
    Clock, ContentState, JobId, JobKind, NewRestore, NodeId, RestoreOptions, ShrinkRule,
    StoredFiles,
};
use cachevault_testkit::SeededEntropy;
use serde_json::{Value, json};

use crate::links::rdb;
use crate::rig::{ADOPTABLE, Answer, INSTANCE, PASSWORD, Rig};
use crate::walk::Operation;

/// An id without an object.
const UNKNOWN: &str = "0e8a1d6c-0000-4000-8000-5b1d1f6a7e55";
const UNKNOWN_REQUEST: &str = "0123456789abcdef0123456789abcdef";
const BACKUP: &str = "4631832a-14c6-45b0-a0b3-3abd8f591ad1";
const ANOTHER_BACKUP: &str = "8ba256cb-e5ac-44f6-a3da-c03d8f0e5029";
const RESTORE: &str = "6c1f1c56-29d4-4b4b-a7b1-0d2c2f0b9e11";
/// The fixed time of the rig.
const NOW: &str = "2019-05-10T08:40:00Z";

/// A project with an instance "orders" and an administrator, next to a second project.
struct Neighbours {
    rig: Rig,
    own: NewCredential,
    their: NewCredential,
}

/// The objects of the other project.
struct Theirs {
    instance: String,
    backup: String,
    restore: String,
    request: String,
}

impl Neighbours {
    async fn new() -> Self {
        let rig = Rig::new().await;
        rig.stored(BACKUP, &rdb(1000)).await;
        rig.succeeded(ANOTHER_BACKUP, Some("nightly"), [NOW; 3], 5).await;
        rig.call("POST", "/api/v1/projects", r#"{"name": "second"}"#).await;
        let own = rig.key(json!({"role": "admin"})).await;
        let their = rig.key(json!({"project": "second", "role": "admin"})).await;
        let neighbours = Self { rig, own, their };
        neighbours.restored(&neighbours.own, INSTANCE, BACKUP, RESTORE).await;
        neighbours.tagged(&neighbours.own, INSTANCE, "ours").await;
        neighbours
    }

    /// Creates one object of each kind in the other project, with the same names.
    async fn populated(&self) -> Theirs {
        let (instance, request) = self.adopted_by(&self.their, "orders").await;
        self.tagged(&self.their, &instance, "theirs").await;
        let uri = format!("/v2/{}/instances/{instance}/backups", self.their.project);
        let answer = self.rig.call_as(&self.their, "POST", &uri, r#"{"remark":"nightly"}"#).await;
        let backup = text(&answer, "backup_id");
        let (now, node) = (self.rig.clock.now(), NodeId::mint(&SeededEntropy::new(1)));
        let catalog = &self.rig.catalog;
        let lease = catalog.claim_job(JobKind::Capture, node, now, now).await.unwrap().unwrap();
        assert_eq!(lease.backup.to_string(), backup);
        catalog.start_backup(&lease, now).await.unwrap();
        let content = ContentState::Verified;
        let files =
            StoredFiles { attempt: 1, size_bytes: 5, content, opaque_because: None, keys: None };
        catalog.finish_backup(&lease, &files, ShrinkRule::default(), now).await.unwrap();
        let restore = "b7b5d1c2-9a0e-4a55-8d6e-1f3a0c9d7e22".to_owned();
        self.restored(&self.their, &instance, &backup, &restore).await;
        for (uri, body) in [
            ("/api/v1/policies", json!({"name": "listing", "actions": ["dcs:*:get*"]})),
            ("/api/v1/credentials", json!({"role": "reader"})),
        ] {
            let answer = self.rig.call_as(&self.their, "POST", uri, &body.to_string()).await;
            assert_eq!(answer.status.as_u16(), 201, "{uri}: {}", answer.text);
        }
        Theirs { instance, backup, restore, request }
    }

    /// Registers an instance and returns its id and that of the request.
    async fn adopted_by(&self, who: &NewCredential, name: &str) -> (String, String) {
        let body = json!({"name": name, "cachevault": {"host": ADOPTABLE, "port": 6379}});
        let uri = format!("/v1.0/{}/instances", who.project);
        let answer = self.rig.call_as(who, "POST", &uri, &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        (text(&answer, "instance_id"), answer.headers["x-request-id"].to_str().unwrap().to_owned())
    }

    async fn tagged(&self, who: &NewCredential, instance: &str, value: &str) {
        let uri = format!("/v2/{}/dcs/{instance}/tags/action", who.project);
        let body = json!({"action": "create", "tags": [{"key": "owner", "value": value}]});
        let answer = self.rig.call_as(who, "POST", &uri, &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
    }

    /// A requested restore.
    async fn restored(&self, who: &NewCredential, instance: &str, backup: &str, id: &str) {
        let seed = id.bytes().map(u64::from).sum();
        let restore = NewRestore {
            id: id.parse().unwrap(),
            job: JobId::mint(&SeededEntropy::new(seed)),
            project: who.project.clone(),
            instance: instance.parse().unwrap(),
            backup: backup.parse().unwrap(),
            options: RestoreOptions::default(),
            note: None,
            created_at: self.rig.clock.now(),
        };
        self.rig.catalog.request_restore(&restore).await.unwrap();
    }

    async fn ask(&self, method: &str, uri: &str, body: &str) -> Answer {
        self.rig.call_as(&self.own, method, uri, body).await
    }

    /// The location of the caller's backup, which differs between rigs.
    fn location(&self) -> String {
        self.rig.app.store.locate(&self.rig.artifact(BACKUP.parse().unwrap()))
    }

    fn path(&self, version: &str, rest: &str) -> String {
        format!("/{version}/{}{rest}", self.own.project)
    }
}

fn text(answer: &Answer, name: &str) -> String {
    let value = answer.body[name].as_str();
    value.unwrap_or_else(|| panic!("{name}: {}", answer.text)).to_owned()
}

/// Masks the ids in an answer.
fn told(answer: &Answer, ids: &[&str]) -> (u16, String) {
    let request = answer.headers["x-request-id"].to_str().unwrap();
    let told = |text: String, id: &&str| text.replace(id, "…");
    (answer.status.as_u16(), ids.iter().chain([&request]).fold(answer.text.clone(), told))
}

/// Every described GET, for the caller's own objects.
fn own_gets(own: &NewCredential) -> Vec<String> {
    let operations = Operation::all().into_iter().filter(|operation| operation.method == "GET");
    let uris = operations.map(|operation| {
        operation
            .path
            .replace("{project_id}", own.project.as_str())
            .replace("{instance_id}", INSTANCE)
            .replace("{backup_id}", BACKUP)
            .replace("{restore_id}", RESTORE)
            .replace("{project}", own.project.as_str())
            .replace("{user}", "nobody")
            .replace("{access_key}", own.access_key.as_str())
            .replace("{policy}", "listing")
    });
    uris.collect()
}

#[tokio::test]
async fn two_projects_with_the_same_names_cannot_detect_each_other() {
    let (beside_some, beside_none) = (Neighbours::new().await, Neighbours::new().await);
    let theirs = beside_some.populated().await;
    let gets = own_gets(&beside_some.own);
    assert_eq!(gets, own_gets(&beside_none.own));
    let queries = [
        String::new(),
        "?limit=1000".to_owned(),
        "?name=orders".to_owned(),
        "?name=second".to_owned(),
        "?status=RUNNING".to_owned(),
        "?tags=owner=theirs".to_owned(),
        format!("?instance_id={}", theirs.instance),
        format!("?id={}", theirs.instance),
        format!("?marker={}", theirs.instance),
        format!("?marker={}", theirs.backup),
        format!("?marker={}", theirs.restore),
        format!("?marker={}", theirs.request),
        format!("?project={}", beside_some.their.project),
        "?project=second".to_owned(),
    ];
    let mut shown = 0;
    for (get, query) in gets.iter().flat_map(|get| queries.iter().map(move |query| (get, query))) {
        let uri = format!("{get}{query}");
        let some = beside_some.ask("GET", &uri, "").await;
        let none = beside_none.ask("GET", &uri, "").await;
        let (location, other) = (beside_some.location(), beside_none.location());
        assert_eq!(told(&some, &[&location]), told(&none, &[&other]), "{uri}");
        assert!(some.status.as_u16() < 500, "{uri}: {}", some.text);
        let asked_for = query.as_str();
        for id in [&theirs.instance, &theirs.backup, &theirs.restore, &theirs.request] {
            assert!(asked_for.contains(id) || !some.text.contains(id), "{uri}: {}", some.text);
        }
        shown += usize::from(some.status.as_u16() == 200);
    }
    assert!(shown > 2 * gets.len(), "{shown} of {} reads found an object", gets.len());
}

#[tokio::test]
async fn a_name_is_taken_only_in_its_own_project() {
    let neighbours = Neighbours::new().await;
    neighbours.adopted_by(&neighbours.their, "orders").await;
    neighbours.adopted_by(&neighbours.their, "carts").await;
    for version in ["v1.0", "v2"] {
        let uri = neighbours.path(version, &format!("/instances/{INSTANCE}"));
        for name in ["carts", "orders"] {
            let body = json!({"name": name}).to_string();
            let answer = neighbours.ask("PUT", &uri, &body).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{name}");
        }
    }
    neighbours.adopted_by(&neighbours.own, "carts").await;
}

#[tokio::test]
async fn objects_of_another_project_are_refused_like_unknown_ones() {
    let neighbours = Neighbours::new().await;
    let theirs = neighbours.populated().await;
    let v1 = |rest: &str| neighbours.path("v1.0", rest);
    let v2 = |rest: &str| neighbours.path("v2", rest);
    let own = format!("/instances/{INSTANCE}");
    let (restores, plan) =
        (format!("/api/v1{own}/restores"), format!("/api/v1{own}/restores/plan"));
    let backup = (theirs.backup.as_str(), UNKNOWN);
    let instance = (theirs.instance.as_str(), UNKNOWN);
    let request = (theirs.request.as_str(), UNKNOWN_REQUEST);
    let restored = (theirs.restore.as_str(), UNKNOWN);
    let restore = r#"{"backup_id":"ID"}"#;
    let expiration = r#"{"expiration":300}"#;
    let refusals = [
        ("POST", v1(&format!("{own}/restores")), restore, backup, (400, "111400063")),
        ("POST", v2(&format!("{own}/restores")), restore, backup, (400, "DCS.4063")),
        ("POST", restores, restore, backup, (404, "backup_not_found")),
        ("POST", plan, restore, backup, (404, "backup_not_found")),
        ("DELETE", v1(&format!("{own}/backups/ID")), "", backup, (400, "111400031")),
        ("DELETE", v2(&format!("{own}/backups/ID")), "", backup, (400, "DCS.4031")),
        ("POST", v1(&format!("{own}/backups/ID/links")), expiration, backup, (400, "111400031")),
        ("POST", v2(&format!("{own}/backups/ID/links")), expiration, backup, (400, "DCS.4031")),
        ("DELETE", v1("/instances"), r#"{"instances":["ID"]}"#, instance, (200, "")),
        ("DELETE", v2("/instances"), r#"{"instances":["ID"]}"#, instance, (200, "")),
        ("GET", "/api/v1/restores/ID".to_owned(), "", restored, (404, "restore_not_found")),
        ("GET", "/api/v1/audit?marker=ID".to_owned(), "", request, (400, "marker_not_found")),
    ];
    for (method, uri, body, (theirs, nobodys), expected) in refusals {
        let ask = async |id| {
            neighbours.ask(method, &uri.replace("ID", id), &body.replace("ID", id)).await
        };
        let (of_theirs, of_nobodys) = (ask(theirs).await, ask(nobodys).await);
        let what = format!("{method} {uri}: {}", of_theirs.text);
        assert_eq!(of_theirs.outcome(), expected, "{what}");
        assert_eq!(told(&of_theirs, &[theirs]), told(&of_nobodys, &[nobodys]), "{what}");
        if let Some(results) = of_theirs.body["results"].as_array() {
            assert_eq!(results[..], [json!({"instance": theirs, "result": "failed"})], "{what}");
        }
    }
    // The objects of the other project are unchanged.
    let uri = format!("/v2/{}/instances/{}/backups", neighbours.their.project, theirs.instance);
    let listed = neighbours.rig.call_as(&neighbours.their, "GET", &uri, "").await.body;
    let record = &listed["backup_record_response"][0];
    assert_eq!(
        (&record["backup_id"], &record["status"], &record["is_support_restore"]),
        (&json!(theirs.backup), &json!("succeed"), &json!("TRUE"))
    );
}

#[tokio::test]
async fn lists_and_statistics_of_a_new_project_are_empty() {
    let neighbours = Neighbours::new().await;
    let their = &neighbours.their;
    let get = async |rest: &str| {
        let answer = neighbours.rig.call_as(their, "GET", rest, "").await;
        assert_eq!(answer.status.as_u16(), 200, "{rest}: {}", answer.text);
        answer.body
    };
    for version in ["v1.0", "v2"] {
        let base = format!("/{version}/{}", their.project);
        let none = json!({"instance_num": 0, "instances": []});
        for query in ["", &format!("?instance_id={INSTANCE}"), "?name=orders", "?tags=owner=ours"] {
            assert_eq!(get(&format!("{base}/instances{query}")).await, none, "{query}");
        }
        let quota = get(&format!("{base}/quota")).await;
        for resource in quota["quotas"]["resources"].as_array().unwrap() {
            assert_eq!(resource["used"], 0, "{resource}");
        }
        let statistic = get(&format!("{base}/instances/statistic")).await;
        assert_eq!(statistic["statistics"], json!([]));
        let counts = get(&format!("{base}/instances/status")).await;
        let all_none = |counts: &Value| {
            let numbers = counts.as_object().unwrap().values().filter_map(Value::as_u64);
            numbers.sum::<u64>() == 0
        };
        assert!(all_none(&counts) && all_none(&counts["redis"]), "{counts}");
    }
    let tags = get(&format!("/v2/{}/dcs/tags", their.project)).await;
    assert_eq!(tags, json!({"tags": []}));
}

#[tokio::test]
async fn no_list_names_another_project_or_its_users() {
    let neighbours = Neighbours::new().await;
    let rig = &neighbours.rig;
    let body = json!({"name": "evelyn", "password": PASSWORD}).to_string();
    let user = text(&rig.call("POST", "/api/v1/users", &body).await, "id");
    let grant = "/api/v1/users/evelyn/grants/second";
    assert_eq!(rig.call("PUT", grant, r#"{"role":"admin"}"#).await.status.as_u16(), 200);
    let theirs = [user.as_str(), "evelyn", neighbours.their.project.as_str(), "second"];
    let gets = own_gets(&neighbours.own).into_iter();
    for uri in gets.chain(["/v3/projects", "/v3/auth/projects", "/v3/auth/catalog"].map(Into::into))
    {
        let answer = neighbours.ask("GET", &uri, "").await;
        for name in theirs {
            assert!(!answer.text.contains(name), "{uri} {name}: {}", answer.text);
        }
    }
}
