//! `cachevault event`: lists and follows events.

use std::io::{BufRead, Read};
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;
use ureq::http::Method;

use super::client::Client;
use super::commands::find_instance;
use super::output::{self, Column};
use super::{ClientOptions, Failure, OutputFormat};
use crate::terminal;

/// The delay before a stream is reopened.
const PAUSE: Duration = Duration::from_secs(2);
/// Maximum line length of a stream, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

const EVENT: [Column; 6] = [
    ("id", |row| output::text(&row["id"])),
    ("at", |row| output::seconds(&row["at"])),
    ("what", |row| output::text(&row["kind"])),
    ("instance", |row| output::text(&row["instance_name"])),
    ("backup", |row| output::text(&row["backup_id"])),
    ("detail", |row| output::text(&row["detail"])),
];

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List the events of the project or an instance, newest first
    List {
        /// Name or id of the instance
        instance: Option<String>,
        /// Maximum of events
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Follow events, one line each, until interrupted
    Follow {
        /// Name or id of the instance
        instance: Option<String>,
        /// Start after this event [default: new events only]
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
    },
}

pub(crate) fn event(command: EventCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let (EventCommand::List { instance, .. } | EventCommand::Follow { instance, .. }) = &command;
    let path = match instance {
        Some(instance) => format!("/instances/{}/events", find_instance(&client, instance)?),
        None => "/events".to_owned(),
    };
    match command {
        EventCommand::List { limit, .. } => {
            let path = format!("{path}?order=newest&limit={limit}");
            output::list(options.output, &client.call(Method::GET, &path, None)?, &EVENT);
            Ok(())
        }
        EventCommand::Follow { after, .. } => follow(&client, &path, after, options.output),
    }
}

fn follow(
    client: &Client,
    path: &str,
    after: Option<u64>,
    format: OutputFormat,
) -> Result<(), Failure> {
    // The start is fixed once, so that a reopened stream misses no event.
    let mut last = match after {
        Some(after) => after,
        None => {
            let newest = client.call(Method::GET, &format!("{path}?order=newest&limit=1"), None)?;
            newest["items"][0]["id"].as_u64().unwrap_or(0)
        }
    };
    let mut is_connected = false;
    loop {
        match client.open(&format!("{path}/stream"), ("last-event-id", &last.to_string())) {
            Ok(stream) => {
                is_connected = true;
                tell(stream, &mut last, format);
            }
            Err(Failure::Unreachable(reason)) if is_connected => terminal::message(&reason),
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Prints the events of a stream until it ends.
fn tell(mut stream: impl BufRead, last: &mut u64, format: OutputFormat) {
    loop {
        let mut line = String::new();
        match stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // The service writes each event as one line.
        let data = line.strip_prefix("data: ").map(serde_json::from_str::<Value>);
        let Some(Ok(event)) = data else { continue };
        *last = event["id"].as_u64().unwrap_or(*last);
        match format {
            OutputFormat::Json => output::line(&event),
            OutputFormat::Table => {
                let cells: Vec<_> = EVENT.iter().map(|(_, cell)| cell(&event)).collect();
                output::say(format, &cells.join("  "));
            }
        }
    }
}
