//! Follows a backup to its end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use ureq::http::Method;

use super::Failure;
use super::client::Client;

const POLL: Duration = Duration::from_millis(200);
const TEMPLATE: &str =
    "{prefix} [{bar:40}] {percent:>3} %  {bytes} at {binary_bytes_per_sec}  {msg}";

/// Waits until a backup has ended, showing bytes, rate and phase on standard error.
pub(crate) fn follow(client: &Client, id: &str) -> Result<Value, Failure> {
    let bar = ProgressBar::new(100);
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
    let received = backup["received_bytes"].as_u64().unwrap_or_default();
    let percent = backup["progress_percent"].as_f64().unwrap_or_default();
    // The bar counts bytes; its length is what the service's own percentage makes of them.
    if percent >= 0.01 && received > 0 {
        bar.set_length((received as f64 * 100.0 / percent) as u64);
    }
    bar.set_position(received);
    bar.set_message(
        backup["phase"].as_str().or(backup["state"].as_str()).unwrap_or_default().to_owned(),
    );
}
