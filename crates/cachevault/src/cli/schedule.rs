//! `cachevault schedule`: the backup policy of an instance.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::Client;
use super::commands::find_instance;
use super::{ClientOptions, Failure, output};

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Set an instance's backup schedule and retention
    Set(Box<SetSchedule>),
    /// Show an instance's backup schedule and next window
    Show {
        /// Name or id of the instance
        instance: String,
    },
    /// Remove an instance's backup schedule
    Remove {
        /// Name or id of the instance
        instance: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetSchedule {
    /// Name or id of the instance
    instance: String,

    /// Start of windows as a cron pattern, such as `30 2 * * 1-5`
    ///
    /// The fields are minute, hour, day of the month, month, day of the week
    #[arg(long, required_unless_present = "days", conflicts_with = "days")]
    pattern: Option<String>,

    /// Time zone of the pattern [default: UTC]
    #[arg(long, value_name = "NAME", requires = "pattern")]
    zone: Option<String>,

    /// Length of each window, 1 to 1440 minutes [default: 60]
    #[arg(long, value_name = "MINUTES", requires = "pattern")]
    window: Option<u32>,

    /// Days instead of a pattern: 1 (Monday) to 7, such as `1,4`
    #[arg(long, value_name = "DAYS", value_delimiter = ',', requires = "hours")]
    days: Vec<u8>,

    /// Window on these days: whole hours, UTC, such as `22:00-02:00`
    #[arg(long, value_name = "HOURS", requires = "days")]
    hours: Option<String>,

    #[command(flatten)]
    keep: KeepOptions,

    /// Action for a missed window [default: the service's setting]
    #[arg(long, value_name = "RULE")]
    missed: Option<Missed>,

    /// Store the policy without following it
    #[arg(long)]
    disabled: bool,
}

/// Retention rules. A backup is kept while any rule keeps it.
#[derive(Debug, Args)]
#[group(id = "keep", required = true, multiple = true)]
struct KeepOptions {
    /// Keep backups of the last N days, 1 to 3650
    #[arg(long, value_name = "N")]
    keep_days: Option<u32>,

    /// Keep the N newest backups
    #[arg(long, value_name = "N")]
    keep_count: Option<u32>,

    /// Keep the newest backup of N days with backups
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,

    /// Keep the newest backup of N weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,

    /// Keep the newest backup of N months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,

    /// Keep the newest backup of N years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
}

/// The action for a missed window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Missed {
    /// Record the missed window.
    Skip,
    /// Create the backup at once.
    CatchUp,
}

pub(crate) fn schedule(command: ScheduleCommand, options: &ClientOptions) -> Result<(), Failure> {
    let client = Client::new(options)?;
    let path = |instance: &str| {
        find_instance(&client, instance).map(|id| format!("/instances/{id}/policy"))
    };
    match command {
        ScheduleCommand::Set(wish) => {
            let set = client.call(Method::PUT, &path(&wish.instance)?, Some(&body(&wish)))?;
            output::one(options.output, &set);
        }
        ScheduleCommand::Show { instance } => {
            let found = client.call(Method::GET, &path(&instance)?, None)?;
            output::one(options.output, &found);
        }
        ScheduleCommand::Remove { instance } => {
            client.call(Method::DELETE, &path(&instance)?, None)?;
            let sentence = format!("`{instance}` has no backup schedule any more");
            output::say(options.output, &sentence);
        }
    }
    Ok(())
}

fn body(wish: &SetSchedule) -> Value {
    let SetSchedule { pattern, zone, window, days, hours, keep, .. } = wish;
    let mut body = json!({
        "enabled": !wish.disabled,
        "keep": {
            "days": keep.keep_days,
            "count": keep.keep_count,
            "daily": keep.keep_daily,
            "weekly": keep.keep_weekly,
            "monthly": keep.keep_monthly,
            "yearly": keep.keep_yearly,
        },
        "missed": wish.missed.map(|missed| match missed {
            Missed::Skip => "skip",
            Missed::CatchUp => "catch_up",
        }),
    });
    match pattern {
        Some(pattern) => {
            body["schedule"] = json!({"pattern": pattern});
            if let Some(zone) = zone {
                body["schedule"]["zone"] = json!(zone);
            }
            if let Some(minutes) = window {
                body["schedule"]["window_minutes"] = json!(minutes);
            }
        }
        None => body["weekly"] = json!({"days": days, "hours": hours}),
    }
    body
}
