//! `cachevault audit`: recorded calls.

use clap::{Args, Subcommand};
use serde_json::Value;
use ureq::http::Method;

use super::client::Client;
use super::{ClientOptions, Failure, output};

/// Records per request: the maximum of the service.
const PAGE: usize = 1000;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List recorded calls, newest first
    List {
        #[command(flatten)]
        period: Period,
        /// Maximum of records
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Print all recorded calls as JSON lines, oldest first
    Export {
        #[command(flatten)]
        period: Period,
    },
}

/// A period, both ends included.
#[derive(Debug, Args)]
pub(crate) struct Period {
    /// Earliest time, `yyyyMMddHHmmss`, UTC
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Latest time, `yyyyMMddHHmmss`, UTC
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

pub(crate) fn audit(command: AuditCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    match command {
        AuditCommand::List { period, limit } => {
            let path = format!("/audit?limit={limit}{}", period.query()?);
            output::list(options.output, &client.call(Method::GET, &path, None)?, &output::AUDIT);
            Ok(())
        }
        AuditCommand::Export { period } => export(&client, &period),
    }
}

fn export(client: &Client, period: &Period) -> Result<(), Failure> {
    let path = format!("/audit?order=oldest&limit={PAGE}{}", period.query()?);
    let mut marker = String::new();
    loop {
        let page = client.call(Method::GET, &format!("{path}{marker}"), None)?;
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().for_each(output::line);
        let last = items.last().and_then(|record| record["request_id"].as_str());
        match last.filter(|_| items.len() == PAGE) {
            Some(last) => marker = format!("&marker={last}"),
            None => return Ok(()),
        }
    }
}

impl Period {
    fn query(&self) -> Result<String, Failure> {
        let mut query = String::new();
        for (name, text) in [("begin_time", &self.from), ("end_time", &self.to)] {
            let Some(text) = text else { continue };
            if text.len() != 14 || !text.bytes().all(|b| b.is_ascii_digit()) {
                let reason =
                    format!("invalid time `{text}`: expected a value such as 20261121083000");
                return Err(Failure::Usage(reason));
            }
            query += &format!("&{name}={text}");
        }
        Ok(query)
    }
}

/// The caller: the user, the key, or both.
pub(super) fn who(record: &Value) -> String {
    let parts = [&record["user"], &record["access_key"]].map(Value::as_str);
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
