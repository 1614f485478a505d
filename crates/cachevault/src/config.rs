//! One typed configuration from flags, environment and a TOML file, in this order of precedence.
//!
//! [`Settings`] is what each of them may say, all optional; [`Config`] is what holds. A setting
//! named `zstd_level` in the file is `--zstd-level` on the command line and
//! `CACHEVAULT_ZSTD_LEVEL` in the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cachevault_api::EventStreamLimits;
use cachevault_app::{TokenAuthority, WebhookRules};
use cachevault_domain::{BACKUPS_WITH_FILES_MAX, Backoff, Identity, MissedWindow};
use cachevault_engine::{CaptureLimits, OurAddress, RestoreLimits, SourceLimits};
use cachevault_jobs::JobSettings;
use clap::ValueEnum;
use jiff::SignedDuration;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use ureq::tls::RootCerts;

use crate::keystone::{Keystone, trusted};
use crate::listen::TlsFiles;
use crate::stores::StoreConfig;

const PREFIX: &str = "CACHEVAULT_";
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do about a window in which no service ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MissedWindows {
    /// Record that there is no backup of it.
    Skip,
    /// Make the backup at once.
    CatchUp,
}

impl From<MissedWindows> for MissedWindow {
    fn from(rule: MissedWindows) -> Self {
        match rule {
            MissedWindows::Skip => Self::Skip,
            MissedWindows::CatchUp => Self::CatchUp,
        }
    }
}

/// What flags, environment or file may say. Durations are written like `30s`, `10m` or `6h`.
#[derive(Debug, Default, Clone, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// TOML file with any of the settings below
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,

    /// Address to listen on [default: 127.0.0.1:8635]
    #[arg(long, value_name = "ADDR", env = "CACHEVAULT_LISTEN")]
    listen: Option<SocketAddr>,

    /// PEM file with the certificate, and those that vouch for it, to answer by TLS; it is read again
    /// when it changes [default: plain HTTP]
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_TLS_CERT_FILE")]
    tls_cert_file: Option<PathBuf>,

    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_TLS_KEY_FILE")]
    tls_key_file: Option<PathBuf>,

    /// PEM file with the authorities of which clients have to present a certificate
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_TLS_CLIENT_CA_FILE")]
    tls_client_ca_file: Option<PathBuf>,

    /// Connections of clients that are open at a time, 1 to 65536 [default: 1024]
    #[arg(long, value_name = "N", env = "CACHEVAULT_CONNECTIONS_MAX")]
    connections_max: Option<usize>,

    /// Address for Prometheus: `/metrics`, for whoever reaches it; left out, there is none
    #[arg(long, value_name = "ADDR", env = "CACHEVAULT_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,

    /// Folder for catalog, keys and backups [default: ~/.cachevault]
    #[arg(long, value_name = "DIR", env = "CACHEVAULT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// URL under which clients reach the service, for credentials.json and download links
    /// [default: http:// or https:// and the address listened on; in links, the host that the client names]
    #[arg(long, value_name = "URL", env = "CACHEVAULT_PUBLIC_URL")]
    public_url: Option<String>,

    /// Name of the region, as SDKs want one [default: local]
    #[arg(long, value_name = "NAME", env = "CACHEVAULT_REGION")]
    region: Option<String>,

    /// Format of log lines [default: text]
    #[arg(long, value_name = "FORMAT", env = "CACHEVAULT_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// Least level to log: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "CACHEVAULT_LOG_LEVEL")]
    log_level: Option<String>,

    /// Backups that run at a time, 1 to 64 [default: 4]
    #[arg(long, value_name = "N", env = "CACHEVAULT_JOBS_MAX")]
    jobs_max: Option<usize>,

    /// Backups of instances with the same host, as their addresses name it, that run at a time on all
    /// nodes, 1 to 64 [default: 1]
    #[arg(long, value_name = "N", env = "CACHEVAULT_HOST_JOBS_MAX")]
    host_jobs_max: Option<u32>,

    /// Memory of a source's machine that a snapshot must leave free, percent of all, 0 to 100
    /// [default: 5]
    #[arg(long, value_name = "PERCENT", env = "CACHEVAULT_MEMORY_RESERVE_PERCENT")]
    memory_reserve_percent: Option<u8>,

    /// Memory that a source may copy because it is written to during a snapshot, percent of what it
    /// uses, 1 to 1000 [default: 100]
    #[arg(long, value_name = "PERCENT", env = "CACHEVAULT_COW_PERCENT_MAX")]
    cow_percent_max: Option<u16>,

    /// For how long its last fork may have stopped a source that is to fork for a backup
    /// [default: 10s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_FORK_PAUSE_MAX")]
    fork_pause_max: Option<String>,

    /// Longest time that a source may take to answer during a snapshot, three times in a row
    /// [default: 2s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_PING_MAX")]
    ping_max: Option<String>,

    /// For how long a replica that is captured may have heard nothing of its primary [default: 30s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_REPLICA_LAG_MAX")]
    replica_lag_max: Option<String>,

    /// Downloads that run at a time, 1 to 256 [default: 8]
    #[arg(long, value_name = "N", env = "CACHEVAULT_DOWNLOADS_MAX")]
    downloads_max: Option<usize>,

    /// Streams of events that are open at a time, 1 to 16384; one project gets a quarter of them
    /// [default: 256]
    #[arg(long, value_name = "N", env = "CACHEVAULT_EVENT_STREAMS_MAX")]
    event_streams_max: Option<usize>,

    /// How long a stream of events goes on before its client has to come back [default: 15m]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_EVENT_STREAM_LIFETIME")]
    event_stream_lifetime: Option<String>,

    /// Whether webhooks may be reached without TLS, by http:// [default: false]
    #[arg(long, value_name = "BOOL", env = "CACHEVAULT_WEBHOOK_HTTP")]
    webhook_http: Option<bool>,

    /// Whether webhooks may have loopback and link-local addresses
    /// [default: false]
    #[arg(long, value_name = "BOOL", env = "CACHEVAULT_WEBHOOK_LOCAL")]
    webhook_local: Option<bool>,

    /// PEM file with the certificates to know webhooks by [default: those that everyone trusts]
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_WEBHOOK_CA_FILE")]
    webhook_ca_file: Option<PathBuf>,

    /// How old an event may become before a webhook that cannot be told of it never is
    /// [default: 24h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_WEBHOOK_GIVE_UP")]
    webhook_give_up: Option<String>,

    /// Whether to capture from a replica in sync where there is one [default: true]
    #[arg(long, value_name = "BOOL", env = "CACHEVAULT_PREFER_REPLICA")]
    prefer_replica: Option<bool>,

    /// Whether to back up instances without a replica, which the vendor refuses [default: true]
    #[arg(long, value_name = "BOOL", env = "CACHEVAULT_SINGLE_NODE_BACKUPS")]
    single_node_backups: Option<bool>,

    /// zstd level of stored backups, -7 to 19; servers have compressed most of an RDB already, so
    /// higher ones cost much and gain little [default: -1]
    #[arg(
        long,
        value_name = "LEVEL",
        env = "CACHEVAULT_ZSTD_LEVEL",
        allow_negative_numbers = true
    )]
    zstd_level: Option<i32>,

    /// Whether stored backups are compressed [default: true]
    #[arg(long, value_name = "BOOL", env = "CACHEVAULT_COMPRESS")]
    compress: Option<bool>,

    /// Where backups are kept: file:///folder, s3://bucket/folder?endpoint=URL&region=NAME, or
    /// obs://… [default: the folder `backups` in the data folder]
    #[arg(long, value_name = "URL", env = "CACHEVAULT_STORE")]
    store: Option<String>,

    /// File with the key of the bucket, in the form of AWS' shared credentials file, read again
    /// when it changes [default: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what
    /// the platform offers]
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_STORE_CREDENTIALS_FILE")]
    store_credentials_file: Option<PathBuf>,

    /// Whether to make the bucket where it is missing [default: false]
    #[arg(long, value_name = "BOOL", env = "CACHEVAULT_STORE_CREATE_BUCKET")]
    store_create_bucket: Option<bool>,

    /// MiB of each running backup that may wait on the local disk for a bucket that stalls, so that
    /// the source does not have to: `jobs_max` times that in all [default: 4096]
    #[arg(long, value_name = "MIB", env = "CACHEVAULT_SPOOL_MIB")]
    spool_mib: Option<u64>,

    /// Whether backups are encrypted on their way to the store, each with a key of its own under
    /// the master key [default: true]
    #[arg(long, value_name = "BOOL", env = "CACHEVAULT_ENCRYPT")]
    encrypt: Option<bool>,

    /// How long a bucket that does not answer is asked again [default: 10m]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_STORE_TIMEOUT")]
    store_timeout: Option<String>,

    /// Longest capture, waiting included [default: 6h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_CAPTURE_TIMEOUT")]
    capture_timeout: Option<String>,

    /// Longest silence of a source during a capture, and of a client during a download
    /// [default: 60s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_STALL_TIMEOUT")]
    stall_timeout: Option<String>,

    /// Longest time that reading a stored backup back may take [default: 6h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_VERIFY_TIMEOUT")]
    verify_timeout: Option<String>,

    /// Longest time that committing a backup, or removing its files, may take [default: 30m]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_COMMIT_TIMEOUT")]
    commit_timeout: Option<String>,

    /// Longest wait for another fork of a source to end, and for memory for ours [default: 30m]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_BUSY_TIMEOUT")]
    busy_timeout: Option<String>,

    /// Time for connecting to a server and for each command [default: 5s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_COMMAND_TIMEOUT")]
    command_timeout: Option<String>,

    /// Address under which targets of restores reach this service [default: the one by which it
    /// reaches them]
    #[arg(long, value_name = "HOST", env = "CACHEVAULT_RESTORE_HOST")]
    restore_host: Option<String>,

    /// Port on which targets of restores reach this service; 0 means any [default: 0]
    #[arg(long, value_name = "PORT", env = "CACHEVAULT_RESTORE_PORT")]
    restore_port: Option<u16>,

    /// Port that targets are told, where something in between maps ports [default: the one
    /// listened on]
    #[arg(long, value_name = "PORT", env = "CACHEVAULT_RESTORE_ANNOUNCED_PORT")]
    restore_announced_port: Option<u16>,

    /// PEM file with the certificate for targets that replicate by TLS: one that their
    /// `tls-ca-cert-file` trusts
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_RESTORE_TLS_CERT_FILE")]
    restore_tls_cert_file: Option<PathBuf>,

    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_RESTORE_TLS_KEY_FILE")]
    restore_tls_key_file: Option<PathBuf>,

    /// Longest time that a target may take to load [default: 6h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_RESTORE_TIMEOUT")]
    restore_timeout: Option<String>,

    /// Server binaries for drills, paths or names; the first that loads a backup is taken
    /// [default: redis-server,valkey-server]
    #[arg(long, value_name = "FILES", env = "CACHEVAULT_DRILL_SERVERS", value_delimiter = ',')]
    drill_servers: Option<Vec<PathBuf>>,

    /// How long ago the files of a backup may have been read at most: so often each of them is read
    /// again and checked [default: 168h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_CHECK_EVERY")]
    check_every: Option<String>,

    /// How old what no backup is made of must be before it is removed from the store; longer than
    /// `capture_timeout` and `commit_timeout` together [default: 24h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_SWEEP_GRACE")]
    sweep_grace: Option<String>,

    /// How old the proof of an instance's newest backup may become before a drill is done; left
    /// out, drills are done only when asked for
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_DRILL_EVERY")]
    drill_every: Option<String>,

    /// What to do about the window of an automatic backup in which no service ran: `skip` only
    /// records it, `catch-up` makes the backup at once [default: skip]
    #[arg(long, value_name = "RULE", env = "CACHEVAULT_MISSED_WINDOWS")]
    missed_windows: Option<MissedWindows>,

    /// Backups with files that an instance may have, 1 to 10000: of more the oldest automatic one
    /// goes first [default: 24, as the vendor has it]
    #[arg(long, value_name = "N", env = "CACHEVAULT_BACKUPS_MAX")]
    backups_max: Option<usize>,

    /// Attempts at a backup when what went wrong may pass, 1 to 20 [default: 3]
    #[arg(long, value_name = "N", env = "CACHEVAULT_ATTEMPTS_MAX")]
    attempts_max: Option<u32>,

    /// Pause before the second attempt; it doubles each time [default: 2s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_RETRY_PAUSE")]
    retry_pause: Option<String>,

    /// How old the shown figures of an instance may become [default: 30s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_OBSERVE_EVERY")]
    observe_every: Option<String>,

    /// How long deleted and expired backups stay listed [default: 168h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_HISTORY")]
    history: Option<String>,

    /// How long it is kept who did what [default: 9600h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_AUDIT_KEEP")]
    audit_keep: Option<String>,

    /// How long it is kept what has happened [default: 2160h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_EVENTS_KEEP")]
    events_keep: Option<String>,

    /// How long a token works that a user signs in for [default: 24h]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_TOKEN_LIFETIME")]
    token_lifetime: Option<String>,

    /// URL of another Keystone, which ends with `/v3`, whose tokens count too: its roles reader,
    /// member or operator, and admin; its projects are created here when they first come
    #[arg(long, value_name = "URL", env = "CACHEVAULT_KEYSTONE_URL")]
    keystone_url: Option<String>,

    /// PEM file with the certificates to know that Keystone by [default: those that everyone trusts]
    #[arg(long, value_name = "FILE", env = "CACHEVAULT_KEYSTONE_CA_FILE")]
    keystone_ca_file: Option<PathBuf>,

    /// Longest time that a request may take [default: 60s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_REQUEST_TIMEOUT")]
    request_timeout: Option<String>,

    /// How long running backups may go on after a signal to stop [default: 30s]
    #[arg(long, value_name = "TIME", env = "CACHEVAULT_SHUTDOWN_GRACE")]
    shutdown_grace: Option<String>,
}

/// The configuration that holds.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) store: StoreConfig,
    pub(crate) listen: SocketAddr,
    /// Plain HTTP without.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) connections_max: usize,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) data_dir: PathBuf,
    pub(crate) public_url: Option<String>,
    pub(crate) downloads_max: usize,
    pub(crate) event_streams: EventStreamLimits,
    pub(crate) webhook_rules: WebhookRules,
    /// Whom webhooks are known by.
    pub(crate) webhook_trusted: RootCerts,
    pub(crate) webhook_give_up: Duration,
    pub(crate) region: String,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: LevelFilter,
    pub(crate) single_node_backups: bool,
    pub(crate) jobs: JobSettings,
    /// Where targets of restores find us.
    pub(crate) ours: OurAddress,
    pub(crate) drill_servers: Vec<PathBuf>,
    pub(crate) drill_every: Option<Duration>,
    pub(crate) missed_windows: MissedWindow,
    pub(crate) backups_max: usize,
    pub(crate) check_every: Duration,
    pub(crate) sweep_grace: Duration,
    pub(crate) observe_every: Duration,
    pub(crate) history: SignedDuration,
    pub(crate) audit_keep: Duration,
    pub(crate) events_keep: Duration,
    pub(crate) token_lifetime: SignedDuration,
    pub(crate) keystone: Option<Arc<dyn TokenAuthority>>,
    pub(crate) request_timeout: Duration,
    pub(crate) shutdown_grace: Duration,
}

impl Config {
    /// How the service's own URLs begin.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Puts flags and environment (in `given`) before the file, and the defaults behind.
    ///
    /// # Errors
    /// Says which setting of which source is unknown or bad.
    pub(crate) fn resolve(given: Settings, command: &clap::Command) -> anyhow::Result<Self> {
        refuse_unknown_variables(command)?;
        let settings = match &given.config {
            Some(path) => {
                let file = read_file(path)?;
                given.or(file)
            }
            None => given,
        };
        settings.validate()
    }
}

/// A misspelt variable would otherwise be passed over in silence.
fn refuse_unknown_variables(command: &clap::Command) -> anyhow::Result<()> {
    let known: Vec<_> = command
        .get_subcommands()
        .flat_map(|sub| sub.get_arguments())
        .filter_map(|argument| argument.get_env())
        .collect();
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // Kubernetes says so where a service of the cluster is called `cachevault`.
        let of_kubernetes =
            text.starts_with("CACHEVAULT_PORT") || text.starts_with("CACHEVAULT_SERVICE_");
        let is_ours = text.starts_with(PREFIX) && !of_kubernetes;
        if is_ours && !known.contains(&name.as_os_str()) {
            bail!(
                "the environment variable `{}` is no setting; see `cachevault serve --help`",
                name.display()
            );
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let metadata = std::fs::metadata(path).with_context(|| format!("read `{}`", path.display()))?;
    ensure!(
        metadata.len() <= CONFIG_BYTES_MAX,
        "`{}` is too large for a configuration",
        path.display()
    );
    let text =
        std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in `{}`", path.display()))
}

impl Settings {
    /// Each setting from here, else from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            config: self.config,
            listen: self.listen.or(other.listen),
            tls_cert_file: self.tls_cert_file.or(other.tls_cert_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
            tls_client_ca_file: self.tls_client_ca_file.or(other.tls_client_ca_file),
            connections_max: self.connections_max.or(other.connections_max),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            data_dir: self.data_dir.or(other.data_dir),
            public_url: self.public_url.or(other.public_url),
            region: self.region.or(other.region),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
            jobs_max: self.jobs_max.or(other.jobs_max),
            host_jobs_max: self.host_jobs_max.or(other.host_jobs_max),
            memory_reserve_percent: self.memory_reserve_percent.or(other.memory_reserve_percent),
            cow_percent_max: self.cow_percent_max.or(other.cow_percent_max),
            fork_pause_max: self.fork_pause_max.or(other.fork_pause_max),
            ping_max: self.ping_max.or(other.ping_max),
            replica_lag_max: self.replica_lag_max.or(other.replica_lag_max),
            downloads_max: self.downloads_max.or(other.downloads_max),
            event_streams_max: self.event_streams_max.or(other.event_streams_max),
            event_stream_lifetime: self.event_stream_lifetime.or(other.event_stream_lifetime),
            webhook_http: self.webhook_http.or(other.webhook_http),
            webhook_local: self.webhook_local.or(other.webhook_local),
            webhook_ca_file: self.webhook_ca_file.or(other.webhook_ca_file),
            webhook_give_up: self.webhook_give_up.or(other.webhook_give_up),
            prefer_replica: self.prefer_replica.or(other.prefer_replica),
            single_node_backups: self.single_node_backups.or(other.single_node_backups),
            zstd_level: self.zstd_level.or(other.zstd_level),
            compress: self.compress.or(other.compress),
            store: self.store.or(other.store),
            store_credentials_file: self.store_credentials_file.or(other.store_credentials_file),
            store_create_bucket: self.store_create_bucket.or(other.store_create_bucket),
            spool_mib: self.spool_mib.or(other.spool_mib),
            encrypt: self.encrypt.or(other.encrypt),
            store_timeout: self.store_timeout.or(other.store_timeout),
            capture_timeout: self.capture_timeout.or(other.capture_timeout),
            stall_timeout: self.stall_timeout.or(other.stall_timeout),
            verify_timeout: self.verify_timeout.or(other.verify_timeout),
            commit_timeout: self.commit_timeout.or(other.commit_timeout),
            busy_timeout: self.busy_timeout.or(other.busy_timeout),
            command_timeout: self.command_timeout.or(other.command_timeout),
            restore_host: self.restore_host.or(other.restore_host),
            restore_port: self.restore_port.or(other.restore_port),
            restore_announced_port: self.restore_announced_port.or(other.restore_announced_port),
            restore_tls_cert_file: self.restore_tls_cert_file.or(other.restore_tls_cert_file),
            restore_tls_key_file: self.restore_tls_key_file.or(other.restore_tls_key_file),
            restore_timeout: self.restore_timeout.or(other.restore_timeout),
            drill_servers: self.drill_servers.or(other.drill_servers),
            check_every: self.check_every.or(other.check_every),
            sweep_grace: self.sweep_grace.or(other.sweep_grace),
            drill_every: self.drill_every.or(other.drill_every),
            attempts_max: self.attempts_max.or(other.attempts_max),
            retry_pause: self.retry_pause.or(other.retry_pause),
            observe_every: self.observe_every.or(other.observe_every),
            history: self.history.or(other.history),
            audit_keep: self.audit_keep.or(other.audit_keep),
            events_keep: self.events_keep.or(other.events_keep),
            token_lifetime: self.token_lifetime.or(other.token_lifetime),
            keystone_url: self.keystone_url.or(other.keystone_url),
            keystone_ca_file: self.keystone_ca_file.or(other.keystone_ca_file),
            missed_windows: self.missed_windows.or(other.missed_windows),
            backups_max: self.backups_max.or(other.backups_max),
            request_timeout: self.request_timeout.or(other.request_timeout),
            shutdown_grace: self.shutdown_grace.or(other.shutdown_grace),
        }
    }

    fn store(&self) -> anyhow::Result<StoreConfig> {
        Ok(StoreConfig {
            url: self.store.as_deref().map(str::parse).transpose()?,
            credentials_file: self.store_credentials_file.clone(),
            create_bucket: self.store_create_bucket.unwrap_or(false),
            encrypt: self.encrypt.unwrap_or(true),
            spool_bytes: within("spool_mib", self.spool_mib.unwrap_or(4096), 0..=1 << 20)? << 20,
            patience: time("store_timeout", self.store_timeout.as_deref(), "10m")?,
        })
    }

    fn tls(&self) -> anyhow::Result<Option<TlsFiles>> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: self.tls_client_ca_file.clone(),
            })),
            (None, None) if self.tls_client_ca_file.is_none() => Ok(None),
            _ => bail!(
                "`tls_cert_file` and `tls_key_file` go together, and `tls_client_ca_file` needs them"
            ),
        }
    }

    fn jobs(&self) -> anyhow::Result<JobSettings> {
        let command = time("command_timeout", self.command_timeout.as_deref(), "5s")?;
        let capture = CaptureLimits {
            command,
            stall: time("stall_timeout", self.stall_timeout.as_deref(), "60s")?,
            busy_wait: time("busy_timeout", self.busy_timeout.as_deref(), "30m")?,
            total: time("capture_timeout", self.capture_timeout.as_deref(), "6h")?,
            source: Some(self.source_limits()?),
        };
        let attempts_max = within("attempts_max", self.attempts_max.unwrap_or(3), 1..=20)?;
        let zstd_level = within("zstd_level", self.zstd_level.unwrap_or(-1), -7..=19)?;
        Ok(JobSettings {
            running_max: within("jobs_max", self.jobs_max.unwrap_or(4), 1..=64)?,
            host_max: within("host_jobs_max", self.host_jobs_max.unwrap_or(1), 1..=64)?,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            backoff: Backoff {
                first: time("retry_pause", self.retry_pause.as_deref(), "2s")?,
                longest: Duration::from_secs(60),
                attempts_max,
            },
            // Crashes count too; only a job that brings the process down again and again has more.
            attempts_max: 20,
            prefer_replica: self.prefer_replica.unwrap_or(true),
            zstd_level: self.compress.unwrap_or(true).then_some(zstd_level),
            restore: RestoreLimits {
                command,
                stall: capture.stall,
                busy_wait: capture.busy_wait,
                total: time("restore_timeout", self.restore_timeout.as_deref(), "6h")?,
            },
            capture,
            verify: time("verify_timeout", self.verify_timeout.as_deref(), "6h")?,
            commit: time("commit_timeout", self.commit_timeout.as_deref(), "30m")?,
        })
    }

    fn source_limits(&self) -> anyhow::Result<SourceLimits> {
        let reserve = self.memory_reserve_percent.unwrap_or(5);
        let copied = self.cow_percent_max.unwrap_or(100);
        Ok(SourceLimits {
            memory_reserve_percent: within("memory_reserve_percent", reserve, 0..=100)?,
            copied_percent_max: within("cow_percent_max", copied, 1..=1000)?,
            fork_pause_max: time("fork_pause_max", self.fork_pause_max.as_deref(), "10s")?,
            answer_max: time("ping_max", self.ping_max.as_deref(), "2s")?,
            replica_lag_max: time("replica_lag_max", self.replica_lag_max.as_deref(), "30s")?,
        })
    }

    fn validate(self) -> anyhow::Result<Config> {
        let (store, tls, jobs) = (self.store()?, self.tls()?, self.jobs()?);
        let sweep_grace = time("sweep_grace", self.sweep_grace.as_deref(), "24h")?;
        ensure!(
            sweep_grace > jobs.capture.total.saturating_add(jobs.commit),
            "`sweep_grace` must be longer than `capture_timeout` and `commit_timeout` together"
        );
        let drill_every = self.drill_every.as_deref();
        let drill_every =
            drill_every.map(|text| time("drill_every", Some(text), text)).transpose()?;
        Ok(Config {
            store,
            listen: self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8635))),
            tls,
            connections_max: within(
                "connections_max",
                self.connections_max.unwrap_or(1024),
                1..=65_536,
            )?,
            metrics_listen: self.metrics_listen,
            data_dir: self.data_dir.map_or_else(default_data_dir, Ok)?,
            public_url: self.public_url.map(|url| public_url(&url)).transpose()?,
            downloads_max: within("downloads_max", self.downloads_max.unwrap_or(8), 1..=256)?,
            event_streams: EventStreamLimits::new(
                within("event_streams_max", self.event_streams_max.unwrap_or(256), 1..=16_384)?,
                time("event_stream_lifetime", self.event_stream_lifetime.as_deref(), "15m")?,
            ),
            webhook_rules: WebhookRules {
                plain_http: self.webhook_http.unwrap_or(false),
                local: self.webhook_local.unwrap_or(false),
            },
            webhook_trusted: webhook_trusted(self.webhook_ca_file.as_deref())?,
            webhook_give_up: time("webhook_give_up", self.webhook_give_up.as_deref(), "24h")?,
            region: region(self.region.unwrap_or_else(|| "local".to_owned()))?,
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            log_level: log_level(self.log_level.as_deref().unwrap_or("info"))?,
            single_node_backups: self.single_node_backups.unwrap_or(true),
            ours: OurAddress {
                host: self.restore_host,
                port: self.restore_port.unwrap_or(0),
                announced_port: self.restore_announced_port,
                identity: identity(
                    self.restore_tls_cert_file.as_deref(),
                    self.restore_tls_key_file.as_deref(),
                )?,
            },
            jobs,
            drill_servers: self
                .drill_servers
                .unwrap_or_else(|| vec!["redis-server".into(), "valkey-server".into()]),
            drill_every,
            check_every: time("check_every", self.check_every.as_deref(), "168h")?,
            sweep_grace,
            observe_every: time("observe_every", self.observe_every.as_deref(), "30s")?,
            missed_windows: self.missed_windows.unwrap_or(MissedWindows::Skip).into(),
            backups_max: within(
                "backups_max",
                self.backups_max.unwrap_or(BACKUPS_WITH_FILES_MAX),
                1..=10_000,
            )?,
            audit_keep: time("audit_keep", self.audit_keep.as_deref(), "9600h")?,
            events_keep: time("events_keep", self.events_keep.as_deref(), "2160h")?,
            history: signed_time("history", self.history.as_deref(), "168h")?,
            token_lifetime: signed_time("token_lifetime", self.token_lifetime.as_deref(), "24h")?,
            keystone: keystone(self.keystone_url.as_deref(), self.keystone_ca_file.as_deref())?,
            request_timeout: time("request_timeout", self.request_timeout.as_deref(), "60s")?,
            shutdown_grace: time("shutdown_grace", self.shutdown_grace.as_deref(), "30s")?,
        })
    }
}

/// `~/.cachevault`.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    Ok(home.context("there is no home folder; say where with --data-dir")?.join(".cachevault"))
}

/// A certificate and its key out of their files.
fn identity(certificate: Option<&Path>, key: Option<&Path>) -> anyhow::Result<Option<Identity>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
    };
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(Identity { certificate_pem: read(certificate)?, key_pem: read(key)?.into() }))
        }
        _ => bail!("`restore_tls_cert_file` and `restore_tls_key_file` go together"),
    }
}

fn time(name: &str, text: Option<&str>, default: &str) -> anyhow::Result<Duration> {
    const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let text = text.unwrap_or(default);
    let parsed = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    let time = parsed.with_context(|| {
        format!("`{name}` is `{text}`, which is no time such as `30s`, `10m` or `6h`")
    })?;
    ensure!(
        !time.is_zero() && time <= LONGEST,
        "`{name}` is `{text}`; it must be more than nothing and at most ten years"
    );
    Ok(time)
}

fn signed_time(name: &str, text: Option<&str>, default: &str) -> anyhow::Result<SignedDuration> {
    let time = time(name, text, default)?;
    SignedDuration::try_from(time).with_context(|| format!("`{name}` is too long"))
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> anyhow::Result<T> {
    ensure!(
        range.contains(&value),
        "`{name}` is {value}; it must be {} to {}",
        range.start(),
        range.end()
    );
    Ok(value)
}

fn log_level(text: &str) -> anyhow::Result<LevelFilter> {
    text.parse().ok().with_context(|| {
        format!("`log_level` is `{text}`; it must be error, warn, info, debug or trace")
    })
}

fn public_url(text: &str) -> anyhow::Result<String> {
    let url = url::Url::parse(text)
        .with_context(|| format!("`public_url` is `{text}`, which is no URL"))?;
    let plain =
        matches!(url.scheme(), "http" | "https") && url.path() == "/" && url.query().is_none();
    ensure!(
        plain,
        "`public_url` is `{text}`; it must be http:// or https://, a host and perhaps a port, without a path"
    );
    Ok(text.trim_end_matches('/').to_owned())
}

fn keystone(
    url: Option<&str>,
    ca_file: Option<&Path>,
) -> anyhow::Result<Option<Arc<dyn TokenAuthority>>> {
    let Some(text) = url else {
        ensure!(ca_file.is_none(), "`keystone_ca_file` needs `keystone_url`");
        return Ok(None);
    };
    let url = url::Url::parse(text)
        .with_context(|| format!("`keystone_url` is `{text}`, which is no URL"))?;
    let fits = matches!(url.scheme(), "http" | "https")
        && url.path().trim_end_matches('/').ends_with("/v3")
        && url.query().is_none();
    ensure!(fits, "`keystone_url` is `{text}`; it must be http:// or https:// and end with /v3");
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
    };
    let ca_pem = ca_file.map(read).transpose()?;
    Ok(Some(Arc::new(Keystone::new(text, ca_pem.as_deref())?)))
}

fn webhook_trusted(ca_file: Option<&Path>) -> anyhow::Result<RootCerts> {
    let Some(path) = ca_file else { return Ok(RootCerts::WebPki) };
    let pem = std::fs::read_to_string(path);
    trusted("webhook_ca_file", &pem.with_context(|| format!("read `{}`", path.display()))?)
}

fn region(text: String) -> anyhow::Result<String> {
    let plain = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    ensure!(plain, "`region` is `{text}`; it must be 1 to 64 letters, digits, `-` and `_`");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_toml(text: &str) -> anyhow::Result<Config> {
        toml::from_str::<Settings>(text)?.validate()
    }

    #[test]
    fn nothing_said_gives_the_documented_defaults() {
        let config = from_toml("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8635");
        assert!(config.data_dir.ends_with(".cachevault"));
        assert_eq!((config.jobs.zstd_level, config.jobs.running_max), (Some(-1), 4));
        assert_eq!(config.jobs.capture.total, Duration::from_secs(6 * 3600));
        assert_eq!(config.jobs.capture.source, Some(SourceLimits::default()));
    }

    #[test]
    fn what_is_nearer_wins() {
        let flags = Settings { zstd_level: Some(7), ..Settings::default() };
        let file = toml::from_str("zstd_level = 3\nregion = \"eu-test\"").unwrap();
        let config = flags.or(file).validate().unwrap();
        assert_eq!((config.jobs.zstd_level, config.region.as_str()), (Some(7), "eu-test"));
        let plain = Settings { compress: Some(false), ..Settings::default() };
        assert_eq!(plain.validate().unwrap().jobs.zstd_level, None);
    }

    #[test]
    fn an_unknown_or_bad_setting_is_named() {
        for (text, word) in [
            ("zstd_levle = 3", "zstd_levle"),
            ("zstd_level = 99", "zstd_level"),
            ("zstd_level = \"high\"", "zstd_level"),
            ("jobs_max = 0", "jobs_max"),
            ("host_jobs_max = 0", "host_jobs_max"),
            ("memory_reserve_percent = 101", "memory_reserve_percent"),
            ("cow_percent_max = 0", "cow_percent_max"),
            ("capture_timeout = \"soon\"", "capture_timeout"),
            ("capture_timeout = \"5h\"\nsweep_grace = \"5h20m\"", "sweep_grace"),
            ("stall_timeout = \"0s\"", "stall_timeout"),
            ("public_url = \"ftp://x\"", "public_url"),
            ("public_url = \"http://x/path\"", "public_url"),
            ("region = \"a b\"", "region"),
            ("keystone_url = \"https://x/v2.0\"", "keystone_url"),
            ("keystone_ca_file = \"ca.pem\"", "keystone_ca_file"),
            ("log_level = \"inof\"", "log_level"),
            ("listen = \"everywhere\"", "listen"),
            ("tls_cert_file = \"a.pem\"", "tls_key_file"),
            ("tls_client_ca_file = \"a.pem\"", "tls_client_ca_file"),
            ("connections_max = 0", "connections_max"),
        ] {
            let error = format!("{:#}", from_toml(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn every_setting_is_the_same_in_flag_and_variable() {
        use clap::Args;
        let command = Settings::augment_args(clap::Command::new("test"));
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap();
            let variable = argument.get_env().unwrap().to_str().unwrap();
            assert_eq!(variable, format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_")));
        }
    }
}
