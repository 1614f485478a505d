//! From settings to a configuration: defaults, bounds and what goes together.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cachevault_api::{EventStreamLimits, Network, ProxyHeader, TrustedProxies};
use cachevault_app::{TokenAuthority, WebhookRules};
use cachevault_domain::{
    BACKUPS_WITH_FILES_MAX, Backoff, HostRule, HostRules, Identity, ShrinkRule,
};
use cachevault_engine::{CaptureLimits, OurAddress, RestoreLimits, SourceLimits};
use cachevault_jobs::JobSettings;
use jiff::SignedDuration;
use tracing::level_filters::LevelFilter;
use ureq::tls::RootCerts;

use super::{LogFormat, MissedWindows, Settings};
use crate::config::{Config, default_data_dir, read_text};
use crate::keystone::{Keystone, trusted};
use crate::listen::{ConnectionLimits, TlsFiles};
use crate::private::require_private;
use crate::stores::StoreConfig;

/// What a browser or a client with a pool of connections may want in any case.
const OF_ADDRESS_MIN: usize = 16;

impl Settings {
    /// Defaults where nothing is said; the rest within its bounds.
    ///
    /// # Errors
    /// Says which setting is bad.
    pub(in crate::config) fn validate(self) -> anyhow::Result<Config> {
        let (store, tls, jobs) = (self.store()?, self.tls()?, self.jobs()?);
        let sweep_grace = time("sweep_grace", self.sweep_grace.as_deref(), "24h")?;
        ensure!(
            sweep_grace > jobs.capture.total.saturating_add(jobs.commit),
            "`sweep_grace` must be longer than `capture_timeout` and `commit_timeout` together"
        );
        let drill_every = self.drill_every.as_deref();
        let drill_every =
            drill_every.map(|text| time("drill_every", Some(text), text)).transpose()?;
        let connections = self.connections(jobs.capture.stall)?;
        Ok(Config {
            store,
            listen: self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8635))),
            tls,
            connections,
            metrics_listen: self.metrics_listen,
            data_dir: self.data_dir.map_or_else(default_data_dir, Ok)?,
            disk_reserve_bytes: self.disk_reserve_mib.map(disk_reserve).transpose()?,
            public_url: self.public_url.map(|url| public_url(&url)).transpose()?,
            downloads_max: within("downloads_max", self.downloads_max.unwrap_or(8), 1..=256)?,
            event_streams: EventStreamLimits::new(
                within("event_streams_max", self.event_streams_max.unwrap_or(256), 1..=16_384)?,
                time("event_stream_lifetime", self.event_stream_lifetime.as_deref(), "15m")?,
            ),
            webhook_rules: WebhookRules {
                plain_http: self.webhook_http.unwrap_or(false),
                hosts: HostRules::default().with_local(self.webhook_local.unwrap_or(false)),
            },
            instance_hosts: instance_hosts(self.instance_hosts.as_deref())?,
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

    fn connections(&self, stall: Duration) -> anyhow::Result<ConnectionLimits> {
        let connections_max =
            within("connections_max", self.connections_max.unwrap_or(1024), 1..=65_536)?;
        let of_address = self.connections_per_address;
        let of_address = of_address.unwrap_or((connections_max / 4).max(OF_ADDRESS_MIN));
        let proxies = TrustedProxies {
            networks: networks(self.trusted_proxies.as_deref().unwrap_or_default())?,
            header: self.proxy_header.map(ProxyHeader::from).unwrap_or_default(),
        };
        Ok(ConnectionLimits {
            connections_max,
            of_address_max: within("connections_per_address", of_address, 1..=65_536)?,
            proxies: Arc::new(proxies),
            stall,
        })
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
            shrink: ShrinkRule::below_percent(within(
                "shrink_percent",
                self.shrink_percent.unwrap_or(10),
                0..=ShrinkRule::PERCENT_MAX,
            )?),
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
            // Two by default: what `drill_servers` is where it is left out.
            drill_servers: self.drill_servers.as_ref().map_or(2, |servers| servers.len() as u32),
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
}

/// A certificate and its key out of their files.
fn identity(certificate: Option<&Path>, key: Option<&Path>) -> anyhow::Result<Option<Identity>> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            require_private(key)?;
            Ok(Some(Identity {
                certificate_pem: read_text(certificate)?,
                key_pem: read_text(key)?.into(),
            }))
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

fn disk_reserve(mib: u64) -> anyhow::Result<u64> {
    Ok(within("disk_reserve_mib", mib, 0..=1 << 20)? << 20)
}

fn networks(texts: &[String]) -> anyhow::Result<Vec<Network>> {
    let network = |text: &String| {
        text.parse().with_context(|| format!("`trusted_proxies` is `{text}`, which is no network"))
    };
    texts.iter().map(network).collect()
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
    let ca_pem = ca_file.map(read_text).transpose()?;
    Ok(Some(Arc::new(Keystone::new(text, ca_pem.as_deref())?)))
}

fn instance_hosts(list: Option<&[String]>) -> anyhow::Result<HostRules> {
    let rules = list.unwrap_or_default().iter().map(|rule| rule.parse());
    let rules: Vec<HostRule> = rules.collect::<Result<_, _>>().context("read `instance_hosts`")?;
    Ok(HostRules::new(&rules))
}

fn webhook_trusted(ca_file: Option<&Path>) -> anyhow::Result<RootCerts> {
    let Some(path) = ca_file else { return Ok(RootCerts::WebPki) };
    trusted("webhook_ca_file", &read_text(path)?)
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
    use crate::config::PREFIX;

    fn from_toml(text: &str) -> anyhow::Result<Config> {
        toml::from_str::<Settings>(text)?.validate()
    }

    #[test]
    fn nothing_said_gives_the_documented_defaults() {
        let config = from_toml("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8635");
        assert!(config.data_dir.ends_with(".cachevault"));
        assert_eq!((config.jobs.zstd_level, config.jobs.running_max), (Some(-1), 4));
        assert_eq!(config.disk_reserve_bytes, None);
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
            ("disk_reserve_mib = 1048577", "disk_reserve_mib"),
            ("shrink_percent = 51", "shrink_percent"),
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
            ("connections_per_address = 0", "connections_per_address"),
            ("trusted_proxies = [\"proxy.example\"]", "trusted_proxies"),
            ("proxy_header = \"x-real-ip\"", "proxy_header"),
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
