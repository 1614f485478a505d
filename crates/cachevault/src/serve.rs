//! Builds the service from its configuration, runs it, and stops it in two phases.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use cachevault_api::{Api, Downloads, EventStreams, HttpFigures, LargeBodies, Refusals, Throttle};
use cachevault_app::{
    AcceptedStore, App, DiskReserve, ForeignTokens, Logins, MasterKey, NewCredential, Rebuilt,
    Sealer, StoreRecord, Webhooks,
};
use cachevault_catalog_sqlite::SqliteCatalog;
use cachevault_domain::SystemClock;
use cachevault_engine::{ProbeLimits, SourceGate, sweep_drills};
use cachevault_jobs::{
    DiskWatch, DrillSettings, Driller, EngineOpener, EngineProber, JobFigures, Messenger, Observer,
    Runner, Scheduler, Shutdown, Tender, Worker,
};
use cachevault_store::{CountedStore, KnownStore, SealedStore, StoreFigures};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::data_dir::{Credentials, DataDir};
use crate::entropy::OsEntropy;
use crate::first_start::{Purpose, admit, first_start};
use crate::listen::{Tls, answer};
use crate::logging;
use crate::terminal::print;
use crate::webhooks::HttpSender;

/// How often the store is looked through for what no backup is made of.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// How long breaking off may take before the process leaves all the same.
const HARD_STOP: Duration = Duration::from_secs(20);

/// Runs the service until a signal ends it.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    logging::start(config.log_format, config.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Signals are listened to before anything is said of being ready.
    let signals = Signals::listen()?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let node = data_dir.node_id(&OsEntropy)?;
    let figures = Figures::default();
    let (app, catalog) = build(&config, &data_dir, &figures.store, Purpose::Serve).await?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("listen on `{}`", config.listen))?;
    let address = listener.local_addr().context("read the address listened on")?;
    let tls = config.tls.clone().map(Tls::load).transpose()?;
    let scheme = config.scheme();
    let endpoint = config.public_url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
    first_start(&app, &data_dir, (&endpoint, &config.region), Purpose::Serve).await?;

    sweep_drills(&data_dir.drills()).context("remove what drills have left")?;
    let shutdown = Shutdown::default();
    let limits = config.connections.clone();
    let mut tasks = JoinSet::new();
    let runner = Runner {
        app: app.clone(),
        settings: config.jobs,
        gate: SourceGate::default(),
        ours: config.ours.clone(),
        drills: DrillSettings { servers: config.drill_servers.clone(), folder: data_dir.drills() },
        figures: figures.jobs.clone(),
        injection: None,
    };
    let (worker, stop) = (Worker::new(runner, node), shutdown.clone());
    tasks.spawn(async move { worker.run(&stop).await });
    let messenger = Messenger { app: app.clone(), node, give_up_after: config.webhook_give_up };
    let stop = shutdown.clone();
    tasks.spawn(async move { messenger.run(&stop).await });
    tend(&app, &config, &figures.jobs, &shutdown, &mut tasks);
    if let Some(address) = config.metrics_listen {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listen on `{address}`"))?;
        let router = cachevault_api::metrics_router(app.clone(), figures.registry());
        let (limits, stop) = (limits.clone(), shutdown.clone());
        tasks.spawn(async move { answer(listener, router, None, limits, stop).await });
    }
    let downloads = Downloads::new(config.downloads_max, config.jobs.capture.stall);
    let router = cachevault_api::router(Api {
        app,
        request_time_max: config.request_timeout,
        readiness: Arc::default(),
        public_url: config.public_url,
        scheme,
        address,
        downloads: downloads.clone(),
        region: config.region,
        throttle: Arc::new(Throttle::default()),
        refusals: Refusals::default(),
        figures: figures.http,
        events: EventStreams::new(config.event_streams, shutdown.soft.clone()),
        large_bodies: LargeBodies::default(),
        proxies: limits.proxies.clone(),
    });
    let stop = shutdown.clone();
    tasks.spawn(async move { answer(listener, router, tls, limits, stop).await });

    print(&format_args!("cachevault is ready at {scheme}://{address}"));
    std::io::stdout().flush().context("say that the service is ready")?;
    tracing::info!(%address, data_dir = %config.data_dir.display(), "ready");
    let told = stop_in_two_phases(signals, &shutdown, tasks, config.shutdown_grace).await;
    if tokio::time::timeout(HARD_STOP, downloads.are_recorded()).await.is_err() {
        tracing::warn!("the ends of downloads cannot be recorded; their records go without");
    }
    catalog.close().await;
    tracing::info!("stopped");
    // Whoever supervises the process is to start it again.
    ensure!(told, "a part of the service ended by itself; see the log");
    Ok(())
}

/// What the parts of the service count.
#[derive(Default)]
struct Figures {
    store: StoreFigures,
    jobs: JobFigures,
    http: HttpFigures,
}

impl Figures {
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("cachevault");
        let build = Family::<_, Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "What runs here", build);
        self.store.register(&mut registry);
        self.jobs.register(&mut registry);
        self.http.register(&mut registry);
        registry
    }
}

/// Starts what looks after policies, instances, store and proofs by itself.
fn tend(
    app: &App,
    config: &Config,
    figures: &JobFigures,
    shutdown: &Shutdown,
    tasks: &mut JoinSet<()>,
) {
    let (observer, stop) =
        (Observer { app: app.clone(), every: config.observe_every }, shutdown.clone());
    tasks.spawn(async move { observer.run(&stop).await });
    let (disk, stop) = (DiskWatch::new(app.clone()), shutdown.clone());
    tasks.spawn(async move { disk.run(&stop).await });
    let (scheduler, stop) = (
        Scheduler {
            app: app.clone(),
            missed: config.missed_windows,
            backups_max: config.backups_max,
            figures: figures.clone(),
        },
        shutdown.clone(),
    );
    tasks.spawn(async move { scheduler.run(&stop).await });
    let tender = Tender {
        app: app.clone(),
        check_every: config.check_every,
        sweep_every: SWEEP_EVERY,
        grace: config.sweep_grace,
        audit_keep: config.audit_keep,
        time_max: config.jobs.verify,
        events_keep: config.events_keep,
        figures: figures.clone(),
        tried: Mutex::default(),
    };
    let stop = shutdown.clone();
    tasks.spawn(async move { tender.run(&stop).await });
    if let Some(every) = config.drill_every {
        let (driller, stop) = (Driller { app: app.clone(), every }, shutdown.clone());
        tasks.spawn(async move { driller.run(&stop).await });
    }
}

/// Adds to the catalog what the store holds, and prints what that was.
pub(crate) fn rebuild(config: &Config) -> anyhow::Result<()> {
    logging::start(config.log_format, config.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        let (data_dir, figures) = (DataDir::open(&config.data_dir)?, StoreFigures::default());
        let (app, catalog) = build(config, &data_dir, &figures, Purpose::Rebuild).await?;
        // Of a catalog that is lost as a whole, the key of the first project may be left.
        let endpoint = config
            .public_url
            .clone()
            .unwrap_or_else(|| format!("{}://{}", config.scheme(), config.listen));
        let found = app.has_projects().await? || data_dir.find_credentials()?.is_some();
        if found {
            first_start(&app, &data_dir, (&endpoint, &config.region), Purpose::Rebuild).await?;
        }
        let rebuilt = app.rebuild().await.context("rebuild the catalog")?;
        if !found && let Some(project) = rebuilt.projects.first() {
            let credential =
                NewCredential { project: project.clone(), ..NewCredential::mint(&app) };
            let credentials = Credentials::new(endpoint, config.region.clone(), &credential);
            data_dir.write_credentials(&credentials)?;
            app.add_first_credential(&credential).await.context("store the key of the project")?;
        }
        let Rebuilt { added, known, lost, projects, unfinished, unreadable } = rebuilt;
        print(&format_args!(
            "added {added} backups, {known} were known, in {} projects",
            projects.len()
        ));
        if lost > 0 {
            print(&format_args!("{lost} of them have lost files; they are marked as damaged"));
        }
        print(&format_args!(
            "{unfinished} attempts have no manifest; the service removes them in time"
        ));
        for reason in &unreadable {
            print(&format_args!("unreadable: {reason}"));
        }
        catalog.close().await;
        ensure!(unreadable.is_empty(), "{} manifests cannot be used", unreadable.len());
        Ok(())
    })
}

/// Mints a master key and puts it in front of the others.
pub(crate) fn rotate_key(config: &Config) -> anyhow::Result<()> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let keys = data_dir.find_master_keys()?;
    let mut keys = keys.with_context(|| {
        let path = data_dir.master_key_file();
        format!(
            "rotate the master key: `{}` does not exist; run `cachevault serve` first",
            path.display()
        )
    })?;
    keys.insert(0, MasterKey::mint(&OsEntropy));
    data_dir.write_master_keys(&keys)?;
    print(&format_args!(
        "the master key is {} now; {} earlier ones stay",
        keys[0].id(),
        keys.len() - 1
    ));
    print(&format_args!("start the service: it seals the keys of stored backups anew"));
    Ok(())
}

async fn open_catalog(data_dir: &DataDir) -> anyhow::Result<Arc<SqliteCatalog>> {
    let path = data_dir.catalog();
    let catalog = SqliteCatalog::open(&path).await;
    Ok(Arc::new(catalog.with_context(|| format!("open `{}`", path.display()))?))
}

fn record_of(catalog: &Arc<SqliteCatalog>) -> StoreRecord {
    StoreRecord { catalog: catalog.clone(), entropy: Arc::new(OsEntropy) }
}

/// Takes the store from now on that the settings name, whatever the catalog knew before.
pub(crate) fn accept_store(config: &Config) -> anyhow::Result<()> {
    logging::start(config.log_format, config.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        let data_dir = DataDir::open(&config.data_dir)?;
        ensure!(
            data_dir.catalog().exists(),
            "there is no catalog in `{}` that could accept a store; run `cachevault serve`, or \
             `cachevault catalog rebuild`, with the settings of `serve`",
            config.data_dir.display()
        );
        let catalog = open_catalog(&data_dir).await?;
        let store = config.store.at(&data_dir)?;
        let accepted = record_of(&catalog).accept(&*store).await.context("accept the store")?;
        let AcceptedStore { id, backups, held } = accepted;
        print(&format_args!(
            "the store {id} is accepted; it holds {held} of the catalog's {backups} backups"
        ));
        if held < backups {
            print(&"`cachevault verify` marks those that it does not hold as damaged");
        }
        catalog.close().await;
        Ok(())
    })
}

async fn build(
    config: &Config,
    data_dir: &DataDir,
    figures: &StoreFigures,
    purpose: Purpose,
) -> anyhow::Result<(App, Arc<SqliteCatalog>)> {
    let entropy = Arc::new(OsEntropy);
    let local = || data_dir.local_folders();
    let reserve = DiskReserve::of(local(), config.disk_reserve_bytes);
    // The catalog knows which store it is; where there is none, the store may know of a catalog.
    let earlier = match data_dir.catalog().exists() {
        true => Some(open_catalog(data_dir).await?),
        false => None,
    };
    let proven = match earlier.as_ref().map(record_of) {
        Some(record) if !record.is_empty().await.context("read the catalog")? => {
            if purpose == Purpose::Rebuild {
                record.follow(&*config.store.at(data_dir)?).await.context("read the store's id")?;
            }
            config.store.open(data_dir, Some(Arc::new(record)), reserve.bytes).await?
        }
        _ => config.store.open(data_dir, None, reserve.bytes).await?,
    };
    admit(data_dir, &*proven.store, purpose).await?;
    let keys = data_dir.master_keys(&*entropy)?;
    let (current, earlier_keys) = keys.split_first().context("there is no master key")?;
    let sealer = Arc::new(Sealer::with_earlier(current, earlier_keys, entropy.clone()));
    let catalog = match earlier {
        Some(catalog) => catalog,
        None => open_catalog(data_dir).await?,
    };
    let store = KnownStore::new(proven.store, Arc::new(record_of(&catalog)), proven.holds);
    if proven.is_usable {
        store.identify().await.context("take the store")?;
    }
    let store = SealedStore::new(Arc::new(store), sealer.clone(), config.store.encrypt);
    let store = CountedStore::new(store, figures.clone());
    let app = App {
        catalog: catalog.clone(),
        store: Arc::new(store),
        // The spool may have been made meanwhile.
        disk: DiskReserve { folders: local(), ..reserve },
        prober: Arc::new(EngineProber {
            limits: ProbeLimits { command: config.jobs.capture.command },
            has_certificate: config.ours.identity.is_some(),
        }),
        opener: Arc::new(EngineOpener),
        sealer,
        clock: Arc::new(SystemClock),
        entropy,
        logins: Logins::new(config.token_lifetime),
        foreign_tokens: config.keystone.clone().map(ForeignTokens::new),
        webhooks: Webhooks::new(
            Arc::new(HttpSender::new(config.webhook_rules.clone(), config.webhook_trusted.clone())),
            config.webhook_rules.clone(),
        ),
        instance_hosts: config.instance_hosts.clone(),
        history: config.history,
        single_node_backups: config.single_node_backups,
    };
    Ok((app, catalog))
}

/// After the first signal nothing new begins, and what runs may end; after the grace period or a
/// second signal it is broken off in order. Returns whether a signal began it.
async fn stop_in_two_phases(
    mut signals: Signals,
    shutdown: &Shutdown,
    mut tasks: JoinSet<()>,
    grace: Duration,
) -> bool {
    let told = tokio::select! {
        () = signals.next() => true,
        // A part that ended by itself cannot be done without.
        _ = tasks.join_next() => false,
    };
    if told {
        tracing::info!("stopping: what runs may come to its end");
    } else {
        tracing::error!("a part of the service ended; stopping");
    }
    shutdown.soft.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    tokio::pin!(ended);
    tokio::select! {
        () = &mut ended => return told,
        () = signals.next() => tracing::info!("stopping at once"),
        () = tokio::time::sleep(grace) => tracing::info!("the grace period is over; stopping at once"),
    }
    shutdown.hard.cancel();
    if tokio::time::timeout(HARD_STOP, ended).await.is_err() {
        tracing::warn!("something did not stop in time; the next start takes it up");
    }
    told
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
