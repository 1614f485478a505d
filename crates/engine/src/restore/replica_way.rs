//! Restoring by being the target's primary for a moment: it loads the RDB natively.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cachevault_domain::{Address, Identity, ProbeError, Role, Target};
use cachevault_proto::PrimaryConfig;
use cachevault_store::{ArtifactEntry, ArtifactKey, Store};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connect::acceptor;
use crate::gate::SourceGate;
use crate::info::ServerInfo;
use crate::meter::Meter;
use crate::restore::admin::Admin;
use crate::restore::error::RestoreError;
use crate::restore::keys_state::{empty, keeps_nothing};
use crate::restore::prove::{Comparison, Proof, ProofDemand};
use crate::restore::serve::{Link, SNAPSHOTS_MAX, Served, listen, serve};

/// Small restores are done in moments; large ones are looked at less often.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_LAST: Duration = Duration::from_millis(500);
/// How long the target may take to connect to us once it was told to.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// A server that refuses connections for so long does not run; one that is restarted by its supervisor
/// is back sooner, mostly.
const ENDED_AFTER: Duration = Duration::from_secs(4);
/// The lengths of an offset beyond which no server comes in a lifetime.
const OFFSETS: u64 = 1 << 40;

/// The target's `repl-timeout` while it loads, seconds. A target that loads into its memory waits for each byte of
/// ours and answers nobody meanwhile, for so long at most; less, and a store that pauses would end the load.
pub(crate) const SILENCE_MAX_SECONDS: u64 = 10;
const REPL_TIMEOUT: &str = "repl-timeout";

/// Bounds of a restore.
#[derive(Debug, Clone, Copy)]
pub struct RestoreLimits {
    /// Time for connecting, and for each command.
    pub command: Duration,
    /// Longest silence of the target during the transfer, and longest time that it may be gone.
    pub stall: Duration,
    /// Longest wait for another child of the target to end.
    pub busy_wait: Duration,
    /// Longest restore.
    pub total: Duration,
}

/// Where a target finds us.
#[derive(Debug, Clone, Default)]
pub struct OurAddress {
    /// Host name or IP address that targets can reach; `None`: the one by which we reach them.
    pub host: Option<String>,
    /// The port to listen on; 0 means any.
    pub port: u16,
    /// The port that targets are told, where something between us maps ports; `None`: the same.
    pub announced_port: Option<u16>,
    /// What we present to targets that replicate by TLS.
    pub identity: Option<Identity>,
}

/// A setting of the target that is another one while it loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedSetting {
    name: String,
    before: String,
    during: String,
}

impl ChangedSetting {
    pub(crate) fn new(name: &str, before: String, during: &str) -> Self {
        Self { name: name.to_owned(), before, during: during.to_owned() }
    }

    pub(crate) async fn apply(&self, admin: &mut Admin) -> Result<(), RestoreError> {
        admin.set(&self.name, &self.during).await
    }
}

/// What has to be remembered of a restore before the target is touched: with it, it can be gone
/// on with or undone by a process that knows nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Our replication id: 40 hexadecimal digits.
    replication_id: String,
    /// The offset that we give the snapshot.
    offset: u64,
    /// Where we listen.
    listen_port: u16,
    /// Where the target finds us.
    host: String,
    port: u16,
    /// Whether it comes by TLS.
    by_tls: bool,
    /// The target's process.
    run_id: String,
    /// What the target held: keys, libraries of functions, and whose history it was.
    keys_before: u64,
    functions_before: u64,
    replication_id_before: String,
    /// The password by which the target is known: made for this restore alone. `None` in logs of before
    /// it was made for a target that has one for its primary.
    password: Option<String>,
    /// The port by which the target says who it is.
    announced_port: Option<u16>,
    settings: Vec<ChangedSetting>,
    /// What keeps the target from being emptied again; nothing in logs of before it was kept.
    #[serde(default)]
    write_guards: Vec<ChangedSetting>,
}

/// What to load, and into what.
#[derive(Debug, Clone, Copy)]
pub struct LoadRequest<'a> {
    /// The target.
    pub target: &'a Target,
    /// Where the artifact is.
    pub store: &'a dyn Store,
    /// The artifact.
    pub key: &'a ArtifactKey,
    /// What its manifest says of it.
    pub entry: &'a ArtifactEntry,
    /// Whether to read the data back and compare it before anyone may write.
    pub prove: ProofDemand,
    /// What we present to a target that replicates by TLS.
    pub identity: Option<&'a Identity>,
    /// Keeps two captures from the same server.
    pub gate: &'a SourceGate,
    /// Bounds.
    pub limits: RestoreLimits,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// What reading the data back has shown; nothing in logs of before it was kept.
    #[serde(default)]
    pub comparison: Comparison,
    /// Keys that the target told of when it was promoted.
    pub keys: u64,
}

/// Chooses everything that a restore will do to the target, and touches nothing.
///
/// `random` gives the replication id and a password: 40 bytes that were never used before.
///
/// # Errors
/// [`RestoreError`] when the target does not tell what we need to know, or we cannot listen.
pub async fn prepare(
    target: &Target,
    swap: bool,
    ours: &OurAddress,
    random: [u8; 40],
    limits: &RestoreLimits,
) -> Result<Prepared, RestoreError> {
    let mut admin = Admin::connect(target, limits.command).await?;
    let info = admin.info().await?;
    let mut settings = Vec::new();
    let (id, secret) = random.split_at(20);
    let is_empty = info.keys == 0 && info.functions == 0;
    let password = hex::encode(secret);
    let before = admin.setting("masterauth").await?.unwrap_or_default();
    settings.push(ChangedSetting::new("masterauth", before, &password));
    for (name, during) in wanted_settings(swap, is_empty) {
        match admin.setting(name).await? {
            Some(before) if before != during => {
                settings.push(ChangedSetting::new(name, before, during));
            }
            // As it has to be, or unknown to this version.
            _ => {}
        }
    }
    settings.extend(silence_setting(&mut admin, swap || is_empty).await?);
    let by_tls = admin.setting("tls-replication").await?.as_deref() == Some("yes");
    let host = ours.host.clone().or_else(|| admin.local_host());
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let listener = open(&host, ours.port)?;
    let port =
        listener.local_addr().map_err(|error| RestoreError::Listen { port: 0, error })?.port();
    Ok(Prepared {
        replication_id: hex::encode(id),
        // Beyond whatever the target has, so that our history is not taken for a part of its own.
        offset: info.replication_offset + OFFSETS,
        listen_port: port,
        host,
        port: ours.announced_port.unwrap_or(port),
        by_tls,
        run_id: info.run_id,
        keys_before: info.keys,
        functions_before: info.functions,
        replication_id_before: info.replication_id,
        password: Some(password),
        announced_port: announced_port(&mut admin, by_tls).await?,
        settings,
        write_guards: write_guards(&mut admin).await?,
    })
}

/// Settings by which a server refuses writes while it has too few replicas, or cannot save.
const WRITE_GUARDS: [(&str, &str); 2] =
    [("min-replicas-to-write", "0"), ("stop-writes-on-bgsave-error", "no")];

/// Those that are set, where its user may look at them.
pub(crate) async fn write_guards(admin: &mut Admin) -> Result<Vec<ChangedSetting>, RestoreError> {
    let mut found = Vec::new();
    for (name, during) in WRITE_GUARDS {
        match admin.setting(name).await {
            Ok(Some(before)) if before != during => {
                found.push(ChangedSetting::new(name, before, during));
            }
            Ok(_) => {}
            Err(error) if error.is_denial() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Makes a server that refuses writes take them, where its user may.
pub(crate) async fn lower(
    admin: &mut Admin,
    guards: &[ChangedSetting],
) -> Result<(), RestoreError> {
    let refusal = admin.write_refusal().await?.map_or("", |refusal| refusal.code);
    if !matches!(refusal, "NOREPLICAS" | "MISCONF") {
        return Ok(());
    }
    tracing::warn!(target = %admin.address(), refusal, "the target takes no writes, and is told to take those of putting its old data back");
    for guard in guards {
        match guard.apply(admin).await {
            Err(error) if error.is_denial() => {}
            applied => applied?,
        }
    }
    Ok(())
}

/// Sets what [`lower`] changed to what it was.
pub(crate) async fn raise(
    admin: &mut Admin,
    guards: &[ChangedSetting],
) -> Result<(), RestoreError> {
    for guard in guards {
        if admin.setting(&guard.name).await?.as_deref() == Some(guard.during.as_str()) {
            admin.set(&guard.name, &guard.before).await?;
        }
    }
    Ok(())
}

/// Settings under which a target loads fastest and blocks its clients least.
fn wanted_settings(swap: bool, is_empty: bool) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // Flushing a full database in the main thread blocks every client for seconds.
        ("replica-lazy-flush", "yes"),
        // The read-back need not wait for other replicas.
        ("repl-diskless-sync-delay", "0"),
        // Nobody may write before it is proved and promoted.
        ("replica-read-only", "yes"),
    ];
    if swap {
        settings.push(("repl-diskless-load", "swapdb"));
    } else if is_empty {
        settings.push(("repl-diskless-load", "on-empty-db"));
    } else {
        settings.push(("repl-diskless-load", "disabled"));
    }
    settings
}

/// What bounds the target's wait for us: less than it would wait, where it answers nobody meanwhile; and never
/// less than what our signs of life keep to.
async fn silence_setting(
    admin: &mut Admin,
    loads_into_memory: bool,
) -> Result<Option<ChangedSetting>, RestoreError> {
    let Some(before) = admin.setting(REPL_TIMEOUT).await? else { return Ok(None) };
    let during = SILENCE_MAX_SECONDS.to_string();
    let is_short = before.parse().is_ok_and(|seconds: u64| seconds < SILENCE_MAX_SECONDS);
    let is_wanted = before != during && (loads_into_memory || is_short);
    Ok(is_wanted.then(|| ChangedSetting::new(REPL_TIMEOUT, before, &during)))
}

/// The port that a target announces to its primary.
async fn announced_port(admin: &mut Admin, by_tls: bool) -> Result<Option<u16>, RestoreError> {
    for name in ["replica-announce-port", if by_tls { "tls-port" } else { "port" }] {
        let port = admin.setting(name).await?.and_then(|text| text.parse().ok());
        if let Some(port @ 1..) = port {
            return Ok(Some(port));
        }
    }
    Ok(None)
}

/// Listens where a target comes that is told `host`.
fn open(host: &str, port: u16) -> Result<TcpListener, RestoreError> {
    let at = match host.parse::<IpAddr>() {
        // Who is told to come by a loopback address lives on this machine, and nobody else need come.
        Ok(ip) if ip.is_loopback() => Some(ip),
        Ok(IpAddr::V4(_)) => Some(Ipv4Addr::UNSPECIFIED.into()),
        Ok(IpAddr::V6(_)) => Some(Ipv6Addr::UNSPECIFIED.into()),
        // A name may lead to an address of either family.
        Err(_) => None,
    };
    listen(at, port).map_err(|error| RestoreError::Listen { port, error })
}

/// Where the target is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It follows somebody else, or nobody.
    Elsewhere,
    /// It follows us and has not loaded all.
    Following,
    /// It follows us and has loaded all.
    Loaded,
    /// It has loaded all, and is a primary again.
    Promoted,
}

impl Prepared {
    fn address(&self) -> Address {
        Address { host: self.host.clone(), port: self.port }
    }

    fn standing(&self, info: &ServerInfo) -> Standing {
        let has_ours =
            info.replication_id == self.replication_id && info.replication_offset >= self.offset;
        match info.role {
            Role::Primary if info.earlier_replication_id == self.replication_id => {
                Standing::Promoted
            }
            Role::Primary => Standing::Elsewhere,
            Role::Replica if info.follows.as_ref() != Some(&self.address()) => Standing::Elsewhere,
            Role::Replica if has_ours && !info.is_loading => Standing::Loaded,
            Role::Replica => Standing::Following,
        }
    }
}

/// Loads an artifact into a target and makes it a primary again. May be called again after a crash
/// at any moment: it goes on where the target is.
///
/// # Errors
/// [`RestoreError`]; then the target is as it was left, and [`withdraw`] makes it a primary.
pub async fn load(
    request: LoadRequest<'_>,
    prepared: &Prepared,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Loaded, RestoreError> {
    let total = request.limits.total;
    tokio::select! {
        loaded = tokio::time::timeout(total, request.run(prepared, meter)) => {
            loaded.unwrap_or(Err(RestoreError::TooLong { seconds: total.as_secs() }))
        }
        () = cancel.cancelled() => Err(RestoreError::Cancelled),
    }
}

/// Who the target says it is: by the password that we gave it.
async fn login(
    prepared: &Prepared,
    admin: &mut Admin,
) -> Result<Option<(Option<String>, Vec<u8>)>, RestoreError> {
    let user = admin.setting("masteruser").await?.filter(|user| !user.is_empty());
    let password = match &prepared.password {
        Some(password) => Some(password.clone()),
        None => admin.setting("masterauth").await?,
    };
    Ok(password.map(|password| (user, password.into_bytes())))
}

fn primary(
    prepared: &Prepared,
    login: Option<(Option<String>, Vec<u8>)>,
    entry: &ArtifactEntry,
) -> Arc<PrimaryConfig> {
    Arc::new(PrimaryConfig {
        login,
        replication_id: prepared.replication_id.clone(),
        offset: prepared.offset,
        payload_bytes: entry.rdb.size_bytes,
        announced_port: prepared.announced_port,
    })
}

impl LoadRequest<'_> {
    async fn run(&self, prepared: &Prepared, meter: &Meter) -> Result<Loaded, RestoreError> {
        let mut admin = Admin::connect(self.target, self.limits.command).await?;
        let info = admin.info().await?;
        let standing = prepared.standing(&info);
        if standing == Standing::Promoted {
            let comparison = match self.prove {
                ProofDemand::None => Comparison::default(),
                _ => Comparison::not_possible("the service was restarted during the restore"),
            };
            return Ok(Loaded { comparison, keys: info.keys });
        }
        self.same_process(&info, prepared)?;
        if standing == Standing::Loaded && self.prove == ProofDemand::None {
            // Nothing has to be sent any more.
            return self.promote(prepared, Comparison::default(), &mut admin, meter).await;
        }
        let listener = open(&prepared.host, prepared.listen_port)?;
        let link = Link::default();
        let served = Served {
            store: self.store,
            key: self.key,
            entry: self.entry,
            config: primary(prepared, login(prepared, &mut admin).await?, self.entry),
            tls: self.acceptor(prepared)?,
            stall: self.limits.stall,
            meter,
        };
        if standing == Standing::Elsewhere {
            if info.role == Role::Replica {
                return Err(self.interfered(&info));
            }
            for setting in &prepared.settings {
                setting.apply(&mut admin).await?;
            }
            meter.enter("waiting for the target to connect");
            let (host, port) = (prepared.host.as_str(), prepared.port.to_string());
            admin.command(&["REPLICAOF", host, &port]).await?;
        }
        tokio::select! {
            damage = serve(&listener, &served, &link) => Err(damage.into()),
            done = self.wait_prove_promote(prepared, &mut admin, &link, meter) => done,
        }
    }

    fn acceptor(&self, prepared: &Prepared) -> Result<Option<TlsAcceptor>, RestoreError> {
        match self.identity {
            _ if !prepared.by_tls => Ok(None),
            Some(identity) => acceptor(identity).map(Some).map_err(RestoreError::Certificate),
            None => Err(RestoreError::Certificate("none is configured".to_owned())),
        }
    }

    fn same_process(&self, info: &ServerInfo, prepared: &Prepared) -> Result<(), RestoreError> {
        if info.run_id == prepared.run_id {
            return Ok(());
        }
        Err(RestoreError::TargetRestarted { address: self.target.address.clone() })
    }

    async fn wait_prove_promote(
        &self,
        prepared: &Prepared,
        admin: &mut Admin,
        link: &Link,
        meter: &Meter,
    ) -> Result<Loaded, RestoreError> {
        self.wait_until_loaded(prepared, admin, link, meter).await?;
        // Replicas of the target synchronise now, and may take their time.
        let timeout = prepared.settings.iter().find(|setting| setting.name == REPL_TIMEOUT);
        put_back(admin, timeout.map(std::slice::from_ref).unwrap_or_default()).await?;
        let comparison = match self.prove {
            ProofDemand::None => Comparison::default(),
            demand => {
                meter.enter("reading the data back");
                demand.judge(self.proof().of_replica(meter).await)?
            }
        };
        self.promote(prepared, comparison, admin, meter).await
    }

    async fn promote(
        &self,
        prepared: &Prepared,
        comparison: Comparison,
        admin: &mut Admin,
        meter: &Meter,
    ) -> Result<Loaded, RestoreError> {
        meter.enter("promoting");
        admin.command(&["REPLICAOF", "NO", "ONE"]).await?;
        let info = admin.info().await?;
        if prepared.standing(&info) != Standing::Promoted {
            return Err(self.interfered(&info));
        }
        Ok(Loaded { comparison, keys: info.keys })
    }

    /// Looks at the target, whatever becomes of our connection to it, until it has loaded all.
    async fn wait_until_loaded(
        &self,
        prepared: &Prepared,
        admin: &mut Admin,
        link: &Link,
        meter: &Meter,
    ) -> Result<(), RestoreError> {
        let mut vital = VitalSigns::default();
        let mut waiting_since = Instant::now();
        let mut answered_at = Instant::now();
        let mut pause = LOOK_FIRST;
        loop {
            match admin.info().await {
                Ok(info) => {
                    answered_at = Instant::now();
                    vital.answered(&info);
                    self.same_process(&info, prepared)?;
                    if info.is_loading {
                        // It has all of it from an earlier process of ours, and comes again after.
                        waiting_since = Instant::now();
                    }
                    match prepared.standing(&info) {
                        // A replica gives its data away only while it hears its primary.
                        Standing::Loaded
                            if info.primary_link_up || self.prove == ProofDemand::None =>
                        {
                            return Ok(());
                        }
                        Standing::Loaded | Standing::Following => {}
                        Standing::Elsewhere | Standing::Promoted => {
                            return Err(self.interfered(&info));
                        }
                    }
                }
                Err(error) if answered_at.elapsed() < self.limits.stall => {
                    tracing::debug!(%error, "the target does not answer");
                    match Admin::connect(self.target, self.limits.command).await {
                        Ok(again) => *admin = again,
                        Err(error) if vital.is_ended_by(&error) => {
                            return Err(RestoreError::TargetEnded {
                                address: self.target.address.clone(),
                                last_seen: vital.last_seen(meter),
                            });
                        }
                        Err(_) => {}
                    }
                }
                Err(_) => {
                    return Err(RestoreError::TargetGone {
                        address: self.target.address.clone(),
                        seconds: self.limits.stall.as_secs(),
                    });
                }
            }
            let snapshots = link.snapshots.load(Ordering::Relaxed);
            let patience = CONNECT_MAX.min(self.limits.stall);
            if snapshots == 0 && waiting_since.elapsed() > patience {
                return Err(RestoreError::NotConnected {
                    address: self.target.address.clone(),
                    offered: prepared.address(),
                    came: link.turned_away().map(|who| format!("; {who}")).unwrap_or_default(),
                    seconds: patience.as_secs(),
                });
            }
            if snapshots > SNAPSHOTS_MAX {
                let address = self.target.address.clone();
                return Err(RestoreError::KeepsFailing { address, times: snapshots - 1 });
            }
            tokio::select! {
                () = link.acknowledged.notified() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOK_LAST),
            }
        }
    }

    fn interfered(&self, info: &ServerInfo) -> RestoreError {
        let detail = match &info.follows {
            Some(primary) => format!("it follows `{primary}`"),
            None => "it follows nobody".to_owned(),
        };
        RestoreError::Interfered { address: self.target.address.clone(), detail }
    }

    fn proof(&self) -> Proof<'_> {
        let Self { target, store, key, entry, gate, limits, .. } = *self;
        Proof { target, store, key, entry, gate, limits }
    }
}

/// What is known of whether a target still runs.
#[derive(Debug, Default)]
struct VitalSigns {
    loaded_percent: Option<u64>,
    refused_since: Option<Instant>,
}

impl VitalSigns {
    fn answered(&mut self, info: &ServerInfo) {
        self.refused_since = None;
        self.loaded_percent = info.loaded_percent.or(self.loaded_percent);
    }

    /// Whether the target has ended, now that connecting to it failed like this.
    fn is_ended_by(&mut self, error: &ProbeError) -> bool {
        if !matches!(error, ProbeError::Refused { .. }) {
            self.refused_since = None;
            return false;
        }
        self.refused_since.get_or_insert_with(Instant::now).elapsed() >= ENDED_AFTER
    }

    fn last_seen(&self, meter: &Meter) -> String {
        let sent = format!("{} bytes were sent to it", meter.received_bytes());
        match self.loaded_percent {
            Some(percent) => format!("{sent}, and {percent} % were loaded"),
            None => sent,
        }
    }
}

/// What a target holds that was taken out of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// What it held before.
    OldData,
    /// Something else, or less.
    Changed,
}

/// Makes the target a primary again after a load that failed, and tells what it holds. One that was
/// empty is emptied.
///
/// # Errors
/// [`RestoreError`] when it cannot be told so: it still follows us.
pub async fn withdraw(
    target: &Target,
    prepared: &Prepared,
    limits: &RestoreLimits,
) -> Result<Withdrawn, RestoreError> {
    let mut admin = Admin::connect(target, limits.command).await?;
    // While a server loads it obeys nobody; without us it comes to an end.
    let until = Instant::now() + limits.busy_wait;
    let info = wait_for(&mut admin, until, |info| !info.is_loading).await?;
    let follows_us = info.follows.as_ref() == Some(&prepared.address());
    if info.role == Role::Replica && follows_us {
        admin.command(&["REPLICAOF", "NO", "ONE"]).await?;
    }
    let info = admin.info().await?;
    if info.role == Role::Replica {
        let detail = match &info.follows {
            Some(primary) => format!("it follows `{primary}`"),
            None => "it follows nobody that it names".to_owned(),
        };
        return Err(RestoreError::Interfered { address: target.address.clone(), detail });
    }
    put_back(&mut admin, &prepared.settings).await?;
    let before = &prepared.replication_id_before;
    let is_same_history = info.replication_id == *before || info.earlier_replication_id == *before;
    let (keys, functions) = (prepared.keys_before, prepared.functions_before);
    // A target drops its old data before it takes the new, or swaps them when it has all of it and
    // takes our history with them.
    let has_old = info.run_id == prepared.run_id
        && is_same_history
        && (info.keys, info.functions) == (keys, functions);
    if has_old {
        return Ok(Withdrawn::OldData);
    }
    if (keys, functions) != (0, 0) {
        return Ok(Withdrawn::Changed);
    }
    if (info.keys, info.functions) == (0, 0) {
        return Ok(Withdrawn::OldData);
    }
    lower(&mut admin, &prepared.write_guards).await?;
    let emptied = empty(target, limits).await;
    raise(&mut admin, &prepared.write_guards).await?;
    match emptied {
        Err(error) if error.is_denial() => {
            tracing::warn!(%error, "the target was empty, and does not let itself be emptied again");
            Ok(Withdrawn::Changed)
        }
        emptied => emptied.map(|()| Withdrawn::OldData),
    }
}

/// Sets settings to what they were.
pub(crate) async fn put_back(
    admin: &mut Admin,
    settings: &[ChangedSetting],
) -> Result<(), RestoreError> {
    for setting in settings {
        admin.set(&setting.name, &setting.before).await?;
    }
    Ok(())
}

/// Makes what a target has loaded durable on its side, and puts its settings back.
///
/// # Errors
/// [`RestoreError`], [`RestoreError::TargetRestarted`] when it was restarted before its data was
/// on its disk: then it may hold what it held before.
pub async fn make_durable(
    target: &Target,
    prepared: &Prepared,
    limits: &RestoreLimits,
) -> Result<(), RestoreError> {
    let mut admin = Admin::connect(target, limits.command).await?;
    let info = admin.info().await?;
    still_primary(&info, &prepared.run_id, &target.address)?;
    put_back(&mut admin, &prepared.settings).await?;
    let until = Instant::now() + limits.busy_wait;
    let saved = if info.persistence.aof_enabled {
        rewritten(&mut admin, until).await?
    } else {
        save_now(&mut admin, until).await?
    };
    let is_ok = match saved.persistence {
        persistence if persistence.aof_enabled => persistence.aof_rewrite_ok,
        persistence => persistence.save_ok,
    };
    still_primary(&saved, &prepared.run_id, &target.address)?;
    if !is_ok && keeps_nothing(&mut admin, &saved).await? {
        tracing::warn!(target = %target.address, "the target keeps nothing on its disk, and could not save when told to");
        return Ok(());
    }
    if is_ok {
        return Ok(());
    }
    let detail = "its background save or AOF rewrite failed; see its log".to_owned();
    Err(RestoreError::NotDurable { address: target.address.clone(), detail })
}

/// Has a server that follows no longer an AOF of all that it holds. While it synchronises it keeps none; it
/// begins one by itself as soon as it has loaded, and tells that it keeps one only from then on. So the rewrite
/// that is told of last was of the new data, and only one that failed has to be asked for again.
async fn rewritten(admin: &mut Admin, until: Instant) -> Result<ServerInfo, RestoreError> {
    let info = wait_for(admin, until, |info| !info.persistence.aof_rewriting).await?;
    if info.persistence.aof_rewrite_ok {
        return Ok(info);
    }
    match admin.command(&["BGREWRITEAOF"]).await {
        Err(error) if error.is_denial() => return Ok(info),
        told => told?,
    };
    wait_for(admin, until, |info| !info.persistence.aof_rewriting).await
}

/// Whether it is the process that was restored, and what it holds is its own.
pub(crate) fn still_primary(
    info: &ServerInfo,
    run_id: &str,
    address: &Address,
) -> Result<(), RestoreError> {
    let address = address.clone();
    if info.run_id != run_id {
        return Err(RestoreError::TargetRestarted { address });
    }
    match (&info.role, &info.follows) {
        (Role::Primary, _) => Ok(()),
        (Role::Replica, primary) => {
            let detail = primary.as_ref().map_or_else(String::new, |primary| {
                format!("it follows `{primary}`, which has other data")
            });
            Err(RestoreError::Interfered { address, detail })
        }
    }
}

/// Has a server save all that it holds now.
pub(crate) async fn save_now(
    admin: &mut Admin,
    until: Instant,
) -> Result<ServerInfo, RestoreError> {
    loop {
        // A save that runs already may have begun before the data was there.
        wait_for(admin, until, |info| !info.persistence.saving).await?;
        match admin.command(&["BGSAVE"]).await {
            // Somebody else's child was faster.
            Err(error) if error.is_in_progress() && Instant::now() < until => {
                tokio::time::sleep(LOOK_LAST).await;
            }
            told => {
                told?;
                return wait_for(admin, until, |info| !info.persistence.saving).await;
            }
        }
    }
}

/// Looks at a server until something is so.
pub(crate) async fn wait_for(
    admin: &mut Admin,
    until: Instant,
    is_so: impl Fn(&ServerInfo) -> bool,
) -> Result<ServerInfo, RestoreError> {
    let (mut pause, began) = (LOOK_FIRST, Instant::now());
    loop {
        let info = admin.info().await?;
        if is_so(&info) {
            return Ok(info);
        }
        if Instant::now() >= until {
            return Err(RestoreError::Target(ProbeError::TimedOut {
                address: admin.address(),
                seconds: began.elapsed().as_secs(),
            }));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_LAST);
    }
}
