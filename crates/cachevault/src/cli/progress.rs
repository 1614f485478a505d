//! Follows a backup to its end.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;
use ureq::http::Method;

use super::Failure;
use super::client::Client;

const POLL: Duration = Duration::from_millis(100);
/// The bar is the service's own percentage, which never goes back, in hundredths.
const LENGTH: u64 = 10_000;
const TEMPLATE: &str = "{prefix} [{bar:40}] {percent:>3} %  {msg}";

/// Waits until a backup has ended, showing bytes, rate and phase on standard error.
pub(crate) fn follow(client: &Client, id: &str) -> Result<Value, Failure> {
    let bar = ProgressBar::new(LENGTH);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix("backup");
    loop {
        let backup = client.call(Method::GET, &format!("/backups/{id}"), None)?;
        show(&bar, &backup);
        if !matches!(backup["state"].as_str(), Some("waiting" | "running")) {
            bar.finish_and_clear();
            return Ok(backup);
        }
        std::thread::sleep(POLL);
    }
}

fn show(bar: &ProgressBar, backup: &Value) {
    let percent = backup["progress_percent"].as_f64().unwrap_or_default();
    let received = backup["received_bytes"].as_u64().unwrap_or_default();
    let rate = received as f64 / bar.elapsed().as_secs_f64().max(0.001);
    let phase = backup["phase"].as_str().or(backup["state"].as_str()).unwrap_or_default();
    bar.set_position((percent * 100.0) as u64);
    bar.set_message(format!("{} at {}/s  {phase}", HumanBytes(received), HumanBytes(rate as u64)));
}
