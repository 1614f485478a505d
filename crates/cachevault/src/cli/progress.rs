//! Waits for the end of operations and shows their progress.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;
use ureq::http::Method;

use super::Failure;
use super::client::Client;

const POLL: Duration = Duration::from_millis(100);
/// Timeout for the verification of one backup.
const CHECK_MAX: Duration = Duration::from_hours(6);
/// The bar shows the service's percentage in hundredths, which never decreases.
const LENGTH: u64 = 10_000;
const TEMPLATE: &str = "{prefix} [{bar:40}] {percent:>3} %  {msg}";

/// Waits for the end of a backup. Shows bytes, rate and phase on standard error.
pub(crate) fn follow_backup(client: &Client, id: &str) -> Result<Value, Failure> {
    follow(client, "backup", &format!("/backups/{id}"))
}

/// Waits for the end of a restore. Shows its phase on standard error.
pub(crate) fn follow_restore(client: &Client, id: &str) -> Result<Value, Failure> {
    follow(client, "restore", &format!("/restores/{id}"))
}

/// Waits for the end of a backup's drill.
pub(crate) fn follow_drill(client: &Client, id: &str) -> Result<Value, Failure> {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message("drill: restoring into a temporary server");
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

/// The result of a requested verification.
pub(crate) enum Checked {
    /// The verification is done.
    Done(Value),
    /// The verification did not run, with the reason.
    Not(String),
    /// The backup has no files any more.
    Gone,
}

/// Waits for the verification that was requested with the answer `wish`. `before` is the record
/// before the request.
pub(crate) fn follow_check(
    client: &Client,
    before: &Value,
    wish: &Value,
) -> Result<Checked, Failure> {
    let id = before["id"].as_str().unwrap_or_default();
    let spinner = ProgressBar::new_spinner();
    spinner.set_message(format!("verifying {id}"));
    let began = Instant::now();
    let (mut backup, mut outcome) = (wish.clone(), None);
    while outcome.is_none() && began.elapsed() < CHECK_MAX {
        outcome = outcome_of_check(&backup, before, wish);
        if outcome.is_none() {
            spinner.tick();
            std::thread::sleep(POLL);
            match client.call_if_there(Method::GET, &format!("/backups/{id}"))? {
                Some(found) => backup = found,
                None => outcome = Some(Checked::Gone),
            }
        }
    }
    spinner.finish_and_clear();
    let too_long = || Checked::Not("timeout; see the log of the service".to_owned());
    Ok(outcome.unwrap_or_else(too_long))
}

/// The result of the verification according to the current record; `None` while it is pending.
fn outcome_of_check(now: &Value, before: &Value, wish: &Value) -> Option<Checked> {
    let wished = &now["check_requested_at"];
    if !wished.is_null() && *wished == wish["check_requested_at"] {
        return now["store_error"].as_str().map(|reason| Checked::Not(reason.to_owned()));
    }
    let was_made = now["checked_at"] != before["checked_at"];
    Some(if was_made { Checked::Done(now.clone()) } else { Checked::Gone })
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
