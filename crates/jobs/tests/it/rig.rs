use std::sync::{Arc, Mutex};
use std::time::Duration;

use cachevault_app::{
    AddInstance, App, DiskReserve, Logins, MasterKey, NewCredential, RequestBackup, Sealer,
    WebhookRules, Webhooks,
};
use cachevault_catalog::{CatalogError, JobQueue};
use cachevault_catalog_sqlite::SqliteCatalog;
use cachevault_domain::{
    Backoff, Backup, BackupId, BackupState, Caller, Clock, HostRules, InstanceId, JobId, JobKind,
    Lease, NodeId, ProjectId, ShrinkRule,
};
use cachevault_engine::{
    CaptureLimits, OurAddress, ProbeLimits, RestoreLimits, SourceGate, SourceLimits,
    verify_artifact,
};
use cachevault_jobs::{
    DrillSettings, EngineOpener, EngineProber, Injected, Injection, JobFigures, JobSettings, Runner,
};
use cachevault_store::{BackupKey, FaultyStore, FolderStore, Store};
use cachevault_testkit::{MovedClock, SeededEntropy, Server, installed_engines, newest_redis};
use jiff::SignedDuration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::messages::Receiver;

pub(crate) struct Rig {
    pub(crate) app: App,
    pub(crate) store: Arc<FaultyStore<FolderStore>>,
    pub(crate) catalog: Arc<SqliteCatalog>,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) settings: JobSettings,
    pub(crate) node: NodeId,
    pub(crate) project: ProjectId,
    pub(crate) caller: Caller,
    pub(crate) instance: InstanceId,
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with_server(Server::start(&newest_redis(), &[])).await
    }

    pub(crate) async fn with_server(server: Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(MovedClock::at("2026-11-21T08:31:16.166Z"));
        let entropy = Arc::new(SeededEntropy::new(7));
        let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
        let catalog = Arc::new(catalog);
        let store =
            Arc::new(FaultyStore::new(FolderStore::open(folder.path().join("backups")).unwrap()));
        let app = App {
            catalog: catalog.clone(),
            store: store.clone(),
            disk: DiskReserve::default(),
            prober: Arc::new(EngineProber {
                limits: ProbeLimits { command: Duration::from_secs(5) },
                has_certificate: false,
            }),
            opener: Arc::new(EngineOpener),
            sealer: Arc::new(Sealer::new(&MasterKey::mint(&*entropy), entropy.clone())),
            clock: clock.clone(),
            entropy: entropy.clone(),
            logins: Logins::default(),
            foreign_tokens: None,
            webhooks: Webhooks::new(Arc::new(Receiver::default()), WebhookRules::default()),
            instance_hosts: HostRules::default(),
            history: SignedDuration::from_hours(24 * 7),
            single_node_backups: true,
        };
        let credential = NewCredential::mint(&app);
        app.create_first_project(&credential, &"region".parse().unwrap()).await.unwrap();
        server.fill(2000, 100);
        let wish = AddInstance {
            name: "orders".parse().unwrap(),
            target: server.target(),
            settings: Default::default(),
        };
        let caller = Caller::service(credential.project.clone());
        let instance = app.add_instance(&caller, wish).await.unwrap();
        Self {
            node: NodeId::mint(&*entropy),
            project: credential.project,
            caller,
            instance: instance.id,
            settings: settings(),
            app,
            store,
            catalog,
            clock,
            server,
            folder,
        }
    }

    pub(crate) async fn request(&self) -> BackupId {
        self.app
            .request_backup(&self.caller, self.instance, RequestBackup::default())
            .await
            .unwrap()
    }

    pub(crate) async fn request_removal(&self, backup: BackupId) -> JobId {
        let job = JobId::mint(&*self.app.entropy);
        let now = self.clock.now();
        use cachevault_catalog::BackupCatalog;
        self.catalog.request_removal(&self.project, self.instance, backup, job, now).await.unwrap()
    }

    pub(crate) fn runner(&self, injection: Option<Arc<dyn Injection>>) -> Runner {
        Runner {
            app: self.app.clone(),
            settings: self.settings,
            gate: SourceGate::default(),
            ours: OurAddress::default(),
            drills: DrillSettings {
                servers: installed_engines().into_iter().map(|engine| engine.binary).collect(),
                folder: self.folder.path().join("drills"),
            },
            figures: JobFigures::default(),
            injection,
        }
    }

    pub(crate) async fn claim(&self) -> Option<Lease> {
        self.try_claim().await.unwrap()
    }

    pub(crate) async fn try_claim(&self) -> Result<Option<Lease>, CatalogError> {
        let now = self.clock.now();
        let until = now.checked_add(self.settings.lease).unwrap();
        for kind in JobKind::ALL {
            if let Some(lease) = self.catalog.claim_job(kind, self.node, now, until).await? {
                return Ok(Some(lease));
            }
        }
        Ok(None)
    }

    /// Claims the job that is due and runs it to the end of this attempt.
    pub(crate) async fn run(&self, injection: Option<Arc<dyn Injection>>) {
        let lease = self.claim().await.expect("a job is due");
        self.runner(injection).run(&lease, &CancellationToken::new()).await;
    }

    /// What a restart does: leases of the dead process are let go.
    pub(crate) async fn restart(&self) {
        self.catalog.release_node(self.node, self.clock.now()).await.unwrap();
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    pub(crate) async fn backup(&self, id: BackupId) -> Backup {
        self.app.get_backup(&self.caller, id).await.unwrap().backup
    }

    /// The files in the store.
    pub(crate) fn files(&self) -> Vec<String> {
        let root = self.folder.path().join("backups");
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        found.sort();
        found
    }

    /// The promise: a record that says it succeeded has its files, whole; one that does not has none.
    pub(crate) async fn assert_truthful(&self, id: BackupId) {
        let backup = self.backup(id).await;
        if backup.state != BackupState::Succeeded {
            assert_eq!(self.files(), [""; 0], "{:?}", backup.state);
            return;
        }
        assert_eq!(self.files(), ["manifest.json", "shard-0000.rdb.zst"]);
        let key = BackupKey { project: self.project.clone(), instance: self.instance, backup: id };
        let key = key.attempt(backup.stored_attempt.unwrap());
        let manifest = self.store.find_manifest(&key).await.unwrap().unwrap();
        assert_eq!(manifest.artifacts[0].rdb.size_bytes, backup.size_bytes);
        verify_artifact(&*self.store, &key.artifact(0), &manifest.artifacts[0]).await.unwrap();
    }
}

fn settings() -> JobSettings {
    JobSettings {
        running_max: 2,
        host_max: 1,
        lease: Duration::from_secs(30),
        poll: Duration::from_millis(50),
        backoff: Backoff {
            first: Duration::from_secs(2),
            longest: Duration::from_secs(60),
            attempts_max: 3,
        },
        attempts_max: 20,
        prefer_replica: true,
        zstd_level: Some(1),
        capture: CaptureLimits {
            command: Duration::from_secs(5),
            stall: Duration::from_secs(20),
            busy_wait: Duration::from_secs(20),
            total: Duration::from_secs(60),
            source: Some(SourceLimits::default()),
        },
        drill_servers: 1,
        shrink: ShrinkRule::default(),
        verify: Duration::from_secs(60),
        commit: Duration::from_secs(60),
        restore: RestoreLimits {
            command: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            busy_wait: Duration::from_secs(20),
            total: Duration::from_secs(60),
        },
    }
}

pub(crate) const STEPS: [(JobKind, &[&str]); 2] =
    [(JobKind::Capture, &["capture", "verify", "commit"]), (JobKind::Remove, &["remove"])];

/// Injects around the steps that it is told, and notes which steps ran.
#[derive(Debug)]
pub(crate) struct Inject {
    pub(crate) after: Vec<(&'static str, Injected)>,
    pub(crate) after_log: Vec<(&'static str, Injected)>,
    pub(crate) ran: Mutex<Vec<String>>,
}

impl Inject {
    pub(crate) fn after(step: &'static str, what: Injected) -> Arc<Self> {
        Arc::new(Self { after: vec![(step, what)], after_log: vec![], ran: Mutex::default() })
    }

    pub(crate) fn after_log(step: &'static str, what: Injected) -> Arc<Self> {
        Arc::new(Self { after: vec![], after_log: vec![(step, what)], ran: Mutex::default() })
    }

    pub(crate) fn ran(&self) -> Vec<String> {
        self.ran.lock().unwrap().clone()
    }
}

fn find(list: &[(&str, Injected)], step: &str) -> Injected {
    list.iter().find(|(name, _)| *name == step).map_or(Injected::Nothing, |(_, what)| *what)
}

impl Injection for Inject {
    fn after(&self, step: &str) -> Injected {
        self.ran.lock().unwrap().push(step.to_owned());
        find(&self.after, step)
    }

    fn after_log(&self, step: &str) -> Injected {
        find(&self.after_log, step)
    }
}
