use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use cachevault_api::signing::{SignedRequest, sign};
use cachevault_api::{
    Api, Downloads, EventStreamLimits, EventStreams, HttpFigures, LargeBodies, ProxyHeader,
    Refusals, TrustedProxies, metrics_router, router,
};
use cachevault_app::{
    App, DiskReserve, ForeignTokens, Logins, MasterKey, NewCredential, NotDelivered, Prober,
    Sealer, TokenAuthority, WebhookMessage, WebhookRules, WebhookSender, Webhooks,
};
use cachevault_catalog::{BackupCatalog, InstanceCatalog, JobQueue};
use cachevault_catalog_sqlite::SqliteCatalog;
use cachevault_domain::{
    Address, BackupFormat, BackupId, Clock, ContentState, EngineKind, Health, HostRules, Instance,
    InstanceId, InstanceSettings, JobId, JobKind, Lease, Loading, NewBackup, NodeId, Observation,
    ProbeError, RdbDialect, RestoreOptions, RestorePlan, RestoreWay, Role, SealedConnection,
    ServerVersion, ShrinkRule, StoredFiles, Target, Trigger,
};
use cachevault_jobs::EngineOpener;
use cachevault_store::{
    ArtifactEntry, ArtifactKey, BackupKey, ContentEntry, Encoding, FolderStore, MANIFEST_VERSION,
    Manifest, RdbEntry, SourceEntry,
};
use cachevault_testkit::{MovedClock, SeededEntropy};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use prometheus_client::registry::Registry;
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) const DOWNLOADS_MAX: usize = 2;
pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const REGION: &str = "eu-test";
pub(crate) const INSTANCE: &str = "5560df16-cebf-4473-95c4-d1b573c16e79";

/// The address of the only trusted proxy.
pub(crate) const PROXY: &str = "10.9.9.9";

/// The time of creation of stored backups.
const STORED_AT: &str = "2019-05-10T08:31:16.166Z";

/// A host where the prober finds a server.
pub(crate) const ADOPTABLE: &str = "adoptable.test";

/// Another host where the prober finds a server; its version is newer than this build supports.
pub(crate) const NEWER: &str = "newer.test";

/// The reason why the content of opaque backups is not verified.
pub(crate) const OPAQUE: &str = "type 34 is unknown";

/// Refuses all hosts except two. Tests with real servers cover registration elsewhere.
#[derive(Debug)]
struct Unreachable;

#[async_trait]
impl Prober for Unreachable {
    async fn probe(&self, target: &Target) -> Result<Observation, ProbeError> {
        self.look(target).await
    }

    async fn look(&self, target: &Target) -> Result<Observation, ProbeError> {
        let newer = ServerVersion { major: 9, minor: 0, patch: 0 };
        match target.address.host.as_str() {
            ADOPTABLE => Ok(observation()),
            NEWER => Ok(Observation { version: newer, ..observation() }),
            _ => Err(ProbeError::Refused { address: target.address.clone() }),
        }
    }

    async fn plan(
        &self,
        target: &Target,
        entry: &ArtifactEntry,
        options: &RestoreOptions,
    ) -> Result<RestorePlan, String> {
        let observed = self.look(target).await.map_err(|_| "unreachable".to_owned())?;
        Ok(RestorePlan {
            way: RestoreWay::Replica,
            because: "it is the fastest".to_owned(),
            loading: Loading::Swap,
            header: entry.rdb.header.clone(),
            engine: observed.engine,
            version: observed.version,
            keys: None,
            replaced_keys: observed.keys,
            needed_bytes: 0,
            prove: options.prove.unwrap_or(true),
            unprovable: options.unverified.then(|| OPAQUE.to_owned()),
            blockers: Vec::new(),
            notes: Vec::new(),
        })
    }
}

/// Fails every delivery. Tests with real receivers cover webhooks elsewhere.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl WebhookSender for Nobody {
    async fn send(&self, _: &WebhookMessage) -> Result<(), NotDelivered> {
        Err(NotDelivered::because("no receiver"))
    }
}

fn observation() -> Observation {
    Observation {
        engine: EngineKind::Redis,
        version: ServerVersion { major: 7, minor: 0, patch: 15 },
        role: Role::Primary,
        replicas_online: 1,
        used_memory_bytes: 64 << 20,
        max_memory_bytes: 128 << 20,
        system_memory_bytes: 8 << 30,
        keys: 1000,
        databases_used: 2,
    }
}

pub(crate) struct Rig {
    pub(crate) credential: NewCredential,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) catalog: Arc<SqliteCatalog>,
    pub(crate) app: App,
    pub(crate) router: Router,
    metrics: Router,
    _folder: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

/// Longer than any request of a test.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// The timeout of requests that open streams; shorter than the streams' lifetime.
const STREAMING_REQUEST_MAX: Duration = Duration::from_secs(2);
/// Streams end soon, so that a test can read any answer to its end.
const SHORT_STREAM: Duration = Duration::from_millis(50);

fn routes(
    app: App,
    downloads: Downloads,
    public_url: Option<&str>,
    request_time_max: Duration,
) -> Router {
    let streams = EventStreamLimits::new(8, SHORT_STREAM);
    let stop = CancellationToken::new();
    streaming_routes(app, downloads, public_url, request_time_max, (streams, stop))
}

fn streaming_routes(
    app: App,
    downloads: Downloads,
    public_url: Option<&str>,
    request_time_max: Duration,
    (streams, stop): (EventStreamLimits, CancellationToken),
) -> Router {
    router(Api {
        app,
        request_time_max,
        readiness: Arc::default(),
        public_url: public_url.map(str::to_owned),
        scheme: "http",
        address: ([127, 0, 0, 1], 8635).into(),
        downloads,
        region: REGION.to_owned(),
        throttle: Arc::default(),
        refusals: Refusals::default(),
        figures: HttpFigures::default(),
        events: EventStreams::new(streams, stop),
        large_bodies: LargeBodies::default(),
        proxies: Arc::new(TrustedProxies {
            networks: vec![PROXY.parse().unwrap()],
            header: ProxyHeader::default(),
        }),
    })
}

impl Rig {
    /// The same service with tokens of an external Keystone.
    pub(crate) fn trusting(mut self, authority: Arc<dyn TokenAuthority>) -> Self {
        self.app.foreign_tokens = Some(ForeignTokens::new(authority));
        let downloads = Downloads::new(DOWNLOADS_MAX, Duration::from_secs(30));
        self.router = routes(self.app.clone(), downloads, None, REQUEST_TIME_MAX);
        self
    }

    /// The same service with this request timeout.
    pub(crate) fn hurried(mut self, request_time_max: Duration) -> Self {
        let downloads = Downloads::new(DOWNLOADS_MAX, Duration::from_secs(30));
        self.router = routes(self.app.clone(), downloads, None, request_time_max);
        self
    }

    /// The same service with these limits of event streams. Streams end with `stop`; requests time
    /// out before streams do.
    pub(crate) fn streaming(mut self, limits: EventStreamLimits, stop: CancellationToken) -> Self {
        let downloads = Downloads::new(DOWNLOADS_MAX, Duration::from_secs(30));
        self.router = streaming_routes(
            self.app.clone(),
            downloads,
            None,
            STREAMING_REQUEST_MAX,
            (limits, stop),
        );
        self
    }

    /// The same service refusing backups of single nodes; the instance has lost its replica.
    pub(crate) async fn refusing_single_nodes(mut self) -> Self {
        let lonely = Observation { replicas_online: 0, ..observation() };
        let instance = INSTANCE.parse().unwrap();
        self.catalog.record_look(instance, Ok(&lonely), self.clock.now()).await.unwrap();
        self.app.single_node_backups = false;
        self.hurried(REQUEST_TIME_MAX)
    }

    /// Rebuilds the router after a change of the app.
    pub(crate) fn reroute(&mut self) {
        let downloads = Downloads::new(DOWNLOADS_MAX, Duration::from_secs(30));
        self.router = routes(self.app.clone(), downloads, None, REQUEST_TIME_MAX);
    }

    /// Records a probe of the instance now.
    pub(crate) async fn looked_at(&self) {
        let now = self.clock.now();
        self.catalog.record_look(self.instance(), Ok(&observation()), now).await.unwrap();
    }

    /// A service with one project and one instance, which has the id of the documents.
    pub(crate) async fn new() -> Self {
        Self::with(Downloads::new(DOWNLOADS_MAX, Duration::from_secs(30)), None).await
    }

    pub(crate) async fn with(downloads: Downloads, public_url: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(MovedClock::at("2019-05-10T08:40:00Z"));
        let entropy = Arc::new(SeededEntropy::new(7));
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let catalog = Arc::new(catalog);
        let app = App {
            catalog: catalog.clone(),
            store: Arc::new(FolderStore::open(folder.path().join("backups")).unwrap()),
            disk: DiskReserve::default(),
            prober: Arc::new(Unreachable),
            opener: Arc::new(EngineOpener),
            sealer: Arc::new(Sealer::new(&MasterKey::mint(&*entropy), entropy.clone())),
            clock: clock.clone(),
            entropy,
            logins: Logins::default(),
            foreign_tokens: None,
            webhooks: Webhooks::new(Arc::new(Nobody), WebhookRules::default()),
            instance_hosts: HostRules::default(),
            history: SignedDuration::from_hours(24 * 7),
            single_node_backups: true,
        };
        let credential = NewCredential::mint(&app);
        app.create_first_project(&credential, &REGION.parse().unwrap()).await.unwrap();
        let metrics = metrics_router(app.clone(), Registry::default());
        let router = routes(app.clone(), downloads, public_url, REQUEST_TIME_MAX);
        let rig = Self { credential, clock, catalog, app, router, metrics, _folder: folder };
        rig.adopt(INSTANCE, "orders").await;
        rig
    }

    pub(crate) async fn adopt(&self, id: &str, name: &str) {
        let address = Address { host: "10.0.0.7".into(), port: 6379 };
        let instance = Instance {
            id: id.parse().unwrap(),
            project: self.credential.project.clone(),
            name: name.parse().unwrap(),
            connection: SealedConnection {
                address,
                username: None,
                password: None,
                tls: false,
                tls_ca_pem: None,
                tls_certificate_pem: None,
                tls_key_pem: None,
            },
            observation: observation(),
            observed_at: self.clock.now(),
            health: Health::Reachable,
            created_at: self.clock.now(),
            changed_at: self.clock.now(),
            operation: None,
            proven: None,
            settings: InstanceSettings::default(),
        };
        self.catalog.add_instance(&instance).await.unwrap();
    }

    pub(crate) fn instance(&self) -> InstanceId {
        INSTANCE.parse().unwrap()
    }

    /// `/{version}/{project}{rest}`.
    pub(crate) fn path(&self, version: &str, rest: &str) -> String {
        format!("/{version}/{}{rest}", self.credential.project)
    }

    /// A requested backup whose job is leased.
    pub(crate) async fn claimed(&self, id: &str, note: Option<&str>, at: &str) -> Lease {
        let at: Timestamp = at.parse().unwrap();
        let backup = NewBackup {
            id: id.parse().unwrap(),
            job: JobId::mint(&SeededEntropy::new(at.as_millisecond() as u64)),
            project: self.credential.project.clone(),
            instance: self.instance(),
            trigger: Trigger::Manual,
            format: BackupFormat::Rdb,
            dialect: RdbDialect::Native,
            note: note.map(|note| note.parse().unwrap()),
            created_at: at,
        };
        self.catalog.request_backup(&backup).await.unwrap();
        let node = NodeId::mint(&SeededEntropy::new(1));
        let until = at.checked_add(SignedDuration::from_secs(30)).unwrap();
        self.catalog.claim_job(JobKind::Capture, node, at, until).await.unwrap().unwrap()
    }

    /// A succeeded backup.
    pub(crate) async fn succeeded(
        &self,
        id: &str,
        note: Option<&str>,
        at: [&str; 3],
        size_bytes: u64,
    ) -> BackupId {
        let content = ContentState::Verified;
        let files =
            StoredFiles { attempt: 1, size_bytes, content, opaque_because: None, keys: None };
        self.succeeded_with(id, note, at, files).await
    }

    async fn succeeded_with(
        &self,
        id: &str,
        note: Option<&str>,
        at: [&str; 3],
        files: StoredFiles,
    ) -> BackupId {
        let lease = self.claimed(id, note, at[0]).await;
        self.catalog.start_backup(&lease, at[1].parse().unwrap()).await.unwrap();
        self.catalog
            .finish_backup(&lease, &files, ShrinkRule::default(), at[2].parse().unwrap())
            .await
            .unwrap();
        lease.backup
    }

    /// A succeeded backup with `rdb` in the store, as after a capture.
    pub(crate) async fn stored(&self, id: &str, rdb: &[u8]) -> BackupId {
        self.stored_from(id, rdb, "10.0.0.7:6379").await
    }

    pub(crate) async fn stored_from(&self, id: &str, rdb: &[u8], address: &str) -> BackupId {
        let manifest = self.with_artifact(id, rdb, address).await;
        let backup = id.parse().unwrap();
        self.app.store.commit(&self.artifact(backup).attempt, &manifest).await.unwrap();
        self.succeeded(id, None, [STORED_AT; 3], rdb.len() as u64).await
    }

    /// A succeeded backup in an unknown format.
    pub(crate) async fn opaque(&self, id: &str, rdb: &[u8]) -> BackupId {
        self.opaque_in_store(id, rdb).await;
        let opaque_because = Some(OPAQUE.to_owned());
        let (size_bytes, content) = (rdb.len() as u64, ContentState::Opaque);
        let files = StoredFiles { attempt: 1, size_bytes, content, opaque_because, keys: None };
        self.succeeded_with(id, None, [STORED_AT; 3], files).await
    }

    /// The files of an opaque backup without a record.
    pub(crate) async fn opaque_in_store(&self, id: &str, rdb: &[u8]) {
        let mut manifest = self.with_artifact(id, rdb, "10.0.0.7:6379").await;
        manifest.artifacts[0].rdb.content = Some(ContentEntry::Opaque {
            warning: "opaque: not verified".into(),
            offset: 9,
            reason: OPAQUE.into(),
        });
        let attempt = self.artifact(id.parse().unwrap()).attempt;
        self.app.store.commit(&attempt, &manifest).await.unwrap();
    }

    /// Registers an instance at this host over the API and returns the answer.
    pub(crate) async fn added(&self, name: &str, host: &str) -> Value {
        let body = serde_json::json!({"name": name, "host": host, "port": 6379}).to_string();
        let answer = self.call("POST", "/api/v1/instances", &body).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
        answer.body
    }

    /// A backup from the store that a policy keeps until then.
    pub(crate) async fn promised(&self, id: &str, rdb: &[u8], until: &str) -> BackupId {
        let manifest = Manifest {
            trigger: "auto".into(),
            keep_until: Some(until.parse().unwrap()),
            ..self.with_artifact(id, rdb, "10.0.0.7:6379").await
        };
        let backup = id.parse().unwrap();
        self.app.store.commit(&self.artifact(backup).attempt, &manifest).await.unwrap();
        assert_eq!(self.app.rebuild().await.unwrap().added, 1);
        backup
    }

    /// Stores `rdb` as a capture does, and returns the manifest to commit.
    async fn with_artifact(&self, id: &str, rdb: &[u8], address: &str) -> Manifest {
        let at = STORED_AT;
        let key = self.artifact(id.parse().unwrap());
        let mut sink = self.app.store.create(&key, None).await.unwrap();
        sink.write(zstd::encode_all(rdb, 0).unwrap().into()).await.unwrap();
        let stored = sink.finish().await.unwrap();
        let crc64 = u64::from_le_bytes(*rdb.last_chunk().unwrap());
        let entry = ArtifactEntry {
            file_name: key.file_name(),
            encoding: Encoding::Zstd,
            stored_bytes: stored.size_bytes,
            stored_sha256: stored.sha256,
            rdb: RdbEntry {
                header: "REDIS0010".into(),
                size_bytes: rdb.len() as u64,
                crc64: (crc64 != 0).then(|| format!("{crc64:016x}")),
                content: None,
            },
            source: SourceEntry {
                engine: "redis".into(),
                server_version: "7.0.15".into(),
                address: address.into(),
                role: "replica".into(),
                replication_id: "0".repeat(40),
                replication_offset: 1,
            },
        };
        Manifest {
            version: MANIFEST_VERSION,
            backup_id: id.into(),
            project_id: self.credential.project.to_string(),
            instance_id: INSTANCE.into(),
            instance_name: "orders".into(),
            instance_address: None,
            dialect: None,
            trigger: "manual".into(),
            note: None,
            window: None,
            keep_until: None,
            created_at: at.parse().unwrap(),
            started_at: at.parse().unwrap(),
            completed_at: at.parse().unwrap(),
            artifacts: vec![entry],
        }
    }

    /// The path of the only artifact of a backup.
    pub(crate) fn artifact(&self, backup: BackupId) -> ArtifactKey {
        let project = self.credential.project.clone();
        BackupKey { project, instance: self.instance(), backup }.attempt(1).artifact(0)
    }

    /// Requests and runs the removal of a backup, as a worker does.
    pub(crate) async fn removed(&self, backup: BackupId) {
        let now = self.clock.now();
        let job = JobId::mint(&SeededEntropy::new(98));
        let project = &self.credential.project;
        self.catalog.request_removal(project, self.instance(), backup, job, now).await.unwrap();
        let node = NodeId::mint(&SeededEntropy::new(1));
        let lease = self.catalog.claim_job(JobKind::Remove, node, now, now).await;
        self.app.store.remove_backup(&self.artifact(backup).attempt.backup).await.unwrap();
        self.catalog.finish_removal(&lease.unwrap().unwrap(), now).await.unwrap();
    }

    /// Runs all removals that are requested during `answer`, as a worker does.
    pub(crate) async fn removing(&self, answer: impl Future<Output = Answer>) -> Answer {
        let work = async {
            loop {
                let (now, node) = (self.clock.now(), NodeId::mint(&SeededEntropy::new(1)));
                if let Some(lease) =
                    self.catalog.claim_job(JobKind::Remove, node, now, now).await.unwrap()
                {
                    self.catalog.finish_removal(&lease, now).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = answer => answer,
            () = work => unreachable!(),
        }
    }

    /// The text that Prometheus scrapes.
    pub(crate) async fn metrics(&self) -> String {
        let request = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
        let answer = self.metrics.clone().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Sends a request signed as the vendor's SDKs do.
    pub(crate) async fn call(&self, method: &str, uri: &str, body: &str) -> Answer {
        self.call_as(&self.credential.clone(), method, uri, body).await
    }

    pub(crate) async fn call_as(
        &self,
        who: &NewCredential,
        method: &str,
        uri: &str,
        body: &str,
    ) -> Answer {
        self.send(self.signed(who, method, uri, body)).await
    }

    /// A request signed as the vendor's SDKs do.
    pub(crate) fn signed(
        &self,
        who: &NewCredential,
        method: &str,
        uri: &str,
        body: &str,
    ) -> Request<Body> {
        let date = self.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let headers = [("host", "cachevault.test"), ("x-sdk-date", date.as_str())];
        let request =
            SignedRequest { method, path, query, headers: &headers, body: body.as_bytes() };
        let names = headers.map(|(name, _)| name.to_owned());
        let signature =
            sign(&request, &names, who.access_key.as_str(), who.secret_key.expose_secret())
                .unwrap();
        let request = Request::builder().method(method).uri(uri).header("authorization", signature);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Body::from(body.to_owned())).unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body, text }
    }
}

/// Sign-in, tokens and credentials.
impl Rig {
    /// Sends a request without a signature, with these headers.
    pub(crate) async fn plain(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let request = Request::builder().method(method).uri(uri).header("host", "cachevault.test");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// Sends a request with a token.
    pub(crate) async fn with_token(
        &self,
        token: &str,
        method: &str,
        uri: &str,
        body: &str,
    ) -> Answer {
        self.plain(method, uri, &[("x-auth-token", token)], body).await
    }

    /// Creates a user with this role in the only project.
    pub(crate) async fn user(&self, name: &str, role: &str) -> String {
        let body = serde_json::json!({"name": name, "password": PASSWORD}).to_string();
        let user = self.call("POST", "/api/v1/users", &body).await;
        assert_eq!(user.status.as_u16(), 201, "{}", user.text);
        let grant = serde_json::json!({"role": role}).to_string();
        let uri = format!("/api/v1/users/{name}/grants/{REGION}");
        let granted = self.call("PUT", &uri, &grant).await;
        assert_eq!(granted.status.as_u16(), 200, "{}", granted.text);
        user.body["id"].as_str().unwrap().to_owned()
    }

    /// Signs in with a password.
    pub(crate) async fn sign_in(&self, user: Value, scope: Value) -> Answer {
        let identity = serde_json::json!({"methods": ["password"], "password": {"user": user}});
        let mut auth = serde_json::json!({"identity": identity});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        let body = serde_json::json!({"auth": auth}).to_string();
        self.plain("POST", "/v3/auth/tokens", &[], &body).await
    }

    /// A token of this user for the only project.
    pub(crate) async fn token(&self, name: &str) -> String {
        let user = serde_json::json!({"name": name, "password": PASSWORD});
        let scope = serde_json::json!({"project": {"name": REGION}});
        let answer = self.sign_in(user, scope).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
        answer.token()
    }

    /// Creates a credential with the first one.
    pub(crate) async fn key(&self, wish: Value) -> NewCredential {
        let answer = self.call("POST", "/api/v1/credentials", &wish.to_string()).await;
        answer.key()
    }
}

impl Answer {
    pub(crate) fn token(&self) -> String {
        self.headers["x-subject-token"].to_str().unwrap().to_owned()
    }

    /// The credential that was just created.
    pub(crate) fn key(&self) -> NewCredential {
        assert_eq!(self.status.as_u16(), 201, "{}", self.text);
        let text = |name: &str| self.body[name].as_str().unwrap().to_owned();
        NewCredential {
            project: text("project_id").parse().unwrap(),
            access_key: text("access_key").parse().unwrap(),
            secret_key: text("secret_key").into(),
        }
    }

    /// The status and error code of an answer in any format.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        let error = &self.body["error"];
        let code = error["code"].as_str().or(self.body["error_code"].as_str());
        (self.status.as_u16(), code.unwrap_or_default())
    }
}
