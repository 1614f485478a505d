//! Structured logs on standard error.

use std::io::IsTerminal;

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

pub(crate) fn start(format: LogFormat, level: LevelFilter) -> anyhow::Result<()> {
    // What libraries say below a warning is about themselves, not about backups.
    let filter = format!("{level},sqlx=warn,hyper=warn,rustls=warn");
    let filter = EnvFilter::try_new(filter).context("make the log filter")?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
