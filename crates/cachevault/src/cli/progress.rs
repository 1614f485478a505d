//! Follows a backup or a restore to its end.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;
use ureq::http::Method;

use super::Failure;
use super::client::Client;

const POLL: Duration = Duration::from_millis(100);
/// Longest wait for the check of one backup.
const CHECK_MAX: Duration = Duration::from_hours(6);
/// The bar is the service's own percentage, which never goes back, in hundredths.
const LENGTH: u64 = 10_000;
const TEMPLATE: &str = "{prefix} [{bar:40}] {percent:>3} %  {msg}";

/// Waits until a backup has ended, showing bytes, rate and phase on standard error.
pub(crate) fn follow_backup(client: &Client, id: &str) -> Result<Value, Failure> {
    follow(client, "backup", &format!("/backups/{id}"))
}

/// Waits until a restore has ended, showing its phase on standard error.
pub(crate) fn follow_restore(client: &Client, id: &str) -> Result<Value, Failure> {
    follow(client, "restore", &format!("/restores/{id}"))
}

/// Waits until no drill of a backup is open.
pub(crate) fn follow_drill(client: &Client, id: &str) -> Result<Value, Failure> {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message("drill: loading the backup into a throw-away server");
    loop {
        let backup = client.call(Method::GET, &format!("/backups/{id}"), None)?;
        if backup["drilling"] == false {
            spinner.finish_and_clear();
            return Ok(backup);
        }
        spinner.tick();
        std::thread::sleep(POLL);
    }
}

/// Waits until a backup was checked at another time than `before`; gives the record.
pub(crate) fn follow_check(client: &Client, id: &str, before: &Value) -> Result<Value, Failure> {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message(format!("checking {id}"));
    let began = Instant::now();
    while began.elapsed() < CHECK_MAX {
        let backup = client.call(Method::GET, &format!("/backups/{id}"), None)?;
        if backup["checked_at"] != *before {
            spinner.finish_and_clear();
            return Ok(backup);
        }
        spinner.tick();
        std::thread::sleep(POLL);
    }
    Err(Failure::Failed(format!("{id} was not checked in time; see the log of the service")))
}

fn follow(client: &Client, what: &'static str, path: &str) -> Result<Value, Failure> {
    let bar = ProgressBar::new(LENGTH);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    loop {
        let record = client.call(Method::GET, path, None)?;
        show(&bar, &record);
        if !matches!(record["state"].as_str(), Some("waiting" | "running")) {
            bar.finish_and_clear();
            return Ok(record);
        }
        std::thread::sleep(POLL);
    }
}

fn show(bar: &ProgressBar, record: &Value) {
    let percent = record["progress_percent"].as_f64().unwrap_or_default();
    let phase = record["phase"].as_str().or(record["state"].as_str()).unwrap_or_default();
    bar.set_position((percent * 100.0) as u64);
    let Some(received) = record["received_bytes"].as_u64() else {
        bar.set_message(phase.to_owned());
        return;
    };
    let rate = received as f64 / bar.elapsed().as_secs_f64().max(0.001);
    bar.set_message(format!("{} at {}/s  {phase}", HumanBytes(received), HumanBytes(rate as u64)));
}
