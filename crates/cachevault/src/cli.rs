//! The commands: clients of the service, and those that read an RDB without it.

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

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A table for people.
    Table,
    /// JSON for programs, as the API answers.
    Json,
}

/// How to reach the service.
#[derive(Debug, Args)]
pub(crate) struct ClientOptions {
    /// Data folder of the service, whose credentials.json is used [default: ~/.cachevault]
    #[arg(long, global = true, value_name = "DIR", env = "CACHEVAULT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// File with endpoint and keys, instead of the data folder's
    #[arg(long, global = true, value_name = "FILE", env = "CACHEVAULT_CREDENTIALS")]
    credentials: Option<PathBuf>,

    /// URL of the service, instead of the one in the file
    #[arg(long, global = true, value_name = "URL", env = "CACHEVAULT_ENDPOINT")]
    endpoint: Option<String>,

    /// PEM file with the certificates to trust, instead of those of well-known authorities
    #[arg(long, global = true, value_name = "FILE", env = "CACHEVAULT_CA_FILE")]
    ca_file: Option<PathBuf>,

    /// PEM file with a certificate to present to the service, and its key
    #[arg(long, global = true, value_name = "FILE", env = "CACHEVAULT_CLIENT_CERT_FILE")]
    client_cert_file: Option<PathBuf>,

    /// How to print results
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table")]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// Adopt a running server: connects at once and says what is wrong
    Add(Box<AddInstance>),
    /// List adopted instances
    List,
    /// Show one instance
    Show {
        /// Name or id
        instance: String,
    },
    /// Change an instance's name, description, window or backup policy
    Set(Box<SetInstance>),
    /// Let an instance go; the server itself is not touched
    Remove {
        /// Name or id
        instance: String,
        /// What becomes of its backups that have files; without, nothing is done while there are any
        #[arg(long, value_name = "WHAT")]
        backups: Option<BackupsOfRemoved>,
    },
}

/// What becomes of the backups of an instance that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackupsOfRemoved {
    /// Their files are deleted, too.
    Delete,
    /// They stay until somebody deletes them.
    Keep,
}

/// What is not given stays.
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

    /// When it may be worked on: whole hours of UTC, such as `02:00-06:00`
    #[arg(long, value_name = "HOURS")]
    maintenance: Option<String>,

    /// Whether backups follow the plan; `manual` keeps it for later
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyMode>,

    /// Days of the plan, 1 for Monday to 7 for Sunday, such as `1,4`
    #[arg(long, value_name = "DAYS", value_delimiter = ',', requires_all = ["policy", "window"])]
    days: Vec<u8>,

    /// Hours of UTC in which backups of the plan begin, such as `00:00-01:00`
    #[arg(long, value_name = "HOURS", requires_all = ["policy", "days"])]
    window: Option<String>,

    /// Days for which backups of the plan are kept, 1 to 7
    #[arg(long, value_name = "DAYS", requires = "policy")]
    save_days: Option<u8>,

    #[command(flatten)]
    connection: SetConnection,
}

/// How the instance is reached; the server must answer, and nothing is changed there.
#[derive(Debug, Args)]
pub(crate) struct SetConnection {
    /// Where it is: `redis[s]://[user:password@]host[:port]`; a stored password is not sent to
    /// another address, so give it again
    #[arg(long)]
    url: Option<String>,

    /// User of the server's ACL; an empty text stands for the default user
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// File with the new password, `-` for standard input; an empty one stands for none
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// PEM file with the certificates to trust; an empty one stands for the operating system's
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// PEM file with the client certificate to present
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// PEM file with the key of the client certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
}

/// Whether backups are made by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyMode {
    /// By the plan.
    Auto,
    /// Only when somebody asks.
    Manual,
}

#[derive(Debug, Args)]
pub(crate) struct AddInstance {
    /// Name in the project: 1 to 64 letters, digits, `_` and `-`
    #[arg(long)]
    name: String,

    /// `redis[s]://[user:password@]host[:port]`
    url: String,

    /// File with the password, `-` for standard input, instead of one in the URL
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// PEM file with the certificates to trust, instead of the operating system's
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// PEM file with the client certificate to present
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// PEM file with the key of the client certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Ask for a backup of an instance
    Create {
        /// Name or id of the instance
        instance: String,
        /// Free text, at most 128 characters
        #[arg(long)]
        note: Option<String>,
        /// Ask Valkey 9 for RDB 11, which Redis 7.2 and Valkey 8 load too
        #[arg(long)]
        portable: bool,
        /// Wait for the end, with a progress bar
        #[arg(long)]
        wait: bool,
    },
    /// List the backups of an instance, newest first
    List {
        /// Name or id of the instance
        instance: String,
    },
    /// Show one backup with what is stored of it
    Show {
        /// Id of the backup
        backup: String,
    },
    /// Print links by which whoever has them downloads a backup's RDB, one line for each file
    Link {
        /// Id of the backup
        backup: String,
        /// How long they work, such as `30m`: 5 minutes to 24 hours
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires: String,
    },
    /// Break off a backup that waits or runs, and wait until that is done
    Cancel {
        /// Id of the backup
        backup: String,
    },
    /// Keep a backup: neither its policy nor anybody removes it
    Hold {
        /// Id of the backup
        backup: String,
    },
    /// Allow again that a backup is removed
    Release {
        /// Id of the backup
        backup: String,
    },
    /// Delete a backup's files; the record stays listed for a while
    Delete {
        /// Id of the backup
        backup: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    /// Restore a backup into an instance, in place of what it holds
    Create {
        #[command(flatten)]
        wish: RestoreWish,
        /// Free text, at most 128 characters
        #[arg(long)]
        note: Option<String>,
        /// Wait for the end, with a progress bar
        #[arg(long)]
        wait: bool,
    },
    /// Tell what a restore would do and what stands in its way; touches nothing
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
    /// Break off a restore that has not touched its target, and wait until that is done
    Cancel {
        /// Id of the restore
        restore: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DrillOptions {
    /// Id of the backup
    backup: String,

    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// Names or ids of instances [default: all of the project]
    instances: Vec<String>,

    /// Only this share of the backups, such as 2/7: seven runs check all of them
    #[arg(long, value_name = "N/M")]
    subset: Option<Share>,
}

/// One of so many shares.
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
            _ => Err(format!("`{text}` is no share such as 2/7")),
        }
    }
}

impl Share {
    /// Whether a backup belongs to it: always to the same, of so many.
    fn holds(self, id: &str) -> bool {
        let sum = id.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        sum % self.of == self.number - 1
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestoreWish {
    /// Name or id of the instance to restore into
    instance: String,

    /// Id of the backup; it may be of another instance
    #[arg(long, value_name = "ID")]
    backup: String,

    /// Do not back up what the instance holds first: nothing can be put back then
    #[arg(long)]
    no_safety_backup: bool,

    /// Whether to read the data back and compare it before anyone may write [default: up to 256 MiB]
    #[arg(long, value_name = "BOOL")]
    prove: Option<bool>,

    /// How the data gets in: `replica` (the server loads it natively) or `keys` (a command for each
    /// key) [default: the plan chooses]
    #[arg(long, value_name = "WAY")]
    way: Option<String>,

    /// Only keys whose names match, as `KEYS` has it; what else the instance holds stays
    #[arg(long, value_name = "PATTERN")]
    keys: Option<String>,

    /// Only keys of this database
    #[arg(long, value_name = "N")]
    database: Option<u32>,

    /// Keep what the instance holds, and of keys that both have: `replace`, `skip` or `fail`
    #[arg(long, value_name = "RULE")]
    merge: Option<String>,

    /// What becomes of times to live: `keep`, `shift` (by the time since the backup) or `strip`
    /// [default: keep]
    #[arg(long, value_name = "RULE")]
    ttl: Option<String>,

    /// Whether the server keeps its old data in memory until the new is loaded [default: where
    /// there is memory for both]
    #[arg(long, value_name = "BOOL")]
    swap: Option<bool>,

    /// Restore a backup whose content is not verified: natively, into a server of the same vendor
    /// and of at least the source's version
    #[arg(long)]
    unverified: bool,

    /// Memory that the data needs [default: an estimate from what the backup holds]
    #[arg(long, value_name = "BYTES")]
    needed_bytes: Option<u64>,
}

/// Why a command did not do what it was asked; each has an exit code of its own.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operation itself failed.
    Failed(String),
    /// Wrong usage.
    Usage(String),
    /// The service cannot be reached.
    Unreachable(String),
    /// The service refused the request.
    Refused(String),
}

/// Tells the outcome to people on standard error and to scripts by the exit code.
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
