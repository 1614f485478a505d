//! URLs that are told what happens.

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
    /// Have a URL told what happens in the project, and show the secret that signs it, once
    Add {
        /// `https://…`
        url: String,
        /// Kinds of events, such as `backup_failed`; give it several times
        /// [default: backup_failed, window_missed, backup_expired, disk_low]
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
    /// Have a webhook told again, of what happens from now on
    Enable {
        /// Id of the webhook
        webhook: String,
    },
    /// Have a webhook told nothing
    Disable {
        /// Id of the webhook
        webhook: String,
    },
    /// Delete a webhook
    Remove {
        /// Id of the webhook
        webhook: String,
    },
    /// Send a message that tells of nothing, and say whether it was taken
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
                Some(error) => Err(Failure::Failed(format!("the message was not taken: {error}"))),
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
