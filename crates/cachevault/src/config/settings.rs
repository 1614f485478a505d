//! What flags, environment and file may say.

mod valid;

use std::net::SocketAddr;
use std::path::PathBuf;

use cachevault_api::ProxyHeader;
use cachevault_domain::MissedWindow;
use clap::ValueEnum;
use serde::Deserialize;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How trusted proxies say for whom they ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyHeaderName {
    /// The address of each hop, the nearest last.
    XForwardedFor,
    /// That of RFC 7239.
    Forwarded,
}

impl From<ProxyHeaderName> for ProxyHeader {
    fn from(name: ProxyHeaderName) -> Self {
        match name {
            ProxyHeaderName::XForwardedFor => Self::XForwardedFor,
            ProxyHeaderName::Forwarded => Self::Forwarded,
        }
    }
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
    pub(super) config: Option<PathBuf>,

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

    /// Those of them that one address may have, or one /64 network of IPv6; for trusted proxies this
    /// does not count [default: a quarter of connections_max, at least 16]
    #[arg(long, value_name = "N", env = "CACHEVAULT_CONNECTIONS_PER_ADDRESS")]
    connections_per_address: Option<usize>,

    /// Addresses and networks (10.0.0.0/24) of proxies that say for whom they ask; what anybody else
    /// says of that is not believed [default: none]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', env = "CACHEVAULT_TRUSTED_PROXIES")]
    trusted_proxies: Option<Vec<String>>,

    /// The header in which they say it [default: x-forwarded-for]
    #[arg(long, value_name = "NAME", env = "CACHEVAULT_PROXY_HEADER")]
    proxy_header: Option<ProxyHeaderName>,

    /// Address for Prometheus: `/metrics`, for whoever reaches it; left out, there is none
    #[arg(long, value_name = "ADDR", env = "CACHEVAULT_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,

    /// Folder for catalog, keys and backups [default: ~/.cachevault]
    #[arg(long, value_name = "DIR", env = "CACHEVAULT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// MiB that must stay free on the disks of the data folder and its `spool`: below that the service
    /// accepts no new backups, restores and drills, and is not ready; 0 turns this off [default: 64, of a
    /// disk below 1 GiB its sixteenth part]
    #[arg(long, value_name = "MIB", env = "CACHEVAULT_DISK_RESERVE_MIB")]
    disk_reserve_mib: Option<u64>,

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

    /// To which addresses instances may lead: networks such as `10.0.0.0/8`, addresses or `*`, with a
    /// `!` before those to which they may not; the first that is about an address decides [default:
    /// everywhere but to loopback, link-local and metadata addresses, and everywhere in projects that
    /// administer the service]
    #[arg(long, value_name = "RULES", env = "CACHEVAULT_INSTANCE_HOSTS", value_delimiter = ',')]
    instance_hosts: Option<Vec<String>>,

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
    /// higher ones cost much and gain little, and negative ones only store some of the next MiB
    /// after one that became smaller by less than a tenth [default: -1]
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

    /// Server binaries for drills, paths or names; tried in order until one proves the backup
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

    /// A backup with fewer keys than so many percent of those in the last good one has shrunk: that is
    /// an event, and the last one is held until `backup release`; 0 to 50, 0 for never [default: 10]
    #[arg(long, value_name = "N", env = "CACHEVAULT_SHRINK_PERCENT")]
    shrink_percent: Option<u8>,

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

/// Each of these from the first settings that say it.
macro_rules! nearer {
    ($first:ident, $second:ident; $($field:ident),+ $(,)?) => {
        Self { config: $first.config, $($field: $first.$field.or($second.$field)),+ }
    };
}

impl Settings {
    /// Each setting from here, else from `other`.
    pub(super) fn or(self, other: Self) -> Self {
        nearer! {
            self, other;
            listen, tls_cert_file, tls_key_file, tls_client_ca_file, connections_max,
            connections_per_address, trusted_proxies, proxy_header, metrics_listen, data_dir,
            disk_reserve_mib, public_url, region, log_format, log_level, jobs_max, host_jobs_max,
            memory_reserve_percent, cow_percent_max, fork_pause_max, ping_max, replica_lag_max,
            downloads_max, event_streams_max, event_stream_lifetime, webhook_http, webhook_local,
            webhook_ca_file, webhook_give_up, prefer_replica, single_node_backups, zstd_level,
            compress, store, store_credentials_file, store_create_bucket, spool_mib, encrypt,
            store_timeout, capture_timeout, stall_timeout, verify_timeout, commit_timeout,
            busy_timeout, command_timeout, restore_host, restore_port, restore_announced_port,
            restore_tls_cert_file, restore_tls_key_file, restore_timeout, drill_servers,
            check_every, sweep_grace, drill_every, attempts_max, retry_pause, observe_every,
            history, audit_keep, events_keep, token_lifetime, keystone_url, keystone_ca_file,
            missed_windows, backups_max, request_timeout, shutdown_grace, instance_hosts,
            shrink_percent,
        }
    }
}
