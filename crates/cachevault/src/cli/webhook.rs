//! `cachevault webhook`: delivery of events to URLs.

use clap::Subcommand;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::Client;
use super::commands::plain;
use super::output::{self, Column};
use super::{ClientOptions, Failure};

const WEBHOOK: [Column; 7] = [
    ("id", |row| output::text(&row["id"])),
    ("url", |row| output::text(&row["url"])),
    ("kinds", |row| {
        let kinds = row["kinds"].as_array().into_iter().flatten();
        kinds.map(output::text).collect::<Vec<_>>().join("\n")
    }),
    ("enabled", |row| output::text(&row["enabled"])),
    ("delivered", |row| output::seconds(&row["delivered_at"])),
    ("given up", |row| output::text(&row["given_up"])),
    ("last error", |row| output::text(&row["last_error"])),
];

#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Create a webhook and show its signing secret once
    Add {
        /// `https://…`
        url: String,
        /// Kind of events, such as `backup_failed`; repeatable
        ///
        /// The default is backup_failed, window_missed, backup_expired and disk_low
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<String>,
    },
    /// List webhooks, oldest first
    List,
    /// Show one webhook, without its secret
    Show {
        /// Id of the webhook
        webhook: String,
    },
    /// Enable a webhook; it receives only new events
    Enable {
        /// Id of the webhook
        webhook: String,
    },
    /// Disable a webhook
    Disable {
        /// Id of the webhook
        webhook: String,
    },
    /// Delete a webhook
    Remove {
        /// Id of the webhook
        webhook: String,
    },
    /// Deliver a test message
    Test {
        /// Id of the webhook
        webhook: String,
    },
}

pub(crate) fn webhook(command: WebhookCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let path = |webhook: &str| Ok::<_, Failure>(format!("/webhooks/{}", plain(webhook)?));
    let change =
        |webhook: &str, body: Value| client.call(Method::PATCH, &path(webhook)?, Some(&body));
    let webhook = match command {
        WebhookCommand::List => {
            let all = client.call(Method::GET, "/webhooks", None)?;
            output::list(options.output, &all, &WEBHOOK);
            return Ok(());
        }
        WebhookCommand::Remove { webhook } => {
            client.call(Method::DELETE, &path(&webhook)?, None)?;
            output::say(options.output, &format!("removed {webhook}"));
            return Ok(());
        }
        WebhookCommand::Test { webhook } => {
            let sent = client.call(Method::POST, &format!("{}/test", path(&webhook)?), None)?;
            output::one(options.output, &sent);
            return match sent["error"].as_str() {
                None => Ok(()),
                Some(error) => Err(Failure::Failed(format!("the delivery failed: {error}"))),
            };
        }
        WebhookCommand::Add { url, kinds } => {
            let mut body = Map::from_iter([("url".to_owned(), json!(url))]);
            if !kinds.is_empty() {
                body.insert("kinds".to_owned(), json!(kinds));
            }
            client.call(Method::POST, "/webhooks", Some(&body.into()))?
        }
        WebhookCommand::Show { webhook } => client.call(Method::GET, &path(&webhook)?, None)?,
        WebhookCommand::Enable { webhook } => change(&webhook, json!({"enabled": true}))?,
        WebhookCommand::Disable { webhook } => change(&webhook, json!({"enabled": false}))?,
    };
    output::one(options.output, &webhook);
    Ok(())
}
