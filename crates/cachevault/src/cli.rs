//! The client commands, and the commands that read an RDB without the service.

mod access;
mod audit;
mod client;
mod commands;
mod diff;
mod diff_table;
mod event;
mod inspect;
mod inspect_document;
mod inspect_summary;
mod output;
mod progress;
mod rdb_name;
mod rdb_pass;
mod rdb_source;
mod schedule;
mod stored_backup;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use access::{
    CredentialCommand, PolicyCommand, ProjectCommand, UserCommand, credential, policy, project,
    user,
};
pub(crate) use audit::{AuditCommand, audit};
pub(crate) use commands::{backup, drill, instance, restore, verify};
pub(crate) use diff::{DIFF_HELP, DiffOptions, diff};
pub(crate) use event::{EventCommand, event};
pub(crate) use inspect::{INSPECT_HELP, InspectOptions, inspect};
pub(crate) use schedule::{ScheduleCommand, schedule};
pub(crate) use webhook::{WebhookCommand, webhook};

use crate::terminal;

/// The format of printed results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A table for people.
    Table,
    /// JSON for programs, as in the API.
    Json,
}

/// The connection to the service.
#[derive(Debug, Args)]
pub(crate) struct ClientOptions {
    /// Data folder with credentials.json [default: ~/.cachevault]
    #[arg(long, global = true, value_name = "DIR", env = "CACHEVAULT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Credentials file, instead of the data folder's
    #[arg(long, global = true, value_name = "FILE", env = "CACHEVAULT_CREDENTIALS")]
    credentials: Option<PathBuf>,

    /// URL of the service, instead of the one in the file
    #[arg(long, global = true, value_name = "URL", env = "CACHEVAULT_ENDPOINT")]
    endpoint: Option<String>,

    /// PEM file with trusted CA certificates
    ///
    /// The default is the set of well-known authorities
    #[arg(long, global = true, value_name = "FILE", env = "CACHEVAULT_CA_FILE")]
    ca_file: Option<PathBuf>,

    /// PEM file with a client certificate and its key
    #[arg(long, global = true, value_name = "FILE", env = "CACHEVAULT_CLIENT_CERT_FILE")]
    client_cert_file: Option<PathBuf>,

    /// Format of the output
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table")]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// Register a running server
    Add(Box<AddInstance>),
    /// List the registered instances
    List,
    /// Show one instance
    Show {
        /// Name or id
        instance: String,
    },
    /// Change an instance's settings or connection
    Set(Box<SetInstance>),
    /// Remove an instance; the server itself does not change
    Remove {
        /// Name or id
        instance: String,
        /// Delete or keep its backups; required if it has any
        #[arg(long, value_name = "WHAT")]
        backups: Option<BackupsOfRemoved>,
    },
}

/// The fate of the backups of a removed instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackupsOfRemoved {
    /// Delete their files.
    Delete,
    /// Keep them until they are deleted.
    Keep,
}

/// Options of `instance set`. Omitted values stay unchanged.
#[derive(Debug, Args)]
pub(crate) struct SetInstance {
    /// Name or id
    instance: String,

    /// New name: 1 to 64 letters, digits, `_` and `-`
    #[arg(long)]
    name: Option<String>,

    /// Free text, at most 1024 characters
    #[arg(long)]
    description: Option<String>,

    /// Maintenance window: whole hours, UTC, such as `02:00-06:00`
    #[arg(long, value_name = "HOURS")]
    maintenance: Option<String>,

    /// Backup policy; `manual` keeps the plan for later
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyMode>,

    /// Days of the plan, 1 (Monday) to 7, such as `1,4`
    #[arg(long, value_name = "DAYS", value_delimiter = ',', requires_all = ["policy", "window"])]
    days: Vec<u8>,

    /// Backup window: whole hours, UTC, such as `00:00-01:00`
    #[arg(long, value_name = "HOURS", requires_all = ["policy", "days"])]
    window: Option<String>,

    /// Days of retention for the plan's backups, 1 to 7
    #[arg(long, value_name = "DAYS", requires = "policy")]
    save_days: Option<u8>,

    #[command(flatten)]
    connection: SetConnection,
}

/// A new connection. The server must answer, and it does not change.
#[derive(Debug, Args)]
pub(crate) struct SetConnection {
    /// `redis[s]://[user:password@]host[:port]`
    ///
    /// A new address requires the password again: the stored one is not sent to it
    #[arg(long)]
    url: Option<String>,

    /// ACL user; an empty text selects the default user
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// File with the new password; `-` for standard input
    ///
    /// An empty file removes the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// PEM file with trusted CA certificates
    ///
    /// An empty file selects those of the operating system
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// PEM file with the client certificate
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// PEM file with the key of the client certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
}

/// The mode of a backup policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyMode {
    /// Follow the plan.
    Auto,
    /// Only on request.
    Manual,
}

#[derive(Debug, Args)]
pub(crate) struct AddInstance {
    /// Name: 1 to 64 letters, digits, `_` and `-`
    #[arg(long)]
    name: String,

    /// `redis[s]://[user:password@]host[:port]`
    url: String,

    /// File with the password; `-` for standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// PEM file with trusted CA certificates
    ///
    /// The default is the set of the operating system
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// PEM file with the client certificate
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// PEM file with the key of the client certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Create a backup of an instance
    Create {
        /// Name or id of the instance
        instance: String,
        /// Free text, at most 128 characters
        #[arg(long)]
        note: Option<String>,
        /// Request RDB 11 from Valkey 9, for Redis 7.2 and Valkey 8
        #[arg(long)]
        portable: bool,
        /// Wait for the end and show the progress
        #[arg(long)]
        wait: bool,
    },
    /// List the backups of an instance, newest first
    List {
        /// Name or id of the instance
        instance: String,
    },
    /// Show a backup and its stored artifacts
    Show {
        /// Id of the backup
        backup: String,
    },
    /// Print download links, one line per file
    ///
    /// A link needs no other authentication until it expires
    Link {
        /// Id of the backup
        backup: String,
        /// Lifetime of the links, 5m to 24h
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires: String,
    },
    /// Cancel a waiting or running backup, and wait for its end
    Cancel {
        /// Id of the backup
        backup: String,
    },
    /// Hold a backup: it cannot be removed until its release
    Hold {
        /// Id of the backup
        backup: String,
    },
    /// Release a held backup
    Release {
        /// Id of the backup
        backup: String,
    },
    /// Delete a backup's files; the record stays listed
    Delete {
        /// Id of the backup
        backup: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    /// Restore a backup into an instance and replace its data
    Create {
        #[command(flatten)]
        wish: RestoreWish,
        /// Free text, at most 128 characters
        #[arg(long)]
        note: Option<String>,
        /// Wait for the end and show the progress
        #[arg(long)]
        wait: bool,
    },
    /// Show the plan of a restore; changes nothing
    Plan {
        #[command(flatten)]
        wish: RestoreWish,
    },
    /// List the restores into an instance, newest first
    List {
        /// Name or id of the instance
        instance: String,
    },
    /// Show one restore
    Show {
        /// Id of the restore
        restore: String,
    },
    /// Cancel a restore that has not changed its target
    Cancel {
        /// Id of the restore
        restore: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DrillOptions {
    /// Id of the backup
    backup: String,

    /// Return without waiting for the end
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// Names or ids of instances [default: all]
    instances: Vec<String>,

    /// Verify only this share, such as 2/7
    #[arg(long, value_name = "N/M")]
    subset: Option<Share>,
}

/// One of several equal shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    number: u32,
    of: u32,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(n, m)| Some((n.parse().ok()?, m.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("invalid share `{text}`: expected a value such as 2/7")),
        }
    }
}

impl Share {
    /// Whether a backup belongs to the share. The assignment is stable for a given number of
    /// shares.
    fn holds(self, id: &str) -> bool {
        let sum = id.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        sum % self.of == self.number - 1
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestoreWish {
    /// Name or id of the target instance
    instance: String,

    /// Id of the backup, also of another instance
    #[arg(long, value_name = "ID")]
    backup: String,

    /// Skip the safety backup; the restore cannot be rolled back
    #[arg(long)]
    no_safety_backup: bool,

    /// Compare the data afterwards [default: up to 256 MiB]
    #[arg(long, value_name = "BOOL")]
    prove: Option<bool>,

    /// Method: `replica` or `keys` [default: the plan chooses]
    ///
    /// With `replica` the server loads the RDB natively; with `keys` it gets a command for each key
    #[arg(long, value_name = "WAY")]
    way: Option<String>,

    /// Restore only matching keys; other keys stay
    ///
    /// The pattern has the syntax of `KEYS`
    #[arg(long, value_name = "PATTERN")]
    keys: Option<String>,

    /// Restore only keys of this database
    #[arg(long, value_name = "N")]
    database: Option<u32>,

    /// Keep the instance's data: `replace`, `skip` or `fail`
    ///
    /// The rule applies to keys that both the backup and the instance contain
    #[arg(long, value_name = "RULE")]
    merge: Option<String>,

    /// TTLs: `keep`, `shift` or `strip` [default: keep]
    ///
    /// `shift` extends them by the age of the backup
    #[arg(long, value_name = "RULE")]
    ttl: Option<String>,

    /// Keep the old data in memory until the new is loaded
    ///
    /// The default is true where the memory suffices for both
    #[arg(long, value_name = "BOOL")]
    swap: Option<bool>,

    /// Accept a backup whose content is not verified
    ///
    /// It is loaded natively, into a server of the same vendor and of at least the source's version
    #[arg(long)]
    unverified: bool,

    /// Required memory, instead of the estimate
    #[arg(long, value_name = "BYTES")]
    needed_bytes: Option<u64>,
}

/// The failure of a command. Each kind has its exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operation failed.
    Failed(String),
    /// Wrong usage.
    Usage(String),
    /// The service cannot be reached.
    Unreachable(String),
    /// The service refused the request.
    Refused(String),
}

/// Prints the outcome for people and returns the exit code for scripts.
pub(crate) fn exit(outcome: Result<(), Failure>) -> ExitCode {
    let (code, message) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (1, message),
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Unreachable(message)) => (3, message),
        Err(Failure::Refused(message)) => (4, message),
    };
    terminal::message(&format_args!("error: {message}"));
    ExitCode::from(code)
}
