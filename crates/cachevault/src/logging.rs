//! Structured logs on standard error, one line each whatever they tell of.

use std::io::{self, Write};

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;
use crate::terminal::in_one_line;

pub(crate) fn start(format: LogFormat, level: LevelFilter) -> anyhow::Result<()> {
    // What libraries say below a warning is about themselves, not about backups.
    let filter = format!("{level},sqlx=warn,hyper=warn,rustls=warn");
    let filter = EnvFilter::try_new(filter).context("make the log filter")?;
    let builder = fmt().with_env_filter(filter).with_writer(|| Lines).with_target(false);
    match format {
        // Colours are made of what is escaped.
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Standard error, for whole lines. What they say of others, such as the error of a server, neither
/// commands a terminal nor looks like another line.
struct Lines;

impl Write for Lines {
    /// Takes one event, as the subscriber writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = in_one_line(text.strip_suffix('\n').unwrap_or(&text));
        io::stderr().lock().write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
