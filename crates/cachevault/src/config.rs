//! One typed configuration from flags, environment and a TOML file, in this order of precedence.
//!
//! [`Settings`] is what each of them may say, all optional; [`Config`] is what holds. A setting
//! named `zstd_level` in the file is `--zstd-level` on the command line and
//! `CACHEVAULT_ZSTD_LEVEL` in the environment.

mod settings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cachevault_api::EventStreamLimits;
use cachevault_app::{TokenAuthority, WebhookRules};
use cachevault_domain::{HostRules, MissedWindow};
use cachevault_engine::OurAddress;
use cachevault_jobs::JobSettings;
use jiff::SignedDuration;
use tracing::level_filters::LevelFilter;
use ureq::tls::RootCerts;

pub(crate) use settings::{LogFormat, Settings};

use crate::listen::{ConnectionLimits, TlsFiles};
use crate::stores::StoreConfig;

const PREFIX: &str = "CACHEVAULT_";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The configuration that holds.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) store: StoreConfig,
    pub(crate) listen: SocketAddr,
    /// Plain HTTP without.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) connections: ConnectionLimits,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) data_dir: PathBuf,
    /// Free space below which the service accepts no new work; by the size of the disks without.
    pub(crate) disk_reserve_bytes: Option<u64>,
    pub(crate) public_url: Option<String>,
    pub(crate) downloads_max: usize,
    pub(crate) event_streams: EventStreamLimits,
    pub(crate) webhook_rules: WebhookRules,
    pub(crate) instance_hosts: HostRules,
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
    toml::from_str(&read_text(path)?).with_context(|| format!("in `{}`", path.display()))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(path)?).with_context(|| format!("`{}` is no text", path.display()))
}

/// A file of settings, or one that a setting names.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let metadata = std::fs::metadata(path).with_context(|| format!("read `{name}`"))?;
    ensure!(metadata.len() <= FILE_BYTES_MAX, "`{name}` is larger than 1 MiB");
    std::fs::read(path).with_context(|| format!("read `{name}`"))
}

/// `~/.cachevault`.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    Ok(home.context("there is no home folder; say where with --data-dir")?.join(".cachevault"))
}
