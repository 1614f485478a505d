//! `cachevault schedule`: when an instance is backed up by itself, and what is kept.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::Client;
use super::commands::find_instance;
use super::{ClientOptions, Failure, output};

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Set when an instance is backed up by itself and what is kept, in place of what there was
    Set(Box<SetSchedule>),
    /// Show when an instance is backed up by itself, and when next
    Show {
        /// Name or id of the instance
        instance: String,
    },
    /// Back an instance up by itself no more; what was promised to be kept is
    Remove {
        /// Name or id of the instance
        instance: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetSchedule {
    /// Name or id of the instance
    instance: String,

    /// When windows begin, as cron has it: minute, hour, day of the month, month, day of the week,
    /// such as `30 2 * * 1-5`
    #[arg(long, required_unless_present = "days", conflicts_with = "days")]
    pattern: Option<String>,

    /// Time zone of the pattern, such as `Europe/Berlin` [default: UTC]
    #[arg(long, value_name = "NAME", requires = "pattern")]
    zone: Option<String>,

    /// How long each window lasts, 1 to 1440 minutes [default: 60]
    #[arg(long, value_name = "MINUTES", requires = "pattern")]
    window: Option<u32>,

    /// Instead of a pattern: days of the week, 1 for Monday to 7 for Sunday, such as `1,4`
    #[arg(long, value_name = "DAYS", value_delimiter = ',', requires = "hours")]
    days: Vec<u8>,

    /// The window on these days: whole hours of UTC, such as `22:00-02:00`
    #[arg(long, value_name = "HOURS", requires = "days")]
    hours: Option<String>,

    #[command(flatten)]
    keep: KeepOptions,

    /// What to do about a window in which no service ran [default: the service's setting]
    #[arg(long, value_name = "RULE")]
    missed: Option<Missed>,

    /// Keep all this for later, but do not follow it
    #[arg(long)]
    disabled: bool,
}

/// What is kept; what any of these keeps stays.
#[derive(Debug, Args)]
#[group(id = "keep", required = true, multiple = true)]
struct KeepOptions {
    /// Keep what was made in so many days, 1 to 3650
    #[arg(long, value_name = "N")]
    keep_days: Option<u32>,

    /// Keep so many of the newest
    #[arg(long, value_name = "N")]
    keep_count: Option<u32>,

    /// Keep the newest of each of so many days that have backups
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,

    /// Keep the newest of each of so many weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,

    /// Keep the newest of each of so many months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,

    /// Keep the newest of each of so many years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
}

/// What to do about a window in which no service ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Missed {
    /// Record it.
    Skip,
    /// Make the backup at once.
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
            let sentence = format!("`{instance}` is backed up only when somebody asks");
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
